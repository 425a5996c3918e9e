//! vLLM's error answers.
//!
//! Owns statuses, words and shapes, as vLLM 0.32 was seen to answer. Does not
//! decide when something is wrong.

use bytes::Bytes;
use http::StatusCode;

use super::engine::Failure;
use super::json::quoted;

/// An error answer of vLLM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// `{"detail": …}`: what the web framework answers by itself.
    Detail(StatusCode, String),
    /// An exception that no handler of vLLM expects: 500, and outside its CORS
    /// middleware, so without `vary`.
    Unhandled(String),
    /// `{"error": {message, type, param, code}}`.
    Error {
        /// Status, repeated in `code`.
        status: StatusCode,
        /// `type`.
        kind: &'static str,
        /// `message`.
        message: String,
        /// `param`.
        param: Option<String>,
    },
}

impl ApiError {
    /// No such route.
    pub(super) fn not_found() -> Self {
        Self::Detail(StatusCode::NOT_FOUND, "Not Found".to_owned())
    }

    /// A field that does not hold what it should.
    pub(super) fn parameter(param: &str, message: String) -> Self {
        Self::Error {
            status: StatusCode::BAD_REQUEST,
            kind: "BadRequestError",
            message,
            param: Some(param.to_owned()),
        }
    }

    /// One failed check of the request's form; `what` is its description.
    pub(super) fn validation(param: Option<String>, what: &str) -> Self {
        Self::Error {
            status: StatusCode::BAD_REQUEST,
            kind: "Bad Request",
            message: format!("1 validation error:\n  {what}"),
            param,
        }
    }

    /// A field that must be there and is not; the body has `items` fields.
    pub(super) fn missing(field: &str, items: usize) -> Self {
        let param = format!("body.{field}");
        let what = format!(
            "{{'type': 'missing', 'loc': '{param}', 'msg': 'Field required', 'input': '<dict of {items} items>'}}"
        );
        Self::validation(Some(param), &what)
    }

    /// A body that is not JSON.
    pub(super) fn bad_json(body: &[u8], error: &serde_json::Error) -> Self {
        let line_start = body
            .split_inclusive(|&byte| byte == b'\n')
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum::<usize>();
        // serde_json's column of an early end is the length; of a wrong
        // character, its number from 1.
        let at = line_start + error.column() - usize::from(!error.is_eof()).min(error.column());
        let before = body.get(..at).unwrap_or(body).trim_ascii_end().last();
        let expected = match before {
            Some(b'{' | b',') => "Expecting property name enclosed in double quotes",
            Some(b'"' | b'}' | b']' | b'0'..=b'9') => "Expecting ',' delimiter",
            _ => "Expecting value",
        };
        // Python's repr prefers single quotes.
        let quote = if expected.contains('\'') { '"' } else { '\'' };
        let param = format!("body.{at}");
        let what = format!(
            "{{'type': 'json_invalid', 'loc': '{param}', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': {quote}{expected}{quote}}}}}"
        );
        Self::validation(Some(param), &what)
    }

    /// A model that is not served here.
    pub(super) fn unknown_model(asked: &str, names: &[String]) -> Self {
        Self::Error {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!(
                "The model `{asked}` does not exist. Valid aliases: {}.",
                names.join(", ")
            ),
            param: Some("model".to_owned()),
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Detail(status, _) | Self::Error { status, .. } => *status,
            Self::Unhandled(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body, in OpenAI's form where vLLM uses it.
    pub(super) fn body(&self) -> Bytes {
        let text = match self {
            Self::Detail(_, detail) => format!("{{\"detail\":{}}}", quoted(detail)),
            Self::Unhandled(message) => format!(
                "{{\"error\":{{\"message\":{},\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}}}",
                quoted(message)
            ),
            Self::Error {
                status,
                kind,
                message,
                param,
            } => format!(
                "{{\"error\":{{\"message\":{},\"type\":{},\"param\":{},\"code\":{}}}}}",
                quoted(message),
                quoted(kind),
                param.as_deref().map_or("null".into(), quoted),
                status.as_u16()
            ),
        };
        Bytes::from(text)
    }

    /// The body that `/v1/messages` answers, in Anthropic's form.
    pub(super) fn anthropic_body(&self) -> Bytes {
        match self {
            // Checks of form come before the route's own code.
            Self::Error { kind, message, .. } if *kind != "Bad Request" => Bytes::from(format!(
                "{{\"type\":\"error\",\"error\":{{\"type\":{},\"message\":{}}}}}",
                quoted(kind),
                quoted(message)
            )),
            _ => self.body(),
        }
    }

    /// The event that ends a stream after its status was sent. vLLM prints
    /// this one with spaces.
    pub(super) fn event(&self) -> Bytes {
        let Self::Error {
            status,
            kind,
            message,
            param,
        } = self
        else {
            return self.body();
        };
        Bytes::from(format!(
            "data: {{\"error\": {{\"message\": {}, \"type\": {}, \"param\": {}, \"code\": {}}}}}\n\n",
            quoted(message),
            quoted(kind),
            param.as_deref().map_or("null".into(), quoted),
            status.as_u16()
        ))
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::QueueFull => Self::Error {
                status: StatusCode::SERVICE_UNAVAILABLE,
                kind: "Service Unavailable",
                message: "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.".to_owned(),
                param: None,
            },
            Failure::Dead => Self::Error {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                kind: "InternalServerError",
                message: "EngineCore encountered an issue. See stack trace (above) for the root cause.".to_owned(),
                param: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_json_is_located_as_vllm_locates_it() {
        for (body, at, expected) in [
            ("{\"model\":\"tiny\",", 16, "Expecting property name"),
            ("", 0, "Expecting value"),
            ("{\"a\":\n  x}", 8, "Expecting value"),
            ("{\"a\":1 \"b\"}", 7, "Expecting ',' delimiter"),
        ] {
            let wrong = serde_json::from_str::<serde_json::Value>(body).unwrap_err();
            let error = ApiError::bad_json(body.as_bytes(), &wrong);
            let ApiError::Error { param, message, .. } = error else {
                panic!("{body}");
            };
            assert_eq!(param, Some(format!("body.{at}")), "{body}");
            assert!(message.contains(expected), "{body}: {message}");
        }
    }
}
