//! `[[upstream]]`: servers that someone else runs.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::reader::Reader;
use super::{Address, ApiKeySource, Upstream};
use crate::names::ModelName;

/// Reads one table; `None` when something was wrong and noted.
pub(super) fn read(mut table: Reader<'_>, base: &Path) -> Option<Upstream> {
    let url = table.parsed::<Url>("url");
    table.missing_unless(
        url.is_some(),
        "url",
        "an address, as \"http://127.0.0.1:8000\"",
    );
    let model = table.parsed::<ModelName>("model");
    let env = table.words("api_key_env");
    let file = table.path("api_key_file");
    if let Some(env) = &env {
        let first = env.value.bytes().next();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if first.is_some_and(|b| b.is_ascii_digit()) || !env.value.bytes().all(plain) {
            // The text may be the key itself, so it is not shown.
            let message = "this is not the name of an environment variable: write one, as \"UPSTREAM_KEY\", not the key itself";
            table.wrong(env.line, "api_key_env", message);
        }
    }
    let api_key = match (env, file) {
        (Some(env), Some(_)) => {
            let message = "write api_key_env or api_key_file, not both";
            table.wrong(env.line, "api_key_env", message);
            None
        }
        (Some(env), None) => Some(ApiKeySource::Env(env.value)),
        (None, Some(file)) => Some(ApiKeySource::File(base.join(file))),
        (None, None) => None,
    };
    table.finish();
    let url = url?.value;
    Some(Upstream {
        address: url.address,
        base_path: url.base_path,
        model: model.map(|model| model.value),
        api_key,
    })
}

/// The `url` of an upstream.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    address: Address,
    base_path: String,
}

/// Why a text is not such a url.
#[derive(Debug, PartialEq, Eq)]
struct NotUrl(&'static str);

impl fmt::Display for NotUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for Url {
    type Err = NotUrl;

    fn from_str(text: &str) -> Result<Self, NotUrl> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.chars().any(char::is_control) {
                return Err(NotUrl(
                    "write the whole path of the socket, as \"unix:/run/vllm.sock\"",
                ));
            }
            return Ok(Self {
                address: Address::Unix(path.into()),
                base_path: String::new(),
            });
        }
        if text.starts_with("https://") {
            return Err(NotUrl(
                "https upstreams are not supported: write an http:// or unix: address, if need be of a TLS proxy on this machine",
            ));
        }
        let wrong = NotUrl("write \"http://HOST:PORT\" or \"unix:/PATH\"");
        let Ok(uri) = text.parse::<http::Uri>() else {
            return Err(wrong);
        };
        let Some(authority) = uri.authority().filter(|_| uri.scheme_str() == Some("http")) else {
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
            return Err(NotUrl("leave out \"/v1\": the gateway adds it"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            Some(port) => match port.trim_start_matches(':').parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(NotUrl("write a port of 1 to 65535")),
            },
            None => return Err(wrong),
        };
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
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
        let socket: Url = "unix:/run/vllm.sock".parse().unwrap();
        assert_eq!(socket.address, Address::Unix("/run/vllm.sock".into()));
        for bad in [
            "",
            "127.0.0.1:8000",
            "https://a",
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
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
    }
}
