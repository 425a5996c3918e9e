//! Names with parameters of their own, as they are shown, kept and used.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::bench::{Gate, instance, json_of};

const NOTHING: String = String::new();
const NAME: &str = "\n# The short one.\n[[name]]\nname = \"brief\"\nof = \"ours-model\"\n\
     max = { max_tokens = 3 } # no more\ndefault = { max_tokens = 2 }\n";
const FAR: &str = "[route]\nname = \"far\"\nproject = \"research\"\nmodels = [\"gpt\"]\n\
     [[upstream]]\nurl = \"http://127.0.0.1:1\"\n[[name]]\nname = \"gpt-cold\"\nof = \"gpt\"\n\
     set.temperature = 0\n";

async fn gate() -> Gate {
    let ours = instance("ours", "research") + NAME;
    Gate::with_files(&[("ours.toml", ours), ("far.toml", FAR.to_owned())]).await
}

/// The lines of the access log, once there are so many.
pub(super) async fn logged(gate: &Gate, lines: usize) -> Vec<Value> {
    let reading = async {
        loop {
            let log = std::fs::read_to_string(gate.dir.path().join("access.log"));
            let log = log.unwrap_or_default();
            if log.matches('\n').count() >= lines {
                let lines = log.lines();
                return lines
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, reading).await.unwrap()
}

#[tokio::test]
async fn a_worker_answers_within_the_bounds_of_the_name_and_the_log_says_who() {
    let gate = gate().await;
    let token = gate.token("user", &["research"]).await;
    let messages = json!([{"role": "user", "content": "hello"}]);
    let mut answered = Vec::new();
    for (model, max) in [
        ("brief", json!(null)),
        ("brief", json!(50)),
        ("ours-model", json!(5)),
    ] {
        let body = json!({"model": model, "messages": messages, "max_tokens": max});
        let answer = gate.chat(&token, &body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        answered.push(json_of(&answer)["usage"]["completion_tokens"].clone());
    }
    assert_eq!(answered, [2, 3, 5]);
    let log = logged(&gate, 3).await;
    let said: Vec<_> = log
        .iter()
        .map(|line| (line["model"].as_str(), line["deployment"].as_str()))
        .collect();
    let worker = Some("ours/ours-model");
    assert_eq!(
        said,
        [
            (Some("brief"), worker),
            (Some("brief"), worker),
            (Some("ours-model"), worker),
        ]
    );
}

#[tokio::test]
async fn names_are_shown_and_explained_to_those_who_work_on_them() {
    let gate = gate().await;
    let operator = gate.token("operator", &["research"]).await;
    let stranger = gate.token("operator", &["other"]).await;
    let get = |token: &str, path: &str| {
        let (token, path) = (token.to_owned(), path.to_owned());
        let gate = &gate;
        async move { gate.with(&token, Method::GET, &path, NOTHING).await }
    };
    let routes = json_of(&get(&operator, "routes").await);
    let far = routes.as_array().unwrap().iter();
    let far: Vec<_> = far.filter(|route| route["name"] == "far").collect();
    assert_eq!(
        far[0]["names"],
        json!([{"name": "gpt-cold", "of": "gpt", "rules": ["temperature = 0"]}])
    );
    let endpoints = json_of(&get(&operator, "endpoints").await);
    let also = |endpoint: &str| {
        let mut all = endpoints.as_array().unwrap().iter();
        let found = all.find(|entry| entry["endpoint"] == endpoint);
        found.unwrap()["also"].clone()
    };
    assert_eq!(also("ours-model"), json!(["brief"]));
    assert_eq!(also("gpt"), json!(["gpt-cold"]));
    for (name, deployment, line) in [
        (
            "brief",
            "ours/ours-model",
            "\"brief\" stands for \"ours-model\": max_tokens = 2 where it is missing; max_tokens at most 3",
        ),
        (
            "gpt-cold",
            "gpt",
            "\"gpt-cold\" stands for \"gpt\": temperature = 0",
        ),
    ] {
        let path = format!("instances/{name}/explain");
        let told = json_of(&get(&operator, &path).await);
        assert_eq!(told[0]["deployment"], deployment);
        assert_eq!(told[0]["lines"][0], line);
        assert!(told[0]["lines"].as_array().unwrap().len() > 1, "{told}");
        let refused = get(&stranger, &path).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{name}");
    }
}

#[tokio::test]
async fn a_form_that_is_saved_keeps_the_names_of_its_file() {
    let gate = gate().await;
    let admin = gate.token("admin", &[]).await;
    let shown = gate
        .with(&admin, Method::GET, "instances/ours", NOTHING)
        .await;
    let mut form = json_of(&shown)["config"].clone();
    form["deployment"][0]["max_concurrent_requests"] = json!(3);
    let saved = gate
        .with(&admin, Method::PUT, "instances/ours", form.to_string())
        .await;
    assert_eq!(saved.status(), StatusCode::OK, "{:?}", saved.body());
    let text = std::fs::read_to_string(gate.dir.path().join("routes.d/ours.toml")).unwrap();
    assert!(text.contains("max_concurrent_requests = 3"), "{text}");
    assert!(text.ends_with(NAME), "{text}");
    let mut wrong = form;
    wrong["name"][0]["of"] = json!("nobody");
    let refused = gate
        .with(&admin, Method::PUT, "instances/ours", wrong.to_string())
        .await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let said = json_of(&refused)["error"]["message"].to_string();
    assert!(said.contains("name.of"), "{said}");
}
