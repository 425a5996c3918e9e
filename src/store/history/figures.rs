//! How large ninety days of fifty deployments are, and how long questions take;
//! by hand: `cargo test --release figures -- --ignored --nocapture`.

use std::time::Duration;

use super::plan::{DAY, HOUR};
use super::*;
use crate::telemetry::history::{Cell, Count, Gauge, Quantile, Sketch, Times};
use crate::time::Instant;

/// The beginning of a day.
const START: u64 = 20_000 * DAY;
const DEPLOYMENTS: u64 = 50;

/// Whose series: the deployment's and its worker's.
fn scopes(deployment: u64) -> (Scope, Scope) {
    let of = |kind: &str| format!("{kind}:team/model-{deployment}").parse().unwrap();
    (of("deployment"), of("worker"))
}

/// What one deployment adds in so many intervals of ten seconds at once.
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

#[test]
#[ignore = "figures, of a minute or more"]
fn ninety_days_of_fifty_deployments() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    let (end, fine_from) = (START + 90 * DAY, START + 88 * DAY);
    let scopes: Vec<_> = (0..DEPLOYMENTS).map(scopes).collect();
    let began = Instant::now();
    let mut at = START;
    while at < end {
        // What is thinned anyway comes in steps of five minutes: the same cells.
        let step = if at < fine_from { 300 } else { 10 };
        at += step;
        let mut all = Vec::new();
        for deployment in (0..).zip(&scopes) {
            points(deployment, at, step / 10, &mut all);
        }
        history.append(at, &all);
    }
    assert_eq!(history.degraded(), None);
    let size = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
    println!("written in {:.0?}; {} KiB", began.elapsed(), size / 1024);
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
