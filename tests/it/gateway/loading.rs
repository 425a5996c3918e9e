//! Models that a client may not unload, as others use them or their file keeps them.

use tidegate::auth::TokenSpec;
use tidegate::names::Workspace;

use super::bench::{Bench, OK, answering, post_to, spec};
use super::dead::{FILE, deploy_file, serves};

const BODY: &str = r#"{"model":"own"}"#;
const UNLOAD: &str = "/v1/models/unload";

#[tokio::test]
async fn what_is_in_use_or_kept_up_is_not_unloaded() {
    let server = answering(OK).await;
    let mut bench = Bench::new(&[server], "").await;
    bench.demands = None;
    let token = bench.token_by(TokenSpec {
        may_load: true,
        ..spec()
    });
    let unload = async || {
        let answer = bench.ask(post_to(UNLOAD, &token, "application/json", BODY));
        let answer = answer.await;
        (answer.status, answer.code())
    };
    let handle = deploy_file(&bench, FILE);
    serves(&handle, 1, server);
    let permit = handle.gate.enter().unwrap();
    assert_eq!(unload().await, (409, "model_in_use".to_owned()));
    drop(permit);
    let waiting = handle.wait(Some(&Workspace::new("other").unwrap()));
    assert_eq!(unload().await, (409, "model_in_use".to_owned()));
    drop(waiting);
    // There is no conductor here: it came as far as to ask one.
    assert_eq!(unload().await, (503, "shutting_down".to_owned()));
    let kept = FILE.replace("[[deployment]]", "[[deployment]]\nkeep = true");
    let handle = deploy_file(&bench, &kept);
    serves(&handle, 1, server);
    assert_eq!(unload().await, (409, "model_kept_up".to_owned()));
}

#[tokio::test]
async fn what_others_run_and_what_is_no_body_is_refused() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let token = bench.token_by(TokenSpec {
        may_load: true,
        ..spec()
    });
    for (path, body, expected) in [
        (
            "/v1/models/load",
            r#"{"model":"chat"}"#,
            (404, "unsupported_endpoint"),
        ),
        ("/chat/models/load", "{}", (404, "unsupported_endpoint")),
        ("/models/load", "{}", (400, "model_required")),
        ("/models/load", "[", (400, "invalid_json")),
        (
            "/models/load",
            r#"{"model":"a","model":"chat"}"#,
            (400, "duplicate_key"),
        ),
        ("/models/status", "{}", (404, "unknown_path")),
        ("/v1/models/other", "{}", (405, "method_not_allowed")),
    ] {
        let answer = bench
            .ask(post_to(path, &token, "application/json", body))
            .await;
        let code = answer.code();
        assert_eq!((answer.status, code.as_str()), expected, "{path} {body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "a".repeat(70_000));
    let long = bench.ask(post_to("/models/load", &token, "application/json", &long));
    assert_eq!(long.await.status, 413);
}
