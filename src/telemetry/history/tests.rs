use std::thread;

use super::*;

fn deployment(text: &str) -> Scope {
    format!("deployment:{text}").parse().unwrap()
}

fn ended(outcome: Outcome) -> Ended {
    Ended {
        outcome,
        total: Duration::from_millis(200),
        first_token: Some(Duration::from_millis(50)),
        prompt_tokens: 10,
        completion_tokens: 30,
    }
}

fn find(points: &[Point], series: Series) -> Option<&Cell> {
    let found = points.iter().find(|point| point.series == series);
    found.map(|point| &point.cell)
}

#[tokio::test]
async fn a_flush_takes_every_request_once_even_under_race() {
    let recorder = Arc::new(Recorder::new(Clock::start()));
    let account = recorder.account(&deployment("a/b"));
    let mut points = Vec::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| account.ended(&ended(Outcome::Ok))));
        }
        for _ in 0..50 {
            points.extend(recorder.flush());
        }
    });
    points.extend(recorder.flush());
    let (mut requests, mut tokens, mut times) = (0, 0, Sketch::default());
    for point in &points {
        match (&point.series, &point.cell) {
            (Series::Count(Count::Requests), Cell::Count { sum, .. }) => requests += sum,
            (Series::Count(Count::CompletionTokens), Cell::Count { sum, .. }) => tokens += sum,
            (Series::Times(Times::Latency), Cell::Times(sketch)) => times.merge(sketch),
            _ => {}
        }
    }
    assert_eq!((requests, tokens, times.count()), (4_000, 120_000, 4_000));
}

#[tokio::test]
async fn errors_count_by_outcome_and_tell_nothing_of_latency() {
    let recorder = Recorder::new(Clock::start());
    let account = recorder.account(&deployment("a/b"));
    account.ended(&Ended {
        first_token: None,
        ..ended(Outcome::Limited)
    });
    account.cold_start();
    let points = recorder.flush();
    let limited = Series::Count(Count::Ended(Outcome::Limited));
    assert_eq!(find(&points, limited), Some(&Cell::count(1)));
    let starts = Series::Count(Count::ColdStarts);
    assert_eq!(find(&points, starts), Some(&Cell::count(1)));
    assert_eq!(find(&points, Series::Times(Times::Latency)), None);
    let quiet = recorder.flush();
    assert_eq!(find(&quiet, limited), None);
    let requests = Series::Count(Count::Requests);
    assert_eq!(
        find(&quiet, requests),
        Some(&Cell::count(0)),
        "recorded, and none"
    );
}

#[tokio::test]
async fn an_account_that_no_one_holds_is_flushed_once_more_and_forgotten() {
    let recorder = Recorder::new(Clock::start());
    recorder.account(&deployment("a/b")).cold_start();
    assert_eq!(recorder.flush().len(), 4);
    assert_eq!(recorder.flush(), []);
}

#[tokio::test]
async fn samples_of_a_gauge_come_together_in_one_point() {
    let recorder = Recorder::new(Clock::start());
    for value in [1.0, 2.0, f64::NAN] {
        recorder.gauge(&Scope::Host, Gauge::Cpu, value);
    }
    let expected = Cell::Gauge {
        sum: 3_000,
        samples: 3,
    };
    let points = recorder.flush();
    assert_eq!(find(&points, Series::Gauge(Gauge::Cpu)), Some(&expected));
    assert_eq!(recorder.flush(), []);
}

#[tokio::test(start_paused = true)]
async fn live_rates_are_of_the_last_ten_seconds_and_sum_over_an_instance() {
    let recorder = Recorder::new(Clock::start());
    let accounts = ["a/b", "a/c", "x/y"].map(|id| recorder.account(&deployment(id)));
    for account in &accounts {
        account.ended(&ended(Outcome::Ok));
    }
    let instance: Scope = "instance:a".parse().unwrap();
    let expected = Live {
        requests: 0.2,
        prompt_tokens: 2.0,
        completion_tokens: 6.0,
    };
    assert_eq!(recorder.live(&instance), expected);
    drop(recorder.flush());
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(
        recorder.live(&instance),
        expected,
        "a flush takes nothing off"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(recorder.live(&instance), Live::default());
}
