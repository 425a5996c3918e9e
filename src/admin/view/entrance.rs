//! Shapes of routes and endpoints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::status::FileErrorView;
use crate::config::Name;
use crate::openai::rules::Rule;

/// One route of `GET routes`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteView {
    /// Its name.
    pub name: String,
    /// Its path: `/chat`.
    pub path: String,
    /// URLs for clients, each ending in `/v1`.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Names that lead to it on `/v1`.
    pub models: Vec<String>,
    /// Names with parameters of their own that lead to it.
    #[serde(default)]
    pub names: Vec<NameView>,
    /// `instances` (workers of ours), `upstreams` (servers that someone else
    /// runs), `mixed`, or `empty`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Way in which requests are spread over several targets.
    #[serde(default)]
    pub load_balancing: String,
    /// `not_in_use` (disabled, or leads nowhere), `pending` (no target serves
    /// now: the next request starts one), `routing`, `degraded` (the same, while others
    /// of its targets failed), `down` (none of its servers answers), `failed`.
    #[serde(default)]
    pub status: String,
    /// `public`, `project NAME` or `admins`; where it is for one workspace, and
    /// ` of workspace NAME`.
    pub access: String,
    /// The one workspace that it is for; none: all.
    #[serde(default)]
    pub workspace: Option<String>,
    /// The project, where access is by one.
    #[serde(default)]
    pub project: Option<String>,
    /// True if the route serves.
    pub enabled: bool,
    /// True if the route was made for an instance that names no route.
    pub ephemeral: bool,
    /// Servers that it leads to: deployments and addresses.
    pub targets: Vec<String>,
    /// Instances that it leads to.
    #[serde(default)]
    pub instances: Vec<String>,
    /// The file that it stands in.
    pub file: String,
    /// Creation: through the API, else of its file, where the file system tells.
    /// Seconds since 1970.
    #[serde(default)]
    pub created: Option<u64>,
    /// Last change of its file, in seconds since 1970.
    #[serde(default)]
    pub updated: Option<u64>,
    /// Author of the last change through the API; `file` where that was not the last change.
    #[serde(default)]
    pub updated_by: Option<String>,
    /// Revision of the file's present text. Send it as `If-Match` with PUT and DELETE.
    #[serde(default)]
    pub revision: Option<String>,
    /// Errors of its file's present text, which is then not in effect.
    #[serde(default)]
    pub errors: Vec<FileErrorView>,
}

/// A name with parameters of its own.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NameView {
    /// Name that clients ask for.
    pub name: String,
    /// The model that it stands for.
    pub of: String,
    /// Rules for requests, as `max_tokens at most 4096`.
    pub rules: Vec<String>,
}

impl NameView {
    /// View of a name in effect.
    pub(in crate::admin) fn of(name: &Name) -> Self {
        Self {
            name: name.name.to_string(),
            of: name.of.to_string(),
            rules: name.rules.iter().map(Rule::words).collect(),
        }
    }
}

/// `GET routes/{name}/file`: what a route's file says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteFileView {
    /// The route.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Revision of the text; also the `ETag`. Send it as `If-Match` with PUT and DELETE.
    pub revision: String,
    /// The text, with its comments.
    pub text: String,
    /// Its tables as an object; PUT takes that form too.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
}

/// The answer to `PUT routes/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteChanged {
    /// The route.
    pub route: String,
    /// Its file.
    pub file: String,
    /// Revision of the new text.
    pub revision: String,
    /// Differences from before, key by key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub changed: String,
    /// The file before and after, for the audit.
    #[serde(skip)]
    pub(in crate::admin) text: Option<crate::store::audit::ChangedText>,
    /// Review of a try: the file before and after, and what would happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<super::Review>,
}

/// `POST routes/{name}/test`: sends a real request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTestRequest {
    /// The model; default: the route's first.
    pub model: Option<String>,
    /// Prompt of the test; default `Hello!`.
    pub prompt: Option<String>,
    /// True if a stopped or sleeping worker may be started for the test; default false.
    pub start: bool,
}

/// Outcome of a test.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteTest {
    /// True if the answer came whole.
    pub ok: bool,
    /// Steps in order; the last is where the test ended.
    pub steps: Vec<TestStep>,
    /// The first 2,000 characters of the answer.
    pub answer: Option<String>,
    /// Milliseconds of it all.
    pub total_ms: f64,
}

/// One step of a test.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TestStep {
    /// `connect`, `tls`, `send`, `head`, `first_token`, `end`, or where it was refused.
    pub step: String,
    /// True if the step went well.
    pub ok: bool,
    /// Milliseconds that it took.
    pub ms: f64,
    /// Observation, in words.
    pub detail: String,
}

/// One model endpoint of `GET endpoints`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EndpointView {
    /// Name that clients write in `model`.
    pub endpoint: String,
    /// Other names for the same; its figures are those of all names together.
    #[serde(default)]
    pub also: Vec<String>,
    /// Path or hub name of the weights; the name that an upstream knows.
    pub model: String,
    /// The base URL for clients, which ends in `/v1`.
    pub url: String,
    /// The route that leads to it.
    pub route: String,
    /// The project that its users need.
    pub project: Option<String>,
    /// Scope of its series: `deployment:INSTANCE/MODEL` or `route:NAME`.
    pub scope: String,
    /// Instances behind it.
    pub instances: Vec<String>,
    /// Number of workers or servers behind the endpoint.
    pub workers: u32,
    /// `active` and `idle` (of the Active tab), `loading` (of the Loading tab),
    /// `offloaded`, `stopped`, `failed`; `external` for upstreams.
    pub status: String,
    /// Seconds that it serves without a break.
    pub uptime_seconds: Option<u64>,
    /// Requests since the gateway started.
    pub requests: u64,
    /// Requests per minute, now.
    pub requests_per_minute: f64,
    /// Mean seconds of a whole answer, since the gateway started.
    pub latency_mean_seconds: Option<f64>,
    /// The 95th percentile of it, over the last hour; up to half a minute old.
    pub latency_p95_seconds: Option<f64>,
    /// Completion tokens per second, now.
    pub tokens_per_second: f64,
    /// Phase of a start, in words.
    pub phase: Option<String>,
    /// Percent of a start.
    pub percent: Option<u8>,
    /// Expected seconds until it serves.
    pub ready_in_seconds: Option<u64>,
}
