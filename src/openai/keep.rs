//! `keep_alive`: how long a model is to stay awake after a request, as a client wants it.
//!
//! It is Ollama's, and clients send it to other servers as well: as `"5m"`, `300`, `-1` or
//! `"-1"`. What becomes of it is not decided here.

use std::sync::LazyLock;
use std::time::Duration;

use super::api::Api;
use super::request::{Scan, ScanError};
use super::rules::{Act, Rule, Rules};
use crate::pieces::Pieces;

/// The rule that takes it out.
static OUT: LazyLock<Rules> = LazyLock::new(|| {
    let rule = Rule {
        key: "keep_alive".to_owned(),
        act: Act::Drop,
    };
    Rules::new(vec![rule]).unwrap_or_default()
});
/// Longest spelling that is read, in bytes.
const BYTES_MAX: usize = 64;

/// A request without it, and what it said: nothing where it is missing or can't be read.
/// `scan` must be the scan of this very body.
///
/// # Errors
///
/// [`ScanError::Duplicate`] where it is repeated.
pub fn take_out(
    api: Api,
    body: &Pieces,
    scan: Scan<'_>,
) -> Result<(Option<Duration>, Pieces, Scan<'static>), ScanError> {
    let (value, edited, scan) = OUT.take_out(api, body, scan)?;
    let value = value.filter(|span| span.len() <= BYTES_MAX);
    let value = value.map(|span| body.part(span).into_one());
    Ok((value.and_then(|text| read(&text)), edited, scan))
}

/// Duration of a value; [`Duration::MAX`] for ever.
fn read(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let Some(text) = text.strip_prefix('"') else {
        return seconds(text.parse().ok()?);
    };
    let text = text.strip_suffix('"')?;
    // Ollama's clients write numbers in quotes, though it refuses them.
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    match text.strip_prefix('-') {
        Some(rest) => of_go(rest).map(|_| Duration::MAX),
        None => of_go(text),
    }
}

/// So many seconds; for ever below zero.
fn seconds(number: f64) -> Option<Duration> {
    if !number.is_finite() {
        return None;
    }
    let is_for_ever = number < 0.0;
    let read = Duration::try_from_secs_f64(number);
    Some(read.ok().filter(|_| !is_for_ever).unwrap_or(Duration::MAX))
}

/// A duration as Go writes it: `1h30m`, `1.5h`, `300ms`.
fn of_go(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at_checked(number)?;
        let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, behind) = behind.split_at_checked(unit.unwrap_or(behind.len()))?;
        let each = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        all = all.saturating_add(seconds(number.parse::<f64>().ok()? * each)?);
        rest = behind;
    }
    (!text.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::request::scan;

    #[test]
    fn what_clients_write_is_read_and_nothing_else() {
        let of = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("300", of(300)),
            ("0", of(0)),
            ("2.5", Some(Duration::from_millis(2_500))),
            ("-1", Some(Duration::MAX)),
            ("1e300", Some(Duration::MAX)),
            ("\"5m\"", of(300)),
            ("\"1h30m\"", of(5_400)),
            ("\"1.5h\"", of(5_400)),
            ("\"250ms\"", Some(Duration::from_millis(250))),
            ("\"-1\"", Some(Duration::MAX)),
            ("\"-1m\"", Some(Duration::MAX)),
            ("\"0\"", of(0)),
            ("\"3600\"", of(3_600)),
            ("null", None),
            ("true", None),
            ("{\"a\":1}", None),
            ("\"\"", None),
            ("\"-\"", None),
            ("\"5\\u006d\"", None),
            ("\"5 minutes\"", None),
            ("\"5d\"", None),
            ("\"m\"", None),
            ("\"inf\"", None),
            ("\"nan\"", None),
            ("\"1..5h\"", None),
        ] {
            assert_eq!(read(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn the_rest_of_the_body_stays_as_it_was() {
        for (body, keep, expected) in [
            (
                r#"{"model":"m", "keep_alive":"5m","messages":[]}"#,
                Some(300),
                r#"{"model":"m", "messages":[]}"#,
            ),
            (
                r#"{"messages":[],"model":"m","stream":true,"keep_alive": -1 }"#,
                Some(u64::MAX),
                r#"{"messages":[],"model":"m","stream":true }"#,
            ),
            (
                r#"{"model":"m","messages":[{"keep_alive":1}]}"#,
                None,
                r#"{"model":"m","messages":[{"keep_alive":1}]}"#,
            ),
            (r#"{"keep_alive":[1]}"#, None, "{}"),
        ] {
            let pieces = Pieces::from(bytes::Bytes::from_static(body.as_bytes()));
            let scanned = scan(body.as_bytes()).unwrap();
            let (found, edited, scanned) = take_out(Api::Chat, &pieces, scanned).unwrap();
            assert_eq!(found.map(|keep| keep.as_secs()), keep, "{body}");
            let edited = edited.into_one();
            assert_eq!(std::str::from_utf8(&edited).unwrap(), expected);
            assert_eq!(scanned, scan(&edited).unwrap(), "{body}");
        }
        let twice = r#"{"keep_alive":1,"keep_alive":2}"#;
        let pieces = Pieces::from(bytes::Bytes::from_static(twice.as_bytes()));
        let scanned = scan(twice.as_bytes()).unwrap();
        take_out(Api::Chat, &pieces, scanned).unwrap_err();
    }
}
