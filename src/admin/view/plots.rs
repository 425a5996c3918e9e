//! Shapes of the history, and of links that show a plot elsewhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET series` and `GET instances/{name}/series`: values over time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SeriesView {
    /// Scope: `instance:NAME`, `deployment:INSTANCE/MODEL`, `route:NAME`, `gpu:0`, `host`.
    pub scope: String,
    /// Start of the span, in seconds since 1970.
    pub since: u64,
    /// End of the span.
    pub until: u64,
    /// Series, one for each metric that was asked for, in that order.
    pub series: Vec<PlotSeries>,
}

/// One line of a plot. A moment at which nothing was recorded is left out: where
/// two times are more than `step` apart, there is a gap.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlotSeries {
    /// `requests`, `latency_p95`, `cpu`, …; all of them: `GET metrics`.
    pub metric: String,
    /// Unit of the values: `requests/s`, `s`, `bytes`, …
    pub unit: String,
    /// Seconds between two points.
    pub step: u64,
    /// Start of each step, in seconds since 1970.
    pub times: Vec<u64>,
    /// The value of each step.
    pub values: Vec<f64>,
}

/// `GET marks`: what happened over a span, for plots to mark.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MarksView {
    /// The newest of the span, the oldest first.
    pub marks: Vec<MarkView>,
    /// Older ones of the span that are left out; of edits at most 500 are counted.
    pub left_out: usize,
    /// Starts, wakes, evictions and failures before are not known, in seconds since 1970:
    /// the gateway was new then, or older ones were pushed out.
    pub known_since: u64,
}

/// One mark of a plot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MarkView {
    /// Seconds since 1970.
    pub at: u64,
    /// `start`, `wake`, `eviction`, `failure`, `edit`.
    pub kind: String,
    /// The deployment of it; of an edit `instance:NAME` or `route:NAME`.
    pub of: String,
    /// The happening and its reason; of an edit the changes.
    pub text: String,
    /// Author of the edit.
    pub by: Option<String>,
}

/// One metric of `GET metrics`: what `series` can be asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MetricView {
    /// Its name.
    pub name: String,
    /// A heading for people: `Latency, 95th percentile`.
    pub title: String,
    /// Unit of its values.
    pub unit: String,
    /// Kinds of scope that it is recorded of: `instance`, `deployment`, `route`, `gpu`, `host`.
    pub scopes: Vec<String>,
}

/// `POST embeds`: a link that shows one plot to whoever has it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// Scope of the plot: `instance:NAME` and so on.
    pub scope: String,
    /// Lines of the plot; one unit for all.
    pub metrics: Vec<String>,
    /// The span that it shows, back from now: `"1h"`, `"2d"`.
    #[serde(default)]
    pub span: Option<String>,
    /// Life of the link: `"90d"`; default 30 days, at most a year.
    #[serde(default)]
    pub ttl: Option<String>,
    /// A heading; default: made of metric and scope.
    #[serde(default)]
    pub title: Option<String>,
}

/// A link that shows one plot, read-only, until it ends or is revoked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EmbedView {
    /// Its id, for `DELETE embeds/{id}`.
    pub id: String,
    /// Scope of the plot.
    pub scope: String,
    /// Lines of the plot.
    pub metrics: Vec<String>,
    /// The span that it shows, in seconds back from now.
    pub span_seconds: u64,
    /// The heading.
    pub title: String,
    /// Person who made the link.
    pub created_by: String,
    /// Their tenant; none on the socket and of a one-time link.
    pub created_by_workspace: Option<String>,
    /// Creation, in seconds since 1970.
    pub created: u64,
    /// End of the link, in seconds since 1970: not later than that of its maker's token.
    /// The link ends at once when that is revoked, or may no longer see this.
    pub expires: u64,
    /// The live page, for iframes: shown to the link's maker, and to admins.
    pub page_url: String,
    /// The picture, for places that take only pictures.
    pub svg_url: String,
    /// `<iframe …></iframe>`, to be pasted.
    pub html: String,
    /// `![title](…)`, to be pasted.
    pub markdown: String,
}
