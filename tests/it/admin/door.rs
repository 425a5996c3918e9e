//! Callers that come in, and their rights.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::bench::{Gate, json_of};

const NOTHING: String = String::new();

#[tokio::test]
async fn a_token_is_exchanged_for_a_session_that_ends_with_logout() {
    let gate = Gate::start().await;
    let token = gate.token("operator", &["research"]).await;
    for (headers, what) in [
        (&[][..], "nothing"),
        (&[("authorization", "Bearer nonsense")][..], "a bad token"),
        (&[("cookie", "__Host-tidegate=01.x")][..], "a bad cookie"),
    ] {
        let answer = gate.https(Method::GET, "instances", headers, NOTHING).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{what}");
    }
    let (cookie, csrf) = gate.log_in(&token).await;
    let with = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    let shown = gate
        .https(Method::GET, "session", &with[..1], NOTHING)
        .await;
    let shown = json_of(&shown);
    assert_eq!(shown["role"], "operator");
    assert_eq!(shown["projects"], json!(["research"]));
    let page = gate.https(Method::GET, "/", &with[..1], NOTHING).await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        !policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    let out = gate.https(Method::DELETE, "session", &with, NOTHING).await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    let after = gate
        .https(Method::GET, "session", &with[..1], NOTHING)
        .await;
    assert_eq!(after.status(), StatusCode::UNAUTHORIZED);
    let page = gate.https(Method::GET, "/", &with[..1], NOTHING).await;
    assert_eq!(page.headers()["location"], "/login");
    let user = gate.token("user", &["research"]).await;
    let refused = gate.with(&user, Method::GET, "instances", NOTHING).await;
    assert_eq!(
        refused.status(),
        StatusCode::FORBIDDEN,
        "a user has no business here"
    );
}

#[tokio::test]
async fn a_one_time_link_logs_in_once_and_a_revoked_token_ends_its_session() {
    let gate = Gate::start().await;
    let link = gate.socket(Method::POST, "login-links", Value::Null).await;
    let url = json_of(&link)["url"].as_str().unwrap().to_owned();
    let code = url.split("code=").nth(1).unwrap().to_owned();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let log_in = || gate.https(Method::POST, "/login", &form, format!("code={code}"));
    let first = log_in().await;
    assert_eq!(
        (first.status(), &first.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/".parse().unwrap())
    );
    assert!(first.headers().contains_key("set-cookie"));
    let second = log_in().await;
    assert_eq!(second.headers()["location"], "/login?failed=link");
    assert!(!second.headers().contains_key("set-cookie"));

    let token = gate.token("admin", &[]).await;
    let (cookie, _) = gate.log_in(&token).await;
    let tokens = gate.socket(Method::GET, "tokens", Value::Null).await;
    let jti = json_of(&tokens)["tokens"][0]["jti"]
        .as_str()
        .unwrap()
        .to_owned();
    gate.socket(Method::DELETE, &format!("tokens/{jti}"), Value::Null)
        .await;
    let after = gate
        .https(Method::GET, "session", &[("cookie", &cookie)], NOTHING)
        .await;
    assert_eq!(after.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_comes_from_another_site_changes_nothing_and_is_an_event() {
    let gate = Gate::start().await;
    let token = gate.token("admin", &[]).await;
    let (cookie, csrf) = gate.log_in(&token).await;
    let own = format!("https://{}", gate.admin);
    let call = "instances/ours/stop";
    for (origin, site, csrf, what) in [
        (
            Some("https://evil.example"),
            None,
            Some(csrf.as_str()),
            "foreign origin",
        ),
        (
            Some(own.as_str()),
            Some("cross-site"),
            Some(csrf.as_str()),
            "cross-site",
        ),
        (Some(own.as_str()), Some("same-origin"), None, "no token"),
        (
            Some(own.as_str()),
            Some("same-origin"),
            Some("wrong"),
            "a wrong token",
        ),
    ] {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        headers.extend(site.map(|site| ("sec-fetch-site", site)));
        headers.extend(csrf.map(|csrf| ("x-csrf-token", csrf)));
        let answer = gate.https(Method::POST, call, &headers, NOTHING).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{what}");
    }
    let login = [("origin", "https://evil.example")];
    let body = json!({ "token": token }).to_string();
    let answer = gate.https(Method::POST, "session", &login, body).await;
    assert_eq!(
        answer.status(),
        StatusCode::FORBIDDEN,
        "no one is logged in from elsewhere"
    );
    let audited = gate.audited().await;
    let refused = |event: &&String| event.ends_with("POST /api/v1/instances/ours/stop refused");
    assert_eq!(audited.iter().filter(refused).count(), 4, "{audited:?}");
    assert!(
        !audited
            .iter()
            .any(|event| event.contains(" stop instance:ours")),
        "{audited:?}"
    );
    let headers = [
        ("cookie", cookie.as_str()),
        ("x-csrf-token", csrf.as_str()),
        ("origin", own.as_str()),
    ];
    let answer = gate.https(Method::POST, call, &headers, NOTHING).await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    let audited = gate.audited().await;
    assert!(
        audited.contains(&"user:admin stop instance:ours done".to_owned()),
        "{audited:?}"
    );
}

#[tokio::test]
async fn an_operator_sees_and_changes_own_projects_only() {
    let gate = Gate::start().await;
    let operator = gate.token("operator", &["research"]).await;
    let before = std::fs::read_to_string(gate.dir.path().join("routes.d/theirs.toml")).unwrap();
    for (method, path, body) in foreign() {
        let answer = gate
            .with(&operator, method.clone(), path, body.to_owned())
            .await;
        assert_eq!(
            answer.status(),
            StatusCode::FORBIDDEN,
            "{method} {path}: {:?}",
            answer.body()
        );
    }
    let file = "[instance]\nname = \"mine\"\nproject = \"research\"\nengine = \"vllm\"\n[[deployment]]\nmodel = \"/etc\"\nendpoint_name = \"mine\"\n";
    let local = gate
        .with(&operator, Method::POST, "instances", file.to_owned())
        .await;
    assert_eq!(
        local.status(),
        StatusCode::UNPROCESSABLE_ENTITY,
        "no directory is allowed: {:?}",
        local.body()
    );
    let seen = gate
        .with(&operator, Method::GET, "instances", NOTHING)
        .await;
    let names: Vec<_> = json_of(&seen)
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].clone())
        .collect();
    assert_eq!(names, [json!("ours")]);
    let after = std::fs::read_to_string(gate.dir.path().join("routes.d/theirs.toml")).unwrap();
    assert_eq!(before, after);
    let files = std::fs::read_dir(gate.dir.path().join("routes.d"))
        .unwrap()
        .count();
    assert_eq!(files, 2, "nothing was made");
    let audited = gate.audited().await;
    let refused =
        |event: &&String| event.starts_with("user:operator") && event.ends_with("refused");
    assert!(audited.iter().filter(refused).count() >= 5, "{audited:?}");
    let own = gate
        .with(&operator, Method::POST, "instances/ours/stop", NOTHING)
        .await;
    assert_eq!(own.status(), StatusCode::OK);
}

/// Calls that reach for what is not theirs.
fn foreign() -> Vec<(Method, &'static str, &'static str)> {
    vec![
        (Method::GET, "instances/theirs", ""),
        (Method::GET, "instances/theirs/export", ""),
        (Method::GET, "instances/theirs/logs", ""),
        (Method::GET, "instances/theirs/events", ""),
        (Method::GET, "instances/theirs/series?metric=requests", ""),
        (
            Method::GET,
            "series?metric=requests&scope=deployment:theirs/theirs-model",
            "",
        ),
        (Method::GET, "marks?scope=instance:theirs", ""),
        (Method::POST, "instances/theirs/start", ""),
        (Method::POST, "instances/theirs/stop", ""),
        (Method::POST, "instances/theirs/clone", r#"{"name":"mine"}"#),
        (Method::DELETE, "instances/theirs", ""),
        (Method::POST, "routes/theirs/test", "{}"),
        (Method::DELETE, "routes/theirs", ""),
        (
            Method::POST,
            "embeds",
            r#"{"scope":"instance:theirs","metrics":["requests"]}"#,
        ),
        (Method::POST, "login-links", ""),
        (
            Method::POST,
            "tokens",
            r#"{"workspace":"acme","role":"admin","ttl":"1h"}"#,
        ),
        (
            Method::POST,
            "tokens",
            r#"{"workspace":"acme","projects":["other"],"ttl":"1h"}"#,
        ),
        (
            Method::POST,
            "tokens",
            r#"{"workspace":"acme","endpoints":["theirs"],"ttl":"1h"}"#,
        ),
        (
            Method::POST,
            "tokens",
            r#"{"workspace":"elsewhere","projects":["research"],"ttl":"1h"}"#,
        ),
        (
            Method::POST,
            "instances",
            "[instance]\nname = \"new\"\nproject = \"other\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\nendpoint_name = \"new\"\n[deployment.sim]\n",
        ),
        (
            Method::PUT,
            "routes/open",
            "[route]\nname = \"open\"\npublic = true\n[[upstream]]\nurl = \"http://127.0.0.1:1\"\n",
        ),
        (
            Method::PUT,
            "routes/spy",
            "[route]\nname = \"spy\"\nproject = \"research\"\n[[upstream]]\nurl = \"http://127.0.0.1:1\"\napi_key_file = \"/etc/hostname\"\n",
        ),
    ]
}
