//! Shares that clients may take of the gateway: connections, memory and time, all of them
//! together and each.
//!
//! The keys and their bounds are read in `gateway/shares.rs`.

use std::time::Duration;

use super::HostBudget;

/// Connections of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Open at once.
    pub max: usize,
    /// Of one address, or of one client of a trusted proxy; `None`: half of all.
    pub per_client: Option<usize>,
    /// Busy for one token; `None`: half of all.
    pub per_token: Option<usize>,
}

impl Connections {
    /// Number of connections that one address may have.
    pub fn of_client(&self) -> usize {
        self.per_client.unwrap_or(self.half()).min(self.max)
    }

    /// Number of connections that may be busy for one token.
    pub fn of_token(&self) -> usize {
        self.per_token.unwrap_or(self.half()).min(self.max)
    }

    fn half(&self) -> usize {
        self.max.div_ceil(2)
    }
}

/// Memory that is held for clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Of this machine, or of its control group where that has less.
    pub budget: HostBudget,
    /// Of the budget, for one address or one client of a trusted proxy.
    pub per_client: HostBudget,
    /// Of the budget, for one token.
    pub per_token: HostBudget,
    /// Of the budget, for one workspace.
    pub per_workspace: HostBudget,
}

/// Speed at which a request's body has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyTimes {
    /// Longest pause between two pieces.
    pub pause_max: Duration,
    /// Longest time from its first byte to its last.
    pub time_max: Duration,
    /// Bytes per second that it comes with at least, but for the time of one pause.
    pub rate_min: u64,
}

impl BodyTimes {
    /// Time since its begin when a body that has brought so many bytes is given up, where
    /// nothing more comes.
    pub fn over_at(&self, bytes: u64) -> Duration {
        let by_rate = Duration::from_millis(bytes.saturating_mul(1_000) / self.rate_min.max(1));
        self.pause_max.saturating_add(by_rate).min(self.time_max)
    }
}

impl HostBudget {
    /// Bytes that it is of so many.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => crate::units::share_of(total, share),
        }
    }
}
