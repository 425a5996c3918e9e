//! Errors of servers that are not quite OpenAI's, read for what they say.
//!
//! Owns the shapes that are met in the field, from vLLM before 0.10.1 to a proxy's page
//! of HTML, and the search for message, type, parameter and code in them. Each is
//! bounded. Nothing here can fail: what is not understood is text, and what is no text
//! says nothing.
//!
//! Does not judge a status, and writes no answer (see [`error`](super::error)).

use serde_json::{Map, Value};

use super::api::Api;

mod text;

/// Longest message that is passed on, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Longest type, parameter and code, in bytes.
const WORD_BYTES_MAX: usize = 256;
/// Faults of one list that are told.
const LISTED_MAX: usize = 16;
/// Levels in which a message is looked for.
const DEPTH_MAX: u32 = 4;

/// Content of an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Its text; never empty.
    pub message: String,
    /// Its type, in the server's words.
    pub kind: Option<String>,
    /// The parameter that it is about.
    pub param: Option<String>,
    /// Its code, a text or a number as the server wrote it.
    pub code: Option<Value>,
}

/// True if `text` is an error in the form that clients of `api` read, so that it can
/// pass as it came.
pub fn has_form(api: Api, text: &[u8]) -> bool {
    let Ok(Value::Object(body)) = serde_json::from_slice(text) else {
        return false;
    };
    let Some(Value::Object(error)) = body.get("error") else {
        return false;
    };
    let is_text = |name: &str| error.get(name).is_some_and(Value::is_string);
    let is_bounded = text.len() <= MESSAGE_BYTES_MAX;
    let is_named = || is_text("type") && body.get("type") == Some(&"error".into());
    is_bounded && is_text("message") && (!api.is_anthropic() || is_named())
}

/// Error in the body of an answer; `None` where there is none.
pub fn read(body: &[u8]) -> Option<Told> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let body = text::of_event(body).unwrap_or(body);
    let told = match serde_json::from_slice::<Value>(body) {
        Ok(value) => told(&value, DEPTH_MAX),
        Err(_) => text::cut_off(body)
            .or_else(|| text::plain(body))
            .map(Told::of_text),
    };
    told.filter(|told| !told.message.is_empty())
}

impl Told {
    fn of_text(message: String) -> Self {
        Self {
            message,
            ..Self::default()
        }
    }

    /// Adds what stands beside the message, where the error did not say that itself.
    fn beside(mut self, fields: &Map<String, Value>) -> Self {
        let word = |names: &[&str]| names.iter().find_map(|name| word(fields.get(*name)?));
        self.kind = self
            .kind
            .or_else(|| word(&["type", "error_type"]))
            // How Anthropic's form begins: no type of an error.
            .filter(|kind| kind != "error");
        self.param = self.param.or_else(|| word(&["param"]));
        let code = || fields.get("code").or_else(|| fields.get("error_code"));
        self.code = self.code.or_else(|| code().and_then(as_code));
        self
    }
}

/// Error that a value tells; the value is searched `depth` levels deep.
fn told(value: &Value, depth: u32) -> Option<Told> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Null => None,
        Value::Object(fields) if fields.is_empty() => None,
        Value::String(text) => said(text).map(Told::of_text),
        Value::Array(list) => {
            let all = list.iter().take(LISTED_MAX);
            let mut all = all.filter_map(|one| told(one, depth));
            let mut first = all.next()?;
            for other in all {
                first.message.push_str("; ");
                first.message.push_str(&other.message);
            }
            first.message = text::bounded(&first.message);
            Some(first)
        }
        Value::Object(fields) => {
            let found = said_in(fields, depth);
            let found = found.or_else(|| Some(Told::of_text(text::bounded(&value.to_string()))));
            found.map(|told| told.beside(fields))
        }
        Value::Bool(_) | Value::Number(_) => Some(Told::of_text(value.to_string())),
    }
}

/// Error that the fields of an object tell.
fn said_in(fields: &Map<String, Value>, depth: u32) -> Option<Told> {
    // FastAPI's: where in the body, and what is wrong there.
    if let (Some(Value::Array(place)), Some(Value::String(what))) =
        (fields.get("loc"), fields.get("msg"))
    {
        let place: Vec<String> = place.iter().map(as_text).collect();
        let message = text::bounded(&format!("{}: {what}", place.join(".")));
        return Some(Told {
            message,
            // What it calls a type names the fault, not the kind of error.
            kind: Some("invalid_request_error".to_owned()),
            ..Told::default()
        });
    }
    let text_of = |name: &str| fields.get(name).and_then(Value::as_str).and_then(said);
    if let Some(message) = text_of("message") {
        let mut told = Told::of_text(message);
        // Beside a sentence of its own, a word in `error` is a code.
        told.code = fields
            .get("error")
            .filter(|error| error.is_string())
            .and_then(as_code);
        return Some(told);
    }
    let names = ["error", "detail", "errors", "message", "error_description"];
    let further = ["msg", "reason", "title", "description"];
    let mut found = names.iter().chain(&further).filter_map(|name| {
        let value = fields.get(*name)?;
        told(value, depth)
    });
    found.next()
}

/// A text that says something, within the bound.
fn said(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text::bounded(text))
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A short text; none where it is long or something else.
fn word(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let fits = (1..=WORD_BYTES_MAX).contains(&text.len());
    fits.then(|| text.to_owned())
}

fn as_code(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        _ => word(value).map(Value::String),
    }
}

#[cfg(test)]
mod tests;
