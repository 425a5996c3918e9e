//! A place that a request held is free once its client has left, wherever it was.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::bench::{Bench, LIMIT, server};

const ASK: &str = r#"{"model":"chat","stream":true}"#;
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Point up to which the server goes with a request.
#[derive(Clone, Copy, Debug)]
enum Reach {
    Silence,
    Stream,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Asked,
    Closed,
}

async fn bench(reach: Reach) -> (Bench, UnboundedReceiver<Seen>) {
    let (tell, told) = unbounded_channel();
    let address = server(move |_, peer| serve(reach, peer, tell.clone())).await;
    (
        Bench::new(&[address], "max_concurrent_requests = 1").await,
        told,
    )
}

async fn serve(
    reach: Reach,
    mut peer: super::bench::Client<tokio::net::TcpStream>,
    tell: UnboundedSender<Seen>,
) {
    peer.request().await.unwrap();
    if matches!(reach, Reach::Stream) {
        peer.send(format!("{HEAD}a\r\ndata: {{}}\n\n\r\n")).await;
    }
    tell.send(Seen::Asked).unwrap();
    assert!(peer.is_closed().await);
    tell.send(Seen::Closed).unwrap();
}

async fn next(told: &mut UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(LIMIT, told.recv())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_full_route_refuses_and_is_free_when_the_client_leaves() {
    for reach in [Reach::Silence, Reach::Stream] {
        let (bench, mut told) = bench(reach).await;
        for _ in 0..3 {
            let mut client = bench.connect().await;
            client.send(bench.post(ASK)).await;
            assert_eq!(next(&mut told).await, Seen::Asked);
            let answer = bench.ask(bench.post(ASK)).await;
            assert_eq!(answer.status, 429, "{reach:?}");
            assert_eq!(answer.code(), "concurrency_limit_exceeded");
            assert!(answer.header("retry-after").is_some());
            drop(client);
            // The server sees it at once, and the next one is let in.
            assert_eq!(next(&mut told).await, Seen::Closed);
        }
    }
}

#[tokio::test]
async fn one_stream_of_many_is_given_up_without_its_connection() {
    for reach in [Reach::Silence, Reach::Stream] {
        let (bench, mut told) = bench(reach).await;
        let client = bench.connect_tls(&rustls::version::TLS13, &["h2"]).await;
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client.0))
                .await
                .unwrap();
        bench.beside(async { drop(driver.await) });
        for _ in 0..3 {
            let request = Request::post("https://localhost/v1/chat/completions")
                .header("authorization", format!("Bearer {}", bench.token().0))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(ASK)))
                .unwrap();
            let mut asking = Box::pin(sender.send_request(request));
            tokio::select! {
                response = &mut asking => {
                    let mut body = response.unwrap().into_body();
                    body.frame().await.unwrap().unwrap();
                    assert_eq!(next(&mut told).await, Seen::Asked);
                }
                seen = next(&mut told), if matches!(reach, Reach::Silence) => {
                    assert_eq!(seen, Seen::Asked);
                }
            }
            drop(asking);
            assert_eq!(next(&mut told).await, Seen::Closed);
        }
    }
}
