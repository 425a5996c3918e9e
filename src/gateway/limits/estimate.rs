//! Tokens of answers that were cut off before their server had told them.
//!
//! An engine tells the tokens of a stream in its last event; a client that leaves
//! before is not told, and neither are we. What was made is known by its events,
//! one for each token; what was read is estimated from the requests of the same
//! server that were told.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes after which the past counts half.
const MEMORY_BYTES: u64 = 1 << 20;
/// Bytes of a body that are taken for a token until one was told.
const BYTES_PER_TOKEN: u64 = 4;

/// Rate of tokens that a server finds in the bytes of a request.
#[derive(Debug, Default)]
pub struct PromptRate {
    /// The two need not be of the same moment: it is an estimate.
    bytes: AtomicU64,
    tokens: AtomicU64,
}

impl PromptRate {
    /// A request of so many bytes had so many tokens.
    pub fn learn(&self, bytes: u64, tokens: u64) {
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let tokens = tokens.min(bytes);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        if all > MEMORY_BYTES {
            self.bytes.fetch_sub(all / 2, Ordering::Relaxed);
            let tokens = self.tokens.load(Ordering::Relaxed);
            self.tokens.fetch_sub(tokens / 2, Ordering::Relaxed);
        }
    }

    /// Number of tokens that a request of so many bytes may have had.
    pub fn estimate(&self, bytes: u64) -> u64 {
        let known = self.bytes.load(Ordering::Relaxed);
        if known == 0 {
            return bytes.div_ceil(BYTES_PER_TOKEN);
        }
        let tokens = u128::from(self.tokens.load(Ordering::Relaxed));
        let estimate = u128::from(bytes) * tokens / u128::from(known);
        // No text has more tokens than bytes, whatever a server told of others.
        u64::try_from(estimate).unwrap_or(u64::MAX).min(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_never_exceeds_the_bytes_whatever_a_server_tells() {
        let rate = PromptRate::default();
        rate.learn(100, 1_000_000);
        rate.learn(100, u64::MAX);
        assert_eq!(rate.estimate(40), 40);
        for _ in 0..1_000 {
            rate.learn(1_000, 250);
        }
        assert!(rate.estimate(1_000) < 260, "a lie is forgotten");
    }

    #[test]
    fn estimates_follow_what_was_told_last() {
        let rate = PromptRate::default();
        assert_eq!(rate.estimate(400), 100, "nothing is known yet");
        for _ in 0..10 {
            rate.learn(100, 20);
        }
        assert_eq!(rate.estimate(1_000), 200);
        for _ in 0..100 {
            rate.learn(1 << 20, 1 << 18);
        }
        assert!((245..=250).contains(&rate.estimate(1_000)));
        assert!(rate.bytes.load(Ordering::Relaxed) < 4 << 20);
    }
}
