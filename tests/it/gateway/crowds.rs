//! Goods that no client may take from the others: memory, connections, time.

use std::time::Duration;

use tidegate::config::{HostBudget, Settings};
use tokio::net::TcpStream;

use super::bench::{Bench, Client, LIMIT, post_to, server};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
const CHAT: &str = "/v1/chat/completions";
const JSON: &str = "application/json";

async fn bench(settings: Settings, extra: &str) -> Bench {
    let answers = server(|_, mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(OK).await;
        }
    });
    Bench::with(&[answers.await], extra, settings).await
}

/// Room for two bodies of a MiB of one token, for three of all.
fn small() -> Settings {
    let mut settings = Settings::default();
    settings.gateway.request_body_max = 1 << 20;
    let memory = &mut settings.gateway.memory;
    memory.budget = HostBudget::Bytes((7 << 20) / 2);
    memory.per_client = HostBudget::Share(1.0);
    memory.per_token = HostBudget::Bytes((5 << 20) / 2);
    memory.per_workspace = HostBudget::Share(1.0);
    settings
}

/// The head of a request whose body of a MiB is on its way for long.
fn large(token: &str) -> String {
    let whole = post_to(CHAT, token, JSON, "");
    whole.replace("Content-Length: 0", "Content-Length: 1048576")
}

/// A connection that has sent such a head and a byte, once that is held.
async fn hold(bench: &Bench, token: &str) -> Client<TcpStream> {
    let before = bench.gateway.memory().used();
    let mut client = bench.connect().await;
    client.send(large(token)).await;
    client.send("{").await;
    // More than its connection takes.
    until(|| bench.gateway.memory().used() > before + (1 << 20)).await;
    client
}

/// Waits for a fact that nothing tells of.
async fn until(is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, waits).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_memory_is_left_for_is_refused_before_its_body_is_read() {
    let bench = bench(small(), "").await;
    let (one, other) = (bench.token().0, bench.token().0);
    let first = hold(&bench, &one).await;
    let _second = hold(&bench, &one).await;
    // The token has its share: its own words say so.
    let refused = bench.ask(large(&one)).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "overloaded")
    );
    assert!(refused.body.contains("as they may"), "{}", refused.body);
    assert!(refused.header("retry-after").is_some(), "{}", refused.head);
    // Another token is served, until all is held.
    let _third = hold(&bench, &other).await;
    let refused = bench.ask(large(&other)).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "overloaded")
    );
    assert!(refused.body.contains("no room"), "{}", refused.body);
    // More than nine tenths are held: whoever comes waits, but to ask whether we live.
    assert!(bench.gateway.memory().is_short());
    let mut waits = bench.connect().await;
    waits
        .send(post_to(CHAT, &other, JSON, r#"{"model":"chat"}"#))
        .await;
    let alive = bench.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(alive.status, 200);
    drop(first);
    assert_eq!(waits.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_held_is_given_back_however_a_request_ends() {
    let bench = bench(small(), "").await;
    let token = bench.token().0;
    let half = format!(r#"{{"model":"chat","x":"{}"}}"#, "a".repeat(700_000));
    for request in [
        post_to(CHAT, &token, JSON, r#"{"model":"chat"}"#),
        post_to(CHAT, &token, JSON, r#"{"model":"none"}"#),
        post_to(CHAT, &token, JSON, "{"),
        post_to(CHAT, &token, "text/plain", "{}"),
        post_to(CHAT, &token, JSON, &half),
        post_to(
            "/v1/audio/transcriptions",
            &token,
            "multipart/form-data",
            &half,
        ),
    ] {
        bench.ask(&request).await;
        until(|| bench.gateway.memory().used() == 0).await;
    }
    drop(hold(&bench, &token).await);
    until(|| bench.gateway.memory().used() == 0).await;
    // A body of unknown length is held as it comes.
    let mut client = bench.connect().await;
    let head = post_to(CHAT, &token, JSON, "");
    client
        .send(head.replace("Content-Length: 0", "Transfer-Encoding: chunked"))
        .await;
    let chunk = "x".repeat(300_000);
    client
        .send(format!("{:x}\r\n{chunk}\r\n", chunk.len()))
        .await;
    until(|| bench.gateway.memory().used() > 300_000).await;
    drop(client);
    until(|| bench.gateway.memory().used() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_counts_for_its_token_from_its_head_on() {
    let settings = Settings {
        workspaces: [(super::bench::spec().workspace, 1)].into(),
        ..Settings::default()
    };
    let bench = bench(settings, "").await;
    let token = bench.token().0;
    let held = hold(&bench, &token).await;
    let refused = bench
        .ask(post_to(CHAT, &token, JSON, r#"{"model":"chat"}"#))
        .await;
    assert_eq!(refused.code(), "concurrency_limit_exceeded");
    drop(held);
    until(|| bench.gateway.memory().used() == 0).await;
    let served = bench
        .ask(post_to(CHAT, &token, JSON, r#"{"model":"chat"}"#))
        .await;
    assert_eq!(served.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_a_routes_path_counts_for_it_before_its_body_came() {
    let bench = bench(Settings::default(), "max_concurrent_requests = 1").await;
    let token = bench.token().0;
    let request = large(&token).replace("/v1/", "/chat/v1/");
    let mut held = Vec::new();
    let refused = loop {
        let before = bench.gateway.memory().used();
        let mut client = bench.connect().await;
        client.send(&request).await;
        // Held, or refused at once.
        let mut byte = [0];
        tokio::select! {
            _ = client.0.peek(&mut byte) => break client.answer().await,
            () = until(|| bench.gateway.memory().used() > before + (1 << 20)) => {}
        }
        assert!(held.len() < 100);
        held.push(client);
    };
    assert_eq!(refused.code(), "concurrency_limit_exceeded");
    assert!(held.len() > 1, "one that sends slowly takes no place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_no_one_out() {
    let mut settings = Settings::default();
    settings.gateway.connections.max = 8;
    settings.gateway.connections.per_client = Some(4);
    let bench = bench(settings, "").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(bench.connect().await);
        let alive = bench.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(alive.status, 200);
        let served = bench.ask(bench.post(r#"{"model":"chat"}"#)).await;
        assert_eq!(served.status, 200);
    }
    // The oldest of them were closed for the others.
    assert!(silent[0].is_closed().await);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let mut settings = Settings::default();
    settings.gateway.body_times.pause_max = Duration::from_millis(300);
    settings.gateway.body_times.rate_min = 1 << 20;
    let bench = bench(settings, "").await;
    let mut client = bench.connect().await;
    client.send(large(&bench.token().0)).await;
    let (mut reads, mut writes) = client.0.into_split();
    let began = tokio::time::Instant::now();
    let drips = async {
        loop {
            if tokio::io::AsyncWriteExt::write_all(&mut writes, b"1")
                .await
                .is_err()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut head = [0; 12];
    tokio::select! {
        read = tokio::io::AsyncReadExt::read_exact(&mut reads, &mut head) => drop(read.unwrap()),
        () = drips => unreachable!("the gateway reads on"),
    }
    assert_eq!(&head, b"HTTP/1.1 400");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_idle_connection_is_kept_as_long_as_we_say() {
    let mut settings = Settings::default();
    settings.gateway.header_timeout = Duration::from_millis(50);
    settings.gateway.keep_alive = Duration::from_millis(1500);
    let bench = bench(settings, "").await;
    let mut client = bench.connect().await;
    client.send(bench.post(r#"{"model":"chat"}"#)).await;
    let answer = client.answer().await;
    assert_eq!(answer.header("keep-alive"), Some("timeout=1"));
    let began = tokio::time::Instant::now();
    assert!(client.is_closed().await);
    assert!(began.elapsed() > Duration::from_millis(1400));
    // A head that has begun has less.
    let mut client = bench.connect().await;
    client.send("GET /healthz HTTP/1.1\r\nHo").await;
    let began = tokio::time::Instant::now();
    assert!(client.is_closed().await);
    assert!(began.elapsed() < Duration::from_millis(1400));
}

#[tokio::test]
async fn http_on_a_port_of_https_is_told_so() {
    let bench = bench(Settings::default(), "").await;
    let mut client = Client(TcpStream::connect(bench.tls).await.unwrap());
    client.send(bench.post(r#"{"model":"chat"}"#)).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "tls_required")
    );
    assert!(answer.body.contains("write https://"), "{}", answer.body);
    assert!(client.is_closed().await);
}

/// The decision that the listener's words state.
#[tokio::test]
async fn a_client_that_has_ended_its_side_is_gone() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let silent = server(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await.unwrap();
            tell.send("asked").unwrap();
            assert!(peer.is_closed().await);
            tell.send("cancelled").unwrap();
        }
    });
    let bench = Bench::new(&[silent.await], "").await;
    let mut client = bench.connect().await;
    client.send(bench.post(r#"{"model":"chat"}"#)).await;
    assert_eq!(told.recv().await, Some("asked"));
    tokio::io::AsyncWriteExt::shutdown(&mut client.0)
        .await
        .unwrap();
    let next = tokio::time::timeout(LIMIT, told.recv()).await.unwrap();
    assert_eq!(next, Some("cancelled"));
}
