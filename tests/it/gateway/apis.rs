//! Servers that are not under `/v1`, that want their key elsewhere, or that serve only
//! some of the APIs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::bench::{Bench, OK, post_to, server};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const EMBEDDINGS: &str = "/v1/embeddings";
const ASK: &str = r#"{"model":"chat","messages":[],"input":"x"}"#;

/// The heads that a server was sent.
type Heads = Arc<Mutex<Vec<String>>>;

/// A server that keeps the heads of its requests, and answers each path as `answer` says.
async fn keeping(answer: fn(&str) -> String) -> (SocketAddr, Heads) {
    let heads = Heads::default();
    let kept = Arc::clone(&heads);
    let address = server(move |_, mut peer| {
        let kept = Arc::clone(&kept);
        async move {
            while let Some((head, _)) = peer.request().await {
                let answer = answer(head.split(' ').nth(1).unwrap_or_default());
                kept.lock().unwrap().push(head);
                peer.send(answer).await;
            }
        }
    })
    .await;
    (address, heads)
}

fn not_found(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn count(heads: &Heads) -> usize {
    heads.lock().unwrap().len()
}

async fn status(bench: &Bench, path: &str) -> (u16, String) {
    let request = post_to(path, &bench.token().0, "application/json", ASK);
    let answer = bench.ask(request).await;
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let message = body["error"]["message"].as_str().unwrap_or_default();
    (answer.status, message.to_owned())
}

#[tokio::test]
async fn a_server_gets_its_own_paths_its_key_and_its_headers() {
    let (address, heads) = keeping(|_| OK.to_owned()).await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("upstream.key");
    std::fs::write(&key, "sk-1\n").unwrap();
    let lines = format!(
        "path_prefix = \"/v1beta/openai\"\napi_key_file = {key:?}\napi_key_header = \"x-goog-api-key\"\nheaders = {{ anthropic-version = \"2023-06-01\", x-team = \"a b\" }}"
    );
    let bench = Bench::with_upstreams(&[(address, &lines)], "").await;
    let token = bench.token().0;
    for (path, said) in [
        (CHAT, "POST /v1beta/openai/chat/completions HTTP/1.1"),
        (
            "/v1/chat/completions?a=b",
            "POST /v1beta/openai/chat/completions?a=b HTTP/1.1",
        ),
        ("/v1/pooling", "POST /pooling HTTP/1.1"),
    ] {
        let own = "Anthropic-Version: 1999-01-01\r\nX-Goog-Api-Key: stolen\r\nContent-Type";
        let request = post_to(path, &token, "application/json", ASK);
        let request = request.replacen("Content-Type", own, 1);
        assert_eq!(bench.ask(request).await.status, 200, "{path}");
        let head = heads.lock().unwrap().pop().unwrap();
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some(said));
        let told: Vec<_> = lines
            .filter(|line| {
                let families = ["anthropic-", "x-goog-", "x-team", "authorization"];
                families.iter().any(|name| line.starts_with(name))
            })
            .collect();
        let expected = [
            "x-goog-api-key: sk-1",
            "anthropic-version: 2023-06-01",
            "x-team: a b",
        ];
        assert_eq!(told, expected, "{head}");
    }
}

#[tokio::test]
async fn a_request_goes_to_a_server_that_serves_its_api_or_to_none() {
    let ((one, chats), (other, embeds)) = (
        keeping(|_| OK.to_owned()).await,
        keeping(|_| OK.to_owned()).await,
    );
    let servers = [
        (one, "apis = [\"chat\"]"),
        (other, "apis = [\"embeddings\"]"),
    ];
    let bench = Bench::with_upstreams(&servers, "").await;
    for _ in 0..4 {
        assert_eq!(status(&bench, CHAT).await.0, 200);
        assert_eq!(status(&bench, EMBEDDINGS).await.0, 200);
    }
    assert_eq!((count(&chats), count(&embeds)), (4, 4));
    let all = [chats, embeds].map(|heads| heads.lock().unwrap().join(""));
    assert!(
        !all[0].contains(EMBEDDINGS) && !all[1].contains(CHAT),
        "{all:?}"
    );
    let (status, message) = status(&bench, RESPONSES).await;
    assert_eq!(status, 404);
    let expected = "This model does not serve this endpoint. It is known to serve /v1/chat/completions, /v1/embeddings.";
    assert_eq!(message, expected);
}

#[tokio::test]
async fn a_missing_path_is_remembered_and_a_missing_model_is_not() {
    let (address, heads) = keeping(|path| match path {
        CHAT => OK.to_owned(),
        RESPONSES => not_found(r#"{"detail":"Not Found"}"#),
        _ => not_found(r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#),
    })
    .await;
    let bench = Bench::new(&[address], "").await;
    assert_eq!(status(&bench, CHAT).await.0, 200);
    // What the client may have brought about itself says nothing of the path.
    for _ in 0..2 {
        assert_eq!(status(&bench, "/v1/responses?x=y").await.0, 404);
    }
    assert_eq!(status(&bench, RESPONSES).await.0, 404);
    let before = count(&heads);
    let (status_, message) = status(&bench, RESPONSES).await;
    let expected =
        "This model does not serve this endpoint. It is known to serve /v1/chat/completions.";
    assert_eq!((status_, message.as_str()), (404, expected));
    assert_eq!(count(&heads), before, "it was asked again");
    for n in 1..=2 {
        let (status, message) = status(&bench, EMBEDDINGS).await;
        assert_eq!(
            (status, message.as_str()),
            (404, "The model `x` does not exist.")
        );
        assert_eq!(count(&heads), before + n);
    }
}

#[tokio::test]
async fn a_name_that_the_client_makes_up_teaches_nothing() {
    let (address, heads) = keeping(|_| not_found("404 page not found")).await;
    let bench = Bench::new(&[address], "models = [\"chat\", \"ch*\"]").await;
    for n in 1..=3 {
        assert_eq!(status(&bench, CHAT).await.0, 404);
        assert_eq!(count(&heads), n);
    }
}
