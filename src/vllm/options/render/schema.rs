//! A JSON Schema of route files, for editors.
//!
//! Draft 7, which editors of TOML understand. The option tables come from the
//! rows; the tables around them are stated here, in the order of the file.

use std::io::{self, Write};

use serde_json::{Map, Value as Json, json};

use super::super::OPTIONS;
use super::super::row::{Home, Kind, OptionRow, Scope};
use super::{is_gone, state};
use crate::vllm::versions::Version;

/// Prints the schema; options that the version lacks are marked as deprecated.
///
/// # Errors
///
/// Those of the writer.
pub fn schema(out: &mut dyn Write, version: Version) -> io::Result<()> {
    super::pretty(out, &schema_value(version))
}

/// The schema as a value.
pub fn schema_value(version: Version) -> Json {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Tidegate route file",
        "description": format!("A route, an instance, or both; options as of vLLM {version}."),
        "type": "object",
        "additionalProperties": false,
        "anyOf": [{ "required": ["route"] }, { "required": ["instance"] }],
        "dependencies": { "upstream": ["route"], "deployment": ["instance"], "instance": ["deployment"] },
        "properties": {
            "$schema": { "type": "string" },
            "route": route(),
            "upstream": { "type": "array", "items": upstream(), "minItems": 1 },
            "instance": instance(version),
            "deployment": { "type": "array", "items": deployment(version), "minItems": 1 }
        }
    })
}

fn table(required: &[&str], properties: &Json) -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties
    })
}

fn said(schema: Json, description: &str) -> Json {
    let mut schema = schema;
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".to_owned(), description.into());
    }
    schema
}

fn name() -> Json {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" })
}

fn model() -> Json {
    json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\s\"\\\\]+$" })
}

fn span() -> Json {
    json!({ "type": "string", "pattern": "^([0-9.]+ ?(ms|us|s|m|h|d) ?)+$", "examples": ["15s", "1h30m"] })
}

fn size() -> Json {
    json!({ "type": "string", "pattern": "^[0-9.]+ ?([KMGT]i?)?B$", "examples": ["64MiB"] })
}

fn count(min: u64) -> Json {
    json!({ "type": "integer", "minimum": min })
}

fn route() -> Json {
    let timeouts = table(
        &[],
        &json!({
            "first_byte": said(span(), "From the request sent to the head of the response."),
            "idle": said(span(), "Longest silence of the upstream within a response."),
            "cold_start": said(span(), "Longest wait for a worker to start or wake."),
            "connect": said(span(), "Limit of a connection to the upstream."),
            "tls_handshake": said(span(), "Limit of the TLS handshake with the upstream.")
        }),
    );
    let stream = table(
        &[],
        &json!({
            "keep_alive": said(span(), "Comments are sent after so long a silence. Unset: none."),
            "open_after": said(span(), "A held stream is begun with 200 after so long. Unset: never.")
        }),
    );
    let load_balancing = table(
        &[],
        &json!({
            "policy": { "enum": ["least_loaded", "round_robin"], "default": "least_loaded" },
            "session_header": { "type": "string", "minLength": 1, "description": "Requests with the same value of this header go to one server." },
            "prefix": said(size(), "Requests whose prompts begin alike for so long go to one server."),
            "load_factor": { "type": "number", "minimum": 1, "maximum": 100, "description": "How far above the mean a server may be loaded by what is bound to it." },
            "engine_figures": { "type": "boolean", "default": true, "description": "Whether the servers are asked how many requests wait in them." }
        }),
    );
    let retries = table(
        &[],
        &json!({
            "servers_max": said(count(0), "Further servers that a request is sent to before its first byte came."),
            "budget": { "type": "number", "minimum": 0, "maximum": 1, "description": "Share of the requests that may be sent again." },
            "on": { "type": "array", "items": { "enum": ["unreachable", "broken", "502", "503", "504"] } }
        }),
    );
    let ejection = table(
        &[],
        &json!({
            "failures": said(count(0), "Failures in a row after which a server is left out; 0: never."),
            "time": said(span(), "For how long, at first."),
            "time_max": said(span(), "For how long at most.")
        }),
    );
    table(
        &["name"],
        &json!({
            "name": said(name(), "The route's name."),
            "path": { "type": "string", "pattern": "^/[A-Za-z0-9._~-]{1,63}$", "description": "First path segment under which it stands. Unset: its name." },
            "host": { "type": "string", "minLength": 1, "description": "Host name under which it stands, instead of a path." },
            "models": { "type": "array", "items": model(), "description": "Names that reach it on /v1. Unset: its name." },
            "workspace": said(name(), "The one workspace that it is for. Unset: that of its instances, else all."),
            "project": said(name(), "The project that tokens need read access to."),
            "public": { "type": "boolean", "description": "Lets any valid token of any workspace in, or of the one that is named." },
            "enabled": { "type": "boolean", "default": true },
            "max_concurrent_requests": said(count(1), "Requests at once. Unset: no limit."),
            "queue_requests_max": said(count(0), "Requests that may wait; 0 denies at once."),
            "queue_wait_max": said(span(), "Longest wait for a place."),
            "requests_per_minute": said(count(1), "Per token. Unset: no limit."),
            "tokens_per_minute": said(count(1), "Per token. Unset: no limit."),
            "timeouts": timeouts,
            "stream": stream,
            "load_balancing": load_balancing,
            "retries": retries,
            "ejection": ejection
        }),
    )
}

fn upstream() -> Json {
    let health_check = table(
        &["path"],
        &json!({
            "path": { "type": "string", "pattern": "^/", "description": "What is asked for; 2xx means well." },
            "interval": said(span(), "Between two questions."),
            "timeout": said(span(), "Limit of an answer."),
            "failures": said(count(1), "Bad answers in a row after which it is left out."),
            "successes": said(count(1), "Good answers in a row after which it is taken in again.")
        }),
    );
    table(
        &["url"],
        &json!({
            "url": { "type": "string", "minLength": 1, "examples": ["http://127.0.0.1:8000", "unix:/run/vllm.sock"], "description": "Where the server listens." },
            "model": said(model(), "The name that the server knows. Unset: passed as it came."),
            "api_key_env": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "description": "Variable that holds the server's key." },
            "api_key_file": { "type": "string", "minLength": 1, "description": "File that holds the server's key." },
            "ca": { "type": "string", "minLength": 1, "description": "PEM file of the authorities that may have signed its certificate. Unset: the system's." },
            "tls_server_name": { "type": "string", "minLength": 1, "description": "The name that its certificate must have. Unset: that in url." },
            "max_concurrent_requests": said(count(1), "Requests at once. Unset: no limit of its own."),
            "keep_alive": said(span(), "How long it keeps an idle connection."),
            "any_address": { "type": "boolean", "description": "Whether it may be link-local, or a cloud's metadata service." },
            "health_check": health_check
        }),
    )
}

fn instance(version: Version) -> Json {
    let idle = table(
        &[],
        &json!({
            "time_limit": described("idle_time_limit"),
            "offload_after": said(span(), "Idle time after which the weights leave the GPU."),
            "levels": {
                "type": "array", "items": { "enum": ["cpu", "disk"] }, "minItems": 1, "uniqueItems": true,
                "description": "Where weights may go: host memory, dropped to be read from disk again, or whichever takes less time. Unset: as automatic_cpu_offloading and disk_swapping say."
            },
            "last_action_report_interval": described("last_action_report_interval")
        }),
    );
    table(
        &["name"],
        &json!({
            "name": said(name(), help("instance_name")),
            "workspace": said(name(), "The one workspace that it is for. Unset: every workspace that has a project of this name."),
            "project": said(name(), help("project")),
            "queue": said(name(), help("queue")),
            "route": said(name(), help("route")),
            "engine": { "enum": ["vllm", "sim"], "default": "vllm", "description": "vLLM, or the built-in stand-in." },
            "vllm_version": { "type": "string", "pattern": "^[0-9][A-Za-z0-9.+-]{0,39}$", "description": help("vllm_version") },
            "author": { "type": "string", "minLength": 1, "maxLength": 300, "description": "The operator who wrote this file over the admin API, which sets it: the instance may then do what operators may do. An admin who takes it out makes the file an admin's." },
            "roll": { "enum": ["idle", "now"], "default": "idle", "description": "When a worker follows changed engine options." },
            "idle": idle,
            "options": options(Scope::Instance, version)
        }),
    )
}

fn deployment(version: Version) -> Json {
    let sim = table(
        &[],
        &json!({
            "load": span(), "wake": span(), "sleep": span(), "first_token": span(),
            "tokens_per_second": { "type": "number", "exclusiveMinimum": 0 },
            "weights": size(), "context": size(),
            "max_model_len": {"type": "integer", "minimum": 2, "maximum": 16_777_216},
            "faults": { "type": "array", "items": { "type": "string" } }
        }),
    );
    let replicas = table(
        &[],
        &json!({ "min": count(0), "max": count(1), "requests_each": said(count(1), "Requests, waiting and running, from which on another worker is started."), "requests_max": said(count(1), "Requests that one worker takes at once; others wait as the route's queue allows. Unset: no limit.") }),
    );
    table(
        &["model"],
        &json!({
            "model": { "type": "string", "minLength": 1, "maxLength": 1024, "description": help("model") },
            "endpoint_name": said(model(), help("endpoint_name")),
            "max_concurrent_requests": said(count(1), help("max_concurrent_requests")),
            "max_request_duration": said(span(), "Longest that a request may be with a worker; one that takes longer is ended with an error."),
            "start": { "enum": ["on-demand", "boot"], "default": "on-demand", "description": "Whether the worker starts with its first request or with the gateway." },
            "replicas": said(replicas, "Workers at once, by how many requests wait and run."),
            "keep": { "type": "boolean", "description": "Never stopped to make room for another, never idled out." },
            "options": options(Scope::Deployment, version),
            "sim": said(sim, "Speeds and sizes of the stand-in.")
        }),
    )
}

fn help(name: &str) -> &'static str {
    super::super::find(name).map_or("", |row| row.help)
}

fn described(name: &str) -> Json {
    super::super::find(name).map_or(Json::Bool(true), |row| said(of(row), row.help))
}

/// The options that may stand in one table.
fn options(scope: Scope, version: Version) -> Json {
    let mut properties = Map::new();
    for row in OPTIONS {
        let Home::Options(own) = row.home else {
            continue;
        };
        if !own.allows(scope) {
            continue;
        }
        let mut property = said(of(row), &format!("{}\n\n{}", row.help, state(row, version)));
        if let Some(map) = property.as_object_mut() {
            map.insert("title".to_owned(), row.label.into());
            if is_gone(row, version) {
                map.insert("deprecated".to_owned(), true.into());
            }
        }
        properties.insert(row.name.to_owned(), property);
    }
    table(&[], &Json::Object(properties))
}

/// The schema of one option's values.
pub(super) fn of(row: &OptionRow) -> Json {
    let text = || json!({ "type": "string", "minLength": 1 });
    let plain = || json!({ "type": "string", "pattern": "^[^-]" });
    match row.kind {
        Kind::Switch | Kind::TriState => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Tokens => json!({ "anyOf": [
            { "type": "integer", "minimum": -1 },
            { "type": "string", "pattern": "^(auto|[0-9]+(\\.[0-9]+)?[km]|[0-9]+[KM]?)$" }
        ] }),
        Kind::Float { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Gibibytes => json!({ "anyOf": [{ "type": "number", "minimum": 0 }, size()] }),
        Kind::Text => plain(),
        Kind::Choice(choices) => {
            let others = row.synonyms.iter().map(|(other, _)| *other);
            let all: Vec<&str> = choices.iter().copied().chain(others).collect();
            json!({ "enum": all })
        }
        Kind::Open(usual) => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:][A-Za-z0-9_.:-]*$", "examples": usual })
        }
        Kind::Json => json!({ "type": ["object", "string"] }),
        Kind::List => {
            json!({ "anyOf": [{ "type": "array", "items": plain(), "minItems": 1 }, plain()] })
        }
        Kind::Numbers => json!({ "anyOf": [
            { "type": "array", "items": { "type": "number", "exclusiveMinimum": 0 }, "minItems": 1 },
            { "type": "number", "exclusiveMinimum": 0 },
            text()
        ] }),
        Kind::Counts => json!({ "anyOf": [
            { "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } },
            text()
        ] }),
        Kind::Adapters => json!({ "anyOf": [
            { "type": "array", "minItems": 1, "items": { "anyOf": [text(), adapter()] } },
            { "type": "object", "additionalProperties": text() },
            text()
        ] }),
        Kind::CommandLine => json!({ "type": "string" }),
        Kind::Secret => {
            json!({ "anyOf": [secret("env"), secret("file"), secret("secret"), text()] })
        }
        Kind::Duration => span(),
    }
}

fn adapter() -> Json {
    let text = json!({ "type": "string", "minLength": 1 });
    table(
        &["name", "path"],
        &json!({ "name": text, "path": text, "base_model_name": text }),
    )
}

fn secret(key: &str) -> Json {
    table(
        &[key],
        &json!({ key: { "type": "string", "minLength": 1 } }),
    )
}
