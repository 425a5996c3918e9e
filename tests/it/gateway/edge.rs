//! Surroundings of the gateway: proxies, browsers, host names; and what the
//! server hears of it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::version::TLS13;
use tidegate::config::Settings;
use tidegate::config::edge::{Origin, Origins};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bench::{Answer, Bench, OK, answering, server};

const ASK: &str = r#"{"model":"chat","messages":[]}"#;

/// A server that tells what it was sent: head in lower case, and body.
async fn telling() -> (std::net::SocketAddr, UnboundedReceiver<(String, String)>) {
    let (sent, told) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let sent = sent.clone();
        async move {
            while let Some((head, body)) = peer.request().await {
                sent.send((head.to_ascii_lowercase(), body)).unwrap();
                peer.send(OK).await;
            }
        }
    })
    .await;
    (address, told)
}

fn trusting_loopback() -> Settings {
    let mut settings = Settings::default();
    settings.gateway.proxies.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    settings
}

fn line<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_no_one_else_does() {
    for (settings, chain, proto) in [
        (trusting_loopback(), "2.2.2.2, 127.0.0.1", "https"),
        (Settings::default(), "127.0.0.1", "http"),
    ] {
        let (address, mut told) = telling().await;
        let bench = Bench::with(&[address], "", settings).await;
        let request = bench.post(ASK).replace(
            "Host: x",
            "Host: x\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\nForwarded: for=3.3.3.3",
        );
        assert_eq!(bench.ask(request).await.status, 200);
        let (head, _) = told.recv().await.unwrap();
        assert_eq!(line(&head, "x-forwarded-for"), Some(chain));
        assert_eq!(line(&head, "x-forwarded-proto"), Some(proto));
        assert_eq!(line(&head, "x-forwarded-host"), Some("x"));
        assert_eq!(line(&head, "forwarded"), None);
    }
}

#[tokio::test]
async fn a_proxy_header_is_taken_from_trusted_peers_only() {
    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x01\x02\x03\x04";
    let (address, mut told) = telling().await;
    let mut settings = trusting_loopback();
    settings.gateway.proxies.protocol = vec!["127.0.0.1:1".parse().unwrap()];
    let bench = Bench::with(&[address], "", settings.clone()).await;
    let request = [V2, bench.post(ASK).as_bytes()].concat();
    assert_eq!(bench.ask(&request).await.status, 200);
    let (head, _) = told.recv().await.unwrap();
    assert_eq!(line(&head, "x-forwarded-for"), Some("192.0.2.7"));
    // Without the header there is nothing, not even an answer.
    let mut client = bench.connect().await;
    client.send(bench.post(ASK)).await;
    assert!(client.is_closed().await);
    // And none of it from a peer that is not trusted.
    settings.gateway.proxies.trusted = vec!["10.0.0.0/8".parse().unwrap()];
    let bench = Bench::with(&[address], "", settings).await;
    let mut client = bench.connect().await;
    client.send(&request).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn the_trace_of_the_client_goes_on_and_else_one_is_made() {
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (address, mut told) = telling().await;
    let bench = Bench::new(&[address], "").await;
    let request = bench.post(ASK);
    let given = request.replace("Host: x", &format!("Host: x\r\nTraceparent: {GIVEN}"));
    bench.ask(given).await;
    let (head, _) = told.recv().await.unwrap();
    assert_eq!(line(&head, "traceparent"), Some(GIVEN));
    bench.ask(request).await;
    let (head, _) = told.recv().await.unwrap();
    let made = line(&head, "traceparent").unwrap();
    assert!(made.len() == GIVEN.len() && made != GIVEN, "{made}");
}

#[tokio::test]
async fn a_packed_body_is_read_and_passed_on_unpacked() {
    let (address, mut told) = telling().await;
    let bench = Bench::new(&[address], "").await;
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(ASK.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let head = bench.post("").replace(
        "Content-Length: 0",
        &format!("Content-Encoding: gzip\r\nContent-Length: {}", packed.len()),
    );
    assert_eq!(
        bench.ask([head.as_bytes(), &packed].concat()).await.status,
        200
    );
    let (head, body) = told.recv().await.unwrap();
    assert_eq!(
        (line(&head, "content-encoding"), body.as_str()),
        (None, ASK)
    );
}

#[tokio::test]
async fn who_expects_a_go_ahead_is_refused_before_the_body_or_told_to_go_on() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let request = bench
        .post(ASK)
        .replace("Host: x", "Host: x\r\nExpect: 100-continue");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut client = bench.connect().await;
    client.send(format!("{head}\r\n\r\n")).await;
    assert_eq!(client.answer().await.status, 100);
    client.send(body).await;
    assert_eq!(client.answer().await.status, 200);
    let token = bench.token().0;
    let stranger = head.replace("Bearer ", "Bearer x");
    let large = head.replace("Content-Length: ", "Content-Length: 9999999");
    let other = head.replace("application/json", "text/plain");
    for (head, status) in [(stranger, 401), (large, 413), (other, 400)] {
        let mut client = bench.connect().await;
        client.send(format!("{head}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{head} {token}");
        // What is not read is not taken for another request.
        assert!(client.is_closed().await, "{head}");
    }
}

/// The answer to the question of a browser.
async fn preflight(bench: &Bench, origin: &str, asked: &str) -> Answer {
    bench
        .ask(format!(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {asked}\r\n\r\n"
        ))
        .await
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_others_may_not() {
    const PAGE: &str = "https://chat.example";
    const SENT: &str = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,x-evil";
    const OPEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
        Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\r\n{}";
    let mut settings = Settings::default();
    settings.cors.origins = Origins::These(vec![Origin(PAGE.to_owned())]);
    settings.cors.headers = vec!["x-mine".to_owned()];
    let bench = Bench::with(&[answering(OPEN).await], "", settings.clone()).await;
    let answer = preflight(&bench, PAGE, &format!("{SENT}, X-Mine")).await;
    assert_eq!(answer.status, 204, "{}", answer.head);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    let allowed = "authorization, content-type, x-stainless-lang, x-stainless-retry-count, x-mine";
    assert_eq!(answer.header("access-control-allow-headers"), Some(allowed));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let answer = preflight(&bench, "https://evil.example", SENT).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "origin_not_allowed")
    );
    for (origin, allowed) in [(PAGE, Some(PAGE)), ("https://evil.example", None)] {
        let request = bench
            .post(ASK)
            .replace("Host: x", &format!("Host: x\r\nOrigin: {origin}"));
        let answer = bench.ask(request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    // Errors can be read by the page too.
    let request = bench
        .post("{")
        .replace("Host: x", &format!("Host: x\r\nOrigin: {PAGE}"));
    let answer = bench.ask(request).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert!(
        answer
            .header("access-control-expose-headers")
            .unwrap()
            .contains("x-request-id")
    );
    // Off: a preflight is a method like any other.
    let bench = Bench::new(&[answering(OK).await], "").await;
    assert_eq!(preflight(&bench, PAGE, SENT).await.status, 405);
    settings.cors.origins = Origins::Any;
    let bench = Bench::with(&[answering(OK).await], "", settings).await;
    let answer = preflight(&bench, PAGE, SENT).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_host_name_is_all_for_its_route_and_tls_must_name_it_too() {
    let bench = Bench::new(
        &[answering(OK).await],
        "host = \"localhost\"\nmodels = [\"chat\", \"b\"]",
    )
    .await;
    // On its own name no model is needed, and no other path exists.
    for (host, path, body, status) in [
        ("localhost", "/v1/chat/completions", "{}", 200),
        ("LocalHost:8443", "/v1/chat/completions/", "{}", 200),
        ("localhost", "/chat/v1/chat/completions", ASK, 404),
        ("localhost", "/hidden/v1/chat/completions", ASK, 404),
        ("other", "/v1/chat/completions", "{}", 400),
        ("other", "/v1/chat/completions", ASK, 200),
        ("other", "/chat/v1/chat/completions", "{}", 200),
    ] {
        let request = bench
            .post(body)
            .replace("Host: x", &format!("Host: {host}"));
        let answer = bench
            .ask(request.replace("/v1/chat/completions", path))
            .await;
        assert_eq!(answer.status, status, "{host}{path} {body}: {answer:?}");
    }
    // The connection is opened to localhost.
    for (host, status) in [("localhost", 200), ("other", 421)] {
        let mut client = bench.connect_tls(&TLS13, &["http/1.1"]).await;
        client
            .send(bench.post(ASK).replace("Host: x", &format!("Host: {host}")))
            .await;
        assert_eq!(client.answer().await.status, status, "{host}");
    }
}
