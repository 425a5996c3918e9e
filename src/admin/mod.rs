//! The admin API: what the command line and the dashboard see and steer with.
//!
//! JSON under `/api/v1`. On the Unix socket the file's permissions are the
//! authentication: whoever may open it is admin. Nothing here decides what a
//! worker does; it asks the conductor.

pub mod api;
pub mod exchange;
pub mod socket;
pub mod view;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::auth::Issuer;
use crate::auth::Revocations;
use crate::config::{Catalog, Settings};
use crate::deployment::Registry;
use crate::lifecycle;
use crate::store::Store;

/// What every call of the API shares.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Settings of the process.
    pub settings: Arc<Settings>,
    /// Every deployment.
    pub registry: Registry,
    /// The conductor.
    pub lifecycle: lifecycle::Handle,
    /// Routes and instances; written by the reload task.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// Held by whoever changes route files or secrets, one at a time.
    pub changes: Arc<tokio::sync::Mutex<()>>,
    /// Tokens and their revocations.
    pub store: Store,
    /// Issues tokens.
    pub issuer: Arc<Issuer>,
    /// What the gateway's verifier looks at.
    pub revocations: Arc<Revocations>,
    /// When the process started, seconds since 1970.
    pub started: u64,
    /// The directory that the process runs in, for people who look for files.
    pub directory: PathBuf,
}
