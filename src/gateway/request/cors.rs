//! Calls from web pages of other origins (CORS), as far as `[cors]` allows them.
//!
//! Off unless an origin is named. A preflight is answered here, without a token:
//! it can't carry one. What servers say of CORS themselves never reaches a
//! browser: only this gateway knows who may call it.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::config::Cors;
use crate::config::edge::Origins;
use crate::gateway::refusal::Refusal;

/// Request headers of the SDKs of OpenAI and Anthropic; beside these, every one
/// that begins with `x-stainless-`.
const OF_SDKS: [&str; 18] = [
    "accept",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "anthropic-version",
    "api-key",
    "authorization",
    "content-type",
    "idempotency-key",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-api-key",
    "x-request-id",
    "x-session-id",
    "x-requested-with",
];

/// Response headers that a page may read.
const EXPOSED: &str = "x-request-id, retry-after, retry-after-ms, x-should-retry, \
     x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
     x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, \
     x-tidegate-cold-start-ms, x-tidegate-served-by";

/// The origin of a request from a page, as far as it is answered.
#[derive(Debug)]
pub enum Page {
    /// It does not come from a page, or CORS is off.
    None,
    /// From a page that may not call us.
    Stranger,
    /// From a page that may: the value that tells its browser.
    Allowed(HeaderValue),
}

impl Page {
    /// Reads it in the headers.
    pub fn read(cors: &Cors, headers: &HeaderMap) -> Self {
        let Some(origin) = headers.get(ORIGIN) else {
            return Self::None;
        };
        match &cors.origins {
            Origins::None => Self::None,
            Origins::Any => Self::Allowed(HeaderValue::from_static("*")),
            Origins::These(known) => {
                let same = |known: &crate::config::edge::Origin| origin == known.0.as_str();
                if known.iter().any(same) {
                    Self::Allowed(origin.clone())
                } else {
                    Self::Stranger
                }
            }
        }
    }
}

/// True if this is the question of a browser, ahead of a request.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight of a page. `None` while CORS is off.
///
/// # Errors
///
/// [`Refusal::Origin`] to a page that may not call us.
pub fn preflight(
    cors: &Cors,
    page: &Page,
    headers: &HeaderMap,
) -> Result<Option<Response<Bytes>>, Refusal> {
    match page {
        Page::None => return Ok(None),
        Page::Stranger => return Err(Refusal::Origin),
        Page::Allowed(_) => {}
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST, DELETE");
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS);
    let names = asked.iter().filter_map(|value| value.to_str().ok());
    let allowed: Vec<String> = names
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| may_send(cors, name))
        .collect();
    if let Ok(value) = HeaderValue::try_from(allowed.join(", "))
        && !allowed.is_empty()
    {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, value);
    }
    answer.insert(
        ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from(cors.max_age.as_secs()),
    );
    let vary = "Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.insert(VARY, HeaderValue::from_static(vary));
    Ok(Some(response))
}

fn may_send(cors: &Cors, name: &str) -> bool {
    OF_SDKS.contains(&name)
        || name.starts_with("x-stainless-")
        || cors
            .headers
            .iter()
            .any(|known| known == name || known == "*")
}

/// Marks a response for the page's browser, and takes out what a server said.
pub fn mark(cors: &Cors, page: Page, headers: &mut HeaderMap) {
    let allowed = match page {
        Page::None => return,
        Page::Stranger => None,
        Page::Allowed(value) => Some(value),
    };
    headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(allowed) = allowed else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    let exposed = HeaderValue::from_static(EXPOSED);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
}
