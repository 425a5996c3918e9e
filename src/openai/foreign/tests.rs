use serde_json::json;

use super::*;

const WINDOW: &str =
    "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens.";

fn read_text(text: &str) -> Told {
    read(text.as_bytes()).unwrap()
}

#[test]
fn the_text_of_an_error_is_found_in_every_form_that_is_met() {
    let old = json!({"object": "error", "message": WINDOW, "type": "BadRequestError", "param": null, "code": 400});
    for body in [
        old,
        json!({"error": WINDOW}),
        json!({"error": {"message": WINDOW}}),
        json!([{"error": {"message": WINDOW, "status": "INVALID_ARGUMENT"}}]),
        json!({"error": {"error": {"message": WINDOW}}}),
        json!({"detail": WINDOW}),
        json!({"detail": {"error": {"message": WINDOW}}}),
        json!({"detail": {"msg": WINDOW}}),
        json!({"errors": [{"message": WINDOW}]}),
        json!({"errors": [WINDOW]}),
        json!({"message": WINDOW}),
        json!({"message": {"error": WINDOW}}),
        json!({"type": "error", "error": {"type": "x", "message": WINDOW}}),
        json!(WINDOW),
    ] {
        let told = read_text(&body.to_string());
        assert_eq!(told.message, WINDOW, "{body}");
        let with_mark = format!("\u{feff}{body}");
        assert_eq!(read_text(&with_mark).message, WINDOW, "{body}");
    }
    for text in [
        WINDOW.to_owned(),
        format!("\r\n {WINDOW}\n"),
        format!(
            "<html><head><title>{WINDOW}</title><style>p {{}}</style></head><body><h1>{WINDOW}</h1>\n<address>Apache at 10.0.0.7 Port 80</address></body></html>"
        ),
        format!(
            "<!doctype html><!-- <p>no</p> --><p>{}</p>",
            WINDOW.replace('\'', "&#39;")
        ),
        format!(
            "data: {}\n\ndata: [DONE]\n\n",
            json!({"error": {"message": WINDOW}})
        ),
        format!("event: error\ndata: {}\n\n", json!({"error": WINDOW})),
    ] {
        assert_eq!(read_text(&text).message, WINDOW, "{text}");
    }
}

#[test]
fn type_parameter_and_code_are_kept_as_the_server_wrote_them() {
    let told = read_text(
        r#"{"object":"error","message":"m","type":"BadRequestError","param":"n","code":400}"#,
    );
    assert_eq!(told.kind.as_deref(), Some("BadRequestError"));
    assert_eq!(told.param.as_deref(), Some("n"));
    assert_eq!(told.code, Some(json!(400)));
    let told = read_text(r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#);
    assert_eq!(told.code, Some(json!("context_length_exceeded")));
    let told = read_text(r#"{"error":"m","error_type":"validation"}"#);
    assert_eq!(told.kind.as_deref(), Some("validation"));
    let told = read_text(r#"{"error":"invalid_prompt","message":"m"}"#);
    assert_eq!(
        (told.message.as_str(), told.code),
        ("m", Some(json!("invalid_prompt")))
    );
    let told = read_text(r#"{"type":"error","error":{"message":"m"}}"#);
    assert_eq!(told.kind, None);
    let fastapi = json!({"detail": [
        {"loc": ["body", "messages", 0, "role"], "msg": "Field required", "type": "missing", "input": "x".repeat(9_000)},
        {"loc": ["body", "n"], "msg": "too many", "type": "y"},
    ]});
    let told = read_text(&fastapi.to_string());
    assert_eq!(
        told.message,
        "body.messages.0.role: Field required; body.n: too many"
    );
    assert_eq!(told.kind.as_deref(), Some("invalid_request_error"));
}

#[test]
fn what_is_told_has_a_bound_and_what_was_cut_off_still_speaks() {
    let long = "ä".repeat(100_000);
    for body in [
        json!({"error": {"message": long, "code": long, "type": long}}).to_string(),
        json!({"detail": vec![long.clone(); 40]}).to_string(),
        json!({"unknown": long}).to_string(),
        long.clone(),
        format!("<p>{long}"),
        json!({"error": {"message": long}}).to_string()[..65_537].to_owned(),
    ] {
        let told = read_text(&body);
        let length = told.message.len();
        assert!(
            (1_000..=MESSAGE_BYTES_MAX + 3).contains(&length),
            "{length}: {body:.40}"
        );
        assert!(told.message.ends_with('…'), "{body:.40}");
        assert_eq!((told.code, told.kind), (None, None));
    }
    // A cut may go through an escape.
    let text = r#"{"error":{"message":"a \"b\" \ud83d\ude00 c"#;
    for end in 22..text.len() {
        let told = read_text(&text[..end]);
        assert!(
            told.message.starts_with('a') && told.message.ends_with('…'),
            "{end}: {told:?}"
        );
    }
    assert_eq!(read_text("a\u{1b}[31mb\u{7}").message, "a[31mb");
}

#[test]
fn what_says_nothing_says_nothing() {
    for body in [
        &b""[..],
        b"  \n",
        b"null",
        b"{}",
        b"[]",
        b"\"\"",
        b"\x1f\x8b\0\0",
        b"<html></html>",
    ] {
        assert_eq!(read(body), None, "{body:?}");
    }
}

#[test]
fn only_what_has_the_form_of_the_api_passes_as_it_came() {
    let openai = br#"{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}"#;
    let anthropic = br#"{"type":"error","error":{"type":"invalid_request_error","message":"m"}}"#;
    assert!(has_form(Api::Chat, openai) && has_form(Api::Responses, openai));
    assert!(!has_form(Api::Messages, openai));
    assert!(has_form(Api::Messages, anthropic) && has_form(Api::Chat, anthropic));
    for other in [
        &br#"{"error":"m"}"#[..],
        br#"{"error":{"message":{}}}"#,
        b"m",
        b"{}",
    ] {
        assert!(!has_form(Api::Chat, other) && !has_form(Api::Messages, other));
    }
    let long = json!({"error": {"message": "x".repeat(20_000)}}).to_string();
    assert!(!has_form(Api::Chat, long.as_bytes()));
}
