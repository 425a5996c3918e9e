//! End of the gateway: what is open finishes, and what can't is told so.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::bench::{Bench, Client, LIMIT, OK, answering, server};

const STREAM: &str = r#"{"model":"chat","stream":true,"messages":[]}"#;
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A server that sends half a stream, and the rest once it is told to.
async fn halting(go_on: Arc<Notify>) -> std::net::SocketAddr {
    server(move |_, mut peer| {
        let go_on = Arc::clone(&go_on);
        async move {
            peer.request().await.unwrap();
            peer.send(format!("{HEAD}{}", chunk(TEXT))).await;
            go_on.notified().await;
            peer.send(chunk(DONE) + "0\r\n\r\n").await;
            peer.request().await;
        }
    })
    .await
}

/// Starts a stream and waits for its first event.
async fn started(bench: &Bench) -> Client<TcpStream> {
    let mut client = bench.connect().await;
    client.send(bench.post(STREAM)).await;
    client.until(TEXT.as_bytes()).await;
    client
}

#[tokio::test]
async fn a_stream_finishes_and_its_connection_closes() {
    let go_on = Arc::new(Notify::new());
    let bench = Bench::new(&[halting(Arc::clone(&go_on)).await], "").await;
    let mut client = started(&bench).await;
    let mut idle = bench.connect().await;
    idle.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    bench.tasks.end();
    // Who is idle is let go at once; no one else comes in.
    assert!(idle.is_closed().await);
    refused(&bench).await;
    go_on.notify_one();
    let rest = String::from_utf8(client.until(b"0\r\n\r\n").await).unwrap();
    assert!(rest.contains(DONE), "{rest}");
    assert!(client.is_closed().await);
}

/// Waits until no one listens any more.
async fn refused(bench: &Bench) {
    let closes = async { while TcpStream::connect(bench.plain).await.is_ok() {} };
    tokio::time::timeout(LIMIT, closes).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_can_not_finish_ends_with_an_error_in_its_own_form() {
    for (path, extra, ends) in [
        ("/v1/chat/completions", "\"messages\":[]", DONE),
        ("/v1/completions", "\"prompt\":\"a\"", DONE),
        ("/v1/responses", "\"input\":\"a\"", "\n\n"),
        ("/v1/messages", "\"messages\":[],\"max_tokens\":5", "\n\n"),
    ] {
        let bench = Bench::new(&[halting(Arc::default()).await], "").await;
        let mut client = bench.connect().await;
        let body = format!("{{\"model\":\"chat\",\"stream\":true,{extra}}}");
        client
            .send(bench.post(&body).replace("/v1/chat/completions", path))
            .await;
        client.until(TEXT.as_bytes()).await;
        bench.tasks.end();
        bench.cut.cancel();
        let rest = String::from_utf8(client.until(b"0\r\n\r\n").await).unwrap();
        let told = rest.contains("shutting_down") || rest.contains("shutting down");
        assert!(told && rest.contains(ends), "{path}: {rest}");
        assert_eq!(
            rest.contains("event: error"),
            ends == "\n\n",
            "{path}: {rest}"
        );
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_request_that_waits_for_its_server_is_told_to_come_again() {
    let came = Arc::new(Notify::new());
    let told = Arc::clone(&came);
    let address = server(move |_, mut peer| {
        let told = Arc::clone(&told);
        async move {
            peer.request().await.unwrap();
            told.notify_one();
            peer.request().await;
        }
    })
    .await;
    let bench = Bench::new(&[address], "").await;
    let mut client = bench.connect().await;
    client.send(bench.post(STREAM)).await;
    came.notified().await;
    bench.tasks.end();
    bench.cut.cancel();
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "shutting_down")
    );
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn http_2_finishes_its_streams_or_ends_them_with_an_error() {
    for cut in [false, true] {
        let go_on = Arc::new(Notify::new());
        let bench = Bench::new(&[halting(Arc::clone(&go_on)).await], "").await;
        let client = bench.connect_tls(&TLS13, &["h2"]).await;
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client.0))
                .await
                .unwrap();
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        bench.beside(async {
            drop(driver.await);
            ended.send(()).unwrap();
        });
        let request = Request::post("https://localhost/v1/chat/completions")
            .header("authorization", format!("Bearer {}", bench.token().0))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(STREAM)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            TEXT
        );
        bench.tasks.end();
        if cut {
            bench.cut.cancel();
        } else {
            go_on.notify_one();
        }
        let rest = body.collect().await.unwrap().to_bytes();
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(rest.ends_with(DONE), "{rest}");
        assert_eq!(rest.contains("shutting_down"), cut, "{rest}");
        // GOAWAY, and then the end of the connection.
        tokio::time::timeout(LIMIT, has_ended)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn where_another_gateway_took_over_an_idle_client_may_ask_once_more() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let mut client = bench.connect().await;
    let health = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(health).await;
    assert_eq!(client.answer().await.header("connection"), None);
    bench.gateway.set_taken_over();
    bench.tasks.end();
    refused(&bench).await;
    client.send(health).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(client.is_closed().await);
}
