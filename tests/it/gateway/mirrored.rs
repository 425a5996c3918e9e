//! Copies of requests for a mirror: who gets them, and that nobody else notices.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::bench::{Answer, Bench, LIMIT, OK, answering, server};
use super::dead::{deploy_file, serves};

const CHAT: &str = r#"{"messages":[],"model":"chat"}"#;

/// The bodies of the requests that a server got.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server that answers, and remembers what it was asked.
async fn remembering() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let all = Arc::clone(&seen);
    let address = server(move |_, mut peer| {
        let all = Arc::clone(&all);
        async move {
            while let Some((_, body)) = peer.request().await {
                all.lock().unwrap().push(body);
                peer.send(OK).await;
            }
        }
    })
    .await;
    (address, seen)
}

/// A bench whose name `chat` leads to `first`, with copies to `far`.
async fn bench(first: SocketAddr, far: SocketAddr, share: &str) -> Bench {
    let bench = Bench::new(&[first], "").await;
    let text = format!(
        "[route]\nname = \"chat\"\npublic = true\n[route.targets]\nmirror = {{ to = \"far\", share = {share} }}\n\
         [[upstream]]\nname = \"near\"\nurl = \"http://{first}\"\n[[target]]\nto = \"near\"\n\
         [[upstream]]\nname = \"far\"\nurl = \"http://{far}\"\nmodel = \"candidate\"\n"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chat.toml"), text).unwrap();
    bench.install(dir.path());
    bench
}

async fn ask(bench: &Bench) -> Answer {
    bench.ask(bench.post(CHAT)).await
}

/// Waits for as many bodies.
async fn reaches(seen: &Seen, count: usize) {
    let reached = async {
        while seen.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, reached).await.unwrap();
}

#[tokio::test]
async fn a_mirror_gets_its_share_under_the_name_that_it_knows_and_is_not_answered_from() {
    let (near, asked) = remembering().await;
    let (far, copies) = remembering().await;
    let bench = bench(near, far, "0.25").await;
    for _ in 0..40 {
        let answer = ask(&bench).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-tidegate-served-by"), Some("near"));
    }
    reaches(&copies, 10).await;
    assert_eq!(asked.lock().unwrap().len(), 40);
    let copies = copies.lock().unwrap();
    assert_eq!(copies.len(), 10, "a quarter, evenly");
    for copy in copies.iter() {
        assert_eq!(copy, r#"{"messages":[],"model":"candidate"}"#);
    }
}

#[tokio::test]
async fn a_mirror_that_hangs_breaks_off_or_is_not_there_delays_and_fails_no_one() {
    let near = answering(OK).await;
    let hangs = server(|_, mut peer| async move {
        peer.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let breaks = server(|_, mut peer| async move {
        peer.request().await;
    })
    .await;
    let nowhere = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for far in [hangs, breaks, nowhere] {
        let bench = bench(near, far, "1.0").await;
        // More than may be under way at once.
        for _ in 0..100 {
            let answer = tokio::time::timeout(LIMIT, ask(&bench)).await.unwrap();
            assert_eq!(answer.status, 200);
        }
    }
}

#[tokio::test]
async fn a_model_that_sleeps_is_not_woken_for_a_copy_and_gets_it_once_it_serves() {
    let near = answering(OK).await;
    let (worker, copies) = remembering().await;
    let bench = Bench::new(&[near], "").await;
    let text = format!(
        "[route]\nname = \"chat\"\npublic = true\n[route.targets]\nmirror = {{ to = \"own\" }}\n\
         [[upstream]]\nname = \"near\"\nurl = \"http://{near}\"\n[[target]]\nto = \"near\"\n\
         [instance]\nname = \"chat\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\nendpoint_name = \"own\"\n"
    );
    let handle = deploy_file(&bench, &text);
    assert_eq!(ask(&bench).await.status, 200);
    assert_eq!(handle.waiting(), 0, "nothing was demanded");
    serves(&handle, 1, worker);
    assert_eq!(ask(&bench).await.status, 200);
    reaches(&copies, 1).await;
    assert_eq!(copies.lock().unwrap().len(), 1);
    // What only our own workers are kept from does not reach them by a copy.
    let media = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://127.0.0.1/"}}]}],"model":"chat"}"#;
    assert_eq!(bench.ask(bench.post(media)).await.status, 200);
    assert_eq!(ask(&bench).await.status, 200);
    reaches(&copies, 2).await;
    assert!(
        copies
            .lock()
            .unwrap()
            .iter()
            .all(|copy| !copy.contains("image_url"))
    );
}
