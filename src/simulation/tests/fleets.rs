//! Deployments that fit an empty machine are served, whatever the others are.
//!
//! `TIDEGATE_FLEETS=10000` makes it long, `TIDEGATE_FLEET=1052` plays that one.

use super::*;
use crate::config::OffloadTo;
use crate::lifecycle::decide::ledger::LedgerKey;
use crate::lifecycle::decide::placement::{Decision, Obstacle, Standing, View};
use crate::lifecycle::decide::policy::Seconds;
use crate::lifecycle::decide::policy::costs::Costs;
use crate::random::Dice;
use crate::simulation::scheduler::Scheduler;
use crate::simulation::trace::Model;
use crate::simulation::trace::PlayedMachine;
use crate::time::Uptime;

const GIB: u64 = 1 << 30;
const GPU: u64 = 80 * GIB;
/// Fleets of a run where no number is named.
const FLEETS: u64 = 200;
/// Fleets in which someone waited too long once: a younger one was let in where memory was
/// still being freed, or was freed later than expected (1052, 1069). And one in which those
/// ahead waited for each other on several GPUs (210).
const HARD: [u64; 3] = [210, 1052, 1069];

/// Our placement, and after each pass: what it would answer about each claim that
/// waits must be what it finds there.
struct Checked(Ours);

impl Checked {
    fn check(&self, key: LedgerKey, now: Uptime, view: &View<'_>) {
        let Some(claimed) = self.0.0.waits_for(key) else {
            return;
        };
        let prospect = self.0.0.prospect(key, now, view);
        let Some(prospect) = prospect else {
            return assert!(view(key).held == 0, "no word about {key:?}");
        };
        let Some(why) = prospect.blocked else {
            return;
        };
        let accounts = self.0.0.ledger().accounts();
        let promised = accounts.iter().any(|account| account.promised > 0);
        // A worker that could be asked to leave at once is no reason to wait.
        let hinders = prospect.holders.iter().any(|holder| {
            let free = matches!(holder.standing, Standing::Ready(_)) && !holder.replica;
            !free || holder.pinned || holder.may_leave_in != Some(0.0)
        });
        let true_word = match why {
            Obstacle::Busy => hinders,
            Obstacle::Kept => prospect.holders.iter().any(|h| h.pinned || h.replica),
            Obstacle::Foreign => accounts.iter().any(|account| account.foreign > 0),
            Obstacle::Promised => promised || hinders,
            Obstacle::Leaving | Obstacle::Unsettled => claimed == why,
            Obstacle::Small | Obstacle::New | Obstacle::Turn => false,
            Obstacle::Reserved
            | Obstacle::Measuring
            | Obstacle::Unwanted
            | Obstacle::Elsewhere
            | Obstacle::Costly => true,
        };
        assert!(
            true_word,
            "{key:?}: {why:?}, claim {claimed:?}: {prospect:?}"
        );
    }
}

impl Scheduler for Checked {
    fn arrived(&mut self, key: LedgerKey, now: Uptime) {
        self.0.arrived(key, now);
    }
    fn served(&mut self, key: LedgerKey, took: Seconds) {
        self.0.served(key, took);
    }
    fn adopt(&mut self, key: LedgerKey, gpus: &[u32], asleep: OffloadTo) {
        self.0.adopt(key, gpus, asleep);
    }
    fn ask(&mut self, key: LedgerKey) {
        self.0.ask(key);
    }
    fn cancel(&mut self, key: LedgerKey) {
        self.0.cancel(key);
    }
    fn shrink(&mut self, key: LedgerKey) {
        self.0.shrink(key);
    }
    fn release(&mut self, key: LedgerKey) {
        self.0.release(key);
    }
    fn keep_on_host(&mut self, key: LedgerKey, keeps: bool) {
        self.0.keep_on_host(key, keeps);
    }
    fn touch(&mut self, key: LedgerKey) {
        self.0.touch(key);
    }
    fn plan(&mut self, now: Uptime, view: &View<'_>) -> Vec<Decision> {
        let decisions = self.0.plan(now, view);
        for key in (0..self.0.0.ids().len()).map(|n| LedgerKey(u32::try_from(n).unwrap())) {
            self.check(key, now, view);
        }
        decisions
    }
    fn look_at(&self) -> Option<Uptime> {
        self.0.look_at()
    }
    fn places(&self, key: LedgerKey) -> Option<Vec<usize>> {
        self.0.places(key)
    }
    fn wait_bound(&self) -> Duration {
        self.0.wait_bound()
    }
}

fn model(name: &str, gpus: usize, awake: u64, asleep: u64) -> Model {
    let weights = awake / 5 * 4 * gpus as u64;
    Model {
        awake,
        asleep,
        costs: Costs::expected(weights, gpus),
        ..Model::of_size(name, weights.max(1), gpus)
    }
}

/// From nothing to all of it, the ends more often than chance would have them.
fn some(dice: &mut Dice, all: u64) -> u64 {
    match dice.below(6) {
        0 => 0,
        1 => all,
        2 => all - all.min(GIB),
        _ => dice.number() % (all + 1),
    }
}

/// A fleet of which each fits beside all that is kept, and requests for it.
fn fleet(seed: u64) -> Workload {
    let mut dice = Dice::new(seed);
    let gpus = 1 + dice.below(8);
    let kept = dice.below(3);
    // Wherever they stand: so much is never there for others.
    let kept_bytes = 8 * GIB * kept as u64;
    let mut models = Vec::new();
    for number in 0..2 + dice.below(9) {
        let (width, room) = (1 + dice.below(gpus), GPU - kept_bytes);
        let awake = some(&mut dice, room).max(GIB);
        let asleep = some(&mut dice, awake);
        models.push(model(&format!("m{number}"), width, awake, asleep));
    }
    for number in 0..kept {
        let asleep = some(&mut dice, 8 * GIB);
        let mut model = model(&format!("kept{number}"), 1, 8 * GIB, asleep);
        model.keep = true;
        models.push(model);
    }
    let machine = PlayedMachine {
        gpus,
        gpu_memory: GPU,
        host_memory: some(&mut dice, 128 * GIB * gpus as u64),
    };
    let mut trace = Workload::on("random", machine, models, 1_200.0);
    // What sleeps can't have more than there is.
    let mut left = vec![GPU; gpus];
    for model in &mut trace.fleet {
        let least = model.home.iter().map(|place| left[*place]).min().unwrap();
        model.asleep = model.asleep.min(least);
        for place in &model.home {
            left[*place] -= model.asleep;
        }
    }
    let (count, burst) = (20 + dice.below(100), dice.happens(0.3));
    for _ in 0..count {
        let at = if burst { 0.0 } else { dice.part() * 1_200.0 };
        let number = dice.below(trace.fleet.len());
        let work = dice.exponential(8.0).clamp(0.1, 60.0);
        trace.push(at, number, work, None);
    }
    trace.sort();
    trace
}

fn checked(trace: &Workload) -> PlayedOutcome {
    let ours = Ours::new(trace, default_params(), None);
    World::new(trace, Checked(ours), false).run()
}

#[test]
fn whoever_fits_an_empty_machine_is_served_within_the_bound() {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let all = 0..number("TIDEGATE_FLEETS").unwrap_or(FLEETS);
    let one = number("TIDEGATE_FLEET").map(|seed| vec![seed]);
    let seeds = one.unwrap_or_else(|| HARD.into_iter().chain(all).collect());
    for seed in seeds {
        let trace = fleet(seed);
        let outcome = checked(&trace);
        assert_eq!(
            outcome.stuck, 0,
            "{seed}: {:?} {trace:?}",
            outcome.stuck_for
        );
        assert_eq!(outcome.refused, 0, "{seed}");
        assert_eq!(outcome.served, trace.arrivals.len(), "{seed}");
        assert!(outcome.beyond_bound <= 0.0, "{seed}: {outcome:?}");
    }
}

#[test]
fn what_sleepers_keep_does_not_keep_the_large_one_out() {
    // Three idle ones of 16 GiB keep 1 GiB each asleep, where 2 GiB are to spare.
    let mut models: Vec<Model> = (0..3)
        .map(|n| model(&format!("small{n}"), 1, 16 * GIB, GIB))
        .collect();
    models.push(model("large", 1, 78 * GIB, GIB));
    let machine = PlayedMachine {
        gpus: 1,
        gpu_memory: GPU,
        host_memory: 128 * GIB,
    };
    let mut trace = Workload::on("residue", machine, models, 100.0);
    for (at, number) in [(0.0, 0), (0.0, 1), (0.0, 2), (60.0, 3), (90.0, 3)] {
        trace.push(at, number, 1.0, None);
    }
    let outcome = checked(&trace);
    assert_eq!((outcome.served, outcome.stuck), (5, 0), "{outcome:?}");
    assert!(
        outcome.longest < 120.0,
        "without waiting to be overdue: {outcome:?}"
    );
    // The others make no room for it, and that is said.
    let lru = run(&trace, Scheme::Lru, default_params());
    assert_eq!((lru.stuck, lru.stuck_for), (2, vec!["large".to_owned()]));
}

#[test]
fn a_run_in_which_nothing_moves_any_more_ends_and_names_for_whom() {
    let mut kept = model("kept", 1, 40 * GIB, GIB);
    kept.keep = true;
    let models = vec![kept, model("large", 1, 60 * GIB, 0)];
    let machine = PlayedMachine {
        gpus: 1,
        gpu_memory: GPU,
        host_memory: 0,
    };
    let mut trace = Workload::on("kept", machine, models, 10.0);
    trace.push(0.0, 0, 1.0, None);
    trace.push(5.0, 1, 1.0, None);
    let outcome = run(&trace, Scheme::Ours, default_params());
    assert_eq!((outcome.served, outcome.stuck), (1, 1));
    assert_eq!(outcome.stuck_for, ["large"]);
}
