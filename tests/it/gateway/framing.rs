//! Requests that two readers would read in two ways, and targets that are none.

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bench::{Answer, Bench, OK, answering};

const BODY: &str = r#"{"model":"chat"}"#;

/// A request with these lines in its head and no others but the token's.
async fn ask(bench: &Bench, first: &str, lines: &str, body: &str) -> Answer {
    let token = bench.token().0;
    bench
        .ask(format!(
            "{first}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             {lines}\r\n\r\n{body}"
        ))
        .await
}

const POST: &str = "POST /v1/chat/completions HTTP/1.1";

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_its_connection_closed() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let token = bench.token().0;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5, 0",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5\r\n obs-fold: 1",
        "X-A: 1\r\n\tfolded",
    ] {
        let mut client = bench.connect().await;
        client
            .send(format!(
                "{POST}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{lines:?}: {answer:?}");
        assert!(client.is_closed().await, "{lines:?}");
    }
}

#[tokio::test]
async fn nothing_is_read_behind_a_body_in_chunks() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let token = bench.token().0;
    for (lines, size) in [
        ("Transfer-Encoding: chunked", "10"),
        // hyper drops this length without a word.
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "10"),
        ("Transfer-Encoding: chunked", "10;name=\"value\""),
    ] {
        let mut client = bench.connect().await;
        client
            .send(format!(
                "{POST}\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 {lines}\r\n\r\n{size}\r\n{BODY}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{lines:?}: {answer:?}");
        assert!(client.is_closed().await, "{lines:?}");
    }
}

#[tokio::test]
async fn the_head_must_name_one_host() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let length = format!("Content-Length: {}", BODY.len());
    for (hosts, status) in [
        ("Host: x\r\n", 200),
        ("Host: x:8443\r\n", 200),
        ("", 400),
        ("Host: x\r\nHost: x\r\n", 400),
        ("Host: x\r\nHost: y\r\n", 400),
        ("Host: x/y\r\n", 400),
        ("Host: x, y\r\n", 400),
        ("Host: u@x\r\n", 400),
        ("Host: x:65536\r\n", 400),
        ("Host: x:https\r\n", 400),
    ] {
        let answer = ask(&bench, POST, &format!("{hosts}{length}"), BODY).await;
        assert_eq!(answer.status, status, "{hosts:?}: {answer:?}");
    }
}

#[tokio::test]
async fn only_the_paths_and_methods_of_the_list_exist() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let lines = format!("Host: x\r\nContent-Length: {}", BODY.len());
    for (target, status) in [
        ("POST /v1/chat/completions", 200),
        ("POST /v1/chat/completions/", 200),
        ("POST /chat/v1/chat/completions", 200),
        ("POST //v1/chat/completions", 200),
        ("GET /health", 200),
        ("POST ///v1/chat/completions", 404),
        ("POST /v1/chat/completions#x", 400),
        ("POST /#/v1/chat/completions", 400),
        ("POST /v1//chat/completions", 404),
        ("POST /v1/chat/../chat/completions", 404),
        ("POST /v1/./chat/completions", 404),
        ("POST /v1/chat/%2e%2e/chat/completions", 404),
        ("POST /v1/chat%2fcompletions", 404),
        ("POST /v1/chat/completion%73", 404),
        ("POST /v1%2Fload_lora_adapter", 404),
        ("POST /%6coad_lora_adapter", 404),
        ("POST /v1/chat/completions;x=1", 404),
        ("POST /v1\\chat\\completions", 404),
        ("POST /V1/chat/completions", 404),
        ("POST /sleep", 404),
        ("POST /chat/sleep", 404),
        ("POST /chat/../sleep", 404),
        ("GET /metrics", 404),
        ("GET /v1/chat/completions", 405),
        ("PUT /v1/chat/completions", 405),
        ("TRACE /v1/chat/completions", 405),
        ("CONNECT other:443", 405),
        ("POST http://other/v1/chat/completions", 400),
        ("POST http://x/v1/chat/completions", 400),
        ("POST *", 400),
    ] {
        let answer = ask(&bench, &format!("{target} HTTP/1.1"), &lines, BODY).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn a_control_character_in_the_line_of_a_chunk_is_refused() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let lines = "Host: x\r\nTransfer-Encoding: chunked";
    for (extension, status) in [(";a=b", 200), (";a=\0b", 400), (";\u{1}", 400)] {
        let body = format!("10{extension}\r\n{BODY}\r\n0\r\n\r\n");
        let answer = ask(&bench, POST, lines, &body).await;
        assert_eq!(answer.status, status, "{extension:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_token_counts_once_in_whatever_order() {
    const GARBAGE: &str = "Authorization: garbage\r\n";
    const STALE: &str = "x-api-key: stale\r\n";
    const BASIC: &str = "Authorization: Basic dTpw\r\n";
    let bench = Bench::new(&[answering(OK).await], "").await;
    let token = bench.token().0;
    let good = format!("Authorization: Bearer {token}\r\n");
    let key = format!("x-api-key: {token}\r\n");
    for (lines, status) in [
        ([good.as_str(), STALE], 200),
        ([STALE, &good], 200),
        ([BASIC, &key], 200),
        (["Authorization:\r\n", &key], 200),
        ([&good, GARBAGE], 401),
        ([GARBAGE, &good], 401),
        ([&good, &good], 401),
        ([&key, STALE], 401),
        ([BASIC, ""], 401),
    ] {
        let head = lines.concat();
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        let answer = bench.ask(request).await;
        assert_eq!(answer.status, status, "{head}");
        let told = answer.header("x-should-retry");
        assert_eq!(told, (status == 401).then_some("false"), "{head}");
    }
}

#[tokio::test]
async fn a_head_is_bounded_whatever_pieces_it_comes_in() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    for (size, piece, status) in [
        (60_000, 1 << 20, "200"),
        (60_000, 8_000, "200"),
        (65_600, 1 << 20, "431"),
        (66_000, 8_000, "431"),
        (71_680, 16_384, "431"),
        (71_680, 1 << 20, "431"),
    ] {
        let mut client = bench.connect_tls(&TLS13, &["http/1.1"]).await;
        let head = format!(
            "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n",
            "a".repeat(size)
        );
        for part in head.as_bytes().chunks(piece) {
            // The gateway may stop reading before all of it is sent.
            if client
                .0
                .write_all(part)
                .await
                .and(client.0.flush().await)
                .is_err()
            {
                break;
            }
        }
        let mut told = [0; 12];
        client.0.read_exact(&mut told).await.unwrap();
        let told = String::from_utf8_lossy(&told);
        assert!(told.ends_with(status), "{size} in {piece}: {told}");
    }
}

#[tokio::test]
async fn a_head_without_bounds_is_refused() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let many = "X-A: 1\r\n".repeat(200);
    let large = format!("X-A: {}\r\n", "a".repeat(300 << 10));
    for bomb in [many, large] {
        let mut client = bench.connect().await;
        let head = format!("{POST}\r\nHost: x\r\n{bomb}\r\n");
        // The gateway may stop reading before all of it is sent.
        drop(AsyncWriteExt::write_all(&mut client.0, head.as_bytes()).await);
        let head = client.until(b"\r\n").await;
        let refused = head.is_empty() || head.starts_with(b"HTTP/1.1 431");
        assert!(refused, "{}", String::from_utf8_lossy(&head));
    }
    let long = format!("GET /{} HTTP/1.1", "a".repeat(9 << 10));
    let answer = ask(&bench, &long, "Host: x", "").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (414, "target_too_long")
    );
}
