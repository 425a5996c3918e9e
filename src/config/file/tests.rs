//! Errors of files that are wrong, each with its place.

mod foreign;
mod inputs;
mod levels;
mod names;
mod targets;

use proptest::prelude::*;

use super::*;
use crate::config::gateway::local_queue;

/// A file that is right, as TOML.
const GOOD: &str = r#"
[route]
name = "chat"
path = "/chat"
models = ["chat", "gpt-4o-mini"]
project = "research"
max_concurrent_requests = 64
queue_requests_max = 4
queue_wait_max = "30s"
requests_per_minute = 600
tokens_per_minute = 100000
[route.timeouts]
first_byte = "300s"
idle = "120s"
cold_start = "600s"

[[upstream]]
url = "http://127.0.0.1:8000"
model = "Qwen/Qwen3-8B"
api_key_env = "UPSTREAM_KEY"

[instance]
name = "team-llms"
project = "research"
queue = "local"
route = "other"
engine = "sim"
roll = "now"
[instance.idle]
time_limit = "4h"
offload_after = "15m"
last_action_report_interval = "10s"
[instance.options]
automatic_cpu_offloading = true

[[deployment]]
model = "Qwen/Qwen3-8B"
endpoint_name = "qwen3-8b"
max_concurrent_requests = 64
start = "boot"
keep = true
replicas = { min = 1, max = 3, requests_each = 8, requests_max = 9 }
[deployment.options]
gpu_memory_utilization = 0.45
[deployment.sim]
load = "3s"
tokens_per_second = 50
weights = "16GiB"
faults = ["slow-start:10s"]
"#;

/// The same shape, as JSON.
const GOOD_JSON: &str = r#"{
  "route": { "name": "chat", "models": ["chat"], "public": true },
  "instance": { "name": "team", "engine": "sim", "project": null,
    "idle": { "time_limit": "4h" }, "options": { "automatic_cpu_offloading": true } },
  "deployment": [
    { "model": "a\u00e4\ud83d\ude00/\"b", "endpoint_name": "b", "sim": { "tokens_per_second": 5e1 } }
  ]
}"#;

fn parsed(name: &str, content: &[u8]) -> Result<Parts, Vec<FileError>> {
    parse(Path::new(name), content, &[local_queue()])
}

/// The errors of a file, without its name: `LINE: KEY: MESSAGE`.
fn errors(name: &str, content: &str) -> Vec<String> {
    let errors = parsed(name, content.as_bytes()).err().unwrap_or_default();
    let prefix = format!("{name}:");
    let lines = errors.iter().map(ToString::to_string);
    lines.map(|line| line.replacen(&prefix, "", 1)).collect()
}

fn check(name: &str, content: &str, expected: &[&str]) {
    assert_eq!(errors(name, content), expected, "{content}");
}

#[test]
fn a_file_that_is_right_says_what_it_says() {
    let parts = parsed("a.toml", GOOD.as_bytes()).unwrap();
    let (route, instance) = (parts.route.unwrap(), parts.instance.unwrap());
    assert_eq!(route.limits.queue_requests_max, 4);
    assert_eq!(route.upstreams.len(), 1);
    let deployment = &instance.deployments[0].value;
    assert_eq!(deployment.id.as_str(), "team-llms/qwen3-8b");
    assert!(deployment.keep);
    let replicas = deployment.replicas;
    assert_eq!((replicas.min, replicas.max), (1, 3));
    assert_eq!((replicas.requests_each, replicas.number), (8, 1));
    assert_eq!(replicas.requests_max, Some(9));
    assert_eq!(deployment.roll, crate::config::Roll::Now);
    assert_eq!(
        deployment.idle.offload.unwrap().levels,
        crate::config::Levels::CPU
    );
    let crate::config::Engine::Sim(sim) = &deployment.engine else {
        panic!("the engine is the stand-in");
    };
    assert_eq!(sim.faults, ["slow-start:10s"]);
}

#[test]
fn json_of_the_same_shape_is_read() {
    let parts = parsed("a.json", GOOD_JSON.as_bytes()).unwrap();
    let instance = parts.instance.unwrap();
    assert_eq!(instance.deployments[0].value.model, "aä😀/\"b");
    assert_eq!(instance.project, None);
}

#[test]
fn routes_that_are_wrong_are_told_with_their_place() {
    for (content, expected) in [
        (
            "",
            &["1: this file has neither [route] nor [instance]: write one of them"][..],
        ),
        (
            "[rout]\nname = \"a\"",
            &[
                "1: this file has neither [route] nor [instance]: write one of them",
                "1: rout: this key is unknown at the top of this file: did you mean \"route\"?",
            ],
        ),
        (
            "[route]\n",
            &["1: route.name: this is missing: write a name, as \"chat\""],
        ),
        (
            "[route]\nname = \"a\"\nmax_concurent_requests = 3\nenabled = \"yes\"",
            &[
                "3: route.max_concurent_requests: this key is unknown in [route]: did you mean \"max_concurrent_requests\"?",
                "4: route.enabled: write true or false without quotes, not a text",
            ],
        ),
        (
            "[route]\nname = \"a b\"\n[route.timeouts]\n\nidle = 120\nfirst_byte = \"0s\"\ncold_start = \"5 minutes\"",
            &[
                "2: route.name: \"a b\" is not a valid route name: use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit",
                "5: route.timeouts.idle: write a duration in quotes, as \"15s\", not a whole number",
                "6: route.timeouts.first_byte: 0s is out of bounds: write 1ms to 1d",
                "7: route.timeouts.cold_start: \"5 minutes\" is not a duration: write a number and a unit, as \"300ms\", \"15s\", \"5m\", \"4h\", \"30d\"",
            ],
        ),
        (
            "[route]\nname = \"a\"\npath = \"/v1\"",
            &["3: route.path: \"/v1\" is reserved: write another path, as \"/v1-chat\""],
        ),
        (
            "[route]\nname = \"a\"\npath = \"chat\"",
            &["3: route.path: begin with a slash: write \"/chat\""],
        ),
        (
            "[route]\nname = \"a\"\nhost = \"https://chat.example.org\"",
            &[
                "3: route.host: \"https://chat.example.org\" is not a host name: write one without scheme, port and path, as \"chat.example.org\"",
            ],
        ),
        (
            "[route]\nname = \"a\"\nproject = \"p\"\npublic = true",
            &["4: route.public: write project or public = true, not both"],
        ),
        (
            "[route]\nname = \"a\"\nmodels = [\"x\",\n\"x y\",\n3, \"x\"]\nqueue_requests_max = -1",
            &[
                "3: route.models: \"x\" stands here twice: take one out",
                "4: route.models: \"x y\" is not a valid model name: use 1 to 256 printable characters without spaces, '\"' or '\\'",
                "5: route.models: write texts in quotes here, not a whole number",
                "6: route.queue_requests_max: -1 is out of bounds: write 0 to 100000",
            ],
        ),
    ] {
        check("a.toml", content, expected);
    }
}

#[test]
fn upstreams_that_are_wrong_are_told_with_their_place() {
    for (content, expected) in [
        (
            "[[upstream]]\nurl = \"http://a\"\n[instance]\nname = \"i\"\n[[deployment]]\nmodel = \"m\"",
            &["1: upstream: [[upstream]] needs a [route] in the same file: write one"][..],
        ),
        (
            "[route]\nname = \"a\"\n[[upstream]]\nurl = \"ftp://a\"\n[[upstream]]\nurl = \"http://a\"\napi_key_env = \"sk-123\"\n[[upstream]]\nurl = \"http://b\"\napi_key_env = \"K\"\napi_key_file = \"k\"\n[[upstream]]",
            &[
                "4: upstream.url: write \"http://HOST:PORT\", \"https://HOST:PORT\" or \"unix:/PATH\"",
                "7: upstream.api_key_env: this is not the name of an environment variable: write one, as \"UPSTREAM_KEY\", not the key itself",
                "10: upstream.api_key_env: write api_key_env or api_key_file, not both",
                "12: upstream.url: this is missing: write an address, as \"http://127.0.0.1:8000\"",
            ],
        ),
        (
            "[route]\nname = \"a\"\n[[upstream]]\nurl = \"http://a\"\n[instance]\nname = \"i\"\n[[deployment]]\nmodel = \"m\"",
            &[
                "6: instance: a route leads to upstreams or to an instance, and to both only by a list: write [[target]] for each, or move the instance to a file of its own, or name its route in instance.route",
            ],
        ),
    ] {
        check("a.toml", content, expected);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn instances_that_are_wrong_are_told_with_their_place() {
    for (content, expected) in [
        (
            "[[deployment]]\nmodel = \"m\"\n[route]\nname = \"r\"",
            &["1: deployment: [[deployment]] needs an [instance] in the same file: write one"][..],
        ),
        (
            "[instance]\nname = \"i\"",
            &[
                "1: deployment: an instance has at least one model: write [[deployment]] with its model",
            ],
        ),
        (
            "[instance]\nname = \"i\"\nengine = \"vlm\"\nqueue = \"locl\"\n[[deployment]]\nmodell = \"m\"",
            &[
                "3: instance.engine: \"vlm\" is unknown here: did you mean \"vllm\"?",
                "4: instance.queue: the queue \"locl\" does not exist: did you mean \"local\"?",
                "5: deployment.model: this is missing: write a text in quotes",
                "6: deployment.modell: this key is unknown in [deployment]: did you mean \"model\"?",
            ],
        ),
        (
            "[instance]\nname = \"v2\"\n[[deployment]]\nmodel = \"m\"",
            &[
                "2: instance.route: without a route the instance's name is the path of its endpoint, but \"/v2\" is reserved: write another path, as \"/v2-chat\"; or name a route",
            ],
        ),
        (
            "[instance]\nname = \"i\"\n[instance.idle]\nlevels = [\"cpu\", \"gpu\"]\n[[deployment]]\nmodel = \"m\"",
            &[
                "4: instance.idle.levels: write [\"cpu\"] for host memory, [\"disk\"] for dropping the weights, or [\"cpu\", \"disk\"] for whichever takes less time",
            ],
        ),
        (
            "[instance]\nname = \"i\"\n[instance.idle]\nlevels = [\"disk\"]\n[instance.options]\nautomatic_cpu_offloading = true\n[[deployment]]\nmodel = \"m\"",
            &[
                "6: instance.options.automatic_cpu_offloading: instance.idle.levels leaves this level out: take automatic_cpu_offloading out, or name it there",
            ],
        ),
        (
            "[instance]\nname = \"i\"\n[instance.idle]\noffload_after = \"5m\"\n[[deployment]]\nmodel = \"m\"",
            &[
                "4: instance.idle.offload_after: no option says where the weights go: set automatic_cpu_offloading = true or disk_swapping = true in [instance.options], or levels = [\"cpu\", \"disk\"] here",
            ],
        ),
        (
            "[instance]\nname = \"i\"\nengine = \"sim\"\nvllm_version = \"0.32.0\"\n[instance.idle]\ntime_limit = \"1h\"\noffload_after = \"2h\"\n[[deployment]]\nmodel = \"m\"",
            &[
                "4: instance.vllm_version: this has an effect only with engine = \"vllm\": take it out",
                "7: instance.idle.offload_after: the worker is stopped before this passes: write less than time_limit",
            ],
        ),
        (
            "[instance]\nname = \"i\"\nvllm_version = \"0.32.0\"\n[instance.options]\nnum_scheduler_steps = 4\n[[deployment]]\nmodel = \"m\"\n[deployment.options]\nmodel_overrides = { no_such = 1 }",
            &[
                "5: instance.options.num_scheduler_steps: vLLM 0.32.0 has no such option: it was last in 0.9.2, and gone by 0.11.0; the nearest is async_scheduling, in model_overrides",
                "9: deployment.options.model_overrides.no_such: vLLM 0.32.0 has no --no-such",
            ],
        ),
        (
            "[instance]\nname = \"i\"\n[instance.options]\nautomatic_cpu_offloading = true\ndisk_swapping = true\n[[deployment]]\nmodel = \"m\"\n[[deployment]]\nmodel = \"m\"\n[deployment.sim]\nload = \"1s\"",
            &[
                "5: instance.options.disk_swapping: automatic_cpu_offloading and disk_swapping permit one level each: take one out, or set levels = [\"cpu\", \"disk\"] in [instance.idle] for both",
                "8: deployment.endpoint_name: \"m\" stands in this instance twice: write another",
                "10: deployment.sim: this has an effect only with engine = \"sim\": take it out",
            ],
        ),
        (
            "[instance]\nname = \"i\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"a b\"\n[deployment.sim]\nfaults = [\"slow start\"]\ntokens_per_second = 0\nweights = \"16 gigs\"",
            &[
                "5: deployment.endpoint_name: the default, the model's name, can't be used: \"a b\" is not a valid model name: use 1 to 256 printable characters without spaces, '\"' or '\\'",
                "7: deployment.sim.faults: \"slow start\" is not a fault: write NAME or NAME:VALUE",
                "8: deployment.sim.tokens_per_second: 0 is out of bounds: write 0.001 to 1000000",
                "9: deployment.sim.weights: \"16 gigs\" is not a size: write a number and a unit, as \"64MiB\", \"16GiB\", \"500MB\"",
            ],
        ),
    ] {
        check("a.toml", content, expected);
    }
}

#[test]
fn text_that_is_neither_toml_nor_json_is_told_with_its_line() {
    for (name, content, line) in [
        ("a.toml", "[route]\nname = ", 2),
        ("a.toml", "[route]\nname = \"a\"\nname = \"b\"", 3),
        ("a.toml", "[route]\nname = \"a\"\n[route]", 3),
        ("a.json", "", 1),
        ("a.json", "{\n\"route\": {\n\"name\": \"a\",\n}}", 4),
        ("a.json", "{\n\"route\": 1,\n\"route\": 2}", 3),
        ("a.json", "{}\n{}", 2),
        ("a.json", "[1]", 1),
        ("a.json", "{\"a\":\n01}", 2),
        ("a.json", "{\"a\":\n\"\\ud800x\"}", 2),
        ("a.json", "{\"a\": \"x\ny\"}", 1),
    ] {
        let errors = parsed(name, content.as_bytes()).unwrap_err();
        assert_eq!(errors[0].line, Some(line), "{content}: {errors:?}");
    }
    let errors = parsed("a.toml", b"[route]\n\xff").unwrap_err();
    assert_eq!(errors[0].line, Some(2));
}

#[test]
fn lines_of_json_are_right() {
    check(
        "a.json",
        "{\n  \"route\": {\n    \"name\": \"a\",\n\n    \"enabled\": 1\n  },\n  \"upstream\": [\n    { \"url\":\n      7 }\n  ]\n}",
        &[
            "5: route.enabled: write true or false without quotes, not a whole number",
            "9: upstream.url: write a text in quotes, not a whole number",
        ],
    );
}

#[test]
fn replicas_have_bounds_and_names_of_their_own() {
    let file = |replicas: &str, second: &str| {
        format!(
            "[instance]\nname = \"a\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\nreplicas = {{ {replicas} }}\n\
             [[deployment]]\nmodel = \"{second}\""
        )
    };
    let found = errors("a.toml", &file("min = 3, max = 2", "n"));
    assert_eq!(
        found,
        ["6: deployment.replicas.min: this is more than max = 2: write less"]
    );
    let found = errors("a.toml", &file("max = 2", "m#2"));
    assert!(
        found[0].contains("what a replica of \"m\" would be called"),
        "{found:?}"
    );
    assert!(errors("a.toml", &file("min = 2", "m2")).is_empty());
    assert!(errors("a.toml", &file("requests_max = 2", "m2")).is_empty());
    let found = errors("a.toml", &file("requests_each = 3, requests_max = 2", "n"));
    assert_eq!(
        found,
        [
            "6: deployment.replicas.requests_max: this is less than requests_each = 3: write more, or a lower requests_each"
        ]
    );
}

#[test]
fn nesting_has_a_bound() {
    let depth = 20_000;
    for (name, content) in [
        ("a.toml", format!("a = {}", "[".repeat(depth))),
        ("a.toml", format!("a{} = 1", ".a".repeat(depth))),
        ("a.toml", format!("[a{}]", ".a".repeat(depth))),
        (
            "a.toml",
            format!(
                "a = {}1{}",
                "{ a.a.a.a.a.a.a.a = ".repeat(70),
                "}".repeat(70)
            ),
        ),
        ("a.json", "[".repeat(depth)),
        ("a.json", "{\"a\":".repeat(depth)),
    ] {
        assert!(parsed(name, content.as_bytes()).is_err(), "{name}");
    }
}

/// Good files with bytes replaced, taken out and put in.
fn mutated() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let edit = (any::<prop::sample::Index>(), 0..3_u8, any::<u8>());
    (any::<bool>(), prop::collection::vec(edit, 1..6)).prop_map(|(json, edits)| {
        let mut content = if json { GOOD_JSON } else { GOOD }.as_bytes().to_vec();
        for (place, kind, byte) in edits {
            let at = place.index(content.len());
            match kind {
                0 => content[at] = byte & 0x7f,
                1 => drop(content.remove(at)),
                _ => content.insert(at, byte),
            }
        }
        (json, content)
    })
}

proptest! {
    #[test]
    fn any_file_is_read_whole_or_refused_with_reasons((json, content) in mutated()) {
        let name = if json { "a.json" } else { "a.toml" };
        match parsed(name, &content) {
            Ok(parts) => prop_assert!(parts.route.is_some() || parts.instance.is_some()),
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_refused_with_reasons(json: bool, content: Vec<u8>) {
        let name = if json { "a.json" } else { "a.toml" };
        let errors = parsed(name, &content).unwrap_err();
        let lines = memchr::memchr_iter(b'\n', &content).count() + 1;
        prop_assert!(errors.iter().all(|error| error.line.is_some_and(|line| (1..=lines).contains(&line))));
    }
}

proptest! {
    #![proptest_config(crate::fuzz::config())]

    #[test]
    fn fuzz_route_file(
        content in crate::fuzz::damaged(
            &[GOOD, GOOD_JSON],
            &[
                "\n", "=", "[", "]", "[[", "]]", "{", "}", "\"", "'", "\"\"\"", "#", ".", ",", ":", "\\", "\\u0000", "\u{feff}", "\0",
                "[route]\n", "[[deployment]]\n", "[instance]\n", "name = ", "-1", "1e9", "inf", "true", "1979-05-27", "\u{202e}", "é",
            ],
        ),
        json: bool,
    ) {
        let name = if json { "a.json" } else { "a.toml" };
        let lines = memchr::memchr_iter(b'\n', &content).count() + 1;
        match parsed(name, &content) {
            Ok(parts) => prop_assert!(parts.route.is_some() || parts.instance.is_some()),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(errors.iter().all(|error| error.line.is_none_or(|line| (1..=lines).contains(&line))));
            }
        }
    }
}
