//! Servers that are not quite OpenAI's: their errors, their packings, their ends.

use std::io::Write as _;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::bench::{Answer, Bench, post_to, server};

const WINDOW: &str =
    "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens.";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const ASK: &str = r#"{"model":"chat","messages":[],"input":"x","max_tokens":1}"#;
const STREAM: &str = r#"{"model":"chat","messages":[],"stream":true}"#;

/// A server that answers each request so, on a connection of its own.
async fn answering(answer: Vec<u8>) -> SocketAddr {
    server(move |_, mut peer| {
        let answer = answer.clone();
        async move {
            if peer.request().await.is_some() {
                peer.send(&answer).await;
            }
        }
    })
    .await
}

/// An answer in each framing that there is.
fn framings(status: &str, headers: &str, body: &[u8]) -> Vec<Vec<u8>> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}");
    let length = body.len();
    [
        (
            format!("{head}Content-Length: {length}\r\n\r\n"),
            body.to_vec(),
        ),
        (format!("{head}Connection: close\r\n\r\n"), body.to_vec()),
        (
            format!("{head}Transfer-Encoding: chunked\r\n\r\n"),
            [format!("{length:x}\r\n").as_bytes(), body, b"\r\n0\r\n\r\n"].concat(),
        ),
    ]
    .map(|(head, body)| [head.as_bytes(), &body].concat())
    .to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

async fn ask(answer: Vec<u8>, path: &str, body: &str) -> Answer {
    let bench = Bench::new(&[answering(answer).await], "").await;
    let request = post_to(path, &bench.token().0, "application/json", body);
    bench.ask(request).await
}

fn parsed(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-encoding"), None);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn the_text_of_an_error_survives_in_the_form_of_the_api_that_was_asked() {
    let old = json!({"object": "error", "message": WINDOW, "type": "BadRequestError", "param": null, "code": 400});
    let bodies = [
        old.to_string(),
        json!({"error": WINDOW}).to_string(),
        json!({"detail": WINDOW}).to_string(),
        WINDOW.to_owned(),
        format!("<html><title>{WINDOW}</title></html>"),
    ];
    for body in bodies {
        for answer in framings(
            "400 Bad Request",
            "Content-Type: text/x\r\n",
            body.as_bytes(),
        ) {
            for path in [CHAT, RESPONSES, MESSAGES] {
                let got = ask(answer.clone(), path, ASK).await;
                assert_eq!(got.status, 400, "{path}: {got:?}");
                let told = parsed(&got);
                assert_eq!(told["error"]["message"], WINDOW, "{path}: {got:?}");
                if path == MESSAGES {
                    assert_eq!(told["type"], "error");
                    assert_eq!(told["error"]["type"], "invalid_request_error");
                } else if body.contains("object") {
                    assert_eq!(told["error"]["code"], 400);
                    assert_eq!(told["error"]["type"], "BadRequestError");
                }
            }
        }
    }
    // What has the form passes to the byte.
    let own = "{\"error\": {\"message\": \"m\", \"type\":\"t\",\"param\":null, \"code\":400}}";
    for answer in framings(
        "400 Bad Request",
        "Content-Type: application/json\r\n",
        own.as_bytes(),
    ) {
        assert_eq!(ask(answer, CHAT, ASK).await.body, own);
    }
    // An error that is too large is told as far as is of use.
    let large = json!({"error": {"message": "x".repeat(1 << 20)}}).to_string();
    for answer in framings("422 Unprocessable", "", large.as_bytes()) {
        let got = ask(answer, CHAT, ASK).await;
        let told = parsed(&got);
        let length = told["error"]["message"].as_str().unwrap().len();
        assert!(
            got.status == 422 && (1_000..10_000).contains(&length),
            "{length}"
        );
    }
}

#[tokio::test]
async fn a_packed_error_is_unpacked_and_one_that_says_nothing_has_our_words() {
    let packed = gzip(json!({"error": WINDOW}).to_string().as_bytes());
    for answer in framings("400 Bad Request", "Content-Encoding: gzip\r\n", &packed) {
        let got = ask(answer, CHAT, ASK).await;
        assert_eq!(
            (got.status, &parsed(&got)["error"]["message"]),
            (400, &json!(WINDOW))
        );
    }
    for (headers, body) in [
        ("Content-Encoding: br\r\n", &b"\x1b\0x"[..]),
        ("", b""),
        ("", b"{}"),
    ] {
        for answer in framings("529 Overloaded", headers, body) {
            let got = ask(answer, MESSAGES, ASK).await;
            let told = parsed(&got);
            assert_eq!(
                (got.status, &told["error"]["type"]),
                (529, &json!("api_error"))
            );
        }
    }
    let bare = json!({"detail": "Not Found"}).to_string();
    let got = ask(
        framings("404 Not Found", "", bare.as_bytes()).remove(0),
        CHAT,
        ASK,
    )
    .await;
    assert_eq!(
        (got.status, got.code().as_str()),
        (404, "unsupported_endpoint")
    );
    let missing = json!({"error": "model 'x' not found, try pulling it first"}).to_string();
    let got = ask(
        framings("404 Not Found", "", missing.as_bytes()).remove(0),
        CHAT,
        ASK,
    )
    .await;
    assert!(got.body.contains("try pulling it first"), "{got:?}");
}

#[tokio::test]
async fn a_server_that_refuses_our_key_or_leads_elsewhere_is_no_matter_of_the_client() {
    let body = br#"{"error":{"message":"Incorrect API key provided: sk-secret","code":"invalid_api_key"}}"#;
    let leads = "Location: http://10.0.0.7/v1\r\nServer: inner\r\n";
    for (status, code) in [
        ("401 Unauthorized", "upstream_key_refused"),
        ("403 Forbidden", "upstream_key_refused"),
        ("301 Moved Permanently", "upstream_redirect"),
        ("307 Temporary Redirect", "upstream_redirect"),
        ("308 Permanent Redirect", "upstream_redirect"),
        ("304 Not Modified", "upstream_redirect"),
        ("600 Beyond", "upstream_error"),
    ] {
        for answer in framings(status, leads, body) {
            let bench = Bench::new(&[answering(answer).await], "").await;
            for path in [CHAT, MESSAGES] {
                let request = post_to(path, &bench.token().0, "application/json", ASK);
                let got = bench.ask(request).await;
                assert_eq!(got.status, 502, "{status}: {got:?}");
                let all = format!("{}{}", got.head, got.body);
                assert!(
                    !all.contains("10.0.0.7") && !all.contains("sk-secret"),
                    "{all}"
                );
                if path == CHAT {
                    assert_eq!(got.code(), code, "{status}");
                }
            }
            let why = bench.gateway.upstreams().remove(0).why.unwrap();
            let words = match code {
                "upstream_key_refused" => "refuses the gateway's key",
                "upstream_redirect" => "redirect",
                _ => "broke off",
            };
            assert!(why.contains(words), "{why}");
        }
    }
}

const HEAD: &str = "Content-Type: text/event-stream\r\n";
const TEXT: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}";

#[tokio::test]
async fn a_stream_that_is_whole_passes_as_it_came_however_it_ends() {
    for stream in [
        format!("{TEXT}data: [DONE]"),
        format!("{TEXT}data: [DONE]\n"),
        format!("{TEXT}data:[DONE]\r\n"),
        format!("{TEXT}{END}\n\n"),
        format!("{TEXT}{END}\n"),
        format!("{TEXT}{END}"),
        format!("{TEXT}{END}\n\n: bye"),
    ] {
        for answer in framings("200 OK", HEAD, stream.as_bytes()) {
            let got = ask(answer, CHAT, STREAM).await;
            assert_eq!((got.status, &got.body), (200, &stream));
        }
    }
    // Our own usage event goes nowhere, with or without an end.
    for rest in [
        USAGE.to_owned(),
        format!("{USAGE}\n"),
        format!("{USAGE}\n\n"),
    ] {
        let stream = format!("{TEXT}{END}\n\n{rest}");
        for answer in framings("200 OK", HEAD, stream.as_bytes()) {
            let got = ask(answer, CHAT, STREAM).await;
            assert_eq!(got.body, format!("{TEXT}{END}\n\n"), "{rest:?}");
        }
    }
    // What is not whole is told, and half an event does not go out.
    for (stream, whole) in [
        (TEXT.to_owned(), TEXT.len()),
        (format!("{TEXT}{}", &END[..40]), TEXT.len()),
        (format!("{TEXT}data: [DON"), TEXT.len()),
        (END[..40].to_owned(), 0),
    ] {
        for answer in framings("200 OK", HEAD, stream.as_bytes()) {
            let got = ask(answer, CHAT, STREAM).await;
            assert_eq!(got.body[..whole], stream[..whole], "{stream}");
            assert!(
                got.body[whole..].starts_with("data: {\"error\""),
                "{}",
                got.body
            );
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_packed_or_in_lines_of_json_is_read_all_the_same() {
    let stream = format!("{TEXT}{END}\n\n{USAGE}\n\ndata: [DONE]\n\n");
    let packed = gzip(stream.as_bytes());
    let headers = format!("{HEAD}Content-Encoding: gzip\r\n");
    for answer in framings("200 OK", &headers, &packed) {
        let got = ask(answer, CHAT, STREAM).await;
        assert_eq!(got.header("content-encoding"), None);
        assert_eq!(got.body, format!("{TEXT}{END}\n\ndata: [DONE]\n\n"));
    }
    let line = |event: &str| format!("{}\n", event.trim_start_matches("data: ").trim());
    let lines = format!("{}{}{}", line(TEXT), line(END), line(USAGE));
    for answer in framings(
        "200 OK",
        "Content-Type: application/x-ndjson\r\n",
        lines.as_bytes(),
    ) {
        let got = ask(answer, CHAT, STREAM).await;
        assert_eq!(got.body, format!("{}{}", line(TEXT), line(END)));
    }
    let whole = br#"{"id":"x","usage":{"prompt_tokens":7.0,"prompt_tokens_details":[]}}"#;
    let json = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    for answer in framings("200 OK", json, &gzip(whole)) {
        let got = ask(answer, CHAT, ASK).await;
        assert_eq!(got.body.as_bytes(), whole);
    }
    // All of it is counted.
    let lines = format!("{}{}", line(TEXT), line(USAGE));
    for (headers, body, path, expected) in [
        (headers.as_str(), packed, STREAM, (3, 1)),
        (
            "Content-Type: application/x-ndjson\r\n",
            lines.into_bytes(),
            STREAM,
            (3, 1),
        ),
        (json, gzip(whole), ASK, (7, 0)),
    ] {
        let answer = framings("200 OK", headers, &body).remove(0);
        let bench = Bench::new(&[answering(answer).await], "").await;
        assert_eq!(bench.ask(bench.post(path)).await.status, 200);
        // The record is written when the body is dropped, at the latest with its connection.
        let ledger = bench.gateway.ledger();
        while ledger.all_pending().is_empty() {
            tokio::task::yield_now().await;
        }
        let (_, tally) = ledger.take().remove(0);
        assert_eq!(
            (tally.prompt_tokens, tally.completion_tokens),
            expected,
            "{headers}"
        );
    }
    // What can't be unpacked is no answer.
    let odd = "Content-Type: application/json\r\nContent-Encoding: br\r\n";
    let got = ask(framings("200 OK", odd, b"x").remove(0), CHAT, ASK).await;
    assert_eq!((got.status, got.code().as_str()), (502, "upstream_error"));
}
