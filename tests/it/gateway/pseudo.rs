//! Heads of HTTP/2 and HTTP/1.1 that play with what frames a request.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::bench::{Bench, Client, LIMIT, OK, answering, post_to};
use super::floods::{PREFACE, frame};

const HEADERS: u8 = 1;
/// `END_STREAM` and `END_HEADERS`.
const WHOLE: u8 = 5;
/// `:status: 200` of the static table.
const STATUS_200: u8 = 0x88;

/// A literal header field, neither indexed nor packed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut bytes = vec![0, length(name)];
    bytes.extend(name.as_bytes());
    bytes.push(length(value));
    bytes.extend(value.as_bytes());
    bytes
}

/// True if a request with these fields is answered with 200.
async fn is_served(bench: &Bench, fields: &[(&str, &str)]) -> bool {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    let mut client = bench.connect().await;
    client.send(PREFACE).await;
    client.send(frame(HEADERS, WHOLE, 1, &block)).await;
    let reading = async {
        let mut header = [0; 9];
        while client.0.read_exact(&mut header).await.is_ok() {
            let [a, b, c, kind, ..] = header;
            let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            if client.0.read_exact(&mut payload).await.is_err() {
                break;
            }
            match kind {
                HEADERS => return payload.first() == Some(&STATUS_200),
                // RST_STREAM, GOAWAY.
                3 | 7 => return false,
                _ => {}
            }
        }
        false
    };
    tokio::time::timeout(LIMIT, reading).await.unwrap()
}

#[tokio::test]
async fn a_head_of_http_2_has_its_four_fields_once_and_first() {
    const GOOD: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", "/healthz"),
    ];
    let bench = Bench::new(&[answering(OK).await], "").await;
    assert!(is_served(&bench, &GOOD).await);
    let with = |more: &[(&'static str, &'static str)]| [&GOOD[..], more].concat();
    let without = |name: &str| -> Vec<_> { GOOD.into_iter().filter(|f| f.0 != name).collect() };
    let put = |name: &'static str, value| {
        let mut fields = without(name);
        fields.push((name, value));
        fields
    };
    for fields in [
        without(":method"),
        without(":path"),
        with(&[(":method", "POST")]),
        with(&[(":path", "/v1/models")]),
        with(&[(":authority", "y")]),
        with(&[(":unknown", "1")]),
        with(&[(":status", "200")]),
        [&[("x-a", "1")][..], &GOOD].concat(),
        with(&[("X-Upper", "1")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("keep-alive", "1")]),
        with(&[("te", "gzip")]),
        with(&[("host", "other")]),
        with(&[("content-length", "5")]),
        with(&[("x-a", "a\r\nx-b: c")]),
        with(&[("x-a", "a\0b")]),
        with(&[("x a", "1")]),
        put(":path", ""),
        put(":path", "healthz"),
        put(":path", "/healthz HTTP/1.1\r\nHost: y"),
        put(":path", "//healthz"),
        put(":path", "/%68ealthz"),
        put(":authority", "u@x"),
        put(":authority", "x/y"),
        put(":method", "GE T"),
        put(":method", "CONNECT"),
    ] {
        assert!(!is_served(&bench, &fields).await, "{fields:?}");
    }
    // No one else is disturbed.
    let health = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(bench.ask(health).await.status, 200);
}

#[tokio::test]
async fn a_line_of_a_head_ends_with_cr_lf() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let good = bench.post(r#"{"model":"chat"}"#);
    for spoiled in [
        good.replace("\r\n", "\n"),
        good.replacen("\r\n", "\n", 1),
        good.replace("Host: x\r\n", "Host: x\nX: y\r\n"),
        good.replace(
            "Host: x\r\n",
            "Host: x\r\nX: y\nTransfer-Encoding: chunked\r\n",
        ),
        good.replace("\r\n\r\n", "\r\n\n"),
        good.replace("Host: x\r\n", "Host: x\rX: y\r\n"),
        good.replace("Host: x\r\n", "Host: x\r\n\0X: y\r\n"),
    ] {
        // Within the first line: what is refused may be answered before the rest is sent.
        for (kept, cut) in [(0, 0), (0, 30), (2, 0), (2, 30)] {
            let client = bench.connect().await;
            is_refused(client, &good, kept, spoiled.split_at(cut)).await;
            let client = bench
                .connect_tls(&rustls::version::TLS13, &["http/1.1"])
                .await;
            is_refused(client, &good, kept, spoiled.split_at(cut)).await;
        }
    }
    // Bodies are bytes, and the next request is read where they end.
    let mut client = bench.connect().await;
    let lines = bench.post("{\n\"model\":\n\n\"chat\"\n}\n");
    for _ in 0..3 {
        client.send(&lines).await;
        assert_eq!(client.answer().await.status, 200);
    }
    client.send(good.replace("\r\n", "\n")).await;
    assert_eq!(client.answer().await.status, 400);
    assert!(client.is_closed().await);
}

/// After so many good requests, a head that comes in two pieces is answered with 400,
/// and its connection closed.
async fn is_refused<S>(mut client: Client<S>, good: &str, kept: usize, pieces: (&str, &str))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..kept {
        client.send(good).await;
        assert_eq!(client.answer().await.status, 200);
    }
    client.send(pieces.0).await;
    tokio::task::yield_now().await;
    client.send(pieces.1).await;
    let (first, second) = pieces;
    assert_eq!(client.answer().await.status, 400, "{first}|{second}");
    assert!(client.is_closed().await, "{first}|{second}");
}

#[tokio::test]
async fn a_token_that_is_a_bomb_is_refused_at_once() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let good = bench.token().0;
    let (head, rest) = good.split_once('.').unwrap();
    for token in [
        "a".repeat(40 << 10),
        ".".repeat(40 << 10),
        format!("{head}.{}.{rest}", "A".repeat(40 << 10)),
        format!("{}{rest}", "A.".repeat(10 << 10)),
        format!("{good}{}", "=".repeat(10 << 10)),
    ] {
        let request = post_to("/v1/chat/completions", &token, "application/json", "{}");
        let answer = bench.ask(request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "invalid_api_key")
        );
    }
}
