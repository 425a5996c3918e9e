//! A list of a server of others and a worker of ours, as it answers and is explained.

use http::{Method, StatusCode};
use serde_json::json;

use super::bench::{Gate, instance, json_of};
use super::named::logged;

const NOTHING: String = String::new();
/// The first refuses connections.
const LIST: &str = "[route]\nname = \"ours\"\nmodels = [\"helper\"]\n\
     [[upstream]]\nname = \"far\"\nurl = \"http://127.0.0.1:1\"\n\
     [[target]]\nto = \"far\"\n[[target]]\nto = \"ours-model\"\ncan_in = \"10m\"\n\
     [[name]]\nname = \"brief\"\nof = \"helper\"\nset.max_tokens = 2\n";

#[tokio::test]
async fn a_worker_answers_where_the_first_of_the_list_can_not_and_log_and_explanation_say_so() {
    let gate = Gate::with_files(&[("ours.toml", instance("ours", "research") + LIST)]).await;
    let token = gate.token("user", &["research"]).await;
    for model in ["helper", "brief"] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3});
        let answer = gate.chat(&token, &body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        let served = &answer.headers()["x-tidegate-served-by"];
        assert_eq!(served, "ours-model, far;why=unreachable");
    }
    for line in logged(&gate, 2).await {
        assert_eq!(line["target"], "ours-model", "{line}");
        assert_eq!(line["passed_over"], "far: unreachable", "{line}");
        assert_eq!(line["deployment"], "ours/ours-model", "{line}");
    }
    let operator = gate.token("operator", &["research"]).await;
    let stranger = gate.token("operator", &["other"]).await;
    for name in ["helper", "brief"] {
        let path = format!("instances/{name}/explain");
        let told = gate.with(&operator, Method::GET, &path, NOTHING).await;
        let told = json_of(&told);
        let list = told.as_array().unwrap().iter();
        let list = list.filter(|view| view["phase"] == "list");
        let lines: Vec<_> = list.map(|view| view["lines"].clone()).collect();
        assert_eq!(
            lines,
            [json!([
                "leads to a list, asked in their order; now:",
                "1. \"far\" serves",
                "2. \"ours-model\" serves",
            ])],
            "{told}"
        );
        let deployments: Vec<_> = told
            .as_array()
            .unwrap()
            .iter()
            .map(|view| &view["deployment"])
            .collect();
        assert!(deployments.contains(&&json!("ours/ours-model")), "{told}");
        let refused = gate.with(&stranger, Method::GET, &path, NOTHING).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{name}");
    }
}
