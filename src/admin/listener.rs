//! The HTTPS listener of dashboard and API.
//!
//! Owns its bounds: connections at once, handshake, head. It serves a router and
//! knows nothing of what is in it. The certificate is the gateway's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Extension, Router};
use http::Method;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::ClientAddress;
use crate::gateway::listener::BindError;
use crate::tasks::Tasks;
use crate::time::{sleep, timeout};

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Limit of a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Limit for a head to arrive, and of an idle connection.
const HEAD_MAX: Duration = Duration::from_mins(1);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams of one connection at once: followed logs and calls of one browser.
const STREAMS_MAX: u32 = 64;
/// Pause between pings on a silent HTTP/2 connection, and the limit of the answer.
const PING: Duration = Duration::from_secs(20);

/// A bound socket, not yet accepting.
#[derive(Debug)]
pub struct AdminListener {
    socket: TcpListener,
    tls: Arc<ServerConfig>,
}

impl AdminListener {
    /// Binds the address of `admin.listen`.
    ///
    /// # Errors
    ///
    /// [`BindError`] that says why in words.
    pub async fn bind(address: SocketAddr, tls: Arc<ServerConfig>) -> Result<Self, BindError> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|source| BindError::new(address, "admin.listen", source))?;
        Ok(Self::new(socket, tls))
    }

    /// Listens on a socket that is bound already.
    pub fn new(socket: TcpListener, tls: Arc<ServerConfig>) -> Self {
        Self { socket, tls }
    }

    /// Address of the listener: the real port where 0 was asked for.
    ///
    /// # Errors
    ///
    /// The system does not tell the address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves the router until `tasks` should end. Open connections are cut then:
    /// followed logs would hold up the end.
    pub async fn serve(self, router: Router, tasks: Tasks) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let ending = tasks.ending();
        let router = router.layer(from_fn(leave_head));
        loop {
            let accepted = tokio::select! {
                // Cancel-safe: `accept` loses no connection, `acquire` no place.
                accepted = accept(&self.socket, &places) => accepted,
                () = ending.cancelled() => return,
            };
            let Some((socket, peer, place)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let router = router.clone().layer(Extension(ClientAddress(peer.ip())));
            let (tls, ending) = (Arc::clone(&self.tls), ending.clone());
            tasks.spawn_bare(async move {
                let _place = place;
                tokio::select! {
                    () = connection(socket, tls, router) => {}
                    () = cut(&ending) => {}
                }
            });
        }
    }
}

/// Resolves a moment after the end was told, so that answers on their way arrive.
async fn cut(ending: &CancellationToken) {
    ending.cancelled().await;
    sleep(Duration::from_millis(200)).await;
}

/// Leaves the head alone of an answer to HEAD, which hyper does over HTTP/1.1 only.
async fn leave_head(request: Request, next: Next) -> Response {
    let is_head = *request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::debug!(error = %error, "a connection could not be accepted");
            None
        }
    }
}

async fn connection(socket: TcpStream, tls: Arc<ServerConfig>, router: Router) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let handshake = TlsAcceptor::from(tls).accept(socket);
    // Scanners and impatient clients: nothing to act on.
    let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, handshake).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream, router).await;
    } else {
        serve_http1(stream, router).await;
    }
}

async fn serve_http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(error = %error, "a connection to the admin listener broke");
    }
}

async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(error = %error, "a connection to the admin listener broke");
    }
}
