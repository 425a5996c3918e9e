//! Starts that stand still, workers that fall ill, and ends in good order.

use super::*;

/// A stage with other durations.
async fn stage(change: impl FnOnce(&mut config::Workers)) -> Stage {
    Stage::tuned(Fake::default(), &[], &[idles("t/a")], change).await
}

fn told(stage: &Stage) -> String {
    let events = stage.conductor.events(None, 100);
    let texts = events.iter().map(|event| event.text.to_string());
    texts.collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn a_start_that_stands_still_is_ended_before_its_limit() {
    let stage = stage(|workers| {
        workers.stall_timeout = Duration::from_secs(20);
        workers.start_timeout = Duration::from_hours(1);
    })
    .await;
    stage.fake.world().starts.push_back(Fate::NeverReady);
    let began = stage.clock.now();
    assert!(stage.request("t/a").await.is_some(), "the second serves");
    let waited = stage.clock.now().saturating_sub(began);
    assert!(waited < Duration::from_mins(1), "{waited:?}");
    let told = told(&stage);
    assert!(told.contains("stood still for 20s"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_fails_its_probes_is_replaced() {
    let stage = stage(|_| {}).await;
    let permit = stage.request("t/a").await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    stage.fake.world().unwell = true;
    stage.phase("t/a", "failed").await;
    assert!(!stage.handle("t/a").gate.is_open());
    assert!(stage.fake.count("look") >= 3, "a request was inside");
    assert_eq!(stage.fake.count("probe"), 0);
    stage.fake.world().unwell = false;
    drop(permit);
    assert!(stage.request("t/a").await.is_some());
    let told = told(&stage);
    assert!(told.contains("failed 3 probes in a row"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_still_loads_is_not_probed() {
    let stage = stage(|workers| {
        workers.start_timeout = Duration::from_mins(5);
        workers.stall_timeout = Duration::from_hours(1);
    })
    .await;
    stage.fake.world().starts.push_back(Fate::NeverReady);
    let began = stage.clock.now();
    let permit = stage.request("t/a").await;
    assert!(permit.is_some(), "the second serves");
    let waited = stage.clock.now().saturating_sub(began);
    assert!(waited >= Duration::from_mins(5), "{waited:?}");
    assert_eq!(stage.fake.count("probe") + stage.fake.count("look"), 0);
}

#[tokio::test(start_paused = true)]
async fn probes_do_not_keep_an_idle_worker_from_its_rest() {
    let stage = stage(|workers| workers.probe_interval = Duration::from_secs(5)).await;
    drop(stage.request("t/a").await.unwrap());
    let began = stage.clock.now();
    stage.phase("t/a", "offloaded").await;
    let waited = stage.clock.now().saturating_sub(began);
    assert!(waited < Duration::from_secs(62), "{waited:?}");
    let probes = stage.fake.count("probe");
    assert!((11..=12).contains(&probes), "{probes}");
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(stage.fake.count("probe"), probes, "not while it sleeps");
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_workers_that_were_told_to_end_and_for_no_others() {
    let specs = [idles("t/a"), idles("t/b")];
    let stage = Stage::tuned(Fake::default(), &[], &specs, |_| {}).await;
    drop(stage.request("t/a").await);
    drop(stage.request("t/b").await);
    stage.fake.world().deaf = true;
    stage.command("t/a", Command::Stop).await.unwrap();
    let snapshot = stage.phase("t/a", "stopping").await;
    assert_eq!(snapshot.status, Status::Stopping, "and not stopped yet");
    stage.conductor.shutdown(false).await;
    assert_eq!(stage.fake.count("kill"), 1, "the grace was waited for");
    assert_eq!(stage.fake.world().alive.len(), 1, "the other one stays");
}

#[tokio::test(start_paused = true)]
async fn a_first_start_is_foretold_though_none_was_measured() {
    let stage = stage(|_| {}).await;
    stage.handle("t/a").demand();
    let snapshot = stage.phase("t/a", "starting").await;
    let left = snapshot.ready_in.expect("an honest Retry-After");
    assert!(left <= Duration::from_secs(3), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn two_that_share_a_gpu_each_serve_who_waits_before_they_leave() {
    let specs = [idles("t/a"), idles("t/b")];
    let stage = Stage::with(Fake::default(), &[20 << 30], &specs).await;
    let one = async |id: &str| {
        for _ in 0..5 {
            drop(stage.request(id).await.expect("served"));
        }
    };
    let both = async { tokio::join!(one("t/a"), one("t/b")) };
    let served = tokio::time::timeout(Duration::from_hours(1), both).await;
    assert!(served.is_ok(), "{:#?}", stage.conductor.events(None, 20));
    let wakes = stage.fake.count("wake");
    assert!(wakes <= 10, "{wakes} wakes for ten requests");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_written_down_comes_up_by_itself_once_it_can() {
    let stage = stage(|_| {}).await;
    stage.fake.world().full = true;
    assert!(stage.request("t/a").await.is_none(), "told to come again");
    let snapshot = stage.phase("t/a", "failed").await;
    assert_eq!(snapshot.refusal, Some(Refusal::PutOff));
    assert_eq!(snapshot.status, Status::Loading);
    assert_eq!(snapshot.ready_in, Some(Duration::from_secs(2)), "the pause");
    // Far more tries than failures are forgiven.
    let mut watch = stage.handle("t/a").watch();
    let many = |snapshot: &deployment::Snapshot| snapshot.refusals > 20;
    drop(watch.wait_for(|snapshot| many(snapshot)).await.unwrap());
    let reason = stage.reason("t/a");
    assert_eq!(
        *reason,
        *"its record can't be written: no space left on /state; tried again in 30s"
    );
    assert!(stage.request("t/a").await.is_none(), "refused, not held");
    assert_eq!(stage.fake.count("launch"), 1, "only looked at after that");
    stage.fake.world().full = false;
    let snapshot = stage.phase("t/a", "ready").await;
    assert_eq!(
        (snapshot.reason.clone(), stage.fake.count("launch")),
        (None, 2)
    );
    let told = told(&stage);
    assert!(told.contains("not started: its record"), "{told}");
    assert!(told.contains("its record can be written again"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn nobody_leaves_again_and_again_for_one_that_cannot_be_written_down() {
    let specs = [idles("t/a"), idles("t/b")];
    let stage = Stage::with(Fake::default(), &[20 << 30], &specs).await;
    drop(stage.request("t/a").await.expect("served"));
    stage.fake.world().full = true;
    assert!(stage.request("t/b").await.is_none());
    assert_eq!(stage.fake.count("sleep"), 1, "it left for it once");
    let inside = stage.request("t/a").await.expect("woken");
    let tries = stage.handle("t/b").snapshot().refusals;
    let mut watch = stage.handle("t/b").watch();
    let more = watch.wait_for(|snapshot| snapshot.refusals > tries + 9);
    drop(more.await.unwrap());
    assert_eq!(stage.fake.count("sleep"), 1, "and stays from then on");
    drop(inside);
    stage.fake.world().full = false;
    assert!(stage.request("t/b").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_failed_is_told_and_tried_again_once_the_engine_is_upgraded() {
    let stage = stage(|_| {}).await;
    stage.fake.world().version = "0.32.0".to_owned();
    stage.fake.world().sleep_fails = true;
    // Each of the two rungs fails once, and none is tried a second time.
    for _ in 0..3 {
        drop(stage.request("t/a").await.unwrap());
        stage.phase("t/a", "stopped").await;
    }
    assert_eq!(stage.fake.count("sleep"), 2);
    drop(stage.request("t/a").await.unwrap());
    let reason = stage.handle("t/a").snapshot().reason.clone().unwrap();
    let reason = reason.to_string();
    assert!(
        reason.contains("in host memory or without them"),
        "{reason}"
    );
    assert!(reason.contains("could not sleep: no"), "{reason}");
    stage.phase("t/a", "stopped").await;
    stage.fake.world().version = "0.33.0".to_owned();
    stage.fake.world().sleep_fails = false;
    drop(stage.request("t/a").await.unwrap());
    stage.phase("t/a", "offloaded").await;
    assert_eq!(stage.handle("t/a").snapshot().reason, None);
    let told = told(&stage);
    assert!(told.contains("version 0.33.0 now"), "{told}");
}
