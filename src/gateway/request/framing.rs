//! Parts of a request's head that hyper lets through and two readers could take for
//! two different requests.
//!
//! Refuses more than one `Host` or none, a host that is not one, and every
//! `Transfer-Encoding` but a single `chunked`. Says which connections must not
//! be used again. Reads no body and no path.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Version};

use crate::gateway::refusal::Refusal;

/// Checks the head of a request, of either version of HTTP.
///
/// # Errors
///
/// A [`Refusal`] for what can be read in two ways.
pub fn check(parts: &Parts) -> Result<(), Refusal> {
    let encodings = parts.headers.get_all(TRANSFER_ENCODING);
    let mut encodings = encodings.iter();
    let plain = match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(value), None) => value.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if !plain {
        return Err(Refusal::Framing);
    }
    let both = parts.headers.contains_key(TRANSFER_ENCODING);
    if parts.headers.get_all(CONTENT_LENGTH).iter().count() > usize::from(!both) {
        return Err(Refusal::Framing);
    }
    host(parts)
}

/// HTTP/1.1 must name one host; in HTTP/2 the header may only repeat the
/// authority, and HTTP/1.0 may leave it out.
fn host(parts: &Parts) -> Result<(), Refusal> {
    let user = |authority: &Authority| authority.as_str().contains('@');
    let odd = |authority: &Authority| user(authority) || !has_good_port(authority);
    if parts.uri.authority().is_some_and(odd) {
        return Err(Refusal::Host);
    }
    let mut given = parts.headers.get_all(HOST).iter();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        return Err(Refusal::Host);
    }
    let Some(first) = first else {
        let required = parts.version == Version::HTTP_11;
        return if required { Err(Refusal::Host) } else { Ok(()) };
    };
    if parts.version <= Version::HTTP_11 && is_plain(first.as_bytes()) {
        return Ok(());
    }
    let named = Authority::try_from(first.as_bytes()).map_err(|_| Refusal::Host)?;
    let other =
        parts.version > Version::HTTP_11 && parts.uri.authority().is_some_and(|uri| *uri != named);
    if odd(&named) || other {
        return Err(Refusal::Host);
    }
    Ok(())
}

/// True if a host is one without a doubt: a name or an address of version 4, and
/// perhaps a port. Spares nearly every request a parse.
fn is_plain(host: &[u8]) -> bool {
    let name = host.iter().position(|&byte| byte == b':');
    let (name, port) = host.split_at(name.unwrap_or(host.len()));
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let port = port.strip_prefix(b":").unwrap_or(b"0");
    // Five digits may be too many, which is seen where the host is read whole.
    let is_port = (1..=4).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    !name.is_empty() && name.iter().all(is_name) && is_port
}

/// True if the text behind the host is nothing, a bare colon, or a port.
fn has_good_port(authority: &Authority) -> bool {
    let behind = authority.as_str().rsplit_once(authority.host());
    let port = behind.map_or("", |(_, port)| port);
    port.is_empty() || port == ":" || authority.port_u16().is_some()
}

/// True if the connection must end with this request. hyper drops a
/// `Content-Length` that follows `chunked` without a word, so a proxy before us
/// may see another end of the body than we do: nothing may come after it.
pub fn ends_connection(version: Version, headers: &HeaderMap) -> bool {
    version <= Version::HTTP_11 && headers.contains_key(TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn checked(version: Version, uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn a_request_names_one_host() {
        for (headers, ok) in [
            (&[("host", "a")][..], true),
            (&[("host", "a:8443")], true),
            (&[("host", "a-b.example.org:443")], true),
            (&[("host", "[::1]:8443")], true),
            (&[], false),
            (&[("host", "")], false),
            (&[("host", "a"), ("host", "a")], false),
            (&[("host", "a"), ("host", "b")], false),
            (&[("host", "a, b")], false),
            (&[("host", "u@a")], false),
            (&[("host", "a/b")], false),
            (&[("host", "a:65535")], true),
            (&[("host", "a:65536")], false),
            (&[("host", "a:99999")], false),
            (&[("host", "a:x")], false),
            (&[("host", "a:-1")], false),
            (&[("host", "a:80:80")], false),
            (&[("host", "[::1]:99999")], false),
            (&[("host", "[::1]x")], false),
        ] {
            assert_eq!(checked(Version::HTTP_11, "/", headers), ok, "{headers:?}");
        }
        assert!(checked(Version::HTTP_10, "/", &[]));
        assert!(checked(Version::HTTP_2, "https://a/", &[]));
        assert!(checked(Version::HTTP_2, "https://a/", &[("host", "a")]));
        assert!(!checked(Version::HTTP_2, "https://a/", &[("host", "b")]));
        assert!(!checked(Version::HTTP_2, "https://u@a/", &[]));
        assert!(!checked(Version::HTTP_2, "https://a:99999/", &[]));
    }

    #[test]
    fn a_body_has_one_framing() {
        const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");
        for (framing, ok) in [
            (&[][..], true),
            (&[("content-length", "2")], true),
            (&[CHUNKED], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[CHUNKED, CHUNKED], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "identity")], false),
            (&[("transfer-encoding", "chunked, identity")], false),
            (&[("content-length", "2"), CHUNKED], false),
            (&[("content-length", "2"), ("content-length", "2")], false),
        ] {
            let mut headers = vec![("host", "a")];
            headers.extend_from_slice(framing);
            assert_eq!(checked(Version::HTTP_11, "/", &headers), ok, "{framing:?}");
        }
    }
}
