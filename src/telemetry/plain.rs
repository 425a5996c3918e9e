//! Text without sequences for a terminal.
//!
//! Engines colour their lines; text of a stranger in their output can also move
//! the cursor, set the title or fill the clipboard of the person who looks at it.

use std::borrow::Cow;

/// The text without escape sequences and control characters; tabs and line feeds
/// stay.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_bad) {
        let (before, after) = rest.split_at(start);
        kept.push_str(before);
        let mut characters = after.chars();
        rest = match characters.next() {
            Some('\u{1b}') => after_escape(characters.as_str()),
            Some('\u{9b}') => after_control(characters.as_str()),
            Some('\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => after_string(characters.as_str()),
            _ => characters.as_str(),
        };
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

fn is_bad(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

/// Rest of a text after a sequence whose escape character was taken off.
fn after_escape(text: &str) -> &str {
    let mut characters = text.chars();
    match characters.next() {
        Some('[') => after_control(characters.as_str()),
        Some('P' | 'X' | ']' | '^' | '_') => after_string(characters.as_str()),
        // With intermediate bytes, as the choice of a set of characters.
        Some(' '..='/') => {
            let rest = text.trim_start_matches(|c| (' '..='/').contains(&c));
            let mut characters = rest.chars();
            match characters.next() {
                Some('0'..='~') => characters.as_str(),
                _ => rest,
            }
        }
        Some('0'..='~') => characters.as_str(),
        _ => text,
    }
}

/// Rest of a text after parameters and the byte that ends them.
fn after_control(text: &str) -> &str {
    let rest = text.trim_start_matches(|c| (' '..='?').contains(&c));
    let mut characters = rest.chars();
    match characters.next() {
        Some('@'..='~') => characters.as_str(),
        // Broken off: the rest is text again.
        _ => rest,
    }
}

/// Rest of a text after a string for the terminal; one that is not ended goes to the end
/// of the line.
fn after_string(text: &str) -> &str {
    let is_end = |c| matches!(c, '\u{7}' | '\u{9c}' | '\u{1b}' | '\n');
    let Some(end) = text.find(is_end) else {
        return "";
    };
    let rest = text.get(end..).unwrap_or_default();
    if rest.starts_with('\n') {
        return rest;
    }
    let ended = rest.strip_prefix("\u{1b}\\");
    ended.unwrap_or_else(|| {
        let mut characters = rest.chars();
        match characters.next() {
            // A sequence of its own.
            Some('\u{1b}') => rest,
            _ => characters.as_str(),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_speaks_to_a_terminal_goes_and_the_words_stay() {
        for (text, wanted) in [
            ("plain \u{e4}\ttab\nline", "plain \u{e4}\ttab\nline"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            (
                "\u{1b}[38;5;208m(EngineCore pid=7)\u{1b}[0;0m up",
                "(EngineCore pid=7) up",
            ),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]52;c;c3RlYWw=\u{1b}\\b", "ab"),
            ("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "alink"),
            ("a\u{1b}]0;unended\nb", "a\nb"),
            ("a\u{1b}(Bb\u{1b}cc\u{1b}7d", "abcd"),
            ("a\u{9b}2Jb\u{9d}0;t\u{9c}c", "abc"),
            ("over\rwritten\u{8}\u{0}", "overwritten"),
            ("cut \u{1b}[3", "cut "),
            ("cut \u{1b}", "cut "),
        ] {
            assert_eq!(plain(text), wanted, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_any_text_speaks_to_a_terminal(text in "[\\x00-\\x9f\\PC]{0,60}") {
            let once = plain(&text);
            prop_assert!(!once.contains(is_bad));
            prop_assert_eq!(&plain(&once), &once);
        }
    }
}
