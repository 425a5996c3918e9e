//! A route with several servers: who gets a request, who gets it next, and who is
//! left out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

use super::bench::{Bench, LIMIT, OK, answering, server};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
const LIMITED: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const CHAT: &str = r#"{"messages":[{"role":"user","content":"hi"}],"model":"chat"}"#;

/// A server that answers alike and counts the requests.
async fn counting(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let address = server(move |_, mut peer| {
        let counter = Arc::clone(&counter);
        async move {
            while peer.request().await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                peer.send(answer).await;
            }
        }
    })
    .await;
    (address, count)
}

/// An address that refuses connections.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn statuses(bench: &Bench, requests: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(bench.ask(bench.post(CHAT)).await.status);
    }
    statuses
}

#[tokio::test]
async fn who_cannot_be_reached_or_is_unavailable_costs_no_request() {
    let (busy, asked) = counting(BUSY).await;
    let servers = [nowhere().await, busy, answering(OK).await];
    let bench = Bench::new(&servers, "").await;
    assert_eq!(statuses(&bench, 60).await, [200; 60]);
    let asked = asked.load(Ordering::SeqCst);
    assert!(
        (1..=6).contains(&asked),
        "left out after five failures, asked {asked} times"
    );
}

#[tokio::test]
async fn what_is_said_of_the_request_or_of_the_load_is_passed_on() {
    for (answer, status) in [(LIMITED, 429), (BROKEN, 500)] {
        let (one, one_asked) = counting(answer).await;
        let (other, other_asked) = counting(answer).await;
        let bench = Bench::new(&[one, other], "[route.ejection]\nfailures = 0").await;
        assert_eq!(statuses(&bench, 10).await, [status; 10]);
        let asked = one_asked.load(Ordering::SeqCst) + other_asked.load(Ordering::SeqCst);
        assert_eq!(asked, 10, "each went to one server");
    }
}

#[tokio::test]
async fn a_budget_of_nothing_ends_the_retries_with_what_was_saved() {
    let (one, one_asked) = counting(BUSY).await;
    let (other, other_asked) = counting(BUSY).await;
    let extra = "[route.retries]\nbudget = 0.0\nservers_max = 1\n[route.ejection]\nfailures = 0";
    let bench = Bench::new(&[one, other], extra).await;
    assert_eq!(statuses(&bench, 50).await, [503; 50]);
    let asked = one_asked.load(Ordering::SeqCst) + other_asked.load(Ordering::SeqCst);
    assert_eq!(asked, 50 + 20);
}

#[tokio::test]
async fn a_break_before_the_answer_is_tried_elsewhere_only_where_the_route_says_so() {
    let breaking = || {
        server(|_, mut peer| async move {
            peer.request().await;
        })
    };
    let extra = "[route.load_balancing]\npolicy = \"round_robin\"";
    let bench = Bench::new(&[breaking().await, answering(OK).await], extra).await;
    let seen = statuses(&bench, 4).await;
    assert!(seen.contains(&502) && seen.contains(&200), "{seen:?}");
    let extra = "[route.load_balancing]\npolicy = \"round_robin\"\n\
        [route.retries]\non = [\"unreachable\", \"broken\"]";
    let bench = Bench::new(&[breaking().await, answering(OK).await], extra).await;
    assert_eq!(statuses(&bench, 10).await, [200; 10]);
}

#[tokio::test]
async fn the_last_server_is_asked_however_often_it_fails() {
    let (broken, asked) = counting(BROKEN).await;
    let extra = "[route.ejection]\nfailures = 1\ntime = \"1h\"\ntime_max = \"1h\"";
    let bench = Bench::new(&[broken], extra).await;
    assert_eq!(statuses(&bench, 10).await, [500; 10]);
    assert_eq!(asked.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_session_and_the_beginning_of_a_prompt_stay_with_one_server() {
    let mut counts = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..4 {
        let (address, count) = counting(OK).await;
        servers.push(address);
        counts.push(count);
    }
    // A request that is about to end must not push the next one off its server.
    let extra = "[route.load_balancing]\nsession_header = \"X-Session\"\nprefix = \"64B\"\n\
        load_factor = 100\nengine_figures = false";
    let bench = Bench::new(&servers, extra).await;
    let seen = || -> Vec<usize> { counts.iter().map(|c| c.load(Ordering::SeqCst)).collect() };
    for session in 0..8 {
        let before = seen();
        for turn in 0..5 {
            let head = format!("POST /v1/chat/completions HTTP/1.1\r\nx-session: s{session}\r\n");
            let body = format!(r#"{{"messages":"turn {turn}","model":"chat"}}"#);
            let post = bench.post(&body);
            let post = post.replacen("POST /v1/chat/completions HTTP/1.1\r\n", &head, 1);
            assert_eq!(bench.ask(post).await.status, 200);
        }
        let after = seen();
        let used = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!(used, 1, "session {session}: {before:?} to {after:?}");
    }
    let used = seen().iter().filter(|count| **count > 0).count();
    let views = bench.gateway.upstreams();
    assert!(used > 1, "{:?} of {views:?}", seen());
    let before = seen();
    for question in 0..10 {
        let system = "You are a helpful assistant for all that concerns the sea. ".repeat(2);
        let body = format!(r#"{{"messages":"{system} {question}","model":"chat"}}"#);
        assert_eq!(bench.ask(bench.post(&body)).await.status, 200);
    }
    let after = seen();
    let used = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!(used, 1, "{before:?} to {after:?}");
}

#[tokio::test]
async fn a_health_check_leaves_a_server_out_and_takes_it_in_again() {
    let well = Arc::new(AtomicBool::new(false));
    let (count, checked) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&well));
    let counter = Arc::clone(&count);
    let address = server(move |_, mut peer| {
        let (counter, well) = (Arc::clone(&counter), Arc::clone(&checked));
        async move {
            loop {
                let head = String::from_utf8(peer.until(b"\r\n\r\n").await).unwrap();
                if head.starts_with("GET /health ") {
                    let answer = if well.load(Ordering::SeqCst) {
                        OK
                    } else {
                        BUSY
                    };
                    peer.send(answer).await;
                } else if head.starts_with("POST ") {
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "));
                    let mut body = vec![0; length.unwrap().parse().unwrap()];
                    tokio::io::AsyncReadExt::read_exact(&mut peer.0, &mut body)
                        .await
                        .unwrap();
                    counter.fetch_add(1, Ordering::SeqCst);
                    peer.send(OK).await;
                } else {
                    return;
                }
            }
        }
    })
    .await;
    let (other, _) = counting(OK).await;
    let check =
        "health_check = { path = \"/health\", interval = \"100ms\", failures = 1, successes = 1 }";
    let bench = Bench::with_upstreams(&[(address, check), (other, "")], "").await;
    let standing = async |wanted: &str| {
        let found = async {
            loop {
                let views = bench.gateway.upstreams();
                let view = views
                    .iter()
                    .find(|view| view.address == address.to_string());
                if view.unwrap().state == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap();
    };
    standing("down").await;
    assert_eq!(statuses(&bench, 10).await, [200; 10]);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    well.store(true, Ordering::SeqCst);
    standing("in").await;
    assert_eq!(statuses(&bench, 20).await, [200; 20]);
    assert!(count.load(Ordering::SeqCst) > 0);
}
