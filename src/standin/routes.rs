//! The routes: which exist, for which kind of model, behind which guard.
//!
//! One table; the log, the answers 404 and 405, and the key all follow from it.

use http::Method;

use super::args::{Args, ModelKind};
use super::error::ApiError;

/// Target of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Something to report.
    Report(Report),
    /// Something to compute; slow, refused or hung where faults or sleep say so.
    Infer(Infer),
    /// A connection that becomes a WebSocket.
    Realtime,
    /// Something to change in development mode.
    Dev(Dev),
}

/// Reports and the like; they need no body. Each is named after its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Health,
    Ping,
    Version,
    Models,
    Metrics,
    Load,
    StoredResponse,
    CancelledResponse,
    IsSleeping,
    IsPaused,
    WorldSize,
    WeightInfo,
    ServerInfo,
    KvEventSources,
}

/// Task of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Infer {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
    /// `/v1/messages/count_tokens`
    CountTokens,
    /// `/tokenize`
    Tokenize,
    /// `/detokenize`
    Detokenize,
    /// `/v1/embeddings`
    Embeddings,
    /// `/pooling`
    Pooling,
    /// `/score`, `/v1/score`
    Score,
    /// `/rerank`, `/v1/rerank`, `/v2/rerank`
    Rerank,
    /// `/v2/embed`
    Embed,
    /// `/v1/audio/transcriptions`
    Transcriptions,
    /// `/v1/audio/translations`
    Translations,
    /// `/classify`
    Classify,
    /// `/invocations`: whatever the body looks like
    Invocations,
}

/// Routes of development mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dev {
    /// `/sleep`
    Sleep,
    /// `/wake_up`
    WakeUp,
    /// `/pause`
    Pause,
    /// `/resume`
    Resume,
    /// `/collective_rpc`
    CollectiveRpc,
    /// `/reset_prefix_cache`
    ResetPrefixCache,
    /// `/reset_mm_cache`, `/reset_encoder_cache`
    ResetOther,
    /// `/sim/fault`: not vLLM's
    Fault,
}

/// Servers that have a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// Every server.
    Always,
    /// Models of this kind.
    Kind(ModelKind),
    /// Models that make no text.
    Pooling,
    /// Servers in development mode.
    DevMode,
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;

#[rustfmt::skip]
const TABLE: [(&str, Method, On, Route); 45] = [
    ("/load", GET, On::Always, Route::Report(Report::Load)),
    ("/version", GET, On::Always, Route::Report(Report::Version)),
    ("/kv_event_sources", GET, On::Always, Route::Report(Report::KvEventSources)),
    ("/health", GET, On::Always, Route::Report(Report::Health)),
    ("/metrics", GET, On::Always, Route::Report(Report::Metrics)),
    ("/tokenize", POST, On::Always, Route::Infer(Infer::Tokenize)),
    ("/detokenize", POST, On::Always, Route::Infer(Infer::Detokenize)),
    ("/v1/models", GET, On::Always, Route::Report(Report::Models)),
    ("/ping", GET, On::Always, Route::Report(Report::Ping)),
    ("/ping", POST, On::Always, Route::Report(Report::Ping)),
    ("/invocations", POST, On::Always, Route::Infer(Infer::Invocations)),
    ("/reset_prefix_cache", POST, On::DevMode, Route::Dev(Dev::ResetPrefixCache)),
    ("/reset_mm_cache", POST, On::DevMode, Route::Dev(Dev::ResetOther)),
    ("/reset_encoder_cache", POST, On::DevMode, Route::Dev(Dev::ResetOther)),
    ("/collective_rpc", POST, On::DevMode, Route::Dev(Dev::CollectiveRpc)),
    ("/server_info", GET, On::DevMode, Route::Report(Report::ServerInfo)),
    ("/sleep", POST, On::DevMode, Route::Dev(Dev::Sleep)),
    ("/wake_up", POST, On::DevMode, Route::Dev(Dev::WakeUp)),
    ("/is_sleeping", GET, On::DevMode, Route::Report(Report::IsSleeping)),
    ("/pause", POST, On::DevMode, Route::Dev(Dev::Pause)),
    ("/resume", POST, On::DevMode, Route::Dev(Dev::Resume)),
    ("/is_paused", GET, On::DevMode, Route::Report(Report::IsPaused)),
    ("/weight_info", GET, On::DevMode, Route::Report(Report::WeightInfo)),
    ("/get_world_size", GET, On::DevMode, Route::Report(Report::WorldSize)),
    ("/sim/fault", POST, On::DevMode, Route::Dev(Dev::Fault)),
    ("/v1/chat/completions", POST, On::Kind(ModelKind::Generate), Route::Infer(Infer::Chat)),
    ("/v1/responses", POST, On::Kind(ModelKind::Generate), Route::Infer(Infer::Responses)),
    ("/v1/responses/{response_id}", GET, On::Kind(ModelKind::Generate), Route::Report(Report::StoredResponse)),
    ("/v1/responses/{response_id}/cancel", POST, On::Kind(ModelKind::Generate), Route::Report(Report::CancelledResponse)),
    ("/v1/completions", POST, On::Kind(ModelKind::Generate), Route::Infer(Infer::Completions)),
    ("/v1/messages", POST, On::Kind(ModelKind::Generate), Route::Infer(Infer::Messages)),
    ("/v1/messages/count_tokens", POST, On::Kind(ModelKind::Generate), Route::Infer(Infer::CountTokens)),
    ("/pooling", POST, On::Pooling, Route::Infer(Infer::Pooling)),
    ("/v1/embeddings", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Embeddings)),
    ("/v2/embed", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Embed)),
    ("/v1/audio/transcriptions", POST, On::Kind(ModelKind::Transcribe), Route::Infer(Infer::Transcriptions)),
    ("/v1/audio/translations", POST, On::Kind(ModelKind::Transcribe), Route::Infer(Infer::Translations)),
    ("/v1/realtime", GET, On::Kind(ModelKind::Transcribe), Route::Realtime),
    ("/score", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Score)),
    ("/v1/score", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Score)),
    ("/rerank", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Rerank)),
    ("/v1/rerank", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Rerank)),
    ("/v2/rerank", POST, On::Kind(ModelKind::Embed), Route::Infer(Infer::Rerank)),
    ("/classify", POST, On::Kind(ModelKind::Classify), Route::Infer(Infer::Classify)),
    ("/v1/classify", POST, On::Kind(ModelKind::Classify), Route::Infer(Infer::Classify)),
];

impl On {
    fn holds(self, args: &Args) -> bool {
        match self {
            Self::Always => true,
            Self::Kind(kind) => args.kind == kind,
            Self::Pooling => matches!(args.kind, ModelKind::Embed | ModelKind::Classify),
            Self::DevMode => args.dev_mode,
        }
    }
}

/// Paths and methods that this server has.
pub(super) fn all(args: &Args) -> impl Iterator<Item = (&'static str, &'static Method)> {
    const { &TABLE }
        .iter()
        .filter(|(_, _, on, _)| on.holds(args))
        .map(|(path, method, _, _)| (*path, method))
}

/// Reason for which no route was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// No such path here.
    Path,
    /// The path wants this method.
    Method(&'static str),
}

/// Finds a route.
///
/// # Errors
///
/// [`NoRoute`] when the path or the method is not served.
pub(super) fn find(args: &Args, method: &Method, path: &str) -> Result<Route, NoRoute> {
    let mut wrong = NoRoute::Path;
    for (pattern, wanted, on, route) in const { &TABLE } {
        if !on.holds(args) || !matches(pattern, path) {
            continue;
        }
        if wanted == method {
            return Ok(*route);
        }
        wrong = NoRoute::Method(if *wanted == GET { "GET" } else { "POST" });
    }
    Err(wrong)
}

/// True if a path fits a pattern; `{…}` stands for one segment.
fn matches(pattern: &str, path: &str) -> bool {
    if !pattern.contains('{') {
        return pattern == path;
    }
    let mut parts = path.split('/');
    pattern.split('/').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| wanted == part || wanted.starts_with('{') && !part.is_empty())
    }) && parts.next().is_none()
}

/// True if a path is behind the key: vLLM guards only these beginnings.
pub(super) fn guarded(path: &str) -> bool {
    ["/v1", "/v2", "/inference", "/cohere"]
        .iter()
        .any(|start| path.starts_with(start))
}

impl From<NoRoute> for ApiError {
    fn from(wrong: NoRoute) -> Self {
        match wrong {
            NoRoute::Path => Self::not_found(),
            NoRoute::Method(_) => Self::Detail(
                http::StatusCode::METHOD_NOT_ALLOWED,
                "Method Not Allowed".to_owned(),
            ),
        }
    }
}
