//! Ids of requests and of traces.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::random;
use crate::telemetry::line::push_hex;

/// Ids of requests and traces: unique in this process, and not to be guessed
/// across them.
#[derive(Debug)]
pub(in crate::gateway) struct RequestIds {
    prefix: u64,
    count: AtomicU64,
}

impl RequestIds {
    pub(in crate::gateway) fn new() -> Self {
        Self {
            prefix: RandomState::new().hash_one("tidegate"),
            count: AtomicU64::new(1),
        }
    }

    pub(in crate::gateway) fn next(&self) -> Arc<str> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(self.prefix) << 48 | u128::from(count) & 0xffff_ffff_ffff;
        let mut text = Vec::with_capacity(28);
        push_hex(&mut text, number, 28);
        Arc::from(std::str::from_utf8(&text).unwrap_or_default())
    }

    /// A number that looks random and never comes twice in 2^64; not zero.
    pub(in crate::gateway) fn random(&self) -> u64 {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        random::nth(self.prefix, count).max(1)
    }
}
