mod documents;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::openai::request::{Scan, ScanError, scan};
use crate::pieces::Pieces;

fn set(key: &str, value: Value) -> Rule {
    let act = Act::Set(value);
    let key = key.to_owned();
    Rule { key, act }
}

fn default(key: &str, value: Value) -> Rule {
    let act = Act::Default(value);
    let key = key.to_owned();
    Rule { key, act }
}

fn max(key: &str, value: Value) -> Rule {
    let act = Act::Max(value);
    let key = key.to_owned();
    Rule { key, act }
}

fn out(key: &str) -> Rule {
    let act = Act::Drop;
    let key = key.to_owned();
    Rule { key, act }
}

/// A body cut at these places.
fn cut(body: &Bytes, cuts: &[usize]) -> Pieces {
    let mut pieces = Pieces::default();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        pieces.push(body.slice(from..cut));
        from = cut;
    }
    pieces
}

fn applied(rules: &[Rule], api: Api, body: &str) -> Result<String, ScanError> {
    let rules = Rules::new(rules.to_vec()).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let (edited, _) = rules.apply(api, "of", &body.clone().into(), scan(&body).unwrap())?;
    Ok(String::from_utf8(edited.into_one().to_vec()).unwrap())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn all_other_bytes_stay_as_they_were() {
    for (rules, body, expected) in [
        (
            vec![set("temperature", json!(0.2))],
            "{ \"model\" : \"n\" ,\n\t\"temperature\" : 1.50e+1 , \"x\":[ 0.10 ] } \n",
            "{ \"model\" : \"of\" ,\n\t\"temperature\" : 0.2 , \"x\":[ 0.10 ] } \n",
        ),
        (
            vec![set("top_p", json!(1)), default("stop", json!(["a\""]))],
            "{\"model\":\"n\"}",
            "{\"top_p\":1,\"stop\":[\"a\\\"\"],\"model\":\"of\"}",
        ),
        (
            vec![out("a"), out("c")],
            "{\"a\" : {\"b\":1} , \"model\":\"n\",\"b\":2, \"c\": [] }",
            "{\"model\":\"of\",\"b\":2 }",
        ),
        (
            vec![out("a"), out("b")],
            "{\"model\":\"n\",\"a\":1,\"x\":0,\"b\":2,\"\\u0061\\u0062\":3}",
            "{\"model\":\"of\",\"x\":0,\"\\u0061\\u0062\":3}",
        ),
        (
            vec![set("chat_template_kwargs.enable_thinking", json!(false))],
            "{\"model\":\"n\",\"chat_template_kwargs\":{ \"x\": 1.0}}",
            "{\"model\":\"of\",\"chat_template_kwargs\":{\"enable_thinking\":false, \"x\": 1.0}}",
        ),
        (
            vec![set("chat_template_kwargs.enable_thinking", json!(false))],
            "{\"model\":\"n\",\"chat_template_kwargs\":null}",
            "{\"model\":\"of\",\"chat_template_kwargs\":{\"enable_thinking\":false}}",
        ),
        (
            vec![out("k.a"), set("k.b", json!(1))],
            "{\"k\": {\"\\u0061\": 2} ,\"model\":\"n\"}",
            "{\"k\": {\"b\":1} ,\"model\":\"of\"}",
        ),
        (
            vec![
                max("max_tokens", json!(100)),
                default("max_tokens", json!(10)),
            ],
            "{\"max_completion_tokens\":101,\"max_tokens\":99,\"model\":\"n\"}",
            "{\"max_completion_tokens\":100,\"max_tokens\":99,\"model\":\"of\"}",
        ),
        (
            vec![
                max("max_tokens", json!(100)),
                default("max_tokens", json!(10)),
            ],
            "{\"max_completion_tokens\": null,\"model\":\"n\"}",
            "{\"max_completion_tokens\": 10,\"model\":\"of\"}",
        ),
        (
            vec![
                max("max_tokens", json!(100)),
                max("temperature", json!(1.5)),
            ],
            "{\"max_tokens\":-1,\"temperature\":-1,\"model\":\"n\"}",
            "{\"max_tokens\":100,\"temperature\":-1,\"model\":\"of\"}",
        ),
        (
            vec![max("max_tokens", json!(100))],
            "{\"max_tokens\":1e999,\"model\":\"n\"}",
            "{\"max_tokens\":100,\"model\":\"of\"}",
        ),
    ] {
        assert_eq!(
            applied(&rules, Api::Chat, body).unwrap(),
            expected,
            "{body}"
        );
    }
}

#[test]
fn each_api_is_written_to_in_its_own_names() {
    let rules = [
        set("max_completion_tokens", json!(9)),
        default("reasoning_effort", json!("low")),
    ];
    let bare = "{\"model\":\"n\"}";
    for (api, expected) in [
        (
            Api::Chat,
            "{\"max_completion_tokens\":9,\"reasoning_effort\":\"low\",\"model\":\"of\"}",
        ),
        (
            Api::Completions,
            "{\"max_tokens\":9,\"reasoning_effort\":\"low\",\"model\":\"of\"}",
        ),
        (
            Api::Responses,
            "{\"max_output_tokens\":9,\"reasoning\":{\"effort\":\"low\"},\"model\":\"of\"}",
        ),
        (Api::Messages, "{\"max_tokens\":9,\"model\":\"of\"}"),
        (Api::Embeddings, "{\"model\":\"of\"}"),
        (Api::CountTokens, "{\"model\":\"of\"}"),
        (Api::Tokenize, "{\"model\":\"of\"}"),
    ] {
        assert_eq!(applied(&rules, api, bare).unwrap(), expected, "{api:?}");
    }
    // Whichever name the client wrote is bounded.
    let bound = [max("max_tokens", json!(9))];
    for (api, name) in [
        (Api::Chat, "max_tokens"),
        (Api::Chat, "max_completion_tokens"),
        (Api::Completions, "max_tokens"),
        (Api::Responses, "max_output_tokens"),
        (Api::Messages, "max_tokens"),
    ] {
        let body = format!("{{\"model\":\"n\",\"{name}\":10}}");
        let expected = format!("{{\"model\":\"of\",\"{name}\":9}}");
        assert_eq!(applied(&bound, api, &body).unwrap(), expected, "{api:?}");
    }
}

#[test]
fn a_body_that_a_rule_can_not_be_kept_with_is_refused() {
    for (rule, body, code) in [
        (
            set("a", json!(1)),
            "{\"a\":1,\"\\u0061\":2}",
            "duplicate_key",
        ),
        (out("a"), "{\"a\":1,\"a\":2}", "duplicate_key"),
        (set("a.b", json!(1)), "{\"a\":{},\"a\":{}}", "duplicate_key"),
        (
            set("a.b", json!(1)),
            "{\"a\":{\"b\":1,\"b\":1}}",
            "duplicate_key",
        ),
        (set("a.b", json!(1)), "{\"a\":[]}", "invalid_value"),
        (default("a.b", json!(1)), "{\"a\":\"x\"}", "invalid_value"),
        (max("a", json!(1)), "{\"a\":\"7\"}", "invalid_value"),
        (max("a", json!(1)), "{\"a\":true}", "invalid_value"),
        (max("a.b", json!(1)), "{\"a\":{\"b\":[]}}", "invalid_value"),
    ] {
        let refused = applied(&[rule], Api::Chat, body).unwrap_err();
        assert_eq!(refused.code(), code, "{body}");
    }
    // What is not there, or no object, is not taken out of it.
    let body = "{\"a\":[1],\"model\":\"n\"}";
    let left = applied(&[out("a.b")], Api::Chat, body).unwrap();
    assert_eq!(left, "{\"a\":[1],\"model\":\"of\"}");
}

#[test]
fn a_form_has_no_place_for_them() {
    let body = Bytes::from_static(b"--X\r\n");
    let scan = Scan::of_form(body.len(), "X");
    let rules = Rules::default();
    let refused = rules.apply(Api::Transcriptions, "of", &body.into(), scan);
    assert_eq!(refused.unwrap_err().code(), "invalid_model");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_rule_says_what_is_wrong_with_it() {
    let long = "x".repeat(PART_BYTES_MAX + 1);
    for (rules, at, part) in [
        (vec![set("model", json!("m"))], 0, "take the rule out"),
        (vec![out("stream")], 0, "take the rule out"),
        (
            vec![max("stream_options.x", json!(1))],
            0,
            "take the rule out",
        ),
        (vec![default("messages", json!([]))], 0, "take the rule out"),
        (vec![set("", json!(1))], 0, "write a key"),
        (vec![set("a..b", json!(1))], 0, "write a key"),
        (vec![set("a.b.c.d.e", json!(1))], 0, "write a key"),
        (vec![set(&long, json!(1))], 0, "write a key"),
        (vec![set("a", json!(null))], 0, "write a value"),
        (vec![max("a", json!("1"))], 0, "write a number"),
        (vec![set("max_tokens", json!(0))], 0, "write a whole number"),
        (
            vec![max("max_output_tokens", json!(1.5))],
            0,
            "write a whole number",
        ),
        (vec![default("n", json!("2"))], 0, "write a whole number"),
        (
            vec![set("chat_template", json!("{{x}}"))],
            0,
            "chat template",
        ),
        (
            vec![set("chat_template_kwargs.chat_template", json!("x"))],
            0,
            "chat template",
        ),
        (
            vec![set("chat_template_kwargs", json!({"chat_template": "x"}))],
            0,
            "chat template",
        ),
        (
            vec![set("a", json!([{"image_url": {"url": "http://x/y"}}]))],
            0,
            "media",
        ),
        (vec![default("images", json!(["x"]))], 0, "media"),
        (
            vec![set("a", json!("x".repeat(VALUE_BYTES_MAX)))],
            0,
            "write at most",
        ),
        (vec![set("a", json!(1)), out("a")], 1, "leave one"),
        (
            vec![out("a"), set("a.b", json!(1))],
            1,
            "one within the other",
        ),
        (
            vec![set("a.b", json!(1)), out("a")],
            1,
            "one within the other",
        ),
        (
            vec![
                set("max_tokens", json!(1)),
                max("max_output_tokens", json!(2)),
            ],
            1,
            "leave one",
        ),
        (
            vec![set("reasoning_effort", json!("low")), out("reasoning")],
            1,
            "one within the other",
        ),
        (
            vec![default("n", json!(3)), max("n", json!(2))],
            1,
            "write at most 2",
        ),
        (
            vec![default("a", json!("x")), max("a", json!(2))],
            1,
            "write a number",
        ),
    ] {
        let faults = Rules::new(rules.clone()).unwrap_err();
        let told = faults
            .iter()
            .any(|fault| fault.rule == at && fault.message.contains(part));
        assert!(told, "{rules:?}: {faults:?}");
    }
    let many = (0..=RULES_MAX).map(|n| out(&format!("k{n}"))).collect();
    assert_eq!(Rules::new(many).unwrap_err()[0].rule, RULES_MAX);
    let large = json!("x".repeat(VALUE_BYTES_MAX - 2));
    let many = (0..5).map(|n| set(&format!("k{n}"), large.clone()));
    assert_eq!(Rules::new(many.collect()).unwrap_err()[0].rule, 4);
}
