//! The `WebSocket` of realtime models, through the gateway:
//! its opening, what passes, and its end.

use std::net::SocketAddr;

use tidegate::config::Settings;
use tidegate::config::edge::{Origin, Origins};
use tidegate::websocket::{Piece, Reader, Side, accept, close, text};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bench::{Bench, Client, LIMIT, OK, server};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(super) const UPDATE: &str = r#"{"type":"session.update","model":"chat"}"#;
const DONE: &str = r#"{"type":"transcription.done","text":"hi","usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

pub(super) const NO_ROUTE: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";

/// One end of a WebSocket.
pub(super) struct Socket<S> {
    stream: Client<S>,
    frames: Reader,
    own: Side,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn new(stream: Client<S>, own: Side) -> Self {
        let other = match own {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Self {
            stream,
            frames: Reader::new(other, 1 << 20),
            own,
        }
    }

    pub(super) async fn say(&mut self, words: &str) {
        self.stream.send(text(self.own, words.as_bytes())).await;
    }

    async fn next(&mut self) -> Option<Piece> {
        tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(piece) = self.frames.piece().unwrap() {
                    return Some(piece);
                }
                if !self
                    .stream
                    .0
                    .read_buf(&mut self.frames.input)
                    .await
                    .is_ok_and(|n| n > 0)
                {
                    return None;
                }
            }
        })
        .await
        .unwrap()
    }

    /// The next message; the code of a close, or nothing at the end.
    pub(super) async fn hear(&mut self) -> String {
        match self.next().await {
            Some(Piece::Message { payload, .. }) => String::from_utf8(payload).unwrap(),
            Some(Piece::Close(_, code)) => format!("close {}", code.unwrap_or(0)),
            Some(other) => format!("{other:?}"),
            None => "gone".to_owned(),
        }
    }
}

/// A server as vLLM's: greets, tells what it hears, and answers a commit.
pub(super) async fn vllm(
    key: impl Fn(&str) -> String + Send + Sync + Clone + 'static,
) -> (SocketAddr, UnboundedReceiver<String>) {
    let (tell, heard) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let (tell, key) = (tell.clone(), key.clone());
        async move {
            let opened = String::from_utf8(peer.until(b"\r\n\r\n").await).unwrap();
            let sent = opened.lines().find_map(|line| {
                line.to_ascii_lowercase().starts_with("sec-websocket-key: ").then(|| line[19..].to_owned())
            });
            tell.send(opened.to_ascii_lowercase()).unwrap();
            let accept = key(&sent.unwrap_or_default());
            peer.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            ))
            .await;
            let mut socket = Socket::new(peer, Side::Server);
            socket.say(r#"{"type":"session.created","id":"theirs"}"#).await;
            loop {
                let heard = socket.hear().await;
                let code = heard.strip_prefix("close ").map(|code| code.parse().unwrap());
                tell.send(heard.clone()).unwrap();
                match heard.as_str() {
                    "gone" => return,
                    commit if commit.contains("commit") => socket.say(DONE).await,
                    die if die.contains("die") => return,
                    _ => {}
                }
                if let Some(code) = code {
                    socket.stream.send(close(Side::Server, code, "")).await;
                    return;
                }
            }
        }
    })
    .await;
    (address, heard)
}

pub(super) fn opening(bench: &Bench, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        bench.token().0
    )
}

/// Opens a WebSocket and checks how.
pub(super) async fn open(bench: &Bench, path: &str) -> Socket<TcpStream> {
    opened(bench, path).await.0
}

/// As [`open`], with the head of the answer in lower case.
pub(super) async fn opened(bench: &Bench, path: &str) -> (Socket<TcpStream>, String) {
    let mut client = bench.connect().await;
    client.send(opening(bench, path)).await;
    let opened = String::from_utf8(client.until(b"\r\n\r\n").await).unwrap();
    assert!(opened.starts_with("HTTP/1.1 101 "), "{opened}");
    let lower = opened.to_ascii_lowercase();
    assert!(opened.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{opened}");
    assert!(
        lower.contains("x-request-id: ") && !lower.contains("extensions"),
        "{opened}"
    );
    (Socket::new(client, Side::Client), lower)
}

/// A server that answers alike, whoever wants to open a WebSocket.
pub(super) async fn answering(answer: &'static str) -> SocketAddr {
    server(move |_, mut peer| async move {
        peer.until(b"\r\n\r\n").await;
        peer.send(answer).await;
        peer.is_closed().await;
    })
    .await
}

#[tokio::test]
async fn the_model_is_taken_from_the_first_event_and_what_follows_passes() {
    let (address, mut heard) = vllm(accept).await;
    let bench = Bench::new(&[address], "max_concurrent_requests = 1").await;
    let mut client = open(&bench, "/v1/realtime").await;
    assert!(
        client.hear().await.contains("session.created"),
        "greeted before a model is known"
    );
    client.say(UPDATE).await;
    let opened = heard.recv().await.unwrap();
    assert!(opened.starts_with("get /v1/realtime http/1.1"), "{opened}");
    assert!(
        !opened.contains("bearer")
            && !opened.contains("deflate")
            && !opened.contains(&KEY.to_ascii_lowercase()),
        "{opened}"
    );
    assert_eq!(heard.recv().await.unwrap(), UPDATE);
    // It counts as one request.
    let full = bench.ask(bench.post(r#"{"model":"chat"}"#)).await;
    assert_eq!(full.status, 429, "{full:?}");
    client
        .say(r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#)
        .await;
    client
        .say(r#"{"type":"input_audio_buffer.commit","final":true}"#)
        .await;
    assert!(heard.recv().await.unwrap().contains("append"));
    assert!(heard.recv().await.unwrap().contains("commit"));
    // The server's own greeting was one too many.
    assert_eq!(client.hear().await, DONE);
    client.stream.send(close(Side::Client, 1000, "bye")).await;
    assert_eq!(heard.recv().await.unwrap(), "close 1000");
    assert_eq!(client.hear().await, "close 1000");
    assert_eq!(client.hear().await, "gone");
    // The place is free again.
    let mut next = open(&bench, "/v1/realtime?model=chat").await;
    assert!(next.hear().await.contains("theirs"));
}

#[tokio::test]
async fn a_model_in_the_address_is_enough_and_the_server_gets_its_own_name() {
    let (address, mut heard) = vllm(accept).await;
    let upstream = format!("[[upstream]]\nurl = \"http://{address}\"\nmodel = \"mistral/voxtral\"");
    let bench = Bench::new(&[], &upstream).await;
    for path in [
        "/v1/realtime?model=chat",
        "/chat/v1/realtime",
        "/v1/realtime?intent=x&model=ch%61t",
    ] {
        let mut client = open(&bench, path).await;
        assert!(client.hear().await.contains("theirs"), "{path}");
        heard.recv().await.unwrap();
        for (said, arrives) in [
            (
                r#"{"type":"session.update","session":{"type":"realtime"}}"#,
                r#"{"model":"mistral/voxtral","type":"session.update","session":{"type":"realtime"}}"#,
            ),
            (
                r#"{"type":"session.update","model":"chat","a":1.0}"#,
                r#"{"type":"session.update","model":"mistral/voxtral","a":1.0}"#,
            ),
        ] {
            client.say(said).await;
            assert_eq!(heard.recv().await.unwrap(), arrives, "{path}");
        }
        // Another model, or what a server might read as one, does not get through.
        for bad in [
            r#"{"type":"session.update","model":"hidden"}"#,
            r#"{"type":"x","type":"session.update","model":"hidden"}"#,
            r#"{"a":NaN,"type":"session.update","model":"hidden"}"#,
        ] {
            client.say(bad).await;
            let told = client.hear().await;
            assert!(told.starts_with(r#"{"type":"error","error":{"#), "{told}");
        }
        drop(client);
        assert_eq!(
            heard.recv().await.unwrap(),
            "gone",
            "nothing else was heard"
        );
    }
}

#[tokio::test]
async fn what_is_no_websocket_or_for_no_one_is_refused_with_a_status() {
    let (address, _heard) = vllm(accept).await;
    let bench = Bench::new(&[address], "").await;
    let good = opening(&bench, "/v1/realtime?model=chat");
    for (request, status) in [
        (good.replace("Upgrade: websocket\r\n", ""), 426),
        (good.replace("Connection: keep-alive, Upgrade\r\n", ""), 426),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace(KEY, "short"), 426),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (good.replace("GET", "POST"), 405),
        (good.replace("model=chat", "model=nobody"), 404),
        (good.replace("model=chat", "model=hidden"), 404),
        (good.replace("model=chat", "model=chat&model=chat"), 400),
        (good.replace("Bearer ", "Bearer x"), 401),
        (good.replace("Host: x", "Host: x\r\nContent-Length: 5"), 400),
    ] {
        let answer = bench.ask(&request).await;
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        assert!(!answer.code().is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_page_that_may_call_sends_its_token_as_a_subprotocol() {
    const PAGE: &str = "https://chat.example";
    let (address, mut heard) = vllm(accept).await;
    let mut settings = Settings::default();
    settings.cors.origins = Origins::These(vec![Origin(PAGE.to_owned())]);
    let bench = Bench::with(&[address], "", settings).await;
    let token = bench.token().0;
    let of_page = |path: &str, origin: &str, protocols: &str| {
        let good = opening(&bench, path);
        let (before, rest) = good.split_once("Authorization: ").unwrap();
        let rest = rest.split_once("\r\n").unwrap().1;
        format!("{before}Origin: {origin}\r\nSec-WebSocket-Protocol: {protocols}\r\n{rest}")
    };
    let offered = format!("realtime, openai-insecure-api-key.{token}, openai-beta.realtime-v1");
    let path = "/v1/realtime?model=chat";
    let mut client = bench.connect().await;
    client.send(of_page(path, PAGE, &offered)).await;
    let opened = String::from_utf8(client.until(b"\r\n\r\n").await).unwrap();
    assert!(opened.starts_with("HTTP/1.1 101 "), "{opened}");
    let lower = opened.to_ascii_lowercase();
    assert!(
        lower.contains("sec-websocket-protocol: realtime\r\n"),
        "{opened}"
    );
    assert!(
        !opened.contains(&token) && !lower.contains("insecure"),
        "{opened}"
    );
    let arrived = heard.recv().await.unwrap();
    assert!(
        !arrived.contains("insecure") && !arrived.contains("protocol"),
        "{arrived}"
    );
    let mut client = Socket::new(client, Side::Client);
    assert!(client.hear().await.contains("theirs"));

    let twice = format!("{offered}, openai-insecure-api-key.{token}");
    let wrong = "realtime, openai-insecure-api-key.tgw_a.b";
    for (request, code) in [
        (
            of_page(path, "https://evil.example", &offered),
            "origin_not_allowed",
        ),
        (of_page(path, PAGE, &twice), "invalid_api_key"),
        (of_page(path, PAGE, wrong), "invalid_api_key"),
        (of_page(path, PAGE, "realtime"), "invalid_api_key"),
        // Nowhere else is it a token.
        (of_page("/v1/models", PAGE, &offered), "invalid_api_key"),
    ] {
        let answer = bench.ask(&request).await;
        assert_eq!(answer.code(), code, "{request}");
        assert!(!format!("{answer:?}").contains(&token));
    }
    let off = Bench::new(&[address], "").await;
    let answer = off.ask(of_page(path, PAGE, &offered)).await;
    assert_eq!(answer.code(), "origin_not_allowed");
}

#[tokio::test]
async fn a_websocket_for_responses_is_refused_at_once_so_that_agents_ask_by_post() {
    let (address, _heard) = vllm(accept).await;
    let bench = Bench::new(&[address], "").await;
    for path in ["/v1/responses", "/v1/responses/", "/chat/v1/responses"] {
        let answer = bench.ask(opening(&bench, path)).await;
        assert_eq!(answer.status, 426, "{answer:?}");
        assert_eq!(answer.code(), "websocket_not_supported");
        assert_eq!(answer.header("upgrade"), Some("HTTP/1.1"));
    }
    let plain = opening(&bench, "/v1/responses").replace("Upgrade: websocket\r\n", "");
    assert_eq!(bench.ask(plain).await.status, 405);
    let other = opening(&bench, "/v1/chat/completions");
    assert_eq!(bench.ask(other).await.status, 405);
}

#[tokio::test]
async fn a_server_that_does_not_open_it_properly_is_not_believed() {
    let (wrong, _heard) = vllm(|_| accept(KEY)).await;
    // It reads no body, so the script of a plain answer does not fit.
    let plain = answering(OK).await;
    for (address, status, code) in [
        (wrong, 502, "upstream_error"),
        (plain, 502, "upstream_error"),
    ] {
        let bench = Bench::new(&[address], "").await;
        let answer = bench.ask(opening(&bench, "/v1/realtime?model=chat")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    let refusing = answering(NO_ROUTE).await;
    let bench = Bench::new(&[refusing], "").await;
    let answer = bench.ask(opening(&bench, "/v1/realtime?model=chat")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "unsupported_endpoint")
    );
}

#[tokio::test]
async fn whoever_breaks_the_protocol_or_leaves_ends_it_for_both() {
    let (address, mut heard) = vllm(accept).await;
    let bench = Bench::new(&[address], "").await;
    // The server dies: the client is told.
    let mut client = open(&bench, "/v1/realtime?model=chat").await;
    client.hear().await;
    client.say(r#"{"type":"die"}"#).await;
    assert_eq!(client.hear().await, "close 1011");
    assert_eq!(client.hear().await, "gone");
    for _ in 0..2 {
        heard.recv().await.unwrap();
    }
    // The client sends what is no frame of a client's.
    let mut client = open(&bench, "/v1/realtime?model=chat").await;
    client.hear().await;
    client.stream.send(text(Side::Server, b"{}")).await;
    assert_eq!(client.hear().await, "close 1002");
    heard.recv().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "gone");
    // A frame of gigabytes is not waited for.
    let mut client = open(&bench, "/v1/realtime?model=chat").await;
    client.hear().await;
    client
        .stream
        .send(b"\x81\xff\x00\x00\x00\xff\xff\xff\xff\xff\x00\x00\x00\x00")
        .await;
    assert_eq!(client.hear().await, "close 1009");
    heard.recv().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "gone");
}

#[tokio::test]
async fn a_client_that_names_no_model_is_told_and_let_go() {
    let (address, _heard) = vllm(accept).await;
    let bench = Bench::new(&[address], "").await;
    for (first, code) in [
        (
            r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#,
            "model_required",
        ),
        (r#"{"type":"session.update"}"#, "model_required"),
        (
            r#"{"type":"session.update","model":"nobody"}"#,
            "model_not_found",
        ),
        (
            r#"{"type":"session.update","model":"hidden"}"#,
            "model_not_found",
        ),
        ("nonsense", "invalid_json"),
    ] {
        let mut client = open(&bench, "/v1/realtime").await;
        client.hear().await;
        client.say(first).await;
        let told = client.hear().await;
        assert!(told.contains(code), "{first}: {told}");
        assert_eq!(client.hear().await, "close 1008", "{first}");
        assert_eq!(client.hear().await, "gone");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_its_server_leaves_nothing() {
    let (tell, mut seen) = unbounded_channel();
    let silent = server(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.until(b"\r\n\r\n").await;
            tell.send("asked").unwrap();
            assert!(peer.is_closed().await);
            tell.send("closed").unwrap();
        }
    })
    .await;
    let bench = Bench::new(&[silent], "max_concurrent_requests = 1").await;
    for _ in 0..3 {
        let mut client = open(&bench, "/v1/realtime").await;
        client.hear().await;
        client.say(UPDATE).await;
        assert_eq!(seen.recv().await, Some("asked"));
        drop(client);
        assert_eq!(seen.recv().await, Some("closed"));
        // Also before the connection has become a WebSocket.
        let mut client = bench.connect().await;
        client
            .send(opening(&bench, "/v1/realtime?model=chat"))
            .await;
        assert_eq!(seen.recv().await, Some("asked"));
        drop(client);
        assert_eq!(seen.recv().await, Some("closed"));
    }
}

#[tokio::test]
async fn silence_of_both_and_a_shutdown_end_it_with_a_word() {
    let (address, _heard) = vllm(accept).await;
    let idle = "[route.timeouts]\nidle = \"200ms\"";
    let bench = Bench::with(&[address], idle, Settings::default()).await;
    let mut client = open(&bench, "/v1/realtime?model=chat").await;
    client.hear().await;
    assert_eq!(client.hear().await, "close 1001");
    let bench = Bench::new(&[address], "").await;
    let mut client = open(&bench, "/v1/realtime?model=chat").await;
    client.hear().await;
    bench.cut.cancel();
    assert_eq!(client.hear().await, "close 1001");
    assert_eq!(client.hear().await, "gone");
}
