//! Facts that the gateway must know of a request, found in one pass over its body.
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

mod fault;
mod field;
mod text;
mod values;
mod walk;

use std::borrow::Cow;
use std::ops::Range;

use super::json::{Literal, Reader};
use field::{Field, Seen};
use values::{count, flag, is_odd, words};
use walk::Walk;

pub use fault::ScanError;
pub use walk::Scanner;

/// Facts in a request's body, borrowed from it.
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
    /// Range of the prompt in the body: the value of `messages`, `prompt` or
    /// `input`, whichever comes first. Only a hint: it is not read.
    pub prompt: Range<usize>,
    /// True if the body may bring media or a template: a key that may be one's was seen.
    pub brings: bool,
    /// Reason why vLLM would refuse the first field that can't be read. Other servers may take
    /// it, such as `max_tokens: -1` for no limit, so that is theirs to say.
    pub odd: Option<ScanError>,
    /// Places at which an edit would go.
    pub(super) layout: Layout,
}

/// Content of `stream_options`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// `include_usage`; missing and null mean false to vLLM 0.32.
    pub include_usage: Option<bool>,
    /// `continuous_usage_stats`: vLLM's usage in every event, where
    /// `include_usage` is true as well.
    pub continuous_usage_stats: Option<bool>,
    pub(super) layout: OptionsLayout,
}

/// Positions of the parts of a body, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) body_len: usize,
    /// Position before which all is left out: a byte order mark, or blank lines.
    pub(super) begin: usize,
    /// Behind the opening brace.
    pub(super) inside: usize,
    pub(super) is_empty: bool,
    pub(super) model: Option<Range<usize>>,
    pub(super) stream_options: Option<Range<usize>>,
    /// The boundary, where the body is a form.
    pub(super) form: Option<String>,
}

/// Positions of the parts of `stream_options`, in bytes of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionsLayout {
    pub(super) inside: usize,
    pub(super) is_empty: bool,
    pub(super) include_usage: Option<Range<usize>>,
    pub(super) continuous_usage_stats: Option<Range<usize>>,
}

/// Reads a whole JSON body once.
///
/// # Errors
///
/// [`ScanError`] where the body is not one JSON object, where a key that matters
/// is repeated, or where such a field has a type that the API does not allow.
pub fn scan(body: &[u8]) -> Result<Scan<'_>, ScanError> {
    text::whole(body, 0).map_err(ScanError::no_text)?;
    let mut reader = Reader::new(body);
    let mut walk = Walk::default();
    walk.run(&mut reader)?;
    walk.end(&mut reader)
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
            brings: self.brings,
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

    /// True if the client asked for usage in its stream.
    pub fn usage_was_asked(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage == Some(true))
    }

    /// True if the client asked for usage in every event of its stream.
    pub fn usage_was_asked_always(&self) -> bool {
        let always = |options: &StreamOptions| options.continuous_usage_stats == Some(true);
        self.usage_was_asked() && self.stream_options.as_ref().is_some_and(always)
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
            is_odd::<()>(Field::StreamOptions, "an object", reader, odd)?;
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

#[cfg(test)]
pub(super) mod tests;
