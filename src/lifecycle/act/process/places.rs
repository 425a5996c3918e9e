//! Places of a worker's files: socket, temporary directory, log; and its port,
//! where it has no socket.
//!
//! Socket paths have a limit in the kernel, and an engine makes sockets of its
//! own below its temporary directory; so the run directory must be short.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use crate::lifecycle::act::command::LOOPBACK;
use crate::lifecycle::act::launcher::{Nonce, hex};

/// Longest path of a run directory: a Unix socket path holds 107 bytes, and an
/// engine adds about 50 of its own.
const RUN_BYTES_MAX: usize = 55;

/// The directories of all workers.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) run: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) journal: PathBuf,
}

impl Places {
    /// Below the state directory, made if absent.
    pub(super) fn below(state: &Path) -> io::Result<Self> {
        let state = std::path::absolute(state)?;
        let places = Self {
            run: run_dir(&state),
            logs: state.join("logs"),
            journal: state.join("workers"),
        };
        for dir in [&places.run, &places.logs, &places.journal] {
            private_dir(dir)?;
        }
        Ok(places)
    }

    /// Tells this state directory from others.
    pub(super) fn tag(&self) -> String {
        tag(&self.journal)
    }

    /// Removes what is left in the run directory of workers that no record names.
    pub(super) fn clean_others(&self, known: &[Nonce]) {
        let entries = fs::read_dir(&self.run).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let nonce = name.strip_suffix(".sock").unwrap_or(&name);
            let is_ours = nonce.len() == SHORT && nonce.bytes().all(|b| b.is_ascii_hexdigit());
            if is_ours && !known.iter().any(|known| short(known.as_str()) == nonce) {
                self.clean(nonce);
            }
        }
    }

    /// The socket of the worker with this nonce.
    pub(super) fn socket(&self, nonce: &str) -> PathBuf {
        // In a directory of its own: a worker may make files in that one alone.
        self.temporary(nonce).join(SOCKET)
    }

    /// The directory of temporary files of the worker with this nonce.
    pub(super) fn temporary(&self, nonce: &str) -> PathBuf {
        self.run.join(short(nonce))
    }

    /// Removes what belongs to one worker that is gone.
    pub(super) fn clean(&self, nonce: &str) {
        for gone in [
            // Where older versions had the socket.
            fs::remove_file(self.run.join(format!("{}.sock", short(nonce)))),
            fs::remove_dir_all(self.temporary(nonce)),
        ] {
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, "a worker's temporary files stay");
                }
                _ => {}
            }
        }
    }
}

/// 48 of the 128 bits: enough to tell the workers of one directory apart.
pub(super) fn short(nonce: &str) -> &str {
    nonce.get(..SHORT).unwrap_or(nonce)
}

/// Name of a worker's socket.
const SOCKET: &str = "api.sock";

/// Digits of a nonce in names.
const SHORT: usize = 12;

/// A short name for a path.
fn tag(path: &Path) -> String {
    let digest = digest::digest(&digest::SHA256, path.as_os_str().as_encoded_bytes());
    hex(digest.as_ref().get(..6).unwrap_or_default())
}

fn run_dir(state: &Path) -> PathBuf {
    let near = state.join("run");
    if near.as_os_str().len() <= RUN_BYTES_MAX {
        return near;
    }
    let tag = tag(state);
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime.filter(|dir| dir.is_absolute() && dir.is_dir());
    let name = format!("tidegate-{tag}");
    let far = base.unwrap_or_else(|| PathBuf::from("/tmp")).join(name);
    if far.as_os_str().len() <= RUN_BYTES_MAX {
        return far;
    }
    Path::new("/tmp").join(format!("tidegate-{tag}"))
}

/// Makes a directory that only we can enter, or makes sure that it is one.
fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = fs::symlink_metadata(dir)?;
    let ours = rustix::process::getuid().as_raw();
    if !meta.is_dir() || meta.uid() != ours {
        let text = format!("{} is not a directory of this user", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// A port of the loopback that nothing listens on. If another process takes it before the
/// worker does, the worker's start fails, as it can't listen then.
pub(super) fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind((LOOPBACK, 0))?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_directory_is_short_and_private_however_deep_the_state_is() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a-rather-long-directory-name".repeat(4));
        fs::create_dir_all(&deep).unwrap();
        let places = Places::below(&deep).unwrap();
        let socket = places.socket(&"0123456789abcdef".repeat(2));
        assert!(socket.as_os_str().len() < 108 - 30, "{}", socket.display());
        let mode = fs::metadata(&places.run).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(
            Places::below(&deep).unwrap().run,
            places.run,
            "the same again"
        );
        fs::remove_dir_all(&places.run).unwrap();
    }
}
