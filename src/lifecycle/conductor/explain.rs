//! Reasons why a deployment runs or does not, and what a start of it would evict.

use super::Conductor;
use super::member::Member;
use crate::config::{OffloadTo, Roll};
use crate::deployment::Telling;
use crate::lifecycle::control::{Evicted, Explanation};
use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::machine::{Desired, Phase, Rest};
use crate::lifecycle::decide::placement::{Obstacle, Occupant, Prospect, Stand, Standing};
use crate::lifecycle::tell::story::{self, phase_name};
use crate::lifecycle::tell::story::{gpu_list, seconds};
use crate::names::DeploymentId;
use crate::store::timings::Timing;
use crate::units::{Bytes, Span, counted};

impl Conductor {
    /// Answers in words with figures; `None` for a deployment that there is not.
    pub(super) fn explain(&self, id: &DeploymentId) -> Option<Explanation> {
        let member = self.members.get(id)?;
        let now = self.clock.now();
        let view = |key: LedgerKey| {
            let member = self.placement.id(key).and_then(|id| self.members.get(id));
            member.map_or_else(Stand::absent, Member::stand)
        };
        let prospect = self.placement.prospect(member.key, now, &view);
        let mut lines = vec![self.state(member, prospect.as_ref())];
        if member.is_to_roll() && member.is_outdated() {
            lines.push(
                format!(
                    "its options have changed: it is replaced {}",
                    match member.spec.roll {
                        Roll::Idle => "once no request is inside (roll = \"idle\")",
                        Roll::Now => "as soon as no other replica of it changes (roll = \"now\")",
                    }
                )
                .into(),
            );
        }
        self.tell_needs(member, &mut lines);
        let estimate = self.placement.estimate(member.key, now);
        let never = estimate.and_then(|e| self.placement.never_fits(&e.profile.need));
        match (never, &prospect) {
            (Some(_), _) => {
                lines.push("a request now would be refused: it can never fit".into());
            }
            (None, Some(prospect)) => self.tell_prospect(prospect, &mut lines),
            (None, None) => {}
        }
        let evicts = prospect.iter().flat_map(|prospect| &prospect.evicts);
        let evicts = evicts.filter_map(|eviction| {
            Some(Evicted {
                deployment: self.placement.id(eviction.victim)?.clone(),
                how: story::way(eviction.rest),
                words: story::leaves(eviction),
            })
        });
        let blocked = prospect.as_ref().and_then(|prospect| prospect.blocked);
        Some(Explanation {
            deployment: id.clone(),
            phase: phase_name(member.machine.phase),
            waits_for: blocked.map(Obstacle::label),
            lines,
            evicts: evicts.collect(),
        })
    }

    /// State of a deployment, and the reason.
    fn state(&self, member: &Member, prospect: Option<&Prospect>) -> Telling {
        let phase = phase_name(member.machine.phase);
        let waits = match member.fleet.lead().waiting() {
            0 => String::new(),
            1 => "; 1 request waits for it".to_owned(),
            n => format!("; {n} requests wait for it"),
        };
        let since = story::span(self.clock.now().saturating_sub(member.entered));
        let why: Telling = match (member.machine.phase, &member.reason) {
            (Phase::Ready | Phase::Draining { .. }, _) => format!(
                "it has been {phase} for {since}{}, with {} inside",
                match member.gpus.as_ref() {
                    [] => String::new(),
                    gpus => format!(" on {}", gpu_list(gpus)),
                },
                counted(member.gate().in_flight(), "request")
            )
            .into(),
            (Phase::Fetching, _) => fetching(member, since).into(),
            (Phase::Placing { .. }, _) => {
                // What holds now, not when it was last looked at.
                let why = prospect.and_then(|prospect| prospect.blocked);
                let why = why.map_or("it has room now, and goes on at once", Obstacle::words);
                format!("it has waited for GPU memory for {since}: {why}").into()
            }
            (Phase::Starting, _) => match &member.progress {
                Some((words, percent)) => {
                    format!("it has been starting for {since}, {percent} % ({words})").into()
                }
                None => format!("it has been starting for {since}").into(),
            },
            (Phase::Stopped, _) if member.machine.desired == Desired::Down => {
                format!(
                    "it has been stopped for {since}: an operator, or the end of its file, wants it down; a start lets it run again"
                )
                .into()
            }
            (Phase::Stopped, None) => {
                format!("it has been stopped for {since}: no request has asked for it").into()
            }
            (Phase::Offloaded { at }, _) => format!(
                "it has slept for {since}, its weights in {}: the next request wakes it",
                match at {
                    OffloadTo::Cpu => "host memory",
                    OffloadTo::Disk => "their files",
                }
            )
            .into(),
            // Its reason says when it is tried again.
            (Phase::Failed, Some(reason)) if member.machine.unwritten > 0 => {
                reason.after(format!("it could not start, {since} ago{waits}: "))
            }
            (Phase::Failed, reason) => {
                let next = match member.machine.deadline {
                    Some(due) => {
                        let left = story::span(due.saturating_sub(self.clock.now()));
                        format!("tried again in {left}")
                    }
                    None => "not tried again until it is started or changed".to_owned(),
                };
                let failed = format!("it failed {since} ago, and is {next}{waits}: ");
                reason.clone().unwrap_or_else(|| "".into()).after(failed)
            }
            (_, Some(reason)) => reason.after(format!("it has been {phase} for {since}: ")),
            (_, None) => format!("it has been {phase} for {since}").into(),
        };
        match member.machine.phase {
            Phase::Failed => why,
            _ => why.then(waits),
        }
    }

    /// Needs of a deployment, and what is expected of it.
    fn tell_needs(&self, member: &Member, lines: &mut Vec<Telling>) {
        let Some(estimate) = self.placement.estimate(member.key, self.clock.now()) else {
            return;
        };
        let (need, costs) = (&estimate.profile.need, &estimate.profile.costs);
        if let Some(account) = self.placement.ledger().accounts().first() {
            let each = match need.gpus {
                0 | 1 => "a GPU".to_owned(),
                n => format!("each of {n} GPUs"),
            };
            lines.push(format!(
                "it takes {} of {each} awake and {} asleep, {} of host memory while its weights are there",
                Bytes(need.awake.on(account.device)),
                Bytes(need.asleep),
                Bytes(need.host)
            ).into());
            if let Some(fit) = &member.fit {
                let words = fit.words(account.device.memory);
                lines.push(format!("by its weights it {words}").into());
            }
        }
        lines.push(
            format!(
                "a start takes about {}, a wake {} from host memory or {} from disk",
                seconds(costs.start),
                seconds(costs.wake_cpu),
                seconds(costs.wake_disk)
            )
            .into(),
        );
        let timing = self.timings.get(&member.handle.id);
        lines.extend(tasted(&timing).map(Telling::from));
        let (way, why) = self.placement.way_and_why(member.key);
        let how = match way {
            Rest::Offload(OffloadTo::Cpu) => "its weights go to host memory (level 1)",
            Rest::Offload(OffloadTo::Disk) => "its weights are dropped, to be read again (level 2)",
            Rest::Stop | Rest::Restart => "it ends",
        };
        lines.push(format!("where it leaves the GPU, {how}: {why}").into());
        lines.push(
            format!(
                "expected: {:.1} requests an hour, of {} each",
                estimate.per_hour,
                seconds(estimate.service)
            )
            .into(),
        );
        if estimate.profile.pinned {
            lines.push("keep = true: nobody makes it leave".into());
        }
        let kept = member.kept_until().saturating_sub(self.clock.now());
        if member.machine.phase == Phase::Ready && !kept.is_zero() {
            lines.push(
                format!(
                    "a client wants it awake for another {} (keep_alive): its idle limits wait for that, and against others it counts as one request that waits",
                    story::span(kept)
                )
                .into(),
            );
        }
    }

    fn tell_prospect(&self, prospect: &Prospect, lines: &mut Vec<Telling>) {
        let Some(why) = prospect.blocked else {
            let whom = match prospect.evicts.len() {
                0 => "nobody would leave".to_owned(),
                n => format!("{n} would leave for it"),
            };
            let gpus = match prospect.gpus.as_slice() {
                [] => String::new(),
                gpus => format!("would go to {}, and ", gpu_list(gpus)),
            };
            lines.push(format!("a request now {gpus}{whom}").into());
            for eviction in &prospect.evicts {
                if let Some(victim) = self.placement.id(eviction.victim) {
                    let how = story::way(eviction.rest);
                    let leaves = format!(" {how}: {}", story::leaves(eviction));
                    lines.push(Telling::from_iter([
                        "  ".into(),
                        victim.into(),
                        leaves.into(),
                    ]));
                }
            }
            return;
        };
        let verb = match why {
            Obstacle::Small => "be refused",
            _ => "wait",
        };
        lines.push(format!("a request now would {verb}: {}", why.words()).into());
        for account in self.placement.ledger().accounts() {
            let holders = prospect.holders.iter();
            let mut holders = holders
                .filter(|holder| holder.gpu == account.device.index)
                .peekable();
            if holders.peek().is_none() && account.foreign == 0 {
                continue;
            }
            lines.push(
                format!(
                    "  GPU {}: {} of {} free, {} promised, {} used by others",
                    account.device.index,
                    Bytes(account.free()),
                    Bytes(account.device.memory),
                    Bytes(account.promised),
                    Bytes(account.foreign)
                )
                .into(),
            );
            for holder in holders {
                if let Some(id) = self.placement.id(holder.key) {
                    let has = format!(" has {}", stands(holder));
                    lines.push(Telling::from_iter(["    ".into(), id.into(), has.into()]));
                }
            }
        }
    }
}

/// Speeds of its tastes; `None` before the first.
fn tasted(timing: &Timing) -> Option<String> {
    let start = timing.taste_start?;
    let woken = match timing.taste_wake {
        Some(wake) => format!(", and {wake:.0} after its last wake"),
        None => String::new(),
    };
    Some(format!(
        "its taste made {start:.0} tokens each second when it came up{woken}"
    ))
}

/// Holding of an occupant, and the reason why it can't be made to leave.
fn stands(holder: &Occupant) -> String {
    let bytes = Bytes(holder.bytes);
    let how = match holder.standing {
        _ if holder.pinned => "keep = true".to_owned(),
        Standing::Ready(_) if holder.replica => "another replica of it, which stays".to_owned(),
        Standing::Absent => "about to start".to_owned(),
        Standing::Starting => "starting".to_owned(),
        Standing::Waking => "coming up, for requests that wait".to_owned(),
        Standing::Draining(_) => {
            let inside = counted(holder.running, "request");
            format!("leaves once {inside} inside ended")
        }
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
                n => format!("{} inside, {when}", counted(n, "request")),
            }
        }
    };
    format!("{bytes}: {how}")
}

/// State of a model's fetch that has gone on for so long.
fn fetching(member: &Member, since: Span) -> String {
    match &member.progress {
        Some((words, percent)) => format!(
            "its model has been fetched for {since}, {percent} % ({words}); it asks for GPU memory after that"
        ),
        None => format!(
            "its model has been looked for, or waits for its turn ([models] fetches_max), for {since}"
        ),
    }
}
