//! Pace, waiting and memory of the fetches, on a paused clock; one exchange over a
//! real connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::auth::Verifier;
use crate::auth::fetch::tests::Server;
use crate::auth::foreign::{Terms, WorkspaceFrom};
use crate::auth::ring::Foreign;
use crate::auth::{Denied, Keyring, Principal, SigningKey};
use crate::names::Workspace;

const NOW: u64 = 1_800_000_000;

struct World {
    refetch: Arc<Refetch>,
    verifier: Verifier,
    key: SigningKey,
}

fn world(url: &str) -> World {
    let fetcher = Fetcher::new(url.parse().unwrap(), None).unwrap();
    let refetch = Refetch::new(Arc::from("idp"), fetcher);
    let terms = Terms {
        issuer: Arc::from("idp"),
        audience: Arc::from("here"),
        workspace: WorkspaceFrom::Fixed(Workspace::new("acme").unwrap()),
        projects: Vec::new(),
        projects_claim: None,
        label_claim: None,
    };
    let mut keys = Keyring::default();
    keys.set_foreign(Foreign {
        terms: Arc::new(terms),
        keys: Arc::default(),
        refetch: Some(Arc::clone(&refetch)),
    });
    World {
        refetch,
        verifier: Verifier::new(keys, Arc::default()).unwrap(),
        key: SigningKey::ephemeral().unwrap(),
    }
}

impl World {
    fn replace(&self) -> impl Fn(&str, &Arc<KeySet>) {
        |issuer, keys| self.verifier.set_issuer_keys(issuer, keys)
    }

    fn token(&self, kid: &str) -> String {
        let header = json!({"alg": "EdDSA", "kid": kid});
        let claims = json!({"iss": "idp", "aud": "here", "sub": "ana", "exp": NOW + 60});
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    async fn verify(&self, kid: &str) -> Result<Arc<Principal>, Denied> {
        self.verifier.verify_or_refetch(&self.token(kid), NOW).await
    }

    fn set(&self, kids: &[&str]) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        let jwk = |kid: &&str| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
        json!({ "keys": kids.iter().map(jwk).collect::<Vec<_>>() }).to_string()
    }
}

/// Polls all futures side by side, until the last is done.
async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(done) => *output = Some(done),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    running
        .into_iter()
        .map(|(_, output)| output.unwrap())
        .collect()
}

/// Runs a test beside the task that fetches. `answer` makes the n-th answer, from 0,
/// after `takes`.
async fn beside(
    world: &World,
    takes: Duration,
    answer: impl Fn(u64) -> Option<String>,
    fetches: &Cell<u64>,
    test: impl Future<Output = ()>,
) {
    let fetch = async || {
        sleep(takes).await;
        let n = fetches.replace(fetches.get() + 1);
        let body = answer(n).ok_or(FetchError::Body)?;
        Ok(KeySet::parse(body.as_bytes())?)
    };
    tokio::select! {
        () = world.refetch.run_with(world.replace(), fetch) => panic!("ended"),
        () = test => {}
    }
}

const TAKES: Duration = Duration::from_millis(300);

#[tokio::test(start_paused = true)]
async fn requests_that_need_a_key_wait_for_one_fetch() {
    let world = world("http://127.0.0.1:1/");
    let fetches = Cell::new(0);
    let test = async {
        let start = Instant::now();
        let answers = all((0..WAITING_MAX).map(|_| world.verify("k1"))).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!((fetches.get(), start.elapsed()), (1, TAKES));
        // Known now: nothing waits, and nothing is fetched before its time.
        assert!(world.verify("k1").await.is_ok());
        sleep(REFRESH.saturating_sub(PAUSE)).await;
        assert_eq!(fetches.get(), 1);
        sleep(2 * PAUSE).await;
        assert_eq!(fetches.get(), 2);
    };
    beside(&world, TAKES, |_| Some(world.set(&["k1"])), &fetches, test).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_id_is_fetched_for_once_a_second_and_remembered() {
    let world = world("http://127.0.0.1:1/");
    let fetches = Cell::new(0);
    let test = async {
        assert!(world.verify("k1").await.is_ok());
        for n in 0..5 {
            let start = Instant::now();
            let kid = format!("invented {n}");
            assert_eq!(world.verify(&kid).await, Err(Denied::Invalid));
            assert_eq!(fetches.get(), n + 2);
            assert_eq!(start.elapsed(), PAUSE);
            // The same again is refused at once, until it is forgotten.
            assert_eq!(world.verify(&kid).await, Err(Denied::Invalid));
            assert_eq!(start.elapsed(), PAUSE);
        }
        assert!(world.verify("k1").await.is_ok());
        sleep(UNKNOWN_FOR).await;
        let before = fetches.get();
        assert_eq!(world.verify("invented 0").await, Err(Denied::Invalid));
        assert_eq!(fetches.get(), before + 1);
    };
    let at_once = Duration::ZERO;
    beside(
        &world,
        at_once,
        |_| Some(world.set(&["k1"])),
        &fetches,
        test,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_when_it_is_first_seen_and_an_old_one_ends() {
    let world = world("http://127.0.0.1:1/");
    let fetches = Cell::new(0);
    let answer = |n| Some(world.set(if n == 0 { &["k1"] } else { &["k2"] }));
    let test = async {
        assert!(world.verify("k1").await.is_ok());
        assert!(world.verify("k2").await.is_ok());
        assert_eq!(fetches.get(), 2);
        assert_eq!(world.verify("k1").await, Err(Denied::Invalid));
    };
    beside(&world, TAKES, answer, &fetches, test).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_last_good_set_and_is_counted() {
    let world = world("http://127.0.0.1:1/");
    let fetches = Cell::new(0);
    let bad = RefCell::new(vec![
        None,
        Some("{}".to_owned()),
        Some(json!({"keys": []}).to_string()),
    ]);
    let answer = |n| match n {
        0 => Some(world.set(&["k1"])),
        _ => bad.borrow_mut().pop().flatten(),
    };
    let test = async {
        assert!(world.verify("k1").await.is_ok());
        for failed in 1..=3 {
            // A key that may well exist is not remembered as unknown.
            assert_eq!(world.verify("k2").await, Err(Denied::Invalid));
            assert_eq!(world.refetch.status().failed, failed);
            assert!(world.verify("k1").await.is_ok());
        }
        let status = world.refetch.status();
        assert_eq!(status.fetched, 1);
        assert!(status.age.unwrap() >= 3 * PAUSE, "{status:?}");
        // Tried again sooner than after a success.
        sleep(RETRY + PAUSE).await;
        assert_eq!(fetches.get(), 5);
    };
    beside(&world, Duration::ZERO, answer, &fetches, test).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_issuer_holds_few_requests_and_not_for_long() {
    let world = world("http://127.0.0.1:1/");
    let fetches = Cell::new(0);
    let test = async {
        let start = Instant::now();
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(world.verify("k1")))
            .collect();
        for request in &mut waiting {
            tokio::select! {
                biased;
                _ = request => panic!("did not wait"),
                () = std::future::ready(()) => {}
            }
        }
        // No place is left to wait: refused at once.
        assert_eq!(world.verify("k1").await, Err(Denied::Invalid));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for request in waiting {
            assert_eq!(request.await, Err(Denied::Invalid));
        }
        assert_eq!(start.elapsed(), WAIT_MAX);
        assert_eq!(world.refetch.status().age, None);
    };
    let endless = Duration::from_hours(1);
    beside(&world, endless, |_| None, &fetches, test).await;
}

#[test]
fn invented_key_ids_fill_no_memory() {
    let mut unknown = Unknown::default();
    for n in 0..2 * UNKNOWN_MAX {
        unknown.insert(Some(&n.to_string()));
    }
    assert_eq!(unknown.until.len(), UNKNOWN_MAX);
    assert!(unknown.contains(Some("0")) && !unknown.contains(None));
}

#[tokio::test]
async fn many_requests_are_one_exchange_with_a_real_server() {
    let server = Server::bind().await;
    let world = world(&server.url("http", "/jwks"));
    let body = world.set(&["k1"]);
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let ending = CancellationToken::new();
    let requests = async {
        let answers = all((0..50).map(|_| world.verify("k1"))).await;
        assert!(answers.iter().all(Result::is_ok));
        ending.cancel();
    };
    let (exchanges, (), ()) = tokio::join!(
        server.serve(response.into_bytes(), ending.clone()),
        world.refetch.run(world.replace(), ending.clone()),
        requests,
    );
    assert_eq!(exchanges, 1);
    assert_eq!(world.refetch.status().fetched, 1);
}
