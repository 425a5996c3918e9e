//! Talk with systemd: the sockets that it passes (`LISTEN_FDS`), readiness,
//! the end, and a sign of life for its watchdog (`sd_notify`).
//!
//! Without systemd every call does nothing. Messages go by a socket of our own, as
//! the crates for it wait where the manager does not read.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use tokio_util::sync::CancellationToken;

use crate::time::sleep;

/// Most descriptors that are taken.
const PASSED_MAX: usize = 64;

/// The listening sockets that were passed to this very process. To be called once,
/// before anything else is opened and before any thread starts.
pub(super) fn passed() -> Vec<OwnedFd> {
    // Without `LISTEN_PID` they are no one's: the crate would take them.
    let of = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let is_ours = of("LISTEN_PID") == usize::try_from(std::process::id()).ok();
    if !is_ours || of("LISTEN_FDS").is_none_or(|count| count > PASSED_MAX) {
        return Vec::new();
    }
    let mut passed = ListenFd::from_env();
    let taken = (0..passed.len()).filter_map(|at| match passed.take_tcp_listener(at) {
        Ok(socket) => socket.map(OwnedFd::from),
        Err(error) => {
            tracing::warn!(error = %error, "what was passed to us is no socket that we can listen on");
            None
        }
    });
    taken.collect()
}

/// Tells the service manager how we stand.
#[derive(Debug)]
pub(super) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// A notifier for the socket that `NOTIFY_SOCKET` names; without it, for none.
    pub(super) fn from_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        Self(
            connect(&path)
                .inspect_err(|error| {
                    tracing::warn!(error = %error, "the service manager can't be told how we stand");
                })
                .ok(),
        )
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!(error = %error, "the service manager was not told how we stand");
        }
    }

    /// Requests are served. We may be another process than the one that it started.
    pub(super) fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// Files are being read again; [`Self::ready`] follows.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// We are about to end.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Gives signs of life as often as the watchdog wants them, until `ending`.
    /// They come from a task of the runtime: where it stands still, they stop.
    pub(super) async fn live(&self, ending: CancellationToken) {
        let Some(pause) = watchdog_pause() else {
            return;
        };
        loop {
            self.send("WATCHDOG=1");
            tokio::select! {
                () = sleep(pause) => {}
                () = ending.cancelled() => return,
            }
        }
    }
}

/// Half of what the watchdog allows.
fn watchdog_pause() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0)?;
    Some(Duration::from_micros(micros) / 2)
}

fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // It is never waited for.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_by_either_kind_of_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let name = format!("tidegate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let other = UnixDatagram::bind_addr(&address).unwrap();
        for (manager, path) in [
            (manager, path.into_os_string()),
            (other, format!("@{name}").into()),
        ] {
            let notifier = Notifier(Some(connect(&path).unwrap()));
            let mut text = [0; 256];
            notifier.ready();
            let length = manager.recv(&mut text).unwrap();
            let ready = format!("READY=1\nMAINPID={}", std::process::id());
            assert_eq!(&text[..length], ready.as_bytes());
            notifier.reloading();
            let length = manager.recv(&mut text).unwrap();
            assert!(text[..length].starts_with(b"RELOADING=1\nMONOTONIC_USEC="));
        }
        Notifier(None).stopping();
    }
}
