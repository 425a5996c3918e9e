//! A conductor of many: what a turn takes.

use super::*;

/// Turns that are timed.
const TURNS: u32 = 200;

#[tokio::test(start_paused = true)]
async fn a_turn_with_a_thousand_deployments_and_two_hundred_up_takes_no_time_to_speak_of() {
    let specs: Vec<_> = (0..1_000).map(|n| spec(&format!("t/m{n}"))).collect();
    let stage = Stage::with(Fake::default(), &[20 << 30; 200], &specs).await;
    for n in 0..200 {
        assert!(stage.request(&format!("t/m{n}")).await.is_some());
    }
    let ids = ["t/m7", "t/m999"].map(|id| DeploymentId::parse(id).unwrap());
    let up = specs
        .iter()
        .filter(|spec| stage.handle(spec.id.as_str()).snapshot().pid.is_some());
    let up = up.count();
    #[expect(
        clippy::disallowed_types,
        reason = "the paused clock does not tell what work takes"
    )]
    let began = std::time::Instant::now();
    for turn in 0..TURNS {
        let id = &ids[turn as usize % 2];
        // Answered in a turn of its own, as any input is.
        assert!(stage.conductor.explain(id).await.is_some());
    }
    let each = began.elapsed() / TURNS;
    assert_eq!(up, 200);
    println!("200 of 1,000 up: {each:?} a turn, with its answer");
    // Without optimisation, and on a machine that does other things as well.
    assert!(each < Duration::from_millis(50), "{each:?}");
}
