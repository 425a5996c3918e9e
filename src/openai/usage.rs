//! Token counts, read out of responses as they pass.
//!
//! Owns the shapes of `usage` and the finding of it in JSON that arrives in
//! pieces. Nothing here can fail or hold back a response: whatever is not
//! understood is no usage. Memory is bounded by [`CAPTURE_BYTES_MAX`].
//!
//! Does not count anything by itself, and knows no event streams (see
//! [`sse`](super::sse)).

mod finder;

use serde::Deserialize;

use super::api::Api;

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
#[derive(Deserialize)]
struct RawUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<RawDetails>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<RawDetails>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    /// Of transcriptions.
    seconds: Option<f64>,
}

#[derive(Deserialize)]
struct RawDetails {
    cached_tokens: Option<u64>,
}

impl RawUsage {
    fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// These counts, with what they leave out taken from an `earlier` report of
    /// the same request.
    fn onto(&self, earlier: Option<Usage>) -> Option<Usage> {
        let reads = self.prompt_tokens.or(self.input_tokens);
        let writes = self.completion_tokens.or(self.output_tokens);
        if reads.is_none() && writes.is_none() {
            return None;
        }
        let mut usage = earlier.unwrap_or_default();
        if let Some(reads) = reads {
            // Anthropic's input_tokens leave out what came from or went to the
            // cache; so do vLLM's in that form.
            let from_cache = self.cache_read_input_tokens.unwrap_or(0);
            let to_cache = self.cache_creation_input_tokens.unwrap_or(0);
            let details = self.prompt_tokens_details.as_ref();
            usage.prompt = reads.saturating_add(from_cache).saturating_add(to_cache);
            usage.cached = details
                .or(self.input_tokens_details.as_ref())
                .and_then(|details| details.cached_tokens)
                .unwrap_or(from_cache);
        }
        usage.completion = writes.unwrap_or(usage.completion);
        Some(usage)
    }
}

/// The usage that a finder has found, on top of an `earlier` report.
pub(super) fn found(finder: &Finder, earlier: Option<Usage>) -> Option<Usage> {
    RawUsage::parse(finder.object()?)?.onto(earlier)
}

/// Reads the usage of a JSON response while its frames pass.
#[derive(Debug)]
pub struct JsonTap {
    finder: Finder,
    /// The search for the id, in the one API whose clients come back with it.
    id: Option<Finder>,
}

impl JsonTap {
    /// A tap at the start of a response of `api`.
    pub fn new(api: Api) -> Self {
        Self {
            finder: match api {
                Api::Embed => Finder::object_in("billed_units", Some("meta")),
                _ => Finder::usage_in(None),
            },
            id: (api == Api::Responses).then(|| Finder::id_in(None)),
        }
    }

    /// Looks at the next frame.
    pub fn feed(&mut self, frame: &[u8]) {
        self.finder.feed(frame);
        if let Some(id) = &mut self.id {
            id.feed(frame);
        }
    }

    /// The usage, once it has passed.
    pub fn usage(&self) -> Option<Usage> {
        found(&self.finder, None)
    }

    /// Seconds of audio, where the usage is told in those.
    pub fn audio_seconds(&self) -> Option<f64> {
        let seconds = RawUsage::parse(self.finder.object()?)?.seconds?;
        (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
    }

    /// The id of the response, once it has passed. Only of [`Api::Responses`].
    pub fn response_id(&self) -> Option<String> {
        self.id.as_ref()?.id()
    }
}

#[cfg(test)]
mod tests;
