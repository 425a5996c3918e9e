//! One turn: step the machine, do its actions, serve the claims, publish.

use std::sync::Arc;
use std::time::Duration;

use super::Conductor;
use super::member::{Member, RungFailed};
use crate::config::OffloadTo;
use crate::deployment::Refusal;
use crate::lifecycle::act::running::Wish;
use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::machine::{Action, Desired, Event, Machine, Phase, Policy, step};
use crate::lifecycle::decide::placement::{Decision, Insists, Obstacle, Stand, keeps_host};
use crate::lifecycle::decide::profile::starts_at_boot;
use crate::lifecycle::decide::why::Why;
use crate::lifecycle::tell::{reason, story};
use crate::names::DeploymentId;
use crate::store::timings::Transition;
use crate::telemetry::history::Scope;
use crate::telemetry::metrics;
use crate::time::Uptime;

/// Events of one turn; more would be a loop among our own answers.
const TURN_EVENTS_MAX: usize = 10_000;

impl Conductor {
    /// Does all that is to be done now.
    pub(super) fn run_turn(&mut self) {
        self.settle();
        self.fetch_ahead();
        self.registry.set_holdings(self.placement.holdings());
        for (device, held) in self.placement.held() {
            self.gpu_metrics.held(device.index, held, device.memory);
        }
    }

    fn settle(&mut self) {
        self.turn_events();
        // Even a turn without events may have let a claim grow too old.
        self.place();
        self.turn_events();
        self.members.retain(|id, member| {
            let gone = member.leaving
                && member.running.is_none()
                && member.machine.phase == Phase::Stopped;
            if gone {
                self.placement.forget(id);
                self.registry.remove(id);
                member.fleet.leave(member.number());
            }
            !gone
        });
    }

    fn turn_events(&mut self) {
        for _ in 0..TURN_EVENTS_MAX {
            let Some((id, event, why)) = self.turn.pop_front() else {
                return;
            };
            self.step(&id, event, why);
            if self.turn.is_empty() {
                self.place();
            }
        }
        tracing::error!("a turn of the conductor did not end by itself");
    }

    fn step(&mut self, id: &DeploymentId, event: Event, why: Option<Why>) {
        let now = self.clock.now();
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if event == Event::Start && member.insists == Insists::No {
            member.insists = Insists::Yes;
        }
        // An operator, and no request, asked for it while it fell asleep.
        let asked = matches!(event, Event::Slept(_)) && member.insists == Insists::Yes;
        let why = why.or_else(|| asked.then_some(Why::Operator));
        let why = why.as_ref();
        let (before, refusals) = (member.machine, member.refusals);
        let policy = Policy {
            offload_to: self
                .placement
                .offload_to(member.key, member.policy.offload_to),
            fetch_first: member.fetch.comes_first(),
            ..member.policy
        };
        let (after, actions) = step(before, event, now, &policy);
        member.machine = after;
        if let Some(text) = story::of(&member.subject(), &before, event, why, now) {
            let mark = reason::mark(event, &before, &after, why);
            self.events.push(&member.handle.id, text, mark);
        }
        if let Some(decision) = reason::decision(event, &before, &after) {
            metrics::decision(id.as_str(), decision, reason::label(event, &before, why));
        }
        if before.broken != after.broken {
            let told = story::rung_failed(after.broken, why);
            let version = member.version().map(str::to_owned);
            member.rung_failed = told.map(|told| RungFailed { told, version });
            self.know(id);
        }
        self.measure(id, &before, event, now);
        for action in actions {
            self.act(id, action);
        }
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if before.phase != member.machine.phase {
            member.changed_phase(now);
            member.progress = None;
            let phase = member.machine.phase;
            if before.phase == Phase::Starting {
                // Whatever comes of it: what the next start needs may be gone by then.
                member.fetch.doubt();
            }
            let goes_on = member.machine.unwritten > 0;
            if matches!(phase, Phase::Ready | Phase::Stopped | Phase::Failed) && !goes_on {
                member.insists = Insists::No;
            }
            self.placement.keep_on_host(member.key, keeps_host(phase));
            self.placement.touch(member.key);
        }
        if before.phase != member.machine.phase || matches!(event, Event::Unwritten(_)) {
            let known = member.reason.take();
            member.reason = story::reason(&member.machine, &before, known, why, now);
        }
        // Requests that wait look again at every snapshot, so only news is published.
        if before != member.machine || member.refusals != refusals {
            member.publish(&self.timings, now);
        }
        let at_rest = matches!(
            member.machine.phase,
            Phase::Stopped | Phase::Offloaded { .. }
        );
        let came_to_rest = at_rest && before.phase != member.machine.phase;
        if came_to_rest && member.fleet.lead().waiting() > 0 && !member.fleet.serves() {
            // Requests that came too late for the gate and too early for the change.
            let lead = member.fleet.lead().id.clone();
            self.demand(&lead);
        }
    }

    /// Tells the history of a start or a wake.
    fn cold_start(&self, id: &DeploymentId) {
        if let Some(handle) = self.registry.lead(id) {
            let scope = Scope::Deployment(handle.id.clone());
            self.registry.recorder.account(&scope).cold_start();
        }
    }

    /// Remembers how long a start, a sleep or a wake took.
    fn measure(&mut self, id: &DeploymentId, before: &Machine, event: Event, now: Uptime) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let took = now.saturating_sub(member.entered);
        match (before.phase, member.machine.phase, event) {
            (Phase::Starting, Phase::Ready, _) => {
                metrics::transition(id.as_str(), "none", "gpu", took);
                self.cold_start(id);
                self.timings.measured(id, Transition::Start, took);
                self.learn_weights(id);
                self.learn_taste(id, |timing, speed| timing.taste_start = speed);
                self.is_upgraded(id);
                self.know(id);
            }
            (Phase::Waking { from }, Phase::Ready, _) => {
                metrics::transition(id.as_str(), story::rung(from), "gpu", took);
                self.cold_start(id);
                self.timings.measured(id, Transition::Wake(from), took);
                self.learn_taste(id, |timing, speed| timing.taste_wake = speed);
                self.know(id);
            }
            (Phase::Offloading { to }, _, Event::Slept(_)) => {
                metrics::transition(id.as_str(), "gpu", story::rung(to), took);
                self.slept(id, to, took);
            }
            _ => {}
        }
        if let Event::Exited(generation)
        | Event::Unlaunchable(generation)
        | Event::Unwritten(generation) = event
            && generation == before.worker
            && let Some(member) = self.members.get_mut(id)
        {
            if let Some(running) = member.running.take() {
                running.calls.cancel();
            }
            member.gpus = Arc::from([]);
        }
    }

    fn act(&mut self, id: &DeploymentId, action: Action) {
        let now = self.clock.now();
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        match action {
            Action::Fetch => self.fetch(id),
            Action::CancelFetch => member.fetch.cancel(),
            Action::AcquireGpus(_) => {
                // The requests for what could not be started may be gone by now.
                let by_itself = starts_at_boot(&member.spec) || member.machine.unwritten > 0;
                let unasked = by_itself && member.fleet.lead().waiting() == 0;
                if !member.machine.wanted {
                    member.insists = Insists::Yes;
                } else if unasked && member.insists == Insists::No {
                    member.insists = Insists::IfRoom;
                }
                self.placement.ask(member.key);
            }
            Action::CancelAcquire => self.placement.cancel(member.key),
            Action::ShrinkLease => self.placement.shrink(member.key),
            Action::ReleaseLease => self.placement.release(member.key),
            Action::Spawn(generation) => {
                member.running = Some(self.effects.spawn(member.target(), generation));
            }
            Action::TryState(generation) => self.effects.try_state(id, generation),
            Action::OpenGate => {
                // Published before the deployment's gate opens: its permits rely on the snapshot.
                member.changed_phase(now);
                member.gate().open();
                member.publish(&self.timings, now);
                member.fleet.open(member.number());
            }
            Action::CloseGate => {
                // Without a worker, as it ended, nothing is left to drain.
                if let Some(running) = &member.running {
                    running.gate.close();
                    self.effects.drain(id, &running.gate);
                }
                member.fleet.close(member.number());
            }
            Action::CloseGateIfIdle(rest) => {
                let key = member.key;
                // A start on its GPUs measures their memory: it is looked at again.
                if self.may_leave(key)
                    && let Some(member) = self.members.get(id)
                    && member.gate().close_if_idle()
                {
                    member.fleet.close(member.number());
                    let idle_since = member.idle_since().unwrap_or(now);
                    let closed = Event::IdleClosed { rest, idle_since };
                    self.turn.push_front((id.clone(), closed, None));
                }
            }
            Action::Sleep(generation, to) => self.effects.sleep(member.target(), generation, to),
            Action::Wake(generation, from) => self.effects.wake(member.target(), generation, from),
            Action::Terminate(_) => wish(member, |_| Wish::Stop),
            Action::Kill(_) => wish(member, |old| match old {
                Wish::Kill(n) => Wish::Kill(n.wrapping_add(1)),
                Wish::Run | Wish::Stop => Wish::Kill(1),
            }),
            Action::RefuseWaiters => {
                member.refusals += 1;
                member.refusal = Some(match member.machine.desired {
                    Desired::Down => Refusal::Stopped,
                    Desired::OnDemand if member.machine.deadline.is_some() => Refusal::PutOff,
                    Desired::OnDemand => Refusal::Failed,
                });
            }
        }
    }

    /// True if no worker measures memory on the GPUs of this one.
    fn may_leave(&self, key: LedgerKey) -> bool {
        let (placement, members) = (&self.placement, &self.members);
        placement.may_leave(key, &|other| {
            let member = placement.id(other).and_then(|id| members.get(id));
            member.map_or_else(Stand::absent, Member::stand)
        })
    }

    /// Learns how long a worker took to fall asleep.
    fn slept(&mut self, id: &DeploymentId, to: OffloadTo, took: Duration) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let first = to == OffloadTo::Cpu && !std::mem::replace(&mut member.has_slept, true);
        self.timings
            .measured(id, Transition::Sleep(to, first), took);
        self.know(id);
    }

    /// Tells what a claim waits for.
    fn waits(&self, key: LedgerKey, id: &DeploymentId, obstacle: Obstacle) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let leaving = if obstacle == Obstacle::Leaving {
            self.placement.leaving_for(key)
        } else {
            Vec::new()
        };
        member.tell(&self.events, story::waits(obstacle, &leaving));
        metrics::decision(id.as_str(), "wait", obstacle.label());
    }

    /// Serves the claims for GPUs as far as it goes.
    fn place(&mut self) {
        let now = self.clock.now();
        let (members, ids) = (&self.members, self.placement.ids());
        let view = |key: LedgerKey| {
            let member = ids
                .get(key.index())
                .and_then(|id| members.get(id.as_ref()?));
            member.map_or_else(Stand::absent, Member::stand)
        };
        for decision in self.placement.plan(now, &view) {
            let key = decision.key();
            let Some(id) = ids.get(key.index()).cloned().flatten() else {
                continue;
            };
            let (event, why) = match decision {
                Decision::Grant(key) => {
                    if let Some(member) = self.members.get_mut(&id) {
                        member.gpus = self.placement.gpus_of(key);
                    }
                    (Event::Granted, None)
                }
                Decision::Refuse(_, why) => (Event::Refused, Some(Why::NeverFits(why))),
                Decision::Evict(eviction) => {
                    let claimant = ids.get(eviction.claimant.index()).cloned().flatten();
                    let rest = eviction.rest;
                    let why = claimant.map(|claimant| Why::Needed { claimant, eviction });
                    (Event::Evict(rest), why)
                }
                Decision::Spare(_) => (Event::Spared, None),
                Decision::Withdraw(_) => {
                    let member = self.members.get(&id);
                    let modest = member.is_some_and(|m| m.insists == Insists::IfRoom);
                    let why = modest.then_some(Why::NoRoomAtBoot);
                    (Event::Withdrawn, why)
                }
                Decision::Wait(key, obstacle) => {
                    self.waits(key, &id, obstacle);
                    continue;
                }
            };
            self.turn.push_back((id, event, why));
        }
    }
}

/// Tells the supervisor of the worker, and ends the calls to it.
fn wish(member: &Member, next: impl FnOnce(Wish) -> Wish) {
    if let Some(running) = &member.running {
        running.calls.cancel();
        running.wish.send_modify(|wish| *wish = next(*wish));
    }
}
