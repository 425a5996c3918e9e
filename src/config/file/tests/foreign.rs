//! Keys of servers that are not quite OpenAI's.

use super::{check, parsed};
use crate::openai::api::Api;

/// A route file with an upstream that says this, from line 5 on.
fn file(lines: &str) -> String {
    format!("[route]\nname = \"a\"\n[[upstream]]\nurl = \"http://a\"\n{lines}")
}

#[test]
fn what_a_foreign_server_needs_is_read() {
    let text = file(
        "path_prefix = \"/v1beta/openai/\"\napi_key_env = \"K\"\napi_key_header = \"X-Goog-Api-Key\"\napis = [\"chat\", \"embeddings\"]\n[upstream.headers]\nanthropic-version = \"2023-06-01\"\n[upstream.headers_env]\nx-team-key = \"TEAM\"\n[upstream.headers_file]\nauthorization = \"team.key\"",
    );
    let parts = parsed("a.toml", text.as_bytes()).unwrap();
    let upstream = &parts.route.unwrap().upstreams[0];
    assert_eq!(upstream.path_prefix.as_deref(), Some("/v1beta/openai"));
    let key = upstream.api_key_header.as_ref();
    assert_eq!(key.unwrap().as_str(), "x-goog-api-key");
    let names: Vec<_> = upstream.headers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["anthropic-version", "x-team-key", "authorization"]);
    let apis: Vec<_> = upstream.apis.unwrap().iter().map(Api::label).collect();
    assert_eq!(apis, ["chat", "embeddings"]);
    assert_eq!(upstream.secrets().count(), 3);
}

#[test]
fn what_a_server_may_not_be_told_is_refused_with_its_place() {
    for (lines, expected) in [
        (
            "path_prefix = \"v4\"",
            "5: upstream.path_prefix: begin with a slash: write what stands in place of /v1, as \"/v1beta/openai\"",
        ),
        (
            "api_key_header = \"api-key\"",
            "5: upstream.api_key_header: there is no key for it: write api_key_env or api_key_file, or take this out",
        ),
        (
            "api_key_env = \"K\"\napi_key_header = \"Host\"",
            "6: upstream.api_key_header: host is said by the gateway itself: write the header that has the server's key, as \"x-api-key\"",
        ),
        (
            "api_key_env = \"K\"\napi_key_header = \"x y\"",
            "6: upstream.api_key_header: this is not the name of a header: write one, as \"x-api-key\"",
        ),
        (
            "apis = [\"chat\", \"embedding\"]",
            "5: upstream.apis: \"embedding\" is no API: did you mean \"embeddings\"?",
        ),
        (
            "apis = []",
            "5: upstream.apis: this is empty: write the APIs that the server serves, as [\"chat\"], or take it out",
        ),
        (
            "headers = { x_forwarded-for = \"1.2.3.4\" }",
            "5: upstream.headers.x_forwarded-for: this header is said by the gateway itself: take it out",
        ),
        (
            "headers_env = { content-length = \"K\" }",
            "5: upstream.headers_env.content-length: this header is said by the gateway itself: take it out",
        ),
        (
            "headers = { x-team-key = \"sk-123\" }",
            "5: upstream.headers.x-team-key: this reads as a secret, and route files are shown: name the variable that holds it in headers_env, or its file in headers_file",
        ),
        (
            "headers_env = { x-team-key = \"sk-123\" }",
            "5: upstream.headers_env.x-team-key: this is not the name of an environment variable: write one, as \"UPSTREAM_KEY\", not the key itself",
        ),
        (
            "api_key_env = \"K\"\nheaders_env = { Authorization = \"B\" }",
            "6: upstream.headers_env.Authorization: this header has the server's key: take it out here",
        ),
        (
            "headers = { x-a = \"1\", X-A = \"2\" }",
            "5: upstream.headers.x-a: this header stands here twice: take one out",
        ),
        (
            "headers = { \"x a\" = \"1\" }",
            "5: upstream.headers.x a: this is not the name of a header: write one, as \"anthropic-version\"",
        ),
        (
            "headers = { x-a = 1 }",
            "5: upstream.headers.x-a: write a text in quotes, not a whole number",
        ),
        (
            "headers = { x-a = \"a\\nb\" }",
            "5: upstream.headers.x-a: write one line that is not empty",
        ),
    ] {
        check("a.toml", &file(lines), &[expected]);
    }
}

#[test]
fn a_url_that_ends_in_v1_is_told_what_to_write() {
    let text = "[route]\nname = \"a\"\n[[upstream]]\nurl = \"http://a/v1\"";
    let expected = "4: upstream.url: leave out \"/v1\": the gateway adds it, or what path_prefix says in its place";
    check("a.toml", text, &[expected]);
}
