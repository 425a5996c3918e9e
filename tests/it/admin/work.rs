//! Changes and sights through the API.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::bench::{Gate, instance, json_of};

const NOTHING: String = String::new();

#[tokio::test]
async fn two_people_do_not_overwrite_each_other() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let shown = gate
        .with(&admin, Method::GET, "instances/ours", NOTHING)
        .await;
    let tag = shown.headers()["etag"].to_str().unwrap().to_owned();
    let file = gate.dir.path().join("routes.d/ours.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let bearer = format!("Bearer {admin}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("if-match", tag.as_str()),
    ];
    let put = |text: String| gate.https(Method::PUT, "instances/ours", &headers, text);
    let bad = put(text.replace("load = \"0s\"", "lode = \"1s\"")).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let message = json_of(&bad)["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("ours.toml:9") && message.contains("lode"),
        "{message}"
    );
    let first = put(text.replace("load = \"0s\"", "load = \"1s\"")).await;
    assert_eq!(first.status(), StatusCode::OK, "{:?}", first.body());
    let second = put(text.replace("load = \"0s\"", "load = \"2s\"")).await;
    assert_eq!(
        second.status(),
        StatusCode::PRECONDITION_FAILED,
        "{:?}",
        second.body()
    );
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("load = \"1s\"")
    );
    let shown = gate
        .with(&admin, Method::GET, "instances/ours", NOTHING)
        .await;
    assert_eq!(json_of(&shown)["updated_by"], "user:admin");
    let json = json_of(
        &gate
            .with(&admin, Method::GET, "instances/ours/export", NOTHING)
            .await,
    );
    let as_json = gate
        .with(&admin, Method::PUT, "instances/ours", json.to_string())
        .await;
    assert_eq!(as_json.status(), StatusCode::OK, "{:?}", as_json.body());
    let toml = std::fs::read_to_string(&file).unwrap();
    assert!(
        toml.contains("load = \"1s\"") && !toml.starts_with('{'),
        "{toml}"
    );
}

#[tokio::test]
async fn a_route_is_made_tested_and_deleted() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let answer = gate
        .with(
            &admin,
            Method::PUT,
            "routes/new",
            "[route]\nname = \"new\"\nprojekt = \"x\"\n".to_owned(),
        )
        .await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        String::from_utf8_lossy(answer.body()).contains("new.toml:3"),
        "{:?}",
        answer.body()
    );
    let route = json!({"route": {"name": "new", "project": "research", "models": ["new"]},
        "upstream": [{"url": "http://127.0.0.1:1"}]});
    let answer = gate
        .with(&admin, Method::PUT, "routes/new", route.to_string())
        .await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    let broken = gate
        .with(&admin, Method::POST, "routes/new/test", "{}".to_owned())
        .await;
    assert_eq!(json_of(&broken)["ok"], false, "{:?}", broken.body());
    let routes = json_of(&gate.with(&admin, Method::GET, "routes", NOTHING).await);
    let made = routes
        .as_array()
        .unwrap()
        .iter()
        .find(|route| route["name"] == "new")
        .unwrap();
    assert_eq!(
        (&made["status"], &made["type"], &made["updated_by"]),
        (&json!("down"), &json!("upstreams"), &json!("user:admin"))
    );
    let asleep = gate
        .with(&admin, Method::POST, "routes/ours/test", "{}".to_owned())
        .await;
    assert_eq!(
        json_of(&asleep)["ok"],
        false,
        "a stopped worker is not started by itself"
    );
    let tested = gate
        .with(
            &admin,
            Method::POST,
            "routes/ours/test",
            r#"{"start":true}"#.to_owned(),
        )
        .await;
    let tested = json_of(&tested);
    assert_eq!(tested["ok"], true, "{tested}");
    let steps: Vec<_> = tested["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        ["route", "connect", "tls", "head", "first_token", "end"]
    );
    let gone = gate
        .with(&admin, Method::DELETE, "routes/new", NOTHING)
        .await;
    assert_eq!(gone.status(), StatusCode::NO_CONTENT, "{:?}", gone.body());
    assert!(!gate.dir.path().join("routes.d/new.json").exists());
}

#[tokio::test]
async fn a_test_by_any_name_of_a_route_starts_nothing_unless_it_may() {
    let route = "[route]\nname = \"pool\"\nproject = \"research\"\nmodels = [\"pool-name\"]\n";
    let own = instance("own", "research").replace("engine", "route = \"pool\"\nengine");
    let dead = "[route]\nname = \"dead\"\nproject = \"research\"\nmodels = [\"far\"]\n\
         [[upstream]]\nurl = \"http://127.0.0.1:1\"\n";
    let files = [
        ("pool.toml", format!("{route}{own}")),
        ("dead.toml", dead.to_owned()),
    ];
    let gate = Gate::with_files(&files).await;
    let admin = gate.token("admin", &[]).await;
    for name in ["pool-name", "own-model", "another"] {
        let body = json!({"model": name}).to_string();
        let tested = gate
            .with(&admin, Method::POST, "routes/pool/test", body)
            .await;
        let tested = json_of(&tested);
        assert_eq!(tested["ok"], false, "{name}: {tested}");
        assert_eq!(tested["steps"][0]["step"], "route", "{name}: {tested}");
        let said = tested["steps"][0]["detail"].as_str().unwrap();
        assert!(said.contains("own/own-model is stopped"), "{name}: {said}");
    }
    let own = json_of(
        &gate
            .with(&admin, Method::GET, "instances/own", NOTHING)
            .await,
    );
    assert_eq!(own["status"], "stopped", "{own}");
    // A server that does not answer is told of, where it stands and on every page.
    let asked = gate
        .with(&admin, Method::POST, "routes/dead/test", "{}".to_owned())
        .await;
    assert_eq!(json_of(&asked)["ok"], false, "{:?}", asked.body());
    let routes = json_of(&gate.with(&admin, Method::GET, "routes", NOTHING).await);
    let mut standing: Vec<_> = routes.as_array().unwrap().iter().collect();
    standing.sort_by_key(|route| route["name"].as_str());
    let standing: Vec<_> = standing.iter().map(|route| &route["status"]).collect();
    assert_eq!(standing, [&json!("down"), &json!("pending")]);
    let status = json_of(&gate.with(&admin, Method::GET, "status", NOTHING).await);
    let problem = &status["problems"][0];
    assert_eq!(
        (&problem["kind"], &problem["of"]),
        (&json!("server"), &json!("dead"))
    );
    let operator = gate.token("operator", &["other"]).await;
    let status = json_of(&gate.with(&operator, Method::GET, "status", NOTHING).await);
    assert_eq!(status["problems"], json!([]), "what is another's");
}

#[tokio::test]
async fn a_draft_is_tried_and_nothing_is_taken_in() {
    let gate = Gate::start().await;
    let operator = gate.token("operator", &["research"]).await;
    let tried = async |path: &str, text: &str| {
        let answer = gate
            .with(&operator, Method::POST, path, text.to_owned())
            .await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        json_of(&answer)
    };
    let good = "[instance]\nname = \"new\"\nproject = \"research\"\nengine = \"sim\"\n\
         [[deployment]]\nmodel = \"m\"\nendpoint_name = \"new-model\"\n";
    let draft = tried("drafts", good).await;
    assert_eq!(draft["errors"], json!([]), "{draft}");
    let command = draft["commands"][0].to_string();
    assert!(command.contains("new-model"), "{draft}");
    for (text, line, says) in [
        (
            good.replace("endpoint_name", "endpoint_nam"),
            Some(7),
            "endpoint_name",
        ),
        (
            good.replace("\"new-model\"", "\"ours-model\""),
            Some(5),
            "ours",
        ),
        (good.replace("research", "other"), None, "project"),
    ] {
        let draft = tried("drafts", &text).await;
        let error = &draft["errors"][0];
        let words = error["message"].as_str().unwrap_or_default();
        assert!(words.contains(says), "{draft}");
        assert_eq!(error["line"], json!(line), "{draft}");
    }
    let as_now = gate.dir.path().join("routes.d/ours.toml");
    let text = std::fs::read_to_string(as_now).unwrap();
    let draft = tried("drafts?replaces=ours", &text).await;
    assert_eq!(draft["errors"], json!([]), "{draft}");
    let others = gate.token("operator", &["elsewhere"]).await;
    let path = "drafts?replaces=ours";
    let refused = gate.with(&others, Method::POST, path, text).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let list = json_of(
        &gate
            .with(&operator, Method::GET, "instances", NOTHING)
            .await,
    );
    assert!(!list.to_string().contains("new-model"), "{list}");
}

#[tokio::test]
async fn a_request_that_takes_longer_than_its_deployment_allows_is_ended_in_words() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let file = gate.dir.path().join("routes.d/ours.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.replace(
        "model = \"m\"",
        "model = \"m\"\nmax_request_duration = \"1s\"",
    );
    let text = text.replace("tokens_per_second = 1000", "tokens_per_second = 10");
    let put = gate.with(&admin, Method::PUT, "instances/ours", text).await;
    assert_eq!(put.status(), StatusCode::OK, "{:?}", put.body());
    let user = gate.token("user", &["research"]).await;
    let mut body = json!({"model": "ours-model", "max_tokens": 600, "ignore_eos": true, "stream": true,
        "messages": [{"role": "user", "content": "hi"}]});
    let stream = gate.chat(&user, &body).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let text = String::from_utf8_lossy(stream.body()).into_owned();
    assert!(text.contains("request_timeout"), "{text}");
    assert!(text.contains("chat.completion.chunk"), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    body["stream"] = json!(false);
    let whole = gate.chat(&user, &body).await;
    assert_eq!(
        whole.status(),
        StatusCode::GATEWAY_TIMEOUT,
        "{:?}",
        whole.body()
    );
    let told = String::from_utf8_lossy(whole.body()).into_owned();
    assert!(told.contains("request_timeout"), "{told}");
    assert!(told.contains("longer than the 1 s"), "{told}");
    let short = gate.ask(&user, "ours-model").await;
    assert_eq!(short.status(), StatusCode::OK, "{:?}", short.body());
}

#[tokio::test]
async fn plots_show_what_was_asked_over_a_restart_and_a_link_shows_one_of_them() {
    let gate = Gate::start().await;
    let user = gate.token("user", &["research"]).await;
    for _ in 0..3 {
        let answer = gate.ask(&user, "ours-model").await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    }
    let admin = gate.token("admin", &[]).await;
    let endpoints = json_of(&gate.with(&admin, Method::GET, "endpoints", NOTHING).await);
    let ours = endpoints
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["endpoint"] == "ours-model")
        .unwrap();
    assert_eq!(ours["requests"], 3, "{ours}");
    let gpus = json_of(&gate.with(&admin, Method::GET, "gpus", NOTHING).await);
    assert_eq!(
        gpus["gpus"][0]["held"][0]["deployment"], "ours/ours-model",
        "{gpus}"
    );
    assert_eq!(gpus["gpus"][0]["held"][0]["bytes"].as_u64(), Some(5 << 30));

    let gate = gate.restart().await;
    let path =
        "instances/ours/series?metric=requests,completion_tokens,cold_starts,latency_p95&since=5m";
    let view = json_of(&gate.with(&admin, Method::GET, path, NOTHING).await);
    let series = view["series"].as_array().unwrap();
    let sum = |place: usize| {
        let series = &series[place];
        let values = series["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap());
        values.sum::<f64>()
    };
    assert!((sum(0) * 10.0 - 3.0).abs() < 0.01, "{view}");
    assert!((sum(1) * 10.0 - 15.0).abs() < 0.01, "{view}");
    assert!((sum(2) - 1.0).abs() < 0.01, "{view}");
    assert!(sum(3) > 0.0, "{view}");
    a_link_shows(&gate, &admin).await;
}

#[tokio::test]
async fn every_call_that_is_described_is_there_and_none_answers_without_a_login() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let api = json_of(
        &gate
            .with(&admin, Method::GET, "openapi.json", NOTHING)
            .await,
    );
    let paths = api["paths"].as_object().unwrap();
    assert!(paths.len() > 25, "{}", paths.len());
    for (path, calls) in paths {
        for method in calls.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path
                .replace("{name}", "none")
                .replace("{command}", "start")
                .replace("{id}", "none")
                .replace("{jti}", "none");
            let stranger = gate.https(method.clone(), &path, &[], NOTHING).await;
            assert_eq!(
                stranger.status(),
                StatusCode::UNAUTHORIZED,
                "{method} {path}"
            );
            let known = gate.with(&admin, method.clone(), &path, NOTHING).await;
            assert_ne!(
                known.status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            let is_page = known.headers().get("content-type").is_none();
            assert!(
                known.status() != StatusCode::NOT_FOUND || !is_page,
                "{method} {path} is not there"
            );
        }
    }
}

#[tokio::test]
async fn names_and_labels_that_are_markup_or_huge_are_data_or_refused() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let evil = "<script>alert(1)</script>";
    let body = json!({"workspace": "acme", "ttl": "1h", "label": evil, "metadata": {"k": evil}});
    let made = gate
        .with(&admin, Method::POST, "tokens", body.to_string())
        .await;
    assert_eq!(made.status(), StatusCode::OK, "{:?}", made.body());
    assert_eq!(made.headers()["content-type"], "application/json");
    assert_eq!(made.headers()["x-content-type-options"], "nosniff");
    assert_eq!(json_of(&made)["record"]["label"], evil);
    for (path, body) in [
        (
            "tokens",
            json!({"workspace": "acme", "ttl": "1h", "label": "a\u{1b}[31m"}).to_string(),
        ),
        (
            "tokens",
            json!({"workspace": evil, "ttl": "1h"}).to_string(),
        ),
        (
            "tokens",
            json!({"workspace": "acme", "ttl": "1h", "label": "x".repeat(500)}).to_string(),
        ),
        ("instances", format!("[instance]\nname = \"{evil}\"\n")),
        (
            "embeds",
            json!({"scope": format!("instance:{evil}"), "metrics": ["cpu"]}).to_string(),
        ),
    ] {
        let answer = gate.with(&admin, Method::POST, path, body).await;
        assert!(
            answer.status().is_client_error(),
            "{path}: {}",
            answer.status()
        );
        assert!(
            !json_of(&answer)["error"]["message"].is_null()
                || answer.status() == StatusCode::UNPROCESSABLE_ENTITY,
            "{:?}",
            answer.body()
        );
        assert!(answer.body().len() < 2_000, "{path}");
    }
    let huge = "x".repeat(2 << 20);
    let answer = gate.with(&admin, Method::POST, "instances", huge).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let path = format!("instances/{}/stop", "n".repeat(10_000));
    let answer = gate.with(&admin, Method::POST, &path, NOTHING).await;
    assert!(
        answer.status().is_client_error() && answer.body().len() < 1_000,
        "{:?}",
        answer.status()
    );
}

/// One plot, without a login, until it is revoked.
async fn a_link_shows(gate: &Gate, admin: &str) {
    let body = r#"{"scope":"instance:ours","metrics":["requests"],"title":"<b>ours</b>"}"#;
    let made = json_of(
        &gate
            .with(admin, Method::POST, "embeds", body.to_owned())
            .await,
    );
    let path = |url: &Value| {
        url.as_str()
            .unwrap()
            .split_once("/embed/")
            .map(|(_, rest)| format!("/embed/{rest}"))
            .unwrap()
    };
    let page = gate
        .https(Method::GET, &path(&made["page_url"]), &[], NOTHING)
        .await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("frame-ancestors *") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(!page.headers().contains_key("x-frame-options"));
    assert!(
        !String::from_utf8_lossy(page.body()).contains("<b>"),
        "{:?}",
        page.body()
    );
    let svg = gate
        .https(Method::GET, &path(&made["svg_url"]), &[], NOTHING)
        .await;
    assert_eq!(svg.headers()["content-type"], "image/svg+xml");
    assert!(
        String::from_utf8_lossy(svg.body()).contains("polyline"),
        "{:?}",
        svg.body()
    );
    let id = made["id"].as_str().unwrap();
    let revoked = gate
        .with(admin, Method::DELETE, &format!("embeds/{id}"), NOTHING)
        .await;
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    let after = gate
        .https(Method::GET, &path(&made["svg_url"]), &[], NOTHING)
        .await;
    assert_eq!(after.status(), StatusCode::NOT_FOUND);
}
