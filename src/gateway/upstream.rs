//! The servers behind a route: connections, health, figures, which one is next.

pub mod balance;
pub mod credentials;
pub mod due;
pub mod fault;
pub mod figures;
pub mod health;
pub mod pool;
pub mod server;
pub mod servers;
pub(super) mod wire;
