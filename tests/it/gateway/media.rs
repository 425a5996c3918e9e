//! Media that requests bring along for workers of ours, and what servers of others see.

use super::bench::{Answer, Bench, OK, answering, post_to};
use super::dead::{FILE, deploy_file, serves};

async fn ask(bench: &Bench, body: &str) -> Answer {
    let (token, _) = bench.token();
    let request = post_to("/v1/chat/completions", &token, "application/json", body);
    bench.ask(request).await
}

fn with_image(url: &str) -> String {
    let part = format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
    format!(r#"{{"model":"own","messages":[{{"role":"user","content":[{part}]}}]}}"#)
}

#[tokio::test]
async fn a_worker_of_ours_is_sent_nowhere_near_and_runs_no_foreign_template() {
    let live = answering(OK).await;
    let bench = Bench::new(&[live], "").await;
    let handle = deploy_file(&bench, FILE);
    serves(&handle, 1, live);
    for url in [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:8000/",
        "http://\\u006cocalhost/",
        // By what it resolves to.
        "http://no-such-host.example.com.no-such-domain-at-all/",
    ] {
        let answer = ask(&bench, &with_image(url)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "media_not_allowed"),
            "{url}: {}",
            answer.body
        );
        let place = "`messages[0].content[0].image_url.url`: ";
        assert!(answer.body.contains(place), "{}", answer.body);
    }
    // In several pieces, with the address at the seams.
    let long = format!("http://127.0.0.1/{}", "a".repeat(300_000));
    assert_eq!(ask(&bench, &with_image(&long)).await.status, 400);
    let data = format!("data:image/png;base64,{}", "A".repeat(300_000));
    assert_eq!(ask(&bench, &with_image(&data)).await.status, 200);
    let template =
        r#"{"model":"own","messages":[],"chat_template_kwargs":{"a":1,"chat_template":"{{ 1 }}"}}"#;
    let answer = ask(&bench, template).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "chat_template_not_allowed")
    );
    let values =
        r#"{"model":"own","messages":[],"chat_template_kwargs":{"enable_thinking":false}}"#;
    assert_eq!(ask(&bench, values).await.status, 200);
}

#[tokio::test]
async fn a_route_narrows_and_widens_what_may_be_brought_along() {
    let live = answering(OK).await;
    let bench = Bench::new(&[live], "").await;
    let keys = "media = [\"127.0.0.1\"]\nchat_template = true\npublic = true\n";
    let handle = deploy_file(&bench, &FILE.replace("public = true\n", keys));
    assert!(handle.spec().inputs.chat_template);
    serves(&handle, 1, live);
    let template = r#"{"model":"own","messages":[],"chat_template":"a"}"#;
    assert_eq!(ask(&bench, template).await.status, 200);
    for (url, status) in [
        ("http://127.0.0.1:1/a", 200),
        ("http://127.0.0.2/a", 400),
        ("https://example.org/a", 400),
        ("data:,a", 200),
    ] {
        let answer = ask(&bench, &with_image(url)).await;
        assert_eq!(answer.status, status, "{url}: {}", answer.body);
    }
}

#[tokio::test]
async fn servers_of_others_judge_by_themselves() {
    let bench = Bench::new(&[answering(OK).await], "").await;
    let (token, _) = bench.token();
    let body = with_image("http://127.0.0.1/").replace("\"own\"", "\"chat\"");
    let request = post_to("/v1/chat/completions", &token, "application/json", &body);
    let answer = bench.ask(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
