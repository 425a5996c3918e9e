//! Errors in the forms that OpenAI's and Anthropic's clients read.
//!
//! Owns the JSON and the stream events; which status, header and text an error
//! has is decided by the gateway.

use bytes::Bytes;
use serde::Serialize;

use super::api::Api;

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
    code: Option<&'a str>,
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
            code,
        },
    })
    .into()
}

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
        _ => {
            let error = body(message, SERVER_ERROR, None, Some(code));
            [b"data: ", error.as_ref(), b"\n\ndata: [DONE]\n\n"]
                .concat()
                .into()
        }
    }
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
