//! A name that leads to a list: who answers, and why not one before it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::deployment::{Handle, Refusal, Snapshot};
use tokio::net::TcpListener;

use super::bench::{Answer, Bench, LIMIT, OK, post_to, server};
use super::dead::{deploy_file, serves};

const CHAT: &str = r#"{"messages":[],"model":"chat"}"#;
pub(super) const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
pub(super) const GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const LIMITED: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
const LONG: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 121\r\n\r\n{\"error\":{\"message\":\"This model's maximum context length is 8 tokens.\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}";
const WRONG: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"error\":{\"message\":\"temperature must be a number\",\"type\":\"BadRequestError\",\"param\":null,\"code\":0}}";

/// A server that answers alike and counts the requests.
async fn counting(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let address = server(move |_, mut peer| {
        let counter = Arc::clone(&counter);
        async move {
            while peer.request().await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                peer.send(answer).await;
            }
        }
    })
    .await;
    (address, count)
}

/// An address that refuses connections.
pub(super) async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A bench whose name `chat` leads to servers of others, `s0` first.
pub(super) async fn bench(servers: &[SocketAddr], rules: &str, each: &[&str]) -> Bench {
    let bench = Bench::new(servers, "").await;
    let mut text =
        format!("[route]\nname = \"chat\"\npublic = true\nejection.failures = 0\n{rules}\n");
    let servers = servers.iter().enumerate().map(|(n, server)| {
        let more = each.get(n).copied().unwrap_or_default();
        format!(
            "[[upstream]]\nname = \"s{n}\"\nurl = \"http://{server}\"\n[[target]]\nto = \"s{n}\"\n{more}\n"
        )
    });
    text.extend(servers);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chat.toml"), text).unwrap();
    bench.install(dir.path());
    bench
}

async fn ask(bench: &Bench) -> Answer {
    bench.ask(bench.post(CHAT)).await
}

fn served(answer: &Answer) -> &str {
    answer.header("x-tidegate-served-by").unwrap_or_default()
}

#[tokio::test]
async fn the_next_is_asked_after_what_the_file_names_and_nothing_else() {
    for (answer, more, status, expected) in [
        (BUSY, "", 200, "s1, s0;why=503"),
        (GATEWAY, "", 200, "s1, s0;why=502"),
        (LONG, "", 200, "s1, s0;why=too_long"),
        (LONG, "when = [\"502\"]", 400, "s0"),
        (WRONG, "", 400, "s0"),
        (BROKEN, "", 500, "s0"),
        (LIMITED, "", 429, "s0"),
        (BUSY, "when = [\"502\"]", 503, "s0"),
        (BUSY, "when = []", 503, "s0"),
        (OK, "", 200, "s0"),
    ] {
        let (first, first_asked) = counting(answer).await;
        let (second, second_asked) = counting(OK).await;
        let bench = bench(&[first, second], "", &[more]).await;
        let answer = ask(&bench).await;
        assert_eq!(
            (answer.status, served(&answer)),
            (status, expected),
            "{more}: {}",
            answer.body
        );
        let asked = [first_asked, second_asked].map(|asked| asked.load(Ordering::SeqCst));
        let went_on = usize::from(expected != "s0");
        assert_eq!(asked, [1, went_on], "{more}");
    }
}

#[tokio::test]
async fn what_the_last_one_says_is_passed_on_whole() {
    let (first, second) = (counting(LONG).await.0, counting(LONG).await.0);
    let bench = bench(&[first, second], "", &[]).await;
    let answer = ask(&bench).await;
    assert_eq!(
        (answer.status, served(&answer)),
        (400, "s1, s0;why=too_long")
    );
    assert!(
        answer.body.contains("maximum context length is 8"),
        "{}",
        answer.body
    );
    // Read to see whether it is too long, it is passed on as well.
    let (wrong, ok) = (counting(WRONG).await.0, counting(OK).await.0);
    let bench = self::bench(&[wrong, ok], "", &[]).await;
    let answer = ask(&bench).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("temperature must be a number"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn every_request_goes_on_while_the_first_refuses_connections_and_no_budget_ends_that() {
    let (second, asked) = counting(OK).await;
    let rules = "[route.retries]\nbudget = 0.0\nservers_max = 0";
    let bench = bench(&[nowhere().await, second], rules, &[]).await;
    for _ in 0..100 {
        let answer = ask(&bench).await;
        assert_eq!(
            (answer.status, served(&answer)),
            (200, "s1, s0;why=unreachable")
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 100);
}

#[tokio::test]
async fn one_that_fails_again_and_again_is_left_out_though_it_is_the_only_server_of_its_target() {
    let (first, first_asked) = counting(BUSY).await;
    let (second, _) = counting(OK).await;
    let bench = Bench::new(&[first], "").await;
    let text = format!(
        "[route]\nname = \"chat\"\npublic = true\n[route.ejection]\nfailures = 3\ntime = \"1h\"\ntime_max = \"1h\"\n\
         [[upstream]]\nname = \"s0\"\nurl = \"http://{first}\"\n[[target]]\nto = \"s0\"\n\
         [[upstream]]\nname = \"s1\"\nurl = \"http://{second}\"\n[[target]]\nto = \"s1\"\n"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chat.toml"), text).unwrap();
    bench.install(dir.path());
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(served(&ask(&bench).await).to_owned());
    }
    let (tried, out) = ("s1, s0;why=503", "s1, s0;why=failing");
    assert_eq!(seen, [tried, tried, tried, out, out]);
    assert_eq!(first_asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn weights_split_the_requests_and_a_token_stays_with_one() {
    let (first, first_asked) = counting(OK).await;
    let (second, second_asked) = counting(OK).await;
    let rules = "[route.targets]\nprefer = \"weight\"\n";
    let weights = ["weight = 3", "weight = 1"];
    let split = bench(&[first, second], rules, &weights).await;
    for _ in 0..400 {
        assert_eq!(ask(&split).await.status, 200);
    }
    let asked = [&first_asked, &second_asked].map(|asked| asked.load(Ordering::SeqCst));
    assert!(
        (260..=340).contains(&asked[0]),
        "{asked:?} of 400, by 3 to 1"
    );
    let sticky = format!("{rules}sticky = \"token\"");
    let held = bench(&[first, second], &sticky, &["", ""]).await;
    let mut used: HashMap<String, usize> = HashMap::new();
    for _ in 0..20 {
        let request = held.post(CHAT);
        let first = served(&held.ask(&request).await).to_owned();
        let first = first.split(',').next().unwrap().to_owned();
        for _ in 0..4 {
            let again = held.ask(&request).await;
            assert_eq!(served(&again).split(',').next(), Some(first.as_str()));
        }
        *used.entry(first).or_default() += 1;
    }
    assert_eq!(used.len(), 2, "{used:?}");
}

/// A bench whose name `chat` leads to a worker of ours, `own`, and then to `far`.
async fn ours(far: SocketAddr, rules: &str, own: &str) -> (Bench, Arc<Handle>) {
    let bench = Bench::new(&[far], "").await;
    let text = format!(
        "[route]\nname = \"chat\"\npublic = true\n{rules}\n\
         [instance]\nname = \"chat\"\nengine = \"sim\"\n\
         [[deployment]]\nmodel = \"m\"\nendpoint_name = \"own\"\n[deployment.sim]\nmax_model_len = 4096\n\
         [[upstream]]\nname = \"far\"\nurl = \"http://{far}\"\n\
         [[target]]\nto = \"own\"\n{own}\n[[target]]\nto = \"far\"\n"
    );
    let handle = deploy_file(&bench, &text);
    (bench, handle)
}

#[tokio::test]
async fn who_can_not_answer_in_time_or_sleeps_is_passed_over_until_it_serves() {
    let (far, _) = counting(OK).await;
    let (worker, asked) = counting(OK).await;
    for (rules, own) in [
        ("", "can_in = \"5s\""),
        ("[route.targets]\nprefer = \"awake\"", ""),
    ] {
        let (bench, handle) = ours(far, rules, own).await;
        let before = asked.load(Ordering::SeqCst);
        let answer = ask(&bench).await;
        assert_eq!(
            (answer.status, served(&answer)),
            (200, "far, own;why=stopped"),
            "{own}"
        );
        assert_eq!(handle.waiting(), 0, "nothing was demanded");
        serves(&handle, 1, worker);
        let answer = ask(&bench).await;
        assert_eq!((answer.status, served(&answer)), (200, "own"), "{own}");
        assert_eq!(asked.load(Ordering::SeqCst), before + 1);
    }
}

#[tokio::test]
async fn a_start_that_is_known_to_be_short_is_waited_for() {
    let (far, _) = counting(OK).await;
    let (worker, _) = counting(OK).await;
    let (bench, handle) = ours(far, "", "can_in = \"5s\"").await;
    for (seconds, expected) in [(6, "far, own;why=stopped"), (5, "own")] {
        handle.publish(Snapshot {
            would_take: Some(Duration::from_secs(seconds)),
            ..Snapshot::stopped()
        });
        let starts = async {
            while expected == "own" && handle.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            if expected == "own" {
                serves(&handle, 1, worker);
            }
        };
        let both = async { tokio::join!(ask(&bench), starts) };
        let (answer, ()) = tokio::time::timeout(LIMIT, both).await.unwrap();
        assert_eq!((answer.status, served(&answer)), (200, expected));
    }
}

#[tokio::test]
async fn a_model_that_fails_to_start_leaves_the_request_to_the_next() {
    let (far, _) = counting(OK).await;
    for (when, status, expected) in [
        ("", 200, "far, own;why=failed"),
        ("when = [\"unreachable\"]", 400, ""),
    ] {
        let (bench, handle) = ours(far, "", when).await;
        let fails = async {
            while handle.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            handle.publish(Snapshot {
                refusals: handle.snapshot().refusals + 1,
                refusal: Some(Refusal::Failed),
                ..Snapshot::stopped()
            });
        };
        let both = async { tokio::join!(ask(&bench), fails) };
        let (answer, ()) = tokio::time::timeout(LIMIT, both).await.unwrap();
        assert_eq!(
            (answer.status, served(&answer)),
            (status, expected),
            "{}",
            answer.body
        );
        assert_eq!((handle.waiting(), handle.gate.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn a_worker_of_ours_that_can_not_be_reached_is_not_waited_for_where_there_is_a_next() {
    let (far, _) = counting(OK).await;
    let (bench, handle) = ours(far, "", "").await;
    serves(&handle, 1, nowhere().await);
    let answer = ask(&bench).await;
    assert_eq!(
        (answer.status, served(&answer)),
        (200, "far, own;why=unreachable")
    );
    assert_eq!(handle.gate.in_flight(), 0, "it left the gate of the first");
}

#[tokio::test]
async fn a_model_of_the_list_is_reached_by_its_own_name_alone() {
    let (far, asked) = counting(OK).await;
    let (worker, _) = counting(OK).await;
    let (bench, handle) = ours(far, "", "").await;
    serves(&handle, 1, worker);
    let (token, _) = bench.token();
    let body = r#"{"messages":[],"model":"own"}"#;
    let request = post_to("/v1/chat/completions", &token, "application/json", body);
    let answer = bench.ask(request).await;
    assert_eq!(
        (answer.status, answer.header("x-tidegate-served-by")),
        (200, None)
    );
    // Nor is anything asked as `far`, which is no model.
    let body = r#"{"messages":[],"model":"far"}"#;
    let request = post_to("/v1/chat/completions", &token, "application/json", body);
    assert_eq!(bench.ask(request).await.status, 404);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // Without a model, the path of the route leads to the list.
    let request = post_to(
        "/chat/v1/chat/completions",
        &token,
        "application/json",
        "{\"messages\":[]}",
    );
    assert_eq!(served(&bench.ask(request).await), "own");
}

#[tokio::test]
async fn a_prompt_that_can_not_fit_does_not_wake_the_model() {
    let (far, _) = counting(OK).await;
    let (bench, handle) = ours(far, "", "").await;
    let length = 48 * 4_096 + 200;
    let long = format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"chat"}}"#,
        "x".repeat(length)
    );
    let answer = bench.ask(bench.post(&long)).await;
    assert_eq!(
        (answer.status, served(&answer)),
        (200, "far, own;why=too_long")
    );
    assert_eq!(handle.waiting(), 0, "nothing was demanded");
}

/// Text between two quotes behind a key.
fn text_of<'a>(body: &'a str, key: &str) -> &'a str {
    let rest = body
        .split(&format!("\"{key}\":\""))
        .nth(1)
        .unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

#[tokio::test]
async fn while_the_first_flaps_no_request_is_lost_that_had_not_begun_and_none_is_answered_twice() {
    let answered = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let flapping = |is_sound: bool| {
        let answered = Arc::clone(&answered);
        let turn = Arc::new(AtomicUsize::new(0));
        server(move |_, mut peer| {
            let (answered, turn) = (Arc::clone(&answered), Arc::clone(&turn));
            async move {
                while let Some((_, body)) = peer.request().await {
                    let answer = match turn.fetch_add(1, Ordering::SeqCst) % 4 {
                        _ if is_sound => OK,
                        0 => GATEWAY,
                        1 => BUSY,
                        // It is cut in the middle of its answer.
                        2 => {
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"hello\""
                        }
                        _ => OK,
                    };
                    if answer.starts_with("HTTP/1.1 200") {
                        let id = text_of(&body, "user").to_owned();
                        *answered.lock().unwrap().entry(id).or_default() += 1;
                    }
                    peer.send(answer).await;
                    if answer.ends_with("{\"hello\"") {
                        return;
                    }
                }
            }
        })
    };
    let servers = [flapping(false).await, flapping(true).await];
    let bench = bench(&servers, "", &[]).await;
    let mut cut = 0;
    for n in 0..200 {
        let body = format!(r#"{{"messages":[],"model":"chat","user":"u{n}"}}"#);
        let mut client = bench.connect().await;
        client.send(bench.post(&body)).await;
        let head = tokio::time::timeout(LIMIT, client.until(b"\r\n\r\n"))
            .await
            .unwrap();
        let body = tokio::time::timeout(LIMIT, client.until(b"}"))
            .await
            .unwrap();
        // What is cut off before the first of it went out ends as silently.
        assert!(
            head.is_empty() || head.starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&head)
        );
        cut += usize::from(!body.ends_with(b"}"));
    }
    assert_eq!(cut, 50, "what began is not begun again");
    let answered = answered.lock().unwrap();
    assert_eq!(answered.len(), 200);
    assert!(answered.values().all(|times| *times == 1), "{answered:?}");
}
