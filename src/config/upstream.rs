//! `[[upstream]]`: servers that someone else runs.

mod address;
pub(super) mod own;
mod url;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::file;
use super::reader::Reader;
use crate::auth::Secret;
use crate::names::ModelName;
use crate::outbound::Address;
use address::address_fault;
use url::{Scheme, Url};

/// A server that someone else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens.
    pub address: Address,
    /// For `https://`: how it proves who it is.
    pub tls: Option<UpstreamTls>,
    /// What stands before `/v1/…` in its paths; empty for nothing.
    pub base_path: String,
    /// The name that the upstream knows; `None` passes what the client wrote.
    pub model: Option<ModelName>,
    /// Key that it wants as bearer token.
    pub api_key: Option<ApiKeySource>,
    /// How long it keeps a connection on which nothing comes; ours are put away before.
    pub keep_alive: Duration,
    /// Requests at once; `None` for no limit of its own.
    pub max_concurrent_requests: Option<u32>,
    /// How it is asked whether it is well; `None` where it is not.
    pub health_check: Option<HealthCheck>,
    /// Whether it may stand at any address: also be this gateway itself.
    pub any_address: bool,
    /// Where its file says so.
    pub line: FileLine,
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

/// How a server proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// PEM file of the authorities that may have signed its certificate; `None` for
    /// those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The name that it must prove, and that is sent as SNI.
    pub server_name: String,
}

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for, behind the upstream's base path; 2xx means well.
    pub path: String,
    /// Between two questions.
    pub interval: Duration,
    /// Limit of an answer.
    pub timeout: Duration,
    /// Bad answers in a row after which it is left out.
    pub failures: u32,
    /// Good answers in a row after which it is taken in again.
    pub successes: u32,
}

/// Where an upstream's key is read from, at load and when its file changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeySource {
    /// An environment variable.
    Env(String),
    /// A file; surrounding white space is cut.
    File(PathBuf),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The variable is not set.
    #[error(
        "api_key_env: the environment variable {0} is not set, or is empty: set it, or name another"
    )]
    Env(String),
    /// The file can't be read.
    #[error("api_key_file: {path} can't be read: {reason}", path = .path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It holds nothing that could be sent.
    #[error("api_key_file: {} must hold the key alone, on one line of printable characters", .0.display())]
    NotKey(PathBuf),
    /// It holds a key of TLS.
    #[error("api_key_file: {} holds a PEM, which is for TLS: write the server's API key into a file of its own", .0.display())]
    Pem(PathBuf),
}

/// Largest key file, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

impl ApiKeySource {
    /// Reads the key. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ApiKeyError`] when there is none.
    pub fn read(&self) -> Result<Secret<String>, ApiKeyError> {
        match self {
            Self::Env(name) => {
                let key = std::env::var(name).unwrap_or_default();
                let key = key.trim().to_owned();
                if is_sendable(&key) {
                    Ok(Secret::new(key))
                } else {
                    Err(ApiKeyError::Env(name.clone()))
                }
            }
            Self::File(path) => {
                let text =
                    file::read(path, KEY_FILE_BYTES_MAX).map_err(|unread| ApiKeyError::Unread {
                        path: path.clone(),
                        reason: unread.to_string(),
                    })?;
                if text.starts_with(b"-----BEGIN ") {
                    return Err(ApiKeyError::Pem(path.clone()));
                }
                let key = String::from_utf8(text).unwrap_or_default();
                // Windows' editors begin a text with a byte order mark.
                let key = key.trim_start_matches('\u{feff}').trim().to_owned();
                if is_sendable(&key) {
                    Ok(Secret::new(key))
                } else {
                    Err(ApiKeyError::NotKey(path.clone()))
                }
            }
        }
    }
}

fn is_sendable(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// How long uvicorn, which serves vLLM, keeps an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Reads one table; `None` when something was wrong and noted.
pub(super) fn read(mut table: Reader<'_>, base: &Path) -> Option<Upstream> {
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
    let env = table.words("api_key_env");
    let file = table.path("api_key_file");
    if let Some(env) = &env {
        let first = env.value.bytes().next();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if first.is_some_and(|b| b.is_ascii_digit()) || !env.value.bytes().all(plain) {
            // The text may be the key itself, so it is not shown.
            let message = "this is not the name of an environment variable: write one, as \"UPSTREAM_KEY\", not the key itself";
            table.wrong(env.line, "api_key_env", message);
        }
    }
    let api_key = match (env, file) {
        (Some(env), Some(_)) => {
            let message = "write api_key_env or api_key_file, not both";
            table.wrong(env.line, "api_key_env", message);
            None
        }
        (Some(env), None) => Some(ApiKeySource::Env(env.value)),
        (None, Some(file)) => Some(ApiKeySource::File(base.join(file))),
        (None, None) => None,
    };
    let tls = tls(&mut table, url.as_ref().map(|url| &url.value), base);
    let max_concurrent_requests = table.whole("max_concurrent_requests");
    let health_check = table.table("health_check").and_then(health_check);
    let keep_alive = table.span("keep_alive");
    table.finish();
    let line = url.as_ref()?.line;
    let url = url?.value;
    Some(Upstream {
        address: url.address,
        tls,
        base_path: url.base_path,
        model: model.map(|model| model.value),
        api_key,
        keep_alive: keep_alive.unwrap_or(KEEP_ALIVE),
        max_concurrent_requests,
        health_check,
        any_address: any,
        line: FileLine(line),
    })
}

/// What an https upstream must prove; the keys are errors for any other.
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
