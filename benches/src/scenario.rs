//! Loads that are driven through each contestant, and the figure that counts.
//!
//! Owns the table of scenarios; each takes a few seconds a round. Does not run them.

/// A figure that a scenario is for; others are shown beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// CPU time of a request.
    CpuPerRequest,
    /// CPU time of a server-sent event.
    CpuPerEvent,
    /// Latency beyond that of the mock called directly.
    Latency,
    /// Time of the first request to a worker that is not running; of Tidegate only.
    ColdStart,
    /// Cost of more routes, more tokens and more time; of Tidegate only.
    Growth,
}

/// Number of requests that a round makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// As many as a closed loop makes in a round's seconds.
    Seconds,
    /// This many.
    Requests(u64),
    /// An open loop of so many a second, for a round's seconds.
    Rate(u32),
    /// Each connection's streams once, for so many seconds. They begin within half of it,
    /// so for the other half all are open.
    StreamSeconds(u32),
}

/// A kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Thing that the scenario shows.
    pub(crate) shows: &'static str,
    pub(crate) figure: Figure,
    pub(crate) amount: Amount,
    /// 1 or 2.
    pub(crate) http: u8,
    pub(crate) connections: usize,
    /// Requests at once on a connection.
    pub(crate) streams: usize,
    pub(crate) body: usize,
    /// Tokens of a stream; ignored where [`Amount::StreamSeconds`] makes them.
    pub(crate) events: u32,
    pub(crate) event_rate: u32,
    /// A new connection for each request.
    pub(crate) fresh: bool,
}

/// 1 KiB chats over HTTP/1.1, from which the others differ.
const CHAT: Scenario = Scenario {
    name: "chat-1k",
    shows: "1 KiB chat and answer, 32 connections",
    figure: Figure::CpuPerRequest,
    amount: Amount::Seconds,
    http: 1,
    connections: 32,
    streams: 1,
    body: 1024,
    events: 0,
    event_rate: 0,
    fresh: false,
};

/// All of them, in the order of a run.
pub(crate) const SCENARIOS: &[Scenario] = &[
    CHAT,
    Scenario {
        name: "h2-1k",
        shows: "1 KiB chat over HTTP/2, 4 connections of 8 requests at once",
        http: 2,
        connections: 4,
        streams: 8,
        ..CHAT
    },
    Scenario {
        name: "open-1k",
        shows: "1 KiB chat, 2,000 a second whatever happens, 32 connections",
        figure: Figure::Latency,
        amount: Amount::Rate(2000),
        ..CHAT
    },
    Scenario {
        name: "body-32k",
        shows: "32 KiB chat, 32 connections",
        body: 32 << 10,
        ..CHAT
    },
    Scenario {
        name: "body-1m",
        shows: "1 MiB chat, 8 connections",
        connections: 8,
        body: 1 << 20,
        ..CHAT
    },
    Scenario {
        name: "sse-burst",
        shows: "streams of 500 tokens back to back, 32 connections",
        figure: Figure::CpuPerEvent,
        events: 500,
        ..CHAT
    },
    Scenario {
        name: "sse-slow",
        shows: "1,000 streams at once at 20 tokens a second",
        figure: Figure::CpuPerEvent,
        amount: Amount::StreamSeconds(4),
        connections: 1000,
        event_rate: 20,
        ..CHAT
    },
    Scenario {
        name: "sse-10k",
        shows: "10,000 streams at once at 5 tokens a second, 100 on each HTTP/2 connection",
        figure: Figure::CpuPerEvent,
        amount: Amount::StreamSeconds(8),
        http: 2,
        connections: 100,
        streams: 100,
        event_rate: 5,
        ..CHAT
    },
    Scenario {
        name: "handshake",
        shows: "a connection, a full TLS handshake and a 1 KiB chat, 8 at once",
        amount: Amount::Requests(3000),
        connections: 8,
        fresh: true,
        ..CHAT
    },
    Scenario {
        name: "latency-c1",
        shows: "1 KiB chat, one at a time",
        figure: Figure::Latency,
        connections: 1,
        ..CHAT
    },
    Scenario {
        name: "growth",
        shows: "1 KiB chat among many routes, with many tokens, after long; memory and start",
        figure: Figure::Growth,
        ..CHAT
    },
    Scenario {
        name: "cold",
        shows: "first request to a stopped stand-in that loads in no time",
        figure: Figure::ColdStart,
        amount: Amount::Requests(1),
        connections: 1,
        ..CHAT
    },
];

impl Scenario {
    /// Streams open at once, when the scenario is about that.
    pub(crate) fn slow_streams(&self) -> Option<u64> {
        (self.event_rate > 0).then_some((self.connections * self.streams) as u64)
    }

    /// Tokens of each stream; 0 for answers in one piece.
    pub(crate) fn tokens(&self) -> u32 {
        match self.amount {
            Amount::StreamSeconds(seconds) => seconds * self.event_rate,
            _ => self.events,
        }
    }

    /// File descriptors that a proxy needs for it, both sides counted.
    pub(crate) fn descriptors(&self) -> u64 {
        let requests = self.connections * self.streams;
        (self.connections + requests + 200) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_http1_never_multiplexes() {
        for (at, scenario) in SCENARIOS.iter().enumerate() {
            assert!(
                SCENARIOS[..at]
                    .iter()
                    .all(|other| other.name != scenario.name)
            );
            assert!(
                scenario.http == 2 || scenario.streams == 1,
                "{}",
                scenario.name
            );
        }
    }

    #[test]
    fn slow_streams_have_tokens_for_their_seconds() {
        let slow = SCENARIOS.iter().find(|s| s.name == "sse-slow").unwrap();
        assert_eq!((slow.tokens(), slow.slow_streams()), (80, Some(1000)));
        let chat = SCENARIOS.iter().find(|s| s.name == "chat-1k").unwrap();
        assert_eq!((chat.tokens(), chat.slow_streams()), (0, None));
    }
}
