//! `[route.load_balancing]`, `[route.retries]` and `[route.ejection]`: how the
//! requests of a route are spread over its servers, and what becomes of one that
//! fails.

use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::reader::Reader;

/// Spread of requests over several servers.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancing {
    /// Choice of the next server where nothing binds a request to one.
    pub policy: Policy,
    /// Requests with the same value of this header go to the same server.
    pub session_header: Option<HeaderName>,
    /// Requests whose prompts begin with the same so many bytes go to the same
    /// server.
    pub prefix_bytes: Option<u32>,
    /// A server that has more than this many times its share of the requests is
    /// passed over, whatever is bound to it.
    pub load_factor: f64,
    /// True if the servers' own figures (`/metrics` of vLLM) count.
    pub engine_figures: bool,
}

/// Choice of the next server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The less loaded of two that are drawn.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
}

impl Default for LoadBalancing {
    fn default() -> Self {
        Self {
            policy: Policy::LeastLoaded,
            session_header: None,
            prefix_bytes: None,
            load_factor: 1.25,
            engine_figures: true,
        }
    }
}

/// Limits for sending a request to a further server, before a byte of an answer went out.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// Further servers that one request may be sent to.
    pub servers_max: u32,
    /// Share of the requests that may be sent again, 0 to 1.
    pub budget: f64,
    /// Failures after which it is sent.
    pub on: Vec<RetryOn>,
}

/// Reason to send a request to a further server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection.
    Unreachable,
    /// The connection broke after the request was sent, without an answer: it may
    /// have been worked on.
    Broken,
    /// The server answered with this status.
    Status(u16),
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            servers_max: 2,
            budget: 0.2,
            on: vec![
                RetryOn::Unreachable,
                RetryOn::Status(502),
                RetryOn::Status(503),
            ],
        }
    }
}

/// Rule by which a server that fails is left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row; 0 for never.
    pub failures: u32,
    /// Time that it is left out at first; twice as long each further time.
    pub time: Duration,
    /// Longest such time.
    pub time_max: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            time: Duration::from_secs(5),
            time_max: Duration::from_mins(5),
        }
    }
}

pub(super) fn load_balancing(mut table: Reader<'_>) -> LoadBalancing {
    let default = LoadBalancing::default();
    let words = [
        ("least_loaded", Policy::LeastLoaded),
        ("round_robin", Policy::RoundRobin),
    ];
    let policy = table.choice("policy", &words).map(|found| found.value);
    let session_header = session_header(&mut table);
    let prefix = table.size("prefix");
    let factor = table.number("load_factor");
    if factor.is_some() && session_header.is_none() && prefix.is_none() {
        let message = "this bounds what session_header and prefix bind to one server: add one of them, or take this out";
        table.wrong(table.line_of("load_factor"), "load_factor", message);
    }
    let figures = table.flag("engine_figures").map(|flag| flag.value);
    table.finish();
    LoadBalancing {
        policy: policy.unwrap_or(default.policy),
        session_header,
        prefix_bytes: prefix.and_then(|bytes| u32::try_from(bytes).ok()),
        load_factor: factor.unwrap_or(default.load_factor),
        engine_figures: figures.unwrap_or(default.engine_figures),
    }
}

fn session_header(table: &mut Reader<'_>) -> Option<HeaderName> {
    let text = table.words("session_header")?;
    let Ok(name) = text.value.parse::<HeaderName>() else {
        let message = "this is not the name of a header: write one, as \"x-session-id\"";
        table.wrong(text.line, "session_header", message);
        return None;
    };
    let secret = [AUTHORIZATION, COOKIE];
    if secret.contains(&name) || matches!(name.as_str(), "x-api-key" | "api-key") {
        let message = format!(
            "{name} carries credentials, not a session: write another header, as \"x-session-id\""
        );
        table.wrong(text.line, "session_header", message);
        return None;
    }
    Some(name)
}

pub(super) fn retries(mut table: Reader<'_>) -> Retries {
    let default = Retries::default();
    let servers = table.whole("servers_max");
    let budget = table.number("budget");
    let line = table.line_of("on");
    let words = table.parsed_list::<String>("on");
    let mut on = Vec::new();
    for word in words.iter().flat_map(|words| &words.value) {
        match retry_on(word) {
            Ok(reason) if on.contains(&reason) => {
                let message = format!("{word:?} stands here twice: take one out");
                table.wrong(line, "on", message);
            }
            Ok(reason) => on.push(reason),
            Err(message) => table.wrong(line, "on", message),
        }
    }
    table.finish();
    Retries {
        servers_max: servers.unwrap_or(default.servers_max),
        budget: budget.unwrap_or(default.budget),
        on: words.map_or(default.on, |_| on),
    }
}

fn retry_on(word: &str) -> Result<RetryOn, String> {
    match word {
        "unreachable" => Ok(RetryOn::Unreachable),
        "broken" => Ok(RetryOn::Broken),
        "502" => Ok(RetryOn::Status(502)),
        "503" => Ok(RetryOn::Status(503)),
        "504" => Ok(RetryOn::Status(504)),
        "400" | "422" | "429" | "500" => Err(format!(
            "{word} is never sent again: another server would say the same, or be loaded further; take it out"
        )),
        _ => Err(format!(
            "{word:?} is unknown: known are \"unreachable\", \"broken\", \"502\", \"503\", \"504\""
        )),
    }
}

pub(super) fn ejection(mut table: Reader<'_>) -> Ejection {
    let default = Ejection::default();
    let failures = table.whole("failures");
    let time = table.span("time");
    let time_max = table.span("time_max");
    let ejection = Ejection {
        failures: failures.unwrap_or(default.failures),
        time: time.unwrap_or(default.time),
        time_max: time_max.unwrap_or(default.time_max.max(time.unwrap_or_default())),
    };
    if ejection.time_max < ejection.time {
        let message = "this is less than time: write at least as much";
        table.wrong(table.line_of("time_max"), "time_max", message);
    }
    table.finish();
    ejection
}

#[cfg(test)]
mod tests;
