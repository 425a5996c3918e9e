//! Feeds the history: what requests did, what machine, workers and GPUs use.
//!
//! Levels (requests inside and waiting) are sampled every [`SAMPLE`]; the rest at
//! each flush, which falls on a multiple of ten seconds of the wall clock. What
//! the series mean is `telemetry::history`'s, keeping them `store::history`'s.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::deployment::Snapshot;
use crate::names::DeploymentId;
use crate::telemetry::history::{Gauge, INTERVAL, Scope};
use crate::telemetry::host::{Sampler, Tree};
use crate::telemetry::metrics;
use crate::time::{Instant, sleep_until, unix_seconds, unix_time};
use crate::units::float;

/// Pause between two samples of levels.
const SAMPLE: Duration = Duration::from_secs(2);
/// Age in seconds at which the last reading of a GPU is no longer true.
const SENSOR_AGE_MAX: u64 = 30;

/// Samples and flushes until told to end, and once more then.
pub(super) async fn keep(admin: Admin, ending: CancellationToken) {
    // A scrape before the first flush finds it too.
    metrics::history_degraded(admin.history.degraded().is_some());
    let mut sampler = Sampler::default();
    let mut next = next_flush(unix_time());
    loop {
        let flush = Instant::now() + next.saturating_sub(unix_time());
        if !levels_until(&admin, flush, &ending).await {
            break;
        }
        sampler = at_flush(&admin, sampler, next).await;
        next = next_flush(unix_time());
    }
    admin.recorder.levels();
    // For the interval that has not ended yet: a later one would be in the future.
    let now = interval_end(unix_time());
    drop(at_flush(&admin, sampler, next.min(now)).await);
}

/// The next multiple of the interval that is far enough away to be another one.
fn next_flush(now: Duration) -> Duration {
    interval_end(now + INTERVAL / 4)
}

/// The next multiple of the interval.
fn interval_end(now: Duration) -> Duration {
    let interval = INTERVAL.as_secs();
    Duration::from_secs((now.as_secs() / interval + 1) * interval)
}

/// Samples levels until it is time to flush. False when told to end.
async fn levels_until(admin: &Admin, flush: Instant, ending: &CancellationToken) -> bool {
    loop {
        let next = (Instant::now() + SAMPLE).min(flush);
        tokio::select! {
            () = sleep_until(next) => {}
            () = ending.cancelled() => return false,
        }
        admin.recorder.levels();
        if next == flush {
            return true;
        }
    }
}

/// Samples the machine, workers and GPUs, and keeps all points for the interval
/// that ends then.
async fn at_flush(admin: &Admin, sampler: Sampler, ends: Duration) -> Sampler {
    let admin = admin.clone();
    let work = move || {
        let mut sampler = sampler;
        machine(&admin, &mut sampler);
        gpus(&admin);
        admin
            .history
            .append(ends.as_secs(), &admin.recorder.flush());
        metrics::history_degraded(admin.history.degraded().is_some());
        admin.lifecycle.keep_marks(&admin.settings.gateway.state);
        sampler
    };
    // A task that was cancelled at the end of the runtime has nothing to say.
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn machine(admin: &Admin, sampler: &mut Sampler) {
    let now = admin.registry.clock.now();
    sampler.machine(now).record(&admin.recorder);
    let handles = admin.registry.all();
    let workers: Vec<(DeploymentId, Tree)> = handles
        .iter()
        .filter_map(|handle| Some((handle.id.clone(), tree(&handle.snapshot())?)))
        .collect();
    let trees: Vec<Tree> = workers.iter().map(|(_, tree)| tree.clone()).collect();
    for ((id, _), usage) in workers.into_iter().zip(sampler.trees(now, &trees)) {
        if let Some(usage) = usage {
            usage.record(&admin.recorder, &Scope::Worker(id));
        }
    }
}

/// The processes of a deployment: the session of its worker, or the trees of all
/// its replicas' workers.
fn tree(snapshot: &Snapshot) -> Option<Tree> {
    let replicas = snapshot.replicas.iter();
    let mut pids: Vec<u32> = replicas.filter_map(|(_, replica)| replica.pid).collect();
    pids.extend(snapshot.pid);
    pids.sort_unstable();
    pids.dedup();
    match pids[..] {
        [] => None,
        [pid] => Some(Tree::Session(pid)),
        _ => Some(Tree::Roots(pids)),
    }
}

/// Readings of the devices' sensors; of pretended ones, the bytes held by our account.
fn gpus(admin: &Admin) {
    let recorder = &admin.recorder;
    let sample = admin.gpus.readings.latest();
    let is_fresh = unix_seconds().saturating_sub(sample.at) <= SENSOR_AGE_MAX;
    for reading in sample.devices.iter().filter(|_| is_fresh) {
        let scope = Scope::Gpu(reading.index);
        for (gauge, value) in [
            (Gauge::GpuMemory, Some(float(reading.memory_used))),
            (Gauge::GpuUtilisation, reading.utilization.map(f64::from)),
            (Gauge::GpuTemperature, reading.temperature.map(f64::from)),
            (
                Gauge::GpuPower,
                reading.power.map(|milli| f64::from(milli) / 1e3),
            ),
        ] {
            if let Some(value) = value {
                recorder.gauge(&scope, gauge, value);
            }
        }
    }
    if !admin.gpus.is_real() {
        let holdings = admin.registry.holdings();
        for device in &admin.gpus.devices {
            let held = holdings
                .iter()
                .filter(|holding| holding.gpu == device.index);
            let held: u64 = held.map(|holding| holding.bytes).sum();
            recorder.gauge(&Scope::Gpu(device.index), Gauge::GpuMemory, float(held));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_fall_on_multiples_of_ten_seconds_and_none_comes_twice() {
        for (now, next) in [
            (100.0, 110),
            (101.0, 110),
            (107.4, 110),
            (107.6, 120),
            (110.0, 120),
        ] {
            let now = Duration::from_secs_f64(now);
            assert_eq!(next_flush(now), Duration::from_secs(next), "{now:?}");
        }
    }
}
