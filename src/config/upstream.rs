//! `[[upstream]]`: servers that someone else runs.

mod address;
mod headers;
pub(super) mod own;
mod prefix;
mod secret;
mod url;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use rustls::pki_types::ServerName;

use super::name::model;
use super::problems::{cut, nearest};
use super::reader::Reader;
use crate::names::ModelName;
use crate::openai::api::{Api, ApiSet};
use crate::outbound::Address;
use address::address_fault;
use prefix::PathPrefix;
use secret::variable_fault;
use url::{Scheme, Url};

pub use headers::{HeaderSource, UpstreamHeader};
pub use secret::{ApiKeySource, SecretUse};

/// A server that someone else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// By what the targets of its route know it, alone or with others.
    pub name: Option<ModelName>,
    /// Address at which it listens.
    pub address: Address,
    /// Proof of its name, for `https://`.
    pub tls: Option<UpstreamTls>,
    /// Path before `/v1/…` in its paths; empty for none.
    pub base_path: String,
    /// Path in place of `/v1`; `None` for `/v1` itself.
    pub path_prefix: Option<String>,
    /// The name that the upstream knows; `None` passes what the client wrote.
    pub model: Option<ModelName>,
    /// Key that it wants.
    pub api_key: Option<ApiKeySource>,
    /// The header that has the key, as it is; `None` for a bearer token.
    pub api_key_header: Option<HeaderName>,
    /// Headers that every request to it carries beside.
    pub headers: Vec<UpstreamHeader>,
    /// The APIs that it serves; `None` where that is to be seen from its answers.
    pub apis: Option<ApiSet>,
    /// Time that it keeps a connection on which nothing comes; ours are put away before.
    pub keep_alive: Duration,
    /// Requests at once; `None` for no limit of its own.
    pub max_concurrent_requests: Option<u32>,
    /// Check of its health; `None` where it is not asked.
    pub health_check: Option<HealthCheck>,
    /// True if it may stand at any address: also be this gateway itself.
    pub any_address: bool,
    /// Place of it in its file.
    pub line: FileLine,
}

impl Upstream {
    /// Secrets that it is told, each with its use.
    pub fn secrets(&self) -> impl Iterator<Item = (&ApiKeySource, SecretUse)> {
        let key = self.api_key.iter().map(|key| (key, SecretUse::Key));
        let headers = self
            .headers
            .iter()
            .filter_map(|header| match &header.value {
                HeaderSource::Secret(source) => Some((source, SecretUse::Header)),
                HeaderSource::Plain(_) => None,
            });
        key.chain(headers)
    }
}

/// A line of a file: no part of what the file says, so one is as good as another.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLine(pub usize);

impl PartialEq for FileLine {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for FileLine {}

/// Proof of a server's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// PEM file of the authorities that may have signed its certificate; `None` for
    /// those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The name that it must prove, and that is sent as SNI.
    pub server_name: String,
}

/// Check of a server's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path that is asked for, behind the upstream's base path; 2xx means well.
    pub path: String,
    /// Pause between two questions.
    pub interval: Duration,
    /// Limit of an answer.
    pub timeout: Duration,
    /// Bad answers in a row after which it is left out.
    pub failures: u32,
    /// Good answers in a row after which it is taken in again.
    pub successes: u32,
}

/// Time that uvicorn, which serves vLLM, keeps an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Reads one table; `None` when something was wrong and noted.
pub(super) fn read(mut table: Reader<'_>, base: &Path) -> Option<Upstream> {
    let name = model(&mut table, "name");
    let url = table.parsed::<Url>("url");
    table.missing_unless(
        url.is_some(),
        "url",
        "an address, as \"http://127.0.0.1:8000\"",
    );
    let any = table.flag("any_address").is_some_and(|flag| flag.value);
    if let Some(url) = &url
        && let Address::Tcp { host, .. } = &url.value.address
        && let Some(fault) = address_fault(host).filter(|_| !any)
    {
        let message = format!("{fault}; if it is meant, set any_address = true");
        table.wrong(url.line, "url", message);
    }
    let model = table.parsed::<ModelName>("model");
    let api_key = api_key(&mut table, base);
    let api_key_header = headers::key_header(&mut table, api_key.is_some());
    let bearer = || api_key.as_ref().map(|_| AUTHORIZATION);
    let of_key = api_key_header.clone().or_else(bearer);
    let headers = headers::read(&mut table, of_key.as_ref(), base);
    let path_prefix = table.parsed::<PathPrefix>("path_prefix");
    let apis = apis(&mut table);
    let tls = tls(&mut table, url.as_ref().map(|url| &url.value), base);
    let max_concurrent_requests = table.whole("max_concurrent_requests");
    let health_check = table.table("health_check").and_then(health_check);
    let keep_alive = table.span("keep_alive");
    table.finish();
    let line = url.as_ref()?.line;
    let url = url?.value;
    Some(Upstream {
        name: name.map(|name| name.value),
        address: url.address,
        tls,
        base_path: url.base_path,
        path_prefix: path_prefix.and_then(|prefix| prefix.value.unusual()),
        model: model.map(|model| model.value),
        api_key,
        api_key_header,
        headers,
        apis,
        keep_alive: keep_alive.unwrap_or(KEEP_ALIVE),
        max_concurrent_requests,
        health_check,
        any_address: any,
        line: FileLine(line),
    })
}

/// Source of the server's key; `None` too where that is wrong, and noted.
fn api_key(table: &mut Reader<'_>, base: &Path) -> Option<ApiKeySource> {
    let env = table.words("api_key_env");
    let file = table.path("api_key_file");
    if let Some(env) = &env
        && let Some(fault) = variable_fault(&env.value)
    {
        table.wrong(env.line, "api_key_env", fault);
    }
    match (env, file) {
        (Some(env), Some(_)) => {
            let message = "write api_key_env or api_key_file, not both";
            table.wrong(env.line, "api_key_env", message);
            Some(ApiKeySource::Env(env.value))
        }
        (Some(env), None) => Some(ApiKeySource::Env(env.value)),
        (None, Some(file)) => Some(ApiKeySource::File(base.join(file))),
        (None, None) => None,
    }
}

/// The APIs that the server serves, where that is said.
fn apis(table: &mut Reader<'_>) -> Option<ApiSet> {
    let words = table.parsed_list::<String>("apis")?;
    let mut apis = ApiSet::default();
    for word in &words.value {
        match Api::of_label(word) {
            Some(api) => apis.insert(api),
            None => table.wrong(words.line, "apis", unknown_api(word)),
        }
    }
    if words.value.is_empty() {
        let message =
            "this is empty: write the APIs that the server serves, as [\"chat\"], or take it out";
        table.wrong(words.line, "apis", message);
    }
    Some(apis)
}

fn unknown_api(word: &str) -> String {
    let known = || Api::ALL.into_iter().chain([Api::Realtime]).map(Api::label);
    if let Some(near) = nearest(word, known()) {
        return format!("{:?} is no API: did you mean {near:?}?", cut(word));
    }
    let known: Vec<_> = known().collect();
    format!("{:?} is no API: known are {}", cut(word), known.join(", "))
}

/// Proof that an https upstream must give; the keys are errors for any other.
fn tls(table: &mut Reader<'_>, url: Option<&Url>, base: &Path) -> Option<UpstreamTls> {
    let ca = table.path("ca");
    let name = table.words("tls_server_name");
    let url = url?;
    let Scheme::Https(host) = &url.scheme else {
        for key in ["ca", "tls_server_name"] {
            let given = if key == "ca" {
                ca.is_some()
            } else {
                name.is_some()
            };
            if given {
                let message = "this is for an https:// url: write one, or take this out";
                table.wrong(table.line_of(key), key, message);
            }
        }
        return None;
    };
    let server_name = match name {
        Some(name) if ServerName::try_from(name.value.as_str()).is_err() => {
            let message = "this is neither a host name nor an address: write the name in the server's certificate";
            table.wrong(name.line, "tls_server_name", message);
            return None;
        }
        Some(name) => name.value,
        None => host.clone(),
    };
    Some(UpstreamTls {
        ca: ca.map(|ca| base.join(ca)),
        server_name,
    })
}

fn health_check(mut table: Reader<'_>) -> Option<HealthCheck> {
    const SECOND: Duration = Duration::from_secs(1);
    let path = table.words("path");
    table.missing_unless(path.is_some(), "path", "what is asked for, as \"/health\"");
    if let Some(path) = &path
        && (!path.value.starts_with('/') || path.value.parse::<http::uri::PathAndQuery>().is_err())
    {
        let message = "write a path that begins with a slash, as \"/health\"";
        table.wrong(path.line, "path", message);
    }
    let interval = table.span("interval");
    let timeout = table.span("timeout");
    let failures = table.whole("failures");
    let successes = table.whole("successes");
    table.finish();
    Some(HealthCheck {
        path: path?.value,
        interval: interval.unwrap_or(SECOND * 5),
        timeout: timeout.unwrap_or(SECOND * 2),
        failures: failures.unwrap_or(3),
        successes: successes.unwrap_or(2),
    })
}
