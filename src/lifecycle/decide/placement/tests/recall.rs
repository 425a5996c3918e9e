//! Knowledge after a restart, and what follows from it.

use super::*;

#[test]
fn after_a_restart_the_same_one_leaves_as_without() {
    let names = ["popular", "rare"];
    let up = |stage: &mut Stage| names.map(|name| stage.serving(name, profile(30), secs(0), 0));
    let newcomer = |stage: &mut Stage| {
        let since = stage.now;
        stage.now += secs(60);
        let claimant = stage.know("new", profile(30));
        evicted(&stage.ask(claimant, since))
    };
    let mut stage = Stage::on(&[62]);
    let [popular, rare] = up(&mut stage);
    for (key, pause) in [(popular, 10), (rare, 300)] {
        for at in (100..1_000).step_by(pause) {
            stage.placement.arrived(key, 1, secs(at), secs(at));
        }
    }
    let keep = |key| stage.placement.popularity(key, 0, stage.now);
    let kept = [popular, rare].map(keep);
    // Another process: its own clock, and everything else is new.
    let mut again = Stage::on(&[62]);
    let keys = up(&mut again);
    for (key, kept) in keys.into_iter().zip(kept) {
        let now = again.now;
        again.placement.recall(key, &kept.unwrap(), 0.0, now);
    }
    assert_eq!(newcomer(&mut stage), [rare]);
    assert_eq!(newcomer(&mut again), [rare]);
    let mut blind = Stage::on(&[62]);
    up(&mut blind);
    assert_eq!(newcomer(&mut blind), [popular], "who knows nothing errs");
}
