//! The stand-in engine as a real process: does it behave as vLLM 0.32 did?

mod captures;
mod process;
mod taste;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::json;

use process::{Reply, Sim};

const CHAT: &str = "/v1/chat/completions";

fn endless() -> serde_json::Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "stream": true,
           "ignore_eos": true, "max_tokens": 4000})
}

fn short(stream: bool) -> serde_json::Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "stream": stream,
           "ignore_eos": true, "max_tokens": 5})
}

const FAST: [&str; 6] = [
    "--load",
    "0s",
    "--first-token",
    "0s",
    "--tokens-per-second",
    "1e9",
];
const PACED: [&str; 6] = [
    "--load",
    "0s",
    "--first-token",
    "0s",
    "--tokens-per-second",
    "20",
];

#[test]
fn the_same_prompt_gives_the_same_text_streamed_or_whole() {
    let sim = Sim::ready(&FAST);
    let whole = sim.post(CHAT, &short(false)).json();
    let said = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let streamed: String = sim
        .post(CHAT, &short(true))
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(streamed, said);
    let counted = sim.post("/tokenize", &json!({"prompt": said})).json();
    assert_eq!(counted["count"], 5);
    assert_eq!(whole["usage"]["completion_tokens"], 5);
    let back = sim.post("/detokenize", &json!({"tokens": counted["tokens"]}));
    assert_eq!(back.json()["prompt"], said);
}

#[test]
fn a_request_sent_while_asleep_hangs_until_the_wake() {
    let sim = Sim::ready(&[&FAST[..], &["--sleep", "0s", "--wake", "0s"]].concat());
    assert_eq!(sim.post("/sleep?level=1", &json!({})).status, 200);
    assert_eq!(sim.get("/health").status, 200);
    let asked = sim.send("POST", CHAT, &short(false));
    sim.until("num_requests_waiting", 1.0);
    assert_eq!(sim.post("/wake_up", &json!({})).status, 200);
    assert_eq!(Reply::read(asked).status, 200);
}

#[test]
fn a_level_two_wake_talks_garbage_until_the_weights_are_reloaded() {
    let sim = Sim::ready(
        &[
            &FAST[..],
            &["--sleep", "0s", "--wake", "0s", "--reload", "0s"],
        ]
        .concat(),
    );
    let text = || sim.post(CHAT, &short(false)).json()["choices"][0]["message"].clone();
    let good = text();
    sim.post("/sleep?level=2", &json!({}));
    sim.post("/wake_up", &json!({}));
    assert_ne!(text(), good);
    sim.post("/collective_rpc", &json!({"method": "reload_weights"}));
    assert_eq!(text(), good);
}

#[test]
fn a_sleep_that_aborts_ends_streams_in_good_order() {
    let sim = Sim::ready(&[&PACED[..], &["--sleep", "0s"]].concat());
    let stream = sim.send("POST", CHAT, &endless());
    sim.until("num_requests_running", 1.0);
    assert_eq!(sim.post("/sleep?mode=abort", &json!({})).status, 200);
    let reply = Reply::read(stream);
    let last = reply.events().pop().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "abort");
    assert!(reply.body.ends_with("data: [DONE]\n\n"));
    assert!(reply.complete);
}

#[test]
fn a_client_that_leaves_is_aborted() {
    let sim = Sim::ready(&PACED);
    let stream = sim.send("POST", CHAT, &endless());
    let mut whole = endless();
    whole["stream"] = json!(false);
    let other = sim.send("POST", CHAT, &whole);
    sim.until("num_requests_running", 2.0);
    drop((stream, other));
    sim.until("num_requests_running", 0.0);
}

#[test]
fn a_sigterm_while_idle_exits_with_zero() {
    let mut sim = Sim::ready(&[&FAST[..], &["--processes", "2"]].concat());
    sim.signal(Signal::TERM);
    assert_eq!(sim.exit().code(), Some(0));
}

#[test]
fn a_sigterm_with_a_stream_open_waits_for_its_client() {
    let mut sim = Sim::ready(&PACED);
    let stream = sim.send("POST", CHAT, &endless());
    sim.until("num_requests_running", 1.0);
    sim.signal(Signal::TERM);
    sim.until_refused();
    assert!(sim.lives());
    drop(stream);
    assert_eq!(sim.exit().code(), Some(0));
}

#[test]
fn a_sigterm_before_ready_kills_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let mut sim = Sim::start(&["--load", "1h"]);
    sim.log_until("non-default args");
    sim.signal(Signal::TERM);
    assert_eq!(sim.exit().signal(), Some(15));
}

#[test]
fn a_sigkill_leaves_the_helpers_which_the_group_kill_ends() {
    let mut sim = Sim::ready(&[&FAST[..], &["--processes", "2"]].concat());
    sim.signal(Signal::KILL);
    assert!(!sim.exit().success());
    assert!(sim.group_lives(), "helpers outlive their parent");
    sim.kill_group();
    sim.until_group_gone();
}

#[test]
fn a_socket_file_appears_early_but_answers_late() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sim = Sim::start(&["--load", "1h", "--uds", path.to_str().unwrap()]);
    sim.log_until("non-default args");
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = UnixStream::connect(&path).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_crash_at_start_exits_with_its_code() {
    let mut sim = Sim::start(&["--load", "0s", "--fault", "crash-at-start:7"]);
    assert_eq!(sim.exit().code(), Some(7));
    let mut sim = Sim::start(&["--load", "0s", "--fault", "oom-at-start"]);
    sim.log_until("CUDA out of memory");
    assert_eq!(sim.exit().code(), Some(1));
}

#[test]
fn faults_of_streams_come_after_their_number_of_events() {
    let sim = Sim::ready(&FAST);
    let with = |fault: &str| {
        sim.post("/sim/fault", &json!({"clear": true, "fault": fault}));
        sim.post(CHAT, &short(true))
    };
    let whole = with("split:7");
    assert!(whole.complete && whole.body.ends_with("data: [DONE]\n\n"));
    assert!(
        whole.pieces.iter().all(|&bytes| bytes <= 7),
        "{:?}",
        whole.pieces
    );
    let cut = with("cut-mid-stream:3");
    assert_eq!((cut.complete, cut.events().len()), (false, 3));
    let half = with("half-event:2");
    assert!(
        !half.complete && !half.body.ends_with('\n'),
        "{}",
        half.body
    );
    let wrong = with("error-mid-stream:2");
    assert!(wrong.complete && wrong.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(wrong.events()[2]["error"]["code"], 500);
    assert_eq!(with("status-500").status, 500);
    assert_eq!(with("queue-full").status, 503);
    assert_eq!(sim.post("/sim/fault", &json!({"fault": "no"})).status, 400);
}

#[test]
fn a_worker_that_dies_mid_stream_takes_the_connection_with_it() {
    let mut sim = Sim::ready(&[&FAST[..], &["--fault", "die-mid-stream:2"]].concat());
    let mut stream = sim.send("POST", CHAT, &short(true));
    let mut bytes = Vec::new();
    // A reset is as good an end as any.
    drop(stream.read_to_end(&mut bytes));
    assert!(!String::from_utf8_lossy(&bytes).contains("[DONE]"));
    assert!(!sim.exit().success());
}

#[test]
fn the_dev_routes_do_not_exist_without_dev_mode() {
    let sim = Sim::ready_without_dev_mode(&FAST);
    for path in ["/sleep", "/wake_up", "/sim/fault", "/collective_rpc"] {
        assert_eq!(sim.post(path, &json!({})).status, 404, "{path}");
    }
}
