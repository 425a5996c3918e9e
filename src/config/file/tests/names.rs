//! Names with parameters of their own, by themselves.

use super::*;

const ROUTE: &str = "[route]\nname = \"r\"\nmodels = [\"m\"]\n[[upstream]]\nurl = \"http://a\"\n";

fn names(text: &str) -> Vec<(String, Vec<String>)> {
    let text = format!("{ROUTE}{text}");
    let parts = parsed("a.toml", text.as_bytes()).unwrap();
    let names = parts.names.iter().map(|draft| {
        let rules = draft.rules.iter();
        (
            draft.name.value.to_string(),
            rules.map(crate::openai::rules::Rule::words).collect(),
        )
    });
    names.collect()
}

#[test]
fn rules_are_read_by_dotted_keys_however_they_are_written() {
    let expected = vec![(
        "fast".to_owned(),
        vec![
            "chat_template_kwargs.enable_thinking = false".to_owned(),
            "temperature = 0.25".to_owned(),
            "stop = [\"a\",{\"b\":1}] where it is missing".to_owned(),
            "max_tokens at most 4096".to_owned(),
            "logprobs taken out".to_owned(),
        ],
    )];
    for set in [
        "set.\"chat_template_kwargs.enable_thinking\" = false\nset.temperature = 0.25",
        "set.chat_template_kwargs.enable_thinking = false\nset.temperature = 0.25",
        "set = { chat_template_kwargs = { enable_thinking = false }, temperature = 0.25 }",
    ] {
        let text = format!(
            "[[name]]\nname = \"fast\"\nof = \"m\"\n{set}\ndefault.stop = [\"a\", {{ b = 1 }}]\n\
             drop = [\"logprobs\"]\nmax = {{ max_tokens = 4096 }}\n"
        );
        let mut found = names(&text);
        found[0].1[..2].sort();
        assert_eq!(found, expected, "{set}");
    }
    assert_eq!(
        names("[[name]]\nname = \"same\"\nof = \"m\""),
        [("same".to_owned(), Vec::new())]
    );
}

#[test]
fn what_can_not_be_ruled_is_told_with_its_line() {
    for (keys, told) in [
        (
            "set.model = \"x\"",
            "10: name.set.model: \"model\" is the client's",
        ),
        (
            "default.stream = true",
            "10: name.default.stream: \"stream\" is",
        ),
        ("drop = [\"messages\"]", "10: name.drop: \"messages\" is"),
        (
            "max.stream_options.x = 1",
            "10: name.max.stream_options.x: ",
        ),
        (
            "set.a = 2024-01-01",
            "10: name.set.a: write a text in quotes",
        ),
        ("set.a = inf", "10: name.set.a: write a finite number"),
        ("set.a = {}\n", ""),
        ("set = 1", "10: name.set: write a table here"),
        ("max.a = \"1\"", "10: name.max.a: write a number"),
        (
            "max.max_tokens = 0",
            "10: name.max.max_tokens: write a whole number",
        ),
        ("drop = [1]", "10: name.drop: write texts in quotes"),
        (
            "set.a = 1\ndrop = [\"a\"]",
            "11: name.drop: another rule of this name has \"a\"",
        ),
        (
            "set.a = 1\ndrop = [\"a.b\"]",
            "11: name.drop: \"a.b\" and another rule of this name lie one within",
        ),
        (
            "set.a.b.c.d.e = 1",
            "10: name.set.a.b.c.d.e: write a key of 1 to 4",
        ),
        ("set.\"\" = 1", "10: name.set.: write a key of 1 to 4"),
        ("set.chat_template = \"x\"", "10: name.set.chat_template: "),
        (
            "set.x = [{ image_url = \"http://a\" }]",
            "10: name.set.x: this value brings media",
        ),
        (
            "sett = 1",
            "10: name.sett: this key is unknown in [name]: did you mean \"set\"?",
        ),
    ] {
        let text = format!("{ROUTE}\n[[name]]\nname = \"fast\"\nof = \"m\"\n{keys}\n");
        let errors = match parsed("a.toml", text.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(_) => errors("a.toml", &text),
        };
        assert_eq!(
            errors.len(),
            usize::from(!told.is_empty()),
            "{keys}: {errors:?}"
        );
        assert!(
            errors.iter().all(|error| error.starts_with(told)),
            "{keys}: {errors:?}"
        );
    }
}

#[test]
fn names_of_one_file_are_told_apart_and_stand_one_level_deep() {
    for (names, told) in [
        (
            "[[name]]\nname = \"a\"\nof = \"a\"\n",
            vec!["8: name.of: \"a\" can't stand for itself"],
        ),
        (
            "[[name]]\nname = \"a\"\nof = \"b\"\n[[name]]\nname = \"b\"\nof = \"a\"\n",
            vec![
                "8: name.of: \"b\" is a [[name]] too, and one name can't stand for another",
                "11: name.of: \"a\" is a [[name]] too",
            ],
        ),
        (
            "[[name]]\nname = \"a\"\nof = \"m\"\n[[name]]\nname = \"a\"\nof = \"m\"\n",
            vec!["10: name.name: \"a\" stands in line 7 too"],
        ),
        (
            "[[name]]\nname = \"a*\"\nof = \"m*\"\n",
            vec![
                "7: name.name: write one name here, without a *",
                "8: name.of: write one name here, without a *",
            ],
        ),
        (
            "[[name]]\n",
            vec![
                "6: name.name: this is missing",
                "6: name.of: this is missing",
            ],
        ),
    ] {
        let errors = errors("a.toml", &format!("{ROUTE}{names}"));
        assert_eq!(errors.len(), told.len(), "{names}: {errors:?}");
        for (error, told) in errors.iter().zip(told) {
            assert!(error.starts_with(told), "{error}");
        }
    }
    let many: Vec<String> = (0..65)
        .map(|n| format!("[[name]]\nname = \"n{n}\"\nof = \"m\"\n"))
        .collect();
    let errors = errors("a.toml", &format!("{ROUTE}{}", many.concat()));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("at most 64 names"), "{errors:?}");
}
