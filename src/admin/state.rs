//! State that all calls of the API share, and the parts that it is made from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::audit::Audit;
use super::cookie::Cookie;
use super::embeds::Embeds;
use super::latencies::Latencies;
use super::revisions::FilesSeen;
use super::sent::Sent;
use super::session::Sessions;
use crate::auth::{Issuer, Keys, Revocations, Verifier};
use crate::config::{Current, FileError, Settings};
use crate::deployment::Registry;
use crate::gateway::Gateway;
use crate::gpu::Inventory;
use crate::lifecycle;
use crate::store::Store;
use crate::store::history::History;
use crate::telemetry::history::Recorder;
use crate::telemetry::usage::Ledger;

/// State that all calls of the API share. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Settings of the process.
    pub settings: Arc<Settings>,
    /// Every deployment.
    pub registry: Registry,
    /// The conductor.
    pub lifecycle: lifecycle::Control,
    /// Routes and instances; written by the reload task.
    pub catalog: Current,
    /// Errors of certificates that stand there and are not served.
    pub certificate_errors: Arc<ArcSwap<Vec<FileError>>>,
    /// Held over a change of route files or secrets, one at a time.
    pub changes: Arc<tokio::sync::Mutex<()>>,
    /// Tokens and their revocations, sessions, audit.
    pub store: Store,
    /// Issues tokens.
    pub issuer: Arc<Issuer>,
    /// Verifies them.
    pub verifier: Arc<Verifier>,
    /// Revocations that the gateway's verifier looks at.
    pub revocations: Arc<Revocations>,
    /// The keys of both, and of further issuers.
    pub keys: Arc<Keys>,
    /// The data plane: how its servers stand.
    pub gateway: Arc<Gateway>,
    /// Use by tokens since it was last kept.
    pub ledger: Arc<Ledger>,
    /// The devices, and what their sensors say.
    pub gpus: Inventory,
    /// Rates of now, and counts since the start.
    pub recorder: Arc<Recorder>,
    /// The series behind the plots.
    pub history: Arc<History>,
    /// Record of changes and of the people who made them.
    pub audit: Audit,
    /// Sessions of all who are logged in.
    pub sessions: Arc<Sessions>,
    /// Links that show a plot elsewhere.
    pub(super) embeds: Arc<Embeds>,
    /// Latencies of the endpoints table, of the last half minute.
    pub(super) latencies: Arc<Latencies>,
    /// Answers that were sent, as hashes.
    pub(super) sent: Arc<Sent>,
    /// The cookie of sessions.
    pub(super) cookie: Cookie,
    /// Revisions of route files.
    pub(super) files: Arc<FilesSeen>,
    /// Listeners for clients, the HTTPS ones first.
    pub fronts: Arc<[Front]>,
    /// URL of the HTTPS listener, without a slash at the end; none when it is off.
    pub base_url: Option<Arc<str>>,
    /// The authority of our own certificate, where we made it.
    pub ca: Option<PathBuf>,
    /// Start of the process, in seconds since 1970.
    pub started: u64,
    /// The directory that the process runs in, for people who look for files.
    pub directory: PathBuf,
}

/// A listener of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// Address of the listener, with the real port.
    pub address: SocketAddr,
    /// True if the listener speaks TLS.
    pub secure: bool,
}

impl Front {
    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.url_of(&shown_host(self.address))
    }

    /// Its URL under another name of the host.
    pub fn url_of(&self, host: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.address.port())
    }
}

/// The host of an address, for URLs: this machine's name where it listens on all.
pub fn shown_host(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        let name = rustix::system::uname();
        return name.nodename().to_string_lossy().into_owned();
    }
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Parts that [`Admin`] is made from.
#[derive(Debug)]
pub struct Parts {
    /// See [`Admin::settings`].
    pub settings: Arc<Settings>,
    /// See [`Admin::registry`].
    pub registry: Registry,
    /// See [`Admin::lifecycle`].
    pub lifecycle: lifecycle::Control,
    /// See [`Admin::catalog`].
    pub catalog: Current,
    /// See [`Admin::store`].
    pub store: Store,
    /// See [`Admin::keys`].
    pub keys: Arc<Keys>,
    /// See [`Admin::gateway`].
    pub gateway: Arc<Gateway>,
    /// See [`Admin::gpus`].
    pub gpus: Inventory,
    /// See [`Admin::history`].
    pub history: Arc<History>,
    /// See [`Admin::fronts`].
    pub fronts: Vec<Front>,
    /// See [`Admin::base_url`].
    pub base_url: Option<String>,
    /// See [`Admin::ca`].
    pub ca: Option<PathBuf>,
}

impl Admin {
    /// Reads sessions and audit from the store.
    ///
    /// # Errors
    ///
    /// The store can't be read.
    pub fn new(parts: Parts) -> Result<Self, crate::store::StoreError> {
        let (keys, gateway) = (parts.keys, parts.gateway);
        let verifier = Arc::clone(keys.verifier());
        let revocations = Arc::clone(verifier.revocations());
        let sessions = Sessions::open(parts.store.clone(), Arc::clone(&revocations))?;
        let cookie = Cookie::of(&parts.settings.gateway.state);
        Ok(Self {
            settings: parts.settings,
            recorder: Arc::clone(&parts.registry.recorder),
            registry: parts.registry,
            lifecycle: parts.lifecycle,
            catalog: parts.catalog,
            certificate_errors: Arc::default(),
            changes: Arc::default(),
            audit: Audit::new(parts.store.clone()),
            store: parts.store.clone(),
            issuer: Arc::clone(keys.issuer()),
            verifier,
            revocations,
            ledger: Arc::clone(gateway.ledger()),
            keys,
            gateway,
            gpus: parts.gpus,
            history: parts.history,
            sessions: Arc::new(sessions),
            embeds: Arc::new(Embeds::open(parts.store.clone())?),
            latencies: Arc::default(),
            sent: Arc::default(),
            cookie,
            files: Arc::default(),
            fronts: parts.fronts.into(),
            base_url: parts.base_url.map(Into::into),
            ca: parts.ca,
            started: crate::time::unix_seconds(),
            directory: std::env::current_dir().unwrap_or_default(),
        })
    }

    /// A link that logs in once, while no one ever has; none when the HTTPS listener
    /// is off.
    pub fn first_login(&self) -> Option<String> {
        let base = self.url().filter(|_| !self.audit.has_login())?;
        let (code, _) = self.sessions.link("the first start").ok()?;
        Some(format!("{base}/login?code={code}"))
    }

    /// URL of the HTTPS listener; none when it is off.
    pub fn url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }
}
