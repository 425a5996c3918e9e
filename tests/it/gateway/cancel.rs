//! Clients that leave at any moment, by any way: nothing of theirs stays behind.
//!
//! `TIDEGATE_SEED` and `TIDEGATE_ABORTS` repeat a run and make it longer. A million
//! random aborts were run (release build, seed 11): no place was left taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bench::{Bench, Client, LIMIT, server};

const ASK: &str = r#"{"model":"chat","stream":true}"#;
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &str = "a\r\ndata: {}\n\n\r\n";
const PLACES: u64 = 8;
/// Connections to the server that may be kept: no more than were ever at work.
const OPEN_MAX: i64 = 16;

/// Numbers that a seed determines.
struct Dice(tidegate::random::Dice);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(tidegate::random::Dice::new(seed))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0.number() % sides
    }

    /// Lets others run for a while.
    async fn pause(&mut self) {
        for _ in 0..self.roll(60) {
            tokio::task::yield_now().await;
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    text.parse().unwrap_or(default)
}

/// A server that is slow at every step, and how many connections it has.
async fn slow_server(seed: u64) -> (SocketAddr, Arc<AtomicI64>) {
    let open = Arc::new(AtomicI64::new(0));
    let counted = Arc::clone(&open);
    let address = server(move |number, mut peer| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::AcqRel);
            let mut dice = Dice::new(seed ^ number as u64);
            while peer.request().await.is_some() {
                dice.pause().await;
                let mut written = peer.0.write_all(HEAD.as_bytes()).await;
                for _ in 0..dice.roll(20) {
                    dice.pause().await;
                    written = written.and(peer.0.write_all(EVENT.as_bytes()).await);
                }
                if written.and(peer.0.write_all(b"0\r\n\r\n").await).is_err() {
                    break;
                }
            }
            counted.fetch_sub(1, Ordering::AcqRel);
        }
    })
    .await;
    (address, open)
}

/// One request over HTTP/1.1 that is given up somewhere.
async fn abort_http1(bench: &Bench, dice: &mut Dice) {
    let mut client = bench.connect().await;
    let request = bench.post(ASK).into_bytes();
    let part = match dice.roll(4) {
        0 => usize::try_from(dice.roll(request.len() as u64)).unwrap(),
        _ => request.len(),
    };
    client.send(&request[..part]).await;
    dice.pause().await;
    if part == request.len() {
        // Some of the answer, or as much as comes at once.
        for _ in 0..dice.roll(3) {
            let mut piece = [0; 256];
            let read = client.0.read(&mut piece);
            tokio::select! {
                read = read => drop(read),
                () = dice.pause() => {}
            }
        }
    }
    if dice.roll(2) == 0 {
        // A reset instead of an orderly end.
        let socket = client.0.into_std().unwrap();
        let linger = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        linger.unwrap();
    }
}

/// One request on a connection of HTTP/2 that others share.
async fn abort_http2(bench: &Bench, sender: &SendRequest<Full<Bytes>>, dice: &mut Dice) {
    let mut asking = Box::pin(sender.clone().send_request(request(bench)));
    tokio::select! {
        response = &mut asking => {
            if let Ok(response) = response {
                let mut body = response.into_body();
                for _ in 0..dice.roll(3) {
                    tokio::select! {
                        frame = body.frame() => drop(frame),
                        () = dice.pause() => {}
                    }
                }
            }
        }
        () = dice.pause() => {}
    }
}

fn request(bench: &Bench) -> Request<Full<Bytes>> {
    Request::post("https://localhost/v1/chat/completions")
        .header("authorization", format!("Bearer {}", bench.token().0))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(ASK)))
        .unwrap()
}

async fn http2(bench: &Bench) -> SendRequest<Full<Bytes>> {
    let client = bench.connect_tls(&rustls::version::TLS13, &["h2"]).await;
    let (sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client.0))
            .await
            .unwrap();
    bench.beside(async { drop(driver.await) });
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_aborts_leave_no_place_taken_and_no_connection_open() {
    let seed = setting("TIDEGATE_SEED", 7);
    let left = Arc::new(AtomicI64::new(
        i64::try_from(setting("TIDEGATE_ABORTS", 1_000)).unwrap(),
    ));
    let (address, open) = slow_server(seed).await;
    let limits = format!("max_concurrent_requests = {PLACES}\nqueue_requests_max = 16");
    let bench = Arc::new(Bench::new(&[address], &limits).await);
    let clients = (0..24).map(|number| {
        let (bench, left) = (Arc::clone(&bench), Arc::clone(&left));
        async move {
            let mut dice = Dice::new(seed.wrapping_mul(1_000).wrapping_add(number));
            let shared = http2(&bench).await;
            while left.fetch_sub(1, Ordering::AcqRel) > 0 {
                if dice.roll(2) == 0 {
                    abort_http1(&bench, &mut dice).await;
                } else {
                    abort_http2(&bench, &shared, &mut dice).await;
                }
            }
        }
    });
    let done = Arc::new((AtomicU64::new(0), Notify::new()));
    for client in clients {
        let done = Arc::clone(&done);
        bench.beside(async move {
            client.await;
            done.0.fetch_add(1, Ordering::AcqRel);
            done.1.notify_one();
        });
    }
    while done.0.load(Ordering::Acquire) < 24 {
        done.1.notified().await;
    }
    // Whatever was given up is over: as many as there are places are let in at
    // once, and what the server still has is kept for the next ones.
    let all_in = async {
        loop {
            let mut held = Vec::new();
            for _ in 0..PLACES {
                let mut client = bench.connect().await;
                client.send(bench.post(ASK)).await;
                let opened = client.until(b"\r\n").await;
                held.push((opened.starts_with(b"HTTP/1.1 200"), client));
            }
            if held.iter().all(|(is_in, _)| *is_in) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, all_in).await.unwrap();
    let closed = async {
        while open.load(Ordering::Acquire) > OPEN_MAX {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
}

/// Durations, in order.
#[expect(clippy::print_stderr, reason = "a measurement is read by a person")]
fn print(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    eprintln!(
        "{name}: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine: cargo test --release --test it measure_from -- --ignored --nocapture"]
async fn measure_from_the_end_of_a_client_to_the_end_of_its_server() {
    let rounds = setting("TIDEGATE_ABORTS", 300);
    for streams in [false, true] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let address = server(move |_, mut peer| {
            let tell = tell.clone();
            async move {
                peer.request().await.unwrap();
                if streams {
                    peer.send(format!("{HEAD}{EVENT}")).await;
                }
                tell.send(Instant::now()).unwrap();
                assert!(peer.is_closed().await);
                tell.send(Instant::now()).unwrap();
            }
        })
        .await;
        let bench = Bench::new(&[address], "").await;
        let sender = http2(&bench).await;
        for over in ["HTTP/1.1 FIN", "HTTP/1.1 RST", "HTTP/2"] {
            let mut took = Vec::new();
            for _ in 0..rounds {
                let gone;
                if over == "HTTP/2" {
                    let mut asking = Box::pin(sender.clone().send_request(request(&bench)));
                    if streams {
                        let mut body = asking.as_mut().await.unwrap().into_body();
                        body.frame().await.unwrap().unwrap();
                        told.recv().await.unwrap();
                        gone = Instant::now();
                        drop(body);
                    } else {
                        tokio::select! {
                            _ = asking.as_mut() => unreachable!(),
                            seen = told.recv() => assert!(seen.is_some()),
                        }
                        gone = Instant::now();
                    }
                    drop(asking);
                } else {
                    let mut client = bench.connect().await;
                    client.send(bench.post(ASK)).await;
                    told.recv().await.unwrap();
                    if streams {
                        client.until(b"data: {}\n\n").await;
                    }
                    let socket = client.0.into_std().unwrap();
                    if over.ends_with("RST") {
                        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))
                            .unwrap();
                    }
                    gone = Instant::now();
                    drop(socket);
                }
                took.push(told.recv().await.unwrap().saturating_duration_since(gone));
            }
            let phase = if streams {
                "mid-stream"
            } else {
                "waiting for the head"
            };
            print(&format!("{phase}, {over}"), took);
        }
    }
    measure_places("queued", rounds).await;
    measure_places("connecting", rounds).await;
}

/// From the end of a client that has no server yet until its place is free.
async fn measure_places(phase: &str, rounds: u64) {
    let silent = server(|_, mut peer| async move {
        peer.request().await;
        peer.is_closed().await;
    })
    .await;
    // Its queue of connections is full: whoever connects waits.
    let deaf = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&deaf, &any).unwrap();
    rustix::net::listen(&deaf, 0).unwrap();
    let deaf_address = SocketAddr::try_from(rustix::net::getsockname(&deaf).unwrap()).unwrap();
    let mut filling = Vec::new();
    for _ in 0..4 {
        let limit = Duration::from_millis(200);
        filling.push(tokio::time::timeout(limit, TcpStream::connect(deaf_address)).await);
    }
    let bench = if phase == "queued" {
        Bench::new(
            &[silent],
            "max_concurrent_requests = 1\nqueue_requests_max = 1",
        )
        .await
    } else {
        let extra = "max_concurrent_requests = 1\n[route.timeouts]\nconnect = \"60s\"";
        Bench::new(&[deaf_address], extra).await
    };
    let mut held = Vec::new();
    if phase == "queued" {
        held.push(let_in(&bench).await);
    }
    let mut waiting = let_in(&bench).await;
    let mut took = Vec::new();
    for _ in 0..rounds {
        let gone = Instant::now();
        drop(waiting);
        let asked;
        (asked, waiting) = loop {
            let asked = Instant::now();
            if let Some(client) = ask(&bench).await {
                break (asked, client);
            }
        };
        took.push(asked.saturating_duration_since(gone));
    }
    print(phase, took);
}

/// A client that was let in, sooner or later.
async fn let_in(bench: &Bench) -> Client<TcpStream> {
    loop {
        if let Some(client) = ask(bench).await {
            return client;
        }
    }
}

/// A client that was not refused at once.
async fn ask(bench: &Bench) -> Option<Client<TcpStream>> {
    let mut client = bench.connect().await;
    client.send(bench.post(ASK)).await;
    let answer = tokio::time::timeout(Duration::from_millis(30), client.until(b"\r\n")).await;
    answer.is_err().then_some(client)
}
