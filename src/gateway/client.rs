//! The client's connection: its place among all, TLS, the peer behind it.

pub mod peer;
pub mod places;
pub mod proxied;
pub mod seldom;
pub mod stream;
pub mod tls;
