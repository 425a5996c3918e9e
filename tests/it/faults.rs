//! Workers that do not do what they are told, and disks that take nothing more:
//! real processes of the stand-in, each with one fault.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::config::OffloadTo;
use tidegate::deployment::Snapshot;
use tidegate::gpu::Inventory;
use tidegate::lifecycle::Command;

use super::lifecycle::{Run, run_on, spec};

/// Long enough for a machine that is busy, short enough to be waited for.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

async fn with_fault(state: &Path, fault: &str) -> Run {
    let spec = spec(OffloadTo::Disk, &[fault]);
    run_on(state, spec, Inventory::none(), |settings| {
        settings.workers.call_timeout = CALL_TIMEOUT;
        settings.workers.stop_grace = Duration::from_millis(500);
    })
    .await
}

fn is_gone(snapshot: &Snapshot) -> bool {
    let pid = snapshot.pid.unwrap();
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// It serves, is told to sleep, and goes to this phase instead or first; then it
/// serves again, with another worker.
async fn is_replaced(fault: &str, phase: &str, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let run = with_fault(dir.path(), fault).await;
    let first = run.serves().await;
    run.command(Command::Offload).await;
    run.phase(phase).await;
    let again = run.serves().await;
    assert_ne!(first.pid, again.pid, "{fault}: started anew, not woken");
    assert!(is_gone(&first), "{fault}: the old one is left");
    let told = run.told();
    assert!(told.contains(says), "{fault}: {told}");
    run.end(true).await;
    assert!(is_gone(&again), "{fault}: left at the end");
}

#[tokio::test]
async fn a_worker_that_fails_or_hangs_in_a_call_is_replaced_and_serves_again() {
    tokio::join!(
        is_replaced("sleep-fails", "stopped", "could not sleep"),
        is_replaced("hang-on-sleep", "stopped", "\nstopping: "),
        is_replaced("wake-fails", "offloaded", "could not wake up"),
        is_replaced("hang-on-wake", "offloaded", "\nstopping: "),
        // vLLM answers so, with status 200, when weights were not loaded again.
        is_replaced(
            "garbage-after-wake",
            "offloaded",
            "since it woke it answers"
        ),
    );
}

#[tokio::test]
async fn a_worker_that_ignores_its_end_is_killed_within_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let run = with_fault(dir.path(), "ignore-sigterm").await;
    let first = run.serves().await;
    run.command(Command::Stop).await;
    run.phase("stopped").await;
    assert!(is_gone(&first));
    assert!(run.told().contains("killed: did not end"), "{}", run.told());
    run.end(true).await;
}

/// As a full disk answers: nothing can be written where the journal stands.
#[tokio::test]
async fn nothing_is_launched_that_the_journal_cannot_take_and_it_starts_once_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let run = with_fault(dir.path(), "split:64").await;
    let (journal, aside) = (dir.path().join("workers"), dir.path().join("aside"));
    fs::rename(&journal, &aside).unwrap();
    fs::write(&journal, "full").unwrap();
    run.held.demand();
    let mut watch = run.held.watch();
    let failed = watch.wait_for(|snapshot| snapshot.phase == "failed");
    let failed = tokio::time::timeout(CALL_TIMEOUT, failed).await;
    let failed: Arc<Snapshot> = Arc::clone(&failed.unwrap().unwrap());
    let reason = failed.reason.clone().unwrap();
    let reason = reason.to_string();
    assert!(reason.contains("its record can't be written"), "{reason}");
    assert_eq!(failed.pid, None, "nothing runs that nobody would find");
    fs::remove_file(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    // By itself: no operator, and no request more.
    run.phase("ready").await;
    let ready = run.serves().await;
    // A note that can't be written does not keep it from its work.
    fs::rename(&journal, &aside).unwrap();
    fs::write(&journal, "full").unwrap();
    run.command(Command::Offload).await;
    run.phase("offloaded").await;
    assert_eq!(run.serves().await.pid, ready.pid);
    fs::remove_file(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    run.end(true).await;
    assert!(is_gone(&ready));
}
