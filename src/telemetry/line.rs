//! One line of JSON, written field by field.
//!
//! Owns how the fields of the access log are spelled. A request's line is written
//! while the request ends, so it costs what copying its bytes costs: names are known
//! not to need escapes, numbers are integers, and the date is formatted once a second.
//! Does not know what the fields mean.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::time::unix_time;

/// The line at hand. It is meant to be used again and again.
#[derive(Debug, Default)]
pub struct Line {
    text: Vec<u8>,
    /// The second that `date` spells.
    second: Option<u64>,
    /// A date and time without fraction and zone.
    date: String,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            second: None,
            date: String::new(),
        }
    }

    /// Begins anew, with the present time under the key `time`.
    pub fn begin(&mut self) {
        let now = unix_time();
        if self.second != Some(now.as_secs()) {
            let second = i64::try_from(now.as_secs()).unwrap_or_default();
            let stamp = Timestamp::from_second(second).unwrap_or_default();
            self.date.clear();
            self.date.push_str(stamp.to_string().trim_end_matches('Z'));
            self.second = Some(now.as_secs());
        }
        self.text.clear();
        self.text.extend_from_slice(b"{\"time\":\"");
        self.text.extend_from_slice(self.date.as_bytes());
        self.text.push(b'.');
        self.digits(now.subsec_micros().into(), 6);
        self.text.extend_from_slice(b"Z\"");
    }

    /// Ends the line and shows it, with its line feed.
    pub fn end(&mut self) -> &[u8] {
        self.text.extend_from_slice(b"}\n");
        &self.text
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.quoted(value);
    }

    /// A text, where there is one.
    pub fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// An address.
    pub fn address(&mut self, key: &'static str, value: IpAddr) {
        self.key(key);
        self.text.push(b'"');
        push_address(&mut self.text, value);
        self.text.push(b'"');
    }

    /// The last `digits` hexadecimal digits of a number, as text.
    pub fn hex(&mut self, key: &'static str, value: u128, digits: usize) {
        self.key(key);
        self.text.push(b'"');
        push_hex(&mut self.text, value, digits);
        self.text.push(b'"');
    }

    /// A count.
    pub fn count(&mut self, key: &'static str, value: u64) {
        self.key(key);
        push_number(&mut self.text, value);
    }

    /// A count, where there is one.
    pub fn count_if(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.count(key, value);
        }
    }

    /// A time in milliseconds, with three digits behind the point.
    pub fn millis(&mut self, key: &'static str, value: Duration) {
        self.key(key);
        let micros = value.saturating_add(Duration::from_nanos(500)).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        push_number(&mut self.text, micros / 1_000);
        self.text.push(b'.');
        self.digits(micros % 1_000, 3);
    }

    /// A time in milliseconds, where there is one.
    pub fn millis_if(&mut self, key: &'static str, value: Option<Duration>) {
        if let Some(value) = value {
            self.millis(key, value);
        }
    }

    /// A number of tenths, where there is one, as a decimal.
    pub fn tenths_if(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.key(key);
            push_number(&mut self.text, value / 10);
            self.text.push(b'.');
            self.digits(value % 10, 1);
        }
    }

    /// Any finite number, where there is one.
    pub fn decimal_if(&mut self, key: &'static str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.key(key);
            // Writing text to memory can't fail.
            serde_json::to_writer(&mut self.text, &value).unwrap_or_default();
        }
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.text.extend_from_slice(word);
    }

    /// A key of ours: it has nothing to escape.
    fn key(&mut self, key: &'static str) {
        self.text.extend_from_slice(b",\"");
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    fn quoted(&mut self, value: &str) {
        // Without a branch, so that the compiler makes vectors of it.
        let is_special = |byte: u8| u8::from(byte < b' ' || byte == b'"' || byte == b'\\');
        if value.bytes().fold(0, |any, byte| any | is_special(byte)) == 0 {
            self.text.push(b'"');
            self.text.extend_from_slice(value.as_bytes());
            self.text.push(b'"');
        } else {
            // Writing text to memory can't fail.
            serde_json::to_writer(&mut self.text, value).unwrap_or_default();
        }
    }

    /// The last `count` digits of a number.
    fn digits(&mut self, mut number: u64, count: usize) {
        let start = self.text.len();
        self.text.resize(start + count, b'0');
        for slot in self.text.iter_mut().rev().take(count) {
            *slot += last_digit(number);
            number /= 10;
        }
    }
}

/// Appends a number as decimal digits.
fn push_number(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut length = 0;
    for slot in digits.iter_mut().rev() {
        *slot += last_digit(number);
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    let start = digits.len() - length;
    text.extend_from_slice(digits.get(start..).unwrap_or_default());
}

fn last_digit(number: u64) -> u8 {
    u8::try_from(number % 10).unwrap_or_default()
}

/// Appends an address as people write it. That of nearly every client takes a few
/// instructions this way.
fn push_address(text: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            push_number(text, a.into());
            for part in [b, c, d] {
                text.push(b'.');
                push_number(text, part.into());
            }
        }
        IpAddr::V6(address) => text.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// Appends the last `digits` hexadecimal digits of a number.
pub fn push_hex(text: &mut Vec<u8>, mut number: u128, digits: usize) {
    let start = text.len();
    text.resize(start + digits, b'0');
    for slot in text.iter_mut().rev().take(digits) {
        let digit = u8::try_from(number & 0xf).unwrap_or_default();
        *slot = if digit < 10 {
            b'0' + digit
        } else {
            b'a' - 10 + digit
        };
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn a_line_is_json_whatever_stands_in_it() {
        let mut line = Line::new();
        for text in ["plain", "", "a \"b\" \\ c", "line\nfeed\u{1}", "Zürich 🌊"] {
            line.begin();
            line.text("text", text);
            line.flag("flag", true);
            line.text_if("none", None);
            line.count_if("count", Some(u64::MAX));
            line.tenths_if("tenths", Some(123));
            let value: Value = serde_json::from_slice(line.end()).unwrap();
            assert_eq!(value["text"], text);
            assert_eq!(value["flag"], true);
            assert_eq!(value["count"], u64::MAX);
            assert_eq!(value["tenths"], 12.3);
            assert!(value.get("none").is_none());
            let time: Timestamp = value["time"].as_str().unwrap().parse().unwrap();
            assert!(time.duration_since(Timestamp::now()).abs().as_secs() < 60);
        }
    }

    #[test]
    fn times_are_rounded_to_the_microsecond() {
        for (nanos, text) in [
            (0, "0.000"),
            (499, "0.000"),
            (500, "0.001"),
            (1_234_567, "1.235"),
            (999_999_500, "1000.000"),
            (60_000_000_000, "60000.000"),
        ] {
            let mut line = Line::new();
            line.millis("t", Duration::from_nanos(nanos));
            assert_eq!(line.text, format!(",\"t\":{text}").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn addresses_and_numbers_are_spelled_as_the_standard_library_does(
            four in any::<[u8; 4]>(), six in any::<[u8; 16]>(), number in any::<u64>(),
            wide in any::<u128>(),
        ) {
            let mut text = Vec::new();
            push_hex(&mut text, wide, 32);
            prop_assert_eq!(text, format!("{wide:032x}").into_bytes());
            for address in [IpAddr::from(four), IpAddr::from(six)] {
                let mut text = Vec::new();
                push_address(&mut text, address);
                prop_assert_eq!(text, address.to_string().into_bytes());
            }
            let mut text = Vec::new();
            push_number(&mut text, number);
            prop_assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
