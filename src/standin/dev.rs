//! The development routes: sleep, wake, pause, and faults on command.
//!
//! Owns the transitions of the engine's state. Each runs as a task of its own, one
//! at a time, so that a client that goes away leaves none half done.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use tokio::sync::oneshot;

use super::app::{Answer, App, json};
use super::engine::{Engine, State};
use super::error::ApiError;
use super::faults::{Misdeed, Plan};
use super::json::quoted;
use crate::time::sleep as pause_for;

/// vLLM's watchdog ends the process that long after its engine died.
const DEAD_FOR: std::time::Duration = std::time::Duration::from_secs(5);

/// Treatment of the requests inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They end at once, with what they have.
    Abort,
    /// They are waited for.
    Wait,
    /// They freeze, and go on later.
    Keep,
}

/// The values of a query parameter.
fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn mode(query: &str) -> Result<Mode, ApiError> {
    match values(query, "mode").last() {
        None | Some("abort") => Ok(Mode::Abort),
        Some("wait") => Ok(Mode::Wait),
        Some("keep") => Ok(Mode::Keep),
        Some(other) => Err(query_error(
            "mode",
            &format!(
                "{{'type': 'literal_error', 'loc': 'query.mode', 'msg': \"Input should be 'abort', 'wait' or 'keep'\", 'input': '{other}', 'ctx': {{'expected': \"'abort', 'wait' or 'keep'\"}}}}"
            ),
        )),
    }
}

fn level(query: &str) -> Result<u8, ApiError> {
    let Some(text) = values(query, "level").last() else {
        return Ok(1);
    };
    let what = match text.parse::<i64>() {
        Ok(level @ 0..=2) => return Ok(u8::try_from(level).unwrap_or(0)),
        Ok(3..) => format!(
            "{{'type': 'less_than_equal', 'loc': 'query.level', 'msg': 'Input should be less than or equal to 2', 'input': '{text}', 'ctx': {{'le': 2}}}}"
        ),
        Ok(_) => format!(
            "{{'type': 'greater_than_equal', 'loc': 'query.level', 'msg': 'Input should be greater than or equal to 0', 'input': '{text}', 'ctx': {{'ge': 0}}}}"
        ),
        Err(_) => format!(
            "{{'type': 'int_parsing', 'loc': 'query.level', 'msg': 'Input should be a valid integer, unable to parse string as an integer', 'input': '{text}'}}"
        ),
    };
    Err(query_error("level", &what))
}

fn query_error(name: &str, what: &str) -> ApiError {
    ApiError::validation(Some(format!("query.{name}")), what)
}

/// Runs a transition to its end, even if the client that asked goes away.
async fn transition<F>(app: &Arc<App>, change: F) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let shared = Arc::clone(app);
    let ending = app.tasks.ending();
    app.tasks.spawn("transition", async move {
        let change = async {
            let _turn = shared.transitions.acquire().await;
            change.await
        };
        tokio::select! {
            outcome = change => drop(done.send(outcome)),
            // A SIGTERM freezes everything; who waits here gets no answer.
            () = ending.cancelled() => {}
        }
    });
    match result.await {
        Ok(outcome) => outcome,
        Err(_) => std::future::pending().await,
    }
}

/// `POST /sleep?level=1&mode=abort`
///
/// # Errors
///
/// 400 for other levels and modes, 500 where a fault says so.
pub(super) async fn sleep(app: &Arc<App>, query: &str) -> Answer {
    let level = level(query)?;
    let mode = mode(query)?;
    let shared = Arc::clone(app);
    transition(app, async move { fall_asleep(&shared, level, mode).await }).await?;
    Ok(json(format!(
        "{{\"status\":\"sleeping\",\"level\":{level}}}"
    )))
}

async fn fall_asleep(app: &App, level: u8, mode: Mode) -> Result<(), ApiError> {
    if app.faulty(&Misdeed::HangOnSleep) {
        return std::future::pending().await;
    }
    if app.faulty(&Misdeed::SleepFails) {
        return Err(rpc_failed("sleep", "fault on command"));
    }
    quiesce(&app.engine, mode).await;
    let state = app.engine.now();
    if level > 0 && !state.weights_away && !state.cache_away {
        pause_for(app.args.sleep.0).await;
        app.engine.state.send_modify(|state| {
            state.weights_away = true;
            state.cache_away = true;
            state.has_slept = true;
            state.weights_lost |= level == 2;
            state.level = Some(level);
        });
    }
    app.engine.state.send_modify(|state| {
        state.level = state.level.or(Some(level));
    });
    report_memory(app).await
}

/// Stops the requests inside, each in the way that was asked for.
async fn quiesce(engine: &Engine, mode: Mode) {
    engine.state.send_modify(|state| {
        state.admits = false;
        match mode {
            Mode::Abort => state.epoch += 1,
            Mode::Keep => state.runs = false,
            Mode::Wait => {}
        }
    });
    if mode != Mode::Keep {
        engine.empty().await;
        engine.state.send_modify(|state| state.runs = false);
    }
}

/// `POST /wake_up?tags=weights&tags=kv_cache`
///
/// # Errors
///
/// 500 where a fault says so.
pub(super) async fn wake_up(app: &Arc<App>, query: &str) -> Answer {
    let tags: Vec<String> = values(query, "tags").map(str::to_owned).collect();
    let shared = Arc::clone(app);
    let asked = tags.clone();
    transition(app, async move { wake(&shared, &asked).await }).await?;
    let status = match app.engine.now().level {
        Some(_) => "sleeping",
        None => "awake",
    };
    let tags: Vec<_> = tags.iter().map(|tag| quoted(tag)).collect();
    let tags = match tags.as_slice() {
        [] => "null".to_owned(),
        tags => format!("[{}]", tags.join(",")),
    };
    Ok(json(format!("{{\"status\":\"{status}\",\"tags\":{tags}}}")))
}

async fn wake(app: &App, tags: &[String]) -> Result<(), ApiError> {
    if app.faulty(&Misdeed::HangOnWake) {
        return std::future::pending().await;
    }
    if app.faulty(&Misdeed::WakeFails) {
        return Err(rpc_failed("wake_up", "fault on command"));
    }
    let asked = |name: &str| tags.is_empty() || tags.iter().any(|tag| tag == name);
    let (weights, cache) = (asked("weights"), asked("kv_cache"));
    if weights && app.engine.now().weights_away {
        pause_for(app.args.wake.0).await;
    }
    let slow = app.faulty(&Misdeed::SlowAfterWake);
    let guesses_lost = app.faulty(&Misdeed::GuessesLostAfterWake);
    app.engine.state.send_modify(|state| {
        state.weights_away &= !weights;
        state.cache_away &= !cache;
        (state.slow, state.guesses_lost) = (slow, guesses_lost);
        if !state.weights_away && !state.cache_away {
            awake(state);
        }
    });
    report_memory(app).await
}

fn awake(state: &mut State) {
    state.level = None;
    state.admits = true;
    state.runs = true;
}

/// `POST /pause?mode=abort`
///
/// # Errors
///
/// 400 for other modes.
pub(super) async fn pause(app: &Arc<App>, query: &str) -> Answer {
    let mode = mode(query)?;
    let shared = Arc::clone(app);
    transition(app, async move {
        quiesce(&shared.engine, mode).await;
        Ok(())
    })
    .await?;
    Ok(json("{\"status\":\"paused\"}"))
}

/// `POST /resume`
pub(super) fn resume(app: &App) -> http::Response<super::app::Body> {
    app.engine.state.send_modify(|state| {
        if state.level.is_none() {
            awake(state);
        }
    });
    json("{\"status\":\"resumed\"}")
}

/// `POST /collective_rpc {"method": "reload_weights"}`
///
/// # Errors
///
/// 400 without a method, 500 for one that the workers do not have.
pub(super) async fn collective_rpc(app: &Arc<App>, body: &[u8]) -> Answer {
    let bad = |detail: String| ApiError::Detail(StatusCode::BAD_REQUEST, detail);
    let body: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("JSON decode error: {error}")))?;
    let method = body.get("method").and_then(Value::as_str);
    let method = method.ok_or_else(|| bad("Missing 'method' in request body".to_owned()))?;
    match method {
        "check_health" => {}
        "reload_weights" => {
            let shared = Arc::clone(app);
            transition(app, async move {
                pause_for(shared.args.reload.0).await;
                shared
                    .engine
                    .state
                    .send_modify(|state| state.weights_lost = false);
                Ok(())
            })
            .await?;
        }
        other => {
            return Err(rpc_failed(
                "collective_rpc",
                &format!(
                    "Worker failed with error ''CPUWorker' object has no attribute '{other}'', please check the stack trace above for the root cause"
                ),
            ));
        }
    }
    Ok(json("{\"results\":[null]}"))
}

fn rpc_failed(method: &str, why: &str) -> ApiError {
    ApiError::Unhandled(format!("Call to {method} method failed: {why}"))
}

/// `POST /sim/fault {"fault": "status-500"}` or `{"clear": true}`: not vLLM's.
///
/// # Errors
///
/// 400 for what is no fault.
pub(super) fn fault(app: &Arc<App>, body: &[u8]) -> Answer {
    let bad = |detail: String| ApiError::Detail(StatusCode::BAD_REQUEST, detail);
    let body: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("JSON decode error: {error}")))?;
    let mut faults = app.plan.load_full().0.clone();
    if body.get("clear").and_then(Value::as_bool) == Some(true) {
        faults.clear();
    }
    if let Some(text) = body.get("fault").and_then(Value::as_str) {
        let fault: Misdeed = text
            .parse()
            .map_err(|wrong: super::faults::InvalidFault| bad(wrong.to_string()))?;
        if fault == Misdeed::EngineDead {
            die(app);
        }
        faults.push(fault);
    }
    let names: Vec<_> = faults
        .iter()
        .map(|fault| quoted(&fault.to_string()))
        .collect();
    let answer = format!("{{\"faults\":[{}]}}", names.join(","));
    app.plan.store(Arc::new(Plan(faults)));
    Ok(json(answer))
}

/// The engine dies: health is 503, requests fail, and the watchdog ends the process.
pub(super) fn die(app: &Arc<App>) {
    app.engine.state.send_modify(|state| state.dead = true);
    let shared = Arc::clone(app);
    let ending = app.tasks.ending();
    app.tasks.spawn("watchdog", async move {
        tokio::select! {
            () = pause_for(DEAD_FOR) => shared.over.notify_one(),
            () = ending.cancelled() => {}
        }
    });
}

/// Writes the pretended memory of this moment.
async fn report_memory(app: &App) -> Result<(), ApiError> {
    let state = app.engine.now();
    let kept = !state.weights_away || app.faulty(&Misdeed::KeepsMemoryAsleep);
    let weights = if kept { app.args.weights.0 } else { 0 };
    let bytes = app.args.context.0.saturating_add(weights);
    let written = app.report_memory(bytes).await;
    written.map_err(|error| ApiError::Unhandled(error.to_string()))
}
