//! The history, as plots ask for it.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::Caller;
use crate::admin::error::{ApiError, on_disk};
use crate::admin::view::{ErrorView, MetricView, PlotSeries, SeriesView};
use crate::admin::{Admin, scope};
use crate::names::{InstanceName, ModelName};
use crate::store::history::History;
use crate::telemetry::history::{Count, Gauge, Metric, Quantile, Scope, Times};
use crate::time::unix_seconds;
use crate::units::Span;

/// Most metrics of one call.
const METRICS_MAX: usize = 32;
/// The span where none is named, in seconds: an hour.
const SPAN: u64 = 3_600;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(of_scope))
        .routes(routes!(of_instance))
        .routes(routes!(metrics))
}

/// Query of the history.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct SeriesQuery {
    /// One metric or several, with commas: `requests,errors`. See `GET metrics`.
    metric: String,
    /// Start: seconds since 1970, or a span back from now as `1h`, `2d`. Default `1h`.
    since: Option<String>,
    /// End; default now.
    until: Option<String>,
    /// Seconds, or a span, of each step; it is made longer where the resolution is
    /// coarser or there would be more than 2,000 points. Default: as fine as there is.
    step: Option<String>,
    /// Scope, where the path does not say: `instance:NAME`, `deployment:INSTANCE/MODEL`,
    /// `route:NAME`, `gpu:0`, `host`.
    scope: Option<String>,
    /// One deployment of the instance, by its endpoint name.
    deployment: Option<String>,
}

/// Contents of a plot, parsed.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Ask {
    pub(in crate::admin) scope: Scope,
    pub(in crate::admin) metrics: Vec<Metric>,
    pub(in crate::admin) since: u64,
    pub(in crate::admin) until: u64,
    pub(in crate::admin) step: u64,
}

/// Values over time of any scope that the caller sees.
#[utoipa::path(get, path = "/series", tag = "history", params(SeriesQuery), responses(
    (status = 200, body = SeriesView), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView)))]
async fn of_scope(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<SeriesQuery>,
) -> Result<Response, ApiError> {
    let text = query.scope.clone().unwrap_or_else(|| "host".to_owned());
    let scope = text
        .parse::<Scope>()
        .map_err(|error| ApiError::bad(&error))?;
    scope::check(&admin, &caller, &scope)?;
    answer(&admin, query.ask(scope)?).await
}

/// Values over time of an instance, or of one deployment of it.
#[utoipa::path(get, path = "/instances/{name}/series", tag = "history",
    params(("name" = String, Path, description = "The instance"), SeriesQuery), responses(
    (status = 200, body = SeriesView), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView), (status = 404, body = ErrorView)))]
async fn of_instance(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<SeriesQuery>,
) -> Result<Response, ApiError> {
    let name = InstanceName::new(&name).map_err(|error| ApiError::bad(&error))?;
    scope::instance(&admin.catalog.load(), name.as_str())?;
    let scope = match &query.deployment {
        None => Scope::Instance(name),
        Some(endpoint) => {
            let endpoint = ModelName::new(endpoint).map_err(|error| ApiError::bad(&error))?;
            Scope::Deployment(crate::names::DeploymentId::new(&name, &endpoint))
        }
    };
    scope::check(&admin, &caller, &scope)?;
    answer(&admin, query.ask(scope)?).await
}

impl SeriesQuery {
    fn ask(&self, scope: Scope) -> Result<Ask, ApiError> {
        let now = unix_seconds();
        // An answer ends before its last second: the one that runs is part of it.
        let until = moment(self.until.as_deref(), now, "until")?.unwrap_or(now + 1);
        let since = moment(self.since.as_deref(), now, "since")?;
        Ok(Ask {
            scope,
            metrics: parse_metrics(self.metric.split(','))?,
            since: since.unwrap_or_else(|| until.saturating_sub(SPAN)),
            until,
            step: span(self.step.as_deref(), "step")?.unwrap_or(0),
        })
    }
}

/// Metrics by their names.
pub(in crate::admin) fn parse_metrics<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Metric>, ApiError> {
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    let parsed = names.take(METRICS_MAX + 1).map(str::parse::<Metric>);
    let metrics: Vec<Metric> = parsed
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::bad(&error))?;
    match metrics.len() {
        0 => Err(ApiError::bad_text(
            "name a metric: ?metric=requests, or several with commas; GET metrics lists them",
        )),
        1..=METRICS_MAX => Ok(metrics),
        _ => Err(ApiError::bad_text(format!(
            "ask for at most {METRICS_MAX} metrics at once"
        ))),
    }
}

/// A moment: seconds since 1970, or a span back from now.
pub(super) fn moment(text: Option<&str>, now: u64, key: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Some(seconds));
    }
    let back = text.trim_start_matches('-').parse::<Span>();
    back.map(|span| Some(now.saturating_sub(span.0.as_secs())))
        .map_err(|error| ApiError::bad_text(format!("{key}: {error}; or write seconds since 1970")))
}

/// A length of time in seconds.
pub(in crate::admin) fn span(text: Option<&str>, key: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Some(seconds));
    }
    text.parse::<Span>()
        .map(|span| Some(span.0.as_secs()))
        .map_err(|error| ApiError::bad_text(format!("{key}: {error}")))
}

/// The answer is written where it was read: thousands of numbers would hold up the
/// requests that share the runtime's threads.
async fn answer(admin: &Admin, ask: Ask) -> Result<Response, ApiError> {
    let history = std::sync::Arc::clone(&admin.history);
    let work = move || Ok(Json(read(&history, &ask)?).into_response());
    on_disk(work).await?
}

/// Reads what a plot shows. Blocks on the disk.
pub(in crate::admin) fn read(history: &History, ask: &Ask) -> Result<SeriesView, ApiError> {
    let Ask {
        scope,
        since,
        until,
        step,
        ..
    } = ask;
    let mut series = Vec::with_capacity(ask.metrics.len());
    for metric in &ask.metrics {
        let answered = history
            .query(scope, *metric, *since, *until, *step)
            .map_err(|error| ApiError::internal(&error))?;
        let (times, values) = answered.into_iter().unzip();
        series.push(PlotSeries {
            metric: metric.to_string(),
            unit: metric.unit().to_owned(),
            step: history.step(*since, *until, *step),
            times,
            values,
        });
    }
    Ok(SeriesView {
        scope: scope.to_string(),
        since: *since,
        until: *until,
        series,
    })
}

/// Metrics that `series` can be asked for.
#[utoipa::path(get, path = "/metrics", tag = "history", responses(
    (status = 200, body = Vec<MetricView>), (status = 401, body = ErrorView)))]
async fn metrics(_caller: Caller) -> Json<Vec<MetricView>> {
    let view = |metric: Metric| MetricView {
        name: metric.to_string(),
        title: title(metric),
        unit: metric.unit().to_owned(),
        scopes: scopes(metric).iter().map(ToString::to_string).collect(),
    };
    Json(Metric::all().map(view).collect())
}

/// A heading for people.
pub(in crate::admin) fn title(metric: Metric) -> String {
    let times = |times: Times| match times {
        Times::Latency => "Latency",
        Times::FirstToken => "Time to first token",
    };
    let text = match metric {
        Metric::Count(Count::Requests) => "Requests",
        Metric::Count(Count::PromptTokens) => "Prompt tokens",
        Metric::Count(Count::CompletionTokens) => "Completion tokens",
        Metric::Count(Count::ColdStarts) => "Cold starts",
        Metric::Count(Count::Ended(outcome)) => {
            return format!("Errors: {}", outcome.as_str().replace('_', " "));
        }
        Metric::Errors => "Errors",
        Metric::Quantile(kind, Quantile::P50) => return format!("{}, median", times(kind)),
        Metric::Quantile(kind, Quantile::P95) => {
            return format!("{}, 95th percentile", times(kind));
        }
        Metric::Quantile(kind, Quantile::P99) => {
            return format!("{}, 99th percentile", times(kind));
        }
        Metric::Gauge(gauge) => match gauge {
            Gauge::InFlight => "Requests in flight",
            Gauge::Queued => "Requests waiting",
            Gauge::Cpu => "CPU",
            Gauge::Memory => "Memory",
            Gauge::MemoryResident => "Memory, resident",
            Gauge::DiskRead => "Disk, read",
            Gauge::DiskWritten => "Disk, written",
            Gauge::NetworkReceived => "Network, received",
            Gauge::NetworkSent => "Network, sent",
            Gauge::GpuUtilisation => "GPU utilisation",
            Gauge::GpuMemory => "GPU memory",
            Gauge::GpuTemperature => "GPU temperature",
            Gauge::GpuPower => "GPU power",
        },
    };
    text.to_owned()
}

fn scopes(metric: Metric) -> &'static [&'static str] {
    match metric {
        Metric::Gauge(
            Gauge::GpuUtilisation | Gauge::GpuMemory | Gauge::GpuTemperature | Gauge::GpuPower,
        ) => &["gpu"],
        Metric::Gauge(Gauge::NetworkReceived | Gauge::NetworkSent) => &["host"],
        Metric::Gauge(Gauge::MemoryResident) => &["instance", "deployment"],
        Metric::Gauge(Gauge::Cpu | Gauge::Memory | Gauge::DiskRead | Gauge::DiskWritten) => {
            &["instance", "deployment", "host"]
        }
        Metric::Count(Count::ColdStarts) => &["instance", "deployment", "host"],
        _ => &["instance", "deployment", "route", "host"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_seconds_or_a_span_back() {
        for (text, expected) in [
            (None, None),
            (Some(""), None),
            (Some("1700000000"), Some(1_700_000_000)),
            (Some("1h"), Some(1_000_000 - 3_600)),
            (Some("-2d"), Some(1_000_000 - 172_800)),
        ] {
            assert_eq!(
                moment(text, 1_000_000, "since").unwrap(),
                expected,
                "{text:?}"
            );
        }
        let error = moment(Some("yesterday"), 0, "since").unwrap_err();
        assert!(error.message.starts_with("since: "), "{error:?}");
    }

    #[test]
    fn metrics_are_named_and_bounded() {
        assert_eq!(
            parse_metrics("requests, latency_p95,".split(','))
                .unwrap()
                .len(),
            2
        );
        assert!(parse_metrics("".split(',')).is_err());
        assert!(parse_metrics("what".split(',')).is_err());
        let many = "requests,".repeat(METRICS_MAX + 1);
        assert!(parse_metrics(many.split(',')).is_err());
    }
}
