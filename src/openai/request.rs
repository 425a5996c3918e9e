//! What the gateway must know of a request, found in one pass over its body.
//!
//! Owns the reading of the top-level fields by which a request is routed,
//! limited and counted. The body is borrowed and its structure checked whole;
//! what does not matter here (messages, tools, unknown fields) is only skipped.
//!
//! A repeated key is refused where the key matters. Python's JSON reader takes
//! the last of duplicates, others take the first: what this gateway routes by
//! must be what the worker reads.
//!
//! Does not decide whether a model exists or a limit is exceeded.

mod walk;

use std::borrow::Cow;
use std::ops::Range;

use super::json::{DEPTH_MAX, Fault, Literal, Reader, Text};
use walk::Walk;

pub use walk::Scanner;

/// What a request's body says, borrowed from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan<'a> {
    /// `model`, with escapes decoded. vLLM 0.32 takes its base model where this
    /// is missing or empty.
    pub model: Option<Cow<'a, str>>,
    /// `stream`: false where it is missing or null.
    pub stream: bool,
    /// `stream_options`, where it is an object.
    pub stream_options: Option<StreamOptions>,
    /// `max_tokens`.
    pub max_tokens: Option<u64>,
    /// `max_completion_tokens`.
    pub max_completion_tokens: Option<u64>,
    /// `max_output_tokens`, of the responses API.
    pub max_output_tokens: Option<u64>,
    /// `n`: how many answers are asked for.
    pub n: Option<u64>,
    /// `user`.
    pub user: Option<Cow<'a, str>>,
    /// `prompt_cache_key`.
    pub prompt_cache_key: Option<Cow<'a, str>>,
    /// `background`, of the responses API.
    pub background: Option<bool>,
    /// `store`.
    pub store: Option<bool>,
    /// Where the prompt lies in the body: the value of `messages`, `prompt` or
    /// `input`, whichever comes first. Only a hint: it is not read.
    pub prompt: Range<usize>,
    /// Why vLLM would refuse the first field that can't be read. Other servers may take
    /// it, such as `max_tokens: -1` for no limit, so that is theirs to say.
    pub odd: Option<ScanError>,
    /// Where an edit would go.
    pub(super) layout: Layout,
}

/// What `stream_options` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// `include_usage`; missing and null mean false to vLLM 0.32.
    pub include_usage: Option<bool>,
    /// `continuous_usage_stats`: vLLM's usage in every event, where
    /// `include_usage` is true as well.
    pub continuous_usage_stats: Option<bool>,
    pub(super) layout: OptionsLayout,
}

/// Where the parts of a body lie, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) body_len: usize,
    /// What stands before this is left out: a byte order mark, or blank lines.
    pub(super) begin: usize,
    /// Behind the opening brace.
    pub(super) inside: usize,
    pub(super) is_empty: bool,
    pub(super) model: Option<Range<usize>>,
    pub(super) stream_options: Option<Range<usize>>,
    /// The boundary, where the body is a form.
    pub(super) form: Option<String>,
}

/// Where the parts of `stream_options` lie, in bytes of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionsLayout {
    pub(super) inside: usize,
    pub(super) is_empty: bool,
    pub(super) include_usage: Option<Range<usize>>,
    pub(super) continuous_usage_stats: Option<Range<usize>>,
}

/// Why a body is refused; the texts are meant for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not JSON.
    #[error("the request body is not valid JSON: expected {expected} at byte {at}")]
    Malformed {
        /// Offset in the body.
        at: usize,
        /// What should have stood there.
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
        /// What should have stood there.
        expected: &'static str,
    },
    /// A key that matters stands there twice.
    #[error("the request body has `{key}` more than once")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// `model` is not a string of valid Unicode.
    #[error("`model` must be a string of valid Unicode text")]
    Model,
    /// Another field has the wrong type.
    #[error("`{key}` must be {expected}")]
    Field {
        /// The key.
        key: &'static str,
        /// What the field must be.
        expected: &'static str,
    },
}

impl ScanError {
    /// The `code` of the error that the client gets.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::TooDeep { .. } | Self::NotAnObject => "invalid_json",
            Self::Boundary | Self::Form { .. } => "invalid_form",
            Self::Duplicate { .. } => "duplicate_key",
            Self::Model => "invalid_model",
            Self::Field { .. } => "invalid_value",
        }
    }

    /// The `param` of the error that the client gets.
    pub const fn param(&self) -> Option<&'static str> {
        match self {
            Self::Malformed { .. }
            | Self::TooDeep { .. }
            | Self::NotAnObject
            | Self::Boundary
            | Self::Form { .. } => None,
            Self::Duplicate { key } | Self::Field { key, .. } => Some(key),
            Self::Model => Some("model"),
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

/// Reads a whole JSON body once.
///
/// # Errors
///
/// [`ScanError`] where the body is not one JSON object, where a key that matters
/// is repeated, or where such a field has a type that the API does not allow.
pub fn scan(body: &[u8]) -> Result<Scan<'_>, ScanError> {
    utf8(body, 0)?;
    let mut reader = Reader::new(body);
    let mut walk = Walk::default();
    walk.run(&mut reader)?;
    walk.end(&mut reader)
}

/// Checks that a part of the body, which lies at `base` of it, is UTF-8 throughout: a
/// worker may read what is not in another way than we do. Returns how many bytes were
/// read: those behind it begin a character whose end is still to come.
fn utf8_part(bytes: &[u8], base: usize) -> Result<usize, ScanError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(error) => Err(ScanError::Malformed {
            at: base + error.valid_up_to(),
            expected: "UTF-8",
        }),
    }
}

/// The same for the end of the body, where every character must be whole.
fn utf8(bytes: &[u8], base: usize) -> Result<(), ScanError> {
    let read = utf8_part(bytes, base)?;
    if read == bytes.len() {
        return Ok(());
    }
    Err(ScanError::Malformed {
        at: base + read,
        expected: "UTF-8",
    })
}

impl<'a> Scan<'a> {
    /// Of a request that asks for no new token.
    pub fn of_nothing() -> Self {
        Self {
            max_output_tokens: Some(0),
            ..Self::default()
        }
    }

    /// The same, with a copy of what was borrowed.
    pub fn into_owned(self) -> Scan<'static> {
        let own = |text: Option<Cow<'a, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Scan {
            model: own(self.model),
            user: own(self.user),
            prompt_cache_key: own(self.prompt_cache_key),
            stream: self.stream,
            stream_options: self.stream_options,
            max_tokens: self.max_tokens,
            max_completion_tokens: self.max_completion_tokens,
            max_output_tokens: self.max_output_tokens,
            n: self.n,
            background: self.background,
            store: self.store,
            prompt: self.prompt,
            odd: self.odd,
            layout: self.layout,
        }
    }

    /// Of a form of which nothing was read yet.
    pub(super) fn of_form(body_len: usize, boundary: &str) -> Self {
        let mut scan = Self::default();
        scan.layout.body_len = body_len;
        scan.layout.form = Some(boundary.to_owned());
        scan
    }

    /// The most tokens that each answer may have, where the request says so.
    /// Chat's newer field wins over its older one, as in vLLM 0.32.
    pub fn output_tokens_max(&self) -> Option<u64> {
        self.max_completion_tokens
            .or(self.max_output_tokens)
            .or(self.max_tokens)
    }

    /// Whether the client asked for usage in its stream.
    pub fn usage_was_asked(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage == Some(true))
    }

    fn read(&mut self, key: Field, reader: &mut Reader<'a>) -> Result<(), ScanError> {
        let odd = &mut self.odd;
        match key {
            Field::Model => {
                if reader.peek() != Some(b'"') {
                    return Err(ScanError::Model);
                }
                let text = reader.string()?;
                self.model = Some(text.decode().ok_or(ScanError::Model)?);
                self.layout.model = Some(text.span);
            }
            Field::Stream => self.stream = flag(key, reader, odd)?.unwrap_or(false),
            Field::StreamOptions => self.read_stream_options(reader)?,
            Field::MaxTokens => self.max_tokens = count(key, reader, odd)?,
            Field::MaxCompletionTokens => self.max_completion_tokens = count(key, reader, odd)?,
            Field::MaxOutputTokens => self.max_output_tokens = count(key, reader, odd)?,
            Field::N => self.n = count(key, reader, odd)?,
            Field::User => self.user = words(key, reader, odd)?,
            Field::PromptCacheKey => self.prompt_cache_key = words(key, reader, odd)?,
            Field::Background => self.background = flag(key, reader, odd)?,
            Field::Store => self.store = flag(key, reader, odd)?,
            Field::IncludeUsage | Field::ContinuousUsageStats => {}
        }
        Ok(())
    }

    fn read_stream_options(&mut self, reader: &mut Reader<'a>) -> Result<(), ScanError> {
        reader.peek();
        let start = reader.at();
        if reader.peek() == Some(b'{') {
            self.stream_options = Some(StreamOptions::read(reader, &mut self.odd)?);
        } else if reader.literal() != Some(Literal::Null) {
            reader.back_to(start);
            let odd = &mut self.odd;
            Field::StreamOptions.is_odd::<()>("an object", reader, odd)?;
        }
        self.layout.stream_options = Some(start..reader.at());
        Ok(())
    }
}

impl StreamOptions {
    fn read(reader: &mut Reader<'_>, odd: &mut Option<ScanError>) -> Result<Self, ScanError> {
        let mut found = Self::default();
        found.layout.inside = reader.at() + 1;
        let mut seen = Seen::default();
        let mut more = reader.open_object()?;
        found.layout.is_empty = !more;
        while more {
            let at = reader.at();
            let text = reader.key()?;
            match Field::of(&text, at)? {
                Some(key @ (Field::IncludeUsage | Field::ContinuousUsageStats)) => {
                    seen.add(key)?;
                    reader.peek();
                    let start = reader.at();
                    let value = flag(key, reader, odd)?;
                    let span = Some(start..reader.at());
                    if key == Field::IncludeUsage {
                        (found.include_usage, found.layout.include_usage) = (value, span);
                    } else {
                        found.continuous_usage_stats = value;
                        found.layout.continuous_usage_stats = span;
                    }
                }
                _ => {
                    reader.skip_value(2)?;
                }
            }
            more = reader.more_members()?;
        }
        Ok(found)
    }
}

/// The fields that matter; the discriminant is a bit of [`Seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
    User,
    PromptCacheKey,
    Background,
    Store,
    IncludeUsage,
    ContinuousUsageStats,
}

impl Field {
    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::N => "n",
            Self::User => "user",
            Self::PromptCacheKey => "prompt_cache_key",
            Self::Background => "background",
            Self::Store => "store",
            Self::IncludeUsage => "include_usage",
            Self::ContinuousUsageStats => "continuous_usage_stats",
        }
    }

    /// Which key a text spells, if one that matters. `at` is where it stands.
    fn of(text: &Text<'_>, at: usize) -> Result<Option<Self>, ScanError> {
        if let Some(found) = text.plain().and_then(Self::named) {
            return Ok(Some(found));
        }
        let decoded = text.decode().ok_or(ScanError::Malformed {
            at,
            expected: "a key of valid Unicode text",
        })?;
        Ok(Self::named(decoded.as_bytes()))
    }

    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"stream_options" => Self::StreamOptions,
            b"max_tokens" => Self::MaxTokens,
            b"max_completion_tokens" => Self::MaxCompletionTokens,
            b"max_output_tokens" => Self::MaxOutputTokens,
            b"n" => Self::N,
            b"user" => Self::User,
            b"prompt_cache_key" => Self::PromptCacheKey,
            b"background" => Self::Background,
            b"store" => Self::Store,
            b"include_usage" => Self::IncludeUsage,
            b"continuous_usage_stats" => Self::ContinuousUsageStats,
            _ => return None,
        })
    }

    /// Passes over a value that is not `expected`, and notes it.
    fn is_odd<T>(
        self,
        expected: &'static str,
        reader: &mut Reader<'_>,
        odd: &mut Option<ScanError>,
    ) -> Result<Option<T>, ScanError> {
        reader.skip_value(2)?;
        let key = self.name();
        odd.get_or_insert(ScanError::Field { key, expected });
        Ok(None)
    }
}

/// Which fields have been read.
#[derive(Clone, Copy, Debug, Default)]
struct Seen(u16);

impl Seen {
    fn add(&mut self, key: Field) -> Result<(), ScanError> {
        let bit = 1 << key as u16;
        if self.0 & bit != 0 {
            return Err(ScanError::Duplicate { key: key.name() });
        }
        self.0 |= bit;
        Ok(())
    }
}

/// A switch, also where it was spelled `"false"` or `1`, which pydantic, in vLLM, reads so.
fn flag(
    key: Field,
    reader: &mut Reader<'_>,
    odd: &mut Option<ScanError>,
) -> Result<Option<bool>, ScanError> {
    match reader.literal() {
        Some(Literal::Bool(value)) => return Ok(Some(value)),
        Some(Literal::Null) => return Ok(None),
        None => {}
    }
    let at = reader.at();
    let found = match reader.peek() {
        Some(b'"') => reader.string()?.decode().as_deref().and_then(switch),
        Some(b'0' | b'1') => match whole(reader.number()?) {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    reader.back_to(at);
    key.is_odd("true, false or null", reader, odd)
}

/// What pydantic reads as true and false, beside those.
fn switch(text: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["true", "1", "yes", "on", "t", "y"];
    const FALSE: [&str; 6] = ["false", "0", "no", "off", "f", "n"];
    let is_among = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    is_among(TRUE)
        .then_some(true)
        .or(is_among(FALSE).then_some(false))
}

fn count(
    key: Field,
    reader: &mut Reader<'_>,
    odd: &mut Option<ScanError>,
) -> Result<Option<u64>, ScanError> {
    reader.peek();
    let at = reader.at();
    if reader.literal() == Some(Literal::Null) {
        return Ok(None);
    }
    reader.back_to(at);
    let found = match reader.peek() {
        Some(b'-' | b'0'..=b'9') => whole(reader.number()?),
        // As pydantic reads it.
        Some(b'"') => reader.string()?.decode().as_deref().and_then(spelled),
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    reader.back_to(at);
    key.is_odd("a non-negative integer or null", reader, odd)
}

/// A count that was spelled out as text, with nothing but digits.
fn spelled(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

/// A count, also where it was spelled `16.0` or `1e3`, as Python clients may.
fn whole(number: &str) -> Option<u64> {
    /// Above this a float is no longer exact.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if let Ok(count) = number.parse() {
        return Some(count);
    }
    let float: f64 = number.parse().ok()?;
    if float.fract() != 0.0 || !(0.0..=EXACT_MAX).contains(&float) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and between 0 and 2^53, checked above"
    )]
    let count = float as u64;
    Some(count)
}

fn words<'a>(
    key: Field,
    reader: &mut Reader<'a>,
    odd: &mut Option<ScanError>,
) -> Result<Option<Cow<'a, str>>, ScanError> {
    reader.peek();
    let at = reader.at();
    if reader.literal() == Some(Literal::Null) {
        return Ok(None);
    }
    reader.back_to(at);
    if reader.peek() == Some(b'"')
        && let Some(text) = reader.string()?.decode()
    {
        return Ok(Some(text));
    }
    reader.back_to(at);
    key.is_odd("a string of valid Unicode text, or null", reader, odd)
}

#[cfg(test)]
pub(super) mod tests;
