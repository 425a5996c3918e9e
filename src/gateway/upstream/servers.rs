//! The external servers of all routes, over reloads.
//!
//! A server whose text did not change stays the same; of one that did, its
//! connections, its health, its places and its last good key stay. Names, and not
//! positions, tell them apart.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::due::Lookout;
use super::figures::Figures;
use super::health::{Health, ServerStanding};
use super::pool::Pool;
use super::server::{Lasting, Server};
use crate::config::{Route, Upstream, UpstreamTls};
use crate::gateway::limits::slots::Slots;
use crate::outbound::Address;
use crate::outbound::roots::client_config;
use crate::outbound::socket::Proof;
use crate::telemetry::metrics::ServerMetrics;
use crate::time::Clock;

/// Most time by which an idle connection is put away before the server would close it;
/// for short times a fifth of them.
const EARLIER_MAX: Duration = Duration::from_secs(1);

/// Servers that there were at the last compilation.
#[derive(Debug, Default)]
pub struct Servers {
    /// By route, address, and number among those of the same address.
    known: HashMap<(String, Arc<str>, usize), Known>,
    pools: HashMap<(Address, Option<UpstreamTls>, Duration), Arc<Pool>>,
    /// By the file of authorities; `None` for the system's. Read once.
    clients: HashMap<Option<PathBuf>, Arc<ClientConfig>>,
}

#[derive(Debug)]
struct Known {
    upstream: Arc<Upstream>,
    figures: bool,
    server: Arc<Server>,
    lasting: Lasting,
    /// True if the compilation at hand has asked for it.
    wanted: bool,
}

impl Servers {
    /// A compilation begins.
    pub fn begin(&mut self) {
        for known in self.known.values_mut() {
            known.wanted = false;
        }
    }

    /// It ends: what it did not ask for is forgotten.
    pub fn end(&mut self) {
        self.known.retain(|_, known| known.wanted);
        self.pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        self.clients
            .retain(|_, client| Arc::strong_count(client) > 1);
    }

    /// The server of the `n`th of a route's upstreams with this address.
    pub fn of(
        &mut self,
        route: &Route,
        upstream: &Arc<Upstream>,
        n: usize,
        clock: Clock,
    ) -> Arc<Server> {
        let mut label = label(upstream);
        if n > 0 {
            label = Arc::from(format!("{label}#{}", n + 1));
        }
        let key = (route.name.as_str().to_owned(), Arc::clone(&label), n);
        let figures = route.load_balancing.engine_figures;
        if let Some(known) = self.known.get_mut(&key)
            && known.upstream == *upstream
            && known.figures == figures
            && !known.lasting.pool.is_closed()
        {
            known.wanted = true;
            return Arc::clone(&known.server);
        }
        let pool = self.pool(upstream, &label);
        let lasting = match self.known.remove(&key) {
            Some(known) => Lasting {
                pool,
                ..known.lasting
            },
            None => Lasting {
                health: Health::new(
                    clock,
                    Arc::from(format!("{}/{label}", route.name)),
                    ServerMetrics::new(route.name.as_str(), &label),
                ),
                figures: Arc::new(Figures::new(clock)),
                told: Arc::default(),
                slots: Slots::new(None),
                pool,
            },
        };
        lasting.told.renew(upstream);
        lasting.slots.set_limit(upstream.max_concurrent_requests);
        if upstream.health_check.is_none() {
            lasting.health.unchecked();
        }
        let check = upstream.health_check.clone();
        let lookout = Lookout::new(check, upstream.base_path.clone(), figures);
        let server = Server::external(label, lasting.clone(), upstream, lookout);
        let known = Known {
            upstream: Arc::clone(upstream),
            figures,
            server: Arc::clone(&server),
            lasting,
            wanted: true,
        };
        self.known.insert(key, known);
        server
    }

    fn pool(&mut self, upstream: &Upstream, label: &str) -> Arc<Pool> {
        let earlier = (upstream.keep_alive / 5).min(EARLIER_MAX);
        let idle = upstream.keep_alive.saturating_sub(earlier);
        let key = (upstream.address.clone(), upstream.tls.clone(), idle);
        // What could not be used may have been mended.
        if let Some(pool) = self.pools.get(&key).filter(|pool| !pool.is_closed()) {
            return Arc::clone(pool);
        }
        let proof = upstream.tls.as_ref().map(|tls| self.proof(tls, label));
        let pool = match proof {
            // Never in the clear, where TLS was asked for.
            Some(None) => Pool::closed(upstream.address.clone()),
            Some(Some(proof)) => Pool::new(upstream.address.clone(), Some(proof), idle),
            None => Pool::new(upstream.address.clone(), None, idle),
        };
        self.pools.insert(key, Arc::clone(&pool));
        pool
    }

    /// Proof that a server must give of its identity; `None` where no authority can be read.
    fn proof(&mut self, tls: &UpstreamTls, label: &str) -> Option<Proof> {
        let client = match self.clients.get(&tls.ca) {
            Some(client) => Arc::clone(client),
            None => match client_config(tls.ca.as_deref()) {
                Ok(client) => Arc::clone(self.clients.entry(tls.ca.clone()).or_insert(client)),
                Err(error) => {
                    tracing::error!("the upstream {label} can't be used: {error}");
                    return None;
                }
            },
        };
        // Config has read the name as one.
        let name = ServerName::try_from(tls.server_name.clone()).ok()?;
        Some(Proof { client, name })
    }
}

/// An upstream in one word: its url as it was written, as far as it tells it from
/// others.
fn label(upstream: &Upstream) -> Arc<str> {
    let scheme = if upstream.tls.is_some() {
        "https://"
    } else {
        ""
    };
    let prefix = upstream.path_prefix.as_deref().unwrap_or_default();
    Arc::from(format!(
        "{scheme}{}{}{prefix}",
        upstream.address, upstream.base_path
    ))
}

/// Standing of one server of a route, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UpstreamView {
    /// The route that it serves.
    pub route: String,
    /// The deployment, where it is a worker of ours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment: Option<String>,
    /// Its address; that of a worker is its deployment and number.
    pub address: String,
    /// `in`, `ejected`, `probation` or `down`.
    pub state: String,
    /// The last failure, while there is something against it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// Since when there is something against it, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<u64>,
    /// Seconds for which it is still left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub back_in_seconds: Option<u64>,
    /// Number of times that it was left out because requests failed.
    pub ejections: u32,
    /// Requests of ours that it has.
    pub in_flight: u32,
    /// Requests that wait inside it, by its own figures.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine_waiting: Option<u32>,
    /// Part of its KV cache that is in use, 0 to 1, by its own figures.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kv_cache_usage: Option<f64>,
}

impl UpstreamView {
    /// True if something is against it: it is left out, or it failed when it was last
    /// asked, as the last one that is left may.
    pub fn is_at_fault(&self) -> bool {
        self.why.is_some() || self.state != "in"
    }

    /// Standing of a server of this route now.
    pub(in crate::gateway) fn of(route: &str, deployment: Option<&str>, server: &Server) -> Self {
        let standing = server.health.standing();
        let look = server.figures.now();
        Self {
            route: route.to_owned(),
            deployment: deployment.map(str::to_owned),
            address: server.label.to_string(),
            state: standing.as_str().to_owned(),
            why: server.health.why(),
            since: server.health.since(),
            back_in_seconds: match standing {
                ServerStanding::Ejected(left) => Some(left.as_secs() + 1),
                ServerStanding::In | ServerStanding::Probation | ServerStanding::Down => None,
            },
            ejections: server.health.ejections(),
            in_flight: server.in_flight(),
            engine_waiting: look.map(|look| look.waiting),
            kv_cache_usage: look.map(|look| f64::from(look.cache) / 1_000.0),
        }
    }
}
