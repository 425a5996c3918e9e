//! TCP and Unix sockets alike, by readiness: no buffer belongs to an idle connection.
//!
//! Owns nothing but the socket. Does no framing.

use std::io;

use tokio::net::{TcpStream, UnixStream};

/// A connection of the mock.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// A TCP connection whose writes go out at once.
    pub(super) fn tcp(stream: TcpStream) -> Self {
        // Without it events wait for acknowledgements, which figures would show.
        drop(stream.set_nodelay(true));
        Self::Tcp(stream)
    }

    /// Waits for bytes or the end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Reads what is there; `WouldBlock` if nothing is.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what fits; `WouldBlock` if nothing does.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Writes all of it.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    // Writing from readiness is outside tokio's budget, so other
                    // connections get their turn here.
                    tokio::task::coop::consume_budget().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self {
                    Self::Tcp(stream) => stream.writable().await?,
                    Self::Unix(stream) => stream.writable().await?,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
