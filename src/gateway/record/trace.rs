//! The trace that a request belongs to (W3C Trace Context).
//!
//! The client's `traceparent` is kept where it is one, and made where not, so
//! that client, gateway and server tell of one trace. What we record of it
//! ourselves is `telemetry`'s.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ids::RequestIds;
use crate::gateway::head::onward::Onward;
use crate::telemetry::line::push_hex;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Position of a request in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The client's span, where it told of one.
    pub parent: Option<u64>,
    /// Our span: the request as we serve it.
    pub span: u64,
    /// Our span of the call to the server.
    pub call: u64,
    /// True if spans of the request are recorded.
    pub sampled: bool,
}

/// Printed as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Trace {
    /// Reads it in the headers of a request, or makes one. `sample` is the share
    /// that is recorded where the client does not decide.
    pub(in crate::gateway) fn read(headers: &HeaderMap, ids: &RequestIds, sample: f64) -> Self {
        let (span, call) = (ids.random(), ids.random());
        if let Some((id, parent, sampled)) = headers.get(TRACEPARENT).and_then(parse) {
            return Self {
                id: TraceId(id),
                parent: Some(parent),
                span,
                call,
                sampled,
            };
        }
        let (high, low) = (ids.random(), ids.random());
        Self {
            id: TraceId(u128::from(high) << 64 | u128::from(low)),
            parent: None,
            span,
            call,
            sampled: chosen(low, sample),
        }
    }

    /// Tells the server. `recorded`: our spans go to a collector, so ours is the
    /// parent of the server's; else the client's stays it.
    pub fn put(&self, onward: &mut Onward, recorded: bool) {
        if self.parent.is_some() && !recorded {
            return;
        }
        let mut text = Vec::with_capacity(55);
        text.extend_from_slice(b"00-");
        push_hex(&mut text, self.id.0, 32);
        text.push(b'-');
        push_hex(&mut text, self.call.into(), 16);
        text.push(b'-');
        push_hex(&mut text, self.sampled.into(), 2);
        if let Ok(value) = HeaderValue::try_from(text) {
            onward.say(TRACEPARENT, value);
        }
        if self.parent.is_none() {
            // It belongs to a traceparent that was none.
            onward.withhold(TRACESTATE);
        }
    }
}

/// True if the trace with these low bits is in the share.
fn chosen(low: u64, share: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no last digit")]
    let place = (low >> 11) as f64 / (1_u64 << 53) as f64;
    place < share
}

/// Trace, parent and the sampled flag of a `traceparent`. A version that we do
/// not know may have more behind.
fn parse(value: &HeaderValue) -> Option<(u128, u64, bool)> {
    let text = value.to_str().ok()?;
    let mut parts = text.splitn(5, '-');
    let mut part = |length: usize| {
        let part = parts.next()?;
        let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        (part.len() == length && part.bytes().all(hex)).then_some(part)
    };
    let version = u8::from_str_radix(part(2)?, 16).ok()?;
    let id = u128::from_str_radix(part(32)?, 16).ok()?;
    let parent = u64::from_str_radix(part(16)?, 16).ok()?;
    let flags = u8::from_str_radix(part(2)?, 16).ok()?;
    let has_more = parts.next().is_some();
    let whole = id != 0 && parent != 0 && version != 0xff && !(version == 0 && has_more);
    whole.then_some((id, parent, flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn through(given: Option<&str>, recorded: bool) -> (Trace, String) {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(TRACEPARENT, given.parse().unwrap());
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        }
        let trace = Trace::read(&headers, &RequestIds::new(), 1.0);
        let mut onward = Onward::new(headers);
        trace.put(&mut onward, recorded);
        let headers = onward.into_map();
        let text = headers[TRACEPARENT].to_str().unwrap().to_owned();
        assert_eq!(headers.contains_key(TRACESTATE), trace.parent.is_some());
        (trace, text)
    }

    #[test]
    fn a_trace_of_the_clients_is_kept_and_ours_goes_between_only_when_recorded() {
        let (trace, text) = through(Some(GIVEN), false);
        assert_eq!(text, GIVEN);
        assert_eq!(trace.id.to_string(), &GIVEN[3..35]);
        assert_eq!(trace.parent, Some(0x00f0_67aa_0ba9_02b7));
        let (trace, text) = through(Some(GIVEN), true);
        assert_eq!(text, format!("{}{:016x}-01", &GIVEN[..36], trace.call));
        // A later version may say more.
        let later = GIVEN.replacen("00", "01", 1) + "-more";
        assert_eq!(through(Some(&later), false).1, later);
    }

    #[test]
    fn where_there_is_none_one_is_made() {
        for bad in [
            None,
            Some(""),
            Some("00-0-0-0"),
            Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
            Some("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            Some("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"),
        ] {
            let (trace, text) = through(bad, false);
            assert_eq!(trace.parent, None, "{bad:?}");
            let value = HeaderValue::from_str(&text).unwrap();
            assert_eq!(parse(&value), Some((trace.id.0, trace.call, true)));
        }
    }

    #[test]
    fn the_share_that_is_recorded_is_the_one_that_was_asked_for() {
        let ids = RequestIds::new();
        let count = |share| (0..10_000).filter(|_| chosen(ids.random(), share)).count();
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 10_000);
        assert!((800..1_200).contains(&count(0.1)));
    }
}
