//! The cookie of a session: its name, and how it is set, found and taken off.
//!
//! Browsers send the cookies of a host to every port of it. So the name holds an id of
//! this gateway, and two of them on one host, as behind two tunnels, leave each other's
//! sessions alone. The id is that of machine and state directory: the same after a
//! restart, and no secret.

use std::path::Path;
use std::sync::Arc;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::session::{self, Begun};

const GUARDS: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";
/// Characters of the id.
const ID_CHARS: usize = 8;

/// The cookie of this gateway's sessions. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Cookie {
    name: Arc<str>,
}

impl Cookie {
    /// The cookie of the gateway that keeps its state in this directory.
    pub(super) fn of(state: &Path) -> Self {
        let host = rustix::system::uname();
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let state = std::fs::canonicalize(state).unwrap_or_else(|_| state.to_owned());
        let whole = format!("{:?} {machine} {}", host.nodename(), state.display());
        let id: String = session::hash(&whole).chars().take(ID_CHARS).collect();
        Self {
            name: format!("{}-{id}", session::COOKIE).into(),
        }
    }

    /// The value that a client sent: under this name, or the plain one, which is for
    /// programs.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let named = |wanted: &str| {
            let all = headers.get_all(COOKIE).iter();
            all.filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(';'))
                .filter_map(|pair| pair.trim().split_once('='))
                .find_map(|(name, value)| (name == wanted).then_some(value))
        };
        named(&self.name).or_else(|| named(session::COOKIE))
    }

    /// Header that gives a browser the cookie.
    pub(super) fn set(&self, begun: &Begun) -> [(HeaderName, HeaderValue); 1] {
        let (value, max_age) = (&begun.cookie, begun.max_age);
        self.header(&format!("{value}; {GUARDS}; Max-Age={max_age}"))
    }

    /// Header that takes the cookie off.
    pub(super) fn unset(&self) -> [(HeaderName, HeaderValue); 1] {
        self.header(&format!("; {GUARDS}; Max-Age=0"))
    }

    fn header(&self, rest: &str) -> [(HeaderName, HeaderValue); 1] {
        let text = format!("{}={rest}", self.name);
        // All of it is of URL-safe characters.
        let value = HeaderValue::from_str(&text);
        [(SET_COOKIE, value.unwrap_or(HeaderValue::from_static("")))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_finds_its_own_cookie() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, again, other) = (
            Cookie::of(one.path()),
            Cookie::of(one.path()),
            Cookie::of(other.path()),
        );
        assert_eq!(one.name, again.name);
        assert_ne!(one.name, other.name);
        let mut headers = HeaderMap::new();
        assert_eq!(one.find(&headers), None);
        let both = format!("a=b; {}=01.x; {}=02.y", one.name, other.name);
        headers.append(COOKIE, HeaderValue::from_str(&both).unwrap());
        assert_eq!(
            (one.find(&headers), other.find(&headers)),
            (Some("01.x"), Some("02.y"))
        );
        headers.insert(COOKIE, HeaderValue::from_static("__Host-tidegate=03.z"));
        assert_eq!(one.find(&headers), Some("03.z"));
        headers.insert(COOKIE, HeaderValue::from_static("x__Host-tidegate=01.x"));
        assert_eq!(one.find(&headers), None);
    }
}
