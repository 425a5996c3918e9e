//! The listening socket: bound early, listening late.
//!
//! vLLM binds before it loads the model and listens once it is ready: a port in use
//! is found early, a Unix socket's file appears early, and connections are refused
//! until ready. The file is left behind at the end, as vLLM leaves it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use tokio::net::{TcpListener, UnixListener, lookup_host};

use super::args::Args;
use super::end::SimError;

/// Connections that may wait to be accepted, as in uvicorn.
const BACKLOG: i32 = 2048;

/// A bound socket that does not listen yet.
#[derive(Debug)]
pub(super) enum Socket {
    /// With the address that it is bound to.
    Tcp(OwnedFd, SocketAddr),
    /// With its path.
    Unix(OwnedFd, PathBuf),
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// On an address.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener),
}

impl Socket {
    /// Binds where `args` say.
    ///
    /// # Errors
    ///
    /// [`SimError::Bind`] when that place is taken or no place at all.
    pub(super) async fn bind(args: &Args) -> Result<Self, SimError> {
        if let Some(path) = &args.uds {
            let failed = |source| SimError::Bind {
                address: path.display().to_string(),
                source,
            };
            return bind_unix(path).map_err(failed);
        }
        let address = format!("{}:{}", args.host, args.port);
        let failed = |source| SimError::Bind {
            address: address.clone(),
            source,
        };
        let first = lookup_host((args.host.as_str(), args.port))
            .await
            .map_err(failed)?
            .next();
        let first = first.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        bind_tcp(first).map_err(failed)
    }

    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// [`SimError::Bind`] when the system refuses.
    pub(super) fn listen(self) -> Result<Listener, SimError> {
        let address = self.to_string();
        self.try_listen()
            .map_err(|source| SimError::Bind { address, source })
    }

    fn try_listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket, _) => {
                listen(&socket, BACKLOG)?;
                let listener = std::net::TcpListener::from(socket);
                Ok(Listener::Tcp(TcpListener::from_std(listener)?))
            }
            Self::Unix(socket, _) => {
                listen(&socket, BACKLOG)?;
                let listener = std::os::unix::net::UnixListener::from(socket);
                Ok(Listener::Unix(UnixListener::from_std(listener)?))
            }
        }
    }
}

impl std::fmt::Display for Socket {
    /// Writes the address as the log names it: `http://127.0.0.1:8000`, `unix:/run/vllm.sock`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "http://{address}"),
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok(Socket::Tcp(socket, bound))
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    // A stale socket would be in the way; any other file is not ours to remove.
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens no one can have connected.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(Socket::Unix(socket, path.to_owned()))
}
