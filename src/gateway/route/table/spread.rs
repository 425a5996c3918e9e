//! The servers behind a name, as those that a request may be spread over.

use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::{Backend, Destination, Table, Target};
use crate::config::{LoadBalancing, Route};
use crate::deployment::Status;
use crate::gateway::head::hops::{HOPS, Hops};
use crate::gateway::refusal::Refusal;
use crate::gateway::upstream::balance::{Candidate, Pick, hash};
use crate::gateway::upstream::server::Server;
use crate::openai::api::{Api, ApiSet};
use crate::openai::request::Scan;
use crate::pieces::Pieces;

impl Target {
    /// The mark for a request to it; workers of ours get none, as they send nothing on.
    pub fn mark(&self, hops: &Hops) -> Option<(HeaderName, HeaderValue)> {
        match &self.backend {
            Backend::External(_) => Some((HOPS, hops.onward(self.may_return)?)),
            Backend::Deployment { .. } => None,
        }
    }

    /// The servers that it has at present.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        match &self.backend {
            Backend::External(server) => vec![Arc::clone(server)],
            Backend::Deployment { handle, fleet, .. } => fleet.follow(&handle.snapshot()).to_vec(),
        }
    }
}

impl Candidate for Arc<Target> {
    /// 0: serves and has a place. 1: its worker must be started, or its places are
    /// taken. 2: fails.
    fn tier(&self) -> u8 {
        let (handle, slots, fleet) = match &self.backend {
            Backend::External(server) => return server.tier(),
            Backend::Deployment {
                handle,
                slots,
                fleet,
            } => (handle, slots, fleet),
        };
        if !handle.gate.is_open() {
            return if handle.status() == Status::Failed {
                2
            } else {
                1
            };
        }
        let servers = fleet.follow(&handle.snapshot());
        match servers.iter().any(|server| server.health.is_usable()) {
            true if slots.has_free() => 0,
            true => 1,
            false => 2,
        }
    }

    /// Load of its least loaded server; a worker that must be started first counts
    /// as more than any.
    fn load(&self) -> u64 {
        match &self.backend {
            Backend::External(server) => server.load(),
            Backend::Deployment { handle, fleet, .. } if handle.gate.is_open() => {
                let servers = fleet.follow(&handle.snapshot());
                let least = servers.iter().map(Candidate::load).min();
                least.unwrap_or(u64::MAX)
            }
            Backend::Deployment { handle, .. } => u64::MAX / 2 + u64::from(handle.waiting()),
        }
    }

    /// Per server.
    fn requests(&self) -> u32 {
        match &self.backend {
            Backend::External(server) => server.requests(),
            Backend::Deployment { handle, .. } => {
                let workers = handle.snapshot().workers.len().max(1);
                handle.gate.in_flight() / u32::try_from(workers).unwrap_or(u32::MAX)
            }
        }
    }

    fn seed(&self) -> u64 {
        match &self.backend {
            Backend::External(server) => server.seed(),
            Backend::Deployment { handle, .. } => hash(handle.id.as_str()),
        }
    }

    fn serves(&self, api: Api) -> bool {
        self.apis.serves(api)
    }
}

impl Destination {
    /// Rules and key by which one of several servers is chosen for a request.
    pub fn pick(&self, api: Api, headers: &HeaderMap, scan: &Scan<'_>, body: &Pieces) -> Pick<'_> {
        let rules = &self.route.load_balancing;
        let binding = || binding(headers, scan, body, rules);
        Pick {
            rules,
            key: self.has_several().then(binding).flatten(),
            api,
        }
    }

    /// Checks that any of the targets serves an API.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unserved`] with those that they are known to serve.
    pub fn must_serve(&self, api: Api) -> Result<(), Refusal> {
        if self.targets.iter().any(|target| target.apis.serves(api)) {
            return Ok(());
        }
        let known = self.targets.iter().map(|target| target.apis.known().bits());
        let known = known.fold(0, |all, one| all | one);
        Err(Refusal::Unserved(ApiSet::of_bits(known)))
    }

    /// True if a request could go to more than one server.
    pub fn has_several(&self) -> bool {
        match self.targets.as_slice() {
            [only] => match &only.backend {
                Backend::External(_) => false,
                Backend::Deployment { handle, .. } => handle.snapshot().workers.len() > 1,
            },
            _ => true,
        }
    }

    /// True if no other server than this one could take a request now.
    pub fn is_last(&self, server: &Arc<Server>) -> bool {
        if self.has_others {
            return false;
        }
        let others = self.targets.iter().flat_map(|target| target.servers());
        !others
            .filter(|other| !Arc::ptr_eq(other, server))
            .any(|other| other.health.is_usable())
    }
}

/// Key that binds the request to one of several servers: its session, or else how its
/// prompt begins.
fn binding(
    headers: &HeaderMap,
    scan: &Scan<'_>,
    body: &Pieces,
    rules: &LoadBalancing,
) -> Option<u64> {
    let session = rules.session_header.as_ref();
    if let Some(session) = session.and_then(|name| headers.get(name)) {
        return Some(hash(session.as_bytes()));
    }
    let prompt = scan.prompt.clone();
    let bytes = prompt.len().min(rules.prefix_bytes? as usize);
    let begin = body.part(prompt.start..prompt.start + bytes).into_one();
    (!begin.is_empty()).then(|| hash(&begin[..]))
}

impl Table {
    /// The servers of each group that requests are spread over.
    pub fn groups(&self) -> Vec<Vec<Arc<Server>>> {
        let groups = self
            .entrances
            .values()
            .flat_map(|entrance| &entrance.groups);
        groups
            .map(|group| group.iter().flat_map(|target| target.servers()).collect())
            .collect()
    }

    /// The targets of each route, by its name.
    pub fn by_route(&self) -> Vec<(&Arc<Route>, Vec<&Arc<Target>>)> {
        let mut all: Vec<_> = self
            .entrances
            .values()
            .filter_map(|entrance| {
                let route = &entrance.models.all().next()?.route;
                Some((route, entrance.groups.iter().flatten().collect()))
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        all
    }
}
