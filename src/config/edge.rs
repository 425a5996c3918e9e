//! `[gateway]`, `[tls]`, `[cors]` and `[telemetry]` as types: where clients come
//! in, what stands before us, and where figures and traces go.
//!
//! The keys and their bounds are read in `gateway.rs` and `gateway/edge.rs`, the
//! defaults stand in `defaults.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::HeaderName;
use http::uri::Authority;

use super::network::Network;
use super::problems::cut;
use super::shares::{BodyTimes, Connections, Memory};
use crate::auth::keeper::SecretSource;
use crate::telemetry::output::Rotation;

/// `[gateway]`: where clients come in, and the bounds that hold for all.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// HTTPS listeners.
    pub listen: Vec<SocketAddr>,
    /// Plain HTTP listeners, for use behind another TLS terminator.
    pub plain_listen: Vec<SocketAddr>,
    /// The directory of route files.
    pub routes: PathBuf,
    /// The directory of state.
    pub state: PathBuf,
    /// Largest request body, in bytes.
    pub request_body_max: u64,
    /// Connections of clients, all and each.
    pub connections: Connections,
    /// Memory that is held for clients, for all and each.
    pub memory: Memory,
    /// Limit of a TLS handshake.
    pub handshake_timeout: Duration,
    /// Limit for the head of a request to arrive.
    pub header_timeout: Duration,
    /// Time that a connection stays open without a request.
    pub keep_alive: Duration,
    /// Speed at which a request's body has to come.
    pub body_times: BodyTimes,
    /// Longest time that a client may leave the response unread.
    pub write_timeout: Duration,
    /// Time that streams may go on after a shutdown was asked for.
    pub shutdown_timeout: Duration,
    /// Time that `/readyz` refuses before the listeners close.
    pub unready_time: Duration,
    /// File of the access log; `None` for standard output.
    pub access_log: Option<PathBuf>,
    /// Rotation of that file where it lies in the state directory.
    pub access_logs: Rotation,
    /// Proxies that stand before us.
    pub proxies: Proxies,
    /// Bounds of a request's head.
    pub heads: Heads,
    /// Headers of clients that go on to servers beside those that servers need; `None`
    /// for no more.
    pub forward_headers: Option<Arc<[HeaderName]>>,
}

/// Proxies before us that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Their addresses: what they say of the client holds.
    pub trusted: Vec<Network>,
    /// Listeners on which every connection begins with a PROXY v2 header.
    pub protocol: Vec<SocketAddr>,
}

/// Bounds of a request's head, and of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Headers of one request.
    pub headers_max: u32,
    /// Bytes of a head.
    pub bytes_max: u32,
    /// Bytes of a request target.
    pub target_bytes_max: u32,
    /// Streams of one HTTP/2 connection at once.
    pub streams_max: u32,
}

/// `[tls]`: the server's certificates, and those of clients.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key of the leaf.
    pub private_key: PathBuf,
    /// `[[tls.certificates]]`: further pairs, for the names in them.
    pub more: Vec<Pair>,
    /// Certificates that clients show; `None`: none is asked for.
    pub clients: Option<ClientCerts>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key of the leaf.
    pub private_key: PathBuf,
}

/// Certificates that clients show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCerts {
    /// PEM file of the authorities that sign them.
    pub ca: PathBuf,
    /// Need for a client to show one.
    pub need: Need,
}

/// Need for something to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It must.
    Required,
    /// It may be left out; one that is there must be valid.
    Optional,
}

/// `[cors]`: which web pages may call us from a browser.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// Origins of these pages; nothing is answered to others.
    pub origins: Origins,
    /// Request headers that they may send beside those of the SDKs, in lower case; `*` for
    /// whatever they ask for.
    pub headers: Vec<String>,
    /// True if browsers may send credentials of their own, such as certificates.
    pub credentials: bool,
    /// Time that a browser may remember the answer.
    pub max_age: Duration,
}

/// Origins of web pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// No page: CORS is off.
    #[default]
    None,
    /// Any page.
    Any,
    /// These, as a browser writes them.
    These(Vec<Origin>),
}

/// `scheme://host[:port]`, as a browser writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl FromStr for Origin {
    type Err = NotOrigin;

    fn from_str(text: &str) -> Result<Self, NotOrigin> {
        let wrong = || NotOrigin(cut(text));
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let authority: Authority = rest.parse().map_err(|_| wrong())?;
        let plain = !rest.contains(['@', '*']) && authority.as_str() == rest;
        let web = matches!(scheme, "http" | "https") || scheme.ends_with("-extension");
        // A browser writes neither capitals nor the scheme's own port.
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        let port = match scheme {
            "http" => authority.port_u16() != Some(80),
            _ => authority.port_u16() != Some(443),
        };
        (plain && web && lower && port)
            .then(|| Self(text.to_owned()))
            .ok_or_else(wrong)
    }
}

/// A text that is no origin.
#[derive(Debug)]
pub struct NotOrigin(String);

impl fmt::Display for NotOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an origin: write it as a browser does, in lower case and without a path, as \"https://chat.example.org\" or \"http://localhost:3000\", or \"*\" for any",
            self.0
        )
    }
}

/// `[telemetry]`: traces.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The collector that takes OTLP over HTTP; `None`: no traces.
    pub otlp: Option<Collector>,
    /// PEM file of the authorities that vouch for it; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Source of headers for it: `key=value,key=value`.
    pub headers: Option<SecretSource>,
    /// Our name in traces.
    pub service_name: String,
    /// Share of requests that are traced where the client does not decide, 0 to 1.
    pub sample: f64,
}

/// Place where a collector takes OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// True for TLS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path of its traces.
    pub path: String,
}

impl FromStr for Collector {
    type Err = NotCollector;

    fn from_str(text: &str) -> Result<Self, NotCollector> {
        let wrong = || NotCollector(cut(text));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host();
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let base = uri.path().trim_end_matches('/');
        // The base address is what OTEL_EXPORTER_OTLP_ENDPOINT holds.
        let path = if base.ends_with("/v1/traces") {
            base.to_owned()
        } else {
            format!("{base}/v1/traces")
        };
        Ok(Self {
            tls,
            host: inner.unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path,
        })
    }
}

/// A text that is no collector's address.
#[derive(Debug)]
pub struct NotCollector(String);

impl fmt::Display for NotCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not the address of a collector: write one that takes OTLP over HTTP, as \"http://localhost:4318\"",
            self.0
        )
    }
}

/// Reads a host name of a route: lower case, without a port.
///
/// # Errors
///
/// Words for what to write instead.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let number = lower
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if lower.len() <= 253 && lower.split('.').all(label) && !number {
        return Ok(lower);
    }
    Err(format!(
        "{:?} is not a host name: write one without scheme, port and path, as \"chat.example.org\"",
        cut(text)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_a_browser_writes_it() {
        for good in [
            "*",
            "https://a.example",
            "http://localhost:3000",
            "https://[::1]:8443",
            "chrome-extension://abc",
        ] {
            assert_eq!(good.parse::<Origin>().unwrap().0, good);
        }
        for bad in [
            "",
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "https://u@a",
            "ftp://a",
            "null",
            "https://*.example",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_is_named_by_its_base_or_by_its_path() {
        for (text, host, port, path) in [
            ("http://localhost:4318", "localhost", 4318, "/v1/traces"),
            (
                "https://c.example/otlp/",
                "c.example",
                443,
                "/otlp/v1/traces",
            ),
            ("http://[::1]:4318/v1/traces", "::1", 4318, "/v1/traces"),
        ] {
            let collector: Collector = text.parse().unwrap();
            assert_eq!(
                (
                    collector.host.as_str(),
                    collector.port,
                    collector.path.as_str()
                ),
                (host, port, path)
            );
        }
        for bad in [
            "",
            "localhost:4318",
            "grpc://a:4317",
            "http://u@a",
            "http://a/?x",
        ] {
            assert!(bad.parse::<Collector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_is_a_name_alone() {
        assert_eq!(host_name("Chat.Example.org").unwrap(), "chat.example.org");
        for bad in [
            "",
            "a..b",
            "-a",
            "a:80",
            "https://a",
            "a/b",
            "127.0.0.1",
            "*.a",
            "a b",
        ] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }
}
