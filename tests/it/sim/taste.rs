//! Tastes of the stand-in: what it does wrong after a wake is told, and nothing is where it
//! does all right.

use std::time::Duration;

use serde_json::json;
use tidegate::names::ModelName;
use tidegate::vllm::client::{CallError, Client, SleepLevel};
use tidegate::vllm::taste::TasteFigures;

use super::process::Sim;

const LIMIT: Duration = Duration::from_secs(30);
/// Wakes of each level that are played; `TIDEGATE_WAKES=5000` makes it long.
const WAKES: u32 = 50;
const NO_PAUSES: [&str; 8] = [
    "--load", "0s", "--sleep", "0s", "--wake", "0s", "--reload", "0s",
];
/// Names of the model and of two adapters, and speculative decoding.
const NAMES: [&str; 6] = [
    "--served-model-name",
    "base",
    "sql",
    "chat",
    "--num-speculative-tokens",
    "5",
];
/// No time passes between tokens.
const FAST: [&str; 4] = ["--tokens-per-second", "1e9", "--first-token", "0s"];
/// An answer takes long enough for its speed to be told.
const SLOW: [&str; 4] = ["--tokens-per-second", "20", "--first-token", "10ms"];

/// A stand-in with adapters, of this speed.
fn sim(speed: [&str; 4]) -> Sim {
    Sim::ready(&[&NO_PAUSES[..], &speed, &NAMES].concat())
}

fn client(sim: &Sim) -> Client {
    Client::new(sim.address(), "".into(), "base".into())
}

fn adapters() -> [ModelName; 2] {
    ["sql", "chat"].map(|name| ModelName::new(name).unwrap())
}

/// Outcome of a wake where this goes wrong.
async fn woken(
    sim: &Sim,
    fault: &str,
    level: SleepLevel,
) -> Result<Option<TasteFigures>, CallError> {
    let client = client(sim);
    let before = client.taste(&adapters(), LIMIT).await.unwrap().unwrap();
    let done = sim.post("/sim/fault", &json!({"fault": fault}));
    assert_eq!(done.status, 200);
    client.sleep(level, LIMIT).await.unwrap();
    client.wake(level, Some(&before), LIMIT).await
}

async fn is_told(fault: &str, words: &str, speed: [&str; 4]) {
    for level in [SleepLevel::One, SleepLevel::Two] {
        let sim = sim(speed);
        let error = woken(&sim, fault, level).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains(words), "{fault}: {error}");
    }
}

#[tokio::test]
async fn garbage_after_a_wake_is_told() {
    is_told("garbage-after-wake", "it answers", FAST).await;
}

#[tokio::test]
async fn one_logit_that_a_wake_changed_is_told() {
    let words = "other logprobs: token 17 is off by 1.50";
    is_told("logit-after-wake", words, FAST).await;
}

#[tokio::test]
async fn adapters_that_a_wake_lost_are_told() {
    is_told("adapters-lost-after-wake", "(asked as ", FAST).await;
}

#[tokio::test]
async fn a_draft_model_that_a_wake_lost_is_told() {
    let words = "0 % of what speculative decoding guesses holds, and 80 % did before";
    is_told("guesses-lost-after-wake", words, FAST).await;
}

#[tokio::test]
async fn half_the_speed_after_a_wake_is_told() {
    is_told("slow-after-wake", "tokens each second, and made", SLOW).await;
}

#[tokio::test]
async fn an_error_for_an_answer_is_no_taste() {
    is_told("status-500", "500", FAST).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_within_the_limit_is_no_taste() {
    let sim = sim(SLOW);
    let client = client(&sim);
    // The answer alone takes five times as long.
    let limit = Duration::from_millis(300);
    let before = client.taste(&adapters(), LIMIT).await.unwrap().unwrap();
    client.sleep(SleepLevel::One, LIMIT).await.unwrap();
    let woken = client.wake(SleepLevel::One, Some(&before), limit).await;
    assert!(matches!(woken, Err(CallError::Timeout { .. })), "{woken:?}");
}

#[tokio::test]
async fn honest_wakes_raise_no_alarm() {
    let wakes = std::env::var("TIDEGATE_WAKES");
    let wakes = wakes.map_or(WAKES, |text| text.parse().unwrap());
    let sim = sim(FAST);
    let client = client(&sim);
    let before = client.taste(&adapters(), LIMIT).await.unwrap().unwrap();
    for round in 0..wakes {
        for level in [SleepLevel::One, SleepLevel::Two] {
            client.sleep(level, LIMIT).await.unwrap();
            let woken = client.wake(level, Some(&before), LIMIT).await;
            let figures = woken.unwrap_or_else(|error| panic!("{round}: {error}"));
            let held = figures.and_then(|figures| figures.guesses_held);
            assert_eq!(held, Some(0.8), "{round}");
        }
    }
}

#[tokio::test]
async fn the_speed_of_a_taste_is_that_of_its_tokens() {
    let sim = sim(SLOW);
    let client = client(&sim);
    let before = client.taste(&[], LIMIT).await.unwrap().unwrap();
    let speed = before.figures().tokens_per_second;
    assert!((10.0..21.0).contains(&speed), "{speed}");
}

#[tokio::test]
async fn an_adapter_says_other_things_than_the_model_and_one_that_is_gone_is_told() {
    let sim = sim(FAST);
    let client = client(&sim);
    let mut before = client.taste(&adapters(), LIMIT).await.unwrap().unwrap();
    let (_, model) = before.model.said.first().unwrap();
    let adapters = &mut before.adapters.first_mut().unwrap().said;
    let [(sql, said), (_, other)] = &adapters[..] else {
        panic!("{adapters:?}");
    };
    assert_eq!(sql, "sql");
    assert!(model.same(said).is_err() && said.same(other).is_err());
    let gone = ("gone".to_owned(), said.clone());
    adapters.push(gone);
    client.sleep(SleepLevel::One, LIMIT).await.unwrap();
    let woken = client.wake(SleepLevel::One, Some(&before), LIMIT).await;
    let error = woken.unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}
