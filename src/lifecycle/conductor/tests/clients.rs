//! Wishes of clients, by the deployment's handle.

use super::*;

/// Long enough, on a paused clock, for the conductor to have done all that it has to.
const SETTLED: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn a_client_unloads_what_nobody_uses_and_nothing_that_is_kept() {
    let kept = changed(&spec("t/b"), |spec| spec.keep = true);
    let stage = Stage::new(&[idles("t/a"), kept]).await;
    let permit = stage.request("t/a").await.unwrap();
    let handle = stage.handle("t/a");
    assert!(handle.unload());
    tokio::time::sleep(SETTLED).await;
    assert_eq!(handle.snapshot().phase, "ready", "one is inside");
    drop(permit);
    let waiting = handle.wait(None);
    assert!(handle.unload());
    tokio::time::sleep(SETTLED).await;
    assert_eq!(handle.snapshot().phase, "ready", "one is about to enter");
    drop(waiting);
    assert!(handle.unload());
    stage.phase("t/a", "stopped").await;
    let told = stage.conductor.events(Some(&handle.id), 50);
    let told: Vec<_> = told.iter().map(|event| event.text.to_string()).collect();
    let by_client = told
        .iter()
        .filter(|text| text.contains("asked by a client"));
    assert_eq!(by_client.count(), 1, "{told:?}");
    assert!(stage.request("t/a").await.is_some(), "not refused");

    drop(stage.request("t/b").await);
    let kept = stage.handle("t/b");
    assert!(kept.unload());
    tokio::time::sleep(SETTLED).await;
    assert_eq!(kept.snapshot().phase, "ready", "its file keeps it");
}

#[tokio::test(start_paused = true)]
async fn a_client_keeps_it_awake_beyond_its_limit_and_no_longer_than_it_asked() {
    let stage = Stage::new(&[idles("t/a")]).await;
    let handle = stage.handle("t/a");
    drop(stage.request("t/a").await.unwrap());
    let left = stage.clock.now();
    handle.keep_for(Duration::from_mins(10));
    handle.keep_for(Duration::ZERO);
    let told = stage.conductor.explain(&handle.id).await.unwrap();
    let told: Vec<_> = told.lines.iter().map(ToString::to_string).collect();
    assert!(
        told.iter()
            .any(|line| line.starts_with("a client wants it awake for another 10m")),
        "{told:?}"
    );
    stage.phase("t/a", "offloaded").await;
    let slept = stage.clock.now().saturating_sub(left);
    assert!(
        slept >= Duration::from_mins(10) && slept < Duration::from_secs(631),
        "{slept:?}"
    );
    // Its other limit is as far behind the first as ever.
    stage.phase("t/a", "stopped").await;
    let stopped = stage.clock.now().saturating_sub(left);
    assert!(
        stopped >= Duration::from_mins(14) && stopped < Duration::from_secs(903),
        "{stopped:?}"
    );
}
