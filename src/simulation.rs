//! The same machine and the same placement on a virtual clock.
//!
//! [`world`] stands in for the conductor, its workers and their clients: it
//! steps [`crate::lifecycle::decide::machine`], obeys [`crate::lifecycle::decide::placement`] and lets transitions
//! take what the trace says. Hours of a fleet run in a second or less, and the
//! same trace under the same scheme gives the same figures to the last digit.
//! Other schemes stand beside ours to compare: they decide for themselves, in
//! the same world. It touches no process, GPU, file or real clock.

mod actor;
mod bound;
mod clairvoyant;
pub mod csv;
mod outcome;
mod rivals;
mod scheduler;
pub mod spec;
pub mod trace;
mod world;

pub use clairvoyant::best_offline;
pub use outcome::PlayedOutcome;
pub use trace::Workload;

use crate::config::Settings;
use crate::lifecycle::decide::policy::Params;
use rivals::{Manner, Rival};
use scheduler::Ours;
use world::World;

/// Scheme that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Tidegate's placement and policy.
    Ours,
    /// One model at a time on each GPU, in the order of the requests.
    Exclusive,
    /// The least recently used leave until the next fits; no one passes it.
    Lru,
    /// The same, but those that fit elsewhere pass one that does not.
    LruPassing,
    /// Nobody leaves: what does not fit is refused.
    Never,
    /// One model at a time, ended and started anew: as llama-swap ships.
    ExclusiveCold,
    /// The least recently used is ended and started anew: as Ollama ships.
    LruCold,
}

impl Scheme {
    /// Every scheme, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Ours,
        Self::Exclusive,
        Self::Lru,
        Self::LruPassing,
        Self::Never,
        Self::ExclusiveCold,
        Self::LruCold,
    ];

    /// Its name, for people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "tidegate",
            Self::Exclusive => "exclusive",
            Self::Lru => "lru",
            Self::LruPassing => "lru, passing",
            Self::Never => "never evict",
            Self::ExclusiveCold => "exclusive, cold",
            Self::LruCold => "lru, cold",
        }
    }
}

/// The policy's parameters as they ship.
pub fn default_params() -> Params {
    Params::from(&Settings::default().placement)
}

/// Runs a trace under a scheme. The parameters are ours alone.
pub fn run(trace: &Workload, scheme: Scheme, params: Params) -> PlayedOutcome {
    let rival = |manner, cold| World::new(trace, Rival::new(trace, manner, cold), cold).run();
    match scheme {
        Scheme::Ours => World::new(trace, Ours::new(trace, params, None), false).run(),
        Scheme::Exclusive => rival(Manner::Exclusive, false),
        Scheme::Lru => rival(Manner::Lru { passing: false }, false),
        Scheme::LruPassing => rival(Manner::Lru { passing: true }, false),
        Scheme::Never => rival(Manner::Never, false),
        Scheme::ExclusiveCold => rival(Manner::Exclusive, true),
        Scheme::LruCold => rival(Manner::Lru { passing: false }, true),
    }
}

#[cfg(test)]
mod tests;
