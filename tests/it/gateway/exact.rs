//! Routes that want the usage of streams in every event, and clients that do not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::bench::{Bench, server};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// Chunks as vLLM 0.32 writes them with usage in each; without it where `usage` is empty.
fn chunks(usage: &str) -> String {
    let end = if usage.is_empty() { "" } else { "," };
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"finish_reason\":null}}]{end}{usage},\"prompt_token_ids\":null}}\n\n\
         data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"a\"}},\"finish_reason\":\"stop\"}}]{end}{usage}}}\n\n"
    )
}

const USAGE: &str = "\"usage\":{\"prompt_tokens\":6,\"total_tokens\":7,\"completion_tokens\":1}";
const LAST: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":6,\"total_tokens\":7,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A server that tells usage in every event; and the last body that it was sent.
async fn telling() -> (SocketAddr, Arc<Mutex<String>>) {
    let asked = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&asked);
    let address = server(move |_, mut peer| {
        let kept = Arc::clone(&kept);
        async move {
            if let Some((_, body)) = peer.request().await {
                *kept.lock().unwrap() = body;
                let stream = [&chunks(USAGE), LAST, DONE].concat();
                peer.send(format!("{HEAD}{stream}")).await;
            }
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn a_client_sees_the_usage_that_it_asked_for_and_no_other() {
    let (address, asked) = telling().await;
    let bench = Bench::new(&[address], "stream = { usage = \"exact\" }").await;
    let both = "\"include_usage\":true,\"continuous_usage_stats\":true";
    let cases = [
        (
            "",
            format!(",\"stream_options\":{{{both}}}"),
            [&chunks(""), DONE].concat(),
        ),
        (
            ",\"stream_options\":{\"include_usage\":true}",
            ",\"stream_options\":{\"continuous_usage_stats\":true,\"include_usage\":true}"
                .to_owned(),
            [&chunks(""), LAST, DONE].concat(),
        ),
        (
            &format!(",\"stream_options\":{{{both}}}"),
            format!(",\"stream_options\":{{{both}}}"),
            [&chunks(USAGE), LAST, DONE].concat(),
        ),
    ];
    for (options, sent, seen) in cases {
        let body = |options: &str| format!("{{\"model\":\"chat\",\"stream\":true{options}}}");
        let answer = bench.ask(bench.post(&body(options))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, seen, "{options}");
        let asked: serde_json::Value = serde_json::from_str(&asked.lock().unwrap()).unwrap();
        let sent: serde_json::Value = serde_json::from_str(&body(&sent)).unwrap();
        assert_eq!(asked, sent, "{options}");
    }
}

#[tokio::test]
async fn a_route_that_does_not_say_so_asks_for_the_end_alone() {
    let (address, asked) = telling().await;
    let bench = Bench::new(&[address], "").await;
    let body = "{\"model\":\"chat\",\"stream\":true}";
    let answer = bench.ask(bench.post(body)).await;
    // What a server tells of itself passes.
    assert_eq!(answer.body, [&chunks(USAGE), DONE].concat());
    let asked = asked.lock().unwrap();
    assert!(
        asked.contains("include_usage") && !asked.contains("continuous"),
        "{asked}"
    );
}
