//! Turns of workspaces, and those that are woken because they are expected.

use super::*;
use crate::deployment::Tenant;

/// Brings up one for a workspace, that serves since then.
fn serving_for(stage: &mut Stage, name: &str, whose: &str, gib: u64, since: Uptime) -> LedgerKey {
    let key = stage.know(name, quick(gib));
    stage.stand(key).crowd.add(Tenant::of(whose), 1);
    assert_eq!(stage.ask(key, stage.now), [Decision::Grant(key)]);
    *stage.stand(key) = Stand {
        standing: Standing::Ready(since),
        running: 9,
        ..Stand::absent()
    };
    key
}

#[test]
fn workspaces_take_turns_and_residents_of_one_that_had_more_have_no_window() {
    let mut stage = Stage::on(&[80]);
    let busy = serving_for(&mut stage, "busy", "flood", 70, secs(999));
    let (more, calm) = (stage.know("more", quick(70)), stage.know("calm", quick(70)));
    for (key, whose, held) in [(more, "flood", 20), (calm, "acme", 1)] {
        stage.stand(key).crowd.add(Tenant::of(whose), held);
    }
    stage.now = secs(1_004);
    assert_eq!(
        stage.ask(more, secs(950)),
        [],
        "the busy one has its window"
    );
    stage.stand(more).held = 20;
    assert_eq!(stage.plan(), [], "that of a workspace alone");
    let told = evicted(&stage.ask(calm, secs(950)));
    assert_eq!(
        told,
        [busy],
        "the calm one goes first, though one to twenty"
    );
    let turn = Decision::Wait(more, Obstacle::Turn);
    assert!(stage.waits.contains(&turn), "{:?}", stage.waits);
    stage.left(busy);
    assert_eq!(stage.plan(), [Decision::Grant(calm)]);
}

#[test]
fn a_foreseen_one_moves_only_who_is_idle_and_gives_way_to_whoever_waits() {
    let mut stage = Stage::on(&[82]);
    let asks = |stage: &mut Stage, key: LedgerKey| {
        stage.placement.foresee(key, 0.9);
        stage.placement.ask(key);
        stage.plan()
    };
    let idle = stage.serving("idle", quick(40), secs(500), 0);
    let busy = stage.serving("busy", quick(40), secs(500), 1);
    let next = stage.know("next", quick(40));
    assert_eq!(
        evicted(&asks(&mut stage, next)),
        [idle],
        "who is idle leaves"
    );
    let (large, waits) = (stage.know("large", quick(80)), secs(990));
    assert_eq!(stage.ask(large, waits), [], "the busy one stays");
    let now = stage.know("now", quick(40));
    stage.ask(now, secs(999));
    stage.left(idle);
    let granted = stage.plan();
    assert_eq!(granted, [Decision::Grant(now)], "a request goes first");
    assert_eq!(
        asks(&mut stage, next),
        [Decision::Withdraw(next)],
        "others wait"
    );
    assert_eq!(stage.stand(busy).running, 1);
}
