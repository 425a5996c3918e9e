//! Scheduler that knows every arrival to come, for the comparison.
//!
//! A heuristic and no bound: the same placement, with what will happen in place
//! of what is expected, tried with several settings; the best run counts.

use std::sync::Arc;

use super::outcome::PlayedOutcome;
use super::scheduler::Ours;
use super::trace::Workload;
use super::world::World;
use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::placement::Foresight;
use crate::lifecycle::decide::policy::{Outlook, Params, Seconds};
use crate::time::Uptime;

/// The settings that are tried: all of these together.
const QUANTA: [f64; 4] = [0.0, 1.0, 2.0, 4.0];
const PATIENCES: [f64; 3] = [0.0, 1.0, 2.0];
const KAPPAS: [f64; 2] = [0.0, 0.3];

/// The arrivals of each deployment, in order.
#[derive(Debug)]
struct Known(Vec<Vec<Seconds>>);

impl Foresight for Known {
    fn outlook(&self, key: LedgerKey, now: Uptime) -> Box<dyn Outlook + '_> {
        let all = self.0.get(key.index()).map_or(&[][..], Vec::as_slice);
        let now = now.as_secs_f64();
        let passed = all.partition_point(|at| *at <= now);
        let coming = all.get(passed..).unwrap_or_default();
        Box::new(Coming { now, coming })
    }
}

struct Coming<'a> {
    now: Seconds,
    coming: &'a [Seconds],
}

impl Outlook for Coming<'_> {
    fn chance(&self, within: Seconds) -> f64 {
        let next = self.coming.first();
        f64::from(u8::from(next.is_some_and(|at| *at <= self.now + within)))
    }

    fn waits(&self, within: Seconds) -> Seconds {
        let end = self.now + within;
        let during = self.coming.iter().take_while(|at| **at <= end);
        during.map(|at| end - at).sum()
    }
}

/// The best run of a scheduler that knows all arrivals, by the total wait.
pub fn best_offline(trace: &Workload, params: Params) -> PlayedOutcome {
    let mut arrivals = vec![Vec::new(); trace.fleet.len()];
    for arrival in &trace.arrivals {
        if let Some(of_model) = arrivals.get_mut(arrival.model) {
            of_model.push(arrival.at);
        }
    }
    let known: Arc<dyn Foresight + Send + Sync> = Arc::new(Known(arrivals));
    let mut best: Option<PlayedOutcome> = None;
    for quantum in QUANTA {
        for patience in PATIENCES {
            for kappa in KAPPAS {
                let params = Params {
                    quantum,
                    patience,
                    kappa,
                    ..params
                };
                let ours = Ours::new(trace, params, Some(Arc::clone(&known)));
                let outcome = World::new(trace, ours, false).run();
                // A run that serves fewer has less to wait for.
                let better = best.as_ref().is_none_or(|best| {
                    let stuck = outcome.stuck.cmp(&best.stuck);
                    let waits = outcome.total_wait.total_cmp(&best.total_wait);
                    stuck.then(waits).is_lt()
                });
                if better {
                    best = Some(outcome);
                }
            }
        }
    }
    best.unwrap_or_default()
}
