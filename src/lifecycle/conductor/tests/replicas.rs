//! Several workers of one deployment, and workers replaced for new options.

use super::*;
use crate::config::{Replicas, Roll};
use crate::lifecycle::Change;

fn replicated(id: &str, min: u32, max: u32) -> Arc<Deployment> {
    changed(&idles(id), |spec| {
        spec.replicas = Replicas {
            min,
            max,
            requests_each: 4,
            requests_max: None,
            number: 1,
        };
    })
}

/// The same with another engine option.
fn heavier(spec: &Arc<Deployment>, roll: Roll) -> Arc<Deployment> {
    changed(spec, |spec| {
        spec.roll = roll;
        let config::Engine::Sim(sim) = &mut spec.engine else {
            panic!("not a stand-in");
        };
        sim.weights += 1;
    })
}

async fn until(stage: &Stage, id: &str, fact: impl Fn(&deployment::Snapshot) -> bool) {
    let mut watch = stage.handle(id).watch();
    let reached = watch.wait_for(|snapshot| fact(snapshot));
    let reached = tokio::time::timeout(Duration::from_hours(1), reached).await;
    assert!(reached.is_ok(), "{:#?}", stage.conductor.events(None, 40));
}

const GIB: u64 = 1 << 30;

#[tokio::test(start_paused = true)]
async fn load_brings_a_second_replica_on_another_gpu_and_its_end_drains_it() {
    let gpus = [80 * GIB, 80 * GIB];
    let specs = [replicated("t/a", 0, 2)];
    let stage = Stage::with(Fake::default(), &gpus, &specs).await;
    let mut inside = Vec::new();
    for _ in 0..5 {
        inside.push(stage.request("t/a").await.unwrap());
    }
    until(&stage, "t/a", |snapshot| snapshot.workers.len() == 2).await;
    let snapshot = stage.handle("t/a").snapshot();
    let used: std::collections::BTreeSet<u32> = snapshot.gpus.iter().copied().collect();
    assert_eq!(used.len(), 2, "spread: {:?}", snapshot.gpus);
    assert_eq!(snapshot.replicas.len(), 2);
    // The newest takes what comes now, until it carries as much.
    let there = stage.request("t/a").await.unwrap();
    let loads: Vec<u32> = snapshot
        .workers
        .iter()
        .map(|w| w.gate.in_flight())
        .collect();
    assert_eq!(loads, [5, 1]);

    inside.truncate(1);
    until(&stage, "t/a", |snapshot| {
        snapshot.replicas.iter().any(|(_, r)| r.phase == "draining")
    })
    .await;
    assert!(stage.handle("t/a").gate.is_open(), "the first serves on");
    assert_eq!(stage.fake.count("stop"), 0, "a request is inside");
    drop(there);
    until(&stage, "t/a", |snapshot| {
        snapshot.replicas.iter().any(|(_, r)| r.phase == "stopped")
    })
    .await;
    assert_eq!(stage.handle("t/a").snapshot().status, Status::Idle);
    assert_eq!(stage.fake.world().alive.len(), 1);
    let events = stage.conductor.events(Some(&stage.handle("t/a").id), 100);
    let of_second = events.iter().filter(|e| e.deployment.as_str() == "t/a#2");
    assert!(of_second.count() > 3, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn the_death_of_one_replica_closes_no_gate() {
    let stage = Stage::with(Fake::default(), &[], &[replicated("t/a", 2, 2)]).await;
    until(&stage, "t/a", |snapshot| snapshot.workers.len() == 2).await;
    let snapshot = stage.handle("t/a").snapshot();
    let nonces: Vec<Nonce> = stage.fake.world().alive.keys().cloned().collect();
    stage.fake.end(&nonces[0]);
    until(&stage, "t/a", |snapshot| snapshot.workers.len() == 1).await;
    assert!(stage.handle("t/a").gate.is_open());
    assert!(stage.request("t/a").await.is_some());
    until(&stage, "t/a", |snapshot| snapshot.workers.len() == 2).await;
    assert_eq!(snapshot.workers.len(), 2, "two are kept up");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_replica_and_a_start_begins_with_one() {
    let stage = Stage::with(Fake::default(), &[], &[replicated("t/a", 2, 3)]).await;
    until(&stage, "t/a", |snapshot| snapshot.workers.len() == 2).await;
    stage.command("t/a", Command::Stop).await.unwrap();
    until(&stage, "t/a", |snapshot| snapshot.status == Status::Stopped).await;
    assert!(stage.fake.world().alive.is_empty());
    assert!(stage.request("t/a").await.is_none());
    stage.command("t/a", Command::Start).await.unwrap();
    assert!(stage.request("t/a").await.is_some());
    // Fewer at most: the others leave.
    let fewer = [replicated("t/a", 0, 1)];
    stage.conductor.apply(Arc::new(catalog(&fewer))).await;
    until(&stage, "t/a", |snapshot| snapshot.replicas.is_empty()).await;
    assert!(stage.handle("t/a").replicas().is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_options_wait_until_no_request_is_inside() {
    let first = idles("t/a");
    let stage = Stage::new(std::slice::from_ref(&first)).await;
    let permit = stage.request("t/a").await.unwrap();
    let next = [heavier(&first, Roll::Idle)];
    stage.conductor.apply(Arc::new(catalog(&next))).await;
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(stage.request("t/a").await.is_some(), "it serves on");
    assert_eq!(stage.handle("t/a").snapshot().generation.0, 1);
    drop(permit);
    until(&stage, "t/a", |snapshot| {
        snapshot.generation.0 == 2 && snapshot.phase == "ready"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_to_be_replaced_is_drained_when_told_to() {
    let first = idles("t/a");
    let stage = Stage::new(std::slice::from_ref(&first)).await;
    let permit = stage.request("t/a").await.unwrap();
    let refused = stage.command("t/a", Command::Replace).await.unwrap_err();
    assert!(refused.to_string().contains("no worker that waits"));
    let next = [heavier(&first, Roll::Idle)];
    stage.conductor.apply(Arc::new(catalog(&next))).await;
    stage.command("t/a", Command::Replace).await.unwrap();
    stage.phase("t/a", "draining").await;
    assert_eq!(stage.fake.count("stop"), 0, "who is inside may finish");
    drop(permit);
    until(&stage, "t/a", |snapshot| {
        snapshot.generation.0 == 2 && snapshot.phase == "ready"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_taken_back_rolls_nothing() {
    let first = idles("t/a");
    let stage = Stage::new(std::slice::from_ref(&first)).await;
    let permit = stage.request("t/a").await.unwrap();
    let next = [heavier(&first, Roll::Idle)];
    stage.conductor.apply(Arc::new(catalog(&next))).await;
    let back = [Arc::clone(&first)];
    stage.conductor.apply(Arc::new(catalog(&back))).await;
    drop(permit);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(stage.handle("t/a").snapshot().phase, "ready");
    assert_eq!(stage.fake.count("launch"), 1);
}

#[tokio::test(start_paused = true)]
async fn rolled_at_once_it_drains_what_is_inside_and_holds_what_comes() {
    let first = idles("t/a");
    let stage = Stage::new(std::slice::from_ref(&first)).await;
    let permit = stage.request("t/a").await.unwrap();
    let next = [heavier(&first, Roll::Now)];
    stage.conductor.apply(Arc::new(catalog(&next))).await;
    stage.phase("t/a", "draining").await;
    drop(permit);
    assert!(stage.request("t/a").await.is_some());
    assert_eq!(stage.handle("t/a").snapshot().generation.0, 2);
}

#[tokio::test(start_paused = true)]
async fn replicas_are_replaced_one_after_the_other() {
    let first = replicated("t/a", 2, 2);
    let stage = Stage::with(Fake::default(), &[], std::slice::from_ref(&first)).await;
    until(&stage, "t/a", |snapshot| snapshot.workers.len() == 2).await;
    let next = [heavier(&first, Roll::Now)];
    stage.conductor.apply(Arc::new(catalog(&next))).await;
    let mut watch = stage.handle("t/a").watch();
    let rolled = async {
        loop {
            let snapshot = Arc::clone(&watch.borrow_and_update());
            assert!(!snapshot.workers.is_empty(), "one serves at any time");
            let mut replicas = snapshot.replicas.iter();
            if replicas.all(|(_, r)| r.generation.0 == 2 && r.phase == "ready") {
                return;
            }
            watch.changed().await.unwrap();
        }
    };
    let rolled = tokio::time::timeout(Duration::from_mins(5), rolled).await;
    assert!(rolled.is_ok(), "{:#?}", stage.conductor.events(None, 40));
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_an_apply_would_do_and_does_nothing() {
    let specs = ["t/a", "t/b", "t/c"].map(idles);
    let stage = Stage::new(&specs).await;
    let permit = stage.request("t/a").await.unwrap();
    drop(stage.request("t/b").await);
    let shorter = changed(&specs[1], |spec| spec.max_concurrent_requests = Some(3));
    let next = [heavier(&specs[0], Roll::Idle), shorter, spec("t/new")];
    let plan = stage.conductor.plan(Arc::new(catalog(&next))).await;
    let said: Vec<_> = plan
        .iter()
        .map(|p| (p.deployment.as_str(), p.change))
        .collect();
    assert_eq!(
        said,
        [
            ("t/a", Change::Rolled),
            ("t/b", Change::Live),
            ("t/c", Change::Removed),
            ("t/new", Change::Added)
        ]
    );
    assert!(
        plan[0].words.contains("once no request is inside (now 1)"),
        "{plan:?}"
    );
    assert!(
        plan[1]
            .words
            .contains("max_concurrent_requests takes effect"),
        "{plan:?}"
    );
    assert_eq!(stage.handle("t/a").snapshot().generation.0, 1);
    assert!(
        stage
            .conductor
            .plan(Arc::new(catalog(&specs)))
            .await
            .is_empty()
    );
    drop(permit);
}
