//! Histories of a realistic size, made in seconds: an hour of intervals goes to
//! memory, and the last one of it to the disk with all of them.
//!
//! Size of ninety days of fifty deployments, and time that questions take, by
//! hand: `cargo test --release ninety_days -- --ignored --nocapture`. For checks in a
//! browser, `two_days_for_a_dashboard` fills the state directory that
//! `TIDEGATE_TEST_STATE` names, for the deployments of `TIDEGATE_TEST_DEPLOYMENTS`.

use std::time::Duration;

use super::plan::{DAY, HOUR};
use super::*;
use crate::telemetry::history::{Cell, Count, Gauge, Quantile, Sketch, Times};
use crate::time::Instant;

/// The beginning of a day.
const START: u64 = 20_000 * DAY;
const DEPLOYMENTS: u64 = 50;

/// Scopes of a deployment and of its worker.
fn scopes(deployment: u64) -> (Scope, Scope) {
    let of = |kind: &str| format!("{kind}:team/model-{deployment}").parse().unwrap();
    (of("deployment"), of("worker"))
}

/// Points that one deployment adds in so many intervals of ten seconds at once.
fn points(
    (deployment, (scope, worker)): (u64, &(Scope, Scope)),
    at: u64,
    intervals: u64,
    points: &mut Vec<Point>,
) {
    // A third of them is busy at a time, as the day goes.
    let busy = (at / HOUR + deployment).is_multiple_of(3);
    let requests = if busy {
        intervals * (5 + (at / 10 + deployment) % 7)
    } else {
        0
    };
    let mut point = |scope: &Scope, series, cell| {
        points.push(Point {
            scope: scope.clone(),
            series,
            cell,
        });
    };
    for (count, sum) in [
        (Count::Requests, requests),
        (Count::PromptTokens, requests * 210),
        (Count::CompletionTokens, requests * 170),
    ] {
        point(scope, Series::Count(count), Cell::count(sum));
    }
    if requests > 0 {
        for (times, base) in [(Times::Latency, 900), (Times::FirstToken, 60)] {
            let mut sketch = Sketch::default();
            for request in 0..requests.min(60) {
                let spread = (request * 7_919 + at) % (base * 2);
                sketch.add(Duration::from_millis(base + spread));
            }
            point(scope, Series::Times(times), Cell::Times(sketch));
        }
    }
    let level = if busy { 3.0 } else { 0.0 };
    point(
        scope,
        Series::Gauge(Gauge::InFlight),
        Cell::gauge(Gauge::InFlight, level),
    );
    point(
        scope,
        Series::Gauge(Gauge::Queued),
        Cell::gauge(Gauge::Queued, 0.0),
    );
    let jitter = f64::from(u32::try_from(at / 10 % 13).unwrap());
    for (gauge, value) in [
        (Gauge::Cpu, level + jitter / 10.0),
        (Gauge::Memory, 8e9 + jitter * 1e7),
        (Gauge::MemoryResident, 9e9 + jitter * 1e7),
        (Gauge::DiskRead, jitter * 1e5),
        (Gauge::DiskWritten, jitter * 1e4),
    ] {
        point(worker, Series::Gauge(gauge), Cell::gauge(gauge, value));
    }
}

/// Takes up intervals that end at `at`, and writes them at the end of each hour.
fn keep(history: &History, at: u64, points: &[Point]) {
    if at.is_multiple_of(HOUR) {
        history.append(at, points);
    } else {
        write(&history.memory).record(at - plan::FINE, points);
    }
}

#[test]
#[ignore = "figures, of minutes: cargo test --release --lib ninety_days -- --ignored --nocapture"]
fn ninety_days_of_fifty_deployments() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    let (end, fine_from) = (START + 90 * DAY, START + 88 * DAY);
    let scopes: Vec<_> = (0..DEPLOYMENTS).map(scopes).collect();
    let of_interval = |at, intervals| {
        let mut all = Vec::new();
        for deployment in (0..).zip(&scopes) {
            points(deployment, at, intervals, &mut all);
        }
        all
    };
    let began = Instant::now();
    let mut at = START;
    while at < end - HOUR {
        // Cells that are thinned anyway come in steps of five minutes: the same cells.
        let step = if at < fine_from { 300 } else { 10 };
        at += step;
        keep(&history, at, &of_interval(at, step / 10));
    }
    println!("filled in {:.0?}", began.elapsed());
    // The last hour as it is in life: every interval to the disk.
    let mut took = Vec::new();
    while at < end {
        at += 10;
        let all = of_interval(at, 1);
        let began = Instant::now();
        history.append(at, &all);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took.last().unwrap());
    println!("one interval to the disk: {median:.1?}, with the end of an hour {longest:.1?}");
    assert_eq!(history.degraded(), None);
    let size = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
    println!("{} KiB", size / 1024);
    ask_all(&history, end);
    drop(history);
    let began = Instant::now();
    let history = History::open(dir.path(), BYTES_MAX);
    assert_eq!(history.degraded(), None);
    println!("opened again in {:.1?}", began.elapsed());
}

/// Times that questions of one deployment, and of all, take.
fn ask_all(history: &History, end: u64) {
    let deployment: Scope = "deployment:team/model-7".parse().unwrap();
    let instance: Scope = "instance:team".parse().unwrap();
    let requests = Metric::Count(Count::Requests);
    let p99 = Metric::Quantile(Times::Latency, Quantile::P99);
    let memory = Metric::Gauge(Gauge::Memory);
    for (of, scope) in [
        ("one deployment", &deployment),
        ("all fifty together", &instance),
    ] {
        for (metric, name) in [
            (requests, "requests"),
            (p99, "latency p99"),
            (memory, "memory"),
        ] {
            for (span, back) in [("1 h", HOUR), ("2 d", 2 * DAY), ("90 d", 90 * DAY)] {
                let began = Instant::now();
                let points = history.query(scope, metric, end - back, end, 0).unwrap();
                println!(
                    "{of}, {name}, {span}: {} points in {:.1?}",
                    points.len(),
                    began.elapsed()
                );
            }
        }
    }
}

/// Points that a machine with two GPUs measures in an interval.
fn machine(at: u64, points: &mut Vec<Point>) {
    let wave = |period: u64, low: f64, high: f64| {
        let phase = at % period * 628 / period;
        let phase = f64::from(u32::try_from(phase).unwrap()) / 100.0;
        let jitter = f64::from(u32::try_from(at * 7_919 % 97).unwrap()) / 970.0;
        low + (high - low) * (0.45 + phase.sin() * 0.45 + jitter)
    };
    let mut point = |scope: &str, gauge, value| {
        points.push(Point {
            scope: scope.parse().unwrap(),
            series: Series::Gauge(gauge),
            cell: Cell::gauge(gauge, value),
        });
    };
    point("host", Gauge::Cpu, wave(DAY, 2.0, 40.0));
    point("host", Gauge::Memory, wave(DAY, 8e10, 1.6e11));
    point("host", Gauge::NetworkReceived, wave(DAY / 2, 1e5, 9e6));
    point("host", Gauge::NetworkSent, wave(DAY / 2, 4e5, 3e7));
    point("host", Gauge::DiskRead, wave(DAY / 4, 0.0, 4e8));
    point("host", Gauge::DiskWritten, wave(DAY / 3, 0.0, 6e7));
    for (gpu, period) in [("gpu:0", DAY), ("gpu:1", DAY / 2)] {
        point(gpu, Gauge::GpuUtilisation, wave(period, 0.0, 98.0));
        point(gpu, Gauge::GpuMemory, wave(2 * period, 2e10, 8e10));
        point(gpu, Gauge::GpuTemperature, wave(period, 34.0, 71.0));
        point(gpu, Gauge::GpuPower, wave(period, 70.0, 640.0));
    }
}

#[test]
#[ignore = "fills a state directory: set TIDEGATE_TEST_STATE and TIDEGATE_TEST_DEPLOYMENTS"]
fn two_days_for_a_dashboard() {
    let of = |name| std::env::var(name).unwrap();
    let history = History::open(of("TIDEGATE_TEST_STATE").as_ref(), BYTES_MAX);
    let ids = of("TIDEGATE_TEST_DEPLOYMENTS");
    let scopes: Vec<(Scope, Scope)> = ids
        .split(',')
        .map(|id| ["deployment", "worker"].map(|kind| format!("{kind}:{id}").parse().unwrap()))
        .map(|[deployment, worker]| (deployment, worker))
        .collect();
    let end = crate::time::unix_seconds() / plan::FINE * plan::FINE;
    let mut at = end - 2 * DAY;
    while at < end {
        at += plan::FINE;
        let mut all = Vec::new();
        for deployment in (0..).zip(&scopes) {
            points(deployment, at, 1, &mut all);
        }
        machine(at, &mut all);
        keep(&history, at, &all);
    }
    history.append(end, &[]);
    assert_eq!(history.degraded(), None);
}
