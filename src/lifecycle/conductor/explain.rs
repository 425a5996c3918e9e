//! Why a deployment runs or does not, and what a start of it would evict.

use super::super::ledger::Key;
use super::super::machine::{Desired, Phase};
use super::super::member::{Member, phase_name};
use super::super::placement::{Holder, Obstacle, Prospect, Stand, Standing};
use super::super::story::{self, seconds};
use super::super::{Evicted, Explanation};
use super::Conductor;
use crate::names::DeploymentId;
use crate::units::Bytes;

impl Conductor {
    /// Answers in words with figures; `None` for a deployment that there is not.
    pub(super) fn explain(&self, id: &DeploymentId) -> Option<Explanation> {
        let member = self.members.get(id)?;
        let now = self.clock.now();
        let view = |key: Key| {
            let member = self.placement.id(key).and_then(|id| self.members.get(id));
            member.map_or_else(Stand::absent, Member::stand)
        };
        let prospect = self.placement.prospect(member.key, now, &view);
        let mut lines = vec![self.state(member)];
        self.tell_needs(member, &mut lines);
        if let Some(prospect) = &prospect {
            self.tell_prospect(prospect, &mut lines);
        }
        let evicts = prospect.iter().flat_map(|prospect| &prospect.evicts);
        let evicts = evicts.filter_map(|eviction| {
            Some(Evicted {
                deployment: self.placement.id(eviction.victim)?.clone(),
                how: story::way(eviction.rest),
                words: story::leaves(eviction),
            })
        });
        let claim = self.placement.waits_for(member.key);
        let blocked = prospect.as_ref().and_then(|prospect| prospect.blocked);
        Some(Explanation {
            deployment: id.clone(),
            phase: phase_name(member.machine.phase),
            waits_for: claim.or(blocked).map(Obstacle::label),
            lines,
            evicts: evicts.collect(),
        })
    }

    /// How it stands, and why.
    fn state(&self, member: &Member) -> String {
        let phase = phase_name(member.machine.phase);
        let waits = match member.fleet.lead().waiting() {
            0 => String::new(),
            n => format!("; {n} request(s) wait for it"),
        };
        let since = story::span(self.clock.now().saturating_sub(member.entered));
        let why = match (member.machine.phase, &member.reason) {
            (Phase::Ready | Phase::Draining { .. }, _) => format!(
                "it is {phase} since {since} on GPU {:?} with {} request(s) inside",
                member.gpus,
                member.gate().in_flight()
            ),
            (Phase::Placing { .. }, _) => {
                let why = self.placement.waits_for(member.key);
                let why = why.map_or("it was not looked at yet", |why| why.words());
                format!("it waits for GPU memory since {since}: {why}")
            }
            (Phase::Starting, _) => match &member.progress {
                Some((words, percent)) => {
                    format!("it starts since {since}, {percent} % ({words})")
                }
                None => format!("it starts since {since}"),
            },
            (Phase::Stopped, _) if member.machine.desired == Desired::Down => {
                format!(
                    "it is stopped since {since}: an operator, or the end of its file, wants it down; `tidegate start` lets it run again"
                )
            }
            (Phase::Stopped, None) => {
                format!("it is stopped since {since}: no request has asked for it")
            }
            (Phase::Offloaded { at }, _) => format!(
                "it sleeps since {since}, its weights in {}: the next request wakes it",
                match at {
                    crate::config::OffloadTo::Cpu => "host memory",
                    crate::config::OffloadTo::Disk => "their files",
                }
            ),
            (_, Some(reason)) => format!("it is {phase} since {since}: {reason}"),
            (_, None) => format!("it is {phase} since {since}"),
        };
        let next = member
            .machine
            .deadline
            .filter(|_| member.machine.phase == Phase::Failed && member.machine.unwritten == 0);
        let next = next.map_or_else(String::new, |due| {
            let left = story::span(due.saturating_sub(self.clock.now()));
            format!("; it is tried again in {left}")
        });
        format!("{why}{next}{waits}")
    }

    /// What it takes, and what is expected of it.
    fn tell_needs(&self, member: &Member, lines: &mut Vec<String>) {
        let Some(estimate) = self.placement.estimate(member.key, self.clock.now()) else {
            return;
        };
        let (need, costs) = (&estimate.profile.need, &estimate.profile.costs);
        if let Some(account) = self.placement.ledger().accounts().first() {
            lines.push(format!(
                "it takes {} on each of {} GPU(s) awake and {} asleep, {} of host memory while its weights are there",
                Bytes(need.awake.on(account.device)),
                need.gpus.max(1),
                Bytes(need.asleep),
                Bytes(need.host)
            ));
        }
        lines.push(format!(
            "a start takes about {}, a wake {} from host memory or {} from disk",
            seconds(costs.start),
            seconds(costs.wake_cpu),
            seconds(costs.wake_disk)
        ));
        lines.push(format!(
            "expected: {:.1} requests an hour, of {} each",
            estimate.per_hour,
            seconds(estimate.service)
        ));
        if estimate.profile.pinned {
            lines.push("keep = true: nobody makes it leave".to_owned());
        }
    }

    fn tell_prospect(&self, prospect: &Prospect, lines: &mut Vec<String>) {
        let Some(why) = prospect.blocked else {
            let whom = match prospect.evicts.len() {
                0 => "nobody would leave".to_owned(),
                n => format!("{n} would leave for it"),
            };
            let gpus = match prospect.gpus.as_slice() {
                [] => String::new(),
                gpus => format!("would go to GPU {gpus:?}, and "),
            };
            lines.push(format!("a request now {gpus}{whom}"));
            for eviction in &prospect.evicts {
                if let Some(victim) = self.placement.id(eviction.victim) {
                    let how = story::way(eviction.rest);
                    lines.push(format!("  {victim} {how}: {}", story::leaves(eviction)));
                }
            }
            return;
        };
        let verb = match why {
            Obstacle::Small => "be refused",
            _ => "wait",
        };
        lines.push(format!("a request now would {verb}: {}", why.words()));
        for account in self.placement.ledger().accounts() {
            let holders = prospect.holders.iter();
            let mut holders = holders
                .filter(|holder| holder.gpu == account.device.index)
                .peekable();
            if holders.peek().is_none() {
                continue;
            }
            lines.push(format!(
                "  GPU {}: {} of {} free, {} promised, {} used by others",
                account.device.index,
                Bytes(account.free()),
                Bytes(account.device.memory),
                Bytes(account.promised),
                Bytes(account.foreign)
            ));
            for holder in holders {
                if let Some(id) = self.placement.id(holder.key) {
                    lines.push(format!("    {id} has {}", stands(holder)));
                }
            }
        }
    }
}

/// What one has, and why it can't be made to leave.
fn stands(holder: &Holder) -> String {
    let bytes = Bytes(holder.bytes);
    let how = match holder.standing {
        _ if holder.pinned => "keep = true".to_owned(),
        Standing::Absent => "about to start".to_owned(),
        Standing::Starting => "starting".to_owned(),
        Standing::Waking => "coming up, for requests that wait".to_owned(),
        Standing::Draining(_) => format!("leaves once {} request(s) have ended", holder.running),
        Standing::Leaving(_) => "leaving".to_owned(),
        Standing::Asleep(_) => "asleep".to_owned(),
        Standing::Ready(_) => {
            let when = match holder.may_leave_in {
                Some(wait) if wait > 0.0 => {
                    format!("may be asked to leave in {}", seconds(wait))
                }
                _ => "may be asked to leave".to_owned(),
            };
            match holder.running {
                0 => format!("idle, {when}"),
                n => format!("{n} request(s) inside, {when}"),
            }
        }
    };
    format!("{bytes}: {how}")
}
