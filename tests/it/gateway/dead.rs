//! Workers of ours that died, and nobody has noticed yet.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate::config::{Settings, load_catalog};
use tidegate::deployment::{Gate, Handle, Refusal, Snapshot, Worker};
use tidegate::names::Generation;
use tidegate::outbound::Address;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::bench::{Answer, Bench, LIMIT, OK, answering, post_to, server};

pub(super) const FILE: &str = "[route]\nname = \"own\"\npublic = true\n[instance]\nname = \"own\"\nengine = \"sim\"\n\
     [[deployment]]\nmodel = \"m\"\nendpoint_name = \"own\"\n[deployment.sim]\n";
const BODY: &str = r#"{"model":"own","messages":[]}"#;

/// Takes a deployment of ours into effect, as the conductor would.
fn deploy(bench: &Bench) -> Arc<Handle> {
    deploy_file(bench, FILE)
}

/// The same of another file with the route and the instance `own`.
pub(super) fn deploy_file(bench: &Bench, file: &str) -> Arc<Handle> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("own.toml"), file).unwrap();
    let catalog = load_catalog(dir.path(), &Settings::default().queues, None);
    let spec = Arc::clone(&catalog.instances[0].deployments[0]);
    let handle = bench.registry.insert(spec);
    bench.install(dir.path());
    handle
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub(super) fn serves(handle: &Handle, number: u32, at: SocketAddr) {
    let worker = Worker {
        generation: Generation(number),
        address: Address::Tcp {
            host: at.ip().to_string(),
            port: at.port(),
        },
        api_key: Arc::from("k"),
        gate: Gate::opened(handle.gate.clock()),
    };
    handle.publish(Snapshot {
        phase: "ready",
        generation: Generation(number),
        workers: Arc::new([Arc::new(worker)]),
        ..Snapshot::stopped()
    });
    handle.gate.open();
}

/// Asks, and once the request is held lets `then` happen.
async fn held(bench: &Bench, handle: &Handle, then: impl FnOnce()) -> Answer {
    let (token, _) = bench.token();
    let request = post_to("/v1/chat/completions", &token, "application/json", BODY);
    let happen = async {
        let is_held = async {
            while handle.waiting() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, is_held).await.unwrap();
        assert_eq!(handle.gate.in_flight(), 0, "who is held is not inside");
        then();
    };
    let (answer, ()) = tokio::join!(bench.ask(request), happen);
    answer
}

#[tokio::test]
async fn a_request_waits_for_the_worker_that_replaces_one_that_died_unnoticed() {
    let live = answering(OK).await;
    let bench = Bench::new(&[live], "").await;
    let handle = deploy(&bench);
    serves(&handle, 1, nobody().await);
    // Noticed, with a start in between.
    let replaced = held(&bench, &handle, || {
        handle.gate.close();
        handle.publish(Snapshot::stopped());
        serves(&handle, 2, live);
    });
    let answer = replaced.await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "{\"hello\": \"world\"}")
    );
}

/// A worker that takes a request and ends without a word; `ends` is told of it.
async fn dying(ends: mpsc::UnboundedSender<()>) -> SocketAddr {
    server(move |_, mut peer| {
        let ends = ends.clone();
        async move {
            peer.request().await.unwrap();
            drop(peer);
            ends.send(()).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_was_inside_when_its_worker_ended_is_answered_by_the_next() {
    let (told, mut ends) = mpsc::unbounded_channel();
    let (first, second) = (dying(told.clone()).await, dying(told).await);
    let live = answering(OK).await;
    for (next, status, code) in [(live, 200, ""), (second, 502, "upstream_error")] {
        let bench = Bench::new(&[live], "").await;
        let handle = deploy(&bench);
        serves(&handle, 1, first);
        let (token, _) = bench.token();
        let request = post_to("/v1/chat/completions", &token, "application/json", BODY);
        let replaced = async {
            ends.recv().await.unwrap();
            handle.gate.close();
            handle.publish(Snapshot::stopped());
            serves(&handle, 2, next);
            if status != 200 {
                // It may be what ends them: a third is not tried.
                ends.recv().await.unwrap();
                handle.gate.close();
                handle.publish(Snapshot::stopped());
                serves(&handle, 3, live);
            }
        };
        let both = async { tokio::join!(bench.ask(request), replaced) };
        let (answer, ()) = tokio::time::timeout(LIMIT, both).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(status == 200 || answer.code() == code, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_worker_that_was_unreachable_for_a_moment_serves_on() {
    let at = nobody().await;
    let bench = Bench::new(&[at], "").await;
    let handle = deploy(&bench);
    serves(&handle, 1, at);
    let (token, _) = bench.token();
    let request = post_to("/v1/chat/completions", &token, "application/json", BODY);
    let comes = async {
        while handle.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let listener = TcpListener::bind(at).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let mut peer = super::bench::Client(socket);
        peer.request().await.unwrap();
        peer.send(OK).await;
    };
    let both = async { tokio::join!(bench.ask(request), comes) };
    let (answer, ()) = tokio::time::timeout(LIMIT, both).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn whoever_waits_for_one_that_is_not_replaced_is_told_why() {
    let live = server(|_, _| async {}).await;
    let bench = Bench::new(&[live], "").await;
    let handle = deploy(&bench);
    for (refusal, status, code) in [
        (Refusal::Failed, 400, "model_failed"),
        (Refusal::Stopped, 503, "model_stopped"),
    ] {
        let refusals = handle.snapshot().refusals + 1;
        serves(&handle, 1, nobody().await);
        let given_up = held(&bench, &handle, || {
            handle.gate.close();
            handle.publish(Snapshot {
                refusals,
                refusal: Some(refusal),
                ..Snapshot::stopped()
            });
        });
        let answer = given_up.await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
}
