//! From a name to the servers that answer for it.
//!
//! A [`Table`] is compiled from a catalog once and swapped whole; a request keeps
//! the one that it began with. What must survive the swap (places taken,
//! connections, metric handles) is kept beside it in [`kept`], by name.

pub mod kept;
pub mod lineup;
pub mod mirror;
mod names;
mod spread;
#[cfg(test)]
mod taken;

use std::collections::HashMap;
use std::sync::Arc;

use lineup::Lineup;
use names::{Found, Names};

use crate::config::{Name, Route};
use crate::deployment::Handle;
use crate::gateway::limits::budget::RetryBudget;
use crate::gateway::limits::estimate::PromptRate;
use crate::gateway::limits::rate::Rates;
use crate::gateway::limits::slots::Slots;
use crate::gateway::route::apis::Apis;
use crate::gateway::route::paths::Paths;
use crate::gateway::upstream::balance::Turns;
use crate::gateway::upstream::server::{Fleet, Server};
use crate::names::ModelName;
use crate::telemetry::metrics::RequestMetrics;

/// Destinations of requests at one moment.
#[derive(Debug, Default)]
pub struct Table {
    /// By first path segment.
    entrances: HashMap<String, Entrance>,
    /// The entrance that a host name leads to, by first path segment.
    hosts: HashMap<String, String>,
    /// By the name in `model`, for requests on `/v1`.
    models: Names<Arc<Destination>>,
}

/// A route, as requests on its own path enter it.
#[derive(Debug)]
struct Entrance {
    rates: Arc<Rates>,
    /// Targets that answer for the same names, together.
    groups: Vec<Vec<Arc<Target>>>,
    models: Names<Arc<Destination>>,
    /// Destination of a request that names no model; `None` where several could be
    /// meant.
    only: Option<Arc<Destination>>,
}

/// Destination that a model name leads to.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The name that clients use.
    pub name: ModelName,
    /// The route that it belongs to.
    pub route: Arc<Route>,
    /// The places of the route.
    pub slots: Arc<Slots>,
    /// Usage of the route by each token.
    pub rates: Arc<Rates>,
    /// Budget of its route for sending requests again.
    pub budget: Arc<RetryBudget>,
    /// Turns of the servers.
    pub turns: Arc<Turns>,
    /// Servers that answer for it; never empty.
    pub targets: Vec<Arc<Target>>,
    /// Meaning of the name, where it has parameters of its own.
    pub stands_for: Option<Arc<Name>>,
    /// The list that they stand in, where they are asked in an order.
    pub list: Option<Arc<Lineup>>,
    /// True if it is one of several of such a list.
    pub has_others: bool,
}

/// One server, or one deployment with whatever worker it has.
#[derive(Debug)]
pub struct Target {
    /// Label of its metrics: the deployment's id, or the upstream's address.
    pub label: Arc<str>,
    /// The name that the server knows; `None` passes what the client wrote.
    pub model: Option<ModelName>,
    /// Paths of its APIs.
    pub paths: Paths,
    /// The APIs that it serves.
    pub apis: Apis,
    /// True if the target may lead back to this gateway.
    pub may_return: bool,
    /// Backend that answers.
    pub backend: Backend,
    /// Handles of its metrics.
    pub metrics: Arc<RequestMetrics>,
    /// Rate of tokens that it finds in a request.
    pub prompts: PromptRate,
}

/// Backend that answers for a target.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A server that someone else runs.
    External(Arc<Server>),
    /// A deployment of ours.
    Deployment {
        /// Its gate and snapshot.
        handle: Arc<Handle>,
        /// Its places.
        slots: Arc<Slots>,
        /// Its present workers.
        fleet: Arc<Fleet>,
    },
}

impl Target {
    /// The same, counted under another label.
    #[must_use]
    pub fn under(&self, label: &Arc<str>, metrics: &Arc<RequestMetrics>) -> Self {
        Self {
            label: Arc::clone(label),
            model: self.model.clone(),
            paths: self.paths.clone(),
            apis: self.apis.anew(),
            may_return: self.may_return,
            backend: self.backend.clone(),
            metrics: Arc::clone(metrics),
            prompts: PromptRate::default(),
        }
    }
}

impl Destination {
    /// True if workers of ours may answer, and not only servers that someone else runs.
    pub fn is_ours(&self) -> bool {
        let is_ours = |target: &Arc<Target>| matches!(target.backend, Backend::Deployment { .. });
        self.targets.iter().any(is_ours)
    }

    /// Progress of a worker's start that requests wait for, in words.
    pub fn loading(&self) -> Option<String> {
        self.targets
            .iter()
            .find_map(|target| match &target.backend {
                Backend::Deployment { handle, .. } => handle.snapshot().loading(),
                Backend::External(_) => None,
            })
    }
}

impl Table {
    /// Destination of a request on `/v1` with this model.
    pub fn by_model(&self, name: &str) -> Option<Arc<Destination>> {
        self.models.get(name).and_then(|found| called(&found, name))
    }

    /// True if any route has a host name of its own.
    pub fn has_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// The entrance, by its segment, that a host name in lower case is all for.
    pub fn by_host(&self, host: &str) -> Option<&str> {
        self.hosts.get(host).map(String::as_str)
    }

    /// True if a first path segment is a route's.
    pub fn is_entrance(&self, segment: &str) -> bool {
        self.entrances.contains_key(segment)
    }

    /// The route that a first path segment enters.
    pub fn route(&self, segment: &str) -> Option<&Route> {
        let entrance = self.entrances.get(segment)?;
        let mut all = entrance.models.all();
        all.next().map(|destination| &*destination.route)
    }

    /// Destination of a request on a route's own path; without a model, the only
    /// one there is.
    pub fn by_entrance(&self, segment: &str, name: Option<&str>) -> Option<Arc<Destination>> {
        let entrance = self.entrances.get(segment)?;
        match name {
            Some(name) => called(&entrance.models.get(name)?, name),
            None => entrance.only.clone(),
        }
    }

    /// Every name on `/v1`, or on one route's own path, in order. Patterns are no
    /// names.
    pub fn names(&self, segment: Option<&str>) -> Vec<&Arc<Destination>> {
        let names = match segment {
            Some(segment) => self.entrances.get(segment).map(|entrance| &entrance.models),
            None => Some(&self.models),
        };
        let mut all: Vec<_> = names.into_iter().flat_map(Names::exact).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        let named = self.models.all();
        let named = named.chain(self.entrances.values().flat_map(|e| e.models.all()));
        // A mirror may have servers that no name leads to.
        let grouped = self.entrances.values().flat_map(|e| e.groups.iter());
        named
            .flat_map(|destination| &destination.targets)
            .chain(grouped.flatten())
    }

    /// Closes connections that were idle for too long, or lead to a worker that
    /// is about to end, and forgets what tokens have paid off.
    pub fn sweep(&self) {
        for entrance in self.entrances.values() {
            entrance.rates.sweep();
        }
        for target in self.targets() {
            match &target.backend {
                Backend::External(server) => server.pool.sweep(),
                // Here too a worker that has left is noticed.
                Backend::Deployment { handle, fleet, .. } => {
                    for server in fleet.follow(&handle.snapshot()).iter() {
                        server.pool.sweep();
                    }
                }
            }
        }
    }
}

/// Destination that was found, as tokens, limits and logs know it: by the name asked for.
fn called(found: &Found<'_, Arc<Destination>>, name: &str) -> Option<Arc<Destination>> {
    match found {
        Found::Exact(destination) => Some(Arc::clone(destination)),
        Found::Pattern(destination) => Some(Arc::new(Destination {
            name: ModelName::new(name).ok()?,
            ..Destination::clone(destination)
        })),
    }
}
