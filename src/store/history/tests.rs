use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::{ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::plan::{DAY, HOUR};
use super::*;
use crate::telemetry::history::{Cell, Count, Gauge, Quantile, Sketch, Times};

/// The beginning of a day.
const START: u64 = 20_000 * DAY;

const REQUESTS: Metric = Metric::Count(Count::Requests);
const P95: Metric = Metric::Quantile(Times::Latency, Quantile::P95);

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn point(of: &str, series: Series, cell: Cell) -> Point {
    Point {
        scope: scope(of),
        series,
        cell,
    }
}

fn requests(of: &str, sum: u64) -> Point {
    point(of, Series::Count(Count::Requests), Cell::count(sum))
}

fn latency(of: &str, millis: &[u32]) -> Point {
    let mut sketch = Sketch::default();
    for time in millis {
        sketch.add(Duration::from_millis((*time).into()));
    }
    point(of, Series::Times(Times::Latency), Cell::Times(sketch))
}

/// Sum of requests of an answer to [`REQUESTS`], when all of every step was recorded.
fn total(points: &[(u64, f64)], step: u32) -> f64 {
    points.iter().map(|(_, rate)| rate * f64::from(step)).sum()
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |history: &History| {
        let of = scope("deployment:a/b");
        history
            .query(&of, REQUESTS, START, START + HOUR, 10)
            .unwrap()
    };
    let history = History::open(dir.path(), BYTES_MAX);
    history.append(START + 10, &[requests("deployment:a/b", 30)]);
    history.append(START + 20, &[requests("deployment:a/b", 50)]);
    assert_eq!(history.degraded(), None);
    let expected = [(START, 3.0), (START + 10, 5.0)];
    assert_eq!(ask(&history), expected);
    drop(history);
    let history = History::open(dir.path(), BYTES_MAX);
    assert_eq!(ask(&history), expected);
    history.append(START + 30, &[requests("deployment:a/b", 70)]);
    assert_eq!(ask(&history)[2], (START + 20, 7.0));
}

#[test]
fn a_flush_counts_for_the_interval_before_it_though_it_comes_late_or_early() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    for now in [START + 10, START + 24, START + 26] {
        history.append(now, &[requests("host", 10)]);
    }
    let answer = history.query(&Scope::Host, REQUESTS, START, START + 60, 10);
    let expected = [START, START + 10, START + 20].map(|at| (at, 1.0));
    assert_eq!(answer.unwrap(), expected);
}

#[test]
fn thinning_keeps_every_count_and_the_quantiles_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    let (mut sum, mut all) = (0_u32, Vec::new());
    let of = "deployment:a/b";
    for flush in 0..420_u32 {
        let count = flush * 7919 % 23;
        let times: Vec<u32> = (0..count).map(|n| 10 + (n * flush * 31) % 5_000).collect();
        history.append(
            START + 10 * (u64::from(flush) + 1),
            &[requests(of, count.into()), latency(of, &times)],
        );
        sum += count;
        all.extend(times);
    }
    all.sort_unstable();
    let exact = f64::from(all[(all.len() * 95).div_ceil(100) - 1]) / 1e3;
    let (of, end) = (scope(of), START + 4_200);
    // Fine, coarse, and one step over all, of which 4,200 seconds were recorded.
    for (step, recorded) in [(10, 10), (300, 300), (2 * HOUR, 4_200)] {
        let rates = history.query(&of, REQUESTS, START, end, step).unwrap();
        assert_eq!(rates.len(), 4_200 / recorded as usize);
        assert!(
            (total(&rates, recorded) - f64::from(sum)).abs() < 1e-6,
            "step {step}"
        );
    }
    let p95 = history.query(&of, P95, START, end, 2 * HOUR).unwrap();
    let [(START, p95)] = p95[..] else {
        panic!("{p95:?}");
    };
    assert!((p95 - exact).abs() <= 0.0501 * exact, "{p95} for {exact}");
}

#[test]
fn an_instance_is_the_sum_of_its_deployments() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    let in_flight = |of, value| {
        let cell = Cell::gauge(Gauge::InFlight, value);
        point(of, Series::Gauge(Gauge::InFlight), cell)
    };
    let (ninety, ten) = (vec![100; 90], vec![1_000; 10]);
    history.append(
        START + 10,
        &[
            requests("deployment:a/b", 10),
            requests("deployment:a/c", 20),
            requests("deployment:x/y", 400),
            in_flight("deployment:a/b", 2.0),
            in_flight("deployment:a/c", 3.0),
            latency("deployment:a/b", &ninety),
            latency("deployment:a/c", &ten),
        ],
    );
    let ask = |of: &str, metric| {
        let answer = history.query(&scope(of), metric, START, START + 10, 10);
        answer.unwrap()
    };
    assert_eq!(ask("instance:a", REQUESTS), [(START, 3.0)]);
    assert_eq!(ask("host", REQUESTS), [(START, 43.0)]);
    let in_flight = Metric::Gauge(Gauge::InFlight);
    assert_eq!(ask("instance:a", in_flight), [(START, 5.0)]);
    // A mean of the two would say 0.55.
    let p95 = ask("instance:a", P95)[0].1;
    assert!((0.95..=1.05).contains(&p95), "{p95}");
    let p50 = Metric::Quantile(Times::Latency, Quantile::P50);
    let p50 = ask("instance:a", p50)[0].1;
    assert!((0.095..=0.105).contains(&p50), "{p50}");
}

#[test]
fn no_errors_are_zero_where_there_was_traffic_and_nothing_elsewhere() {
    use crate::telemetry::metrics::Outcome;
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    let of = "deployment:a/b";
    let failed = |outcome, sum| point(of, Series::Count(Count::Ended(outcome)), Cell::count(sum));
    history.append(START + 10, &[requests(of, 9)]);
    let both = [failed(Outcome::Limited, 2), failed(Outcome::ClientGone, 1)];
    history.append(START + 20, &[&[requests(of, 9)], &both[..]].concat());
    let ask = |metric| {
        let answer = history.query(&scope(of), metric, START, START + HOUR, 10);
        answer.unwrap()
    };
    assert_eq!(ask(Metric::Errors), [(START, 0.0), (START + 10, 3.0)]);
    let limited = Metric::Count(Count::Ended(Outcome::Limited));
    assert_eq!(ask(limited), [(START, 0.0), (START + 10, 2.0)]);
}

/// Flushes `step` seconds apart: one in an hour is enough to make and end blocks.
fn fill(history: &History, of: &[&str], from: u64, step: u64, flushes: u64) {
    let points: Vec<_> = of.iter().map(|of| requests(of, 10)).collect();
    for flush in 0..flushes {
        history.append(from + flush * step + 10, &points);
    }
}

#[test]
fn what_is_too_old_ends_and_with_it_the_series_of_what_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    fill(&history, &["deployment:old/b"], START, HOUR, 3);
    fill(&history, &["host"], START + DAY, DAY, 92);
    fill(&history, &["host"], START + 93 * DAY, HOUR, 3 * 24);
    let end = START + 96 * DAY;
    let ask = |of: &str, step| {
        let answer = history.query(&scope(of), REQUESTS, 0, end, step);
        answer.unwrap()
    };
    assert_eq!(ask("deployment:old/b", 10), []);
    let series = read(&history.memory).matching(&scope("deployment:old/b"), |_| true);
    assert!(series.is_empty(), "its number is forgotten");
    let days = ask("host", DAY);
    assert!((90..=92).contains(&days.len()), "{}", days.len());
    drop(history);
    let (fine, coarse, rows) = block_counts(&dir.path().join(FILE));
    assert!((48..=51).contains(&fine), "{fine}");
    assert!((90..=92).contains(&coarse), "{coarse}");
    assert_eq!(rows, 1);
}

fn block_counts(path: &Path) -> (u64, u64, u64) {
    use redb::ReadableTableMetadata;
    let database = open_file(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let blocks = |name| {
        let table: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new(name);
        transaction.open_table(table).unwrap().len().unwrap()
    };
    let rows: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("rows_1");
    let rows = transaction.open_table(rows).unwrap().len().unwrap();
    (blocks("fine_1"), blocks("coarse_1"), rows)
}

#[test]
fn beyond_its_bytes_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), Bytes(64 << 10));
    let names: Vec<_> = (0..60).map(|gpu| format!("gpu:{gpu}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    fill(&history, &names, START, DAY, 60);
    let end = START + 60 * DAY;
    let days = history.query(&scope("gpu:7"), REQUESTS, START, end, DAY);
    let days = days.unwrap();
    assert!((5..40).contains(&days.len()), "{}", days.len());
    assert_eq!(days.last().unwrap().0, end - DAY, "the newest stays");
    assert_eq!(history.degraded(), None);
}

#[test]
fn a_damaged_block_is_left_out_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    fill(&history, &["host"], START, HOUR, 4);
    drop(history);
    let database = open_file(&dir.path().join(FILE)).unwrap();
    let table: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("fine_1");
    let rows: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("rows_1");
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let mut torn = table.get((START, 1)).unwrap().unwrap().value().to_vec();
        torn.truncate(torn.len() / 2);
        table.insert((START, 1), torn.as_slice()).unwrap();
        let mut rows = transaction.open_table(rows).unwrap();
        rows.insert((START + 3 * HOUR + 10, 99), b"torn".as_slice())
            .unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let history = History::open(dir.path(), BYTES_MAX);
    let answer = history.query(&Scope::Host, REQUESTS, START, START + DAY, 10);
    let at: Vec<u64> = answer.unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [1, 2, 3].map(|hour| (START + hour * HOUR) / 50 * 50));
    // And goes on from there.
    history.append(START + 4 * HOUR + 10, &[requests("host", 1)]);
    assert_eq!(history.degraded(), None);
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    history.append(START + 10, &[requests("host", 10)]);
    assert_eq!(history.degraded(), None);
    let answer = history.query(&Scope::Host, REQUESTS, START, START + 10, 10);
    assert_eq!(answer.unwrap(), [(START, 1.0)]);
    let aside = std::fs::read(path.with_extension("redb.damaged")).unwrap();
    assert!(aside == vec![b'x'; 10_000]);
}

#[test]
fn a_file_that_can_not_be_opened_degrades_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let history = History::open(&state, BYTES_MAX);
    let text = history.degraded().unwrap();
    assert!(
        text.contains("history.redb") && text.contains("resumes"),
        "{text}"
    );
    std::fs::create_dir(&state).unwrap();
    let mut flush = 0;
    while history.degraded().is_some() {
        flush += 1;
        assert!(flush <= 10, "never tried again");
        history.append(START + 10 * flush, &[requests("host", 10)]);
    }
    let answer = history.query(&Scope::Host, REQUESTS, START, START + HOUR, 10);
    assert_eq!(
        answer.unwrap().last(),
        Some(&(START + 10 * flush - 10, 1.0))
    );
}

/// A disk that can be full.
#[derive(Debug)]
struct Small {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

impl Small {
    fn check(&self) -> Result<(), io::Error> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Small {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        // Where files are sparse, a full disk shows only here.
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write(offset, data)
    }
    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }
}

#[test]
fn on_a_full_disk_memory_answers_and_writing_resumes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let is_full = Arc::new(AtomicBool::new(false));
    let open: Opener = {
        let (path, is_full) = (path.clone(), Arc::clone(&is_full));
        Box::new(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = FileBackend::new(options.open(&path).map_err(StorageError::Io)?)?;
            build(Small {
                file,
                is_full: Arc::clone(&is_full),
            })
        })
    };
    let history = History::with_opener(path, BYTES_MAX, open);
    let append = |flush: u64| history.append(START + 10 * flush, &[requests("host", 10)]);
    let asked = |history: &History| {
        let answer = history.query(&Scope::Host, REQUESTS, START, START + 3 * HOUR, 10);
        answer.unwrap().len() as u64
    };
    append(1);
    assert_eq!(history.degraded(), None);
    is_full.store(true, Ordering::SeqCst);
    for flush in 2..=20 {
        append(flush);
        let text = history.degraded().unwrap();
        assert!(text.contains("the disk is full"), "{text}");
        assert_eq!(asked(&history), flush, "serving goes on");
    }
    is_full.store(false, Ordering::SeqCst);
    let resumed = (21..40).find(|flush| {
        append(*flush);
        history.degraded().is_none()
    });
    let resumed = resumed.unwrap();
    assert!(resumed <= 27, "a minute after there is room");
    drop(history);
    // All of it came to the disk, also what was recorded while it was full.
    let history = History::open(dir.path(), BYTES_MAX);
    assert_eq!(asked(&history), resumed);
}

#[test]
fn a_clock_that_is_set_back_loses_nothing_of_either_time() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), BYTES_MAX);
    let mut expected: HashMap<u64, f64> = HashMap::new();
    for at in [5 * HOUR, 6 * HOUR, 2 * HOUR, 2 * HOUR + 10, 7 * HOUR] {
        history.append(START + at + 10, &[requests("host", 10)]);
        *expected.entry(START + at).or_default() += 1.0;
    }
    let answer = history.query(&Scope::Host, REQUESTS, START + HOUR, START + 8 * HOUR, 10);
    let step = 20;
    let times: Vec<u64> = answer.unwrap().iter().map(|(at, _)| *at).collect();
    let mut wanted: Vec<u64> = expected.keys().map(|at| at / step * step).collect();
    wanted.sort_unstable();
    wanted.dedup();
    assert_eq!(times, wanted);
}
