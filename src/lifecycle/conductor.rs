//! The one task that owns every lifecycle machine.
//!
//! A turn takes one input, steps one machine, does its actions, and publishes.
//! What an action answers at once is a further event of the same turn. The
//! conductor never waits for a worker, a file or a reader.

mod adoption;
mod explain;
mod fetching;
mod fleet;
mod learn;
mod member;
mod model;
mod obey;
mod plan;
mod replicas;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::control::{Control, Request};
use super::parts::{ConductorParts, StartError};
use crate::config::{self, Catalog, Settings};
use crate::deployment::{ClientAsked, Demands, Registry};
use crate::gpu::Device;
use crate::lifecycle::act::effects::{Effects, Report, What};
use crate::lifecycle::act::health::Care;
use crate::lifecycle::act::launcher::Launched;
use crate::lifecycle::act::observe;
use crate::lifecycle::act::observe::Observation;
use crate::lifecycle::decide::machine::{Event, Machine, Phase};
use crate::lifecycle::decide::placement::{Insists, Placement};
use crate::lifecycle::decide::policy::Params;
use crate::lifecycle::decide::profile::starts_at_boot;
use crate::lifecycle::decide::why::Why;
use crate::lifecycle::tell::events::Events;
use crate::names::DeploymentId;
use crate::store::timings::Timings;
use crate::tasks::Tasks;
use crate::telemetry::metrics::GpuMetrics;
use crate::time::{Clock, Uptime, sleep_until};
use fleet::Fleet;
use member::Member;

/// Requests from outside that wait their turn.
const REQUESTS_MAX: usize = 64;
/// Reports of tasks that wait their turn.
const REPORTS_MAX: usize = 1_024;
/// Pause between two looks at a claim for GPUs that waits.
const CLAIM_RELOOK: Duration = Duration::from_millis(250);

/// Owns every machine. See the module docs.
#[derive(Debug)]
pub struct Conductor {
    registry: Registry,
    settings: Arc<Settings>,
    clock: Clock,
    effects: Effects,
    placement: Placement,
    /// Memory of the largest device.
    gpu_memory: u64,
    /// Time when the gates' counts were last taken down.
    counted: Uptime,
    timings: Timings,
    kept: learn::Kept,
    events: Events,
    members: BTreeMap<DeploymentId, Member>,
    /// Work that is still to be done in this turn.
    turn: VecDeque<Due>,
    scales: replicas::Scales,
    gpu_metrics: GpuMetrics,
    /// Answered once no member is left of which this holds.
    ending: Option<Ending>,
}

/// An event that is still to be taken in this turn, and what is known of its cause.
type Due = (DeploymentId, Event, Option<Why>);

/// The one to answer at the end, and the members that are waited for.
type Ending = (oneshot::Sender<()>, fn(&Member) -> bool);

/// Sources of the conductor's inputs.
#[derive(Debug)]
struct Inputs {
    demands: Demands,
    requests: mpsc::Receiver<Request>,
    reports: mpsc::Receiver<Report>,
    observed: mpsc::Receiver<Observation>,
    /// Clients' requests by client and deployment, if they are to be followed.
    asked: Option<mpsc::Receiver<ClientAsked>>,
}

impl Inputs {
    async fn next_asked(asked: &mut Option<mpsc::Receiver<ClientAsked>>) -> Option<ClientAsked> {
        match asked {
            Some(asked) => asked.recv().await,
            None => std::future::pending().await,
        }
    }
}

impl Conductor {
    /// Adopts or reaps what the last run left, then starts what starts with the
    /// gateway, and runs from then on.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the left-over workers can't be known.
    pub async fn start(parts: ConductorParts, catalog: &Catalog) -> Result<Control, StartError> {
        let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
        let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
        let tasks = parts.tasks.child();
        let effects = Effects {
            launcher: parts.launcher,
            calls: parts.calls,
            tasks: tasks.clone(),
            reports: reports_in,
            call_timeout: parts.settings.workers.call_timeout,
            care: Care::from(&*parts.settings),
            readings: parts.gpus.readings.clone(),
        };
        let (observed_in, observed) = mpsc::channel(1);
        let readings = parts.gpus.readings.clone();
        let now_on_gpus = readings.latest();
        let prefetch = parts.settings.placement.prefetch;
        let events = Events::open(&parts.settings.gateway.state);
        let watching = observe::watch(readings, Arc::clone(&effects.launcher), observed_in);
        tasks.spawn_vital_until_end("gpu observer", watching);
        let mut conductor = Self {
            gpu_memory: largest(&parts.gpus.devices),
            placement: Placement::new(
                parts.gpus.devices,
                parts.host_memory,
                Params::from(&parts.settings.placement),
            ),
            counted: parts.clock.now(),
            registry: parts.registry,
            settings: parts.settings,
            clock: parts.clock,
            timings: parts.timings,
            kept: learn::Kept::default(),
            events,
            members: BTreeMap::new(),
            turn: VecDeque::new(),
            scales: replicas::Scales::default(),
            gpu_metrics: GpuMetrics::default(),
            ending: None,
            effects,
        };
        conductor.effects.launcher.follow(catalog);
        for spec in specs(catalog) {
            conductor.insert(spec);
        }
        let found = adoption::sort_out(&conductor.effects, &conductor.settings, |id| {
            let member = conductor.members.get(id)?;
            Some((Arc::clone(&member.spec), Arc::clone(&member.fingerprint)))
        });
        for (launched, asleep) in found.await? {
            conductor.adopt(launched, asleep);
        }
        // Before anything is placed.
        let seen = observe::of(now_on_gpus, &conductor.effects.launcher).await;
        conductor.on_observation(&seen);
        conductor.start_at_boot(&specs(catalog));
        conductor.run_turn();
        let handle = Control::new(requests_in, conductor.events.clone());
        let inputs = Inputs {
            demands: parts.demands,
            requests,
            reports,
            observed,
            asked: conductor.follow_clients(prefetch),
        };
        // With the parts' tasks, so that joining those waits for this too.
        let run = conductor.run(inputs, tasks);
        parts.tasks.spawn_vital("conductor", run);
        Ok(handle)
    }

    /// Requests by client and deployment from now on, where that is wanted.
    fn follow_clients(&self, wanted: bool) -> Option<mpsc::Receiver<ClientAsked>> {
        wanted.then(|| self.registry.follow_clients()).flatten()
    }

    async fn run(mut self, mut inputs: Inputs, tasks: Tasks) {
        let ending = tasks.ending();
        loop {
            let due = self.next_deadline();
            let at = self.clock.instant(due.unwrap_or(Uptime::MAX));
            tokio::select! {
                // A closed channel can't be: the registry and the effects that
                // hold its ends are in `self`, and a Handle lives in the app.
                Some(id) = inputs.demands.recv() => self.on_demand(&id),
                Some(report) = inputs.reports.recv() => self.on_report(report),
                Some(observation) = inputs.observed.recv() => self.on_observation(&observation),
                Some(asked) = Inputs::next_asked(&mut inputs.asked) => self.on_asked(asked.client, &asked.deployment),
                Some(request) = inputs.requests.recv() => self.on_request(request),
                () = sleep_until(at), if due.is_some() => self.on_time(),
                () = ending.cancelled() => return,
            }
            self.run_turn();
            let is_over = |(_, open): &mut Ending| !self.members.values().any(*open);
            if let Some((done, _)) = self.ending.take_if(is_over) {
                self.end(&tasks, done).await;
                return;
            }
        }
    }

    /// Ends the tasks, then answers. Workers that live stay.
    async fn end(&self, tasks: &Tasks, done: oneshot::Sender<()>) {
        let limit = self.settings.workers.stop_grace;
        if !tasks.join(limit).await {
            tracing::warn!("tasks of the control plane did not end in time");
        }
        done.send(()).unwrap_or_default();
    }

    /// Counts what others use of the GPUs against what can be granted.
    fn on_observation(&mut self, observation: &Observation) {
        let held = self.placement.held();
        let foreign = observation.foreign(|index| {
            let of = held.iter().find(|(device, _)| device.index == index);
            of.map_or(0, |(_, held)| *held)
        });
        for (index, bytes) in &foreign {
            self.gpu_metrics.foreign(*index, *bytes);
        }
        for (index, bytes) in foreign {
            self.placement.observe_foreign(index, bytes);
        }
        self.learn_sizes(observation);
    }

    fn on_demand(&mut self, id: &DeploymentId) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let handle = Arc::clone(&member.handle);
        // Either message may bring both wishes here: the later one finds nothing left to do.
        if handle.take_unload() {
            self.unload(id);
        }
        if handle.take_demand() {
            self.demand(id);
        }
    }

    fn on_report(&mut self, Report { id, what }: Report) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        match what {
            What::Event(Event::Drained { .. }, _) if member.gate().in_flight() > 0 => {
                // Of an earlier closing; requests came in since.
            }
            What::Event(event, why) => self.turn.push_back((id, event, why)),
            What::Launched(generation, launched) => {
                if generation == member.machine.worker
                    && let Some(running) = &mut member.running
                {
                    running.launched = Some(launched);
                    member.publish(&self.timings, self.clock.now());
                }
            }
            What::Fetch(number, news) => self.on_fetch(&id, number, news),
            What::Foretold(digest, fit) => self.on_foretold(&id, &digest, fit),
            What::Progress(generation, words, percent) => {
                if generation == member.machine.worker && member.machine.phase == Phase::Starting {
                    member.progress = Some((Arc::from(words), percent));
                    member.publish(&self.timings, self.clock.now());
                }
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Apply(catalog, done) => {
                self.apply(&catalog);
                done.send(()).unwrap_or_default();
            }
            Request::Plan(catalog, reply) => drop(reply.send(self.plan(&catalog))),
            Request::Explain(id, reply) => drop(reply.send(self.explain(&id))),
            Request::Command(id, command, reply) => {
                let obeyed = self.command(&id, command, &Why::Operator);
                drop(reply.send(obeyed));
            }
            Request::Shutdown { stop_workers, done } => {
                self.take_counts(self.clock.now());
                self.keep_popularity(self.clock.now());
                if !stop_workers {
                    // Workers that were told to end are waited for: else an operator who
                    // stopped them sees them live on after the gateway.
                    self.ending = Some((done, Member::is_ending));
                    return;
                }
                self.ending = Some((done, |member| member.running.is_some()));
                for id in self.members.keys() {
                    let why = Some(Why::Shutdown);
                    self.turn.push_back((id.clone(), Event::Stop, why));
                }
            }
        }
    }

    fn on_time(&mut self) {
        let now = self.clock.now();
        if self.placement.is_waiting() {
            // No one tells that a gate became empty.
            self.placement.touch_all();
        }
        if self.counts_due().is_some_and(|due| due <= now) {
            self.take_counts(now);
        }
        for (id, member) in &self.members {
            if member.machine.deadline.is_some_and(|due| due <= now) {
                let idle_since = member.idle_since();
                let tick = Event::Tick { idle_since };
                self.turn.push_back((id.clone(), tick, None));
            }
        }
        self.withdraw_fetches();
        self.roll();
        self.scale(now);
        for member in self.members.values_mut() {
            if member.report_due().is_some_and(|due| due <= now) {
                member.report(&self.timings, now);
            }
        }
    }

    fn next_deadline(&self) -> Option<Uptime> {
        let machines = self.members.values().filter_map(|m| m.machine.deadline);
        // No one reports that a gate became empty: it is looked at.
        let waits = self.placement.is_waiting();
        let claims = waits.then(|| self.clock.now() + CLAIM_RELOOK);
        let looks = self.placement.look_at();
        let reports = self.members.values().filter_map(Member::report_due);
        let rolls = self.rolls() || self.watches_fetches();
        let rolls = rolls.then(|| self.clock.now() + CLAIM_RELOOK);
        let others = claims.into_iter().chain(looks).chain(self.counts_due());
        let scales = self.scale_due();
        machines
            .chain(others)
            .chain(reports)
            .chain(rolls)
            .chain(scales)
            .min()
    }

    /// Follows a catalog by difference.
    fn apply(&mut self, catalog: &Catalog) {
        self.effects.launcher.follow(catalog);
        let specs = specs(catalog);
        let gone: Vec<_> = self.members.keys().cloned().collect();
        for id in gone {
            if !specs.iter().any(|spec| spec.id == id) {
                self.dismiss(&id);
            }
        }
        let mut new = Vec::new();
        for spec in specs {
            let Some(member) = self.members.get_mut(&spec.id) else {
                self.insert(Arc::clone(&spec));
                new.push(spec);
                continue;
            };
            if std::mem::take(&mut member.leaving) {
                self.turn.push_back((spec.id.clone(), Event::Permit, None));
            }
            let launcher = self.effects.launcher.as_ref();
            if let Some(event) = member.respec(&spec, &self.settings, launcher) {
                self.effects.prepare(member.target());
                self.effects.foretell(member.target(), &member.fingerprint);
                self.turn.push_back((spec.id.clone(), event, None));
                self.know(&spec.id);
            }
        }
        self.start_at_boot(&new);
        self.roll();
    }

    fn dismiss(&mut self, id: &DeploymentId) {
        if let Some(member) = self.members.get_mut(id)
            && !std::mem::replace(&mut member.leaving, true)
        {
            let why = Some(Why::Removed);
            self.turn.push_back((id.clone(), Event::Stop, why));
        }
    }

    fn insert(&mut self, spec: Arc<config::Deployment>) {
        let id = spec.id.clone();
        // The first comes before the others, see `specs`.
        let first = self
            .members
            .values()
            .find(|first| first.handle.id.has_replica(&id) && first.number() == 1);
        let (handle, fleet) = if let Some(first) = first.filter(|_| spec.replicas.number > 1) {
            let fleet = first.fleet.clone();
            (self.registry.insert_replica(fleet.lead(), spec), fleet)
        } else {
            let handle = self.registry.insert(spec);
            (Arc::clone(&handle), Fleet::new(handle))
        };
        let (launcher, now) = (self.effects.launcher.as_ref(), self.clock.now());
        let member = Member::new(handle, fleet, &self.settings, launcher, now);
        member.publish(&self.timings, now);
        self.effects.prepare(member.target());
        self.effects.foretell(member.target(), &member.fingerprint);
        self.members.insert(id.clone(), member);
        self.know(&id);
        self.recall_popularity(&id, now);
    }

    /// Tells placement what is known of a deployment. One that can never fit is
    /// refused at once, with the arithmetic.
    fn know(&mut self, id: &DeploymentId) {
        let (now, gpu_memory) = (self.clock.now(), self.gpu_memory);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        self.timings.is_of(id, &member.fingerprint);
        let profile = member.profile(&self.timings, gpu_memory);
        let never = self.placement.never_fits(&profile.need);
        member.key = self.placement.know(id, profile, now);
        if never.is_some() && member.machine.phase == Phase::Stopped {
            self.turn
                .push_back((id.clone(), Event::Refused, never.map(Why::NeverFits)));
        }
    }

    fn start_at_boot(&mut self, specs: &[Arc<config::Deployment>]) {
        for spec in specs.iter().filter(|spec| starts_at_boot(spec)) {
            if let Some(member) = self.members.get_mut(&spec.id) {
                member.insists = Insists::IfRoom;
            }
            let why = Some(Why::Boot);
            self.turn.push_back((spec.id.clone(), Event::Start, why));
        }
    }

    fn adopt(&mut self, launched: Launched, asleep: Option<config::OffloadTo>) {
        let now = self.clock.now();
        let Some(member) = self.members.get_mut(&launched.deployment) else {
            return;
        };
        let generation = launched.generation;
        let gpus = Arc::clone(&launched.gpus);
        self.placement.adopt(member.key, &gpus, asleep);
        member.gpus = gpus;
        member.machine = match asleep {
            Some(at) => Machine::adopted_asleep(generation, at, now, &member.policy),
            None => Machine::adopted_ready(generation, now),
        };
        member.running = Some(self.effects.adopt(member.target(), launched));
        member.changed_phase(now);
        member.publish(&self.timings, now);
        if asleep.is_none() {
            member.fleet.open(member.number());
        }
        member.tell(
            &self.events,
            "adopted: its worker went on while tidegate was away".into(),
        );
    }
}

/// Memory of the largest device.
fn largest(devices: &[Device]) -> u64 {
    let memory = devices.iter().map(|device| device.memory);
    memory.max().unwrap_or_default()
}

/// Every replica that there may be, the first of each deployment before others.
fn specs(catalog: &Catalog) -> Vec<Arc<config::Deployment>> {
    let deployments = catalog.instances.iter().flat_map(|i| &i.deployments);
    let mut specs = Vec::new();
    for first in deployments {
        specs.push(Arc::clone(first));
        for number in 2..=first.replicas.max {
            specs.push(Arc::new(first.replica(number)));
        }
    }
    specs
}

#[cfg(test)]
mod tests;
