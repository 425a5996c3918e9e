//! Path in place of `/v1` in the paths of a server.

use std::str::FromStr;

/// Longest one, in bytes.
const BYTES_MAX: usize = 256;

/// The `path_prefix` of an upstream, without a slash at its end; empty where its APIs
/// stand at the root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathPrefix(String);

impl PathPrefix {
    /// The prefix; `None` where it is the usual one.
    pub(super) fn unusual(self) -> Option<String> {
        (self.0 != "/v1").then_some(self.0)
    }
}

impl FromStr for PathPrefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with('/') {
            return Err(
                "begin with a slash: write what stands in place of /v1, as \"/v1beta/openai\"",
            );
        }
        let prefix = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |segment: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
            !segment.is_empty() && !matches!(segment, "." | "..") && segment.bytes().all(plain)
        };
        if prefix.len() > BYTES_MAX || !prefix.split('/').skip(1).all(is_plain) {
            return Err(
                "write at most 256 bytes in segments of letters, digits, '.', '_', '-' and '~', as \"/v1beta/openai\"",
            );
        }
        Ok(Self(prefix.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_path() {
        for (text, prefix) in [
            ("/v1beta/openai", Some("/v1beta/openai")),
            ("/api/paas/v4/", Some("/api/paas/v4")),
            ("/", Some("")),
            ("/v1", None),
            ("/v1/", None),
        ] {
            let read = text.parse::<PathPrefix>().unwrap().unusual();
            assert_eq!(read.as_deref(), prefix, "{text}");
        }
        for bad in [
            "",
            "v4",
            "//",
            "/a//b",
            "/a/../b",
            "/.",
            "/a?b",
            "/a#b",
            "/a b",
            "/%61",
            "/ä",
            "http://a/v4",
            &format!("/{}", "x".repeat(256)),
        ] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad:?}");
        }
    }
}
