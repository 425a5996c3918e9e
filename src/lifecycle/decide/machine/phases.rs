//! Meaning of each event in each phase: one function per phase.

use super::{Action, Aim, Desired, Event, Next, Phase, Rest, Step};
use crate::config::OffloadTo;

impl Step<'_> {
    pub(super) fn in_stopped(&mut self, event: Event) {
        match event {
            Event::Demand | Event::Start => self.begin(),
            // It can never fit: requests for it are told so.
            Event::Refused => self.give_up(),
            _ => {}
        }
    }

    pub(super) fn in_fetching(&mut self, event: Event) {
        match event {
            Event::Fetched => {
                self.m.unfetched = 0;
                self.place(Aim::Spawn);
            }
            Event::FetchFailed => self.fetch_again(),
            Event::Unfetchable => self.give_up(),
            // It can never fit: what it would take need not come.
            Event::Refused => {
                self.act(Action::CancelFetch);
                self.give_up();
            }
            Event::Stop => {
                self.act(Action::CancelFetch);
                self.rest_stopped();
            }
            Event::Withdrawn => {
                self.act(Action::CancelFetch);
                self.m.wanted = false;
                self.rest_stopped();
            }
            // It may be another model.
            Event::SpecChanged => {
                self.act(Action::CancelFetch);
                self.begin();
            }
            _ => {}
        }
    }

    pub(super) fn in_placing(&mut self, event: Event, aim: Aim) {
        match (event, aim) {
            (Event::Granted, Aim::Spawn) => self.spawn(),
            (Event::Granted, Aim::Wake { from }) => {
                self.act(Action::Wake(self.m.worker, from));
                self.enter(Phase::Waking { from }, self.policy.call_timeout);
            }
            (Event::Refused, Aim::Spawn) => self.give_up(),
            // To wait for room is no failure: it asks anew, as long as it is wanted.
            (Event::Tick { .. }, Aim::Spawn) if self.overdue() => {
                self.act(Action::CancelAcquire);
                self.place(Aim::Spawn);
            }
            // A sleeping worker is bound to its GPUs: if those can't be had, a
            // new worker may still fit elsewhere.
            (Event::Refused, Aim::Wake { .. }) => self.terminate(Next::Restart),
            (Event::Tick { .. }, Aim::Wake { .. }) if self.overdue() => {
                self.act(Action::CancelAcquire);
                self.terminate(Next::Restart);
            }
            (Event::Stop, Aim::Spawn) => {
                self.act(Action::CancelAcquire);
                self.rest_stopped();
            }
            (Event::Withdrawn, _) => {
                self.act(Action::CancelAcquire);
                self.m.wanted = false;
                match aim {
                    Aim::Spawn => self.rest_stopped(),
                    Aim::Wake { from } => {
                        self.m.phase = Phase::Offloaded { at: from };
                        self.m.deadline = self.stop_due();
                    }
                }
            }
            (Event::Stop | Event::Evict(_), Aim::Wake { .. }) => {
                self.act(Action::CancelAcquire);
                self.terminate(Next::Rest);
            }
            // What it needs may have changed: ask anew.
            (Event::SpecChanged, Aim::Spawn) => {
                self.act(Action::CancelAcquire);
                self.begin();
            }
            (Event::SpecChanged, Aim::Wake { .. }) => {
                self.act(Action::CancelAcquire);
                self.terminate(Next::Restart);
            }
            (Event::Exited(_), Aim::Wake { .. }) => {
                self.act(Action::CancelAcquire);
                self.act(Action::ReleaseLease);
                self.fail();
            }
            _ => {}
        }
    }

    pub(super) fn in_starting(&mut self, event: Event) {
        match event {
            Event::WorkerReady(_) => self.serve(),
            Event::Exited(_) => self.release_and_fail(),
            Event::Unlaunchable(_) => {
                self.act(Action::ReleaseLease);
                self.give_up();
            }
            Event::Unwritten(_) => {
                self.act(Action::ReleaseLease);
                self.put_off();
            }
            Event::Stuck(_) => self.terminate(Next::Retry),
            Event::Tick { .. } if self.overdue() => self.terminate(Next::Retry),
            Event::Stop | Event::Evict(_) => self.terminate(Next::Rest),
            Event::SpecChanged => self.terminate(Next::Restart),
            _ => {}
        }
    }

    pub(super) fn in_ready(&mut self, event: Event) {
        match event {
            Event::IdleClosed { rest, idle_since } => {
                self.m.idle_since = idle_since;
                match rest {
                    Rest::Offload(to) => self.sleep(to),
                    Rest::Stop | Rest::Restart => self.terminate(Next::Rest),
                }
            }
            Event::Tick { idle_since } => self.look_idle(idle_since),
            Event::IdleChanged => self.m.deadline = Some(self.now),
            Event::Evict(rest) => self.drain(self.usable(rest)),
            Event::Offload if self.policy.offload_to.is_some() => self.drain(self.rung()),
            Event::Stop => self.drain(Rest::Stop),
            Event::SpecChanged => self.drain(Rest::Restart),
            Event::Exited(_) => {
                self.forgive();
                self.act(Action::CloseGate);
                self.release_and_fail();
            }
            // The requests inside get no answer from it either.
            Event::Stuck(_) => {
                self.forgive();
                self.act(Action::CloseGate);
                self.terminate(Next::Retry);
            }
            _ => {}
        }
    }

    pub(super) fn in_draining(&mut self, event: Event, rest: Rest) {
        match (event, rest) {
            (Event::Drained { idle_since }, _) => {
                self.m.idle_since = idle_since;
                match rest {
                    Rest::Offload(to) => self.sleep(to),
                    Rest::Stop => self.terminate(Next::Rest),
                    Rest::Restart => self.terminate(Next::Restart),
                }
            }
            // Out of patience: the requests inside are cut.
            (Event::Tick { .. }, Rest::Restart) if self.overdue() => self.terminate(Next::Restart),
            (Event::Tick { .. }, _) if self.overdue() => self.terminate(Next::Rest),
            (Event::Stop, _) | (Event::Evict(Rest::Stop), Rest::Offload(_)) => {
                self.m.phase = Phase::Draining { rest: Rest::Stop };
            }
            // It serves on as if nothing had been: its window goes on too.
            (Event::Spared, Rest::Offload(_) | Rest::Stop)
                if self.m.desired == Desired::OnDemand =>
            {
                self.act(Action::OpenGate);
                (self.m.phase, self.m.wanted) = (Phase::Ready, false);
                self.m.deadline = self.idle_limit().map(|limit| self.now + limit);
            }
            (Event::SpecChanged, Rest::Offload(_)) => {
                self.m.phase = Phase::Draining {
                    rest: Rest::Restart,
                }
            }
            (Event::Exited(_), _) => self.release_and_fail(),
            _ => {}
        }
    }

    pub(super) fn in_offloading(&mut self, event: Event, to: OffloadTo) {
        match event {
            Event::Slept(_) => {
                self.act(Action::ShrinkLease);
                if self.m.wanted {
                    self.place(Aim::Wake { from: to });
                } else {
                    self.m.phase = Phase::Offloaded { at: to };
                    self.m.deadline = self.stop_due();
                }
            }
            // The claimant of these GPUs gets them either way.
            Event::CallFailed(_) => {
                self.break_rung(to);
                self.terminate(Next::Rest);
            }
            Event::Tick { .. } if self.overdue() => {
                self.break_rung(to);
                self.terminate(Next::Rest);
            }
            Event::Stop | Event::Evict(Rest::Stop) => self.terminate(Next::Rest),
            Event::SpecChanged => self.terminate(Next::Restart),
            Event::Exited(_) => self.release_and_fail(),
            _ => {}
        }
    }

    pub(super) fn in_offloaded(&mut self, event: Event, at: OffloadTo) {
        match event {
            Event::Demand | Event::Start => self.place(Aim::Wake { from: at }),
            Event::Stop | Event::Evict(_) | Event::SpecChanged => self.terminate(Next::Rest),
            Event::IdleChanged => self.m.deadline = self.stop_due(),
            Event::Tick { .. } if self.overdue() => self.terminate(Next::Rest),
            Event::Exited(_) => {
                self.act(Action::ReleaseLease);
                self.rest_stopped();
            }
            _ => {}
        }
    }

    pub(super) fn in_waking(&mut self, event: Event, from: OffloadTo) {
        match event {
            Event::WorkerReady(_) => self.serve(),
            Event::CallFailed(_) => {
                self.break_rung(from);
                self.terminate(Next::Restart);
            }
            Event::Tick { .. } if self.overdue() => {
                self.break_rung(from);
                self.terminate(Next::Restart);
            }
            Event::SpecChanged => self.terminate(Next::Restart),
            Event::Stop | Event::Evict(_) => self.terminate(Next::Rest),
            Event::Exited(_) => self.release_and_fail(),
            _ => {}
        }
    }

    pub(super) fn in_stopping(&mut self, event: Event, next: Next, killed: bool) {
        match event {
            // Told to end before it was known that it can't be launched.
            Event::Exited(_) | Event::Unlaunchable(_) | Event::Unwritten(_) => {
                self.act(Action::ReleaseLease);
                match next {
                    Next::Retry if matches!(event, Event::Unwritten(_)) => self.put_off(),
                    Next::Retry => self.fail(),
                    Next::Restart => self.begin(),
                    Next::Rest if self.m.wanted => self.begin(),
                    Next::Rest => self.rest_stopped(),
                }
            }
            // Never give the GPUs away under a living process: kill again.
            Event::Tick { .. } if self.overdue() => {
                self.act(Action::Kill(self.m.worker));
                self.enter(
                    Phase::Stopping { next, killed: true },
                    self.policy.stop_grace,
                );
            }
            Event::Stop => {
                self.m.phase = Phase::Stopping {
                    next: Next::Rest,
                    killed,
                }
            }
            _ => {}
        }
    }

    pub(super) fn in_failed(&mut self, event: Event) {
        match event {
            Event::Start => self.begin(),
            Event::Stop => self.rest_stopped(),
            Event::SpecChanged => {
                self.m.failures = 0;
                if self.m.wanted {
                    self.begin();
                } else {
                    self.rest_stopped();
                }
            }
            // Refused, so no longer wanted: else it would be shown as loading.
            Event::Demand if self.m.deadline.is_none() => {
                self.m.wanted = false;
                self.act(Action::RefuseWaiters);
            }
            Event::Tick { .. } if self.overdue() => {
                if self.m.unwritten > 0 {
                    self.act(Action::TryState(self.m.worker));
                    self.enter(Phase::Failed, self.policy.call_timeout);
                } else if self.m.wanted {
                    self.begin();
                } else {
                    self.rest_stopped();
                }
            }
            Event::Writable(_) if self.m.unwritten > 0 => self.begin(),
            Event::Unwritten(_) if self.m.unwritten > 0 => self.put_off(),
            _ => {}
        }
    }
}
