//! Clients that come in, and what they bring: TLS, tokens, models, bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::{TLS12, TLS13};
use tidegate::auth::{Issuer, SigningKey};
use tidegate::config::Settings;
use tidegate::time::unix_time;

use super::bench::{Bench, OK, answering, post_to, spec};

const ASK: &str = r#"{"model":"chat","messages":[]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    for version in [&TLS12, &TLS13] {
        for offered in [&[][..], &["http/1.1"]] {
            let mut client = bench.connect_tls(version, offered).await;
            client.send(bench.post(ASK)).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200, "{}", answer.head);
            assert_eq!(answer.body, r#"{"hello": "world"}"#);
        }
        let client = bench.connect_tls(version, &["h2", "http/1.1"]).await;
        assert_eq!(client.0.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(client.0))
            .await
            .unwrap();
        bench.beside(async { driver.await.unwrap() });
        let request = Request::post("https://localhost/v1/chat/completions")
            .header("authorization", format!("Bearer {}", bench.token().0))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(ASK)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), r#"{"hello": "world"}"#);
        assert!(body.is_end_stream(), "the last frame says that it is");
    }
}

#[tokio::test]
async fn head_is_answered_as_get_is_without_its_body() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let client = bench.connect_tls(&TLS13, &["h2"]).await;
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(client.0))
        .await
        .unwrap();
    bench.beside(async { driver.await.unwrap() });
    let token = bench.token().0;
    for (path, token, status) in [
        ("/v1/models", token.as_str(), 200),
        ("/v1/models/chat", token.as_str(), 200),
        ("//v1/models", token.as_str(), 200),
        ("/health", "", 200),
        ("/v1/models", "", 401),
        ("/v1/unknown", token.as_str(), 404),
    ] {
        let mut lengths = Vec::new();
        for method in ["GET", "HEAD"] {
            let request = Request::builder()
                .method(method)
                .uri(format!("https://localhost{path}"))
                .header("authorization", format!("Bearer {token}"))
                .body(Full::<Bytes>::default())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), status, "{method} {path}");
            lengths.push(response.headers().get("content-length").cloned());
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.is_empty(), method == "HEAD", "{method} {path}");
        }
        assert_eq!(lengths.first(), lengths.last(), "{path}");
    }
}

#[tokio::test]
async fn only_a_valid_token_of_ours_comes_in() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let stranger = Issuer::new(SigningKey::ephemeral().unwrap(), "tidegate", "tidegate");
    let foreign = stranger.issue(spec(), unix_time()).unwrap().0;
    let (elsewhere, old) = (bench.token_of_elsewhere(), bench.expired());
    for (token, code) in [
        ("", "invalid_api_key"),
        ("garbage", "invalid_api_key"),
        ("a.b.c", "invalid_api_key"),
        (foreign.as_str(), "invalid_api_key"),
        (elsewhere.as_str(), "invalid_api_key"),
        (old.as_str(), "token_expired"),
    ] {
        let request = post_to("/v1/chat/completions", token, "application/json", ASK);
        let answer = bench.ask(request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, code),
            "{token}"
        );
        assert!(
            answer.header("www-authenticate").is_some(),
            "{}",
            answer.head
        );
    }
    let none = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(bench.ask(none).await.status, 401);
}

#[tokio::test]
async fn a_revoked_token_is_refused_on_the_very_next_request_of_its_connection() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let (token, id) = bench.token();
    let request = post_to("/v1/chat/completions", &token, "application/json", ASK);
    let mut client = bench.connect().await;
    for _ in 0..2 {
        client.send(&request).await;
        assert_eq!(client.answer().await.status, 200);
    }
    bench.revocations.add(&id);
    client.send(&request).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (401, "token_revoked")
    );
}

#[tokio::test]
async fn an_unknown_model_and_a_forbidden_one_are_answered_alike() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let limited = bench.token_for("elsewhere");
    let free = bench.token().0;
    let mut answers = Vec::new();
    // Forbidden by its project, by the token's endpoints; and not there at all.
    for (token, model) in [(&free, "hidden"), (&limited, "chat"), (&free, "nobody")] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        let request = post_to("/v1/chat/completions", token, "application/json", &body);
        let request = request.replace("Host: x", "Host: x\r\nX-Request-Id: same");
        let mut answer = bench.ask(request).await;
        assert_eq!(answer.code(), "model_not_found");
        assert_eq!(answer.status, 404);
        answer.body = answer.body.replace(model, "NAME");
        let plain =
            |line: &&str| !line.starts_with("date:") && !line.starts_with("content-length:");
        answer.head = answer.head.lines().filter(plain).collect();
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

#[tokio::test]
async fn a_body_that_is_not_a_plain_request_is_refused_in_words() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let deep = format!(
        r#"{{"model":"chat","a":{}{}}}"#,
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    for (body, code) in [
        (r#"{"messages":[]}"#, "model_required"),
        (r#"{"model":""}"#, "model_required"),
        (r#"{"model":"chat""#, "invalid_json"),
        (r#"{"model":"chat"} x"#, "invalid_json"),
        ("", "invalid_json"),
        ("[]", "invalid_json"),
        (deep.as_str(), "invalid_json"),
        (r#"{"model":"chat","model":"chat"}"#, "duplicate_key"),
        (r#"{"model":"chat","mo\u0064el":"hidden"}"#, "duplicate_key"),
        (r#"{"model":1}"#, "invalid_model"),
        (r#"{"model":null}"#, "invalid_model"),
        (r#"{"model":"\ud800"}"#, "invalid_model"),
    ] {
        let answer = bench.ask(bench.post(body)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{body:.60}"
        );
    }
    // An escaped key is the same key.
    let answer = bench.ask(bench.post(r#"{"mo\u0064el":"ch\u0061t"}"#)).await;
    assert_eq!(answer.status, 200);
    for media in ["text/plain", "multipart/form-data; boundary=x"] {
        let request = post_to("/v1/chat/completions", &bench.token().0, media, ASK);
        assert_eq!(bench.ask(request).await.code(), "unsupported_content_type");
    }
    let packed = bench
        .post(ASK)
        .replace("Host: x", "Host: x\r\nContent-Encoding: br");
    let answer = bench.ask(packed).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (415, "unsupported_content_encoding")
    );
    assert_eq!(
        answer.header("accept-encoding"),
        Some("gzip, zstd, deflate")
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent_or_while_it_comes() {
    let mut settings = Settings::default();
    settings.gateway.request_body_max = 1024;
    let bench = Bench::with(&[answering(OK).await], "", settings).await;
    let request = bench.post("");
    let declared = request.replace("Content-Length: 0", "Content-Length: 1025");
    // Not one byte of the body is sent.
    let answer = bench.ask(declared).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "request_too_large")
    );
    let chunked = request.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let pieces = format!("200\r\n{0}\r\n200\r\n{0}\r\n1\r\n \r\n", " ".repeat(512));
    let answer = bench.ask(chunked + &pieces).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "request_too_large")
    );
}

/// A body of spaces in pieces, which counts what was taken of it.
struct Spaces {
    left: usize,
    taken: Arc<AtomicUsize>,
}

impl Body for Spaces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: &[u8] = &[b' '; 4096];
        let this = self.get_mut();
        let length = PIECE.len().min(this.left);
        this.left -= length;
        this.taken.fetch_add(length, Ordering::SeqCst);
        let frame = (length > 0).then(|| Ok(Frame::data(Bytes::from_static(&PIECE[..length]))));
        Poll::Ready(frame)
    }
}

/// More than may be sent before the server has read any of it.
const LARGE: usize = 2 << 20;

/// An answer before the end of a request of HTTP/2 is followed by a reset, and some
/// clients would then show that instead of the answer.
#[tokio::test]
async fn a_refusal_over_http_2_comes_once_the_body_was_read() {
    let mut settings = Settings::default();
    settings.gateway.request_body_max = 1024;
    let bench = Bench::with(&[answering(OK).await], "", settings).await;
    let client = bench.connect_tls(&TLS13, &["h2"]).await;
    let (mut sender, driver) =
        http2::handshake::<_, _, Spaces>(TokioExecutor::new(), TokioIo::new(client.0))
            .await
            .unwrap();
    bench.beside(async { drop(driver.await) });
    for (token, status) in [(bench.token().0, 413), ("bad".to_owned(), 401)] {
        let taken = Arc::new(AtomicUsize::new(0));
        let body = Spaces {
            left: LARGE,
            taken: Arc::clone(&taken),
        };
        let request = Request::post("https://localhost/v1/chat/completions")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(taken.load(Ordering::SeqCst), LARGE, "{status}");
    }
}

/// A small body is read off, whatever became of its request.
#[tokio::test]
async fn who_is_refused_with_a_small_request_keeps_the_connection() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let mut client = bench.connect().await;
    for _ in 0..3 {
        let bad = post_to("/v1/chat/completions", "bad", "application/json", ASK);
        client.send(bad).await;
        assert_eq!(client.answer().await.status, 401);
        client.send(bench.post(ASK)).await;
        assert_eq!(client.answer().await.status, 200);
    }
}

/// To close a socket with bytes in it is to reset it, and a reset overtakes the answer.
#[tokio::test]
async fn a_refusal_over_http_1_reaches_who_still_sends() {
    let mut settings = Settings::default();
    settings.gateway.request_body_max = 1024;
    let bench = Bench::with(&[answering(OK).await], "", settings).await;
    let large = " ".repeat(4 * LARGE);
    for (request, status) in [
        (bench.post(&large), 413),
        (
            post_to("/v1/chat/completions", "bad", "application/json", &large),
            401,
        ),
    ] {
        let mut client = bench.connect().await;
        client.send(&request).await;
        assert_eq!(client.answer().await.status, status);
        assert!(client.is_closed().await);
        let mut client = bench.connect_tls(&TLS13, &["http/1.1"]).await;
        client.send(&request).await;
        assert_eq!(client.answer().await.status, status);
        assert!(client.is_closed().await);
    }
}
