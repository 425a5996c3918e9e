//! The admin API on a Unix socket, whose file permissions authenticate.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Why the socket can't be served.
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
        /// What the system said.
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

/// Serves until `ending`, then removes the socket's file.
pub async fn serve(socket: UnixListener, path: PathBuf, router: Router, ending: CancellationToken) {
    let until = ending.clone();
    let served =
        axum::serve(socket, router).with_graceful_shutdown(async move { until.cancelled().await });
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::error!(error = %error, "the admin socket broke");
            }
        }
        // Followed logs would hold the graceful end for ever.
        () = async { ending.cancelled().await; crate::time::sleep(std::time::Duration::from_millis(200)).await } => {}
    }
    drop(fs::remove_file(path));
}
