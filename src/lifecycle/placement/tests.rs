use super::*;

const GIB: u64 = 1 << 30;

fn id(name: &str) -> DeploymentId {
    DeploymentId::parse(&format!("t/{name}")).unwrap()
}

fn need(gib: u64) -> Need {
    Need {
        gpus: 1,
        awake: Amount::Bytes(gib * GIB),
        asleep: GIB,
    }
}

fn on(memory: &[u64]) -> Placement {
    let memory: Vec<_> = memory.iter().map(|gib| gib * GIB).collect();
    let devices = crate::gpu::Inventory::simulated(&memory).devices;
    Placement::new(devices, Duration::from_mins(2))
}

fn asked(placement: &mut Placement, name: &str, need: Need, standing: Standing) -> Vec<Decision> {
    placement.ask(&id(name), need, Uptime::ZERO);
    placement.plan(Uptime::ZERO, &|_| standing)
}

fn idle(seconds: u64) -> Standing {
    Standing::Idle(Duration::from_secs(seconds))
}

#[test]
fn without_gpus_everything_is_granted() {
    let mut placement = on(&[]);
    let decisions = asked(&mut placement, "a", need(1_000), Standing::Fixed);
    assert_eq!(decisions, [Decision::Grant(id("a"))]);
}

#[test]
fn the_fullest_gpu_that_fits_is_taken() {
    let mut placement = on(&[80, 40]);
    asked(&mut placement, "a", need(30), Standing::Fixed);
    assert_eq!(*placement.gpus_of(&id("a")), [1]);
    asked(&mut placement, "b", need(30), Standing::Fixed);
    assert_eq!(*placement.gpus_of(&id("b")), [0]);
}

#[test]
fn several_gpus_are_granted_together_or_not_at_all() {
    let mut placement = on(&[80, 80]);
    asked(&mut placement, "a", need(50), Standing::Fixed);
    let two = Need {
        gpus: 2,
        ..need(40)
    };
    assert_eq!(asked(&mut placement, "b", two, Standing::Fixed), []);
    assert!(placement.gpus_of(&id("b")).is_empty());
    placement.release(&id("a"));
    let decisions = placement.plan(Uptime::ZERO, &|_| Standing::Fixed);
    assert_eq!(decisions, [Decision::Grant(id("b"))]);
    assert_eq!(*placement.gpus_of(&id("b")), [0, 1]);
}

#[test]
fn what_never_fits_is_refused_with_figures() {
    let mut placement = on(&[80]);
    let decisions = asked(&mut placement, "a", need(100), Standing::Fixed);
    let [Decision::Refuse(_, why)] = decisions.as_slice() else {
        panic!("{decisions:?}");
    };
    assert!(why.contains("100GiB") && why.contains("80GiB"), "{why}");
}

#[test]
fn the_longest_idle_leaves_and_no_more_than_needed() {
    let mut placement = on(&[80]);
    for name in ["a", "b", "c"] {
        asked(&mut placement, name, need(25), Standing::Fixed);
    }
    let standing = |holder: &DeploymentId| match holder.as_str() {
        "t/a" => idle(30),
        "t/b" => idle(10),
        _ => idle(20),
    };
    placement.ask(&id("d"), need(25), Uptime::ZERO);
    let decisions = placement.plan(Uptime::ZERO, &standing);
    assert_eq!(decisions, [Decision::Evict(id("b"), id("d"))]);
    placement.shrink(&id("b"));
    let decisions = placement.plan(Uptime::ZERO, &standing);
    assert_eq!(decisions, [Decision::Grant(id("d"))]);
}

#[test]
fn a_busy_one_leaves_only_for_a_claim_without_patience_and_a_pinned_one_never() {
    for (standing, late) in [(Standing::Busy, true), (Standing::Fixed, false)] {
        let mut placement = on(&[80]);
        asked(&mut placement, "a", need(60), Standing::Fixed);
        assert_eq!(asked(&mut placement, "b", need(60), standing), []);
        assert!(placement.is_waiting());
        let due = Duration::from_mins(2);
        let decisions = placement.plan(due, &|_| standing);
        assert_eq!(!decisions.is_empty(), late, "{standing:?}");
    }
}

#[test]
fn a_younger_claim_passes_only_elsewhere() {
    let mut placement = on(&[80, 20]);
    asked(&mut placement, "big", need(60), Standing::Fixed);
    let evict = asked(&mut placement, "waits", need(70), idle(0));
    assert_eq!(evict, [Decision::Evict(id("big"), id("waits"))]);
    let leaving = |_: &DeploymentId| Standing::Leaving;
    placement.ask(&id("small"), need(15), Uptime::ZERO);
    placement.ask(&id("late"), need(10), Uptime::ZERO);
    let decisions = placement.plan(Uptime::ZERO, &leaving);
    assert_eq!(decisions, [Decision::Grant(id("small"))]);
    assert_eq!(
        *placement.gpus_of(&id("small")),
        [1],
        "the other is reserved"
    );
    placement.release(&id("big"));
    let decisions = placement.plan(Uptime::ZERO, &leaving);
    let granted = [Decision::Grant(id("waits")), Decision::Grant(id("late"))];
    assert_eq!(decisions, granted);
}

#[test]
fn a_sleeper_wakes_where_it_sleeps() {
    let mut placement = on(&[80, 80]);
    asked(&mut placement, "a", need(60), Standing::Fixed);
    let home = placement.gpus_of(&id("a"));
    placement.shrink(&id("a"));
    asked(&mut placement, "b", need(70), Standing::Fixed);
    assert_eq!(
        placement.gpus_of(&id("b")),
        home,
        "best fit: beside the sleeper"
    );
    let decisions = asked(&mut placement, "a", need(60), idle(0));
    assert_eq!(decisions, [Decision::Evict(id("b"), id("a"))]);
    placement.release(&id("b"));
    let decisions = placement.plan(Uptime::ZERO, &|_| Standing::Fixed);
    assert_eq!(decisions, [Decision::Grant(id("a"))]);
    assert_eq!(placement.gpus_of(&id("a")), home);
}
