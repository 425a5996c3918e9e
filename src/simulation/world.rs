//! The world of a run: machines, workers, clients, and a clock that jumps.
//!
//! As in the product one thing happens at a time; what an action answers at once
//! belongs to the same turn. Transitions on one GPU take their turns, as they
//! share its bus.

mod transfer;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::actor::{Actor, time};
use super::bound::Bound;
use super::outcome::{self, PlayedOutcome};
use super::scheduler::Scheduler;
use super::trace::{BATCH_MAX, Model, Workload};
use crate::config::{Levels, OffloadTo};
use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::machine::{Action, Event, Machine, Phase, Policy, Rest, step};
use crate::lifecycle::decide::placement::{Decision, Stand, keeps_host};
use crate::lifecycle::decide::policy::Seconds;
use crate::names::Generation;
use crate::time::Uptime;

/// Longer than any run.
const FOREVER: Duration = Duration::from_hours(24 * 365);
/// Beside the time in which every claim becomes overdue: no claim is looked at less
/// often.
const STUCK_AFTER: Duration = Duration::from_mins(1);
/// Deployments that are named of those that nothing moves for.
const STUCK_NAMES_MAX: usize = 5;

/// Event that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    Done(usize, u32),
    Slept(usize, Generation),
    Ready(usize, Generation),
    Exited(usize, Generation),
    Look,
}

pub(super) struct World<'a, S> {
    trace: &'a Workload,
    scheduler: S,
    policy: Policy,
    now: Uptime,
    actors: Vec<Actor>,
    coming: BinaryHeap<Reverse<(Uptime, u64, Coming)>>,
    sequence: u64,
    turn: VecDeque<(usize, Event)>,
    /// Time until which each GPU's bus is taken.
    bus: Vec<Uptime>,
    bus_time: Seconds,
    /// By workspace.
    waits: Vec<(u32, Seconds)>,
    refused: usize,
    switches: usize,
    look_at: Option<Uptime>,
    is_due: bool,
    /// Time when something last came, happened or was decided.
    moved_at: Uptime,
    bound: Bound,
}

impl<'a, S: Scheduler> World<'a, S> {
    /// Everyone sleeps, in host memory as far as it goes; or, in a cold world, was
    /// never started.
    pub(super) fn new(trace: &'a Workload, scheduler: S, cold: bool) -> Self {
        let policy = Policy {
            offload_after: None,
            offload_to: (!cold).then_some(OffloadTo::Cpu),
            levels: Levels::BOTH,
            stop_after: None,
            // Every model is here.
            fetch_first: false,
            place_timeout: FOREVER,
            start_timeout: FOREVER,
            call_timeout: FOREVER,
            drain_timeout: FOREVER,
            stop_grace: FOREVER,
            backoff_base: Duration::from_secs(1),
            stable_after: Duration::from_mins(1),
            failures_max: 3,
            restart_unasked: false,
        };
        let mut world = Self {
            bound: Bound::new(scheduler.wait_bound().as_secs_f64()),
            policy,
            scheduler,
            now: Uptime::ZERO,
            actors: Vec::new(),
            coming: BinaryHeap::new(),
            sequence: 0,
            turn: VecDeque::new(),
            bus: vec![Uptime::ZERO; trace.gpus],
            bus_time: 0.0,
            waits: Vec::with_capacity(trace.arrivals.len()),
            refused: 0,
            switches: 0,
            look_at: None,
            is_due: false,
            moved_at: Uptime::ZERO,
            trace,
        };
        let mut host = trace.host_memory;
        for (number, model) in trace.fleet.iter().enumerate() {
            let machine = if cold {
                Machine::stopped()
            } else {
                let gpus: Vec<u32> = model
                    .home
                    .iter()
                    .filter_map(|place| u32::try_from(*place).ok())
                    .collect();
                let fits = model.weights <= host;
                let at = if fits && model.costs.prefers_cpu() {
                    host -= model.weights;
                    OffloadTo::Cpu
                } else {
                    OffloadTo::Disk
                };
                world.scheduler.adopt(key(number), &gpus, at);
                Machine::adopted_asleep(Generation(1), at, Uptime::ZERO, &policy)
            };
            world.actors.push(Actor::new(machine));
        }
        world
    }

    /// Runs until every request was served or refused, or nothing moves any more.
    pub(super) fn run(mut self) -> PlayedOutcome {
        let mut next = 0;
        loop {
            let arrival = self.trace.arrivals.get(next).map(|a| time(a.at));
            let coming = self.coming.peek().map(|Reverse((at, _, _))| *at);
            match (arrival, coming) {
                (Some(at), coming) if coming.is_none_or(|coming| at <= coming) => {
                    self.now = at;
                    self.arrive(next);
                    next += 1;
                }
                (_, Some(at)) => {
                    self.now = at;
                    if let Some(Reverse((_, _, what))) = self.coming.pop() {
                        self.happen(what);
                    }
                }
                (_, None) => break,
            }
            self.run_turn();
            if arrival.is_none() && self.is_stuck() {
                break;
            }
        }
        self.outcome()
    }

    /// True if it only looks at its claims, over and over, though all are overdue: then
    /// time alone brings nothing any more.
    fn is_stuck(&self) -> bool {
        let patience = self.scheduler.wait_bound().saturating_add(STUCK_AFTER);
        let waited = self.now.saturating_sub(self.moved_at);
        let mut coming = self.coming.iter();
        waited > patience && coming.all(|Reverse((_, _, what))| *what == Coming::Look)
    }

    fn outcome(mut self) -> PlayedOutcome {
        let left = self.trace.fleet.iter().zip(&self.actors);
        let left = left.filter(|(_, actor)| !actor.queue.is_empty());
        let (names, left): (Vec<String>, Vec<usize>) = left
            .map(|(model, actor)| (model.name.clone(), actor.queue.len()))
            .unzip();
        let waits = std::mem::take(&mut self.waits);
        let seconds = waits.iter().map(|(_, wait)| *wait).collect();
        let mut outcome = PlayedOutcome::of(seconds, self.refused);
        outcome.stuck = left.iter().sum();
        outcome.stuck_for = names.into_iter().take(STUCK_NAMES_MAX).collect();
        outcome.workspaces = outcome::by_workspace(&waits);
        let span = self.trace.horizon.max(self.now.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "thousands of GPUs at most")]
        let gpus = self.trace.gpus.max(1) as f64;
        outcome.lost = self.bus_time / (span * gpus);
        outcome.switches = self.switches;
        outcome.beyond_bound = self.bound.beyond;
        outcome
    }

    fn arrive(&mut self, index: usize) {
        let Some(arrival) = self.trace.arrivals.get(index).copied() else {
            return;
        };
        let number = self.chosen(arrival.model);
        self.moved_at = self.now;
        self.scheduler.arrived(key(number), self.now);
        let (now, workspace) = (self.now, self.workspace(number));
        let Some(actor) = self.actors.get_mut(number) else {
            return;
        };
        if actor.has_place() {
            actor.begin(&arrival, now);
            self.waits.push((workspace, 0.0));
            self.announce(number);
            return;
        }
        actor.queue.push_back(index);
        actor.queued += arrival.at;
        if !actor.open && !actor.machine.wanted {
            self.turn.push_back((number, Event::Demand));
        }
    }

    /// Number that is asked for a deployment: one of its list that serves, else itself.
    fn chosen(&self, model: usize) -> usize {
        let serves = |number: &&usize| {
            let actor = self.actors.get(**number);
            actor.is_some_and(Actor::has_place)
        };
        let mut list = self.trace.awake_before(model).iter();
        list.find(serves).copied().unwrap_or(model)
    }

    fn workspace(&self, number: usize) -> u32 {
        self.trace.fleet.get(number).map_or(0, |m| m.workspace)
    }

    fn happen(&mut self, what: Coming) {
        match what {
            Coming::Done(number, version) => self.finish(number, version),
            Coming::Slept(number, worker) => self.turn.push_back((number, Event::Slept(worker))),
            Coming::Ready(number, worker) => {
                self.turn.push_back((number, Event::WorkerReady(worker)));
            }
            Coming::Exited(number, worker) => self.turn.push_back((number, Event::Exited(worker))),
            Coming::Look => {
                self.is_due = self.look_at == Some(self.now);
                if self.is_due {
                    self.look_at = None;
                }
            }
        }
    }

    fn finish(&mut self, number: usize, version: u32) {
        let now = self.now;
        let Some(actor) = self.actors.get_mut(number) else {
            return;
        };
        if actor.version != version {
            return;
        }
        self.moved_at = now;
        actor.advance(now);
        let mut clients = Vec::new();
        while let Some(Reverse(work)) = actor.running.peek().copied()
            && work.until <= actor.progress + 1e-9
        {
            actor.running.pop();
            let took = now.saturating_sub(work.since).as_secs_f64();
            self.scheduler.served(key(number), took);
            clients.extend(work.client);
            self.bound.drain = self.bound.drain.max(took);
        }
        for client in clients {
            self.foresee(client, number);
        }
        self.admit(number);
        let Some(actor) = self.actors.get_mut(number) else {
            return;
        };
        if actor.running.is_empty() {
            actor.idle_since = now;
            self.scheduler.touch(key(number));
            self.is_due = true;
            if !actor.open {
                let idle_since = now;
                self.turn.push_back((number, Event::Drained { idle_since }));
            }
        }
    }

    /// Wakes the one that this client is expected to ask next.
    fn foresee(&mut self, client: u32, number: usize) {
        let next = self.scheduler.foresees(client, key(number), self.now);
        let Some((next, chance)) = next else { return };
        let sleeps = self
            .actors
            .get(next.index())
            .is_some_and(|actor| actor.machine.wakes_on_demand() && actor.queue.is_empty());
        if sleeps {
            self.scheduler.foresee(next, chance);
            self.turn.push_back((next.index(), Event::Demand));
        }
    }

    /// Lets requests that wait in, as far as there are places.
    fn admit(&mut self, number: usize) {
        let (now, workspace) = (self.now, self.workspace(number));
        let places = self.places(number);
        let Some(actor) = self.actors.get_mut(number) else {
            return;
        };
        while actor.open && actor.running.len() < BATCH_MAX {
            let Some(index) = actor.queue.pop_front() else {
                break;
            };
            if let Some(arrival) = self.trace.arrivals.get(index) {
                actor.queued -= arrival.at;
                let wait = (now.as_secs_f64() - arrival.at).max(0.0);
                self.waits.push((workspace, wait));
                let now_s = now.as_secs_f64();
                let whose = (key(number), workspace);
                self.bound.admitted(whose, &places, arrival.at, now_s);
                actor.begin(arrival, now);
            }
        }
        self.announce(number);
    }

    /// Says when the next request of a batch will be done.
    fn announce(&mut self, number: usize) {
        let now = self.now;
        let Some(actor) = self.actors.get_mut(number) else {
            return;
        };
        actor.advance(now);
        actor.version = actor.version.wrapping_add(1);
        if let Some(Reverse(work)) = actor.running.peek() {
            let left = (work.until - actor.progress).max(0.0) * actor.crowding();
            let done = Coming::Done(number, actor.version);
            self.come(now + time(left), done);
        }
    }

    fn come(&mut self, at: Uptime, what: Coming) {
        self.sequence += 1;
        self.coming.push(Reverse((at, self.sequence, what)));
    }

    fn run_turn(&mut self) {
        while let Some((number, event)) = self.turn.pop_front() {
            self.step(number, event);
            if self.turn.is_empty() && std::mem::take(&mut self.is_due) {
                self.place();
            }
        }
        if std::mem::take(&mut self.is_due) {
            self.place();
            if !self.turn.is_empty() {
                self.run_turn();
            }
        }
    }

    fn step(&mut self, number: usize, event: Event) {
        let (now, policy) = (self.now, self.policy);
        self.moved_at = now;
        let Some(actor) = self.actors.get_mut(number) else {
            return;
        };
        let before = actor.machine;
        let (after, actions) = step(before, event, now, &policy);
        actor.machine = after;
        for action in actions {
            self.act(number, action);
        }
        let Some(actor) = self.actors.get(number) else {
            return;
        };
        let phase = actor.machine.phase;
        if phase != before.phase {
            self.scheduler.keep_on_host(key(number), keeps_host(phase));
            self.scheduler.touch(key(number));
            self.is_due = true;
            let at_rest = matches!(phase, Phase::Stopped | Phase::Offloaded { .. });
            if at_rest && !actor.queue.is_empty() {
                self.turn.push_back((number, Event::Demand));
            }
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        let (now, key) = (self.now, key(number));
        match action {
            Action::AcquireGpus(_) => {
                self.scheduler.ask(key);
                self.is_due = true;
            }
            Action::CancelAcquire => self.scheduler.cancel(key),
            Action::ShrinkLease => self.scheduler.shrink(key),
            Action::ReleaseLease => self.scheduler.release(key),
            Action::Spawn(worker) => {
                let done = self.transfer(number, |model| model.costs.start);
                self.granted(number, done);
                self.come(done, Coming::Ready(number, worker));
            }
            // In this world it always can.
            Action::Fetch | Action::CancelFetch | Action::TryState(_) => {}
            Action::OpenGate => {
                if let Some(actor) = self.actors.get_mut(number) {
                    actor.open = true;
                    actor.idle_since = now;
                }
                self.admit(number);
            }
            Action::CloseGate => {
                if let Some(actor) = self.actors.get_mut(number) {
                    actor.open = false;
                    if actor.running.is_empty() {
                        let idle_since = actor.idle_since;
                        self.turn.push_back((number, Event::Drained { idle_since }));
                    }
                }
            }
            Action::CloseGateIfIdle(rest) => {
                if let Some(actor) = self.actors.get_mut(number)
                    && actor.open
                    && actor.running.is_empty()
                {
                    actor.open = false;
                    let idle_since = actor.idle_since;
                    let closed = Event::IdleClosed { rest, idle_since };
                    self.turn.push_front((number, closed));
                }
            }
            Action::Sleep(worker, to) => {
                self.switches += 1;
                let done = self.transfer(number, |m| m.costs.leave(Rest::Offload(to)));
                let took = done.saturating_sub(now).as_secs_f64();
                self.bound.sleep = self.bound.sleep.max(took);
                self.come(done, Coming::Slept(number, worker));
            }
            Action::Wake(worker, from) => {
                let done = self.transfer(number, |m| m.costs.back(Rest::Offload(from)));
                self.granted(number, done);
                self.come(done, Coming::Ready(number, worker));
            }
            Action::Terminate(worker) => {
                self.switches += 1;
                let done = self.transfer(number, |model| model.costs.stop);
                let took = done.saturating_sub(now).as_secs_f64();
                self.bound.sleep = self.bound.sleep.max(took);
                self.come(done, Coming::Exited(number, worker));
            }
            Action::Kill(worker) => self.come(now, Coming::Exited(number, worker)),
            Action::RefuseWaiters => {
                if let Some(actor) = self.actors.get_mut(number) {
                    self.refused += actor.queue.len();
                    actor.queue.clear();
                    actor.queued = 0.0;
                }
            }
        }
    }

    /// Serves the claims as far as it goes.
    fn place(&mut self) {
        let (now, actors) = (self.now, &self.actors);
        let trace = self.trace;
        let view = |key: LedgerKey| {
            let actor = actors.get(key.index());
            actor.map_or_else(Stand::absent, |actor| actor.stand(key.index(), now, trace))
        };
        for decision in self.scheduler.plan(now, &view) {
            let (key, event) = match decision {
                Decision::Grant(key) => (key, Event::Granted),
                Decision::Refuse(key, _) => (key, Event::Refused),
                Decision::Evict(eviction) => (eviction.victim, Event::Evict(eviction.rest)),
                Decision::Spare(key) => (key, Event::Spared),
                Decision::Withdraw(key) => (key, Event::Withdrawn),
                Decision::Wait(..) => continue,
            };
            self.turn.push_back((key.index(), event));
        }
        if let Some(at) = self.scheduler.look_at()
            && self.look_at.is_none_or(|due| at < due || due <= now)
        {
            let at = at.max(now + Duration::from_millis(1));
            self.look_at = Some(at);
            self.come(at, Coming::Look);
        }
    }
}

fn key(number: usize) -> LedgerKey {
    LedgerKey(u32::try_from(number).unwrap_or(u32::MAX))
}
