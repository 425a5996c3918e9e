//! What must not cost a request: upstreams that close idle connections, and routes
//! that change under load.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::bench::{Bench, LIMIT, OK, answering, server};

const CHAT: &str = r#"{"messages":"hi","model":"chat"}"#;

/// A server that closes a connection on which nothing came for `keep_alive`, as
/// uvicorn does, and counts those closings.
async fn closing(keep_alive: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&closed);
    let address = server(move |_, mut peer| {
        let closed = Arc::clone(&counter);
        async move {
            loop {
                match timeout(keep_alive, peer.request()).await {
                    Ok(Some(_)) => peer.send(OK).await,
                    Ok(None) => return,
                    Err(_) => {
                        closed.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            }
        }
    })
    .await;
    (address, closed)
}

/// Requests on connections of their own, each with idle gaps of `gap` give or take
/// `jitter`; returns the statuses that were not 200.
async fn spaced(bench: &Arc<Bench>, clients: usize, each: usize, gap: Duration) -> Vec<u16> {
    let bad = Arc::new(std::sync::Mutex::new(Vec::new()));
    let left = Arc::new(AtomicUsize::new(clients));
    for number in 0..clients {
        let (of_client, bad, left) = (Arc::clone(bench), Arc::clone(&bad), Arc::clone(&left));
        let post = bench.post(CHAT);
        bench.beside(async move {
            let mut client = of_client.connect().await;
            for turn in 0..each {
                client.send(&post).await;
                let status = client.answer().await.status;
                if status != 200 {
                    bad.lock().unwrap().push(status);
                }
                // Spread over the last and the first 2 % of the limit's neighbourhood.
                let spread = u32::try_from((number * 31 + turn * 17) % 41).unwrap();
                sleep(gap * (980 + spread) / 1_000).await;
            }
            left.fetch_sub(1, Ordering::SeqCst);
        });
    }
    while left.load(Ordering::SeqCst) > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let bad = bad.lock().unwrap();
    bad.clone()
}

/// The race is lost as often as it can be: the gateway is told a keep-alive far above
/// what the server does, and the gaps lie around that.
async fn race(clients: usize, each: usize, keep_alive: Duration) -> usize {
    let (address, closed) = closing(keep_alive).await;
    let lie = "keep_alive = \"1h\"";
    let bench = Arc::new(Bench::with_upstreams(&[(address, lie)], "").await);
    let bad = spaced(&bench, clients, each, keep_alive).await;
    assert_eq!(bad, [0_u16; 0], "of {} requests", clients * each);
    closed.load(Ordering::SeqCst)
}

#[tokio::test]
async fn an_upstream_that_closes_idle_connections_costs_no_request() {
    let closed = race(16, 60, Duration::from_millis(20)).await;
    assert!(closed > 50, "closed only {closed} times: no race was run");
}

/// By hand: `TIDEGATE_RACE=100000 cargo test --release -- --ignored race_at_length`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn race_at_length() {
    let asked = std::env::var("TIDEGATE_RACE").ok();
    let requests: usize = asked.and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let closed = race(200, requests / 200, Duration::from_millis(50)).await;
    println!("{requests} requests, {closed} connections closed by the server, none failed");
}

#[tokio::test]
async fn routes_that_change_under_load_cost_no_request_and_keep_what_was_counted() {
    let address = answering(OK).await;
    let dir = tempfile::tempdir().unwrap();
    let write = |round: usize| {
        for number in 0..100 {
            let mut text = format!(
                "# {round}\n[route]\nname = \"r{number}\"\npublic = true\nrequests_per_minute = {}\n",
                100_000 + round
            );
            write!(text, "[[upstream]]\nurl = \"http://{address}\"\n").unwrap();
            std::fs::write(dir.path().join(format!("r{number}.toml")), text).unwrap();
        }
    };
    write(0);
    let bench = Arc::new(Bench::new(&[address], "").await);
    bench.install(dir.path());
    let (done, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let served = Arc::new(AtomicUsize::new(0));
    for number in 0..8 {
        let (of_client, done) = (Arc::clone(&bench), Arc::clone(&done));
        let (failed, served) = (Arc::clone(&failed), Arc::clone(&served));
        let post = bench.post(&format!(r#"{{"messages":"hi","model":"r{number}"}}"#));
        bench.beside(async move {
            let mut client = of_client.connect().await;
            while !done.load(Ordering::SeqCst) {
                client.send(&post).await;
                let answer = client.answer().await;
                failed.fetch_add(usize::from(answer.status != 200), Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let remaining = |answer: &super::bench::Answer| -> usize {
        let header = answer.header("x-ratelimit-remaining-requests").unwrap();
        header.parse().unwrap()
    };
    let mine = bench.post(r#"{"messages":"hi","model":"r99"}"#);
    let first = remaining(&bench.ask(&mine).await);
    for round in 1..=10 {
        write(round);
        bench.install(dir.path());
        let seen = served.load(Ordering::SeqCst);
        let more = async {
            while served.load(Ordering::SeqCst) < seen + 10 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, more).await.unwrap();
    }
    let last = remaining(&bench.ask(&mine).await);
    done.store(true, Ordering::SeqCst);
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    // A limit of ten more, and one request less: what was used is not forgotten.
    assert!(last < first + 10, "{first} before, {last} after");
}
