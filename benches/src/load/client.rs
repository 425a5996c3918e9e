//! Connections of the load generator: TCP, TLS, HTTP/1.1 or HTTP/2.
//!
//! Owns how a connection is made and how one request goes over it. Does not decide when,
//! and does not read answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

/// Longest that making a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The version of HTTP that a load speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    /// HTTP/1.1, a request at a time on each connection.
    One,
    /// HTTP/2, many.
    Two,
}

impl std::str::FromStr for Http {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => Err(format!("{text} is neither 1 nor 2")),
        }
    }
}

impl Http {
    /// Its name in ALPN.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::One => b"http/1.1",
            Self::Two => b"h2",
        }
    }
}

/// Target of connections.
pub(crate) struct Target {
    /// The address.
    pub(crate) address: SocketAddr,
    /// TLS and the server's name in it; `None` is plain HTTP.
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The version spoken.
    pub(crate) http: Http,
    /// Drives the connections.
    pub(crate) tasks: TaskTracker,
}

/// A connection, or one of the users of an HTTP/2 connection.
pub(crate) enum Link {
    /// Alone on it.
    One(http1::SendRequest<Full<Bytes>>),
    /// Shared.
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Target {
    /// Makes a connection: TCP, a full TLS handshake, HTTP's preface.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) async fn connect(&self) -> Result<Link, String> {
        tokio::time::timeout(CONNECT_MAX, self.connect_now())
            .await
            .map_err(|_| "connecting took over 10 s".to_owned())?
    }

    async fn connect_now(&self) -> Result<Link, String> {
        let socket = TcpStream::connect(self.address)
            .await
            .map_err(|error| format!("connect: {error}"))?;
        socket
            .set_nodelay(true)
            .map_err(|error| format!("connect: {error}"))?;
        let Some((tls, name)) = &self.tls else {
            return self.speak(socket).await;
        };
        let stream = tls
            .connect(name.clone(), socket)
            .await
            .map_err(|error| format!("TLS handshake: {error}"))?;
        if stream.get_ref().1.alpn_protocol() != Some(self.http.alpn()) {
            return Err("the server does not speak the version of HTTP asked for".to_owned());
        }
        self.speak(stream).await
    }

    async fn speak<S>(&self, stream: S) -> Result<Link, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match self.http {
            Http::One => {
                let (sender, connection) = http1::handshake(io)
                    .await
                    .map_err(|error| format!("HTTP: {error}"))?;
                // Its error is that of the request on it, which is counted.
                drop(self.tasks.spawn(async { drop(connection.await) }));
                Ok(Link::One(sender))
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(|error| format!("HTTP: {error}"))?;
                drop(self.tasks.spawn(async { drop(connection.await) }));
                Ok(Link::Two(sender))
            }
        }
    }
}

impl Link {
    /// Another user of the same connection, where there can be one.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::One(_) => None,
            Self::Two(sender) => Some(Self::Two(sender.clone())),
        }
    }

    /// Sends a request; returns when the answer's head is there.
    ///
    /// # Errors
    /// What hyper says.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, String> {
        let sent = match self {
            Self::One(sender) => {
                sender.ready().await.map_err(|error| said(&error))?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await.map_err(|error| said(&error))?;
                sender.send_request(request).await
            }
        };
        sent.map_err(|error| said(&error))
    }
}

/// hyper's error with its causes.
pub(crate) fn said(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
