//! Facts that are known to be true, and promises that were seen to be broken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Instant;

/// Facts that all in a history know and add to. A clone is another handle.
#[derive(Clone, Debug)]
pub(super) struct Facts(Arc<Mutex<Known>>);

#[derive(Debug)]
pub(super) struct Known {
    began: Instant,
    /// Steps that were done, in order.
    pub(super) steps: Vec<String>,
    /// Promises that were broken.
    pub(super) wrong: Vec<String>,
    pub(super) tokens: Vec<Token>,
    /// Requests, by number.
    pub(super) asks: Vec<Ask>,
}

/// A token that was handed out.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) id: Arc<str>,
    pub(super) text: Arc<str>,
    pub(super) workspace: &'static str,
    pub(super) subject: String,
    /// State of its refusal, as far as it is known.
    pub(super) stands: Stands,
}

/// Verdict that a token may or must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// The token has to be accepted, with its right.
    Good,
    /// Its refusal was acknowledged as one that a restart loses, and there was one.
    Unsure,
    /// Its refusal was acknowledged, and whether a restart keeps that.
    Refused { kept: bool },
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Index of the token that it shows; `None` for none of ours.
    pub(super) token: Option<usize>,
    /// True if it may reach a server at all: decided when it was sent.
    pub(super) allowed: bool,
    /// Deeds of the servers that it comes to, in turn; the last for all further ones.
    pub(super) scripts: Vec<Script>,
    /// Number of times that it came to a server.
    pub(super) served: usize,
    /// The usage that a server told to its end.
    pub(super) told: Option<(u64, u64)>,
    /// Status of the answer, once the client has read it to its end.
    pub(super) answer: Option<u16>,
    /// Lines of the access log.
    pub(super) lines: u32,
    /// True if its gateway was killed before it wrote one.
    pub(super) lost: bool,
}

/// Deed of a server with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Answers with a document after so many milliseconds.
    Json { after: u64 },
    /// Answers with so many events, so many milliseconds apart.
    Stream { events: u64, apart: u64 },
    /// The same without its end.
    StreamCut { events: u64 },
    /// The same, and then says nothing more.
    StreamStall { events: u64 },
    /// An error of its own.
    Status(u16),
    /// Closes before its answer.
    Gone,
    /// Says nothing.
    Silent,
    /// No HTTP.
    Garbage,
    /// Half a document.
    Half,
    /// A document that is no JSON.
    Nonsense,
}

impl Facts {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Known {
            began: Instant::now(),
            steps: Vec::new(),
            wrong: Vec::new(),
            tokens: Vec::new(),
            asks: Vec::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what happened.
    pub(super) fn step(&self, what: &str) {
        self.lock().step(what);
    }

    /// Takes note of a promise that was broken.
    pub(super) fn wrong(&self, what: String) {
        let mut known = self.lock();
        known.step(&format!("WRONG: {what}"));
        known.wrong.push(what);
    }
}

impl Known {
    pub(super) fn step(&mut self, what: &str) {
        let at = self.began.elapsed().as_millis();
        self.steps.push(format!("{at:>8} {what}"));
    }
}

impl Script {
    /// Tokens of prompt and completion that a whole answer to request `number` tells.
    pub(super) fn usage(self, number: usize) -> (u64, u64) {
        let number = number as u64;
        let completion = match self {
            Self::Stream { events, .. } => events,
            _ => 1 + number % 5,
        };
        (10 + number % 7, completion)
    }
}
