//! A name that a client wrote, asked for once and not remembered.
//!
//! Apart from [`super::lookup`], whose names come from settings and are few: a client that
//! sends names that take long, or endlessly many, is in the way of none but those that do
//! the same, and fills no memory.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::Failure;
use crate::time::{Instant, timeout};

/// Look-ups at once: each is a thread.
const THREADS_MAX: usize = 32;
/// Stack of such a thread; `getaddrinfo` takes less than half of it.
const STACK_BYTES: usize = 512 * 1024;

static THREADS: Semaphore = Semaphore::const_new(THREADS_MAX);

/// The addresses that the system has for a name, within `limit`.
///
/// # Errors
///
/// [`Failure::Name`] or [`Failure::NameTimeout`].
pub async fn ask(host: &str, limit: Duration) -> Result<Vec<IpAddr>, Failure> {
    let since = Instant::now();
    let permit = timeout(limit, THREADS.acquire()).await;
    let Ok(Ok(permit)) = permit else {
        return Err(Failure::NameTimeout);
    };
    let (tell, told) = oneshot::channel();
    let name = host.to_owned();
    let thread = std::thread::Builder::new()
        .name("lookup".to_owned())
        .stack_size(STACK_BYTES);
    let asking = thread.spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map(|all| all.map(|address| address.ip()).collect::<Vec<_>>());
        // The caller may have given up.
        drop(tell.send(found));
        drop(permit);
    });
    asking.map_err(|error| Failure::Name(error.to_string()))?;
    let left = limit.saturating_sub(since.elapsed());
    match timeout(left, told).await {
        Ok(Ok(Ok(all))) if !all.is_empty() => Ok(all),
        Ok(Ok(Ok(_))) => Err(Failure::Name("it has no address".to_owned())),
        Ok(Ok(Err(error))) => Err(Failure::Name(error.to_string())),
        Ok(Err(_)) => Err(Failure::Name("the look-up broke off".to_owned())),
        Err(_) => Err(Failure::NameTimeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_has_the_addresses_that_the_system_knows() {
        let found = ask("localhost", Duration::from_secs(30)).await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(matches!(
            ask("no such name", Duration::from_secs(30)).await,
            Err(Failure::Name(_))
        ));
    }
}
