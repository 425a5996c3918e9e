//! Errors of balancing that is wrong, each with its place.

use std::path::Path;

use super::super::file::parse;
use super::super::gateway::local_queue;
use super::*;

/// The errors of a file, without its name: `LINE: KEY: MESSAGE`.
fn errors(content: &str) -> Vec<String> {
    let parsed = parse(Path::new("a.toml"), content.as_bytes(), &[local_queue()]);
    let errors = parsed.err().unwrap_or_default();
    let lines = errors.iter().map(ToString::to_string);
    lines.map(|line| line.replacen("a.toml:", "", 1)).collect()
}

#[test]
fn a_route_says_how_its_servers_are_balanced() {
    let content = "[route]\nname = \"a\"\n\
        [route.load_balancing]\npolicy = \"round_robin\"\nsession_header = \"X-Session\"\n\
        prefix = \"1KiB\"\nload_factor = 2\nengine_figures = false\n\
        [route.retries]\nservers_max = 1\nbudget = 0.1\non = [\"unreachable\", \"broken\", \"504\"]\n\
        [route.ejection]\nfailures = 2\ntime = \"10m\"\n\
        [[upstream]]\nurl = \"https://a:8443/llm\"\nca = \"ca.pem\"\ntls_server_name = \"b.example\"\n\
        max_concurrent_requests = 7\nhealth_check = { path = \"/health\", interval = \"1s\" }";
    let parts = parse(Path::new("d/a.toml"), content.as_bytes(), &[local_queue()]);
    let route = parts.unwrap().route.unwrap();
    let balancing = &route.load_balancing;
    assert_eq!(balancing.policy, Policy::RoundRobin);
    assert_eq!(
        balancing.session_header.as_ref().unwrap().as_str(),
        "x-session"
    );
    assert_eq!(balancing.prefix_bytes, Some(1024));
    assert!(!balancing.engine_figures);
    assert_eq!(
        route.retries.on,
        [RetryOn::Unreachable, RetryOn::Broken, RetryOn::Status(504)]
    );
    // A first time that is longer than the longest by default is the longest then.
    assert_eq!(route.ejection.time_max, route.ejection.time);
    let upstream = &route.upstreams[0];
    let tls = upstream.tls.as_ref().unwrap();
    assert_eq!(tls.ca.as_deref(), Some(Path::new("d/ca.pem")));
    assert_eq!(tls.server_name, "b.example");
    assert_eq!(upstream.max_concurrent_requests, Some(7));
    let check = upstream.health_check.as_ref().unwrap();
    assert_eq!((check.failures, check.successes), (3, 2));
}

#[test]
fn balancing_that_makes_no_sense_is_told_with_its_place() {
    for (lines, expected) in [
        (
            "[route.load_balancing]\npolicy = \"least_load\"\nload_factor = 2.0",
            &[
                "4: route.load_balancing.policy: \"least_load\" is unknown here: did you mean \"least_loaded\"?",
                "5: route.load_balancing.load_factor: this bounds what session_header and prefix bind to one server: add one of them, or take this out",
            ][..],
        ),
        (
            "[route.load_balancing]\nsession_header = \"x y\"\nprefix = \"1MiB\"",
            &[
                "4: route.load_balancing.session_header: this is not the name of a header: write one, as \"x-session-id\"",
                "5: route.load_balancing.prefix: 1MiB is out of bounds: write 16B to 64KiB",
            ],
        ),
        (
            "[route.load_balancing]\nsession_header = \"Authorization\"",
            &[
                "4: route.load_balancing.session_header: authorization carries credentials, not a session: write another header, as \"x-session-id\"",
            ],
        ),
        (
            "[route.retries]\nbudget = 2\non = [\"500\", \"503\", \"503\", \"timeout\"]",
            &[
                "4: route.retries.budget: 2 is out of bounds: write 0 to 1",
                "5: route.retries.on: 500 is never sent again: another server would say the same, or be loaded further; take it out",
                "5: route.retries.on: \"503\" stands here twice: take one out",
                "5: route.retries.on: \"timeout\" is unknown: known are \"unreachable\", \"broken\", \"502\", \"503\", \"504\"",
            ],
        ),
        (
            "[route.ejection]\ntime = \"10s\"\ntime_max = \"1s\"",
            &["5: route.ejection.time_max: this is less than time: write at least as much"],
        ),
        (
            "[[upstream]]\nurl = \"http://a\"\nca = \"x\"\nhealth_check = { path = \"health\" }",
            &[
                "5: upstream.ca: this is for an https:// url: write one, or take this out",
                "6: upstream.health_check.path: write a path that begins with a slash, as \"/health\"",
            ],
        ),
        (
            "[[upstream]]\nurl = \"https://a\"\ntls_server_name = \"a b\"\nhealth_check = {}",
            &[
                "5: upstream.tls_server_name: this is neither a host name nor an address: write the name in the server's certificate",
                "6: upstream.health_check.path: this is missing: write what is asked for, as \"/health\"",
            ],
        ),
    ] {
        let content = format!("[route]\nname = \"a\"\n{lines}");
        assert_eq!(errors(&content), expected, "{content}");
    }
}
