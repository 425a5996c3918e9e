//! Requests that go to a server, and answers that come back.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bench::{Bench, OK, answering, server};

const ASK: &str = r#"{"model":"chat","messages":[]}"#;
const STREAM: &str = r#"{"model":"chat","stream":true,  "messages":[]}"#;
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A server that answers each request with these events, and tells their bodies.
async fn streaming(events: &[&str]) -> (SocketAddr, UnboundedReceiver<String>) {
    let events: String = events.iter().map(|event| chunk(event)).collect();
    let (sent, bodies) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let (sent, events) = (sent.clone(), events.clone());
        async move {
            while let Some((_, body)) = peer.request().await {
                sent.send(body).unwrap();
                peer.send(format!("{HEAD}{events}0\r\n\r\n")).await;
            }
        }
    })
    .await;
    (address, bodies)
}

#[tokio::test]
async fn usage_is_asked_for_and_removed_and_all_else_stays_as_it_came() {
    let (address, mut bodies) = streaming(&[": hello\n\n", TEXT, USAGE, DONE]).await;
    let bench = Bench::new(&[address], "").await;
    let answer = bench.ask(bench.post(STREAM)).await;
    assert_eq!(answer.body, format!(": hello\n\n{TEXT}{DONE}"));
    let body: serde_json::Value = serde_json::from_str(&bodies.recv().await.unwrap()).unwrap();
    assert_eq!(body["stream_options"]["include_usage"], true);

    // Who asks gets it, and the body goes on byte for byte.
    let asked =
        r#"{"model":"chat", "stream":true,"x": 1.50, "stream_options":{"include_usage":true}}"#;
    let answer = bench.ask(bench.post(asked)).await;
    assert_eq!(answer.body, format!(": hello\n\n{TEXT}{USAGE}{DONE}"));
    assert_eq!(bodies.recv().await.unwrap(), asked);
}

/// A stream is asked for in a megabyte that comes in pieces; what matters stands at both
/// ends of it, and in the middle of a piece.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_in_pieces_is_edited_and_all_else_goes_on_as_it_came() {
    let (address, mut bodies) = streaming(&[TEXT, USAGE, DONE]).await;
    let bench = Bench::new(&[address], "").await;
    let filling = "q\\\"\u{e9}".repeat(250_000);
    let messages = format!("[{{\"content\":\"{filling}\"}}, 1.50e3]");
    let body = format!("{{\"messages\":{messages}, \"model\":\"chat\",\"stream\":true}} ");
    let request = bench.post(&body);
    for piece in [1_000, 16_384, 100_003] {
        let mut client = bench.connect().await;
        for piece in request.as_bytes().chunks(piece) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let answer = client.answer().await;
        assert_eq!(answer.body, format!("{TEXT}{DONE}"));
        let asked = "{\"stream_options\":{\"include_usage\":true},";
        let came = bodies.recv().await.unwrap();
        assert_eq!(came.len(), body.len() + asked.len() - 1);
        assert!(came == body.replacen('{', asked, 1), "in pieces of {piece}");
    }
    // What is wrong at its end is found there, and told with its place.
    let twice = body.replace("\"stream\"", "\"model\":\"other\",\"stream\"");
    let answer = bench.ask(bench.post(&twice)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "duplicate_key")
    );
    let broken = format!("{}x", body.trim_end());
    let answer = bench.ask(bench.post(&broken)).await;
    let place = format!("expected the end of the body at byte {}", broken.len() - 1);
    assert!(
        answer.status == 400 && answer.body.contains(&place),
        "{}",
        answer.body
    );
    assert!(bodies.try_recv().is_err(), "neither went on");
}

#[tokio::test]
async fn credentials_stay_here_and_the_client_is_named() {
    let (sent, mut heads) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let sent = sent.clone();
        async move {
            let (head, _) = peer.request().await.unwrap();
            sent.send(head.to_ascii_lowercase()).unwrap();
            peer.send(OK).await;
        }
    })
    .await;
    let bench = Bench::new(&[address], "").await;
    let request = bench.post(ASK).replace(
        "Host: x",
        "Host: x\r\nCookie: a=b\r\nX-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX-Original-URL: /admin\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nX-Mine: 1\r\nX-Stainless-Lang: python\r\nOpenAI-Beta: a",
    );
    assert_eq!(bench.ask(request).await.status, 200);
    let head = heads.recv().await.unwrap();
    for gone in [
        "authorization",
        "cookie",
        "6.6.6.6",
        "x-hop",
        "bearer",
        "x-original-url",
        "x-mine",
    ] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
    for there in [
        "x-stainless-lang: python",
        "openai-beta: a",
        "x-forwarded-for: 127.0.0.1",
        "x-request-id: ",
    ] {
        assert!(head.contains(there), "{there}: {head}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_and_done() {
    for (sent, complete) in [
        (TEXT.to_owned(), true),
        (format!("{TEXT}data: {{\"cho"), false),
    ] {
        let address = server(move |_, mut peer| {
            let sent = sent.clone();
            async move {
                peer.request().await.unwrap();
                peer.send(format!("{HEAD}{}", chunk(&sent))).await;
            }
        })
        .await;
        let bench = Bench::new(&[address], "").await;
        let body = bench.ask(bench.post(STREAM)).await.body;
        assert!(body.starts_with(TEXT), "{body}");
        assert!(body.contains("upstream_disconnected"), "{complete}: {body}");
        assert!(body.ends_with(DONE), "{body}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_dead_is_replaced_once_unseen() {
    let address = server(|number, mut peer| async move {
        peer.request().await.unwrap();
        peer.send(OK).await;
        // The first reads the next request before it closes: only the answer's
        // absence says that it is dead.
        if number == 0 {
            peer.request().await.unwrap();
            return;
        }
        peer.request().await;
    })
    .await;
    let bench = Bench::new(&[address], "").await;
    for _ in 0..2 {
        assert_eq!(bench.ask(bench.post(ASK)).await.status, 200);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_asked_again() {
    let address = server(|_, mut peer| async move {
        peer.request().await;
    })
    .await;
    let bench = Bench::new(&[address], "").await;
    let answer = bench.ask(bench.post(ASK)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "upstream_error")
    );
}

#[tokio::test]
async fn where_no_server_can_be_reached_the_client_hears_of_it() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let bench = Bench::new(&[nobody], "").await;
    let answer = bench.ask(bench.post(ASK)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "no_healthy_backend")
    );
    assert!(answer.header("retry-after").is_some());
    // With another server, it goes there, each time.
    let bench = Bench::new(&[nobody, answering(OK).await], "").await;
    for _ in 0..4 {
        assert_eq!(bench.ask(bench.post(ASK)).await.status, 200);
    }
}

#[tokio::test]
async fn a_malicious_server_harms_its_own_client_only() {
    let endless: &'static str = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\n{}",
            "X-A: aaaaaaaaaaaaaaaa\r\n".repeat(60_000)
        )
        .into_boxed_str(),
    );
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: 1\r\n folded: 2\x00\r\n\r\n",
        "garbage\r\n\r\n",
        endless,
    ] {
        let bench = Bench::new(&[answering(answer).await], "").await;
        let got = bench.ask(bench.post(ASK)).await;
        assert_eq!(got.status, 502, "{answer:.60}: {got:?}");
    }
    // A second answer behind the first is nobody's.
    let split = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}\
                 HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: application/json\r\n\r\n\"evil\"";
    let bench = Bench::new(&[answering(split).await], "").await;
    for _ in 0..3 {
        let got = bench.ask(bench.post(ASK)).await;
        assert_eq!((got.status, got.body.as_str()), (200, "{}"));
    }
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_says_is_cut_and_not_made_up() {
    const PART: &str = "{\"a\":";
    let go = Arc::new(Notify::new());
    let seen = Arc::clone(&go);
    let address = server(move |_, mut peer| {
        let seen = Arc::clone(&seen);
        async move {
            peer.request().await.unwrap();
            let head = "Content-Type: application/json\r\nContent-Length: 100";
            peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{PART}"))
                .await;
            seen.notified().await;
        }
    })
    .await;
    let bench = Bench::new(&[address], "").await;
    let mut client = bench.connect().await;
    client.send(bench.post(ASK)).await;
    let head = client.until(b"\r\n\r\n").await;
    assert!(head.starts_with(b"HTTP/1.1 200"));
    assert_eq!(client.until(b":").await, PART.as_bytes());
    go.notify_one();
    assert!(client.is_closed().await);
}
