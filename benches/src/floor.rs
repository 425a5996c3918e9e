//! The floor: the smallest reverse proxy that one would write with hyper, over TLS.
//!
//! Base of every ratio: rustls with HTTP/1.1 and HTTP/2 by ALPN in front,
//! hyper-util's pooled client behind, bodies passed as they come. Owns no feature on
//! purpose: no token, no route, no limit, no metric, no timeout.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::error::{BenchError, During};
use crate::mock::{self, Listening};
use crate::tls;

/// A bare hyper reverse proxy over TLS
#[derive(clap::Args)]
pub(crate) struct FloorArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where requests go: `http://ADDRESS:PORT` or `unix:/PATH`.
    #[arg(long)]
    upstream: Upstream,
    /// Certificate (PEM).
    #[arg(long)]
    cert: PathBuf,
    /// Private key (PEM).
    #[arg(long)]
    key: PathBuf,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// An upstream's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// Plain HTTP over TCP.
    Tcp(SocketAddr),
    /// Plain HTTP over a Unix socket.
    Unix(PathBuf),
}

impl std::str::FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        text.strip_prefix("http://")
            .and_then(|address| address.trim_end_matches('/').parse().ok())
            .map(Self::Tcp)
            .ok_or_else(|| format!("{text} is neither http://ADDRESS:PORT nor unix:/PATH"))
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(args: &FloorArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads.max(1))
        .enable_all()
        .build()
        .during(|| "start the runtime".to_owned())?;
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let listener = mock::listen_tcp(args.listen)?;
        let tcp = listener
            .local_addr()
            .during(|| "read the address of a socket".to_owned())?;
        let tls = TlsAcceptor::from(tls::server(&args.cert, &args.key)?);
        let proxy = Proxy::new(&args.upstream);
        Listening { tcp }.announce()?;
        // Accepting on a worker, as a server does whose main future waits for signals.
        let accepting = accept(listener, tls, proxy, tasks.clone());
        tasks
            .spawn(accepting)
            .await
            .map_err(|error| BenchError::said(format!("the floor ended: {error}")))
    })
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, proxy: Proxy, tasks: TaskTracker) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let (tls, proxy) = (tls.clone(), proxy.clone());
        drop(tasks.spawn(async move {
            // A client that goes or speaks no TLS is its own affair; the load counts it.
            drop(converse(socket, tls, proxy).await);
        }));
    }
}

async fn converse(socket: TcpStream, tls: TlsAcceptor, proxy: Proxy) -> Result<(), io::Error> {
    socket.set_nodelay(true)?;
    let stream = tls.accept(socket).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, std::convert::Infallible>(proxy.forward(request).await) }
    });
    let io = TokioIo::new(stream);
    let served = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .await
    };
    served.map_err(io::Error::other)
}

type Answer = Response<Either<Incoming, Empty<Bytes>>>;

/// The way to the upstream.
#[derive(Clone)]
struct Proxy {
    client: Client<Connector, Incoming>,
    authority: Authority,
}

impl Proxy {
    fn new(upstream: &Upstream) -> Self {
        let authority = match upstream {
            Upstream::Tcp(address) => Authority::try_from(address.to_string()).ok(),
            Upstream::Unix(_) => None,
        };
        Self {
            client: Client::builder(TokioExecutor::new()).build(Connector(upstream.clone().into())),
            authority: authority.unwrap_or_else(|| Authority::from_static("localhost")),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Answer {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        let Ok(uri) = Uri::from_parts(uri) else {
            return refusal(StatusCode::BAD_REQUEST);
        };
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        match self.client.request(request).await {
            Ok(response) => response.map(Either::Left),
            Err(_) => refusal(StatusCode::BAD_GATEWAY),
        }
    }
}

fn refusal(status: StatusCode) -> Answer {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    response
}

/// Connects to the one upstream, whatever the URI.
#[derive(Clone)]
struct Connector(Arc<Upstream>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<UpstreamIo>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let upstream = self.0.clone();
        Box::pin(async move {
            let io = match &*upstream {
                Upstream::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    UpstreamIo::Tcp(stream)
                }
                Upstream::Unix(path) => UpstreamIo::Unix(UnixStream::connect(path).await?),
            };
            Ok(TokioIo::new(io))
        })
    }
}

/// A connection to the upstream.
enum UpstreamIo {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection for UpstreamIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_an_address_or_a_socket_and_prints_as_it_was_written() {
        for text in ["http://127.0.0.1:80", "unix:/run/mock.sock"] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
        for text in ["127.0.0.1:80", "https://127.0.0.1:80", "http://host:80", ""] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }
}
