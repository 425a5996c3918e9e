//! Token counts, read out of responses as they pass.
//!
//! Owns the shapes of `usage` and the finding of it in JSON that arrives in
//! pieces. Nothing here can fail or hold back a response: whatever is not
//! understood is no usage. Memory is bounded by [`CAPTURE_BYTES_MAX`].
//!
//! Does not count anything by itself, and knows no event streams (see
//! [`sse`](super::sse)).

mod finder;

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::FinderRev;

use super::api::Api;
use super::json::{Fault, Literal, Reader};

pub use finder::CAPTURE_BYTES_MAX;
pub(super) use finder::Finder;

/// The tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, those of the cache included.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
    /// Tokens read that came out of the prefix cache.
    pub cached: u64,
}

impl Usage {
    /// Reads the value of a `usage` field in OpenAI's or Anthropic's form. None
    /// where it counts no tokens: null, audio seconds, another type.
    pub fn parse(json: &[u8]) -> Option<Self> {
        RawUsage::parse(json).and_then(|raw| raw.onto(None))
    }
}

/// All spellings of usage at once; each API fills some.
#[derive(Default)]
struct RawUsage {
    prompt: Option<u64>,
    completion: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    /// Of the details of either; OpenAI's APIs have them.
    cached: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    /// Of transcriptions.
    seconds: Option<f64>,
}

/// It is no usage, or counts something else.
struct NoUsage;

impl From<Fault> for NoUsage {
    fn from(_: Fault) -> Self {
        Self
    }
}

impl RawUsage {
    fn parse(json: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(json);
        let raw = Self::read(&mut reader).ok()?;
        reader.peek().is_none().then_some(raw)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, NoUsage> {
        let mut raw = Self::default();
        members(reader, |key, reader| {
            match key {
                b"prompt_tokens" => raw.prompt = count(reader)?,
                b"completion_tokens" => raw.completion = count(reader)?,
                b"input_tokens" => raw.input = count(reader)?,
                b"output_tokens" => raw.output = count(reader)?,
                b"cache_read_input_tokens" => raw.cache_read = count(reader)?,
                b"cache_creation_input_tokens" => raw.cache_creation = count(reader)?,
                b"seconds" => raw.seconds = decimal(reader)?,
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    raw.cached = details(reader)?.or(raw.cached);
                }
                _ => {
                    reader.skip_value(1)?;
                }
            }
            Ok(())
        })?;
        Ok(raw)
    }

    /// These counts, with what they leave out taken from an `earlier` report of
    /// the same request.
    fn onto(&self, earlier: Option<Usage>) -> Option<Usage> {
        let reads = self.prompt.or(self.input);
        let writes = self.completion.or(self.output);
        if reads.is_none() && writes.is_none() {
            return None;
        }
        let mut usage = earlier.unwrap_or_default();
        if let Some(reads) = reads {
            // Anthropic's input_tokens leave out what came from or went to the
            // cache; so do vLLM's in that form.
            let from_cache = self.cache_read.unwrap_or(0);
            let to_cache = self.cache_creation.unwrap_or(0);
            usage.prompt = reads.saturating_add(from_cache).saturating_add(to_cache);
            usage.cached = self.cached.unwrap_or(from_cache);
        }
        usage.completion = writes.unwrap_or(usage.completion);
        Some(usage)
    }
}

/// Calls `read` with each key of an object, to read its value.
fn members<'a>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&'a [u8], &mut Reader<'a>) -> Result<(), NoUsage>,
) -> Result<(), NoUsage> {
    let mut more = reader.open_object()?;
    while more {
        let key = reader.key()?;
        read(key.raw(), reader)?;
        more = reader.more_members()?;
    }
    Ok(())
}

/// Reads a count or null. Some servers write `7.0`.
fn count(reader: &mut Reader<'_>) -> Result<Option<u64>, NoUsage> {
    if reader.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        let number = reader.number()?;
        let whole = number.parse().ok().or_else(|| whole(number.parse().ok()?));
        return whole.map(Some).ok_or(NoUsage);
    }
    match reader.literal() {
        Some(Literal::Null) => Ok(None),
        _ => Err(NoUsage),
    }
}

/// A count that was written with a fraction or an exponent.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, and of a range in which each whole number has a float of its own"
)]
fn whole(number: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let is_count = (0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0;
    is_count.then_some(number as u64)
}

/// Reads a number or null.
fn decimal(reader: &mut Reader<'_>) -> Result<Option<f64>, NoUsage> {
    if reader.literal() == Some(Literal::Null) {
        return Ok(None);
    }
    reader.number()?.parse().map(Some).map_err(|_| NoUsage)
}

/// Reads the cached tokens in the details of a usage. What is no object, as null or
/// PHP's empty list, tells none.
fn details(reader: &mut Reader<'_>) -> Result<Option<u64>, NoUsage> {
    if reader.peek() != Some(b'{') {
        reader.skip_value(2)?;
        return Ok(None);
    }
    let mut cached = None;
    members(reader, |key, reader| {
        if key == b"cached_tokens" {
            cached = count(reader)?;
        } else {
            reader.skip_value(2)?;
        }
        Ok(())
    })?;
    Ok(cached)
}

/// The usage that a finder has found, on top of an `earlier` report.
pub(super) fn found(finder: &Finder, earlier: Option<Usage>) -> Option<Usage> {
    RawUsage::parse(finder.object()?)?.onto(earlier)
}

/// Reads the usage of a JSON response while its frames pass.
///
/// Most responses are one frame. That one is only kept, and read from its end once
/// it is known to be the whole: usage stands there, behind the text.
#[derive(Debug)]
pub struct JsonTap {
    /// The only frame so far, not searched yet.
    first: Option<Bytes>,
    finder: Finder,
    /// The search for the id, in the one API whose clients come back with it.
    id: Option<Finder>,
}

impl JsonTap {
    /// A tap at the start of a response of `api`.
    pub fn new(api: Api) -> Self {
        Self {
            // An empty frame is kept until the first comes, where usage stands at the top.
            first: (api != Api::Embed).then(Bytes::new),
            finder: match api {
                Api::Embed => Finder::object_in("billed_units", Some("meta")),
                _ => Finder::usage_in(None),
            },
            id: (api == Api::Responses).then(|| Finder::id_in(None)),
        }
    }

    /// Looks at the next frame.
    pub fn feed(&mut self, frame: &Bytes) {
        if let Some(id) = &mut self.id {
            id.feed(frame);
        }
        match &mut self.first {
            Some(first) if first.is_empty() => *first = frame.clone(),
            Some(first) => {
                self.finder.feed(first);
                self.finder.feed(frame);
                self.first = None;
            }
            None => self.finder.feed(frame),
        }
    }

    /// The usage, once it has passed.
    pub fn usage(&self) -> Option<Usage> {
        self.counted().0
    }

    /// The usage, and the seconds of audio where it is told in those.
    pub fn counted(&self) -> (Option<Usage>, Option<f64>) {
        let raw = self.raw();
        let usage = raw.as_ref().and_then(|raw| raw.onto(None));
        let seconds = raw.and_then(|raw| raw.seconds);
        let is_possible = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        (usage, seconds.filter(is_possible))
    }

    fn raw(&self) -> Option<RawUsage> {
        let Some(whole) = &self.first else {
            return RawUsage::parse(self.finder.object()?);
        };
        last_usage(whole).or_else(|| {
            let mut finder = Finder::usage_in(None);
            finder.feed(whole);
            RawUsage::parse(finder.object()?)
        })
    }

    /// The id of the response, once it has passed. Only of [`Api::Responses`].
    pub fn response_id(&self) -> Option<String> {
        self.id.as_ref()?.id()
    }
}

/// The last `usage` of a whole document, if it is an object at the top level.
///
/// Within a string the quotes of the key would be escaped, so where the key is found it
/// is one, unless its first quote is escaped; and when from there the document ends with
/// one closing brace, the key stood at the top level.
fn last_usage(json: &[u8]) -> Option<RawUsage> {
    const KEY: &[u8] = b"\"usage\"";
    static FINDER: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(KEY));
    let at = FINDER.rfind(json)?;
    if at.checked_sub(1).and_then(|before| json.get(before)) == Some(&b'\\') {
        return None;
    }
    let mut reader = Reader::new(json.get(at + KEY.len()..)?);
    reader.eat(b':').then_some(())?;
    let start = reader.at();
    let raw = RawUsage::read(&mut reader).ok()?;
    if reader.at() - start > CAPTURE_BYTES_MAX {
        return None;
    }
    while reader.more_members().ok()? {
        reader.key().ok()?;
        reader.skip_value(1).ok()?;
    }
    reader.peek().is_none().then_some(raw)
}

#[cfg(test)]
pub(super) mod tests;
