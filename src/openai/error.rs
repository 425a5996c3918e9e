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
    sequence_number: u64,
}

/// Point at which a stream broke: the events that tell of it follow on from there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken<'a> {
    /// Events that have passed. Those of the responses API are numbered, from 0.
    pub events: u64,
    /// The id of the response, where it was told.
    pub response_id: Option<&'a str>,
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

/// Body for a server's error, in the form of `api`; `kind` is its type where the
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

/// End of a stream that broke: the error in the API's own form and, where
/// the API has one, the mark of the end.
///
/// It must start where an event may start; see
/// [`StreamTap::at_event_boundary`](super::sse::StreamTap::at_event_boundary).
pub fn stream_error(api: Api, message: &str, code: &str, broken: Broken<'_>) -> Bytes {
    match api {
        Api::Responses => failed(broken, message, code, None),
        Api::Messages | Api::CountTokens => event("error", &json(&anthropic("api_error", message))),
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
            Broken::default(),
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
        Api::Responses => {
            let (param, code) = (inner.param.as_deref(), code.as_deref());
            let never = Broken::default();
            failed(never, &inner.message, code.unwrap_or(kind), param)
        }
        Api::Messages | Api::CountTokens => event("error", &json(&anthropic(kind, &inner.message))),
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

fn event(class: &str, data: &[u8]) -> Bytes {
    let begin = ["event: ", class, "\ndata: "].concat();
    [begin.as_bytes(), data, b"\n\n"].concat().into()
}

/// The end of a response that broke: `response.failed`, which agents such as Codex read,
/// and `error`, which SDKs look for. One that had not begun is begun first, as SDKs take
/// no end of what did not begin.
fn failed(broken: Broken<'_>, message: &str, code: &str, param: Option<&str>) -> Bytes {
    let id = broken.response_id.unwrap_or("resp_failed");
    let mut next = broken.events;
    let mut bytes = Vec::new();
    if next == 0 {
        let created = response(id, "in_progress", &serde_json::Value::Null);
        bytes.extend(numbered("response.created", &created, next));
        next += 1;
    }
    let error = serde_json::json!({ "code": code, "message": message });
    let ended = response(id, "failed", &error);
    bytes.extend(numbered("response.failed", &ended, next));
    let error = ResponsesEvent {
        class: "error",
        code,
        message,
        param,
        sequence_number: next + 1,
    };
    bytes.extend(event("error", &json(&error)));
    bytes.into()
}

fn numbered(class: &str, response: &serde_json::Value, number: u64) -> Bytes {
    let data = serde_json::json!({
        "type": class, "sequence_number": number, "response": response,
    });
    event(class, &json(&data))
}

/// A response of which nothing is known, with all that its schema asks for.
fn response(id: &str, status: &str, error: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "id": id, "object": "response", "created_at": crate::time::unix_seconds(),
        "status": status, "error": error, "incomplete_details": null, "instructions": null,
        "metadata": {}, "model": "", "output": [], "parallel_tool_calls": false,
        "temperature": null, "tool_choice": "auto", "tools": [], "top_p": null, "usage": null,
    })
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
        let bytes = stream_error_of(Api::Messages, vllm);
        let data = bytes.strip_prefix(b"event: error\ndata: ").unwrap();
        assert_eq!(
            parsed(data),
            json!({"type": "error", "error": {"type": "BadRequestError", "message": "a\nb"}})
        );
        let all = events(&stream_error_of(Api::Responses, vllm));
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["response.created", "response.failed", "error"]);
        assert_eq!(
            all[1].1["response"]["error"],
            json!({"code": "400", "message": "a\nb"})
        );
        assert_eq!(
            all[2].1,
            json!({"type": "error", "code": "400", "message": "a\nb", "param": "n", "sequence_number": 2})
        );
        let html = stream_error_of(Api::Chat, b"<html>");
        assert!(html.starts_with(b"data: {") && html.ends_with(b"[DONE]\n\n"));
    }

    #[test]
    fn stream_errors_speak_the_language_of_the_api() {
        let message = "line 1\nline 2";
        let never = Broken::default();
        let chat = stream_error(Api::Chat, message, "upstream_disconnected", never);
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
        let messages = stream_error(Api::Messages, message, "c", never);
        assert_eq!(
            events(&messages),
            [(
                "error".to_owned(),
                json!({"type": "error", "error": {"type": "api_error", "message": message}})
            )]
        );
    }

    #[test]
    fn a_response_that_breaks_ends_with_its_own_id_and_numbers() {
        let broken = Broken {
            events: 7,
            response_id: Some("resp_1"),
        };
        let all = events(&stream_error(Api::Responses, "a\nb", "c", broken));
        let [(first, failed), (second, error)] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("response.failed", "error")
        );
        assert_eq!(
            (&failed["type"], &failed["sequence_number"]),
            (&json!("response.failed"), &json!(7))
        );
        let response = &failed["response"];
        assert_eq!(
            (&response["id"], &response["status"]),
            (&json!("resp_1"), &json!("failed"))
        );
        assert_eq!(response["error"], json!({"code": "c", "message": "a\nb"}));
        assert_eq!(
            *error,
            json!({"type": "error", "code": "c", "message": "a\nb", "param": null, "sequence_number": 8})
        );
    }

    /// The names and the data of events.
    fn events(bytes: &[u8]) -> Vec<(String, Value)> {
        let text = std::str::from_utf8(bytes).unwrap();
        let all = text.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            (
                name.strip_prefix("event: ").unwrap().to_owned(),
                parsed(data.as_bytes()),
            )
        });
        all.collect()
    }
}
