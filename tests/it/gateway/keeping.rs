//! `keep_alive` of a request: how long its model is to stay awake after it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::bench::{Bench, LIMIT, OK, post_to, server};
use super::dead::{FILE, deploy_file, serves};

#[tokio::test]
async fn a_hint_is_taken_out_and_kept_to_within_the_limit_of_the_route() {
    const MAX: Duration = Duration::from_mins(10);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let worker = {
        let seen = Arc::clone(&seen);
        server(move |_, mut peer| {
            let seen = Arc::clone(&seen);
            async move {
                while let Some((_, body)) = peer.request().await {
                    seen.lock().unwrap().push(body);
                    peer.send(OK).await;
                }
            }
        })
        .await
    };
    let with = FILE.replace("[route]\n", "[route]\nkeep_alive_max = \"10m\"\n");
    for (file, hint, kept) in [
        (with.as_str(), "\"2m\"", Duration::from_mins(2)),
        (&with, "-1", MAX),
        (&with, "\"24h\"", MAX),
        (&with, "0", Duration::ZERO),
        (&with, "\"soon\"", Duration::ZERO),
        // Without the key it is passed over, and goes on as everything unknown does.
        (FILE, "-1", Duration::ZERO),
    ] {
        let bench = Bench::new(&[worker], "").await;
        let handle = deploy_file(&bench, file);
        serves(&handle, 1, worker);
        let body = format!(r#"{{"model":"own","messages":[],"keep_alive":{hint}}}"#);
        let (token, _) = bench.token();
        let request = post_to("/v1/chat/completions", &token, "application/json", &body);
        let began = handle.gate.clock().now();
        assert_eq!(bench.ask(request).await.status, 200, "{hint}");
        let told = async {
            while !kept.is_zero() && handle.kept_until().is_zero() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, told).await.unwrap();
        let until = handle.kept_until();
        if kept.is_zero() {
            assert!(until <= handle.gate.clock().now(), "{hint}: {until:?}");
        } else {
            let span = until.saturating_sub(began);
            assert!(
                span >= kept && span < kept + Duration::from_mins(1),
                "{hint}: {span:?}"
            );
        }
        let sent = seen.lock().unwrap().pop().unwrap();
        let expected = if file == FILE {
            body.as_str()
        } else {
            r#"{"model":"own","messages":[]}"#
        };
        assert_eq!(sent, expected, "{hint}");
    }
}
