//! Errors in the forms that OpenAI's and Anthropic's clients read.
//!
//! Owns the JSON and the stream events; which status, header and text an error
//! has is decided by the gateway.

use bytes::Bytes;
use serde::Serialize;

use super::api::Api;
use super::foreign::Told;

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<Code<'a>>,
}

/// A code in words, or as a server wrote it: vLLM's is a number.
#[derive(Serialize)]
#[serde(untagged)]
enum Code<'a> {
    Word(&'a str),
    Theirs(&'a serde_json::Value),
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    class: &'static str,
    error: AnthropicError<'a>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
}

/// OpenAI's responses API puts the fields of an error beside its type.
#[derive(Serialize)]
struct ResponsesEvent<'a> {
    #[serde(rename = "type")]
    class: &'static str,
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
}

/// The type that a server's own failure has in all of these APIs.
const SERVER_ERROR: &str = "server_error";

/// `{"error":{"message","type","param","code"}}`, OpenAI's form.
pub fn body(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    json(&OpenAiBody {
        error: OpenAiError {
            message,
            kind,
            param,
            code: code.map(Code::Word),
        },
    })
    .into()
}

/// What a server's error says, in the form of `api`; `kind` is its type where the
/// server named none that clients know.
pub fn body_of(api: Api, told: &Told, kind: &str) -> Bytes {
    let theirs = told.kind.as_deref();
    if api.is_anthropic() {
        let known = theirs.filter(|kind| ANTHROPIC_KINDS.contains(kind));
        return anthropic_body(known.unwrap_or(kind), &told.message);
    }
    json(&OpenAiBody {
        error: OpenAiError {
            message: &told.message,
            kind: theirs.unwrap_or(kind),
            param: told.param.as_deref(),
            code: told.code.as_ref().map(Code::Theirs),
        },
    })
    .into()
}

/// The error types of Anthropic's API.
const ANTHROPIC_KINDS: [&str; 9] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "overloaded_error",
];

/// `{"type":"error","error":{"type","message"}}`, Anthropic's form.
pub fn anthropic_body(kind: &str, message: &str) -> Bytes {
    json(&anthropic(kind, message)).into()
}

/// What ends a stream that broke: the error in the API's own form and, where
/// the API has one, the mark of the end.
///
/// It must start where an event may start; see
/// [`StreamTap::at_event_boundary`](super::sse::StreamTap::at_event_boundary).
pub fn stream_error(api: Api, message: &str, code: &str) -> Bytes {
    match api {
        Api::Responses => event(&json(&ResponsesEvent {
            class: "error",
            code,
            message,
            param: None,
        })),
        Api::Messages | Api::CountTokens => event(&json(&anthropic("api_error", message))),
        _ => done_behind(&body(message, SERVER_ERROR, None, Some(code))),
    }
}

/// The same, of an error whose body would have been the answer: `text`, in the
/// API's own form.
pub fn stream_error_of(api: Api, text: &[u8]) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Body {
        error: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        message: String,
        code: Option<serde_json::Value>,
        r#type: Option<String>,
        param: Option<String>,
    }
    let Ok(Body { error: inner }) = serde_json::from_slice::<Body>(text) else {
        return stream_error(
            api,
            "The server of this model answered with an error.",
            "upstream_error",
        );
    };
    // vLLM writes the status there, as a number.
    let code = inner.code.and_then(|code| match code {
        serde_json::Value::String(code) => Some(code),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    let kind = inner.r#type.as_deref().unwrap_or(SERVER_ERROR);
    match api {
        Api::Responses => event(&json(&ResponsesEvent {
            class: "error",
            code: code.as_deref().unwrap_or(kind),
            message: &inner.message,
            param: inner.param.as_deref(),
        })),
        Api::Messages | Api::CountTokens => event(&json(&anthropic(kind, &inner.message))),
        _ => {
            let (param, code) = (inner.param.as_deref(), code.as_deref());
            done_behind(&body(&inner.message, kind, param, code))
        }
    }
}

fn done_behind(error: &[u8]) -> Bytes {
    [b"data: ", error, b"\n\ndata: [DONE]\n\n"].concat().into()
}

fn anthropic<'a>(kind: &'a str, message: &'a str) -> AnthropicBody<'a> {
    AnthropicBody {
        class: "error",
        error: AnthropicError { kind, message },
    }
}

fn event(data: &[u8]) -> Bytes {
    [b"event: error\ndata: ", data, b"\n\n"].concat().into()
}

/// Serialises into memory; strings in named fields cannot fail to.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn bodies_have_all_fields_and_are_escaped() {
        let message = "no \"model\"\nhere \u{1}";
        assert_eq!(
            parsed(&body(message, "invalid_request_error", None, Some("x"))),
            json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": "x"}})
        );
        assert_eq!(
            parsed(&anthropic_body("not_found_error", message)),
            json!({"type": "error", "error": {"type": "not_found_error", "message": message}})
        );
    }

    #[test]
    fn an_answer_that_comes_too_late_for_a_status_is_told_as_an_event() {
        let ours = body("busy", "rate_limit_error", None, Some("queue_full"));
        let chat = stream_error_of(Api::Chat, &ours);
        assert_eq!(
            &chat[..],
            [b"data: ", &ours[..], b"\n\ndata: [DONE]\n\n"].concat()
        );
        let vllm =
            br#"{"error":{"message":"a\nb","type":"BadRequestError","param":"n","code":400}}"#;
        for (api, expected) in [
            (
                Api::Responses,
                json!({"type": "error", "code": "400", "message": "a\nb", "param": "n"}),
            ),
            (
                Api::Messages,
                json!({"type": "error", "error": {"type": "BadRequestError", "message": "a\nb"}}),
            ),
        ] {
            let bytes = stream_error_of(api, vllm);
            let data = bytes.strip_prefix(b"event: error\ndata: ").unwrap();
            assert_eq!(parsed(data), expected, "{api:?}");
        }
        let html = stream_error_of(Api::Chat, b"<html>");
        assert!(html.starts_with(b"data: {") && html.ends_with(b"[DONE]\n\n"));
    }

    #[test]
    fn stream_errors_speak_the_language_of_the_api() {
        let message = "line 1\nline 2";
        let chat = stream_error(Api::Chat, message, "upstream_disconnected");
        let data = std::str::from_utf8(&chat)
            .unwrap()
            .strip_prefix("data: ")
            .and_then(|rest| rest.strip_suffix("\n\ndata: [DONE]\n\n"))
            .unwrap();
        assert!(!data.contains('\n'));
        assert_eq!(
            parsed(data.as_bytes())["error"],
            json!({"message": message, "type": "server_error", "param": null, "code": "upstream_disconnected"})
        );
        for (api, expected) in [
            (
                Api::Responses,
                json!({"type": "error", "code": "c", "message": message, "param": null}),
            ),
            (
                Api::Messages,
                json!({"type": "error", "error": {"type": "api_error", "message": message}}),
            ),
        ] {
            let bytes = stream_error(api, message, "c");
            let data = std::str::from_utf8(&bytes)
                .unwrap()
                .strip_prefix("event: error\ndata: ")
                .and_then(|rest| rest.strip_suffix("\n\n"))
                .unwrap();
            assert!(!data.contains('\n'));
            assert_eq!(parsed(data.as_bytes()), expected, "{api:?}");
        }
    }
}
