//! Headers that may cross the gateway, in both directions.

use std::fmt::Write;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue};

use crate::gateway::limits::rate::{BudgetStanding, Standings};
use crate::time::unix_seconds;

/// The id of a request, kept from the client or made here.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Longest pause that a client is told, in seconds: the SDKs ignore longer ones.
const PAUSE_MAX: u32 = 60;

/// Milliseconds that a request waited for its worker.
pub const COLD_START: HeaderName = HeaderName::from_static("x-tidegate-cold-start-ms");

/// Target of a list that answers, and the reasons against those before it.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-tidegate-served-by");

/// Tells how long an idle connection is kept.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Keeps nginx from holding events back.
pub const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// True if a header is for one hop: RFC 9110, section 7.6.1.
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

/// True if servers may need a header of a client. This lists what goes on, since what must
/// not (credentials, claims of where a request came from or meant to go) has
/// endless spellings: `x_forwarded_for` is `X-Forwarded-For` to many a server.
fn is_for_servers(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "accept-language"
            | "baggage"
            | "content-language"
            | "content-type"
            | "idempotency-key"
            | "traceparent"
            | "tracestate"
            | "user-agent"
            | "x-correlation-id"
            // vLLM 0.32 reads these three.
            | "x-data-parallel-rank"
            | "x-request-id"
            | "x-session-id"
    ) || ["anthropic-", "openai-", "x-stainless-", "x-vllm-"]
        .iter()
        .any(|family| name.starts_with(family))
}

/// True if a header must not go on even where `forward_headers` names it: it is
/// between the client and us, or we say it ourselves.
pub fn is_never_forwarded(name: &str) -> bool {
    // What opens a WebSocket is for one hop, and may have a token in it.
    is_for_one_hop(name)
        || name.starts_with("sec-websocket-")
        || matches!(
            name,
            "accept-encoding"
                | "api-key"
                | "authorization"
                // The body is passed on decoded.
                | "content-encoding"
                | "content-length"
                | "cookie"
                | "expect"
                | "host"
                | "x-api-key"
                | "x-tidegate-hops"
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

/// True if a header of a request is for its server as well: one of the list, or of
/// those `more` that the operator named.
pub fn goes_on(name: &HeaderName, more: &[HeaderName]) -> bool {
    is_for_servers(name.as_str()) || more.contains(name) && !is_never_forwarded(name.as_str())
}

/// True if a header of an answer is about the answer itself. Headers that speak for the
/// server's own host or account are between it and us: cookies, `Server`, `Location`,
/// security policies, limits and organisations. A list of what may pass stays right
/// when servers invent more of it.
fn is_of_answer(name: &str) -> bool {
    matches!(
        name,
        "cache-control"
            | "content-disposition"
            | "content-language"
            | "content-length"
            | "content-type"
            | "etag"
            | "expires"
            | "last-modified"
            | "openai-model"
            | "openai-processing-ms"
            | "openai-version"
            | "pragma"
            | "retry-after"
            | "retry-after-ms"
            | "x-should-retry"
    )
}

/// Leaves the headers of a response that its client may see. `stream` adds what
/// keeps proxies from holding events back.
pub fn strip_response(headers: &mut HeaderMap, stream: bool) {
    strip_named(headers);
    strip(headers, |name| !is_of_answer(name));
    bound_pauses(headers);
    if stream {
        headers.remove(CONTENT_LENGTH);
        headers.insert(
            CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        );
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
}

/// Holds the pauses that a server asks for to what SDKs obey, whatever it says; what is
/// none is taken out.
fn bound_pauses(headers: &mut HeaderMap) {
    let is_pause = |name: &HeaderName| name.as_str().starts_with(RETRY_AFTER.as_str());
    if !headers.keys().any(is_pause) {
        return;
    }
    for (name, most) in [
        (RETRY_AFTER, PAUSE_MAX),
        (RETRY_AFTER_MS, PAUSE_MAX * 1_000),
    ] {
        let Some(given) = headers.remove(&name) else {
            continue;
        };
        let text = given.to_str().unwrap_or_default().trim();
        if let Some(pause) = pause(text, most) {
            headers.insert(name, HeaderValue::from(pause));
        }
    }
}

/// Seconds, or milliseconds, or until a date of HTTP (RFC 9110, section 5.6.7).
fn pause(text: &str, most: u32) -> Option<u32> {
    let whole = text.split('.').next().unwrap_or_default();
    if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        let fraction = text.parse::<f64>().ok()? % 1.0 > 0.0;
        let whole = whole.parse::<u32>().unwrap_or(most);
        return Some(whole.saturating_add(u32::from(fraction)).min(most));
    }
    let date = jiff::fmt::rfc2822::parse(text)
        .ok()?
        .timestamp()
        .as_second();
    let now = i64::try_from(unix_seconds()).unwrap_or(i64::MAX);
    let left = date.saturating_sub(now).clamp(0, i64::from(most));
    u32::try_from(left).ok()
}

/// Bytes of a head as they count against `head_bytes_max`: names and values, and the
/// four that stand around them in a line.
pub fn head_bytes(uri: &http::Uri, headers: &HeaderMap) -> usize {
    let lines = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    target_bytes(uri) + lines.sum::<usize>()
}

/// The bytes of a request target.
pub fn target_bytes(uri: &http::Uri) -> usize {
    uri.path().len() + uri.query().map_or(0, str::len)
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

/// Claims of OpenAI's SDKs about themselves: how often one has tried the request before,
/// and how long it waits for an answer. Most say only a part of it, so all names are looked
/// at as they stand.
pub fn client_says(headers: &HeaderMap) -> (Option<u32>, Option<Duration>) {
    let (mut retries, mut read, mut all) = (None, None, None);
    for (name, value) in headers {
        let text = || value.to_str().unwrap_or_default();
        // Of two that are alike the first counts.
        match name.as_str() {
            "x-stainless-retry-count" => retries = retries.or(Some(text())),
            "x-stainless-read-timeout" => read = read.or(Some(text())),
            "x-stainless-timeout" => all = all.or(Some(text())),
            _ => {}
        }
    }
    let patience = read.or(all).and_then(|text| {
        let patience = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
        (!patience.is_zero()).then_some(patience)
    });
    (retries.and_then(|text| text.parse().ok()), patience)
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
        let Some(BudgetStanding {
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
pub(in crate::gateway) mod tests {
    use super::*;

    pub(in crate::gateway) fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
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
    fn an_answer_keeps_what_is_about_it_and_nothing_about_its_server() {
        let mut headers = map(&[
            ("content-type", "application/json"),
            ("retry-after", "86400"),
            ("location", "http://10.0.0.7/"),
            ("set-cookie", "a=b"),
            ("server", "uvicorn"),
            ("strict-transport-security", "max-age=1"),
            ("openai-organization", "us"),
            ("x-ratelimit-limit-requests", "7"),
            ("access-control-allow-origin", "*"),
            ("www-authenticate", "Basic"),
            ("cache-control", "no-store"),
            ("connection", "cache-control"),
        ]);
        strip_response(&mut headers, false);
        let left = map(&[("content-type", "application/json"), ("retry-after", "60")]);
        assert_eq!(headers, left);
    }

    #[test]
    fn a_pause_is_at_most_a_minute_in_whatever_form_it_comes() {
        let seconds = |text: &str| pause(text, PAUSE_MAX);
        for (text, told) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("0.2", Some(1)),
            ("86400", Some(60)),
            ("99999999999999999999", Some(60)),
            ("Fri, 31 Dec 2100 23:59:59 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("1e9", None),
        ] {
            assert_eq!(seconds(text), told, "{text:?}");
        }
        assert_eq!(pause("86400000", PAUSE_MAX * 1_000), Some(60_000));
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
        let of = |name, text| client_says(&map(&[(name, text)])).1;
        let python = of("x-stainless-read-timeout", "2.5");
        assert_eq!(python, Some(Duration::from_millis(2500)));
        let node = of("x-stainless-timeout", "600");
        assert_eq!(node, Some(Duration::from_mins(10)));
        for bad in ["", "0", "-1", "NaN", "inf", "1e300", "not set"] {
            assert_eq!(of("x-stainless-timeout", bad), None, "{bad:?}");
        }
        let all = client_says(&map(&[
            ("x-stainless-timeout", "600"),
            ("x-stainless-retry-count", "2"),
            ("x-stainless-read-timeout", "2.5"),
        ]));
        assert_eq!(all, (Some(2), Some(Duration::from_millis(2500))));
    }
}
