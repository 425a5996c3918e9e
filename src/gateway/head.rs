//! The head of a request, as it stands in the access log: also the head of a refused
//! request, so nothing of it is trusted.

pub mod headers;
pub mod hops;
pub mod onward;

use std::borrow::Cow;
use std::fmt::Write;

use http::header::USER_AGENT;
use http::{HeaderMap, Method, Uri};

use crate::telemetry::line::Line;

/// Parts of a request's head that are logged: cut, and nothing in them that a terminal would
/// obey.
#[derive(Clone, Debug, Default)]
pub struct Head {
    method: Option<Method>,
    path: Cow<'static, str>,
    user_agent: Option<Box<str>>,
}

impl Head {
    /// Longest path, in bytes.
    const PATH_MAX: usize = 256;
    /// Longest name of a client, in bytes.
    const AGENT_MAX: usize = 128;

    /// Reads it. The query is left out: some clients write a key into it.
    pub fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        /// Paths that nearly every request asks for.
        const USUAL: [&str; 5] = [
            "/v1/chat/completions",
            "/v1/messages",
            "/v1/responses",
            "/v1/completions",
            "/v1/embeddings",
        ];
        let path = uri.path();
        let usual = USUAL.into_iter().find(|usual| *usual == path);
        let agent = headers.get(USER_AGENT);
        Self {
            // One of its own may be as long as a head.
            method: (method.as_str().len() <= 16).then(|| method.clone()),
            path: usual.map_or_else(
                || Cow::Owned(plain(path.as_bytes(), Self::PATH_MAX)),
                Cow::Borrowed,
            ),
            user_agent: agent.map(|agent| plain(agent.as_bytes(), Self::AGENT_MAX).into()),
        }
    }

    /// Writes it into a line of the log.
    pub fn put(&self, line: &mut Line) {
        line.text_if("method", self.method.as_ref().map(Method::as_str));
        line.text("path", &self.path);
        line.text_if("user_agent", self.user_agent.as_deref());
    }
}

/// The first `max` bytes, with `\xNN` for what is not printable ASCII.
fn plain(bytes: &[u8], max: usize) -> String {
    let bytes = bytes.get(..max).unwrap_or(bytes);
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte);
    if let Ok(text) = std::str::from_utf8(bytes)
        // Without a branch.
        && bytes.iter().fold(true, |all, byte| all & is_plain(byte))
    {
        return text.to_owned();
    }
    let mut text = String::new();
    for byte in bytes {
        if is_plain(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string can't fail.
            write!(text, "\\x{byte:02x}").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_cut_and_holds_nothing_that_a_terminal_obeys() {
        let head = |uri: &str, agent: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.try_into().unwrap());
            Head::read(&Method::GET, &uri.parse().unwrap(), &headers)
        };
        let usual = head("/v1/messages?key=secret", b"claude-cli/2.1 (external)");
        assert!(matches!(usual.path, Cow::Borrowed("/v1/messages")));
        assert_eq!(
            usual.user_agent.as_deref(),
            Some("claude-cli/2.1 (external)")
        );
        let odd = head("/a%1b?token=secret", b"a\xc2\x9b31m\"\\b");
        assert_eq!(odd.path, "/a%1b");
        assert_eq!(odd.user_agent.as_deref(), Some("a\\xc2\\x9b31m\"\\b"));
        let long = head(&format!("/{}", "p".repeat(5_000)), &b"u".repeat(5_000));
        assert_eq!(
            (long.path.len(), long.user_agent.unwrap().len()),
            (256, 128)
        );
    }
}
