//! Several workers of one deployment: which one a demand wakes, how many there are,
//! and which is replaced when options change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Conductor;
use crate::config::Roll;
use crate::lifecycle::conductor::member::{Member, Rolls};
use crate::lifecycle::decide::machine::{Desired, Event, Next, Phase, Rest};
use crate::lifecycle::decide::scale::{Patience, Scale, Verdict};
use crate::lifecycle::decide::why::Why;
use crate::names::DeploymentId;
use crate::time::Uptime;
use crate::units::counted;

/// Pause between two looks at the load of a deployment that may have several.
const LOOK: Duration = Duration::from_millis(500);

/// Memory of the load, by deployment.
#[derive(Debug, Default)]
pub(super) struct Scales {
    of: BTreeMap<DeploymentId, Scale>,
    looked: Uptime,
}

impl Conductor {
    /// A request waits for a deployment: the replica that is nearest to serving
    /// is told.
    pub(super) fn demand(&mut self, lead: &DeploymentId) {
        let replicas = self.replicas(lead);
        let nearest = replicas.min_by_key(|(_, member)| distance(member));
        if let Some((id, _)) = nearest {
            let told = (id.clone(), Event::Demand, None);
            self.turn.push_back(told);
        }
    }

    fn replicas(&self, lead: &DeploymentId) -> impl Iterator<Item = (&DeploymentId, &Member)> {
        let lead = lead.clone();
        let from = self.members.range(lead.clone()..);
        // Ids that begin alike stand together.
        from.take_while({
            let lead = lead.clone();
            move |(id, _)| id.as_str().starts_with(lead.as_str())
        })
        .filter(move |(id, _)| lead.has_replica(id))
    }

    /// True if a worker waits to be replaced.
    pub(super) fn rolls(&self) -> bool {
        self.members.values().any(Member::is_to_roll)
    }

    /// Replaces workers whose options changed, one of a deployment at a time.
    pub(super) fn roll(&mut self) {
        let waiting: Vec<DeploymentId> = self
            .members
            .iter()
            .filter(|(_, member)| member.is_to_roll())
            .map(|(id, _)| id.clone())
            .collect();
        let mut rolled = BTreeSet::new();
        for id in waiting {
            let Some(member) = self.members.get(&id) else {
                continue;
            };
            let is_due = match member.spec.roll {
                Roll::Now => true,
                Roll::Idle if member.rolls == Rolls::Hurried => true,
                Roll::Idle => member.gate().idle_since().is_some(),
            };
            let lead = member.fleet.lead().id.clone();
            let mut others = self.replicas(&lead).filter(|(other, _)| **other != id);
            let changing = others.any(|(_, other)| is_changing(other)) || rolled.contains(&lead);
            drop(others);
            let ready = member.machine.phase == Phase::Ready;
            let outdated = member.is_outdated();
            if ready && outdated && (!is_due || changing) {
                continue;
            }
            if let Some(member) = self.members.get_mut(&id) {
                member.rolls = Rolls::No;
            }
            if outdated {
                rolled.insert(lead);
                self.turn.push_back((id, Event::SpecChanged, None));
            }
        }
    }

    /// Time when loads are to be looked at again.
    pub(super) fn scale_due(&self) -> Option<Uptime> {
        let mut members = self.members.values();
        let several =
            members.any(|member| member.number() > 1 && (member.fleet.serves() || is_up(member)));
        several.then_some(self.scales.looked + LOOK)
    }

    /// Starts or drains replicas as the load asks.
    pub(super) fn scale(&mut self, now: Uptime) {
        if now < self.scales.looked + LOOK || self.ending.is_some() {
            return;
        }
        self.scales.looked = now;
        let leads: Vec<DeploymentId> = self
            .members
            .iter()
            .filter(|(_, member)| member.number() == 1 && member.spec.replicas.max > 1)
            .map(|(id, _)| id.clone())
            .collect();
        self.scales.of.retain(|id, _| leads.contains(id));
        for lead in leads {
            self.scale_one(&lead, now);
        }
    }

    fn scale_one(&mut self, lead: &DeploymentId, now: Uptime) {
        let Some(first) = self.members.get(lead) else {
            return;
        };
        let (replicas, handle) = (first.spec.replicas, first.fleet.lead());
        let requests = handle.gate.in_flight().saturating_add(handle.waiting());
        let requests = requests.saturating_add(handle.queued());
        let up = self.replicas(lead).filter(|(_, member)| is_up(member));
        let up = u32::try_from(up.count()).unwrap_or(u32::MAX);
        let patience = Patience {
            up: self.settings.workers.scale_up_after,
            down: self.settings.workers.scale_down_after,
        };
        let down = first.machine.desired == Desired::Down;
        let scale = self.scales.of.entry(lead.clone()).or_default();
        let verdict = scale.look(replicas, patience, requests, up, now);
        let (chosen, event, words) = match verdict {
            Verdict::Stay => return,
            Verdict::More if down => return,
            Verdict::More => {
                let off = self.replicas(lead).filter(|(_, member)| !is_up(member));
                (
                    off.min_by_key(|(_, member)| distance(member)),
                    Event::Start,
                    "more than",
                )
            }
            Verdict::Fewer => {
                let up = self.replicas(lead).filter(|(_, member)| is_up(member));
                (
                    up.max_by_key(|(_, member)| member.number()),
                    Event::Stop,
                    "which fewer can carry with at most",
                )
            }
        };
        let Some((id, _)) = chosen else { return };
        let each = replicas.requests_each;
        let why = Why::Load(format!(
            "{} on {}, {words} {each} each",
            counted(requests, "request"),
            counted(up, "replica")
        ));
        self.turn.push_back((id.clone(), event, Some(why)));
    }
}

/// True if it serves, or will without a further word.
fn is_up(member: &Member) -> bool {
    match member.machine.phase {
        Phase::Ready
        | Phase::Fetching
        | Phase::Starting
        | Phase::Waking { .. }
        | Phase::Placing { .. } => true,
        Phase::Draining { rest } => rest == Rest::Restart,
        Phase::Stopping { next, .. } => next != Next::Rest,
        Phase::Failed => member.machine.wanted,
        Phase::Stopped | Phase::Offloading { .. } | Phase::Offloaded { .. } => false,
    }
}

/// True if it does not serve yet or any more, and will without a further word.
fn is_changing(member: &Member) -> bool {
    is_up(member) && member.machine.phase != Phase::Ready
}

/// Distance of a replica from serving; demands go to the nearest.
fn distance(member: &Member) -> (u32, u32) {
    let steps = match member.machine.phase {
        Phase::Ready => 0,
        Phase::Waking { .. } => 1,
        Phase::Starting => 2,
        Phase::Placing { .. } => 3,
        Phase::Offloaded { .. } | Phase::Offloading { .. } => 4,
        Phase::Fetching => 5,
        Phase::Draining { .. } | Phase::Stopping { .. } if member.number() == 1 => 5,
        Phase::Stopped if member.number() == 1 => 6,
        // Its waiters are refused where it has failed for good.
        Phase::Failed if member.number() == 1 => 7,
        _ => 8,
    };
    (steps, member.number())
}
