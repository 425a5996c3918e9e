//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them.
//!
//! Bounds that hold before any request is read: connections at once, of all and of each
//! address ([`super::client::places`]), handshake, head, header sizes, streams of one connection.
//! A process that is out of file descriptors pauses accepting; what is open goes on.
//!
//! A client that ends its side of the connection is gone, and what it asked for is
//! cancelled, though TCP lets one side end and go on listening. A closed socket looks
//! just the same until something is written to it, and an agent that was ended would else
//! have an engine write its answer for minutes. HTTP's clients keep their side open.

mod first;
#[cfg(test)]
mod one;
mod unbound;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::client::peer::Peer;
use super::client::places::{Activity, ConnectionPlace, IDLE_MIN};
use super::client::seldom::Seldom;
use super::client::stream::ahead::Ahead;
use super::client::stream::frames::{Frames, KeptHeads};
use super::client::stream::lines::Lines;
use super::client::stream::linger::Linger;
use super::client::stream::patience::Patience;
use super::client::stream::rewind::Rewind;
use super::client::stream::stall::Stall;
use super::realtime::Handover;
use super::record::holding::Holding;
use super::service::handle;
use crate::tasks::Tasks;
use crate::telemetry::metrics::{Counted, connections};
use crate::time::{Instant, sleep, sleep_until, timeout};
use first::{peek_preface, refuse_plain};
pub use unbound::BindError;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time in which a client that is idle may still send a last request to a gateway
/// that another one has taken over from. Its answer closes the connection in
/// order; to close it before may cross with a request on its way.
const IDLE_LINGER: Duration = Duration::from_secs(10);
/// The same for a client of HTTP/2, which is told to go elsewhere (GOAWAY) and
/// loses nothing by it.
const GOAWAY_AFTER: Duration = Duration::from_millis(500);
/// From the cut to the end of a connection: time for a last event.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of an answer that wait in an HTTP/2 stream for a client that reads slowly.
const SEND_BYTES: usize = 32 << 10;
/// Between pings on a silent HTTP/2 connection, and the limit of the answer.
const PING: Duration = Duration::from_secs(20);

/// A bound socket, not yet accepting.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// `None` for plain HTTP.
    tls: Option<Arc<ServerConfig>>,
    /// True if connections begin with a PROXY header.
    proxied: bool,
}

impl Listener {
    /// Binds, with TLS where a configuration is given. `key` names the setting.
    ///
    /// # Errors
    ///
    /// [`BindError`] that says why in words.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        key: &'static str,
    ) -> Result<Self, BindError> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|source| BindError::new(address, key, source))?;
        Ok(Self::new(socket, tls))
    }

    /// Listens on a socket that is bound already.
    pub fn new(socket: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            socket,
            tls,
            proxied: false,
        }
    }

    /// Expects a PROXY header at the begin of every connection, where `yes`.
    #[must_use]
    pub fn proxied(mut self, yes: bool) -> Self {
        self.proxied = yes;
        self
    }

    /// The socket, to be handed to another process.
    pub fn socket(&self) -> &TcpListener {
        &self.socket
    }

    /// Address that it listens on: the real port where 0 was asked for.
    ///
    /// # Errors
    ///
    /// Fails if the system does not tell the address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `tasks` should end. Connections are tasks of `tasks`; they
    /// finish what is open, until `cut` is cancelled.
    pub async fn serve(self, gateway: Arc<Gateway>, tasks: Tasks, cut: CancellationToken) {
        let ending = tasks.ending();
        let trusted = &gateway.settings.gateway.proxies.trusted;
        let mut is_short = false;
        // When idle connections are looked for again while memory is short.
        let mut look = Instant::now();
        loop {
            let accepted = tokio::select! {
                // Cancel-safe: `accept` loses no connection, the others own nothing.
                accepted = self.socket.accept() => accepted,
                () = gateway.memory.pressed(), if !is_short => {
                    is_short = true;
                    look = Instant::now() + IDLE_MIN;
                    gateway.places.close_idle();
                    continue;
                }
                () = gateway.memory.relieved(), if is_short => {
                    is_short = false;
                    continue;
                }
                () = sleep_until(look), if is_short => {
                    look += IDLE_MIN;
                    gateway.places.close_idle();
                    continue;
                }
                () = ending.cancelled() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                // Out of descriptors, or the peer left already.
                Err(error) => {
                    tracing::debug!(error = %error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Those of a proxy are of many clients, as are those whose client is not known
            // yet.
            let is_shared = self.proxied || trusted.iter().any(|net| net.contains(peer.ip()));
            let client = (!is_shared).then(|| peer.ip());
            // One that all its own places are busy for is closed.
            let Ok(place) = gateway.places.take(client) else {
                continue;
            };
            let connection = Connection {
                gateway: Arc::clone(&gateway),
                ending: ending.clone(),
                // Its own, so that its requests wait for it without each other.
                cut: cut.child_token(),
                place,
                _counted: Counted::on(&connections()),
            };
            let (tls, proxied) = (self.tls.clone(), self.proxied);
            tasks.spawn_bare(connection.run(socket, peer.ip(), tls, proxied));
        }
    }
}

/// Most that a field of a head takes for each byte that HTTP/2 counts: 144 where it counts
/// 33, of a short one.
const FIELD_COST: u64 = 5;

/// One client connection.
struct Connection {
    gateway: Arc<Gateway>,
    ending: CancellationToken,
    cut: CancellationToken,
    place: ConnectionPlace,
    _counted: Counted,
}

impl Connection {
    async fn run(
        self,
        mut socket: TcpStream,
        address: IpAddr,
        tls: Option<Arc<ServerConfig>>,
        proxied: bool,
    ) {
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let limits = &self.gateway.settings.gateway;
        let trusted = &limits.proxies.trusted;
        let mut peer = Peer::new(address, trusted, self.cut.clone());
        if proxied {
            let header = Box::pin(peer.proxied(&mut socket, trusted));
            let header = tokio::select! {
                done = timeout(limits.handshake_timeout, header) => done,
                () = self.given_up() => return,
            };
            match header {
                Ok(Ok(known)) if self.is_let_in(&known) => peer = known,
                Ok(Err(error)) => {
                    tracing::debug!(peer = %address, error = %error, "a connection without a good PROXY header was closed");
                    return;
                }
                Ok(Ok(_)) | Err(_) => return,
            }
        }
        peer.activity = Arc::clone(&self.place.activity);
        if tls.is_some() && !Box::pin(self.speaks_tls(&mut socket)).await {
            return;
        }
        let socket = Linger::new(socket, Arc::clone(&peer.unread));
        let socket = Stall::new(socket, limits.write_timeout);
        let Some(tls) = tls else {
            return Box::pin(self.plain(socket, peer)).await;
        };
        // Boxed, as its room would be kept for as long as the connection stands.
        let greeted = Box::pin(self.greet(socket, tls));
        let Some(stream) = greeted.await else { return };
        let session = stream.get_ref().1;
        peer.secure = true;
        peer.tls_name = session.server_name().map(Box::from);
        let h2 = session.alpn_protocol() == Some(b"h2");
        if h2 {
            self.http2(stream, peer).await;
        } else {
            self.http1(stream, peer).await;
        }
    }

    /// Counts a client that a PROXY header names; false where it has its share.
    fn is_let_in(&self, peer: &Peer) -> bool {
        peer.is_proxy() || self.place.is_of(peer.address).is_ok()
    }

    /// True if a client of a TLS port speaks TLS. One that speaks HTTP is told so, in
    /// words that a person sees who wrote `http://`.
    async fn speaks_tls(&self, socket: &mut TcpStream) -> bool {
        let limit = self.gateway.settings.gateway.handshake_timeout;
        let mut first = [0];
        let known = tokio::select! {
            known = timeout(limit, socket.peek(&mut first)) => known,
            () = self.given_up() => return false,
        };
        let [first] = match known {
            Ok(Ok(1)) => first,
            _ => return false,
        };
        // A handshake begins with 22; a request, or the preface of HTTP/2, with a capital.
        if !first.is_ascii_uppercase() {
            return true;
        }
        drop(timeout(LAST_WORDS, refuse_plain(socket)).await);
        false
    }

    /// The TLS handshake; `None` for scanners and impatient clients: nothing to act on.
    async fn greet<S>(&self, socket: S, tls: Arc<ServerConfig>) -> Option<TlsStream<Ahead<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = TlsAcceptor::from(tls).accept(Ahead::new(socket));
        let limit = self.gateway.settings.gateway.handshake_timeout;
        tokio::select! {
            done = timeout(limit, handshake) => done.ok()?.ok(),
            () = self.given_up() => None,
        }
    }

    /// Resolves when a client that has not asked for anything yet is let go: at
    /// the end, unless another gateway took over; those we accepted are served. And when
    /// its place is needed.
    async fn given_up(&self) {
        tokio::select! {
            biased;
            () = self.ending.cancelled() => {}
            () = self.place.activity.leave.cancelled() => return,
        }
        if self.gateway.is_taken_over() {
            self.cut.cancelled().await;
        }
    }

    /// HTTP/1.1, or HTTP/2 by prior knowledge.
    async fn plain(
        self,
        mut socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let limits = &self.gateway.settings.gateway;
        let limits = (limits.keep_alive, limits.header_timeout);
        let mut preface = [0; 24];
        let known = tokio::select! {
            biased;
            known = peek_preface(&mut socket, &mut preface, limits) => known,
            () = self.given_up() => return,
        };
        let Ok((is_h2, length)) = known else {
            return;
        };
        let seen = preface.get(..length).unwrap_or_default();
        let stream = Rewind::new(bytes::Bytes::copy_from_slice(seen), socket);
        if is_h2 {
            self.http2(stream, peer).await;
        } else {
            self.http1(stream, peer).await;
        }
    }

    /// Serves requests until the connection ends. Not an `async fn`, which would keep room
    /// for the stream beside that of the connection made of it.
    fn http1(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) -> impl Future<Output = ()> + Send {
        let handover = Handover::default();
        let adopting = handover.clone();
        let holder = self.gateway.memory.connection(peer.client());
        let (gateway, peer) = (Arc::clone(&self.gateway), Arc::new(peer));
        let activity = Arc::clone(&peer.activity);
        let service = service_fn(move |request| {
            let holding = Holding::begin(&peer);
            // Boxed: hyper moves it about, and keeps its room while the answer is sent.
            let handled = Box::pin(handle(Arc::clone(&gateway), holding, request));
            let adopting = adopting.clone();
            async move {
                let mut response = handled.await?;
                adopting.adopt(&mut response);
                Ok::<_, Infallible>(response)
            }
        });
        let limits = &self.gateway.settings.gateway;
        let head = self.gateway.memory.nothing(holder);
        let stream = Patience::new(Lines::new(stream), activity, limits.header_timeout, head);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's begins with the wait for a head: it is ours that holds, each of
            // the two by itself.
            .header_read_timeout(limits.keep_alive + limits.header_timeout)
            .max_headers(limits.heads.headers_max as usize)
            .max_buf_size(limits.heads.bytes_max as usize)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut served = Box::pin(served);
        async move {
            if self.is_left_to_end(served.as_mut(), IDLE_LINGER).await {
                served.as_mut().graceful_shutdown();
                self.last(served.as_mut()).await;
            }
            drop(served);
            // The tunnel goes on in this task: with it, all that it holds would end.
            if let Some(tunnel) = handover.take() {
                Box::pin(tunnel.run(&self.cut)).await;
            }
        }
    }

    fn http2(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) -> impl Future<Output = ()> + Send {
        let memory = &self.gateway.memory;
        let holder = memory.connection(peer.client());
        // What it may send before it is taken is held for as long as it stands.
        let windows = memory.windows(holder);
        let heads = self.gateway.settings.gateway.heads;
        // Above this the connection ends without a word, so it is above what is
        // answered with 431.
        let list_max = heads.bytes_max.saturating_mul(4);
        let kept = KeptHeads::new(
            memory.nothing(holder),
            u64::from(list_max) * FIELD_COST,
            Arc::clone(&peer.activity),
        );
        let (gateway, peer) = (Arc::clone(&self.gateway), Arc::new(peer));
        let service = service_fn(move |request| {
            let mut request = request;
            let mut holding = Holding::begin(&peer);
            holding.head(&gateway.memory, holder, request.headers_mut());
            Box::pin(handle(Arc::clone(&gateway), holding, request))
        });
        let served = windows.map(|(windows, held)| {
            let served = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(heads.streams_max)
                .max_header_list_size(list_max)
                .initial_stream_window_size(windows.stream)
                .initial_connection_window_size(windows.connection)
                .max_send_buf_size(SEND_BYTES)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .serve_connection(TokioIo::new(Frames::new(stream, kept)), service);
            (Box::pin(served), held)
        });
        async move {
            let Ok((mut served, _held)) = served else {
                tracing::debug!("an HTTP/2 connection was closed for want of memory");
                return;
            };
            // A client that came just now has its handshake and a first request.
            if self.is_left_to_end(served.as_mut(), GOAWAY_AFTER).await {
                served.as_mut().graceful_shutdown();
                self.last(served.as_mut()).await;
            }
        }
    }

    /// Serves until the connection ends or we do, first of all the connection. `true`: we end,
    /// or it was idle for too long, and the connection is to be told so. If another gateway
    /// took over, that waits for `linger` more.
    async fn is_left_to_end(&self, mut served: Pin<&mut impl Future>, linger: Duration) -> bool {
        let activity = &self.place.activity;
        let told = async {
            tokio::select! {
                () = activity.leave.cancelled() => true,
                () = is_idle(activity, self.gateway.settings.gateway.keep_alive) => true,
                () = self.ending.cancelled() => false,
            }
        };
        tokio::select! {
            biased;
            _ = served.as_mut() => return false,
            is_over = Seldom::new(told) => if is_over { return true },
        }
        if self.gateway.is_taken_over() {
            tokio::select! {
                biased;
                _ = served.as_mut() => return false,
                () = sleep(linger) => {}
                () = self.cut.cancelled() => {}
            }
        }
        true
    }

    /// Lets what is open finish; after the cut, only for its last words. One on which
    /// nothing is open is closed.
    async fn last(&self, mut served: Pin<&mut impl Future>) {
        tokio::select! {
            biased;
            _ = served.as_mut() => return,
            () = is_idle(&self.place.activity, LAST_WORDS) => return,
            () = self.cut.cancelled() => {}
        }
        drop(timeout(LAST_WORDS, served).await);
    }
}

/// Resolves once a connection has been idle for so long.
async fn is_idle(activity: &Activity, limit: Duration) {
    loop {
        let left = limit.saturating_sub(activity.idle_for().unwrap_or_default());
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}
