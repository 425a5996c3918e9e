//! Faults on command: what the stand-in does wrong, and when.
//!
//! Owns the syntax (`name` or `name:value`) and the set in effect. Does not
//! carry them out: each stands where the right thing would be done.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::units::Span;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// `slow-start:10s`: loading takes that much longer.
    SlowStart(Duration),
    /// `never-ready`: loading never ends, and no listener appears.
    NeverReady,
    /// `crash-at-start[:CODE]`: exits while loading, with 1 by default.
    CrashAtStart(u8),
    /// `oom-at-start`: exits while loading, as if the GPU had no room.
    OomAtStart,
    /// `exit-after:30s`: exits with 0 that long after it was ready.
    ExitAfter(Duration),
    /// `die-mid-stream:N`: the process is killed after N events of a stream.
    DieMidStream(u32),
    /// `cut-mid-stream:N`: the connection closes after N events.
    CutMidStream(u32),
    /// `half-event:N`: the connection closes in the middle of event N + 1.
    HalfEvent(u32),
    /// `hang-mid-stream:N`: nothing comes after N events.
    HangMidStream(u32),
    /// `error-mid-stream:N`: after N events an error event ends the stream.
    ErrorMidStream(u32),
    /// `status-500`: every inference request is answered with 500.
    Status500,
    /// `queue-full`: every inference request is answered with 503.
    QueueFull,
    /// `hang-while-asleep`: requests hang while asleep, as they always do.
    HangWhileAsleep,
    /// `hang-on-sleep`: `/sleep` never answers.
    HangOnSleep,
    /// `hang-on-wake`: `/wake_up` never answers.
    HangOnWake,
    /// `sleep-fails`: `/sleep` answers 500 and changes nothing.
    SleepFails,
    /// `wake-fails`: `/wake_up` answers 500 and changes nothing.
    WakeFails,
    /// `ignore-sigterm`: SIGTERM does nothing.
    IgnoreSigterm,
    /// `keeps-memory-asleep`: the GPU memory is not given back.
    KeepsMemoryAsleep,
    /// `garbage-after-wake`: texts are garbage once it has slept.
    GarbageAfterWake,
    /// `logit-after-wake`: one token of each text has another logprob once it has slept.
    LogitAfterWake,
    /// `adapters-lost-after-wake`: all names say what the first says once it has slept.
    AdaptersLostAfterWake,
    /// `slow-after-wake`: tokens come at half the speed once it has slept.
    SlowAfterWake,
    /// `guesses-lost-after-wake`: nothing that is guessed ahead holds once it has slept.
    GuessesLostAfterWake,
    /// `engine-dead`: health is 503, requests fail; exits with 0 after 5 s.
    EngineDead,
    /// `slow-headers:2s`: responses begin that much later.
    SlowHeaders(Duration),
    /// `split:N`: event streams are written in pieces of N bytes.
    Split(u32),
}

/// Reason for which a text is not a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a fault: write a name that `tidegate sim --help` lists, with its value, as \"slow-start:10s\" or \"cut-mid-stream:3\""
)]
pub struct InvalidFault(String);

impl FromStr for Misdeed {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let fault = match text.split_once(':') {
            Some((name, value)) => with_value(name, value),
            None => alone(text),
        };
        fault.ok_or_else(|| InvalidFault(text.chars().take(80).collect()))
    }
}

fn with_value(name: &str, value: &str) -> Option<Misdeed> {
    let span = || value.parse::<Span>().ok().map(|span| span.0);
    let number = || value.parse::<u32>().ok();
    Some(match name {
        "slow-start" => Misdeed::SlowStart(span()?),
        "crash-at-start" => Misdeed::CrashAtStart(value.parse().ok()?),
        "exit-after" => Misdeed::ExitAfter(span()?),
        "die-mid-stream" => Misdeed::DieMidStream(number()?),
        "cut-mid-stream" => Misdeed::CutMidStream(number()?),
        "half-event" => Misdeed::HalfEvent(number()?),
        "hang-mid-stream" => Misdeed::HangMidStream(number()?),
        "error-mid-stream" => Misdeed::ErrorMidStream(number()?),
        "slow-headers" => Misdeed::SlowHeaders(span()?),
        "split" => Misdeed::Split(number().filter(|&bytes| bytes > 0)?),
        _ => return None,
    })
}

fn alone(name: &str) -> Option<Misdeed> {
    Some(match name {
        "never-ready" => Misdeed::NeverReady,
        "crash-at-start" => Misdeed::CrashAtStart(1),
        "oom-at-start" => Misdeed::OomAtStart,
        "status-500" => Misdeed::Status500,
        "queue-full" => Misdeed::QueueFull,
        "hang-while-asleep" => Misdeed::HangWhileAsleep,
        "hang-on-sleep" => Misdeed::HangOnSleep,
        "hang-on-wake" => Misdeed::HangOnWake,
        "sleep-fails" => Misdeed::SleepFails,
        "wake-fails" => Misdeed::WakeFails,
        "ignore-sigterm" => Misdeed::IgnoreSigterm,
        "keeps-memory-asleep" => Misdeed::KeepsMemoryAsleep,
        "garbage-after-wake" => Misdeed::GarbageAfterWake,
        "logit-after-wake" => Misdeed::LogitAfterWake,
        "adapters-lost-after-wake" => Misdeed::AdaptersLostAfterWake,
        "slow-after-wake" => Misdeed::SlowAfterWake,
        "guesses-lost-after-wake" => Misdeed::GuessesLostAfterWake,
        "engine-dead" => Misdeed::EngineDead,
        _ => return None,
    })
}

impl fmt::Display for Misdeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowStart(span) => write!(f, "slow-start:{}", Span(*span)),
            Self::CrashAtStart(code) => write!(f, "crash-at-start:{code}"),
            Self::ExitAfter(span) => write!(f, "exit-after:{}", Span(*span)),
            Self::DieMidStream(n) => write!(f, "die-mid-stream:{n}"),
            Self::CutMidStream(n) => write!(f, "cut-mid-stream:{n}"),
            Self::HalfEvent(n) => write!(f, "half-event:{n}"),
            Self::HangMidStream(n) => write!(f, "hang-mid-stream:{n}"),
            Self::ErrorMidStream(n) => write!(f, "error-mid-stream:{n}"),
            Self::SlowHeaders(span) => write!(f, "slow-headers:{}", Span(*span)),
            Self::Split(n) => write!(f, "split:{n}"),
            Self::NeverReady => f.write_str("never-ready"),
            Self::OomAtStart => f.write_str("oom-at-start"),
            Self::Status500 => f.write_str("status-500"),
            Self::QueueFull => f.write_str("queue-full"),
            Self::HangWhileAsleep => f.write_str("hang-while-asleep"),
            Self::HangOnSleep => f.write_str("hang-on-sleep"),
            Self::HangOnWake => f.write_str("hang-on-wake"),
            Self::SleepFails => f.write_str("sleep-fails"),
            Self::WakeFails => f.write_str("wake-fails"),
            Self::IgnoreSigterm => f.write_str("ignore-sigterm"),
            Self::KeepsMemoryAsleep => f.write_str("keeps-memory-asleep"),
            Self::GarbageAfterWake => f.write_str("garbage-after-wake"),
            Self::LogitAfterWake => f.write_str("logit-after-wake"),
            Self::AdaptersLostAfterWake => f.write_str("adapters-lost-after-wake"),
            Self::SlowAfterWake => f.write_str("slow-after-wake"),
            Self::GuessesLostAfterWake => f.write_str("guesses-lost-after-wake"),
            Self::EngineDead => f.write_str("engine-dead"),
        }
    }
}

/// The faults in effect; swapped whole when one is added or all are cleared.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan(pub(super) Vec<Misdeed>);

impl Plan {
    /// True if this fault is in effect.
    pub(super) fn has(&self, fault: &Misdeed) -> bool {
        self.0.contains(fault)
    }

    /// The first value that `pick` finds.
    pub(super) fn find<T>(&self, pick: impl Fn(&Misdeed) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(pick)
    }

    /// Fault that happens instead of the event that follows `sent` events.
    pub(super) fn instead_of_event(&self, sent: u32) -> Option<&Misdeed> {
        self.0.iter().find(|fault| match fault {
            Misdeed::DieMidStream(n)
            | Misdeed::CutMidStream(n)
            | Misdeed::HalfEvent(n)
            | Misdeed::HangMidStream(n)
            | Misdeed::ErrorMidStream(n) => *n == sent,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_back_as_it_prints() {
        for text in [
            "slow-start:10s",
            "never-ready",
            "crash-at-start:7",
            "oom-at-start",
            "exit-after:1m",
            "die-mid-stream:1",
            "cut-mid-stream:2",
            "half-event:3",
            "hang-mid-stream:0",
            "error-mid-stream:5",
            "status-500",
            "queue-full",
            "hang-while-asleep",
            "hang-on-sleep",
            "hang-on-wake",
            "sleep-fails",
            "wake-fails",
            "ignore-sigterm",
            "keeps-memory-asleep",
            "garbage-after-wake",
            "logit-after-wake",
            "adapters-lost-after-wake",
            "slow-after-wake",
            "guesses-lost-after-wake",
            "engine-dead",
            "slow-headers:300ms",
            "split:7",
        ] {
            let fault: Misdeed = text.parse().unwrap();
            assert_eq!(fault.to_string(), text);
        }
        assert_eq!("crash-at-start".parse(), Ok(Misdeed::CrashAtStart(1)));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in [
            "",
            "nonsense",
            "split",
            "split:0",
            "split:-1",
            "slow-start",
            "slow-start:10",
            "crash-at-start:256",
            "never-ready:1",
        ] {
            assert!(text.parse::<Misdeed>().is_err(), "{text:?}");
        }
    }
}
