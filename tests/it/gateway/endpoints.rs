//! Endpoints whose model does not stand in a JSON body: forms, and responses that
//! are asked for again; names that stand for many.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bench::{Answer, Bench, OK, answering, post_to, server};

/// A server that tells what it was sent and answers every request alike.
async fn told(answer: &'static str) -> (std::net::SocketAddr, UnboundedReceiver<(String, String)>) {
    let (tell, seen) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            while let Some(request) = peer.request().await {
                tell.send(request).unwrap();
                peer.send(answer).await;
            }
        }
    })
    .await;
    (address, seen)
}

fn form(model: &str) -> String {
    format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\nRIFF\r\n--\r\n--X\r\n\r\n--XX\r\n\
         Content-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--XX--\r\n"
    )
}

const FORM: &str = "multipart/form-data; boundary=XX";

#[tokio::test]
async fn a_form_is_routed_by_its_model_and_passed_byte_for_byte() {
    const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 52\r\n\r\n\
        {\"text\":\"hi\",\"usage\":{\"type\":\"duration\",\"seconds\":7}}";
    let (address, mut seen) = told(TEXT).await;
    let bench = Bench::new(&[address], "").await;
    for path in [
        "/v1/audio/transcriptions",
        "/v1/audio/translations/",
        "/v1/images/edits",
    ] {
        let answer = bench
            .ask(post_to(path, &bench.token().0, FORM, &form("chat")))
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let (head, body) = seen.recv().await.unwrap();
        assert!(
            head.starts_with(&format!("POST {} ", path.trim_end_matches('/'))),
            "{head}"
        );
        assert!(head.contains(FORM), "{head}");
        assert_eq!(body, form("chat"));
    }
    let unknown = post_to(
        "/v1/audio/transcriptions",
        &bench.token().0,
        FORM,
        &form("nobody"),
    );
    let answer = bench.ask(unknown).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "model_not_found")
    );
    // On its own path the route has one model, which need not be named.
    let bare = form("").replace("name=\"model\"", "name=\"prompt\"");
    let request = post_to(
        "/chat/v1/audio/transcriptions",
        &bench.token().0,
        FORM,
        &bare,
    );
    assert_eq!(bench.ask(request).await.status, 200);
    assert_eq!(seen.recv().await.unwrap().1, bare);
}

#[tokio::test]
async fn a_form_gets_the_name_that_the_server_knows_and_nothing_else_changes() {
    let (address, mut seen) = told(OK).await;
    let upstream = format!("[[upstream]]\nurl = \"http://{address}\"\nmodel = \"openai/whisper\"");
    let bench = Bench::new(&[], &upstream).await;
    let request = post_to(
        "/v1/audio/transcriptions",
        &bench.token().0,
        FORM,
        &form("chat"),
    );
    assert_eq!(bench.ask(request).await.status, 200);
    assert_eq!(seen.recv().await.unwrap().1, form("openai/whisper"));
}

#[tokio::test]
async fn a_broken_form_is_refused_in_words() {
    let (address, mut seen) = told(OK).await;
    let bench = Bench::new(&[address], "").await;
    let good = form("chat");
    for (media, body, code) in [
        (FORM, good.replace("--XX--", "--XX"), "invalid_form"),
        (FORM, good.replace("\r\n", "\n"), "invalid_form"),
        (FORM, String::new(), "invalid_form"),
        (FORM, "{\"model\":\"chat\"}".to_owned(), "invalid_form"),
        (
            FORM,
            good.replace("--XX--\r\n", "") + &good,
            "duplicate_key",
        ),
        (
            FORM,
            good.replace("name=\"model\"", "name=\"x\""),
            "model_required",
        ),
        ("multipart/form-data", good.clone(), "invalid_form"),
        ("application/json", good.clone(), "unsupported_content_type"),
        (
            "multipart/form-data; boundary=YY",
            good.clone(),
            "invalid_form",
        ),
    ] {
        let request = post_to("/v1/audio/transcriptions", &bench.token().0, media, &body);
        let answer = bench.ask(request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{media}: {body}"
        );
    }
    seen.close();
    assert!(seen.recv().await.is_none(), "nothing of it was passed on");
}

const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 78\r\n\r\n\
    {\"object\":\"response\",\"id\":\"resp_17\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 172\r\n\r\n\
    event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_18\"}}\n\n\
    event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_18\"}}\n\n";

fn response() -> &'static str {
    let (head, body) = RESPONSE.split_once("\r\n\r\n").unwrap();
    let text = format!(
        "{}\r\n\r\n{body}",
        head.replace("78", &body.len().to_string())
    );
    Box::leak(text.into_boxed_str())
}

fn events() -> &'static str {
    let (head, body) = EVENTS.split_once("\r\n\r\n").unwrap();
    let text = format!(
        "{}\r\n\r\n{body}",
        head.replace("172", &body.len().to_string())
    );
    Box::leak(text.into_boxed_str())
}

async fn on(bench: &Bench, token: &str, line: &str) -> Answer {
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    bench.ask(request).await
}

#[tokio::test]
async fn a_response_is_found_again_where_it_was_made() {
    const ASK: &str = r#"{"model":"chat","input":"hi"}"#;
    for (answer, id) in [(response(), "resp_17"), (events(), "resp_18")] {
        let (other, _) = told(OK).await;
        let (address, mut seen) = told(answer).await;
        let bench = Bench::new(&[address], "").await;
        let elsewhere = Bench::new(&[other], "").await;
        let token = bench.token().0;
        let path = format!("/v1/responses/{id}");
        assert_eq!(
            on(&bench, &token, &format!("GET {path}")).await.code(),
            "response_not_found"
        );
        let made = bench
            .ask(post_to("/v1/responses", &token, "application/json", ASK))
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        seen.recv().await.unwrap();
        for (line, sent) in [
            (format!("GET {path}"), format!("GET {path} ")),
            (
                format!("GET {path}/?starting_after=3"),
                format!("GET {path}?starting_after=3 "),
            ),
            (format!("GET /chat{path}"), format!("GET {path} ")),
            (
                format!("POST {path}/cancel"),
                format!("POST {path}/cancel "),
            ),
            (format!("DELETE {path}"), format!("DELETE {path} ")),
        ] {
            let answer = on(&bench, &token, &line).await;
            assert_eq!(answer.status, 200, "{line}: {answer:?}");
            assert!(seen.recv().await.unwrap().0.starts_with(&sent), "{line}");
        }
        for (line, status, code) in [
            (
                format!("GET /v1/responses/{id}x"),
                404,
                "response_not_found",
            ),
            (
                format!("GET /hidden/v1/responses/{id}"),
                404,
                "response_not_found",
            ),
            (format!("GET {path}/input_items"), 404, "unknown_path"),
            ("GET /v1/responses/..".to_owned(), 404, "unknown_path"),
            ("GET /v1/responses/a%2fb".to_owned(), 404, "unknown_path"),
            (format!("PUT {path}"), 405, "method_not_allowed"),
            (format!("GET {path}/cancel"), 405, "method_not_allowed"),
        ] {
            let answer = on(&bench, &token, &line).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{line}"
            );
        }
        let foreign = bench.token_of("w2");
        assert_eq!(
            on(&bench, &foreign, &format!("GET {path}")).await.code(),
            "response_not_found"
        );
        let limited = bench.token_for("elsewhere");
        assert_eq!(
            on(&bench, &limited, &format!("GET {path}")).await.code(),
            "response_not_found"
        );
        drop(elsewhere);
    }
}

#[tokio::test]
async fn a_cancel_gets_in_where_no_place_is_free() {
    let (tell, mut seen) = unbounded_channel();
    let address = server(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            while let Some((head, body)) = peer.request().await {
                tell.send(()).unwrap();
                if body.contains("wait") {
                    assert!(peer.is_closed().await);
                    return;
                }
                drop(head);
                peer.send(response()).await;
            }
        }
    })
    .await;
    let bench = Bench::new(&[address], "max_concurrent_requests = 1").await;
    let token = bench.token().0;
    let ask = |input: &str| {
        let body = format!(r#"{{"model":"chat","input":"{input}"}}"#);
        post_to("/v1/responses", &token, "application/json", &body)
    };
    assert_eq!(bench.ask(ask("hi")).await.status, 200);
    seen.recv().await.unwrap();
    let mut held = bench.connect().await;
    held.send(ask("wait")).await;
    seen.recv().await.unwrap();
    assert_eq!(bench.ask(ask("hi")).await.status, 429);
    let answer = on(&bench, &token, "POST /v1/responses/resp_17/cancel").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_name_leads_to_its_own_route_before_the_longest_pattern() {
    let (address, mut seen) = told(OK).await;
    let models = r#"models = ["qwen-*", "qwen-3-*", "*-7b", "exact"]"#;
    let bench = Bench::new(&[address], models).await;
    for (model, status) in [
        ("exact", 200),
        ("qwen-2", 200),
        ("qwen-3-8b", 200),
        ("mistral-7b", 200),
        ("qwen", 404),
        ("mistral-7b-x", 404),
        ("chat", 404),
    ] {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        let answer = bench.ask(bench.post(&body)).await;
        assert_eq!(answer.status, status, "{model}: {answer:?}");
        if status == 200 {
            assert_eq!(seen.recv().await.unwrap().1, body, "passed as it came");
        }
    }
    // A token is for the name that is asked for, not for the pattern.
    let limited = bench.token_for("qwen-2*");
    for (model, status) in [("qwen-2", 200), ("qwen-3-8b", 404)] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        let request = post_to("/v1/chat/completions", &limited, "application/json", &body);
        assert_eq!(bench.ask(request).await.status, status, "{model}");
    }
    let listed = on(&bench, &bench.token().0, "GET /v1/models").await.body;
    assert!(
        listed.contains("exact") && !listed.contains('*'),
        "{listed}"
    );
    let one = on(&bench, &bench.token().0, "GET /v1/models/qwen-2").await;
    assert!(
        one.status == 200 && one.body.contains("\"qwen-2\""),
        "{one:?}"
    );
}

#[tokio::test]
async fn each_client_reads_models_in_its_own_form() {
    const ANTHROPIC: &str = "anthropic-version: 2023-06-01\r\n";
    let extra = "description = \"For code\"";
    let bench = Bench::new(&[answering(OK).await], extra).await;
    let token = bench.token().0;
    let ask = async |line: &str, more: &str| {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nx-api-key: {token}\r\n{more}Content-Length: 0\r\n\r\n"
        );
        let answer = bench.ask(head).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()
    };
    for (line, list) in [
        ("GET /v1/models", true),
        ("GET /v1/models/chat", false),
        ("GET /chat/v1/models", true),
    ] {
        let told = ask(line, "").await;
        let model = if list { &told["data"][0] } else { &told };
        assert_eq!(model["id"], "chat", "{told}");
        assert_eq!(
            (&model["status"], &model["state"]["value"]),
            (&"active".into(), &"loaded".into())
        );
        assert_eq!(model["loaded"], true);
        assert_eq!(model["description"], "For code");
        // Nothing is known of a server that someone else runs.
        assert!(model.get("context_length").is_none() && model.get("capabilities").is_none());
        // What this token may not use is in none of them.
        assert!(!told.to_string().contains("hidden"), "{told}");
    }
    for line in ["GET /models", "GET /chat/models"] {
        let told = ask(line, "").await;
        assert_eq!(told["data"][0]["status"]["value"], "loaded", "{told}");
        assert!(!told.to_string().contains("hidden"), "{told}");
    }
    let told = ask("GET /v1/models?limit=1000", ANTHROPIC).await;
    assert_eq!(
        (&told["has_more"], &told["first_id"]),
        (&false.into(), &"chat".into())
    );
    assert_eq!(told["data"].as_array().unwrap().len(), 1, "{told}");
    let one = ask("GET /v1/models/chat", ANTHROPIC).await;
    assert_eq!(one, told["data"][0]);
    assert_eq!(one["type"], "model");
    let hidden = on(&bench, &token, "GET /v1/models/hidden").await;
    assert_eq!(hidden.status, 404);
}
