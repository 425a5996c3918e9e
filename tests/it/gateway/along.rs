//! A WebSocket whose name leads to a list: who opens it, and with whom a session stays.

use std::collections::BTreeSet;

use tidegate::websocket::accept;

use super::bench::OK;
use super::listed::{self, BUSY, GATEWAY, nowhere};
use super::realtime::{NO_ROUTE, UPDATE, answering, open, opened, opening, vllm};

#[tokio::test]
async fn a_list_is_gone_along_until_one_opens_it() {
    for (answer, when, expected) in [
        (None, "", Ok("unreachable")),
        (Some(BUSY), "", Ok("503")),
        (Some(GATEWAY), "", Ok("502")),
        // Whatever the file says, it can't.
        (Some(NO_ROUTE), "when = []", Ok("no_such_api")),
        (None, "when = [\"503\"]", Err((503, "no_healthy_backend"))),
        (Some(BUSY), "when = []", Err((502, "upstream_error"))),
        (Some(OK), "", Err((502, "upstream_error"))),
    ] {
        let first = match answer {
            Some(answer) => answering(answer).await,
            None => nowhere().await,
        };
        let (second, mut heard) = vllm(accept).await;
        let bench = listed::bench(&[first, second], "max_concurrent_requests = 1", &[when]).await;
        match expected {
            Ok(why) => {
                let (mut client, answered) = opened(&bench, "/v1/realtime?model=chat").await;
                let told = format!("x-tidegate-served-by: s1, s0;why={why}\r\n");
                assert!(answered.contains(&told), "{why}: {answered}");
                assert!(client.hear().await.contains("theirs"));
                drop(client);
                // It held one place of the route, which is free again.
                heard.recv().await.unwrap();
                assert_eq!(heard.recv().await.unwrap(), "gone");
                let mut client = open(&bench, "/v1/realtime").await;
                client.hear().await;
                client.say(UPDATE).await;
                heard.recv().await.unwrap();
                assert_eq!(heard.recv().await.unwrap(), UPDATE, "{why}");
            }
            Err((status, code)) => {
                let answer = bench.ask(opening(&bench, "/v1/realtime?model=chat")).await;
                assert_eq!((answer.status, answer.code().as_str()), (status, code));
                assert!(
                    heard.try_recv().is_err(),
                    "the second was asked: {answer:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_last_of_a_list_says_why_it_does_not_open_it() {
    for (answer, status, code) in [
        (Some(NO_ROUTE), 404, "unsupported_endpoint"),
        (Some(BUSY), 502, "upstream_error"),
        (None, 503, "no_healthy_backend"),
    ] {
        let last = match answer {
            Some(answer) => answering(answer).await,
            None => nowhere().await,
        };
        let bench = listed::bench(&[nowhere().await, last], "", &[]).await;
        let answer = bench.ask(opening(&bench, "/v1/realtime?model=chat")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
}

#[tokio::test]
async fn a_session_stays_with_its_target() {
    let servers = [vllm(accept).await, vllm(accept).await, vllm(accept).await];
    let addresses = servers.each_ref().map(|(address, _)| *address);
    let rules = "[route.load_balancing]\nsession_header = \"x-session\"\n\
                 [route.targets]\nprefer = \"weight\"\nsticky = \"session\"";
    let bench = listed::bench(&addresses, rules, &[]).await;
    let mut seen = BTreeSet::new();
    for session in 0..24 {
        let mut by = BTreeSet::new();
        for _ in 0..3 {
            let request = opening(&bench, "/v1/realtime?model=chat");
            let request = request.replacen(
                "Host: x\r\n",
                &format!("Host: x\r\nX-Session: {session}\r\n"),
                1,
            );
            let mut client = bench.connect().await;
            client.send(request).await;
            let head = String::from_utf8(client.until(b"\r\n\r\n").await).unwrap();
            let head = head.to_ascii_lowercase();
            let served = head
                .lines()
                .find_map(|line| line.strip_prefix("x-tidegate-served-by: "));
            by.insert(served.unwrap().split(',').next().unwrap().to_owned());
        }
        assert_eq!(by.len(), 1, "session {session}: {by:?}");
        seen.extend(by);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}
