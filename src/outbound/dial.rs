//! Connections to other machines: upstreams, issuers of keys, collectors.
//!
//! A name is looked up once for all that ask ([`lookup`]), and its addresses are tried as
//! RFC 8305 says: families in turn, the next one after a quarter of a second or as soon
//! as one fails, the first that answers wins. One limit holds for all of it. What failed
//! is told apart.
//!
//! Does not know TLS beyond the name of its failure, nor what a connection is for.

mod lookup;
pub mod media;
pub mod once;
pub mod public;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::time::{Instant, timeout};
use lookup::{Lookups, Unfound};

/// Until the next address is tried beside one that has not answered: the connection
/// attempt delay of RFC 8305, section 5.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name has no address, or no one says which.
    #[error("its name can't be resolved: {0}")]
    Name(String),
    /// The name was not resolved in time.
    #[error("its name was not resolved in time")]
    NameTimeout,
    /// Nothing listens there.
    #[error("it refuses connections")]
    Refused,
    /// No address has answered in time.
    #[error("no address of it answered in time")]
    Timeout,
    /// Its certificate is not trusted, or it does not speak TLS.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The TLS handshake took too long.
    #[error("its TLS handshake took too long")]
    TlsTimeout,
    /// The system can't reach it.
    #[error("it can't be reached: {0}")]
    Other(#[source] io::Error),
}

impl Failure {
    /// One word for it, of a closed set: the label of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::NameTimeout => "name_timeout",
            Self::Refused => "refused",
            Self::Timeout => "connect_timeout",
            Self::Tls(_) => "tls",
            Self::TlsTimeout => "tls_timeout",
            Self::Other(_) => "unreachable",
        }
    }

    /// The same for people, without what differs from case to case.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Name(_) => "its name can't be resolved",
            Self::NameTimeout => "its name was not resolved in time",
            Self::Refused => "it refuses connections",
            Self::Timeout => "no address of it answered in time",
            Self::Tls(_) => "TLS failed",
            Self::TlsTimeout => "its TLS handshake took too long",
            Self::Other(_) => "it can't be reached",
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Other(error),
        }
    }
}

/// Connects to a host, by name or literal address, within `limit`.
///
/// # Errors
///
/// [`Failure`], never of TLS.
pub async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, Failure> {
    let since = Instant::now();
    let addresses = addresses(host, limit).await?;
    let left = limit.saturating_sub(since.elapsed());
    connect_to(host, port, &addresses, left).await
}

/// The addresses of a host, in the order in which the system would try them.
///
/// # Errors
///
/// [`Failure::Name`] or [`Failure::NameTimeout`].
pub async fn addresses(host: &str, limit: Duration) -> Result<Vec<IpAddr>, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = Lookups::of_process().find(host, limit).await;
    found
        .map(|all| all.to_vec())
        .map_err(|unfound| match unfound {
            Unfound::Timeout => Failure::NameTimeout,
            Unfound::No(why) => Failure::Name(why.to_string()),
        })
}

/// Connects to one of the addresses that were found for `host`, within `limit`.
///
/// # Errors
///
/// [`Failure`], of a connection.
pub async fn connect_to(
    host: &str,
    port: u16,
    addresses: &[IpAddr],
    limit: Duration,
) -> Result<TcpStream, Failure> {
    let addresses: Vec<_> = in_turn(addresses)
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect();
    let raced = timeout(limit, race(&addresses)).await;
    let raced = raced.unwrap_or(Err(Failure::Timeout));
    if raced.is_err() && host.parse::<IpAddr>().is_err() {
        // It may have moved.
        Lookups::of_process().doubt(host);
    }
    raced
}

/// The addresses with their families in turn, as far as they are tried: RFC 8305,
/// section 4.
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().is_some_and(IpAddr::is_ipv6);
    let of = |is_first: bool| {
        let all = addresses.iter().copied();
        all.filter(move |address| (address.is_ipv6() == first) == is_first)
    };
    let (mut one, mut other) = (of(true), of(false));
    let mut all = Vec::new();
    while all.len() < ADDRESSES_MAX.min(addresses.len()) {
        all.extend(one.next().into_iter().chain(other.next()));
    }
    all.truncate(ADDRESSES_MAX);
    all
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The first connection that comes about; the others are given up.
async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut waiting = addresses.iter();
    let mut open: Vec<Attempt> = Vec::new();
    let mut failure = None;
    loop {
        let next = waiting.next();
        open.extend(next.map(|address| Box::pin(TcpStream::connect(*address)) as Attempt));
        if open.is_empty() {
            let none = || Failure::Name("it has no address".to_owned());
            return Err(failure.unwrap_or_else(none));
        }
        let first = poll_fn(|cx| {
            let mut ready = open.iter_mut().enumerate();
            let found = ready.find_map(|(at, attempt)| match attempt.as_mut().poll(cx) {
                Poll::Ready(result) => Some((at, result)),
                Poll::Pending => None,
            });
            found.map_or(Poll::Pending, Poll::Ready)
        });
        let first = if waiting.as_slice().is_empty() {
            Some(first.await)
        } else {
            timeout(NEXT_AFTER, first).await.ok()
        };
        match first {
            Some((_, Ok(stream))) => return Ok(stream),
            Some((at, Err(error))) => {
                drop(open.swap_remove(at));
                // That it refuses says more than that there is no way to another family.
                if !matches!(failure, Some(Failure::Refused)) {
                    failure = Some(Failure::from(error));
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
