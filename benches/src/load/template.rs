//! Parts that all requests of a load have in common: address, URI, headers.
//!
//! Owns the reading of these from the command line. Sends nothing.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::LoadArgs;
use super::client::{Http, Target};
use crate::error::{BenchError, During};
use crate::tls::{self, Trust};

/// The URI of requests: that of chat completions where none is given.
pub(super) fn chat_uri(url: &Uri) -> Result<Uri, BenchError> {
    if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(BenchError::said(format!(
            "{url} is not a URL: write http://HOST:PORT or https://HOST:PORT"
        )));
    }
    if url.path() != "/" {
        return Ok(url.clone());
    }
    format!(
        "{}/v1/chat/completions",
        url.to_string().trim_end_matches('/')
    )
    .parse()
    .map_err(|error| BenchError::said(format!("{url}: {error}")))
}

/// HTTP/1.1 wants the path in its request line, HTTP/2 the whole URI.
pub(super) fn in_the_form_of(http: Http, uri: Uri) -> Result<Uri, BenchError> {
    match (http, uri.path_and_query()) {
        (Http::One, Some(path)) => path
            .as_str()
            .parse()
            .map_err(|error| BenchError::said(format!("{uri}: {error}"))),
        _ => Ok(uri),
    }
}

/// The address and the TLS of the server.
pub(super) fn target(args: &LoadArgs, uri: &Uri) -> Result<Target, BenchError> {
    let host = uri.host().unwrap_or_default();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let address: SocketAddr = (host, port)
        .to_socket_addrs()
        .during(|| format!("find the address of {host}"))?
        .next()
        .ok_or_else(|| BenchError::said(format!("{host} has no address")))?;
    let tls = match (&args.ca, args.insecure) {
        _ if !secure => None,
        (Some(ca), _) => Some(Trust::Ca(ca.clone())),
        (None, true) => Some(Trust::Anyone),
        (None, false) => {
            return Err(BenchError::said("https needs --ca FILE or --insecure"));
        }
    };
    let tls = tls
        .map(|trust| {
            let connector = TlsConnector::from(tls::client(&trust, args.http.alpn())?);
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| BenchError::said(format!("{host} is no name for TLS")))?;
            Ok::<_, BenchError>((connector, name))
        })
        .transpose()?;
    Ok(Target {
        address,
        tls,
        http: args.http,
        tasks: TaskTracker::new(),
    })
}

/// The headers that OpenAI's Python SDK sends.
pub(super) fn headers(args: &LoadArgs, uri: &Uri) -> Result<HeaderMap, BenchError> {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        let value = HeaderValue::try_from(value)
            .map_err(|_| BenchError::said(format!("{name} can't be sent as it was given")))?;
        headers.insert(name, value);
        Ok::<_, BenchError>(())
    };
    if let (Http::One, Some(authority)) = (args.http, uri.authority()) {
        put(header::HOST, authority.as_str())?;
    }
    put(header::ACCEPT, "application/json")?;
    put(header::ACCEPT_ENCODING, "identity")?;
    put(header::CONTENT_TYPE, "application/json")?;
    put(header::USER_AGENT, "OpenAI/Python 2.8.1")?;
    put(HeaderName::from_static("x-stainless-lang"), "python")?;
    put(HeaderName::from_static("x-stainless-runtime"), "CPython")?;
    put(HeaderName::from_static("x-stainless-retry-count"), "0")?;
    if let Some(token) = &args.token {
        put(header::AUTHORIZATION, &format!("Bearer {token}"))?;
    }
    Ok(headers)
}

/// The tokens of a file, as headers; none without one.
pub(super) fn tokens(file: Option<&Path>) -> Result<Vec<HeaderValue>, BenchError> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let text = std::fs::read_to_string(file).during(|| format!("read {}", file.display()))?;
    text.lines()
        .map(|token| {
            HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| BenchError::said("a token can't be sent as it was given"))
        })
        .collect()
}
