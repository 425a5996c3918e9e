//! Models that come here before GPUs are asked for.

use super::fake::{FETCH, FETCH_BYTES};
use super::*;
use crate::config::{Engine, Sim};
use crate::lifecycle::act::launcher::FetchFailure;

fn absent() -> Fake {
    let fake = Fake::default();
    fake.world().fetches = true;
    fake
}

/// Events so far, in words.
fn told(stage: &Stage) -> String {
    let events = stage.conductor.events(None, 30);
    let lines: Vec<String> = events.iter().map(|event| event.text.to_string()).collect();
    lines.join("\n")
}

#[tokio::test(start_paused = true)]
async fn a_fetch_holds_no_gpu_and_evicts_nobody_and_no_limit_of_a_start_runs() {
    let fake = Fake::default();
    let stage = Stage::with(fake.clone(), &[20 << 30], &[spec("t/b")]).await;
    drop(stage.request("t/b").await.expect("served"));
    fake.world().fetches = true;
    let both = [spec("t/b"), spec("t/a")];
    stage.conductor.apply(Arc::new(catalog(&both))).await;
    let began = stage.clock.now();
    let request = stage.request("t/a");
    tokio::pin!(request);
    let look = async {
        let handle = stage.handle("t/a");
        let mut watch = handle.watch();
        let half = watch.wait_for(|snapshot| {
            let fetch = snapshot.fetch;
            fetch.is_some_and(|fetch| fetch.done >= FETCH_BYTES / 2)
        });
        let half = Arc::clone(&half.await.unwrap());
        assert_eq!((half.phase, half.status), ("fetching", Status::Loading));
        let fetch = half.fetch.unwrap();
        assert_eq!((fetch.total, fetch.percent()), (FETCH_BYTES, 50));
        let (words, percent) = half.progress.clone().unwrap();
        assert_eq!(
            (percent, words.starts_with("fetches 50MiB of 100MiB")),
            (50, true)
        );
        let left = half.ready_in.unwrap();
        assert!(left + Duration::from_secs(1) > FETCH / 2, "{left:?}");
        assert_eq!(stage.handle("t/b").snapshot().phase, "ready");
        assert!(half.gpus.is_empty(), "{:?}", half.gpus);
    };
    tokio::select! {
        biased;
        () = look => {}
        _ = &mut request => panic!("served before its model was here"),
    }
    drop(request.await.expect("served"));
    let took = stage.clock.now().saturating_sub(began);
    assert!(took >= FETCH, "{took:?}");
    assert_eq!((fake.count("fetch"), fake.count("kill")), (1, 0));
    let told = told(&stage);
    assert!(told.contains("before it asks for GPU memory"), "{told}");
    // The next start looks again: it may have been removed meanwhile.
    stage.command("t/a", Command::Stop).await.unwrap();
    stage.phase("t/a", "stopped").await;
    stage.command("t/a", Command::Start).await.unwrap();
    drop(stage.request("t/a").await.expect("served"));
    assert_eq!(fake.count("fetch"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_fetch_and_a_start_begins_another() {
    let fake = absent();
    let stage = Stage::with(fake.clone(), &[], &[spec("t/a")]).await;
    stage.handle("t/a").demand();
    stage.phase("t/a", "fetching").await;
    stage.command("t/a", Command::Stop).await.unwrap();
    stage.phase("t/a", "stopped").await;
    stage.command("t/a", Command::Start).await.unwrap();
    stage.phase("t/a", "ready").await;
    assert_eq!((fake.count("fetch"), fake.world().fetching), (2, 0));
    assert_eq!(fake.count("launch"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_is_tried_again_and_one_that_never_can_is_told() {
    let fake = absent();
    let now = FetchFailure::Now("the hub can't be reached".to_owned());
    let never = FetchFailure::Never("the hub has no model t/a".to_owned());
    fake.world().fetch_ends.extend([now, never]);
    let stage = Stage::with(fake.clone(), &[], &[spec("t/a")]).await;
    assert!(stage.request("t/a").await.is_none(), "refused in the end");
    let snapshot = stage.phase("t/a", "failed").await;
    assert_eq!(snapshot.refusal, Some(Refusal::Failed));
    let reason = snapshot.reason.clone().unwrap();
    assert_eq!(reason.to_string(), "the hub has no model t/a");
    assert_eq!((fake.count("fetch"), fake.count("launch")), (2, 0));
    let told = told(&stage);
    assert!(
        told.contains("failed, and is tried again in 2s: the hub can't be reached"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_hub_is_away_requests_are_told_when_to_come_and_none_is_given_up() {
    let fake = absent();
    let now = || FetchFailure::Now("the hub can't be reached".to_owned());
    // As often as failures are forgiven, and once more.
    fake.world().fetch_ends.extend([now(), now(), now(), now()]);
    let stage = Stage::with(fake.clone(), &[], &[spec("t/a")]).await;
    for fetches in [3, 4] {
        assert!(stage.request("t/a").await.is_none(), "told to come again");
        let snapshot = stage.handle("t/a").snapshot();
        assert_eq!(snapshot.refusal, Some(Refusal::PutOff));
        assert_eq!(
            (snapshot.phase, snapshot.status),
            ("failed", Status::Failed)
        );
        assert!(
            snapshot.ready_in >= Some(Duration::from_secs(8)),
            "{snapshot:?}"
        );
        assert_eq!(*stage.reason("t/a"), *"the hub can't be reached");
        assert_eq!(fake.count("fetch"), fetches);
        // Nobody asks, so nothing is tried.
        stage.phase("t/a", "stopped").await;
    }
    drop(stage.request("t/a").await.expect("served"));
    assert_eq!((fake.count("fetch"), fake.count("launch")), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_removed_or_changed_is_no_longer_fetched() {
    let fake = absent();
    let stage = Stage::with(fake.clone(), &[], &[spec("t/a")]).await;
    stage.handle("t/a").demand();
    stage.phase("t/a", "fetching").await;
    let other = changed(&spec("t/a"), |spec| {
        spec.engine = Engine::Sim(Sim::default());
    });
    stage.conductor.apply(Arc::new(catalog(&[other]))).await;
    crate::time::sleep(FETCH / 2).await;
    assert_eq!((fake.count("fetch"), fake.world().fetching), (2, 1));
    assert_eq!(stage.handle("t/a").snapshot().phase, "fetching");
    stage.conductor.apply(Arc::new(catalog(&[]))).await;
    crate::time::sleep(FETCH).await;
    assert_eq!((fake.count("fetch"), fake.world().fetching), (2, 0));
    assert_eq!(fake.count("launch"), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_start_that_failed_it_is_looked_at_again() {
    let fake = absent();
    fake.world().starts.push_back(Fate::Crashes);
    let stage = Stage::with(fake.clone(), &[], &[spec("t/a")]).await;
    drop(stage.request("t/a").await.expect("served"));
    assert_eq!((fake.count("fetch"), fake.count("launch")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_nobody_waits_for_goes_on_unless_the_settings_say_otherwise() {
    for keep_fetching in [true, false] {
        let fake = absent();
        let mut settings = Settings::default();
        settings.models.keep_fetching = keep_fetching;
        let stage = Stage::of(fake.clone(), &[], &[spec("t/a")], settings).await;
        let request = tokio::time::timeout(FETCH / 3, stage.request("t/a"));
        assert!(request.await.is_err(), "served before its model was here");
        // A caller that was told when to come again finds it.
        let comes_to = if keep_fetching { "ready" } else { "stopped" };
        stage.phase("t/a", comes_to).await;
        assert_eq!(fake.world().fetching, 0);
        drop(stage.request("t/a").await.expect("served"));
        let fetches = if keep_fetching { 1 } else { 2 };
        assert_eq!(fake.count("fetch"), fetches);
    }
}

#[tokio::test(start_paused = true)]
async fn models_are_fetched_ahead_one_after_the_other_where_the_settings_want_that() {
    let fake = absent();
    let mut settings = Settings::default();
    settings.models.prefetch = true;
    let stage = Stage::of(fake.clone(), &[], &[spec("t/a"), spec("t/b")], settings).await;
    crate::time::sleep(FETCH / 2).await;
    assert_eq!(stage.handle("t/a").snapshot().phase, "stopped");
    assert_eq!(fake.world().fetching, 1, "one at a time");
    // A request goes on with that fetch.
    let began = stage.clock.now();
    drop(stage.request("t/a").await.expect("served"));
    let took = stage.clock.now().saturating_sub(began);
    assert!(took < FETCH, "{took:?}");
    crate::time::sleep(FETCH + LOAD).await;
    assert_eq!((fake.count("fetch"), fake.world().fetching), (2, 0));
    let began = stage.clock.now();
    drop(stage.request("t/b").await.expect("served"));
    let took = stage.clock.now().saturating_sub(began);
    assert!(took < FETCH / 2, "{took:?}");
    assert_eq!(fake.count("fetch"), 2, "each once");
}
