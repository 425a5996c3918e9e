mod levels;
mod recall;
mod turns;

use std::time::Duration;

use super::*;
use crate::lifecycle::decide::machine::Rest;
use crate::lifecycle::decide::policy::costs::Costs;

const GIB: u64 = 1 << 30;

fn id(name: &str) -> DeploymentId {
    DeploymentId::parse(&format!("t/{name}")).unwrap()
}

fn secs(seconds: u64) -> Uptime {
    Duration::from_secs(seconds)
}

fn params() -> Params {
    Params {
        quantum: 4.0,
        patience: 2.0,
        kappa: 0.15,
        wait_bound: secs(120),
        switch_share_max: 1.0,
        prefetch: false,
    }
}

/// One that starts in five seconds.
fn quick(gib: u64) -> Profile {
    let costs = Costs {
        start: 5.0,
        ..profile(gib).costs
    };
    Profile {
        costs,
        ..profile(gib)
    }
}

/// A placement, and how each deployment stands.
struct Stage {
    placement: Placement,
    stands: Vec<Stand>,
    /// Obstacles that the last pass said claims wait for.
    waits: Vec<Decision>,
    now: Uptime,
}

fn profile(gib: u64) -> Profile {
    Profile {
        need: MemoryNeed {
            gpus: 1,
            awake: Amount::Bytes(gib * GIB),
            asleep: GIB,
            host: gib * GIB,
        },
        costs: Costs::expected(gib * GIB, 1),
        rungs: Rungs {
            cpu: true,
            disk: true,
        },
        pinned: false,
        keeps_host: false,
    }
}

impl Stage {
    fn on(memory: &[u64]) -> Self {
        let memory: Vec<_> = memory.iter().map(|gib| gib * GIB).collect();
        let devices = crate::gpu::Inventory::simulated(&memory).devices;
        Self {
            placement: Placement::new(devices, 256 * GIB, params()),
            stands: Vec::new(),
            waits: Vec::new(),
            now: secs(1_000),
        }
    }

    fn know(&mut self, name: &str, profile: Profile) -> LedgerKey {
        let key = self.placement.know(&id(name), profile, Uptime::ZERO);
        self.stands.push(Stand::absent());
        key
    }

    fn stand(&mut self, key: LedgerKey) -> &mut Stand {
        &mut self.stands[key.index()]
    }

    fn plan(&mut self) -> Vec<Decision> {
        let stands = &self.stands;
        self.placement.touch_all();
        let decisions = self.placement.plan(self.now, &|key| stands[key.index()]);
        for decision in &decisions {
            let stand = &mut self.stands[decision.key().index()];
            match decision {
                Decision::Evict(eviction) => stand.standing = Standing::Draining(eviction.rest),
                Decision::Spare(_) => stand.standing = Standing::Ready(self.now),
                _ => {}
            }
        }
        let (waits, others) = decisions
            .into_iter()
            .partition(|decision| matches!(decision, Decision::Wait(..)));
        self.waits = waits;
        others
    }

    /// A request waits for it since then.
    fn ask(&mut self, key: LedgerKey, since: Uptime) -> Vec<Decision> {
        let waited = self.now.saturating_sub(since).as_secs_f64();
        let stand = self.stand(key);
        (stand.held, stand.head, stand.waited) = (1, Some(since), waited);
        self.placement.ask(key);
        self.plan()
    }

    /// Brings one up that serves since then, with so many requests inside.
    fn serving(&mut self, name: &str, profile: Profile, since: Uptime, running: u32) -> LedgerKey {
        let key = self.know(name, profile);
        let decisions = self.ask(key, self.now);
        assert_eq!(decisions, [Decision::Grant(key)], "{name}");
        *self.stand(key) = Stand {
            standing: Standing::Ready(since),
            running,
            idle_since: (running == 0).then_some(since),
            ..Stand::absent()
        };
        key
    }

    /// It has left as it was told.
    fn left(&mut self, key: LedgerKey) {
        self.placement.shrink(key);
        self.stand(key).standing = Standing::Asleep(OffloadTo::Disk);
    }
}

fn evicted(decisions: &[Decision]) -> Vec<LedgerKey> {
    let victim = |decision: &Decision| match decision {
        Decision::Evict(eviction) => Some(eviction.victim),
        _ => None,
    };
    decisions.iter().filter_map(victim).collect()
}

#[test]
fn without_gpus_everything_is_granted() {
    let mut stage = Stage::on(&[]);
    let a = stage.know("a", profile(1_000));
    assert_eq!(stage.ask(a, secs(1_000)), [Decision::Grant(a)]);
}

#[test]
fn the_fullest_gpu_that_fits_is_taken() {
    let mut stage = Stage::on(&[80, 40]);
    let a = stage.serving("a", profile(30), secs(0), 0);
    let b = stage.serving("b", profile(30), secs(0), 0);
    assert_eq!(*stage.placement.gpus_of(a), [1]);
    assert_eq!(*stage.placement.gpus_of(b), [0]);
}

#[test]
fn several_gpus_are_granted_together_or_not_at_all() {
    let mut stage = Stage::on(&[80, 80]);
    let pinned = Profile {
        pinned: true,
        ..profile(50)
    };
    let a = stage.serving("a", pinned, secs(0), 0);
    let mut two = profile(40);
    two.need.gpus = 2;
    let b = stage.know("b", two);
    assert_eq!(stage.ask(b, secs(1_000)), []);
    assert_eq!(stage.waits, [Decision::Wait(b, Obstacle::Kept)]);
    assert_eq!(stage.plan(), []);
    assert_eq!(stage.waits, [], "said once");
    assert!(stage.placement.gpus_of(b).is_empty());
    stage.placement.release(a);
    assert_eq!(stage.plan(), [Decision::Grant(b)]);
    assert_eq!(*stage.placement.gpus_of(b), [0, 1]);
}

#[test]
fn what_never_fits_is_refused_with_figures() {
    let mut stage = Stage::on(&[80]);
    let a = stage.know("a", profile(100));
    let decisions = stage.ask(a, secs(1_000));
    let [Decision::Refuse(_, why)] = decisions.as_slice() else {
        panic!("{decisions:?}");
    };
    assert!(why.contains("100GiB") && why.contains("80GiB"), "{why}");
}

#[test]
fn the_one_that_is_missed_least_leaves_and_no_more_than_needed() {
    let mut stage = Stage::on(&[80]);
    let keys = ["a", "b", "c"].map(|name| stage.serving(name, profile(25), secs(0), 0));
    for second in 500..1_000 {
        let now = secs(second);
        stage.placement.arrived(keys[0], 1, now, now);
        if second % 10 == 0 {
            stage.placement.arrived(keys[2], 1, now, now);
        }
    }
    let d = stage.know("d", profile(25));
    let decisions = stage.ask(d, secs(990));
    assert_eq!(evicted(&decisions), [keys[1]], "nobody asks for it");
    assert_eq!(stage.plan(), [], "it waits");
    stage.left(keys[1]);
    assert_eq!(stage.plan(), [Decision::Grant(d)]);
}

#[test]
fn one_that_a_client_wants_awake_counts_as_busy_and_as_one_who_waits() {
    let mut stage = Stage::on(&[80]);
    let keys = ["a", "b"].map(|name| stage.serving(name, profile(35), secs(0), 0));
    stage.stand(keys[0]).is_kept = true;
    let c = stage.know("c", profile(35));
    assert_eq!(evicted(&stage.ask(c, secs(990))), [keys[1]]);
    // Alone, it leaves for the overdue, as any does, and for nobody at once.
    for (wait, leaves) in [(1, false), (121, true)] {
        let mut stage = Stage::on(&[80]);
        let a = stage.serving("a", profile(60), secs(0), 0);
        stage.stand(a).is_kept = true;
        let b = stage.know("b", profile(60));
        assert_eq!(
            evicted(&stage.ask(b, secs(1_000 - wait))) == [a],
            leaves,
            "{wait}"
        );
    }
}

#[test]
fn a_busy_one_leaves_after_its_window_for_one_that_has_waited() {
    // Its own wake, its sleep and the other's wake take 44.6 s: four times that.
    for (up, wait, leaves) in [(170, 60, false), (300, 1, false), (300, 100, true)] {
        let mut stage = Stage::on(&[80]);
        let a = stage.serving("a", profile(60), secs(1_000 - up), 1);
        let b = stage.know("b", profile(60));
        stage.placement.adopt(b, &[0], Some(OffloadTo::Disk));
        stage.stand(b).standing = Standing::Asleep(OffloadTo::Disk);
        let decisions = stage.ask(b, secs(1_000 - wait));
        assert_eq!(evicted(&decisions) == [a], leaves, "{up} {wait}");
    }
}

#[test]
fn the_overdue_waives_every_condition_but_never_moves_a_pinned_one() {
    for (pinned, leaves) in [(false, true), (true, false)] {
        let mut stage = Stage::on(&[80]);
        let profile_of_a = Profile {
            pinned,
            ..profile(60)
        };
        let a = stage.serving("a", profile_of_a, secs(999), 3);
        let b = stage.know("b", profile(60));
        let decisions = stage.ask(b, secs(1_000 - 121));
        assert_eq!(evicted(&decisions) == [a], leaves);
    }
}

#[test]
fn the_overdue_keeps_its_gpu_from_younger_claims_but_not_another() {
    let mut stage = Stage::on(&[80, 20]);
    let a = stage.serving("a", profile(70), secs(0), 0);
    // It comes up: nobody can leave yet.
    stage.stand(a).standing = Standing::Waking;
    let old = stage.know("old", profile(60));
    assert_eq!(stage.ask(old, secs(800)), []);
    let (small, late) = (
        stage.know("small", profile(15)),
        stage.know("late", profile(8)),
    );
    assert_eq!(stage.ask(small, secs(990)), [Decision::Grant(small)]);
    assert_eq!(*stage.placement.gpus_of(small), [1]);
    assert_eq!(
        stage.ask(late, secs(990)),
        [],
        "there is room on GPU 0, but it is kept"
    );
}

#[test]
fn what_a_younger_claim_was_promised_goes_to_one_that_becomes_overdue() {
    let mut stage = Stage::on(&[82]);
    let small = stage.serving("small", profile(40), secs(900), 0);
    let busy = stage.serving("busy", profile(40), secs(999), 9);
    let large = stage.know("large", profile(80));
    let young = stage.know("young", quick(40));
    assert_eq!(stage.ask(large, secs(930)), [], "the busy one stays");
    assert_eq!(evicted(&stage.ask(young, secs(980))), [small]);
    stage.now = secs(1_051);
    assert_eq!(evicted(&stage.plan()), [busy], "it is overdue");
    stage.left(small);
    assert_eq!(
        stage.plan(),
        [],
        "the room is not the younger one's any more"
    );
    stage.left(busy);
    stage.placement.release(small);
    stage.placement.release(busy);
    assert_eq!(stage.plan(), [Decision::Grant(large)]);
}

#[test]
fn a_switch_that_would_outlast_an_older_ones_patience_is_not_begun() {
    let mut stage = Stage::on(&[80]);
    stage.serving("busy", profile(40), secs(999), 9);
    let large = stage.know("large", profile(80));
    let young = stage.know("young", profile(20));
    assert_eq!(stage.ask(large, secs(930)), []);
    // It is overdue in 50 s, and a start takes 60.
    assert_eq!(stage.ask(young, secs(990)), []);
    let kept = Decision::Wait(young, Obstacle::Reserved);
    assert!(stage.waits.contains(&kept), "{:?}", stage.waits);
}

#[test]
fn one_that_waits_for_what_never_leaves_keeps_no_one_back() {
    let mut stage = Stage::on(&[80]);
    let pinned = Profile {
        pinned: true,
        ..profile(40)
    };
    stage.serving("pinned", pinned, secs(999), 0);
    let large = stage.know("large", profile(80));
    let young = stage.know("young", profile(20));
    assert_eq!(stage.ask(large, secs(800)), []);
    assert_eq!(stage.ask(young, secs(990)), [Decision::Grant(young)]);
}

#[test]
fn a_claim_passes_a_blocked_one_that_is_not_overdue() {
    let mut stage = Stage::on(&[80]);
    stage.serving("a", profile(70), secs(999), 1);
    let blocked = stage.know("blocked", profile(60));
    assert_eq!(stage.ask(blocked, secs(999)), []);
    let small = stage.know("small", profile(8));
    assert_eq!(stage.ask(small, secs(1_000)), [Decision::Grant(small)]);
}

#[test]
fn a_sleeper_wakes_where_it_sleeps() {
    let mut stage = Stage::on(&[80, 80]);
    let a = stage.serving("a", profile(60), secs(0), 0);
    let home = stage.placement.gpus_of(a);
    stage.left(a);
    let b = stage.serving("b", profile(70), secs(0), 0);
    assert_eq!(
        stage.placement.gpus_of(b),
        home,
        "best fit: beside the sleeper"
    );
    assert_eq!(evicted(&stage.ask(a, secs(900))), [b]);
    stage.left(b);
    assert_eq!(stage.plan(), [Decision::Grant(a)]);
    assert_eq!(stage.placement.gpus_of(a), home);
}

#[test]
fn who_leaves_for_one_that_has_gone_is_spared_while_requests_are_inside() {
    let mut stage = Stage::on(&[80]);
    let a = stage.serving("a", profile(60), secs(0), 2);
    let b = stage.know("b", profile(60));
    stage.placement.adopt(b, &[0], Some(OffloadTo::Disk));
    stage.stand(b).standing = Standing::Asleep(OffloadTo::Disk);
    assert_eq!(evicted(&stage.ask(b, secs(900))), [a]);
    stage.stand(b).held = 0;
    assert_eq!(stage.plan(), [Decision::Withdraw(b)]);
    assert_eq!(stage.plan(), [Decision::Spare(a)]);
    assert_eq!(stage.placement.ledger().accounts()[0].promised, 0);
}

#[test]
fn a_start_waits_until_its_gpu_is_quiet_and_keeps_it_quiet() {
    let mut stage = Stage::on(&[80]);
    let a = stage.serving("a", profile(20), secs(0), 0);
    stage.stand(a).standing = Standing::Waking;
    let b = stage.know("b", profile(20));
    assert_eq!(stage.ask(b, secs(999)), []);
    stage.stand(a).standing = Standing::Ready(secs(1_000));
    assert_eq!(stage.plan(), [Decision::Grant(b)]);
    stage.stand(b).standing = Standing::Starting;
    let c = stage.know("c", profile(20));
    assert_eq!(stage.ask(c, secs(700)), [], "even the overdue waits");
    stage.stand(b).standing = Standing::Ready(secs(1_000));
    assert_eq!(stage.plan(), [Decision::Grant(c)]);
}

#[test]
fn of_those_who_come_to_one_gpu_together_one_starts_at_a_time() {
    let mut stage = Stage::on(&[80]);
    let sleeper = stage.serving("sleeper", profile(10), secs(0), 0);
    stage.left(sleeper);
    let (b, c) = (stage.know("b", profile(10)), stage.know("c", profile(10)));
    for (key, held) in [(b, 3), (c, 2), (sleeper, 1)] {
        *stage.stand(key) = Stand {
            held,
            head: Some(secs(999)),
            ..*stage.stand(key)
        };
        stage.placement.ask(key);
    }
    // The sleeper is the quickest; while it wakes, nobody measures.
    assert_eq!(stage.plan(), [Decision::Grant(sleeper)]);
    stage.stand(sleeper).standing = Standing::Ready(secs(1_000));
    assert_eq!(stage.plan(), [Decision::Grant(b)]);
    stage.stand(b).standing = Standing::Ready(secs(1_000));
    assert_eq!(stage.plan(), [Decision::Grant(c)]);
}

#[test]
fn a_sleeper_ends_only_where_nothing_else_makes_room() {
    let mut stage = Stage::on(&[80]);
    let a = stage.serving("a", profile(60), secs(0), 0);
    stage.left(a);
    // It fits beside what the other keeps.
    stage.serving("b", profile(70), secs(0), 0);
    stage.placement.release(LedgerKey(1));
    let whole = stage.know("whole", profile(80));
    assert_eq!(evicted(&stage.ask(whole, secs(999))), [a]);
}

#[test]
fn one_that_starts_with_the_gateway_moves_nobody() {
    let mut stage = Stage::on(&[80]);
    stage.serving("a", profile(60), secs(0), 0);
    let b = stage.know("b", profile(60));
    stage.stand(b).insists = Insists::IfRoom;
    stage.placement.ask(b);
    assert_eq!(stage.plan(), [Decision::Withdraw(b)]);
}

#[test]
fn memory_that_others_use_is_not_given_away() {
    let mut stage = Stage::on(&[80]);
    stage.placement.observe_foreign(0, 30 * GIB);
    let a = stage.know("a", profile(60));
    assert_eq!(stage.ask(a, secs(999)), []);
    assert_eq!(stage.waits, [Decision::Wait(a, Obstacle::Foreign)]);
    stage.placement.observe_foreign(0, 0);
    assert_eq!(stage.plan(), [Decision::Grant(a)]);
}

#[test]
fn host_memory_goes_to_those_who_gain_most_by_it_and_never_beyond_its_budget() {
    let mut stage = Stage::on(&[80]);
    stage.placement = Placement::new(
        crate::gpu::Inventory::simulated(&[80 * GIB]).devices,
        30 * GIB,
        params(),
    );
    let a = stage.serving("a", profile(25), secs(0), 0);
    let b = stage.serving("b", profile(25), secs(0), 0);
    for second in 900..1_000 {
        stage.placement.arrived(b, 1, secs(second), secs(second));
    }
    let c = stage.know("c", profile(60));
    stage.now = secs(1_002);
    let decisions = stage.ask(c, secs(800));
    assert_eq!(evicted(&decisions).len(), 2);
    for decision in &decisions {
        if let Decision::Evict(eviction) = decision {
            let to = if eviction.victim == b {
                OffloadTo::Cpu
            } else {
                OffloadTo::Disk
            };
            assert_eq!(eviction.rest, Rest::Offload(to), "{a:?} {eviction:?}");
        }
    }
    assert_eq!(stage.placement.ledger().host().0, 25 * GIB);
}

#[test]
fn a_share_of_time_for_switching_holds_for_the_idle_too() {
    let mut stage = Stage::on(&[80]);
    let share = Params {
        switch_share_max: 0.1,
        ..params()
    };
    let devices = crate::gpu::Inventory::simulated(&[80 * GIB]).devices;
    stage.placement = Placement::new(devices, 256 * GIB, share);
    stage.serving("a", profile(60), secs(900), 0);
    let b = stage.know("b", profile(60));
    assert_eq!(stage.ask(b, secs(990)), []);
    assert!(stage.placement.look_at().is_some());
}
