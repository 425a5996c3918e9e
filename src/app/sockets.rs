//! Listening sockets: those that were passed to us, and those that we bind.
//!
//! A socket that systemd or a gateway before us holds open loses no connection
//! between the two: what comes meanwhile waits in it. It is taken for the
//! address of the settings that it listens on.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::net::TcpListener;

use super::systemd;
use crate::gateway::listener::BindError;

/// Sockets by address, and a handle on each that is in use.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    passed: Vec<(SocketAddr, std::net::TcpListener)>,
    in_use: Vec<OwnedFd>,
    after_another: bool,
    /// Ports that are listened on by IPv4 addresses too.
    v4_ports: HashSet<u16>,
}

impl Sockets {
    /// Sockets that systemd passed, if it did.
    pub(super) fn from_systemd() -> Self {
        Self::of(systemd::passed())
    }

    /// The passed ones, as far as they are listening sockets of TCP.
    pub(super) fn of(passed: Vec<OwnedFd>) -> Self {
        let mut sockets = Self::default();
        for socket in passed {
            let socket = std::net::TcpListener::from(socket);
            match usable(&socket) {
                Ok(address) => sockets.passed.push((address, socket)),
                Err(error) => {
                    tracing::warn!(error = %error, "a socket that was passed to us is none that we can listen on");
                }
            }
        }
        sockets
    }

    /// Says what will be listened on. Linux gives `[::]` the port of IPv4 too, where
    /// `0.0.0.0` would then find it taken: where both are asked for, each has its own.
    pub(super) fn expect(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        let v4 = addresses.filter(SocketAddr::is_ipv4);
        self.v4_ports = v4.map(|address| address.port()).collect();
    }

    /// The socket that was passed for `address`, else a new one. `key` names the
    /// setting.
    pub(super) fn listen(
        &mut self,
        address: SocketAddr,
        key: &'static str,
    ) -> Result<TcpListener, BindError> {
        let failed = |source| BindError::new(address, key, source);
        let found = self.passed.iter().position(|(known, _)| *known == address);
        let socket = match found {
            Some(index) => self.passed.swap_remove(index).1,
            None => self.bind(address).map_err(failed)?,
        };
        let handle = socket.as_fd().try_clone_to_owned().map_err(failed)?;
        self.in_use.push(handle);
        TcpListener::from_std(socket).map_err(failed)
    }

    fn bind(&self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let tries = if self.after_another { TRIES } else { 1 };
        let is_apart = self.v4_ports.contains(&address.port());
        let mut bound = bind(address, is_apart);
        for _ in 1..tries {
            match &bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                _ => break,
            }
            std::thread::sleep(PAUSE);
            bound = bind(address, is_apart);
        }
        bound
    }

    /// Says that who had the addresses before us may be just ending.
    pub(super) fn after_another(mut self) -> Self {
        self.after_another = true;
        self
    }

    /// Ends the choice: what no setting asked for is closed. A handle on each
    /// socket in use remains, to be passed on.
    pub(super) fn finish(self) -> Vec<OwnedFd> {
        for (address, _) in &self.passed {
            tracing::warn!("a socket for {address} was passed to us, and no setting listens there");
        }
        self.in_use
    }
}

/// Tries for an address whose last owner is just ending, and the pause between two.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// `is_apart`: an address of IPv6 leaves the port to others of IPv4.
fn bind(address: SocketAddr, is_apart: bool) -> io::Result<std::net::TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if is_apart && address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(std::net::TcpListener::from(socket))
}

fn usable(socket: &std::net::TcpListener) -> io::Result<SocketAddr> {
    if !rustix::net::sockopt::socket_acceptconn(socket)? {
        return Err(io::ErrorKind::NotConnected.into());
    }
    close_on_exec(socket.as_fd())?;
    socket.set_nonblocking(true)?;
    socket.local_addr()
}

/// Workers must not inherit it: they would hold it open.
fn close_on_exec(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::io::fcntl_getfd(socket)?;
    rustix::io::fcntl_setfd(socket, flags | rustix::io::FdFlags::CLOEXEC)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_passed_socket_is_taken_for_its_address_and_keeps_who_waits() {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        // Comes while no one accepts.
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let mut sockets = Sockets::of(vec![first.into()]);
        let socket = sockets.listen(address, "test").unwrap();
        let (_, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
        assert!(sockets.passed.is_empty());
        // It is taken only once.
        let again = sockets.listen(address, "test").unwrap_err();
        assert!(
            again.to_string().contains("another program uses it"),
            "{again}"
        );
        assert_eq!(sockets.finish().len(), 1);
    }

    #[tokio::test]
    async fn both_families_of_one_port_are_listened_on() {
        let free = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let both: Vec<SocketAddr> = ["[::]", "0.0.0.0"]
            .iter()
            .map(|host| format!("{host}:{port}").parse().unwrap())
            .collect();
        let mut sockets = Sockets::default();
        sockets.expect(both.iter().copied());
        for address in both {
            let socket = sockets.listen(address, "test").unwrap();
            let host = if address.is_ipv6() {
                "[::1]"
            } else {
                "127.0.0.1"
            };
            let client = std::net::TcpStream::connect(format!("{host}:{port}")).unwrap();
            let (_, peer) = socket.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[test]
    fn what_does_not_listen_is_left_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(
            Sockets::of(vec![stream.into(), datagram.into()])
                .passed
                .is_empty()
        );
    }
}
