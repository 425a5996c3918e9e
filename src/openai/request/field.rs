//! The fields of a request that matter, and which of them have been read.

use super::super::json::Text;
use super::fault::ScanError;

/// The fields that matter; the discriminant is a bit of [`Seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
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
    pub(super) const fn name(self) -> &'static str {
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

    /// Key that a text spells, if it is one that matters. `at` is its position.
    pub(super) fn of(text: &Text<'_>, at: usize) -> Result<Option<Self>, ScanError> {
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
}

/// Fields that have been read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(u16);

impl Seen {
    pub(super) fn add(&mut self, key: Field) -> Result<(), ScanError> {
        let bit = 1 << key as u16;
        if self.0 & bit != 0 {
            let key = key.name().into();
            return Err(ScanError::Duplicate { key });
        }
        self.0 |= bit;
        Ok(())
    }
}
