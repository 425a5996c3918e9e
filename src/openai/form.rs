//! Requests that are forms: `multipart/form-data`, with the model in a field.
//!
//! Owns the finding of the fields by which a request is routed and counted,
//! wherever they stand; of the other parts only the ends are looked for. The
//! result is a [`Scan`] like that of a JSON body, so that all that follows is
//! the same for both.
//!
//! Readers of forms differ in what they forgive. Whatever two of them could read
//! in two ways is refused here: folded or repeated headers, names with escapes,
//! text before the first boundary or behind the last, but for blank lines.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;
use memchr::memmem::Finder;

use super::request::{Scan, ScanError, StreamOptions};

/// Most parts of a form.
const PARTS_MAX: usize = 256;
/// Longest head of a part, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest boundary, by RFC 2046.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Longest field that is read, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// The boundary that a `Content-Type` names.
///
/// # Errors
///
/// [`ScanError::Boundary`] where there is none, or more than one.
pub fn boundary(content_type: &str) -> Result<String, ScanError> {
    let parameters = content_type.split_once(';').map_or("", |(_, rest)| rest);
    let mut boundaries = Parameters(parameters).filter_map(|parameter| match parameter {
        Ok((name, value)) => name
            .eq_ignore_ascii_case("boundary")
            .then_some(Ok(value.to_owned())),
        Err(()) => Some(Err(ScanError::Boundary)),
    });
    let first = boundaries.next().ok_or(ScanError::Boundary)??;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&first.len()) && !first.ends_with(' ');
    if boundaries.next().is_some() || !fits || !first.bytes().all(plain) {
        return Err(ScanError::Boundary);
    }
    Ok(first)
}

/// Reads a whole form once.
///
/// # Errors
///
/// [`ScanError`] where it is broken, or a field that matters is there twice or
/// makes no sense.
pub fn scan<'a>(body: &'a [u8], boundary: &str) -> Result<Scan<'a>, ScanError> {
    let mut parts = Parts::open(body, boundary)?;
    let mut found = Scan::of_form(body.len(), boundary);
    found.layout.begin = parts.begin;
    let mut options = StreamOptions::default();
    let mut seen = Vec::new();
    let mut count = 0;
    while let Some(part) = parts.next()? {
        count += 1;
        if count > PARTS_MAX {
            return broken(part.value.start, "fewer parts");
        }
        let Some(key) = FIELDS.into_iter().find(|key| *key == part.name) else {
            continue;
        };
        if seen.contains(&key) {
            return Err(ScanError::Duplicate { key: key.into() });
        }
        seen.push(key);
        let text = parts.text(&part, key)?;
        match key {
            "model" => {
                found.model = Some(Cow::Borrowed(text));
                found.layout.model = Some(part.value.clone());
            }
            "stream" => found.stream = flag(key, text)?,
            "user" => found.user = Some(Cow::Borrowed(text)),
            "stream_include_usage" => {
                options.include_usage = Some(flag(key, text)?);
                options.layout.include_usage = Some(part.value.clone());
            }
            _ => {
                options.continuous_usage_stats = Some(flag(key, text)?);
                options.layout.continuous_usage_stats = Some(part.value.clone());
            }
        }
    }
    found.stream_options = Some(options);
    Ok(found)
}

/// The fields that matter.
const FIELDS: [&str; 5] = [
    "model",
    "stream",
    "user",
    "stream_include_usage",
    "stream_continuous_usage_stats",
];

/// A field of yes or no, as the web framework of vLLM reads it.
fn flag(key: &'static str, text: &str) -> Result<bool, ScanError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => Err(ScanError::Field {
            key: key.into(),
            expected: "true or false",
        }),
    }
}

fn broken<T>(at: usize, expected: &'static str) -> Result<T, ScanError> {
    Err(ScanError::Form { at, expected })
}

/// Number of bytes of line breaks that stand first.
fn blank_lines(text: &[u8]) -> usize {
    /// More are no oversight.
    const LINES_MAX: usize = 16;
    let (pairs, _) = text.as_chunks::<2>();
    let lines = pairs.iter().take_while(|pair| *pair == b"\r\n");
    lines.take(LINES_MAX).count() * 2
}

/// One part: its name and where its value lies.
#[derive(Debug)]
struct Part<'a> {
    name: &'a str,
    is_file: bool,
    value: Range<usize>,
}

/// The parts of a form, one after the other.
struct Parts<'a> {
    body: &'a [u8],
    /// Position of the first boundary.
    begin: usize,
    /// Behind a boundary.
    at: usize,
    /// A line break, two dashes and the boundary.
    end: Finder<'static>,
}

impl<'a> Parts<'a> {
    fn open(body: &'a [u8], boundary: &str) -> Result<Self, ScanError> {
        let end = format!("\r\n--{boundary}").into_bytes();
        let first = end.get(2..).unwrap_or_default();
        // Some clients write blank lines before it.
        let begin = blank_lines(body);
        if !body.get(begin..).unwrap_or_default().starts_with(first) {
            return broken(begin, "the boundary that Content-Type names");
        }
        let at = begin + first.len();
        let end = Finder::new(&end).into_owned();
        Ok(Self {
            body,
            begin,
            at,
            end,
        })
    }

    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Result<Option<Part<'a>>, ScanError> {
        let rest = self.rest();
        if let Some(behind) = rest.strip_prefix(b"--") {
            if blank_lines(behind) == behind.len() {
                return Ok(None);
            }
            return broken(self.at + 2, "the end of the body");
        }
        if !rest.starts_with(b"\r\n") {
            return broken(self.at, "a line break behind the boundary");
        }
        self.at += 2;
        let (name, is_file) = self.head()?;
        let start = self.at;
        let value = start..self.end_of_value()?;
        Ok(Some(Part {
            name,
            is_file,
            value,
        }))
    }

    /// Reads the head of a part: the name of its field, and whether it is a file.
    fn head(&mut self) -> Result<(&'a str, bool), ScanError> {
        let begin = self.at;
        let mut disposition = None;
        loop {
            let line = self.line(begin)?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                return broken(self.at, "a colon in the header of a part");
            };
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            if name.is_empty() || !name.bytes().all(plain) {
                return broken(self.at, "a plain name of a header");
            }
            if name.eq_ignore_ascii_case("content-disposition")
                && disposition.replace(value).is_some()
            {
                return broken(self.at, "one Content-Disposition in each part");
            }
            let identity = ["7bit", "8bit", "binary"];
            if name.eq_ignore_ascii_case("content-transfer-encoding")
                && !identity
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(value.trim()))
            {
                return broken(self.at, "no Content-Transfer-Encoding");
            }
        }
        let at = self.at;
        disposition.and_then(named).ok_or(ScanError::Form {
            at,
            expected: "Content-Disposition: form-data with one plain name above this part",
        })
    }

    /// Reads a line of a head that began at `begin`.
    fn line(&mut self, begin: usize) -> Result<&'a str, ScanError> {
        let room = (begin + HEAD_BYTES_MAX).saturating_sub(self.at);
        let rest = self.rest();
        let near = rest.get(..room.min(rest.len())).unwrap_or_default();
        let end = memchr(b'\n', near).filter(|&end| end > 0);
        let line = end.and_then(|end| {
            near.get(..end - 1)
                .filter(|_| near.get(end - 1) == Some(&b'\r'))
        });
        let (Some(line), Some(end)) = (line, end) else {
            return broken(self.at, "a line of the head of a part, ended by CR LF");
        };
        let Ok(text) = std::str::from_utf8(line) else {
            return broken(self.at, "UTF-8 in the head of a part");
        };
        if text.contains(['\r', '\0']) {
            return broken(self.at, "no control characters in the head of a part");
        }
        self.at += end + 1;
        Ok(text)
    }

    /// Goes behind the boundary that ends the value at hand; returns where the
    /// value ends.
    fn end_of_value(&mut self) -> Result<usize, ScanError> {
        while let Some(found) = self.end.find(self.rest()) {
            let value_end = self.at + found;
            self.at = value_end + self.end.needle().len();
            // Else it only begins like the boundary, and belongs to the value.
            if self.rest().starts_with(b"\r\n") || self.rest().starts_with(b"--") {
                return Ok(value_end);
            }
        }
        broken(self.body.len(), "the closing boundary")
    }

    /// The value of a field, as text.
    fn text(&self, part: &Part<'a>, key: &'static str) -> Result<&'a str, ScanError> {
        let wrong = ScanError::Field {
            key: key.into(),
            expected: "a short text, not a file",
        };
        let value = self.body.get(part.value.clone()).unwrap_or_default();
        if part.is_file || value.len() > VALUE_BYTES_MAX {
            return Err(wrong);
        }
        std::str::from_utf8(value).map_err(|_| wrong)
    }
}

/// The name in a `Content-Disposition`, and whether it has a file name. None for
/// what readers could take for two different names.
fn named(disposition: &str) -> Option<(&str, bool)> {
    let (kind, parameters) = disposition.split_once(';').unwrap_or((disposition, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut is_file) = (None, false);
    for parameter in Parameters(parameters) {
        let (key, value) = parameter.ok()?;
        if key.eq_ignore_ascii_case("name") {
            if name.replace(value).is_some() || value.contains('\\') {
                return None;
            }
        } else if key.eq_ignore_ascii_case("filename") || key.eq_ignore_ascii_case("filename*") {
            is_file = true;
        } else {
            return None;
        }
    }
    Some((name?, is_file))
}

/// `; name=value; name="value"`: the parameters of a header, without quotes.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(&'a str, &'a str), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return None;
        }
        self.0 = "";
        let Some((name, rest)) = rest.split_once('=') else {
            return Some(Err(()));
        };
        let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
            let Some(end) = quote_end(quoted) else {
                return Some(Err(()));
            };
            (quoted.get(..end)?, quoted.get(end + 1..)?)
        } else {
            let end = rest.find(';').unwrap_or(rest.len());
            (rest.get(..end)?.trim(), rest.get(end..)?)
        };
        let rest = rest.trim_start();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty()
            || !name.bytes().all(token)
            || !(rest.is_empty() || rest.starts_with(';'))
        {
            return Some(Err(()));
        }
        self.0 = rest;
        Some(Ok((name, value)))
    }
}

/// Position at which the quotes end that were opened before `text`.
fn quote_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
pub(super) mod tests;
