//! Every refusal of the gateway: the only place that knows status codes.
//!
//! A closed set. Each says its status, its type and code in OpenAI's form, its
//! outcome for metrics and log, and what the client should do next. Texts are
//! ours; an inner error's words never reach a client.

mod face;
pub mod lacking;
pub mod overlong;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION,
    UPGRADE, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};

use self::face::{Face, INVALID, SERVER};
use self::lacking::is_of_framework;
use crate::auth::Denied;
use crate::openai;
use crate::openai::api::{Api, ApiSet};
use crate::openai::foreign::Told;
use crate::openai::request::ScanError;
use crate::outbound::dial::Failure;
use crate::telemetry::metrics::Outcome;

/// Longest `Retry-After` that is ever sent: the SDKs give up or ignore longer ones.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Reason why a request was refused.
#[derive(Debug)]
pub enum Refusal {
    /// No valid token.
    Token(Denied),
    /// No such path.
    UnknownPath,
    /// The path exists, with other methods.
    Method {
        /// The `Allow` header.
        allow: &'static str,
    },
    /// The request target is of a form that a gateway must not serve.
    BadTarget,
    /// The request target is too long.
    TargetTooLong {
        /// Limit, in bytes.
        max: u32,
    },
    /// The head is too long.
    HeadTooLong {
        /// Limit, in bytes.
        max: u32,
    },
    /// No host is named, or more than one.
    Host,
    /// It came through this gateway before, or through too many.
    Loop,
    /// The connection was opened to another host than the request names.
    Misdirected,
    /// The page may not call us from a browser.
    Origin,
    /// The end of the body can be read in two ways.
    Framing,
    /// The model does not exist, or not for this token: the same words for both.
    UnknownModel(String),
    /// No response of this id, or not of this workspace.
    UnknownResponse(String),
    /// No `model` on a path where several could be meant.
    NoModel,
    /// The body can't be read.
    Body(ScanError),
    /// The body is not of the type that the path takes.
    ContentType {
        /// Type that the path takes.
        expected: &'static str,
    },
    /// The body is packed in a way that we can't undo.
    ContentEncoding,
    /// The body is not what its packing says.
    DamagedEncoding,
    /// The body is larger than allowed.
    TooLarge {
        /// Limit, in bytes.
        max: u64,
    },
    /// The body broke off or stood still.
    BodyTimeout,
    /// The path is for a `WebSocket`, and this is none.
    Upgrade,
    /// A `WebSocket` was asked for where there is none.
    NoWebSocket,
    /// The server of this model has no such endpoint.
    UnsupportedEndpoint,
    /// No server of this model serves this API, but these as far as is known.
    Unserved(ApiSet),
    /// All places are taken.
    Full {
        /// Number of places.
        limit: u32,
    },
    /// The token has used what it may use in a minute.
    Rate {
        /// Unit of the limit: requests or tokens.
        what: &'static str,
        /// Limit in a minute.
        limit: u32,
        /// Time until the request would fit.
        after: Duration,
    },
    /// The request asks for more tokens than its token may ever use at once.
    NeverFits {
        /// Tokens per minute.
        limit: u32,
    },
    /// Waited too long for a place.
    QueueTimeout,
    /// The worker was not ready in time.
    Loading {
        /// Expected time until it is.
        ready_in: Option<Duration>,
    },
    /// An operator stopped the deployment, or disabled the route.
    Stopped,
    /// The deployment failed and will not be tried again by itself.
    Failed,
    /// There is no target.
    Unreachable,
    /// The target can't be reached.
    Unreached(Failure),
    /// The server refuses the key that the gateway has for it.
    KeyRefused {
        /// Status that it answered.
        status: StatusCode,
    },
    /// The server answered with the address of another, which is no answer of these APIs
    /// and leads past the gateway.
    Redirected {
        /// Status that it answered.
        status: StatusCode,
    },
    /// The upstream broke off before its first byte.
    UpstreamBroke,
    /// The upstream was silent for too long.
    UpstreamTimeout,
    /// The request took longer than its deployment allows.
    TooLong {
        /// Longest that the deployment allows.
        max: Duration,
    },
    /// There is no memory or no connection left for it.
    Overloaded {
        /// True if others could have some: its client, token or workspace has its share.
        by_share: bool,
    },
    /// The token may not load and unload models.
    NotForLoading,
    /// A request is inside the model, or waits for it: it is not unloaded.
    InUse,
    /// The file of the model keeps it up: it is not unloaded.
    KeptUp,
    /// The gateway is about to end.
    ShuttingDown,
}

impl Refusal {
    /// Outcome of a request that was refused so.
    pub fn outcome(&self) -> Outcome {
        self.face().outcome
    }

    /// The code in the body, which is the reason in the log.
    pub fn code(&self) -> &'static str {
        self.face().code
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::UnknownModel(_) | Self::NoModel => Some("model"),
            Self::UnknownResponse(_) => Some("response_id"),
            Self::Body(error) => error.param(),
            _ => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Token(Denied::Missing) => "No API key was sent. Send your token in the header `Authorization: Bearer TOKEN`.".to_owned(),
            Self::Token(Denied::Expired) => "The token has expired. Ask for a new one.".to_owned(),
            Self::Token(Denied::Revoked) => "The token was revoked. Ask for a new one.".to_owned(),
            Self::Token(Denied::Invalid) => "The token is not valid here.".to_owned(),
            Self::Token(Denied::Forgotten) => "This gateway lost its record of revoked tokens, so tokens issued before are refused. Ask for a new one.".to_owned(),
            Self::Token(Denied::Early) => "The token is not valid yet: the clock of this gateway, or of whoever issued the token, is wrong.".to_owned(),
            Self::UnknownPath => "There is nothing at this path. The API stands under /v1, for example /v1/chat/completions.".to_owned(),
            Self::Method { allow } => format!("This path takes {allow} only."),
            Self::BadTarget => "The request target must be a plain path on this host.".to_owned(),
            Self::TargetTooLong { max } => format!("The request target is longer than the {max} bytes that are allowed."),
            Self::HeadTooLong { max } => format!("The headers are longer than the {max} bytes that are allowed: send fewer, or shorter ones."),
            Self::Loop => "This request has come through this gateway before, or through too many: one of its servers leads back here. Its operator must give the route another upstream.".to_owned(),
            Self::Misdirected => "This connection was opened to another host name: open a new one to the host that the request names.".to_owned(),
            Self::Origin => "Web pages of this origin may not call this gateway: its operator must name the origin under [cors].".to_owned(),
            Self::Host => "The request must name one host, in one Host header.".to_owned(),
            Self::Framing => "The length of the body must be told once: by Content-Length, or by `Transfer-Encoding: chunked`.".to_owned(),
            Self::UnknownModel(name) => format!("The model `{name}` does not exist or you do not have access to it."),
            Self::UnknownResponse(id) => format!("Response with id '{id}' not found."),
            Self::NoModel => "you must provide a model parameter: the name of one of the models of GET /v1/models".to_owned(),
            Self::Body(error) => error.to_string(),
            Self::ContentType { expected } => format!("This path takes a body of the type {expected}: set the header Content-Type to it."),
            Self::ContentEncoding => "A request body may be packed with gzip, zstd or deflate, once: send it so, or without Content-Encoding.".to_owned(),
            Self::DamagedEncoding => "The request body is not what its Content-Encoding says, or breaks off.".to_owned(),
            Self::TooLarge { max } => format!("The request body is larger than the {} that are allowed.", crate::units::Bytes(*max)),
            Self::BodyTimeout => "The request body did not arrive whole.".to_owned(),
            Self::Upgrade => "This path takes a WebSocket: open it by an upgrade of HTTP/1.1, version 13.".to_owned(),
            Self::NoWebSocket => "There is no WebSocket at this path: ask by POST, with `\"stream\": true` for events as they come.".to_owned(),
            Self::UnsupportedEndpoint => "This model does not serve this endpoint.".to_owned(),
            Self::Unserved(known) => unserved(*known),
            Self::Full { limit } => format!("The limit of {limit} concurrent requests is reached. Try again shortly."),
            Self::Rate { what, limit, after } => format!("The limit of {limit} {what} per minute of this token is reached. Try again in {} s.", whole_seconds(*after)),
            Self::NeverFits { limit } => format!("The request asks for more tokens than the {limit} per minute of this token: lower `max_tokens`."),
            Self::QueueTimeout => "No place became free in time. Try again later.".to_owned(),
            Self::Loading { ready_in: Some(rest) } => format!("The model is loading and should be ready in about {} s. Try again then.", whole_seconds(*rest)),
            Self::Loading { ready_in: None } => "The model is loading. Try again shortly.".to_owned(),
            Self::Stopped => "The model is stopped. Its operator must start it.".to_owned(),
            Self::Failed => "The model could not be started. Its operator must look into it.".to_owned(),
            Self::Unreachable | Self::Unreached(_) => "No server of this model can be reached.".to_owned(),
            Self::KeyRefused { .. } => "The server of this model refuses the gateway's key. The gateway's operator must look into it.".to_owned(),
            Self::Redirected { .. } => "The server of this model answered with a redirect, which the gateway does not follow. Its operator must look into it.".to_owned(),
            Self::UpstreamBroke => "The server of this model broke off before it answered.".to_owned(),
            Self::UpstreamTimeout => "The server of this model did not answer in time.".to_owned(),
            Self::TooLong { max } => format!("The answer took longer than the {} s that a request to this model may (`max_request_duration`): ask for less at once.", whole_seconds(*max)),
            Self::Overloaded { by_share: false } => "The gateway has no room for another request. Try again shortly.".to_owned(),
            Self::Overloaded { by_share: true } => "Your requests hold as much of the gateway's memory as they may: send fewer or smaller ones at once. Try again shortly.".to_owned(),
            Self::NotForLoading => "This token may use models, but not load or unload them: an admin makes one that may with `tidegate token create --may-load`.".to_owned(),
            Self::InUse => "The model is in use, by you or by others: it can be unloaded once no request is inside or waits for it.".to_owned(),
            Self::KeptUp => "The model is kept up by its operator (`keep` or `replicas`), and is not unloaded for a client.".to_owned(),
            Self::ShuttingDown => "The gateway is shutting down. Try again shortly.".to_owned(),
        }
    }

    /// The response, in the form that clients of `api` read.
    pub fn response(&self, api: Option<Api>) -> Response<Bytes> {
        let face = self.face();
        let message = self.message();
        let bytes = match api {
            Some(Api::Messages | Api::CountTokens) => {
                openai::error::anthropic_body(anthropic_kind(face.status), &message)
            }
            _ => openai::error::body(&message, face.kind, self.param(), Some(face.code)),
        };
        let mut response = Response::new(bytes);
        *response.status_mut() = face.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Token(Denied::Missing) => {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"tidegate\""),
                );
            }
            Self::Token(_) => {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"tidegate\", error=\"invalid_token\""),
                );
            }
            Self::Upgrade => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::NoWebSocket => {
                headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            }
            Self::Method { allow } => {
                headers.insert(http::header::ALLOW, HeaderValue::from_static(allow));
            }
            Self::ContentEncoding => {
                headers.insert(
                    ACCEPT_ENCODING,
                    HeaderValue::from_static("gzip, zstd, deflate"),
                );
            }
            _ => {}
        }
        retry_headers(&face, headers);
        response
    }
}

/// Says what a model serves instead.
fn unserved(known: ApiSet) -> String {
    let paths: Vec<_> = known.iter().map(|api| api.upstream_path("")).collect();
    if paths.is_empty() {
        return "This model does not serve this endpoint.".to_owned();
    }
    let paths = paths.join(", ");
    format!("This model does not serve this endpoint. It is known to serve {paths}.")
}

/// Adds the headers that the SDKs obey: seconds, milliseconds, and whether to try at all.
fn retry_headers(face: &Face, headers: &mut http::HeaderMap) {
    const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
    let Some(after) = face.retry else {
        if !mends_by_itself(face.code) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        return;
    };
    let after = spread(after).clamp(Duration::from_millis(100), RETRY_AFTER_MAX);
    let millis = u64::try_from(after.as_millis()).unwrap_or(60_000);
    headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1_000)));
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    headers.insert(SHOULD_RETRY, HeaderValue::from_static("true"));
}

/// True if the same request may well succeed at once, on another connection or when its
/// body comes whole: so nothing is said against it.
fn mends_by_itself(code: &str) -> bool {
    matches!(code, "misdirected_request" | "request_body_incomplete")
}

/// Says of a server's refusal that the same request comes to nothing again, where that is
/// sure and the server says nothing of it. There are clients (Claude Code) that repeat it
/// for minutes else.
pub fn put_no_retry(status: StatusCode, headers: &mut http::HeaderMap) {
    let may_pass = matches!(status.as_u16(), 408 | 409 | 421 | 423 | 425 | 429);
    if status.is_client_error() && !may_pass && !headers.contains_key(SHOULD_RETRY) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
}

/// Up to a quarter longer, by chance: clients refused together do not come back
/// together. The SDKs wait exactly as long as they are told.
fn spread(after: Duration) -> Duration {
    // A new state hashes with new keys.
    let roll = u32::try_from(RandomState::new().hash_one(()) % 1_024).unwrap_or_default();
    after + after / 4 * roll / 1_024
}

/// Seconds, so many that the time is over when they are.
fn whole_seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1_000).max(1)
}

/// The error types of Anthropic's API, by status.
fn anthropic_kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

/// The body of an upstream's error, in the form of `api`: as it came where it has that
/// form, else what it says; our words where it says nothing.
pub fn foreign(status: StatusCode, text: &Bytes, api: Api) -> Bytes {
    if openai::foreign::has_form(api, text) {
        return text.clone();
    }
    let kind = if api.is_anthropic() {
        anthropic_kind(status)
    } else {
        openai_kind(status)
    };
    let told = openai::foreign::read(text).filter(|told| !is_of_framework(status, told));
    openai::error::body_of(api, &told.unwrap_or_else(|| ours(status)), kind)
}

/// Our words for an error that says nothing.
fn ours(status: StatusCode) -> Told {
    let (message, code) = match status {
        StatusCode::NOT_FOUND => (
            "This model does not serve this endpoint.",
            "unsupported_endpoint",
        ),
        StatusCode::METHOD_NOT_ALLOWED => (
            "This model does not serve this endpoint with this method.",
            "method_not_allowed",
        ),
        _ => (
            "The server of this model answered with an error.",
            "upstream_error",
        ),
    };
    Told {
        message: message.to_owned(),
        code: Some(code.into()),
        ..Told::default()
    }
}

/// The error types of OpenAI's API, by status.
fn openai_kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => SERVER,
        _ => INVALID,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(refusal: &Refusal) -> (u64, u64) {
        let response = refusal.response(None);
        let number = |name| -> u64 {
            let value = response.headers().get(name).unwrap();
            value.to_str().unwrap().parse().unwrap()
        };
        (number("retry-after"), number("retry-after-ms"))
    }

    #[test]
    fn pauses_are_spread_upwards_and_never_above_a_minute() {
        let loading = |seconds| Refusal::Loading {
            ready_in: Some(Duration::from_secs(seconds)),
        };
        let all: Vec<_> = (0..100).map(|_| pause(&loading(20)).1).collect();
        assert!(
            all.iter().all(|ms| (20_000..25_000).contains(ms)),
            "{all:?}"
        );
        assert!(all.iter().min() < all.iter().max(), "{all:?}");
        for seconds in [58, 90, 100_000] {
            let (whole, millis) = pause(&loading(seconds));
            assert!(whole <= 60 && millis <= 60_000 && millis.div_ceil(1_000) == whole);
        }
        assert_eq!(pause(&loading(0)), (1, 100));
    }

    #[test]
    fn a_client_is_told_where_a_repetition_mends_nothing() {
        let told = |refusal: &Refusal| {
            let response = refusal.response(None);
            let value = response.headers().get(SHOULD_RETRY);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        for denied in [
            Denied::Missing,
            Denied::Expired,
            Denied::Revoked,
            Denied::Invalid,
        ] {
            assert_eq!(told(&Refusal::Token(denied)).as_deref(), Some("false"));
        }
        let unknown = Refusal::UnknownModel("m".to_owned());
        assert_eq!(told(&unknown).as_deref(), Some("false"));
        assert_eq!(
            told(&Refusal::TooLarge { max: 1 }).as_deref(),
            Some("false")
        );
        assert_eq!(told(&Refusal::Full { limit: 1 }).as_deref(), Some("true"));
        assert_eq!(told(&Refusal::Misdirected), None);
        assert_eq!(told(&Refusal::BodyTimeout), None);
        for (status, said) in [
            (400, true),
            (404, true),
            (409, false),
            (429, false),
            (500, false),
        ] {
            let mut headers = http::HeaderMap::new();
            put_no_retry(StatusCode::from_u16(status).unwrap(), &mut headers);
            assert_eq!(headers.contains_key(SHOULD_RETRY), said, "{status}");
        }
    }

    #[test]
    fn seconds_that_are_told_are_never_too_few() {
        let after = Duration::from_millis(29_001);
        let (what, limit) = ("requests", 2);
        let text = Refusal::Rate { what, limit, after }.message();
        assert!(text.ends_with("Try again in 30 s."), "{text}");
    }
}
