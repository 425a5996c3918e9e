//! Connections to one upstream, HTTP/1.1, kept between requests.
//!
//! A kept connection belongs to no task: its [`wire`](super::wire) is polled by
//! its holder. Taking one out looks for a FIN that arrived meanwhile, so a
//! connection that the upstream has closed is not used again.
//! Dropping a [`Conn`] closes it at once, whatever phase its request is in.
//!
//! Deliberately absent: shared dials, HTTP/2.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::Frame;

use super::wire::{Sending, Wire};
use crate::outbound::Address;
use crate::outbound::dial::Failure;
use crate::outbound::socket::{Limits, Proof, Socket};
use crate::time::Instant;

/// Connections kept idle to one upstream.
const IDLE_MAX: usize = 512;

/// Connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    address: Address,
    reach: Reach,
    /// The `Host` of its requests.
    host: HeaderValue,
    /// Below the time after which the upstream closes an idle connection.
    idle_timeout: Duration,
    /// Last in, first out. Held for a push or a pop, never over an await.
    idle: Mutex<Vec<Idle>>,
    /// Requests that have a connection.
    active: AtomicU32,
}

/// Way in which the upstream is reached.
#[derive(Debug)]
enum Reach {
    Plain,
    Tls(Box<Proof>),
    /// Not at all.
    Closed,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since: Instant,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    wire: Box<Wire<Socket>>,
    /// True if it has served a request before: only then may the upstream have
    /// closed it unseen.
    pub reused: bool,
}

/// Stands for the body of a response, which comes through its connection: see
/// [`Exchange`].
#[derive(Clone, Copy, Debug)]
pub struct Awaited;

/// Reason why no response came.
#[derive(Debug)]
pub struct SendFailed {
    /// True if the request may be sent again on another connection: nothing of
    /// it was written, or the kept connection turned out dead before a byte of
    /// the response.
    pub safe_to_replay: bool,
    /// The cause.
    pub source: io::Error,
}

impl Pool {
    /// No connections yet; `proof` for TLS.
    pub fn new(address: Address, proof: Option<Proof>, idle_timeout: Duration) -> Arc<Self> {
        let reach = proof.map_or(Reach::Plain, |proof| Reach::Tls(Box::new(proof)));
        Self::build(address, reach, idle_timeout)
    }

    fn build(address: Address, reach: Reach, idle_timeout: Duration) -> Arc<Self> {
        let standard = match reach {
            Reach::Tls(_) => 443,
            Reach::Plain | Reach::Closed => 80,
        };
        let host = match &address {
            Address::Tcp { host, port } if *port == standard && !host.contains(':') => {
                HeaderValue::from_str(host).ok()
            }
            Address::Tcp { .. } => HeaderValue::from_str(&address.to_string()).ok(),
            Address::Unix(_) => None,
        };
        Arc::new(Self {
            address,
            reach,
            host: host.unwrap_or_else(|| HeaderValue::from_static("localhost")),
            idle_timeout,
            idle: Mutex::default(),
            active: AtomicU32::new(0),
        })
    }

    /// Connections that are never made: for a server that can't be used.
    pub fn closed(address: Address) -> Arc<Self> {
        Self::build(address, Reach::Closed, Duration::ZERO)
    }

    /// True if no connection is ever made.
    pub fn is_closed(&self) -> bool {
        matches!(self.reach, Reach::Closed)
    }

    /// Address that the pool leads to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The `Host` of its requests.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Number of requests that have a connection.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts one request until the guard is dropped.
    pub fn occupy(self: &Arc<Self>) -> Occupied {
        self.active.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(self))
    }

    /// A kept connection that is still alive, if there is one.
    pub async fn kept(&self) -> Option<Conn> {
        poll_fn(|cx| {
            loop {
                let popped = self.lock().pop();
                let Some(Idle { mut conn, since }) = popped else {
                    return Poll::Ready(None);
                };
                let young = since.elapsed() < self.idle_timeout;
                if young && conn.wire.is_alive(cx) {
                    conn.reused = true;
                    return Poll::Ready(Some(conn));
                }
            }
        })
        .await
    }

    /// A stream to the upstream that is no one's yet, within `limits`.
    ///
    /// # Errors
    ///
    /// Fails if the upstream can't be reached in time, or does not prove its identity.
    pub async fn reach(&self, limits: Limits) -> Result<Socket, Failure> {
        let proof = match &self.reach {
            Reach::Plain => None,
            Reach::Tls(proof) => Some(proof.as_ref()),
            Reach::Closed => {
                return Err(Failure::Other(io::Error::other(
                    "its settings can't be used",
                )));
            }
        };
        Socket::connect(&self.address, proof, limits).await
    }

    /// A new connection, within `limits`.
    ///
    /// # Errors
    ///
    /// Fails if the upstream can't be reached in time, or does not prove its identity.
    pub async fn dial(&self, limits: Limits) -> Result<Conn, Failure> {
        let socket = self.reach(limits).await?;
        Ok(Conn {
            wire: Box::new(Wire::new(socket)),
            reused: false,
        })
    }

    /// Keeps a connection for the next request, if it can serve one.
    fn keep(&self, conn: Conn) {
        let mut idle = self.lock();
        if conn.wire.is_reusable() && idle.len() < IDLE_MAX {
            idle.push(Idle {
                conn,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections that were idle for too long.
    pub fn sweep(&self) {
        let limit = self.idle_timeout;
        self.lock().retain(|idle| idle.since.elapsed() < limit);
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that has, or is about to have, a connection.
#[derive(Debug)]
pub struct Occupied(Arc<Pool>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Conn {
    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    ///
    /// [`SendFailed`] when the connection ended before the head was complete.
    pub(in crate::gateway) async fn send(
        &mut self,
        request: &Sending,
    ) -> Result<Response<Awaited>, SendFailed> {
        let sent = self.wire.send(request).await;
        sent.map(|head| head.map(|()| Awaited)).map_err(|broken| {
            let stale = self.reused && broken.unheard && is_gone(&broken.source);
            SendFailed {
                safe_to_replay: broken.unsent || stale,
                source: broken.source,
            }
        })
    }
}

/// True if the connection was ended by its peer, without an answer.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
    )
}

/// The body of a response, with the connection that it comes through. Returns
/// the connection to its pool at the end; closes it when dropped before.
#[derive(Debug)]
pub struct Exchange {
    /// `None` once the body has ended.
    conn: Option<Conn>,
    pool: Arc<Pool>,
    _occupied: Occupied,
}

impl Exchange {
    /// The body of a response that came through `conn`.
    pub fn new(_: Awaited, conn: Conn, occupied: Occupied) -> Self {
        let mut exchange = Self {
            conn: Some(conn),
            pool: Arc::clone(&occupied.0),
            _occupied: occupied,
        };
        // No one may ask for the end of a body that there is not.
        exchange.keep_ended();
        exchange
    }

    /// The next frame; `None` at the end.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(conn) = &mut self.conn else {
            return Poll::Ready(None);
        };
        let polled = conn.wire.poll_body(cx);
        self.keep_ended();
        polled.map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }

    /// Gives the connection back once the body has come whole.
    fn keep_ended(&mut self) {
        if let Some(conn) = self.conn.take_if(|conn| conn.wire.has_ended()) {
            self.pool.keep(conn);
        }
    }

    /// True once the last frame was given out: the next would be `None`.
    pub fn has_ended(&self) -> bool {
        self.conn.is_none()
    }
}
