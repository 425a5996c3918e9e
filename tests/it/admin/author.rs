//! Owner of an instance's file, and options that an operator may put in one.

use http::{Method, StatusCode};
use serde_json::json;

use super::bench::{Gate, json_of};

const NOTHING: String = String::new();

/// A vLLM of an operator's project, with one more line in its options.
fn vllm(name: &str, model: &str, option: &str) -> String {
    format!(
        "# theirs\n[instance]\nname = \"{name}\"\nproject = \"research\"\n[[deployment]]\n\
         model = \"{model}\"\nendpoint_name = \"{name}\"\n[deployment.options]\n{option}\n"
    )
}

/// Options that once gave an operator the gateway's user.
const SINKS: [&str; 8] = [
    "model_overrides = { structured_outputs_config = { reasoning_parser_plugin = \"/x.py\" } }",
    "model_overrides = { kv_events_config = { endpoint = \"tcp://*:1\" } }",
    "config_overrides = { otlp_traces_endpoint = \"http://x\" }",
    "cli = \"--enforce-eager\"",
    "enable_lora = true\nlora_modules = [\"ad=owner/repo\"]",
    "model_loader_extra_config = { tensorizer_uri = \"s3://x\" }",
    "tokenizer = \"owner/repo\"",
    "revision = \"refs/pr/1\"",
];

#[tokio::test]
async fn an_operator_gets_no_code_in_by_launch_edit_import_clone_or_dry_run() {
    let gate = Gate::start().await;
    let (admin, operator) = (
        gate.token("admin", &[]).await,
        gate.token("operator", &["research"]).await,
    );
    let by = async |who: &str, method: Method, path: &str, body: String| {
        let answer = gate.with(who, method, path, body).await;
        (
            answer.status(),
            String::from_utf8_lossy(answer.body()).into_owned(),
        )
    };
    let named = vllm("named", "Qwen/Qwen3-8B", "max_model_len = 4096");
    let made = by(&admin, Method::POST, "instances", named).await;
    assert_eq!(made.0, StatusCode::OK, "{}", made.1);
    let good = vllm("mine", "Qwen/Qwen3-8B", "max_num_seqs = 8");
    let made = by(&operator, Method::POST, "instances", good.clone()).await;
    assert_eq!(made.0, StatusCode::OK, "{}", made.1);

    for sink in SINKS {
        let file = vllm("other", "Qwen/Qwen3-8B", sink);
        let edited = vllm("mine", "Qwen/Qwen3-8B", sink);
        let table: serde_json::Value = toml::from_str(&file).unwrap();
        let mut export = table;
        export["tidegate"] = json!({"export": 1});
        for (method, path, body) in [
            (Method::POST, "instances", file.clone()),
            (Method::POST, "instances?dry_run=1", file.clone()),
            (Method::PUT, "instances/mine", edited),
            (Method::POST, "instances/import", export.to_string()),
        ] {
            let (status, said) = by(&operator, method, path, body).await;
            assert_eq!(
                status,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{path} {sink}: {said}"
            );
        }
        let draft = by(&operator, Method::POST, "drafts", file).await;
        assert!(draft.1.contains("\"ok\":false"), "{sink}: {}", draft.1);
    }
    for version in ["0.2.0", "0.17.1", "0.18.0rc1"] {
        let old = good.replace("mine", "old").replace(
            "project = \"research\"\n",
            &format!("project = \"research\"\nvllm_version = \"{version}\"\n"),
        );
        let (status, said) = by(&operator, Method::POST, "instances?dry_run=1", old).await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{version}: {said}"
        );
    }

    // What only an admin may write, an operator may not copy either.
    let raw = vllm("raw", "Qwen/Qwen3-8B", SINKS[3]);
    let made = by(&admin, Method::POST, "instances", raw).await;
    assert_eq!(made.0, StatusCode::OK, "{}", made.1);
    let copy = json!({"name": "copy", "endpoint_names": {"raw": "copy"}}).to_string();
    let (status, said) = by(&operator, Method::POST, "instances/raw/clone", copy).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{said}");
}

#[tokio::test]
async fn an_operators_file_stays_an_operators_over_restarts_and_admins_changes() {
    let gate = Gate::start().await;
    let admin = gate.token("admin", &[]).await;
    let operator = gate.token("operator", &["research"]).await;
    let named = vllm("named", "Qwen/Qwen3-8B", "max_model_len = 4096");
    gate.with(&admin, Method::POST, "instances", named).await;
    // Claiming to be someone else is of no use.
    let good = vllm("mine", "Qwen/Qwen3-8B", "max_num_seqs = 8").replace(
        "project = \"research\"\n",
        "project = \"research\"\nauthor = \"someone else\"\n",
    );
    let made = gate.with(&operator, Method::POST, "instances", good).await;
    assert_eq!(made.status(), StatusCode::OK, "{:?}", made.body());
    let file = gate.dir.path().join("routes.d/mine.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("author = \"user:operator of acme\""),
        "{text}"
    );
    assert!(
        text.contains("# theirs") && !text.contains("someone else"),
        "{text}"
    );

    let gate = gate.restart().await;
    let raw = text.replace("max_num_seqs = 8", "cli = \"--enforce-eager\"");
    let put = async |text: &str| {
        let put = gate.with(&admin, Method::PUT, "instances/mine", text.to_owned());
        let put = put.await;
        (
            put.status(),
            String::from_utf8_lossy(put.body()).into_owned(),
        )
    };
    let (status, said) = put(&raw).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{said}");
    assert!(said.contains("take instance.author out"), "{said}");
    let adopted = raw.replace("author = \"user:operator of acme\"\n", "");
    let (status, said) = put(&adopted).await;
    assert_eq!(status, StatusCode::OK, "{said}");

    // And an admin's that an operator changes becomes an operator's.
    let ours = std::fs::read_to_string(gate.dir.path().join("routes.d/ours.toml")).unwrap();
    let again = gate.with(&operator, Method::PUT, "instances/ours", ours.clone());
    assert_eq!(json_of(&again.await)["unchanged"], true);
    let changed = ours.replace("4GiB", "3GiB");
    let put = gate
        .with(&operator, Method::PUT, "instances/ours", changed)
        .await;
    assert_eq!(put.status(), StatusCode::OK, "{:?}", put.body());
    let shown = gate
        .with(&admin, Method::GET, "instances/ours", NOTHING)
        .await;
    assert_eq!(
        json_of(&shown)["config"]["instance"]["author"],
        "user:operator of acme"
    );
}
