//! The way out: addresses, look-ups of names, connections, one exchange over HTTP/1.
//!
//! [`dial`] finds and connects, [`socket`] is what comes of it (TCP, TLS, Unix),
//! [`exchange`] sends one request over it, [`roots`] names the authorities that vouch
//! for servers.
//!
//! Owns no pool and no retries, and does not know what a connection is for.

pub mod address;
pub mod dial;
pub mod exchange;
pub mod roots;
pub mod socket;

pub use address::Address;
