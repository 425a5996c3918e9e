//! Streams that are kept alive: opened before their server answers, and while it
//! is silent.

use std::sync::Arc;
use std::time::Duration;

use tidegate::config::{Settings, load_catalog};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::bench::{Bench, Client, answering, post_to, server};

const STREAM: &str = r#"{"model":"chat","stream":true,"messages":[]}"#;
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A gateway that opens streams soon and comments ten times a second.
async fn bench(address: std::net::SocketAddr) -> Bench {
    Bench::tuned(&[address], "max_concurrent_requests = 1", |route| {
        route.stream.open_after = Some(Duration::from_millis(20));
        route.stream.keep_alive = Some(Duration::from_millis(100));
    })
    .await
}

/// The next chunk of a body; nothing at its end.
async fn next(client: &mut Client<TcpStream>) -> String {
    let line = String::from_utf8(client.until(b"\r\n").await).unwrap();
    let size = usize::from_str_radix(line.trim(), 16).unwrap();
    let mut bytes = vec![0; size + 2];
    client.0.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..size].to_vec()).unwrap()
}

/// Reads chunks until one is not a comment.
async fn next_event(client: &mut Client<TcpStream>) -> String {
    loop {
        let chunk = next(client).await;
        if chunk != ":\n" {
            return chunk;
        }
    }
}

#[tokio::test]
async fn a_stream_is_opened_before_its_server_answers_and_kept_alive() {
    let go = Arc::new(Notify::new());
    let seen = Arc::clone(&go);
    let address = server(move |_, mut peer| {
        let seen = Arc::clone(&seen);
        async move {
            peer.request().await.unwrap();
            seen.notified().await;
            peer.send(format!("{HEAD}{}", chunk(TEXT))).await;
            seen.notified().await;
            peer.send(chunk(&TEXT[..10])).await;
            seen.notified().await;
            peer.send(format!("{}{}0\r\n\r\n", chunk(&TEXT[10..]), chunk(DONE)))
                .await;
        }
    })
    .await;
    let bench = bench(address).await;
    let mut client = bench.connect().await;
    client.send(bench.post(STREAM)).await;
    let head = String::from_utf8(client.until(b"\r\n\r\n").await).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for there in ["text/event-stream", "x-accel-buffering: no", "x-request-id"] {
        assert!(head.contains(there), "{head}");
    }
    for _ in 0..3 {
        assert_eq!(next(&mut client).await, ":\n");
    }
    go.notify_one();
    assert_eq!(next_event(&mut client).await, TEXT);
    for _ in 0..2 {
        assert_eq!(next(&mut client).await, ":\n");
    }
    // Half an event is held back, so that a comment may still come.
    go.notify_one();
    assert_eq!(next(&mut client).await, ":\n");
    go.notify_one();
    let mut rest = next_event(&mut client).await;
    while !rest.ends_with(DONE) {
        rest += &next(&mut client).await;
    }
    assert_eq!(rest, format!("{TEXT}{DONE}"));
    assert_eq!(next(&mut client).await, "");
}

#[tokio::test]
async fn what_goes_wrong_behind_an_open_head_is_told_in_the_form_of_the_api() {
    let go = Arc::new(Notify::new());
    let seen = Arc::clone(&go);
    let address = server(move |_, mut peer| {
        let seen = Arc::clone(&seen);
        async move {
            while peer.request().await.is_some() {
                seen.notified().await;
                peer.send("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 80\r\n\r\n{\"error\":{\"message\":\"no room\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}").await;
            }
        }
    })
    .await;
    let bench = bench(address).await;
    for (path, event) in [
        (
            "/v1/chat/completions",
            "data: {\"error\":{\"message\":\"no room\",\"type\":\"BadRequestError\",\"param\":null,\"code\":\"400\"}}\n\ndata: [DONE]\n\n",
        ),
        (
            "/v1/completions",
            "data: {\"error\":{\"message\":\"no room\",\"type\":\"BadRequestError\",\"param\":null,\"code\":\"400\"}}\n\ndata: [DONE]\n\n",
        ),
        (
            "/v1/responses",
            "event: error\ndata: {\"type\":\"error\",\"code\":\"400\",\"message\":\"no room\",\"param\":null,\"sequence_number\":2}\n\n",
        ),
        (
            "/v1/messages",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"no room\"}}\n\n",
        ),
    ] {
        let mut client = bench.connect().await;
        client
            .send(post_to(path, &bench.token().0, "application/json", STREAM))
            .await;
        client.until(b"\r\n\r\n").await;
        assert_eq!(next(&mut client).await, ":\n");
        go.notify_one();
        let told = next_event(&mut client).await;
        // Agents read this one of the two: Codex passes over the other.
        let is_begun = told.starts_with("event: response.created\n");
        assert_eq!(is_begun, path == "/v1/responses", "{told}");
        assert_eq!(
            told.contains("\nevent: response.failed\n"),
            is_begun,
            "{told}"
        );
        if is_begun {
            assert!(told.ends_with(event), "{told}");
        } else {
            assert_eq!(told, event, "{path}");
        }
        assert_eq!(next(&mut client).await, "");
    }
}

#[tokio::test]
async fn a_client_that_leaves_an_open_head_leaves_nothing() {
    let (tell, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = server(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await.unwrap();
            tell.send("asked").unwrap();
            assert!(peer.is_closed().await);
            tell.send("closed").unwrap();
        }
    })
    .await;
    let bench = bench(address).await;
    for _ in 0..3 {
        let mut client = bench.connect().await;
        client.send(bench.post(STREAM)).await;
        client.until(b"\r\n\r\n").await;
        assert_eq!(next(&mut client).await, ":\n");
        assert_eq!(seen.recv().await, Some("asked"));
        drop(client);
        assert_eq!(seen.recv().await, Some("closed"));
    }
}

#[tokio::test]
async fn who_is_answered_soon_or_asks_for_no_stream_notices_nothing() {
    let body = "{\"choices\":[]}";
    let head = "HTTP/1.1 429 Too Many\r\nContent-Type: application/json";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let bench = Bench::tuned(
        &[answering(answer.leak()).await],
        "requests_per_minute = 9",
        |route| {
            route.stream.open_after = Some(Duration::from_secs(15));
        },
    )
    .await;
    for ask in [STREAM, r#"{"model":"chat"}"#] {
        let answer = bench.ask(bench.post(ask)).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(
            answer.header("x-ratelimit-limit-requests").is_some(),
            "{answer:?}"
        );
    }
}

#[test]
fn comments_that_come_too_often_are_refused_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |keep_alive: &str| {
        let text = format!(
            "[route]\nname = \"chat\"\npublic = true\n[route.stream]\nkeep_alive = \"{keep_alive}\"\nopen_after = \"0s\"\n\
             [[upstream]]\nurl = \"http://127.0.0.1:1\"\n"
        );
        std::fs::write(dir.path().join("chat.toml"), text).unwrap();
        load_catalog(dir.path(), &Settings::default().queues, None)
    };
    let bad = file("9s");
    let told = bad
        .errors
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(
        told.contains("keep_alive") && told.contains("10s"),
        "{told}"
    );
    let good = file("10s");
    assert!(good.errors.is_empty(), "{:?}", good.errors);
    let stream = good.routes[0].stream;
    assert_eq!(stream.keep_alive, Some(Duration::from_secs(10)));
    assert_eq!(stream.open_after, Some(Duration::ZERO));
}
