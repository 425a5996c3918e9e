//! Looks after a worker while it starts and while it serves.
//!
//! A start is overdue when nothing moves: no line of its log, no work of its
//! processes, nothing read. A worker that serves is asked for one token while no
//! request is inside, and for its health while some are. What follows when it
//! does nothing any more is the machine's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::calls::{Callee, Calls, Depth};
use super::launcher::{Launcher, Nonce, WorkerActivity};
use crate::config::Settings;
use crate::deployment::{Gate, Handle};
use crate::time::{Instant, sleep};
use crate::units::Span;

/// Looks at a start within the time that it may stand still.
const LOOKS: u32 = 20;
/// Longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Less than this share of one processor is no work: engines that wait poll.
const IDLE_SHARE: u32 = 50;
/// Fewer bytes moved between two looks are no progress.
const MOVED_BYTES: u64 = 256 << 10;

/// The durations that this goes by.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) struct Care {
    pub(in crate::lifecycle) stall_timeout: Duration,
    pub(in crate::lifecycle) probe_interval: Duration,
    pub(in crate::lifecycle) probe_timeout: Duration,
    pub(in crate::lifecycle) probe_failures: u32,
}

impl From<&Settings> for Care {
    fn from(settings: &Settings) -> Self {
        let workers = &settings.workers;
        Self {
            stall_timeout: workers.stall_timeout,
            probe_interval: workers.probe_interval,
            probe_timeout: workers.probe_timeout,
            probe_failures: workers.probe_failures,
        }
    }
}

/// Lock for our own requests to one worker: a task holds it while it sends one to the engine,
/// as a request inside while an engine falls asleep can kill it.
pub(in crate::lifecycle) type Quiet = Arc<Mutex<()>>;

/// Resolves with words once a start has stood still for too long.
pub(in crate::lifecycle) async fn stalled(
    care: Care,
    launcher: Arc<dyn Launcher>,
    nonce: &Nonce,
    handle: &Handle,
) -> String {
    let pause = (care.stall_timeout / LOOKS).min(LOOK_MAX);
    let mut lines = handle.console.watch();
    let mut before = look(&launcher, nonce).await;
    let mut moved_at = Instant::now();
    loop {
        sleep(pause).await;
        let now = look(&launcher, nonce).await;
        let says = lines.has_changed().unwrap_or(false);
        lines.mark_unchanged();
        // What can't be looked at is not held against it: the start has a limit.
        let moves = match (before, now) {
            (Some(before), Some(now)) => has_moved(before, now, pause),
            _ => true,
        };
        if says || moves {
            moved_at = Instant::now();
        }
        before = now;
        if moved_at.elapsed() >= care.stall_timeout {
            let (last, _) = handle.console.tail(1);
            let last = last.first().map_or("nothing", |line| line.as_ref());
            return format!(
                "its start stood still for {} (workers.stall_timeout): no line of log, no work, nothing read; its last line: {last}",
                Span(care.stall_timeout)
            );
        }
    }
}

async fn look(launcher: &Arc<dyn Launcher>, nonce: &Nonce) -> Option<WorkerActivity> {
    let (launcher, nonce) = (Arc::clone(launcher), nonce.clone());
    let look = tokio::task::spawn_blocking(move || launcher.activity(&nonce));
    look.await.ok().flatten()
}

fn has_moved(before: WorkerActivity, now: WorkerActivity, pause: Duration) -> bool {
    let worked = now.cpu.saturating_sub(before.cpu);
    let moved = now.bytes.saturating_sub(before.bytes);
    // Fewer than before: a process has ended, and that is a change too.
    let changed = now.cpu < before.cpu || now.bytes < before.bytes;
    changed || worked > pause / IDLE_SHARE || moved > MOVED_BYTES
}

/// Resolves with words once a worker that serves has failed its probes. One that
/// has not `served` yet is loading: how long that may take is not asked here.
pub(in crate::lifecycle) async fn unwell(
    care: Care,
    calls: Arc<dyn Calls>,
    callee: Callee,
    gate: Arc<Gate>,
    quiet: Quiet,
    served: Arc<AtomicBool>,
) -> String {
    if care.probe_interval.is_zero() {
        return std::future::pending().await;
    }
    let mut failures = 0;
    loop {
        sleep(care.probe_interval).await;
        if !served.load(Ordering::Acquire) {
            continue;
        }
        if let Some(result) = probe(care, calls.as_ref(), &callee, &gate, &quiet).await {
            let Err(error) = result else {
                failures = 0;
                continue;
            };
            failures += 1;
            tracing::warn!(deployment.id = %callee.launched.deployment, failures,
                "a probe of a worker failed: {error}");
            if failures >= care.probe_failures {
                return format!(
                    "it failed {failures} probes in a row (workers.probe_failures): {error}"
                );
            }
        }
    }
}

/// Probes once; `None` where it does not serve now.
async fn probe(
    care: Care,
    calls: &dyn Calls,
    callee: &Callee,
    gate: &Gate,
    quiet: &Quiet,
) -> Option<Result<(), String>> {
    // Held before the gate is looked at: the task that puts it to sleep closes the gate
    // first and then waits for this lock.
    let _held = quiet.lock().await;
    if !gate.is_open() {
        return None;
    }
    let depth = match gate.in_flight() {
        0 => Depth::Answer,
        _ => Depth::Look,
    };
    let callee = Callee {
        limit: care.probe_timeout,
        ..callee.clone()
    };
    Some(calls.probe(callee, depth).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_polls_stands_still_and_one_that_reads_does_not() {
        let at = |millis, bytes| WorkerActivity {
            cpu: Duration::from_millis(millis),
            bytes,
        };
        let pause = Duration::from_secs(10);
        assert!(!has_moved(at(1_000, 0), at(1_100, 4_096), pause));
        assert!(has_moved(at(1_000, 0), at(1_500, 0), pause));
        assert!(has_moved(at(1_000, 0), at(1_000, 1 << 20), pause));
        assert!(has_moved(at(1_000, 0), at(10, 0), pause), "one has ended");
    }
}
