//! Which headers may cross the gateway, in both directions.

use std::fmt::Write;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::rate::{Standing, Standings};

/// The id of a request, kept from the client or made here.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Milliseconds that a request waited for its worker.
pub const COLD_START: HeaderName = HeaderName::from_static("x-tidegate-cold-start-ms");

const READ_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-read-timeout");
const STAINLESS_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-timeout");
/// Keeps nginx from holding events back.
pub const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Whether a header is for one hop: RFC 9110, section 7.6.1.
fn is_for_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether the client says it to us, not to the server: its credentials above all.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "accept-encoding"
            | "access-control-request-headers"
            | "access-control-request-method"
            | "api-key"
            | "authorization"
            // The body is passed on decoded.
            | "content-encoding"
            | "content-length"
            | "cookie"
            | "expect"
            | "forwarded"
            | "host"
            // Which pages may call us is between the browser and us.
            | "origin"
            | "x-api-key"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-real-ip"
    )
}

/// Takes off every header whose name is `unwanted`. Most are not there, so names are
/// looked at as they stand, and only those that are there cost a look-up.
fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names = headers.keys().filter(|name| unwanted(name.as_str()));
    let names: Vec<HeaderName> = names.cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Takes every header off that `Connection` names.
pub fn strip_named(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Whether a header of a request is for its server as well.
pub fn goes_on(name: &HeaderName) -> bool {
    !is_for_one_hop(name.as_str()) && !is_ours(name.as_str())
}

/// Leaves the headers of a response that its client may see. `stream` adds what
/// keeps proxies from holding events back.
pub fn strip_response(headers: &mut HeaderMap, stream: bool) {
    strip_named(headers);
    strip(headers, |name| {
        is_for_one_hop(name) || name == REQUEST_ID.as_str()
    });
    if stream {
        headers.remove(CONTENT_LENGTH);
        headers.insert(
            CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        );
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
}

/// The media type of a body, without parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// The declared length of a body.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The client's own id of its request, if it may be used as one.
pub fn client_request_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let fits = (1..=128).contains(&text.len());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (fits && text.bytes().all(plain)).then_some(text)
}

/// How long the client waits for an answer: OpenAI's SDKs say it in seconds.
pub fn client_patience(headers: &HeaderMap) -> Option<Duration> {
    let python = headers.get(READ_TIMEOUT);
    let value = python.or_else(|| headers.get(STAINLESS_TIMEOUT))?;
    let seconds: f64 = value.to_str().ok()?.parse().ok()?;
    let patience = Duration::try_from_secs_f64(seconds).ok()?;
    (!patience.is_zero()).then_some(patience)
}

/// Tells the client what is left of its token's budgets, as far as it has any.
pub fn put_standings(headers: &mut HeaderMap, standings: &Standings) {
    let requests = standings.requests.as_ref();
    let tokens = standings.tokens.as_ref();
    let rows: [(_, [&'static str; 3]); 2] = [
        (
            requests,
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
        ),
        (
            tokens,
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
        ),
    ];
    for (standing, [limit, remaining, reset]) in rows {
        let Some(Standing {
            limit: most,
            remaining: left,
            reset: after,
        }) = standing
        else {
            continue;
        };
        headers.insert(limit, HeaderValue::from(*most));
        headers.insert(remaining, HeaderValue::from(*left));
        if let Ok(value) = HeaderValue::try_from(go_duration(*after)) {
            headers.insert(reset, value);
        }
    }
}

/// A duration as Go writes it, to the millisecond: `120ms`, `1.5s`, `6m0s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let mut text = String::new();
    // Writing to a string can't fail.
    if hours > 0 {
        write!(text, "{hours}h").ok();
    }
    if hours > 0 || minutes > 0 {
        write!(text, "{minutes}m").ok();
    }
    let (seconds, thousandths) = (rest / 1_000, rest % 1_000);
    let fraction = format!(".{thousandths:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    write!(text, "{seconds}{fraction}s").ok();
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_client_id_is_kept_only_when_it_is_plain() {
        assert_eq!(
            client_request_id(&map(&[("x-request-id", "a.B_1-")])),
            Some("a.B_1-")
        );
        for bad in ["", "a b", "a\"b", "ä"] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(client_request_id(&headers), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (millis, text) in [
            (0, "0s"),
            (120, "120ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (1_025, "1.025s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (5_430_010, "1h30m30.01s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1)), "1ms");
    }

    #[test]
    fn a_client_says_how_long_it_waits_or_it_does_not() {
        let of = |name, text| client_patience(&map(&[(name, text)]));
        let python = of("x-stainless-read-timeout", "2.5");
        assert_eq!(python, Some(Duration::from_millis(2500)));
        let node = of("x-stainless-timeout", "600");
        assert_eq!(node, Some(Duration::from_mins(10)));
        for bad in ["", "0", "-1", "NaN", "inf", "1e300", "not set"] {
            assert_eq!(of("x-stainless-timeout", bad), None, "{bad:?}");
        }
    }
}
