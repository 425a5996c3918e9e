//! Inputs that requests may bring along, in vLLM's own words.

use super::super::fetching;
use super::*;

fn with(version: &str, media: &Media, chat_template: bool) -> (String, Vec<String>) {
    let line = launch(version, &json!({}), |launch| {
        // As long as the test.
        launch.media = Box::leak(Box::new(media.clone()));
        launch.chat_template = chat_template;
    })
    .unwrap();
    (line.argv.get(8..).unwrap().join(" "), line.notes)
}

#[test]
fn vllm_is_told_from_where_media_may_come() {
    let hosts = ["images.example.org", "[fd00::7]"].map(|host| host.parse().unwrap());
    for (media, words) in [
        (Media::Public, ""),
        (Media::Any, ""),
        (Media::Data, "--allowed-media-domains nowhere.invalid"),
        (Media::None, "--allowed-media-domains nowhere.invalid"),
        (
            Media::Hosts(hosts.into()),
            "--allowed-media-domains images.example.org [fd00::7]",
        ),
    ] {
        assert_eq!(with("0.32.0", &media, false).0, words, "{media:?}");
    }
    let template = with("0.32.0", &Media::Public, true);
    assert_eq!(template.0, "--trust-request-chat-template");
    let (words, notes) = with("0.7.2", &Media::Data, true);
    assert_eq!(words, "");
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn both_arguments_are_the_routes_to_say() {
    for cli in [
        "--allowed-media-domains 127.0.0.1",
        "--allowed-media-domain=127.0.0.1",
        "--trust-request-chat-template",
        "--trust-request-chat",
    ] {
        assert!(build("0.32.0", &json!({ "cli": cli })).is_err(), "{cli}");
    }
}

#[test]
fn redirects_are_followed_only_where_media_come_from_anywhere() {
    let version = |text: &str| text.parse().unwrap();
    let redirects = ("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0");
    assert_eq!(fetching(&Media::Any, version("0.32.0")), []);
    assert_eq!(fetching(&Media::Public, version("0.32.0")), [redirects]);
    let blocks = |blocks| ("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", blocks);
    assert_eq!(
        fetching(&Media::Data, version("0.33.0")),
        [redirects, blocks("1")]
    );
    let hosts = Media::Hosts(vec!["gpu7".parse().unwrap()]);
    assert_eq!(
        fetching(&hosts, version("0.33.0")),
        [redirects, blocks("0")]
    );
}
