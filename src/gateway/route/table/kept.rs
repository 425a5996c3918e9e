//! State that outlives a reload, and a table made of a catalog with it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::lineup::{Lineup, Mirroring};
use super::mirror::{COPIES_MAX, Copying};
use super::names::{Found, Names};
use super::{Backend, Destination, Entrance, Table, Target, called};
use crate::config::{Catalog, Mirror, Route, Upstream};
use crate::deployment::{Handle, Registry};
use crate::gateway::limits::budget::RetryBudget;
use crate::gateway::limits::estimate::PromptRate;
use crate::gateway::limits::rate::Rates;
use crate::gateway::limits::slots::Slots;
use crate::gateway::route::apis::Apis;
use crate::gateway::route::paths::Paths;
use crate::gateway::upstream::server::{Fleet, Server};
use crate::gateway::upstream::servers::Servers;
use crate::names::ModelName;
use crate::telemetry::history::{Recorder, Scope};
use crate::telemetry::metrics::RequestMetrics;
use crate::time::Clock;

/// State that outlives a reload, by name.
#[derive(Debug, Default)]
pub struct Kept {
    /// Taken only while a table is compiled.
    inner: Mutex<KeptInner>,
}

#[derive(Debug, Default)]
struct KeptInner {
    slots: HashMap<String, Arc<Slots>>,
    rates: HashMap<String, Arc<Rates>>,
    budgets: HashMap<String, Arc<RetryBudget>>,
    servers: Servers,
    fleets: HashMap<String, Arc<Fleet>>,
    metrics: HashMap<(String, String), Arc<RequestMetrics>>,
    /// Copies that each route may have under way.
    copies: HashMap<String, Arc<Semaphore>>,
    /// Of the registry that was compiled with last.
    recorder: Option<Arc<Recorder>>,
}

impl Kept {
    /// Compiles a catalog. Deployments that the registry does not know are left
    /// out: the conductor takes the catalog first.
    pub fn compile(&self, catalog: &Catalog, registry: &Registry) -> Table {
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        kept.recorder = Some(Arc::clone(&registry.recorder));
        let mut table = Table::default();
        kept.servers.begin();
        for route in catalog.routes.iter().filter(|route| route.enabled) {
            let entrance = kept.entrance(route, registry);
            for destination in entrance.models.all() {
                table.models.add(&destination.name, Arc::clone(destination));
            }
            if let Some(host) = &route.host {
                table.hosts.insert(host.clone(), route.path.clone());
            }
            table.entrances.insert(route.path.clone(), entrance);
        }
        table.models.sort();
        kept.forget_unused();
        table
    }
}

impl KeptInner {
    fn entrance(&mut self, route: &Arc<Route>, registry: &Registry) -> Entrance {
        let slots = self.slots(
            format!("route {}", route.name),
            route.limits.max_concurrent_requests,
        );
        let rates = self.rates.entry(route.name.as_str().to_owned());
        let rates = Arc::clone(rates.or_insert_with(Rates::new));
        let budget = self.budgets.entry(route.name.as_str().to_owned());
        let budget = Arc::clone(budget.or_default());
        let servers = self.servers_of(route, registry);
        let groups = groups(&servers);
        let models = self.models(route, &servers, registry);
        let of_route = |name: &ModelName, targets: Vec<Arc<Target>>| Destination {
            name: name.clone(),
            route: Arc::clone(route),
            slots: Arc::clone(&slots),
            rates: Arc::clone(&rates),
            budget: Arc::clone(&budget),
            turns: Arc::default(),
            targets,
            stands_for: None,
            list: None,
            has_others: false,
        };
        let mut names = Names::default();
        for (name, targets) in models.iter().filter(|(_, targets)| !targets.is_empty()) {
            names.add(name, Arc::new(of_route(name, targets.clone())));
        }
        if let Some(list) = &route.targets {
            let found = |to: &ModelName| {
                let targets = models.get(to).cloned();
                let targets = targets.unwrap_or_else(|| called_so(&servers, to));
                (!targets.is_empty()).then(|| of_route(to, targets))
            };
            let mut lineup = Lineup::new(list, found);
            if let (Some(lineup), Some(mirror)) = (&mut lineup, &list.mirror) {
                let found = found(&mirror.to);
                lineup.mirror = found.map(|found| self.mirror(mirror, found));
            }
            let lineup = lineup.map(Arc::new);
            for (name, lineup) in route.models.iter().zip(lineup.iter().cycle()) {
                let destination = Destination {
                    list: Some(Arc::clone(lineup)),
                    ..of_route(name, lineup.targets())
                };
                // The list comes before a model of the same name.
                names.add(name, Arc::new(destination));
            }
        }
        names.sort();
        add_named(&mut names, route);
        let is_clear = route.targets.is_some() || is_one(&servers);
        let only = is_clear.then(|| only(route, &names)).flatten();
        Entrance {
            rates,
            groups,
            models: names,
            only,
        }
    }

    /// Destination of each name but for those of a list.
    fn models(
        &mut self,
        route: &Route,
        servers: &Named,
        registry: &Registry,
    ) -> HashMap<ModelName, Vec<Arc<Target>>> {
        let mut models: HashMap<ModelName, Vec<Arc<Target>>> = HashMap::new();
        for (of, target) in servers {
            if let Of::Endpoint(endpoint) = of {
                let targets = models.entry(endpoint.clone()).or_default();
                targets.push(Arc::clone(target));
            }
        }
        for name in route.models.iter().filter(|_| route.targets.is_none()) {
            // Config allows an alias only where it is clear what it leads to.
            if is_one(servers) && !models.contains_key(name) {
                let all = servers.iter().map(|(_, target)| Arc::clone(target));
                models.insert(name.clone(), all.collect());
            }
        }
        for deployment in &route.deployments {
            let Some(handle) = registry.get(&deployment.id) else {
                continue;
            };
            for adapter in deployment.adapters() {
                let target = self.target(route, &handle, adapter.clone(), registry);
                models.entry(adapter).or_default().push(target);
            }
        }
        models
    }

    /// Targets that answer for a route, each with the name that leads to it alone.
    fn servers_of(&mut self, route: &Route, registry: &Registry) -> Named {
        let mut servers = Vec::new();
        for (i, upstream) in route.upstreams.iter().enumerate() {
            let before = route.upstreams.iter().take(i);
            let n = before
                .filter(|other| other.address == upstream.address)
                .count();
            let server = self.servers.of(route, upstream, n, registry.clock);
            servers.push((
                Of::Upstream(upstream.name.clone()),
                self.external(route, upstream, (server, registry.clock)),
            ));
        }
        for deployment in &route.deployments {
            let Some(handle) = registry.get(&deployment.id) else {
                continue;
            };
            servers.push((
                Of::Endpoint(deployment.endpoint_name.clone()),
                self.deployment(route, &handle, registry),
            ));
        }
        servers
    }

    fn external(
        &mut self,
        route: &Route,
        upstream: &Upstream,
        (server, clock): (Arc<Server>, Clock),
    ) -> Arc<Target> {
        let label = Arc::clone(&server.label);
        Arc::new(Target {
            metrics: self.metrics(
                route.name.as_str(),
                &label,
                &Scope::Route(route.name.clone()),
            ),
            label,
            model: upstream.model.clone(),
            prompts: PromptRate::default(),
            paths: Paths::new(&upstream.base_path, upstream.path_prefix.as_deref()),
            apis: Apis::new(upstream.apis, clock),
            may_return: upstream.any_address,
            backend: Backend::External(server),
        })
    }

    fn deployment(
        &mut self,
        route: &Route,
        handle: &Arc<Handle>,
        registry: &Registry,
    ) -> Arc<Target> {
        let endpoint = handle.spec().endpoint_name.clone();
        self.target(route, handle, endpoint, registry)
    }

    /// A deployment under one of the names that its worker knows. All of them
    /// share its places and connections.
    fn target(
        &mut self,
        route: &Route,
        handle: &Arc<Handle>,
        model: ModelName,
        registry: &Registry,
    ) -> Arc<Target> {
        let spec = handle.spec();
        let key = handle.id.as_str().to_owned();
        let fleet = self.fleets.entry(key.clone());
        let new = || Arc::new(Fleet::new(handle.id.clone(), registry.clock));
        let fleet = Arc::clone(fleet.or_insert_with(new));
        fleet.set_each_max(spec.replicas.requests_max);
        let limit = fleet.places(spec.max_concurrent_requests, &handle.snapshot());
        let slots = self.slots(key, limit);
        Arc::new(Target {
            label: handle.id.shared(),
            metrics: self.metrics(
                route.name.as_str(),
                handle.id.as_str(),
                &Scope::Deployment(handle.id.clone()),
            ),
            model: Some(model),
            prompts: PromptRate::default(),
            paths: Paths::default(),
            apis: Apis::new(None, registry.clock),
            may_return: false,
            backend: Backend::Deployment {
                handle: Arc::clone(handle),
                slots,
                fleet,
            },
        })
    }

    /// A mirror whose copies are counted under a name of its own.
    fn mirror(&mut self, rule: &Mirror, found: Destination) -> Mirroring {
        let route = found.route.name.as_str().to_owned();
        let label: Arc<str> = Arc::from(format!("mirror:{}", rule.to));
        let key = (route.clone(), label.to_string());
        let new = || RequestMetrics::new(&route, &label);
        let metrics = Arc::clone(self.metrics.entry(key).or_insert_with(new));
        let targets = found.targets.iter();
        let targets = targets.map(|target| Arc::new(target.under(&label, &metrics)));
        let destination = Destination {
            targets: targets.collect(),
            // Copies earn no retries for those that they are copies of.
            budget: Arc::default(),
            ..found
        };
        let copies = self.copies.entry(route.clone());
        let copies = copies.or_insert_with(|| Arc::new(Semaphore::new(COPIES_MAX)));
        Mirroring {
            copying: Copying::new(rule.clone(), Arc::clone(copies)),
            destination: Arc::new(destination),
        }
    }

    fn slots(&mut self, key: String, limit: Option<u32>) -> Arc<Slots> {
        let slots = self.slots.entry(key).or_insert_with(|| Slots::new(limit));
        slots.set_limit(limit);
        Arc::clone(slots)
    }

    fn metrics(&mut self, route: &str, deployment: &str, scope: &Scope) -> Arc<RequestMetrics> {
        let key = (route.to_owned(), deployment.to_owned());
        let recorder = self.recorder.clone();
        let metrics = self.metrics.entry(key).or_insert_with(|| match &recorder {
            Some(recorder) => {
                let account = recorder.account(scope);
                RequestMetrics::with_account(route, deployment, account)
            }
            None => RequestMetrics::new(route, deployment),
        });
        Arc::clone(metrics)
    }

    /// Drops what neither the new table nor a request in flight holds.
    fn forget_unused(&mut self) {
        self.slots.retain(|_, slots| Arc::strong_count(slots) > 1);
        self.rates.retain(|_, rates| Arc::strong_count(rates) > 1);
        self.budgets
            .retain(|_, budget| Arc::strong_count(budget) > 1);
        self.copies
            .retain(|_, copies| Arc::strong_count(copies) > 1);
        self.servers.end();
        self.fleets.retain(|_, fleet| Arc::strong_count(fleet) > 1);
        self.metrics
            .retain(|_, metrics| Arc::strong_count(metrics) > 1);
    }
}

/// The one destination of a route whose own names all lead to the same servers.
fn only(route: &Route, names: &Names<Arc<Destination>>) -> Option<Arc<Destination>> {
    let mut deployments = route.deployments.iter().filter(|_| route.targets.is_none());
    let endpoint = deployments.next().map(|d| &d.endpoint_name);
    let name = endpoint.or_else(|| route.models.first())?;
    match names.get(name.as_str())? {
        Found::Exact(found) => Some(Arc::clone(found)),
        // Only the client can say which of them it means.
        Found::Pattern(_) => None,
    }
}

/// Adds the names with parameters of their own.
fn add_named(names: &mut Names<Arc<Destination>>, route: &Route) {
    for named in &route.names {
        // Its deployment may be one that the registry does not know yet.
        let of = named.of.as_str();
        if let Some(of) = names.get(of).and_then(|found| called(&found, of)) {
            let destination = Destination {
                name: named.name.clone(),
                stands_for: Some(Arc::clone(named)),
                ..Destination::clone(&of)
            };
            names.add(&named.name, Arc::new(destination));
        }
    }
}

/// Names that a server answers for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Of {
    /// The one model that clients call so.
    Endpoint(ModelName),
    /// All names of its route, or the targets that lead to this name.
    Upstream(Option<ModelName>),
}

/// Targets, each with the names that it answers for.
type Named = Vec<(Of, Arc<Target>)>;

/// True if there is no more than one model that clients could mean.
fn is_one(servers: &Named) -> bool {
    let endpoints = servers.iter().filter_map(|(of, _)| match of {
        Of::Endpoint(endpoint) => Some(endpoint),
        Of::Upstream(_) => None,
    });
    endpoints.collect::<HashSet<_>>().len() <= 1
}

/// The upstreams of a name.
fn called_so(servers: &Named, name: &ModelName) -> Vec<Arc<Target>> {
    let of = |of: &Of| matches!(of, Of::Upstream(Some(known)) if known == name);
    let called = servers.iter().filter(|(found, _)| of(found));
    called.map(|(_, target)| Arc::clone(target)).collect()
}

/// Those that answer for the same, together.
fn groups(servers: &Named) -> Vec<Vec<Arc<Target>>> {
    let mut groups: HashMap<&Of, Vec<Arc<Target>>> = HashMap::new();
    for (of, target) in servers {
        let group = groups.entry(of).or_default();
        group.push(Arc::clone(target));
    }
    groups.into_values().collect()
}
