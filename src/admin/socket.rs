//! The admin API on a Unix socket, whose file permissions authenticate.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::act::process::peer;
use crate::time::sleep;

/// Pause between two looks for the file.
const LOOK: Duration = Duration::from_secs(2);
/// Longest that followed answers may go on once everything ends.
const END_MAX: Duration = Duration::from_millis(200);

/// Reason for which the socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers on it.
    #[error(
        "{0} is served by another tidegate: stop that one, or set another gateway.state and admin.socket"
    )]
    InUse(PathBuf),
    /// The file can't be made.
    #[error(
        "the admin socket {path} can't be made: its directory must be writable, and its path at most 107 bytes long"
    )]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

/// Binds the socket; one that a dead process left behind is replaced.
///
/// # Errors
///
/// [`SocketError`] when another process serves it, or it can't be made.
pub async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    let failed = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let socket = UnixListener::bind(path).map_err(failed)?;
    // The directory is closed to others, so no one came in before this.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(socket)
}

/// The socket, closed to workers: they run as our user, which is all that the
/// permissions of its file ask for.
#[derive(Debug)]
struct Guarded(UnixListener);

/// Answer to a worker.
const REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nthe admin socket is not for workers, nor for processes that can't gain privileges as they can't: run the command elsewhere, or use a token with --admin-url\n";

impl Listener for Guarded {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.0).await;
            if !peer::is_worker(&stream) {
                return (stream, address);
            }
            tracing::warn!("a worker, or what one started, was refused at the admin socket");
            // It is not waited for: the words fit, or are not read anyway.
            drop(stream.try_write(REFUSED));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves until `ending`, then removes the socket's file. A file that someone else
/// removes is made again: without it no command reaches us.
pub async fn serve(
    mut socket: UnixListener,
    path: PathBuf,
    router: Router,
    ending: CancellationToken,
) {
    loop {
        let until = ending.clone();
        let served = axum::serve(Guarded(socket), router.clone())
            .with_graceful_shutdown(async move { until.cancelled().await });
        tokio::select! {
            served = served => {
                if let Err(error) = served {
                    tracing::error!(error = %error, "the admin socket broke");
                }
                break;
            }
            // Followed logs would hold the graceful end for ever.
            () = async { ending.cancelled().await; sleep(END_MAX).await } => break,
            // Open connections go on: each is a task of its own.
            again = made_again(&path) => socket = again,
        }
    }
    drop(fs::remove_file(path));
}

/// Resolves with another socket once the file is gone. Cancel-safe: a socket that is
/// dropped is found gone again.
async fn made_again(path: &Path) -> UnixListener {
    loop {
        sleep(LOOK).await;
        if tokio::fs::try_exists(path).await.unwrap_or(true) {
            continue;
        }
        if let Ok(socket) = bind(path).await {
            tracing::error!(
                "the admin socket {} was removed: it is made again",
                path.display()
            );
            return socket;
        }
    }
}
