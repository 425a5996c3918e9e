//! Clients that load and unload models of the stand-in.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::bench::{Gate, json_of};

/// Wish for a token that reads the project `research`, with `more` of it.
fn wanted(more: &Value) -> Value {
    let mut body = json!({"workspace": "acme", "projects": ["research"], "ttl": "1h",
        "may_load": true});
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

/// A token that may load.
async fn loader(gate: &Gate, more: Value) -> String {
    let made = gate.socket(Method::POST, "tokens", wanted(&more)).await;
    assert_eq!(json_of(&made)["record"]["may_load"], json!(true));
    json_of(&made)["token"].as_str().unwrap().to_owned()
}

/// The status and the code of what a token is answered to its wish.
async fn asked(gate: &Gate, token: &str, path: &str, model: &str) -> (u16, String) {
    let answer = gate.post(token, path, &json!({ "model": model })).await;
    let body = json_of(&answer);
    if answer.status() == StatusCode::OK {
        assert_eq!(body, json!({"success": true}));
    }
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (answer.status().as_u16(), code.to_owned())
}

/// Waits until the list of models says this of `ours-model`.
async fn stands(gate: &Gate, token: &str, value: &str) {
    let reached = async {
        loop {
            let list = gate.ask_models(token).await;
            if list["data"][0]["state"]["value"] == json!(value) {
                return;
            }
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, reached).await.unwrap();
}

#[tokio::test]
async fn a_client_that_may_loads_and_unloads_what_it_may_use_and_nothing_else() {
    let gate = Gate::start().await;
    let user = gate.token("user", &["research"]).await;
    let admin = gate.token("admin", &[]).await;
    for token in [&user, &admin] {
        for path in ["/v1/models/load", "/models/unload"] {
            let refused = asked(&gate, token, path, "ours-model").await;
            assert_eq!(refused, (403, "loading_not_allowed".to_owned()), "{path}");
        }
    }
    let said = gate.post(&user, "/models/load", &json!({})).await;
    let words = json_of(&said)["error"]["message"].to_string();
    assert!(
        words.contains("tidegate token create --may-load"),
        "{words}"
    );

    let token = loader(&gate, json!({})).await;
    for model in ["theirs-model", "nothing"] {
        for path in ["/v1/models/load", "/v1/models/unload"] {
            let unknown = asked(&gate, &token, path, model).await;
            assert_eq!(unknown, (404, "model_not_found".to_owned()), "{model}");
        }
    }
    let done = (200, String::new());
    stands(&gate, &token, "unloaded").await;
    assert_eq!(
        asked(&gate, &token, "/models/load", "ours-model").await,
        done
    );
    stands(&gate, &token, "loaded").await;
    assert_eq!(
        asked(&gate, &token, "/v1/models/load", "ours-model").await,
        done
    );
    let path = "/ours/v1/models/unload";
    assert_eq!(asked(&gate, &token, path, "ours-model").await, done);
    stands(&gate, &token, "unloaded").await;
    assert_eq!(
        asked(&gate, &token, path, "ours-model").await,
        done,
        "again"
    );
    let events = gate
        .socket(Method::GET, "events?tail=50", Value::Null)
        .await;
    let events = json_of(&events).to_string();
    for words in ["starting: a request waits", "leaving: asked by a client"] {
        assert!(events.contains(words), "{words}: {events}");
    }
    // It is as good as before.
    assert_eq!(
        gate.ask(&token, "ours-model").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_load_counts_as_a_request_of_its_token() {
    let gate = Gate::start().await;
    let token = loader(&gate, json!({"limits": {"rpm": 1}})).await;
    let path = "/v1/models/load";
    assert_eq!(asked(&gate, &token, path, "ours-model").await.0, 200);
    let limited = asked(&gate, &token, path, "ours-model").await;
    assert_eq!(limited, (429, "rate_limit_exceeded".to_owned()));
}

#[tokio::test]
async fn only_an_admin_gives_a_token_the_right_to_load() {
    let gate = Gate::start().await;
    for (role, status) in [
        ("operator", StatusCode::FORBIDDEN),
        ("workspace-admin", StatusCode::FORBIDDEN),
        ("admin", StatusCode::OK),
    ] {
        let token = gate.token(role, &["research"]).await;
        let body = wanted(&json!({})).to_string();
        let made = gate.with(&token, Method::POST, "tokens", body).await;
        assert_eq!(made.status(), status, "{role}: {:?}", made.body());
    }
}
