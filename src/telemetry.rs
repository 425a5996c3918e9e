//! Views of the gateway from outside: metrics, the access log, the process's own log,
//! the use by each token.
//!
//! Every metric name stands in [`metrics`] and nowhere else. Nothing here decides
//! anything; it only records.

pub mod access;
pub mod grafana;
pub mod history;
pub mod host;
pub mod line;
pub mod log;
pub mod metrics;
pub mod outcome;
pub mod output;
pub mod plain;
pub mod traces;
pub mod usage;
