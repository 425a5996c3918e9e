//! Lines that people wrote stay when their file is changed through the API.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::bench::{Gate, instance, json_of};

const NOTHING: String = String::new();
const SECRET: &str = "huggingface_token = \"hf_in_place\"\n";

fn of_ana() -> String {
    let text = instance("ours", "research").replace("load = \"0s\"", "load = \"0s\" # quick");
    format!(
        "#:schema ../.tidegate/route.schema.json\n# Owner: Ana.\n{text}\n[deployment.options]\n{SECRET}# the end\n"
    )
}

async fn exported(gate: &Gate, admin: &str) -> Value {
    let path = "instances/ours";
    json_of(&gate.with(admin, Method::GET, path, NOTHING).await)["config"].clone()
}

#[tokio::test]
async fn a_form_that_is_saved_changes_the_lines_that_it_changes() {
    let gate = Gate::with_files(&[("ours.toml", of_ana())]).await;
    let admin = gate.token("admin", &[]).await;
    let file = gate.dir.path().join("routes.d/ours.toml");
    let mut form = exported(&gate, &admin).await;
    form["deployment"][0]["max_concurrent_requests"] = json!(3);
    form["deployment"][0]["sim"]["tokens_per_second"] = json!(2000);
    let put = |form: &Value| gate.with(&admin, Method::PUT, "instances/ours", form.to_string());
    let saved = put(&form).await;
    assert_eq!(saved.status(), StatusCode::OK, "{:?}", saved.body());
    let wanted = of_ana()
        .replace("tokens_per_second = 1000", "tokens_per_second = 2000")
        .replace(
            "endpoint_name = \"ours-model\"\n",
            "endpoint_name = \"ours-model\"\nmax_concurrent_requests = 3\n",
        )
        .replace(
            SECRET,
            "huggingface_token = { secret = \"ours/ours-model.huggingface_token\" }\n",
        );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
    // The form names the secret that stood in the file: it is stored, not lost.
    let kept = std::fs::read_to_string(gate.dir.path().join(".tidegate/secrets.json"));
    assert!(kept.unwrap().contains("hf_in_place"));
    // Saved as it is: nothing is written, by an operator neither.
    let again = exported(&gate, &admin).await;
    assert_eq!(json_of(&put(&again).await)["unchanged"], true);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
    let operator = gate.token("operator", &["research"]).await;
    form["instance"]["idle"] = json!({ "time_limit": "2h" });
    let path = "instances/ours";
    let saved = gate
        .with(&operator, Method::PUT, path, form.to_string())
        .await;
    assert_eq!(saved.status(), StatusCode::OK, "{:?}", saved.body());
    let text = std::fs::read_to_string(&file).unwrap();
    for line in wanted.lines() {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.contains("author = ") && text.contains("[instance.idle]\ntime_limit = \"2h\"\n"));
}

#[tokio::test]
async fn what_is_made_of_json_is_toml_and_a_clone_keeps_the_comments() {
    let gate = Gate::with_files(&[("ours.toml", of_ana().replace(SECRET, ""))]).await;
    let admin = gate.token("admin", &[]).await;
    let routes = gate.dir.path().join("routes.d");
    let read = |name: &str| std::fs::read_to_string(routes.join(name)).unwrap();
    let mut form = exported(&gate, &admin).await;
    form["instance"]["name"] = json!("new");
    form["deployment"][0]["endpoint_name"] = json!("new-model");
    let route = json!({ "route": { "name": "far", "public": true, "models": ["far"] },
        "upstream": [{ "url": "http://127.0.0.1:1" }] });
    let copy = json!({ "name": "copy", "endpoint_names": { "ours-model": "copy-model" } });
    for (method, path, body) in [
        (Method::POST, "instances", form),
        (Method::PUT, "routes/far", route),
        (Method::POST, "instances/ours/clone", copy),
    ] {
        let made = gate.with(&admin, method, path, body.to_string()).await;
        assert_eq!(made.status(), StatusCode::OK, "{path}: {:?}", made.body());
    }
    assert!(read("new.toml").starts_with("[instance]\nname = \"new\"\nproject = \"research\"\n"));
    assert_eq!(
        read("far.toml"),
        "[route]\nname = \"far\"\nmodels = [\"far\"]\npublic = true\n\n[[upstream]]\nurl = \"http://127.0.0.1:1\"\n"
    );
    let copied = read("copy.toml");
    assert!(
        copied.starts_with(
            "#:schema ../.tidegate/route.schema.json\n# Owner: Ana.\n[instance]\nname = \"copy\"\n"
        ) && copied.contains("load = \"0s\" # quick\n"),
        "{copied}"
    );
    // JSON over TOML of a route, too.
    std::fs::write(
        routes.join("far.toml"),
        format!("# far away\n{}", read("far.toml")),
    )
    .unwrap();
    let body = json!({ "route": { "name": "far", "public": true, "models": ["far", "near"] },
        "upstream": [{ "url": "http://127.0.0.1:1" }] });
    let put = gate
        .with(&admin, Method::PUT, "routes/far", body.to_string())
        .await;
    assert_eq!(put.status(), StatusCode::OK, "{:?}", put.body());
    let text = read("far.toml");
    assert!(text.starts_with("# far away\n") && text.contains("models = [\"far\", \"near\"]"));
}
