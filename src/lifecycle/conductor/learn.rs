//! Figures learned while workers serve: arrivals, service times, sizes.
//!
//! Gates count by themselves; nobody tells the conductor of a request. So their
//! counts are taken down now and then, for placement's estimates. Those of how much
//! each deployment is asked for are kept over a restart, with the timings: written
//! down while they change, and at the end.

use std::sync::Arc;
use std::time::Duration;

use super::Conductor;
use crate::deployment::Counts;
use crate::lifecycle::act::observe::Observation;
use crate::lifecycle::decide::machine::{Event, Phase};
use crate::lifecycle::decide::profile;
use crate::lifecycle::decide::why::Why;
use crate::names::DeploymentId;
use crate::store::timings::Timing;
use crate::time::{Uptime, unix_seconds};
use crate::vllm::fit::Fit;

/// Pause between two looks at the gates' counts.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two times that the estimates are written down: what a crash takes away.
const KEEP_PAUSE: Duration = Duration::from_mins(1);
/// Time that a worker must have been in a phase before what it holds is believed:
/// a reading may be that old.
const SETTLED: Duration = Duration::from_secs(10);

/// Time when the estimates were last written down, and true if there is more since.
#[derive(Debug, Default)]
pub(super) struct Kept {
    at: Uptime,
    is_old: bool,
}

impl Conductor {
    /// Time when the counts are to be taken down; `None` where nothing follows from
    /// them.
    pub(super) fn counts_due(&self) -> Option<Uptime> {
        let matters = !self.placement.ledger().accounts().is_empty();
        let serves = |phase| matches!(phase, Phase::Ready | Phase::Draining { .. });
        let any = self.members.values().any(|m| serves(m.machine.phase));
        (matters && any).then(|| self.counted + COUNT_PAUSE)
    }

    /// Takes down what the gates counted since last time.
    pub(super) fn take_counts(&mut self, now: Uptime) {
        self.counted = now;
        for member in self.members.values_mut() {
            let (mut before, since) = member.counted;
            let counts = member.gate().counts();
            if counts.entered < before.entered || counts.left < before.left {
                // Another worker, with a gate of its own.
                before = Counts::default();
            }
            member.counted = (counts, now);
            if counts == before {
                continue;
            }
            self.kept.is_old = true;
            let count = |new: u64, old: u64| u32::try_from(new - old).unwrap_or(u32::MAX);
            let entered = count(counts.entered, before.entered);
            self.placement.arrived(member.key, entered, since, now);
            let left = count(counts.left, before.left);
            let millis = counts.inside_millis.saturating_sub(before.inside_millis);
            if left > 0 {
                let seconds = Duration::from_millis(millis).as_secs_f64() / f64::from(left);
                self.placement.served(member.key, left, seconds);
            }
        }
        if now >= self.kept.at + KEEP_PAUSE {
            self.keep_popularity(now);
        }
    }

    /// Writes down how much each deployment is asked for, if there is news.
    pub(super) fn keep_popularity(&mut self, now: Uptime) {
        if !std::mem::take(&mut self.kept.is_old) {
            return;
        }
        self.kept.at = now;
        let (members, placement, at) = (&self.members, &self.placement, unix_seconds());
        let all = members.iter().filter_map(|(id, member)| {
            let popularity = placement.popularity(member.key, at, now)?;
            Some((id.clone(), popularity))
        });
        let is_there = |id: &str| DeploymentId::parse(id).is_ok_and(|id| members.contains_key(&id));
        self.timings.popular(all, is_there);
    }

    /// Goes on from how much a deployment was asked for before it was known here.
    pub(super) fn recall_popularity(&mut self, id: &DeploymentId, now: Uptime) {
        if let (Some(key), Some(kept)) = (self.placement.key(id), self.timings.popularity(id)) {
            let away = kept.away(unix_seconds());
            self.placement.recall(key, &kept, away, now);
        }
    }

    /// A client's request is done: the one that it is likely to ask next is woken, if
    /// it sleeps and placement finds it worth it.
    pub(super) fn on_asked(&mut self, client: u64, id: &DeploymentId) {
        let now = self.clock.now();
        let Some(key) = self.members.get(id).map(|member| member.key) else {
            return;
        };
        let Some((next, chance)) = self.placement.asked(client, key, now) else {
            return;
        };
        let Some(next_id) = self.placement.id(next).cloned() else {
            return;
        };
        let sleeps = self.members.get(&next_id).is_some_and(|member| {
            let unasked = member.fleet.lead().waiting() == 0 && !member.fleet.serves();
            member.machine.wakes_on_demand() && unasked
        });
        if sleeps {
            self.placement.foresee(next, chance);
            let after = id.clone();
            let why = Why::Foreseen { after, chance };
            self.turn.push_back((next_id, Event::Demand, Some(why)));
        }
    }

    /// Learns what workers were seen to hold of each GPU.
    pub(super) fn learn_sizes(&mut self, observation: &Observation) {
        let now = self.clock.now();
        let ids: Vec<DeploymentId> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get(&id) else {
                continue;
            };
            let phase = member.machine.phase;
            let settled = now.saturating_sub(member.entered) >= SETTLED;
            let asleep = match phase {
                Phase::Ready => false,
                Phase::Offloaded { .. } => true,
                _ => continue,
            };
            let seen = observation.of_worker(&id, member.machine.worker);
            let most = seen.into_iter().map(|(_, bytes)| bytes).max();
            let Some(bytes) = most.filter(|bytes| settled && *bytes > 0) else {
                continue;
            };
            self.placement.observe(member.key, bytes);
            self.timings.learn(&id, |timing| {
                if asleep {
                    timing.asleep_bytes = Some(bytes);
                } else {
                    timing.awake_bytes = timing.awake_bytes.max(Some(bytes));
                }
            });
            self.know(&id);
        }
    }

    /// Takes what the model of a deployment tells of the memory that it will need.
    pub(super) fn on_foretold(&mut self, id: &DeploymentId, digest: &str, fit: Arc<Fit>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        // Of an earlier spec it tells nothing.
        if *member.fingerprint == *digest {
            member.fit = Some(fit);
            self.know(id);
        }
    }

    /// Takes down how fast a worker that came up or woke answered its taste.
    pub(super) fn learn_taste(
        &mut self,
        id: &DeploymentId,
        change: impl FnOnce(&mut Timing, Option<f64>),
    ) {
        let running = self.members.get(id).and_then(|m| m.running.as_ref());
        let Some(figures) = running.and_then(|running| running.taste.newest()) else {
            return;
        };
        let speed = figures.tokens_per_second;
        tracing::info!(
            deployment.id = %id,
            tokens_per_second = speed,
            guesses_held = figures.guesses_held,
            "deployment {id} was tasted"
        );
        self.timings.learn(id, |timing| change(timing, Some(speed)));
    }

    /// Has rungs that failed tried again where the engine is another one by now.
    pub(super) fn is_upgraded(&mut self, id: &DeploymentId) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let (Some(failed), Some(version)) = (&member.rung_failed, member.version()) else {
            return;
        };
        if failed.version.as_deref() != Some(version) {
            let text = format!("its engine is version {version} now: what failed is tried again");
            member.tell(&self.events, text.into());
            self.turn.push_back((id.clone(), Event::Upgraded, None));
        }
    }

    /// Learns the size of the weights from the log of a worker that came up.
    pub(super) fn learn_weights(&mut self, id: &DeploymentId) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let ranks = member.gpus.len() as u64;
        let (lines, _) = member.handle.console.tail(usize::MAX);
        let lines = lines.iter().map(AsRef::as_ref);
        if let Some(bytes) = profile::weights_in(lines, ranks) {
            self.timings
                .learn(id, |timing| timing.weights_bytes = Some(bytes));
        }
    }
}
