//! Routes that have a host name of their own.
//!
//! On such a name there is nothing but its route. Where TLS named the server too
//! (SNI), both must name the same: else a connection that was opened to one
//! route, and perhaps shown another certificate, would reach another.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;

use crate::gateway::refusal::Refusal;
use crate::gateway::route::table::Table;

/// The entrance that the request's host name is all for, by its path segment.
/// `tls_name` is the name that the client asked TLS for.
///
/// # Errors
///
/// [`Refusal::Misdirected`] when TLS was asked for another name.
pub fn entrance<'t>(
    parts: &Parts,
    tls_name: Option<&str>,
    table: &'t Table,
) -> Result<Option<&'t str>, Refusal> {
    if !table.has_hosts() {
        return Ok(None);
    }
    let named = host_name(parts);
    let found = named.as_deref().and_then(|name| table.by_host(name));
    if let Some(tls_name) = tls_name
        && named.as_deref() != Some(tls_name)
        && (found.is_some() || table.by_host(tls_name).is_some())
    {
        return Err(Refusal::Misdirected);
    }
    Ok(found)
}

/// The name alone, in lower case, without port and the root's dot.
fn host_name(parts: &Parts) -> Option<Cow<'_, str>> {
    let text = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(HOST)?.to_str().ok()?,
    };
    let name = if text.starts_with('[') {
        text.split_inclusive(']').next()?
    } else {
        text.split(':').next()?
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn a_host_name_is_read_without_port_case_and_dot() {
        for (host, name) in [
            ("Chat.Example.org", "chat.example.org"),
            ("chat.example.org:8443", "chat.example.org"),
            ("chat.example.org.", "chat.example.org"),
            ("chat.example.org.:443", "chat.example.org"),
            ("[::1]:8443", "[::1]"),
        ] {
            let request = Request::get("/").header(HOST, host).body(()).unwrap();
            assert_eq!(host_name(&request.into_parts().0).unwrap(), name);
        }
        let request = Request::get("https://A.example:1/x").body(()).unwrap();
        assert_eq!(host_name(&request.into_parts().0).unwrap(), "a.example");
    }
}
