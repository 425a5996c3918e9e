//! Reasons why there is no listener.

use std::io;
use std::net::SocketAddr;

/// Reason why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address} can't be listened on ({hint}): set another address under {key} in tidegate.toml"
)]
pub struct BindError {
    address: SocketAddr,
    hint: &'static str,
    key: &'static str,
    #[source]
    source: io::Error,
}

impl BindError {
    /// Words for the causes that people meet.
    pub fn new(address: SocketAddr, key: &'static str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "another program uses it",
            io::ErrorKind::PermissionDenied => "this user may not use it",
            io::ErrorKind::AddrNotAvailable => "this machine does not have it",
            _ => "the system refuses it",
        };
        Self {
            address,
            hint,
            key,
            source,
        }
    }
}
