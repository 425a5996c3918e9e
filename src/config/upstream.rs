//! `[[upstream]]`: servers that someone else runs.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::file;
use super::reader::Reader;
use crate::auth::Secret;
use crate::names::ModelName;

/// A server that someone else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens.
    pub address: Address,
    /// For `https://`: how it proves who it is.
    pub tls: Option<UpstreamTls>,
    /// What stands before `/v1/…` in its paths; empty for nothing.
    pub base_path: String,
    /// The name that the upstream knows; `None` passes what the client wrote.
    pub model: Option<ModelName>,
    /// Key that it wants as bearer token.
    pub api_key: Option<ApiKeySource>,
    /// How long it keeps a connection on which nothing comes; ours are put away before.
    pub keep_alive: Duration,
    /// Requests at once; `None` for no limit of its own.
    pub max_concurrent_requests: Option<u32>,
    /// How it is asked whether it is well; `None` where it is not.
    pub health_check: Option<HealthCheck>,
}

/// How a server proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// PEM file of the authorities that may have signed its certificate; `None` for
    /// those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The name that it must prove, and that is sent as SNI.
    pub server_name: String,
}

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for, behind the upstream's base path; 2xx means well.
    pub path: String,
    /// Between two questions.
    pub interval: Duration,
    /// Limit of an answer.
    pub timeout: Duration,
    /// Bad answers in a row after which it is left out.
    pub failures: u32,
    /// Good answers in a row after which it is taken in again.
    pub successes: u32,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host and port.
    Tcp {
        /// Name or literal address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where an upstream's key is read from, at load and when its file changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeySource {
    /// An environment variable.
    Env(String),
    /// A file; surrounding white space is cut.
    File(PathBuf),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The variable is not set.
    #[error(
        "api_key_env: the environment variable {0} is not set, or is empty: set it, or name another"
    )]
    Env(String),
    /// The file can't be read.
    #[error("api_key_file: {path} can't be read: {reason}", path = .path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It holds nothing that could be sent.
    #[error("api_key_file: {} must hold the key alone, on one line of printable characters", .0.display())]
    NotKey(PathBuf),
    /// It holds a key of TLS.
    #[error("api_key_file: {} holds a PEM, which is for TLS: write the server's API key into a file of its own", .0.display())]
    Pem(PathBuf),
}

/// Longest address, in bytes: it is a label of metrics.
const URL_BYTES_MAX: usize = 512;

/// Longest path of a socket that the kernel takes, with a zero byte behind it.
const SOCKET_BYTES_MAX: usize = 107;

/// Largest key file, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

impl ApiKeySource {
    /// Reads the key. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ApiKeyError`] when there is none.
    pub fn read(&self) -> Result<Secret<String>, ApiKeyError> {
        match self {
            Self::Env(name) => {
                let key = std::env::var(name).unwrap_or_default();
                let key = key.trim().to_owned();
                if is_sendable(&key) {
                    Ok(Secret::new(key))
                } else {
                    Err(ApiKeyError::Env(name.clone()))
                }
            }
            Self::File(path) => {
                let text =
                    file::read(path, KEY_FILE_BYTES_MAX).map_err(|unread| ApiKeyError::Unread {
                        path: path.clone(),
                        reason: unread.to_string(),
                    })?;
                if text.starts_with(b"-----BEGIN ") {
                    return Err(ApiKeyError::Pem(path.clone()));
                }
                let key = String::from_utf8(text).unwrap_or_default();
                // Windows' editors begin a text with a byte order mark.
                let key = key.trim_start_matches('\u{feff}').trim().to_owned();
                if is_sendable(&key) {
                    Ok(Secret::new(key))
                } else {
                    Err(ApiKeyError::NotKey(path.clone()))
                }
            }
        }
    }
}

fn is_sendable(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// How long uvicorn, which serves vLLM, keeps an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Reads one table; `None` when something was wrong and noted.
pub(super) fn read(mut table: Reader<'_>, base: &Path) -> Option<Upstream> {
    let url = table.parsed::<Url>("url");
    table.missing_unless(
        url.is_some(),
        "url",
        "an address, as \"http://127.0.0.1:8000\"",
    );
    let any = table.flag("any_address").is_some_and(|flag| flag.value);
    if let Some(url) = &url
        && let Address::Tcp { host, .. } = &url.value.address
        && let Some(fault) = address_fault(host).filter(|_| !any)
    {
        let message = format!("{fault}; if it is meant, set any_address = true");
        table.wrong(url.line, "url", message);
    }
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
    let tls = tls(&mut table, url.as_ref().map(|url| &url.value), base);
    let max_concurrent_requests = table.whole("max_concurrent_requests", 1..=1_000_000);
    let health_check = table.table("health_check").and_then(health_check);
    let keep_alive = table.span(
        "keep_alive",
        Duration::from_millis(10)..=Duration::from_hours(1),
    );
    table.finish();
    let url = url?.value;
    Some(Upstream {
        address: url.address,
        tls,
        base_path: url.base_path,
        model: model.map(|model| model.value),
        api_key,
        keep_alive: keep_alive.unwrap_or(KEEP_ALIVE),
        max_concurrent_requests,
        health_check,
    })
}

/// Why requests, with a key, should not be sent to a host; `None` where nothing speaks
/// against it. Clouds tell credentials to whoever asks at a link-local address.
pub(super) fn address_fault(host: &str) -> Option<&'static str> {
    const METADATA: [&str; 4] = [
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
    ];
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if METADATA.contains(&name.as_str()) {
        return Some("this is a cloud's metadata service, not a model's server");
    }
    let Ok(address) = name.parse::<IpAddr>() else {
        // The system reads "2852039166" and "0xa9.254.43518" as addresses too.
        let number = |part: &str| {
            let hex = part.strip_prefix("0x");
            let digits = hex.unwrap_or(part);
            let is_digit = |b: u8| b.is_ascii_digit() || hex.is_some() && b.is_ascii_hexdigit();
            !digits.is_empty() && digits.bytes().all(is_digit)
        };
        let is_number = name.split('.').all(number);
        return is_number.then_some("this is an address in disguise: write it as \"10.0.0.1\"");
    };
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_link_local() => Some("this address is link-local"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("this address is link-local")
        }
        // Of Amazon's and Alibaba's metadata services.
        IpAddr::V6(address) if address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => {
            Some("this is a cloud's metadata service, not a model's server")
        }
        IpAddr::V4(address) if address.octets() == [100, 100, 100, 200] => {
            Some("this is a cloud's metadata service, not a model's server")
        }
        address if address.is_unspecified() || address.is_multicast() => {
            Some("nothing can be reached at this address")
        }
        _ => None,
    }
}

/// What an https upstream must prove; the keys are errors for any other.
fn tls(table: &mut Reader<'_>, url: Option<&Url>, base: &Path) -> Option<UpstreamTls> {
    let ca = table.path("ca");
    let name = table.words("tls_server_name");
    let url = url?;
    let Scheme::Https(host) = &url.scheme else {
        for key in ["ca", "tls_server_name"] {
            let given = if key == "ca" {
                ca.is_some()
            } else {
                name.is_some()
            };
            if given {
                let message = "this is for an https:// url: write one, or take this out";
                table.wrong(table.line_of(key), key, message);
            }
        }
        return None;
    };
    let server_name = match name {
        Some(name) if ServerName::try_from(name.value.as_str()).is_err() => {
            let message = "this is neither a host name nor an address: write the name in the server's certificate";
            table.wrong(name.line, "tls_server_name", message);
            return None;
        }
        Some(name) => name.value,
        None => host.clone(),
    };
    Some(UpstreamTls {
        ca: ca.map(|ca| base.join(ca)),
        server_name,
    })
}

fn health_check(mut table: Reader<'_>) -> Option<HealthCheck> {
    const SECOND: Duration = Duration::from_secs(1);
    let path = table.words("path");
    table.missing_unless(path.is_some(), "path", "what is asked for, as \"/health\"");
    if let Some(path) = &path
        && (!path.value.starts_with('/') || path.value.parse::<http::uri::PathAndQuery>().is_err())
    {
        let message = "write a path that begins with a slash, as \"/health\"";
        table.wrong(path.line, "path", message);
    }
    let interval = table.span("interval", Duration::from_millis(100)..=SECOND * 3600);
    let timeout = table.span("timeout", Duration::from_millis(1)..=SECOND * 60);
    let failures = table.whole("failures", 1..=100);
    let successes = table.whole("successes", 1..=100);
    table.finish();
    Some(HealthCheck {
        path: path?.value,
        interval: interval.unwrap_or(SECOND * 5),
        timeout: timeout.unwrap_or(SECOND * 2),
        failures: failures.unwrap_or(3),
        successes: successes.unwrap_or(2),
    })
}

/// The `url` of an upstream.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    scheme: Scheme,
    address: Address,
    base_path: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Scheme {
    Unix,
    Http,
    /// With the host that its certificate is to name.
    Https(String),
}

/// Why a text is not such a url.
#[derive(Debug, PartialEq, Eq)]
struct NotUrl(&'static str);

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
            return Err(NotUrl("leave out \"/v1\": the gateway adds it"));
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
    fn metadata_services_and_addresses_in_disguise_are_no_upstreams() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "metadata.google.internal.",
            "Metadata",
            "2852039166",
            "0xa9fea9fe",
            "0xa9.254.43518",
            "127.1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(address_fault(bad).is_some(), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "gpu7",
            "api.example.org",
            "0xy.example",
            "7-gpu",
        ] {
            assert_eq!(address_fault(good), None, "{good}");
        }
    }

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
