//! Splits a raw command line into words, as a shell would, without one.
//!
//! Quotes and backslashes group; nothing is expanded: `$`, backticks, `*`, `~`,
//! `;` and `|` are plain characters, so a word is what vLLM gets, byte for byte.

/// Most words of a command line.
const WORDS_MAX: usize = 512;

/// Splits a line into words.
///
/// White space and line breaks separate words (a line may be pasted with `\` at
/// its ends). Inside `'…'` all is literal; inside `"…"` a backslash escapes `"`
/// and `\`; outside, it escapes the next character.
///
/// # Errors
///
/// A sentence: an open quote, a backslash at the end, a control character.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                // A continued line.
                Some('\n') => {}
                Some('\r') if chars.as_str().starts_with('\n') => {}
                Some(next) if !next.is_control() => word.get_or_insert_default().push(next),
                Some(_) => return Err(CONTROL.to_owned()),
                None => return Err("a backslash stands at the end: nothing follows it".to_owned()),
            },
            c if c.is_control() => return Err(CONTROL.to_owned()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.len() > WORDS_MAX {
        return Err(format!("there are more than {WORDS_MAX} arguments"));
    }
    Ok(words)
}

const CONTROL: &str = "the arguments hold a control character; write plain text";

fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(c @ ('"' | '\\')) => word.push(c),
                Some(c) if !c.is_control() => {
                    word.push('\\');
                    word.push(c);
                }
                Some(_) => return Err(CONTROL.to_owned()),
                None => break,
            },
            c if c.is_control() => return Err(CONTROL.to_owned()),
            c => word.push(c),
        }
    }
    Err(format!("a quote {quote} is opened and never closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_as_in_a_shell_and_nothing_is_expanded() {
        for (line, words) in [
            ("", vec![]),
            ("  --a  b ", vec!["--a", "b"]),
            ("--a 'b c' \"d e\"", vec!["--a", "b c", "d e"]),
            (r#"--j '{"a": "b"}'"#, vec!["--j", r#"{"a": "b"}"#]),
            (r#"--j "{\"a\": 1}""#, vec!["--j", r#"{"a": 1}"#]),
            (r"a\ b \'c \\", vec!["a b", "'c", r"\"]),
            ("--a \\\n --b", vec!["--a", "--b"]),
            ("--a\n--b", vec!["--a", "--b"]),
            ("--empty '' \"\"", vec!["--empty", "", ""]),
            ("x'y'\"z\"", vec!["xyz"]),
            (
                "$(id) `id` $HOME ; rm -rf * | cat > x & ~ #",
                vec![
                    "$(id)", "`id`", "$HOME", ";", "rm", "-rf", "*", "|", "cat", ">", "x", "&",
                    "~", "#",
                ],
            ),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
    }

    #[test]
    fn open_quotes_and_control_characters_are_refused() {
        for line in [
            "'",
            "\"",
            "--a 'b",
            "--a \"b",
            "--a \\",
            "\"\\",
            "a\0b",
            "'a\nb'",
            "\"a\0\"",
            "\\\0",
            "\u{1b}[1m",
        ] {
            assert!(split(line).is_err(), "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn quoting_is_undone(words: Vec<String>) {
            let plain: Vec<String> = words
                .into_iter()
                .map(|word| word.chars().filter(|c| !c.is_control()).collect())
                .collect();
            let line: Vec<String> = plain
                .iter()
                .map(|word: &String| format!("'{}'", word.replace('\'', r"'\''")))
                .collect();
            proptest::prop_assert_eq!(split(&line.join(" ")).unwrap(), plain);
        }

        #[test]
        fn no_word_holds_a_control_character(line: String) {
            if let Ok(words) = split(&line) {
                proptest::prop_assert!(words.iter().flat_map(|w| w.chars()).all(|c| !c.is_control()));
            }
        }
    }
}
