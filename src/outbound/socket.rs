//! A stream to an upstream: TCP, TLS over it, or Unix, with its options set.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Address;
use super::dial::{self, Failure};
use crate::time::timeout;

/// A connected stream.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TLS on TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// In memory.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// Proof that the server of a TLS connection must give of its identity.
#[derive(Clone)]
pub struct Proof {
    /// Settings of TLS, with the authorities that we trust.
    pub client: Arc<ClientConfig>,
    /// The name that it must prove, sent as SNI.
    pub name: ServerName<'static>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proof").field(&self.name).finish()
    }
}

/// Longest times for the steps to a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To be connected, with the look-up of the name.
    pub connect: Duration,
    /// And for the TLS handshake, where there is one.
    pub tls_handshake: Duration,
}

impl Socket {
    /// Connects to an upstream.
    ///
    /// # Errors
    ///
    /// Fails if no address of the name answers, the socket file is not served, the
    /// server's certificate is not trusted, or a step takes too long.
    pub async fn connect(
        address: &Address,
        proof: Option<&Proof>,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let stream = match address {
            Address::Tcp { host, port } => {
                let stream = dial::connect(host, *port, limits.connect).await?;
                stream.set_nodelay(true)?;
                stream
            }
            #[cfg(test)]
            Address::Unix(path) if path.starts_with(in_memory::PLACE) => {
                let connected = timeout(limits.connect, in_memory::connect(path)).await;
                return Ok(Self::Memory(connected.map_err(|_| Failure::Timeout)??));
            }
            Address::Unix(path) => {
                let connected = timeout(limits.connect, UnixStream::connect(path)).await;
                return Ok(Self::Unix(connected.map_err(|_| Failure::Timeout)??));
            }
        };
        Self::over(stream, proof, limits.tls_handshake).await
    }

    /// Goes on from a connection over TCP, with TLS where the server must prove
    /// something.
    ///
    /// # Errors
    ///
    /// [`Failure`] of TLS.
    pub async fn over(
        stream: TcpStream,
        proof: Option<&Proof>,
        tls_handshake_max: Duration,
    ) -> Result<Self, Failure> {
        let Some(proof) = proof else {
            return Ok(Self::Tcp(stream));
        };
        let connector = TlsConnector::from(Arc::clone(&proof.client));
        let greeted = connector.connect(proof.name.clone(), stream);
        let greeted = timeout(tls_handshake_max, greeted).await;
        let stream = greeted.map_err(|_| Failure::TlsTimeout)?;
        Ok(Self::Tls(Box::new(stream.map_err(Failure::Tls)?)))
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
            Socket::Tls($stream) => $call,
            #[cfg(test)]
            Socket::Memory($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// Servers of this thread that are reached in memory: for tests.
#[cfg(test)]
pub(crate) mod in_memory {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::io;
    use std::path::{Path, PathBuf};

    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::mpsc;

    /// Path under which their sockets would stand.
    pub(crate) const PLACE: &str = "/in-memory";
    /// Bytes that wait in a connection.
    const BUFFER: usize = 8 << 10;

    type Accepts = mpsc::UnboundedSender<DuplexStream>;

    thread_local! {
        static SERVERS: RefCell<BTreeMap<PathBuf, Accepts>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Listens at `path`, until the receiver is dropped.
    pub(crate) fn listen(path: &Path) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        SERVERS.with_borrow_mut(|servers| servers.insert(path.to_owned(), sender));
        receiver
    }

    #[expect(clippy::unused_async, reason = "so that it is waited for as any other")]
    pub(super) async fn connect(path: &Path) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(BUFFER);
        let sent = SERVERS.with_borrow(|servers| servers.get(path).map(|s| s.send(theirs)));
        match sent {
            Some(Ok(())) => Ok(ours),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}
