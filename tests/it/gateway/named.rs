//! Names with parameters of their own: what their servers get to see.

use std::net::SocketAddr;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bench::{Answer, Bench, OK, post_to, server};
use super::dead::{FILE, deploy_file, serves};

/// A server that tells the bodies it was sent.
async fn told(answer: &'static str) -> (SocketAddr, UnboundedReceiver<String>) {
    let (tell, seen) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            while let Some((_, body)) = peer.request().await {
                tell.send(body).unwrap();
                peer.send(answer).await;
            }
        }
    })
    .await;
    (address, seen)
}

const RULES: &str = "set = { temperature = 0.2, \"chat_template_kwargs.enable_thinking\" = false }\n\
    default.max_tokens = 100\nmax.max_tokens = 500\ndrop = [\"logprobs\"]\n";

/// A bench with a route to a server, `models` of it, and the name `fast` of one.
async fn bench(address: SocketAddr, models: &str, of: &str, upstream: &str) -> Bench {
    let bench = Bench::new(&[address], "").await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[route]\nname = \"chat\"\npublic = true\nmodels = {models}\n\
         [[upstream]]\nurl = \"http://{address}\"\n{upstream}\n\
         [[name]]\nname = \"fast\"\nof = \"{of}\"\n{RULES}"
    );
    std::fs::write(dir.path().join("chat.toml"), text).unwrap();
    bench.install(dir.path());
    bench
}

async fn ask(bench: &Bench, path: &str, body: &str) -> Answer {
    let (token, _) = bench.token();
    bench
        .ask(post_to(path, &token, "application/json", body))
        .await
}

#[tokio::test]
async fn a_server_of_others_gets_the_model_and_the_parameters_and_nothing_else_changes() {
    let (address, mut seen) = told(OK).await;
    let bench = bench(address, "[\"chat\", \"qwen-*\"]", "qwen-3", "").await;
    let long = "x\u{e9}".repeat(200_000);
    for (path, sent, expected) in [
        (
            "/v1/chat/completions",
            "{ \"messages\": [] ,\"model\":\"fast\" , \"temperature\" : 1.0e0,\"logprobs\":true, \"max_completion_tokens\":501, \"x\": 1.50 }".to_owned(),
            "{\"chat_template_kwargs\":{\"enable_thinking\":false}, \"messages\": [] ,\"model\":\"qwen-3\" , \"temperature\" : 0.2,\"max_completion_tokens\":500, \"x\": 1.50 }".to_owned(),
        ),
        (
            "/v1/chat/completions",
            format!("{{\"messages\":[{{\"content\":\"{long}\"}}],\"temperature\":1,\"model\":\"fast\",\"logprobs\":[1]}}"),
            format!("{{\"chat_template_kwargs\":{{\"enable_thinking\":false}},\"max_tokens\":100,\"messages\":[{{\"content\":\"{long}\"}}],\"temperature\":0.2,\"model\":\"qwen-3\"}}"),
        ),
        (
            "/chat/v1/completions",
            "{\"prompt\":\"\",\"model\":\"fast\",\"max_tokens\":7}".to_owned(),
            "{\"chat_template_kwargs\":{\"enable_thinking\":false},\"temperature\":0.2,\"prompt\":\"\",\"model\":\"qwen-3\",\"max_tokens\":7}".to_owned(),
        ),
        (
            "/v1/responses",
            "{\"input\":\"\",\"model\":\"fast\",\"max_output_tokens\":9000,\"temperature\":0}".to_owned(),
            "{\"chat_template_kwargs\":{\"enable_thinking\":false},\"input\":\"\",\"model\":\"qwen-3\",\"max_output_tokens\":500,\"temperature\":0.2}".to_owned(),
        ),
        (
            "/v1/messages",
            "{\"messages\":[],\"model\":\"fast\",\"chat_template_kwargs\":{\"a\":1},\"temperature\":0}".to_owned(),
            "{\"max_tokens\":100,\"messages\":[],\"model\":\"qwen-3\",\"chat_template_kwargs\":{\"enable_thinking\":false,\"a\":1},\"temperature\":0.2}".to_owned(),
        ),
        (
            "/v1/embeddings",
            "{\"input\":\"\",\"model\":\"fast\"}".to_owned(),
            "{\"chat_template_kwargs\":{\"enable_thinking\":false},\"temperature\":0.2,\"input\":\"\",\"model\":\"qwen-3\"}".to_owned(),
        ),
        (
            "/v1/messages/count_tokens",
            "{\"messages\":[],\"model\":\"fast\"}".to_owned(),
            "{\"messages\":[],\"model\":\"qwen-3\"}".to_owned(),
        ),
        (
            "/tokenize",
            "{\"prompt\":\"\",\"model\":\"fast\",\"logprobs\":1}".to_owned(),
            "{\"prompt\":\"\",\"model\":\"qwen-3\",\"logprobs\":1}".to_owned(),
        ),
    ] {
        let answer = ask(&bench, path, &sent).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let got = seen.recv().await.unwrap();
        assert!(got == expected, "{path}: {got:.400}");
    }
    // The model itself has no rules.
    let plain = "{\"messages\":[],\"model\":\"qwen-3\",\"logprobs\":true}";
    assert_eq!(ask(&bench, "/v1/chat/completions", plain).await.status, 200);
    assert_eq!(seen.recv().await.unwrap(), plain);
}

#[tokio::test]
async fn usage_is_asked_for_in_a_stream_under_rules_as_in_any_other() {
    let (address, mut seen) = told(OK).await;
    let bench = bench(address, "[\"chat\"]", "chat", "model = \"org/chat\"").await;
    let body = "{\"stream\":true,\"model\":\"fast\",\"temperature\":1,\"max_tokens\":1}";
    assert_eq!(ask(&bench, "/v1/chat/completions", body).await.status, 200);
    assert_eq!(
        seen.recv().await.unwrap(),
        "{\"stream_options\":{\"include_usage\":true},\"chat_template_kwargs\":{\"enable_thinking\":false},\"stream\":true,\"model\":\"org/chat\",\"temperature\":0.2,\"max_tokens\":1}"
    );
}

#[tokio::test]
async fn a_worker_of_ours_is_asked_by_its_own_name() {
    let (live, mut seen) = told(OK).await;
    let bench = Bench::new(&[live], "").await;
    let file = format!("{FILE}[[name]]\nname = \"fast\"\nof = \"own\"\n{RULES}");
    let handle = deploy_file(&bench, &file);
    serves(&handle, 1, live);
    let body = "{\"messages\":[],\"model\":\"fast\",\"max_tokens\":7,\"temperature\":1}";
    assert_eq!(ask(&bench, "/v1/chat/completions", body).await.status, 200);
    assert_eq!(
        seen.recv().await.unwrap(),
        "{\"chat_template_kwargs\":{\"enable_thinking\":false},\"messages\":[],\"model\":\"own\",\"max_tokens\":7,\"temperature\":0.2}"
    );
    // What the client wrote is judged before the rules are.
    let wrong = body.replace('7', "-7");
    let answer = ask(&bench, "/v1/chat/completions", &wrong).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_value")
    );
}

#[tokio::test]
async fn a_body_that_rules_can_not_be_kept_with_reaches_no_server() {
    let (address, mut seen) = told(OK).await;
    let bench = bench(address, "[\"chat\"]", "chat", "").await;
    for (path, media, body, code) in [
        (
            "/v1/chat/completions",
            "application/json",
            "{\"model\":\"fast\",\"temperature\":1,\"temperature\":2}",
            "duplicate_key",
        ),
        (
            "/v1/chat/completions",
            "application/json",
            "{\"model\":\"fast\",\"max_tokens\":\"9999\"}",
            "invalid_value",
        ),
        (
            "/v1/chat/completions",
            "application/json",
            "{\"model\":\"fast\",\"chat_template_kwargs\":[]}",
            "invalid_value",
        ),
        (
            "/v1/chat/completions",
            "application/json",
            "[\"fast\"]",
            "invalid_json",
        ),
        (
            "/v1/audio/transcriptions",
            "multipart/form-data; boundary=X",
            "--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nfast\r\n--X--\r\n",
            "invalid_model",
        ),
    ] {
        let (token, _) = bench.token();
        let answer = bench.ask(post_to(path, &token, media, body)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{body}: {}",
            answer.body
        );
    }
    let (token, _) = bench.token();
    let opening = format!(
        "GET /v1/realtime?model=fast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = bench.ask(opening).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_model")
    );
    assert!(answer.body.contains("chat"), "{}", answer.body);
    drop(bench);
    assert!(seen.try_recv().is_err(), "nothing of it was passed on");
}

#[tokio::test]
async fn tokens_and_lists_know_the_name_that_is_asked_for() {
    let (address, mut seen) = told(OK).await;
    let bench = bench(address, "[\"big\"]", "big", "").await;
    let list = |token: &str| {
        format!("GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let ids = |answer: &Answer| -> Vec<(String, Option<String>)> {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let models = body["data"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        models
            .map(|model| (text(&model["id"]).unwrap(), text(&model["parent"])))
            .collect()
    };
    let all = bench.ask(list(&bench.token().0)).await;
    let fast = ("fast".to_owned(), Some("big".to_owned()));
    assert_eq!(ids(&all), [("big".to_owned(), None), fast.clone()]);
    // Who may use the name alone may not use what it stands for.
    let token = bench.token_for("fast");
    assert_eq!(ids(&bench.ask(list(&token)).await), [fast]);
    for (model, status) in [("fast", 200), ("big", 404)] {
        let body = format!("{{\"messages\":[],\"model\":\"{model}\"}}");
        let request = post_to("/v1/chat/completions", &token, "application/json", &body);
        assert_eq!(bench.ask(request).await.status, status, "{model}");
    }
    assert!(seen.recv().await.unwrap().contains("\"model\":\"big\""));
}
