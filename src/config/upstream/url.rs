//! The address of an upstream, as it is written.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::ServerName;

use super::Address;

/// Longest path of a socket that the kernel takes, with a zero byte behind it.
const SOCKET_BYTES_MAX: usize = 107;

/// Longest address, in bytes: it is a label of metrics.
const URL_BYTES_MAX: usize = 512;

/// The `url` of an upstream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: Scheme,
    pub(super) address: Address,
    pub(super) base_path: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Unix,
    Http,
    /// With the host that its certificate is to name.
    Https(String),
}

/// Reason why a text is not such a url.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUrl(&'static str);

impl fmt::Display for NotUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Url {
    fn of_socket(path: &str) -> Result<Self, NotUrl> {
        if !path.starts_with('/') || path.chars().any(char::is_control) {
            return Err(NotUrl(
                "write the whole path of the socket, as \"unix:/run/vllm.sock\"",
            ));
        }
        if path.len() > SOCKET_BYTES_MAX {
            return Err(NotUrl(
                "write a path of at most 107 bytes: the system takes no longer one for a socket",
            ));
        }
        Ok(Self {
            scheme: Scheme::Unix,
            address: Address::Unix(path.into()),
            base_path: String::new(),
        })
    }
}

impl FromStr for Url {
    type Err = NotUrl;

    fn from_str(text: &str) -> Result<Self, NotUrl> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::of_socket(path);
        }
        let wrong = NotUrl("write \"http://HOST:PORT\", \"https://HOST:PORT\" or \"unix:/PATH\"");
        if text.len() > URL_BYTES_MAX {
            return Err(NotUrl("write an address of at most 512 bytes"));
        }
        let Ok(uri) = text.parse::<http::Uri>() else {
            return Err(wrong);
        };
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong),
        };
        let Some(authority) = uri.authority() else {
            return Err(wrong);
        };
        if authority.as_str().contains('@') {
            return Err(NotUrl(
                "take the user and password out: use api_key_env or api_key_file",
            ));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(NotUrl("take out what stands from '?' or '#' on"));
        }
        let base_path = uri.path().trim_end_matches('/');
        if base_path.ends_with("/v1") {
            return Err(NotUrl(
                "leave out \"/v1\": the gateway adds it, or what path_prefix says in its place",
            ));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") if is_tls => 443,
            Some("") => 80,
            Some(port) => match port.trim_start_matches(':').parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(NotUrl("write a port of 1 to 65535")),
            },
            None => return Err(wrong),
        };
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || (is_tls && ServerName::try_from(host).is_err()) {
            return Err(wrong);
        }
        let scheme = if is_tls {
            Scheme::Https(host.to_owned())
        } else {
            Scheme::Http
        };
        Ok(Self {
            scheme,
            address: Address::Tcp {
                host: host.to_owned(),
                port,
            },
            base_path: base_path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_an_http_address_or_a_socket() {
        let tcp = |host: &str, port, base: &str| Url {
            scheme: Scheme::Http,
            address: Address::Tcp {
                host: host.to_owned(),
                port,
            },
            base_path: base.to_owned(),
        };
        for (text, url) in [
            ("http://127.0.0.1:8000", tcp("127.0.0.1", 8000, "")),
            ("http://gpu7/", tcp("gpu7", 80, "")),
            ("http://[::1]:8000/llm/a/", tcp("::1", 8000, "/llm/a")),
        ] {
            assert_eq!(text.parse::<Url>(), Ok(url), "{text}");
        }
        for (text, port) in [
            ("https://api.example.org", 443),
            ("https://api.example.org:8443/", 8443),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.scheme, Scheme::Https("api.example.org".to_owned()));
            assert_eq!(url.address, tcp("api.example.org", port, "").address);
        }
        let socket: Url = "unix:/run/vllm.sock".parse().unwrap();
        assert_eq!(socket.address, Address::Unix("/run/vllm.sock".into()));
        for bad in [
            "",
            "127.0.0.1:8000",
            "https://a b",
            "https://-a-",
            "https://a:0",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://u:p@a",
            "http://a/v1",
            "http://a/v1/",
            "http://a?b",
            "http://a#b",
            "unix:run/x",
            "unix:",
            "ftp://a",
            "http://a b",
            &format!("http://a/{}", "x".repeat(600)),
            &format!("unix:/{}", "x".repeat(107)),
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
    }
}
