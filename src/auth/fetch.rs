//! Gets a key set over HTTPS: one small request, one bounded answer.
//!
//! A connection for each, as they are minutes apart. Redirects are not followed, so
//! that the address in the settings is the one that is trusted. Plain HTTP goes to
//! this machine only, whatever a name resolves to.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use rustls::pki_types::ServerName;

use super::jwks::JWKS_BYTES_MAX;
use crate::outbound::dial::{self, Failure};
use crate::outbound::exchange::{self, exchange};
pub use crate::outbound::roots::RootsError;
use crate::outbound::roots::client_config;
use crate::outbound::socket::{Proof, Socket};

/// Longest look-up of a name, and longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The address of a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    uri: Uri,
    /// Name that the server's certificate must have, over TLS.
    name: Option<ServerName<'static>>,
    host: String,
    port: u16,
}

/// A text that is no address of a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write an https:// address without user and fragment, as \
     \"https://idp.example.org/jwks.json\"; http:// only with localhost, 127.0.0.1 or [::1]"
)]
pub struct NotJwksUrl;

impl FromStr for JwksUrl {
    type Err = NotJwksUrl;

    fn from_str(text: &str) -> Result<Self, NotJwksUrl> {
        let uri: Uri = text.parse().map_err(|_| NotJwksUrl)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(NotJwksUrl),
        };
        let authority = uri.authority().ok_or(NotJwksUrl)?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let here = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let name = ServerName::try_from(host.to_owned()).map_err(|_| NotJwksUrl)?;
        if text.contains(['@', '#']) || !(tls || here) {
            return Err(NotJwksUrl);
        }
        let has_port = authority.as_str() != authority.host();
        let port = match (has_port, tls) {
            (true, _) => authority.port_u16().ok_or(NotJwksUrl)?,
            (false, true) => 443,
            (false, false) => 80,
        };
        let host = host.to_owned();
        Ok(Self {
            uri,
            name: tls.then_some(name),
            host,
            port,
        })
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// Reason why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("could not connect")]
    Connect(#[source] Failure),
    /// No request can be made of the address.
    #[error("the address makes no request")]
    Request(#[source] http::Error),
    /// A plain address that does not lead to this machine.
    #[error("plain http leads to another machine")]
    NotHere,
    /// The server's certificate is not trusted, or TLS failed.
    #[error(
        "TLS failed: if the server has a certificate of your own authority, set ca to its file"
    )]
    Tls(#[source] io::Error),
    /// The exchange broke off.
    #[error("the exchange broke off")]
    Http(#[source] hyper::Error),
    /// An answer other than 200; redirects are not followed.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The body is too large or broke off.
    #[error("the answer is larger than {JWKS_BYTES_MAX} bytes, or broke off")]
    Body,
    /// It took too long.
    #[error("the server took too long")]
    Timeout,
}

/// Fetches one key set.
#[derive(Clone, Debug)]
pub struct Fetcher {
    url: JwksUrl,
    /// Proof that its server must give of its identity, over TLS.
    proof: Option<Proof>,
}

impl Fetcher {
    /// Fetches from `url`, whose server is verified with the authorities in `ca`, or
    /// with those that the system trusts. Blocking.
    ///
    /// # Errors
    ///
    /// [`RootsError`] when there is none.
    pub fn new(url: JwksUrl, ca: Option<&Path>) -> Result<Self, RootsError> {
        let proof = match &url.name {
            Some(name) => Some(Proof {
                client: client_config(ca)?,
                name: name.clone(),
            }),
            None => None,
        };
        Ok(Self { url, proof })
    }

    /// Address that it fetches from.
    pub fn url(&self) -> &JwksUrl {
        &self.url
    }

    /// Fetches the document. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// [`FetchError`] with the reason.
    pub async fn fetch(&self) -> Result<Bytes, FetchError> {
        let JwksUrl { host, port, .. } = &self.url;
        let found = dial::addresses(host, CONNECT_MAX).await;
        let mut addresses = found.map_err(FetchError::Connect)?;
        if self.url.name.is_none() {
            addresses.retain(IpAddr::is_loopback);
            if addresses.is_empty() {
                return Err(FetchError::NotHere);
            }
        }
        let connected = dial::connect_to(host, *port, &addresses, CONNECT_MAX).await;
        let tcp = connected.map_err(FetchError::Connect)?;
        let socket = Socket::over(tcp, self.proof.as_ref(), CONNECT_MAX).await;
        let socket = socket.map_err(|failure| match failure {
            Failure::Tls(source) => FetchError::Tls(source),
            other => FetchError::Connect(other),
        })?;
        exchange(socket, self.request()?, |head| async {
            let response = head.map_err(FetchError::Http)?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let whole = exchange::read(response, JWKS_BYTES_MAX).await;
            whole.map_err(|_| FetchError::Body)
        })
        .await
        .map_err(FetchError::Http)?
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, FetchError> {
        let uri = &self.url.uri;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json, application/jwk-set+json")
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .body(Full::default())
            .map_err(FetchError::Request)
    }
}

#[cfg(test)]
pub(super) mod tests;
