//! Reasons why a body is refused.

use std::borrow::Cow;

use crate::openai::json::{DEPTH_MAX, Fault};

/// Reason why a body is refused; the texts are meant for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not JSON.
    #[error("the request body is not valid JSON: expected {expected} at byte {at}")]
    Malformed {
        /// Offset in the body.
        at: usize,
        /// Text that should have stood there.
        expected: &'static str,
    },
    /// JSON, but deeper than anything an API of ours asks for.
    #[error("the request body is nested deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep {
        /// Offset in the body.
        at: usize,
    },
    /// JSON, but not an object.
    #[error("the request body must be a JSON object")]
    NotAnObject,
    /// `Content-Type` does not say what stands between the parts of the form.
    #[error("the Content-Type must be multipart/form-data with one boundary")]
    Boundary,
    /// Not a form, or one that can be read in two ways.
    #[error("the form is broken: expected {expected} at byte {at}")]
    Form {
        /// Offset in the body.
        at: usize,
        /// Text that should have stood there.
        expected: &'static str,
    },
    /// A key that matters stands there twice.
    #[error("the request body has `{key}` more than once")]
    Duplicate {
        /// The key.
        key: Cow<'static, str>,
    },
    /// `model` is not a string of valid Unicode.
    #[error("`model` must be a string of valid Unicode text")]
    Model,
    /// It brings what the route does not allow.
    #[error("`{place}`: {why}")]
    NotAllowed {
        /// Path in the body, as `messages[0].content[1].image_url.url`.
        place: String,
        /// Reason, in words.
        why: String,
    },
    /// It brings a chat template of its own.
    #[error(
        "`{place}`: a request may not bring a chat template of its own here: leave it out, or ask whoever runs the gateway, who may set chat_template = true for the route"
    )]
    Template {
        /// Path in the body.
        place: String,
    },
    /// Another field has the wrong type.
    #[error("`{key}` must be {expected}")]
    Field {
        /// The key.
        key: Cow<'static, str>,
        /// Value that the field must have.
        expected: &'static str,
    },
    /// The name has parameters of its own, and the API has no place for them.
    #[error(
        "`model`: this name stands for {of:?} with parameters of its own, which this API can't take: ask for {of:?}"
    )]
    NoPlace {
        /// Model that the name stands for.
        of: String,
    },
}

impl ScanError {
    /// Error of a body that is not UTF-8 at this byte.
    pub(super) const fn no_text(at: usize) -> Self {
        let expected = "UTF-8";
        Self::Malformed { at, expected }
    }

    /// The `code` of the error that the client gets.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::TooDeep { .. } | Self::NotAnObject => "invalid_json",
            Self::Boundary | Self::Form { .. } => "invalid_form",
            Self::Duplicate { .. } => "duplicate_key",
            Self::Model | Self::NoPlace { .. } => "invalid_model",
            Self::Field { .. } => "invalid_value",
            Self::NotAllowed { .. } => "media_not_allowed",
            Self::Template { .. } => "chat_template_not_allowed",
        }
    }

    /// The `param` of the error that the client gets.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::NotAllowed { place, .. } | Self::Template { place } => Some(place),
            Self::Malformed { .. }
            | Self::TooDeep { .. }
            | Self::NotAnObject
            | Self::Boundary
            | Self::Form { .. } => None,
            Self::Duplicate { key } | Self::Field { key, .. } => Some(key),
            Self::Model | Self::NoPlace { .. } => Some("model"),
        }
    }
}

impl From<Fault> for ScanError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unexpected { at, expected } => Self::Malformed { at, expected },
            Fault::TooDeep { at } => Self::TooDeep { at },
        }
    }
}
