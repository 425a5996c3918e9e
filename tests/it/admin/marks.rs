//! Marks of plots, and the people who see them.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;

use super::bench::{Gate, json_of};

const NOTHING: String = String::new();

/// `kind of` for each mark.
fn told(view: &Value) -> BTreeSet<String> {
    let word = |mark: &Value, key: &str| mark[key].as_str().unwrap().to_owned();
    let marks = view["marks"].as_array().unwrap().iter();
    marks
        .map(|mark| format!("{} {}", word(mark, "kind"), word(mark, "of")))
        .collect()
}

async fn marks(gate: &Gate, token: &str, query: &str) -> Value {
    let path = format!("marks{query}");
    json_of(&gate.with(token, Method::GET, &path, NOTHING).await)
}

#[tokio::test]
async fn starts_and_edits_are_marked_over_a_restart_for_those_who_may_see_them() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let operator = gate.token("operator", &["research"]).await;
    let user = gate.token("user", &["research", "other"]).await;
    for model in ["ours-model", "theirs-model"] {
        let answer = gate.ask(&user, model).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    }
    let file = gate.dir.path().join("routes.d/ours.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let changed = text.replace(
        "[deployment.sim]",
        "[deployment.options]\ndtype = \"bfloat16\"\n[deployment.sim]",
    );
    let put = gate
        .with(&admin, Method::PUT, "instances/ours", changed)
        .await;
    assert_eq!(put.status(), StatusCode::OK, "{:?}", put.body());

    let all = marks(&gate, &admin, "").await;
    let starts = ["start ours/ours-model", "start theirs/theirs-model"];
    let seen = told(&all);
    assert!(starts.iter().all(|start| seen.contains(*start)), "{all}");
    assert!(seen.contains("edit instance:ours"), "{all}");
    let list = all["marks"].as_array().unwrap();
    let start = list.iter().find(|mark| mark["kind"] == "start").unwrap();
    assert_eq!(start["text"], "starting: a request waits");
    let edit = list.iter().find(|mark| !mark["by"].is_null()).unwrap();
    assert_eq!(edit["by"], "user:admin");
    assert!(edit["text"].as_str().unwrap().contains("dtype"), "{edit}");
    assert_eq!(all["left_out"], 0);
    assert!(all["known_since"].as_u64() <= start["at"].as_u64());

    // Another project's start, and what someone else did, are not theirs to see.
    let own = told(&marks(&gate, &operator, "").await);
    assert!(own.contains(starts[0]) && !own.contains(starts[1]));
    assert!(!own.contains("edit instance:ours"), "{own:?}");
    let theirs = told(&marks(&gate, &admin, "?scope=instance:theirs").await);
    assert_eq!(theirs, BTreeSet::from([starts[1].to_owned()]));
    let long_ago = marks(&gate, &admin, "?since=2d&until=1d").await;
    assert_eq!(told(&long_ago), BTreeSet::new());

    let gate = gate.restart().await;
    let after = told(&marks(&gate, &admin, "").await);
    assert!(after.is_superset(&seen), "{after:?}");
    let own = told(&marks(&gate, &operator, "").await);
    assert!(own.contains(starts[0]) && !own.contains(starts[1]));

    for nonsense in ["?since=yesterday", "?until=x", "?scope=what"] {
        let path = format!("marks{nonsense}");
        let refused = gate.with(&admin, Method::GET, &path, NOTHING).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{nonsense}");
    }
}
