//! Room on the GPUs: shared by turns, or never enough.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_gpu_is_shared_by_turns_and_never_overfilled() {
    let memory = [20 << 30];
    let specs = [idles("t/a"), idles("t/b")];
    let stage = Stage::with(Fake::default(), &memory, &specs).await;
    let first = stage.request("t/a").await.unwrap();
    drop(first);
    let second = stage.request("t/b").await.unwrap();
    assert_eq!(stage.handle("t/a").snapshot().phase, "offloaded");
    assert_eq!(*stage.handle("t/b").snapshot().gpus, [0]);
    // `b` is busy: `a` waits until it is not.
    let handle = stage.handle("t/a");
    let (back, ()) = tokio::join!(stage.request("t/a"), async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(handle.gate.enter().is_none());
        drop(second);
    });
    assert!(back.is_some());
    let texts = stage.conductor.events(None, 100);
    assert!(
        texts
            .iter()
            .any(|h| h.text.to_string().contains("needed by t/b")),
        "{texts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_can_never_fit_is_refused_with_figures() {
    let stage = Stage::with(Fake::default(), &[8 << 30], &[spec("t/a")]).await;
    assert!(stage.request("t/a").await.is_none());
    let reason = stage.reason("t/a");
    assert!(
        reason.contains("17GiB") && reason.contains("8GiB"),
        "{reason}"
    );
}
