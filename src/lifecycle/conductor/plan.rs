//! Changes that a catalog would bring if it were taken into effect: said, not done.

use std::sync::Arc;

use super::Conductor;
use crate::config::{self, Catalog, Roll};
use crate::gpu::Device;
use crate::lifecycle::conductor::member::Member;
use crate::lifecycle::control::{Change, Planned};
use crate::lifecycle::decide::machine::Phase;
use crate::lifecycle::decide::profile;
use crate::lifecycle::decide::profile::starts_at_boot;
use crate::units::counted;

impl Conductor {
    /// By difference, as `apply` goes about it; what stays the same is left out.
    pub(super) fn plan(&self, catalog: &Catalog) -> Vec<Planned> {
        let specs: Vec<_> = catalog
            .instances
            .iter()
            .flat_map(|instance| &instance.deployments)
            .collect();
        let mut planned: Vec<Planned> =
            specs.iter().filter_map(|spec| self.planned(spec)).collect();
        let firsts = self
            .members
            .values()
            .filter(|m| m.number() == 1 && !m.leaving);
        let gone = firsts.filter(|m| !specs.iter().any(|spec| spec.id == m.handle.id));
        planned.extend(gone.map(|member| Planned {
            deployment: member.handle.id.clone(),
            change: Change::Removed,
            words: match inside(member) {
                None => "removed; it has no worker".to_owned(),
                Some(0) => "removed; its worker is ended at once".to_owned(),
                Some(n) => format!(
                    "removed; its worker is ended once {} inside finished, after workers.drain_timeout at the latest",
                    counted(n, "request")
                ),
            },
            waits: false,
        }));
        planned.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        planned
    }

    fn devices(&self) -> Vec<Device> {
        let accounts = self.placement.ledger().accounts().iter();
        accounts.map(|account| account.device).collect()
    }

    fn planned(&self, spec: &Arc<config::Deployment>) -> Option<Planned> {
        let planned = |change, words: String| {
            Some(Planned {
                deployment: spec.id.clone(),
                change,
                words,
                waits: false,
            })
        };
        let never = profile::misfit(spec, &self.devices());
        let Some(member) = self.members.get(&spec.id).filter(|m| !m.leaving) else {
            let words = match never {
                Some(why) => format!("new, but it can never start: {why}"),
                None if starts_at_boot(spec) => "new; its worker is started at once".to_owned(),
                None => "new; its worker is started by its first request".to_owned(),
            };
            return planned(Change::Added, words);
        };
        if *member.spec == **spec {
            return None;
        }
        let live = live(&member.spec, spec);
        let fingerprint = self.effects.launcher.fingerprint(spec);
        if fingerprint == member.fingerprint {
            return planned(Change::Live, format!("{}; its worker goes on", said(&live)));
        }
        let words = match (inside(member), spec.roll) {
            (None, _) => {
                "other engine options, for its next start; it has no worker now".to_owned()
            }
            (Some(0), _) => {
                "other engine options: its worker is replaced at once, as no request is inside"
                    .to_owned()
            }
            (Some(n), Roll::Idle) => format!(
                "other engine options: its worker is replaced once no request is inside (now {n}); roll = \"now\" would drain it at once"
            ),
            (Some(n), Roll::Now) => format!(
                "other engine options: its worker is drained at once ({} inside: they may finish, new ones wait) and replaced",
                counted(n, "request")
            ),
        };
        let words = match never {
            Some(why) => format!("{words}; but with them it can never start: {why}"),
            None => words,
        };
        let words = if live.is_empty() {
            words
        } else {
            format!("{words}; {}", said(&live))
        };
        let waits = spec.roll == Roll::Idle && inside(member).is_some_and(|n| n > 0);
        planned(Change::Rolled, words).map(|planned| Planned { waits, ..planned })
    }
}

/// Requests inside its worker; `None` without one.
fn inside(member: &Member) -> Option<u32> {
    let has_worker = !matches!(
        member.machine.phase,
        Phase::Stopped | Phase::Fetching | Phase::Failed | Phase::Placing { .. }
    );
    (has_worker && member.running.is_some()).then(|| member.fleet.lead().gate.in_flight())
}

/// Names of the keys that differ and need no other worker.
fn live(old: &config::Deployment, new: &config::Deployment) -> Vec<&'static str> {
    let differs = [
        (
            old.max_concurrent_requests != new.max_concurrent_requests,
            "max_concurrent_requests",
        ),
        (
            old.max_request_duration != new.max_request_duration,
            "max_request_duration",
        ),
        (old.idle != new.idle, "idle times"),
        (old.replicas != new.replicas, "replicas"),
        (old.start != new.start, "start"),
        (old.keep != new.keep, "keep"),
        (old.roll != new.roll, "roll"),
    ];
    let differs = differs.into_iter().filter(|(differs, _)| *differs);
    differs.map(|(_, name)| name).collect()
}

fn said(live: &[&str]) -> String {
    match live {
        [] => "what differs takes effect at once".to_owned(),
        [name] => format!("{name} takes effect at once"),
        names => format!("{} take effect at once", names.join(", ")),
    }
}
