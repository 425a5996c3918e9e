//! `headers`, `headers_env`, `headers_file` and `api_key_header`: what a server is told
//! beside, in every request.
//!
//! Route files are read by operators, and shown, so that none holds a secret: what reads
//! as the name of one takes its value from a variable or a file.

use std::path::Path;

use http::{HeaderName, HeaderValue};

use super::secret::variable_fault;
use super::{ApiKeySource, Reader};
use crate::config::problems::cut;
use crate::config::tree::{Entry, Value};

/// Most of them.
const ITEMS_MAX: usize = 32;

/// Longest value that a route file may have, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// A header for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderSource,
}

/// The value of a header for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// This, as the route file says it.
    Plain(HeaderValue),
    /// Value that is kept elsewhere.
    Secret(ApiKeySource),
}

/// Place where the value of a header is written.
#[derive(Clone, Copy)]
enum Place {
    File,
    Env,
    Plain,
}

/// True if the gateway itself says this header, or HTTP does.
fn is_ours(name: &str) -> bool {
    // To many a server `x_forwarded_for` is the same.
    let name = name.replace('_', "-");
    matches!(
        name.as_str(),
        "accept-encoding"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-type"
            | "expect"
            | "forwarded"
            | "host"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "traceparent"
            | "tracestate"
            | "transfer-encoding"
            | "upgrade"
            | "via"
            | "x-real-ip"
            | "x-request-id"
    ) || ["sec-websocket-", "x-forwarded-", "x-tidegate-"]
        .iter()
        .any(|family| name.starts_with(family))
}

/// True if a name says that its value is a secret.
fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "auth",
        "cookie",
        "credential",
        "key",
        "passw",
        "secret",
        "signature",
        "token",
    ];
    WORDS.iter().any(|word| name.contains(word))
}

/// Reads `api_key_header`; it needs a key.
pub(super) fn key_header(table: &mut Reader<'_>, has_key: bool) -> Option<HeaderName> {
    const KEY: &str = "api_key_header";
    let text = table.words(KEY)?;
    let Ok(name) = text.value.parse::<HeaderName>() else {
        let message = "this is not the name of a header: write one, as \"x-api-key\"";
        table.wrong(text.line, KEY, message);
        return None;
    };
    if is_ours(name.as_str()) {
        let message = format!(
            "{name} is said by the gateway itself: write the header that has the server's key, as \"x-api-key\""
        );
        table.wrong(text.line, KEY, message);
        return None;
    }
    if !has_key {
        let message = "there is no key for it: write api_key_env or api_key_file, or take this out";
        table.wrong(text.line, KEY, message);
    }
    Some(name)
}

/// Reads the headers. `key`: the one that has the server's key, if it has any.
pub(super) fn read(
    table: &mut Reader<'_>,
    key: Option<&HeaderName>,
    base: &Path,
) -> Vec<UpstreamHeader> {
    let mut headers: Vec<UpstreamHeader> = Vec::new();
    for (place, from) in [
        ("headers", Place::Plain),
        ("headers_env", Place::Env),
        ("headers_file", Place::File),
    ] {
        for entry in table.raw_table(place) {
            let header = one(entry, from, base).and_then(|header| {
                let name = &header.name;
                let fault = if key == Some(name) {
                    "this header has the server's key: take it out here"
                } else if headers.iter().any(|other| other.name == *name) {
                    "this header stands here twice: take one out"
                } else {
                    return Ok(header);
                };
                Err((entry.line, fault.to_owned()))
            });
            match header {
                Ok(header) => headers.push(header),
                Err((line, message)) => {
                    table.wrong(line, &format!("{place}.{}", cut(&entry.key)), message);
                }
            }
        }
        if headers.len() > ITEMS_MAX {
            let message = format!("write at most {ITEMS_MAX} headers");
            table.wrong(table.line_of(place), place, message);
            return Vec::new();
        }
    }
    headers
}

/// Reads one header; else says what is wrong, and where.
fn one(entry: &Entry, from: Place, base: &Path) -> Result<UpstreamHeader, (usize, String)> {
    let wrong = |message: &str| Err((entry.line, message.to_owned()));
    let Ok(name) = entry.key.parse::<HeaderName>() else {
        return wrong("this is not the name of a header: write one, as \"anthropic-version\"");
    };
    if is_ours(name.as_str()) {
        return wrong("this header is said by the gateway itself: take it out");
    }
    let Value::Text(text) = &entry.node.value else {
        return Err((
            entry.node.line,
            format!("write a text in quotes, not {}", entry.node.value.kind()),
        ));
    };
    let is_empty = text.trim().is_empty() || text.chars().any(char::is_control);
    let value = match from {
        _ if is_empty => return wrong("write one line that is not empty"),
        Place::Plain if is_secret(name.as_str()) => {
            return wrong(
                "this reads as a secret, and route files are shown: name the variable that holds it in headers_env, or its file in headers_file",
            );
        }
        Place::Plain => {
            let value = HeaderValue::from_str(text.trim());
            let value = value
                .ok()
                .filter(|value| value.len() <= VALUE_BYTES_MAX && value.as_bytes().is_ascii());
            let Some(value) = value else {
                return wrong("write at most 1024 printable ASCII characters on one line");
            };
            HeaderSource::Plain(value)
        }
        Place::Env => match variable_fault(text) {
            Some(fault) => return wrong(fault),
            None => HeaderSource::Secret(ApiKeySource::Env(text.clone())),
        },
        Place::File => HeaderSource::Secret(ApiKeySource::File(base.join(text))),
    };
    Ok(UpstreamHeader { name, value })
}
