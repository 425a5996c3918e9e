//! The table's own rules, and what sets accept.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::row::{Form, Home, OptionScope, ValueKind};
use super::value::{SecretSource, SecretText, Value};
use super::{OPTIONS, OptionSet, SetBy, find, find_label};
use crate::vllm::versions::Version;

fn parse(raw: Json) -> Result<OptionSet, Vec<super::OptionError>> {
    let Json::Object(map) = raw else {
        panic!("a table")
    };
    OptionSet::parse(OptionScope::Both, &map)
}

fn one(name: &str, raw: Json) -> Result<Value, String> {
    let mut map = Map::new();
    map.insert(name.to_owned(), raw);
    match OptionSet::parse(OptionScope::Both, &map) {
        Ok(set) => Ok(set.get(name).unwrap().clone()),
        Err(errors) => Err(errors.into_iter().next().unwrap().message),
    }
}

#[test]
fn every_option_of_the_form_has_its_row() {
    let mut seen = BTreeSet::new();
    for row in OPTIONS {
        for (number, label) in row.form {
            assert!(seen.insert(*number), "{number} stands twice");
            assert!(!label.is_empty(), "{number}");
        }
    }
    assert_eq!(seen, (1..=110).collect());
    // Listed twice in the form: trust_remote_code and guided_decoding_backend.
    assert_eq!(OPTIONS.len(), 108);
}

#[test]
fn names_are_snake_case_and_unique() {
    let mut names = HashSet::new();
    for row in OPTIONS {
        assert!(names.insert(row.name), "{} stands twice", row.name);
        let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(row.name.chars().all(snake), "{}", row.name);
        assert!(std::ptr::eq(find(row.name).unwrap(), row));
    }
}

#[test]
fn labels_are_unique_and_garbled_ones_are_aliases() {
    let mut labels = HashSet::new();
    for row in OPTIONS {
        assert!(labels.insert(row.label), "{} stands twice", row.label);
    }
    let garbled = find("max_seq_len_to_capture").unwrap();
    assert_eq!(
        garbled.aliases().collect::<Vec<_>>(),
        ["Speculative Draft Tensor Parallel Size"]
    );
    // The label belongs to the row that it describes.
    assert_eq!(
        find_label("gpus (tensor parallel size) ").unwrap().name,
        "tensor_parallel_size"
    );
}

#[test]
fn every_row_is_documented() {
    for row in OPTIONS {
        assert!(
            row.help.len() > 15 && row.help.ends_with('.'),
            "{}",
            row.name
        );
        assert!(
            row.help.starts_with(|c: char| c.is_uppercase()),
            "{}",
            row.name
        );
        assert!(
            row.label
                .starts_with(|c: char| c.is_uppercase() || c == 'v'),
            "{}",
            row.name
        );
    }
}

#[test]
fn spans_of_versions_are_closed_and_in_order() {
    for row in OPTIONS {
        assert_eq!(
            row.spans.first().unwrap().since,
            Version::MIN,
            "{}",
            row.name
        );
        assert_eq!(
            row.spans.last().unwrap().until,
            Version::MAX,
            "{}",
            row.name
        );
        for pair in row.spans.windows(2) {
            assert_eq!(pair[0].until, pair[1].since, "{}", row.name);
        }
        for span in row.spans {
            assert!(span.since < span.until, "{}", row.name);
            if let Form::Removed { after, by, .. } = span.form {
                assert!(after < by && by == span.since, "{}", row.name);
            }
        }
    }
}

#[test]
fn forms_fit_the_kind_of_their_row() {
    for row in OPTIONS {
        for span in row.spans {
            let fits = match span.form {
                Form::Switch(_) | Form::NoSwitch(_) | Form::BoolValue(_) => {
                    matches!(row.kind, ValueKind::Switch | ValueKind::TriState)
                }
                Form::Json(_) => matches!(row.kind, ValueKind::Json | ValueKind::Counts),
                Form::Counts(_) => row.kind == ValueKind::Counts,
                Form::List(_) | Form::Append(_) => {
                    matches!(row.kind, ValueKind::List | ValueKind::Adapters)
                }
                Form::Commas(_) => row.kind == ValueKind::Numbers,
                Form::Value(_) => matches!(
                    row.kind,
                    ValueKind::Integer { .. }
                        | ValueKind::Tokens
                        | ValueKind::Float { .. }
                        | ValueKind::Gibibytes
                        | ValueKind::Text
                        | ValueKind::Choice(_)
                        | ValueKind::Open(_)
                ),
                Form::Env(_) => matches!(
                    row.kind,
                    ValueKind::TriState | ValueKind::Secret | ValueKind::Choice(_)
                ),
                Form::Tidegate(_) => row.owner != SetBy::Vllm || row.name == "model",
                Form::Translated(_) | Form::Removed { .. } => true,
            };
            assert!(fits, "{}: {:?} does not fit", row.name, span.form);
            if let Some(flag) = span.form.flag() {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                assert!(flag.starts_with("--") && flag.chars().all(plain), "{flag}");
            }
        }
        if row.kind == ValueKind::Secret {
            let env = row
                .spans
                .iter()
                .all(|span| matches!(span.form, Form::Env(_)));
            assert!(env, "{}: a secret goes to the environment only", row.name);
        }
    }
}

#[test]
fn choices_are_plain_unique_and_only_where_they_belong() {
    for row in OPTIONS {
        let (ValueKind::Choice(choices) | ValueKind::Open(choices)) = row.kind else {
            assert!(row.synonyms.is_empty(), "{} has synonyms", row.name);
            continue;
        };
        assert!(!choices.is_empty(), "{}", row.name);
        let unique: HashSet<_> = choices.iter().collect();
        assert_eq!(unique.len(), choices.len(), "{}", row.name);
        for choice in choices {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            assert!(choice.chars().all(plain), "{}: {choice}", row.name);
        }
        for (other, meant) in row.synonyms {
            assert!(
                choices.contains(meant) && !choices.contains(other),
                "{other}"
            );
        }
    }
}

#[test]
fn every_example_is_a_legal_value_and_reads_back() {
    for row in OPTIONS {
        let example: Json = serde_json::from_str(row.example).unwrap();
        let value = super::value::parse(row, &example).unwrap();
        assert_eq!(
            super::value::parse(row, &value.to_json()).unwrap(),
            value,
            "{}",
            row.name
        );
        for span in row.spans {
            if let Form::Removed {
                neutral: Some(neutral),
                ..
            } = span.form
            {
                let neutral: Json = serde_json::from_str(neutral).unwrap();
                let value = super::value::parse(row, &neutral).unwrap();
                assert_eq!(value.to_json(), neutral, "{}: not as it is kept", row.name);
            }
        }
    }
}

#[test]
fn all_errors_come_at_once_with_the_nearest_name() {
    let errors = parse(json!({
        "dtyp": "auto",
        "gpu_memory_utilization": 1.5,
        "enforce_eager": "yes",
        "max_num_seqs": 0,
        "model": "x",
        "Block Size": 16,
        "--max-model-len": 5,
        "seed": 1,
    }))
    .unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 7, "{text:#?}");
    for part in [
        "dtyp: there is no such option; did you mean dtype?",
        "gpu_memory_utilization: write a number from 0.01 to 1 instead of 1.5",
        "enforce_eager: write true or false instead of \"yes\"",
        "max_num_seqs: write a whole number from 1 to 1000000 instead of 0",
        "model: it is not an engine option: write it as deployment.model",
        "--max-model-len: write the option's name: max_model_len",
    ] {
        assert!(
            text.iter().any(|line| line.starts_with(part)),
            "{part}: {text:#?}"
        );
    }
}

#[test]
fn an_option_stands_only_in_the_table_of_its_scope() {
    let table = |name: &str| {
        let mut map = Map::new();
        map.insert(name.to_owned(), json!("main"));
        map
    };
    assert!(OptionSet::parse(OptionScope::Deployment, &table("revision")).is_ok());
    let errors = OptionSet::parse(OptionScope::Instance, &table("revision")).unwrap_err();
    assert_eq!(errors[0].message, "write it as deployment.options.revision");
}

#[test]
fn the_deployments_options_win_over_the_instances() {
    let instance = parse(json!({"dtype": "float16", "seed": 1})).unwrap();
    let deployment = parse(json!({"dtype": "bfloat16", "max_num_seqs": 4})).unwrap();
    let merged = instance.merge(&deployment);
    assert_eq!(
        merged,
        parse(json!({"dtype": "bfloat16", "seed": 1, "max_num_seqs": 4})).unwrap()
    );
    assert_eq!(merged.get_text("dtype"), Some("bfloat16"));
    assert_eq!(merged.get_integer("max_num_seqs"), Some(4));
}

#[test]
fn values_are_read_in_every_form_that_people_write() {
    for (name, raw, value) in [
        ("max_model_len", json!("32K"), Value::Integer(32_768)),
        ("max_model_len", json!("25.6k"), Value::Integer(25_600)),
        ("max_model_len", json!("auto"), Value::Integer(-1)),
        ("cpu_offload_gb", json!("512MiB"), Value::Float(0.5)),
        ("cpu_offload_gb", json!(10), Value::Float(10.0)),
        (
            "kv_cache_dtype",
            json!("ffp8_e5m2"),
            Value::Text("fp8_e5m2".into()),
        ),
        ("load_format", json!("Dummy"), Value::Text("dummy".into())),
        (
            "long_lora_scaling_factors",
            json!("2.0, 4"),
            Value::Numbers(vec![2.0, 4.0]),
        ),
        (
            "ignore_patterns",
            json!("a/*, b"),
            Value::List(vec!["a/*".into(), "b".into()]),
        ),
    ] {
        assert_eq!(one(name, raw.clone()), Ok(value), "{name} = {raw}");
    }
    let counts = Value::Json(
        json!({"image": 16, "video": 2})
            .as_object()
            .unwrap()
            .clone(),
    );
    for raw in [
        json!("image=16,video=2"),
        json!({"image": 16, "video": 2}),
        json!(r#"{"image": 16, "video": 2}"#),
    ] {
        assert_eq!(one("limit_mm_per_prompt", raw), Ok(counts.clone()));
    }
    let modules = Value::List(vec!["a=/x".into(), "b=/y".into()]);
    for raw in [
        json!("a=/x, b=/y"),
        json!(["a=/x", "b=/y"]),
        json!({"a": "/x", "b": "/y"}),
        json!([{"name": "a", "path": "/x"}, "b=/y"]),
    ] {
        assert_eq!(one("lora_modules", raw), Ok(modules.clone()));
    }
}

#[test]
fn adapters_are_known_by_name_once_lora_is_on() {
    let modules = json!([{"name": "a", "path": "/x", "base_model_name": "base"}, "b=/y=z"]);
    let set = parse(json!({"lora_modules": modules, "enable_lora": true})).unwrap();
    assert_eq!(
        set.adapters(),
        [("a".into(), "/x".into()), ("b".into(), "/y=z".into())]
    );
    assert!(
        parse(json!({"lora_modules": modules}))
            .unwrap()
            .adapters()
            .is_empty()
    );
}

#[test]
fn wrong_values_are_refused() {
    for (name, raw) in [
        ("lora_dtype", json!("float32")),
        ("max_model_len", json!(0)),
        ("max_model_len", json!("1e3")),
        ("max_model_len", json!("k")),
        ("max_model_len", json!("1.5K")),
        ("max_model_len", json!("99999999M")),
        ("seed", json!(-1)),
        ("seed", json!(1.5)),
        ("cpu_offload_gb", json!(-1)),
        ("cpu_offload_gb", json!("lots")),
        ("hf_overrides", json!("{bad")),
        ("hf_overrides", json!("[1]")),
        ("hf_overrides", json!(7)),
        ("hf_overrides", json!({"a": "x".repeat(70_000)})),
        ("limit_mm_per_prompt", json!("image")),
        ("limit_mm_per_prompt", json!("image=1,image=2")),
        ("limit_mm_per_prompt", json!({"image": -1})),
        ("limit_mm_per_prompt", json!({"a b": 1})),
        ("lora_modules", json!("nopath")),
        ("lora_modules", json!("=x")),
        ("lora_modules", json!([{"name": "a"}])),
        ("lora_modules", json!([])),
        ("huggingface_token", json!("***")),
        ("huggingface_token", json!("two words")),
        ("huggingface_token", json!({"env": "A", "file": "b"})),
        ("huggingface_token", json!({"vault": "A"})),
        ("cli", json!("--a 'b")),
        ("long_lora_scaling_factors", json!([0])),
        ("tool_call_parser", json!("a b")),
        ("dtype", json!(16)),
    ] {
        assert!(one(name, raw.clone()).is_err(), "{name} = {raw}");
    }
}

#[test]
fn texts_that_vllm_would_read_as_a_flag_are_refused() {
    for bad in [
        "--host",
        "-tp",
        "-",
        "a\nb",
        "a\0b",
        "",
        " ",
        &"x".repeat(5_000),
    ] {
        for name in [
            "tokenizer",
            "revision",
            "speculative_model",
            "tool_call_parser",
            "quantization",
        ] {
            assert!(one(name, json!(bad)).is_err(), "{name} = {bad:?}");
        }
        assert!(one("ignore_patterns", json!([bad])).is_err(), "{bad:?}");
        assert!(
            one("lora_modules", json!([format!("{bad}=/x")])).is_err(),
            "{bad:?}"
        );
        assert!(one("lora_modules", json!({"a": bad})).is_err(), "{bad:?}");
    }
    // No shell reads it, so it is a strange name and nothing else.
    let strange = "$(touch /tmp/x); `id` && *";
    assert_eq!(
        one("tokenizer", json!(strange)),
        Ok(Value::Text(strange.into()))
    );
}

#[test]
fn secrets_are_never_shown_and_are_kept_by_name() {
    let mut set = parse(json!({"huggingface_token": "hf_topsecret", "seed": 1})).unwrap();
    let shown = format!("{set:?} {}", serde_json::to_string(&set).unwrap());
    assert!(!shown.contains("topsecret"), "{shown}");
    let taken = set.take_secrets(|option| format!("team.{option}"));
    assert_eq!(
        taken,
        [(
            "team.huggingface_token".to_owned(),
            SecretText::new("hf_topsecret".into())
        )]
    );
    assert_eq!(
        set.get_secret("huggingface_token"),
        Some(&SecretSource::Named("team.huggingface_token".into()))
    );
    assert_eq!(parse(Json::Object(set.to_json())).unwrap(), set);
    let error = one("huggingface_token", json!(["hf_topsecret"])).unwrap_err();
    assert!(!error.contains("topsecret"), "{error}");
}

proptest! {
    #[test]
    fn no_table_makes_the_parser_fail_without_a_sentence(
        name in prop::sample::select(OPTIONS).prop_map(|row| row.name),
        text: String,
        number: f64,
        whole: i64,
    ) {
        for raw in [json!(text), json!(number), json!(whole), json!([text]), json!({"a": text})] {
            match one(name, raw) {
                Ok(value) => {
                    let again = one(name, value.to_json());
                    if !matches!(value, Value::Secret(SecretSource::Literal(_))) {
                        prop_assert_eq!(again, Ok(value));
                    }
                }
                Err(message) => prop_assert!(!message.is_empty() && message.len() < 2_000),
            }
        }
    }

    #[test]
    fn every_home_is_where_the_row_says(row in prop::sample::select(OPTIONS)) {
        if let Home::Key(key) = row.home {
            prop_assert!(key.starts_with("instance.") || key.starts_with("deployment."));
        }
    }
}
