//! Addresses of pictures, sound and films, as far as an engine is told where to fetch.
//!
//! Takes only what all readers of addresses read in the same way: the engine's
//! reader, its HTTP client and ours need not agree about any other.

use std::str::FromStr;

use crate::outbound::dial::public::Host;

/// Source of a piece of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It lies in the request.
    Data,
    /// It is fetched from this host.
    Web(Host),
}

/// Reason why a text is no such address; goes on a sentence about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotMedia(pub(super) &'static str);

impl FromStr for Source {
    type Err = NotMedia;

    fn from_str(url: &str) -> Result<Self, NotMedia> {
        let wrong = NotMedia("must begin with http://, https:// or data:");
        let (scheme, rest) = url.split_once(':').ok_or(wrong)?;
        if scheme.eq_ignore_ascii_case("data") {
            return Ok(Self::Data);
        }
        if !["http", "https"]
            .iter()
            .any(|taken| scheme.eq_ignore_ascii_case(taken))
        {
            return Err(wrong);
        }
        let rest = rest.strip_prefix("//").ok_or(wrong)?;
        if url.chars().any(char::is_control) {
            return Err(NotMedia("must not have control characters"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest.get(..end).unwrap_or_default();
        if authority.contains('@') {
            return Err(NotMedia("must not have a user or password"));
        }
        // Behind the bracket of IPv6.
        let behind = authority.rfind(']').map_or(0, |at| at + 1);
        let (head, tail) = authority.split_at_checked(behind).unwrap_or_default();
        let (host, port) = match tail.split_once(':') {
            Some((name, port)) => (format!("{head}{name}"), port),
            None => (authority.to_owned(), ""),
        };
        let is_port = port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
        if !is_port || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotMedia("must have a port of 1 to 65535, or none"));
        }
        match host.parse() {
            Ok(host) => Ok(Self::Web(host)),
            Err(_) => Err(NotMedia(
                "must name its host plainly: by letters, digits, '-' and '.', or by an address in its usual form",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_one_way_or_not_at_all() {
        for (url, host) in [
            ("http://example.org", "example.org"),
            ("HTTPS://Example.org:8443/a?b#c", "example.org"),
            ("https://example.org?@127.0.0.1/", "example.org"),
            ("https://example.org#@127.0.0.1/", "example.org"),
            ("https://example.org/http://127.0.0.1", "example.org"),
            ("http://example.org:/a b", "example.org"),
            ("http://[2606:4700::1]:80/", "[2606:4700::1]"),
            ("http://127.0.0.1/", "127.0.0.1"),
        ] {
            let source = Source::Web(host.parse().unwrap());
            assert_eq!(url.parse::<Source>(), Ok(source), "{url}");
        }
        for data in ["data:image/png;base64,AA", "DATA:,x", "dAtA:"] {
            assert_eq!(data.parse::<Source>(), Ok(Source::Data), "{data}");
        }
        for bad in [
            "x",
            "/etc/passwd",
            "//example.org/a",
            "http:example.org",
            "http:/example.org",
            "http:///example.org",
            "http://",
            "http:\\\\example.org",
            "http://example.org\\@127.0.0.1/",
            "http://127.0.0.1\\.example.org/",
            "http://user@127.0.0.1/",
            "http://example.org@127.0.0.1/",
            "http://user:pw@example.org/",
            "http://127.0.0.1%2f.example.org/",
            "http://127%2e0.0.1/",
            "http://2130706433/",
            "http://[::1%25lo]/",
            "http://[::1]x/",
            "http://[::1/",
            "http://example.org:80:80/",
            "http://example.org:+80/",
            "http://example.org:0/",
            "http://example.org:99999/",
            " http://example.org/",
            "\thttp://example.org/",
            "ht\ttp://example.org/",
            "http://exa\nmple.org/",
            "http://example.org/\n",
            "http://example.org /",
            "http://１２７.0.0.1/",
            "file:///etc/passwd",
            "FILE:///etc/passwd",
            "file:/etc/passwd",
            "ftp://example.org/",
            "gopher://example.org/",
            "httpx://example.org/",
            "s3://bucket/a",
            "url:http://example.org",
            "data ://x",
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?}");
        }
    }
}
