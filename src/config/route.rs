//! `[route]` and `[[upstream]]`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::edge::host_name;
use super::problems::cut;
use super::reader::{Found, Reader};
use super::target::{self, TargetsDraft};
use super::{
    Access, Ejection, Inputs, LoadBalancing, Retries, RouteLimits, StreamUsage, Streams, Timeouts,
    Upstream, balancing, inputs, upstream,
};
use crate::names::{ModelName, Project, RouteName, Workspace};

/// A route as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RouteDraft {
    pub(super) name: Found<RouteName>,
    /// Without slashes.
    pub(super) path: Found<String>,
    /// In lower case.
    pub(super) host: Option<Found<String>>,
    /// `None` when the file says nothing: then the route's name, if that leads
    /// to one model.
    pub(super) models: Option<Found<Vec<ModelName>>>,
    /// `None` when the file says nothing: then that of its instances.
    pub(super) workspace: Option<Found<Workspace>>,
    /// `None` when the file says nothing: then that of its instances.
    pub(super) access: Option<Found<Access>>,
    pub(super) description: Option<String>,
    pub(super) enabled: bool,
    pub(super) limits: RouteLimits,
    pub(super) timeouts: Timeouts,
    pub(super) stream: Streams,
    pub(super) load_balancing: LoadBalancing,
    pub(super) retries: Retries,
    pub(super) ejection: Ejection,
    pub(super) inputs: Found<Inputs>,
    pub(super) keep_alive_max: Option<Duration>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// The list that its names lead to.
    pub(super) targets: Option<TargetsDraft>,
}

/// Most upstreams of a route, and most names that lead to it.
const ITEMS_MAX: usize = 256;

/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 256;

/// First path segments that mean something else on the gateway's listener.
const RESERVED: [&str; 32] = [
    ".well-known",
    "admin",
    "api",
    "audio",
    "batches",
    "chat-completions",
    "classify",
    "collective_rpc",
    "completions",
    "detokenize",
    "embeddings",
    "files",
    "health",
    "healthz",
    "images",
    "is_sleeping",
    "livez",
    "load",
    "messages",
    "metrics",
    "models",
    "ping",
    "pooling",
    "ready",
    "readyz",
    "rerank",
    "responses",
    "score",
    "sleep",
    "tokenize",
    "version",
    "wake_up",
];

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            max_concurrent_requests: None,
            queue_requests_max: 0,
            queue_wait_max: Duration::from_secs(30),
            requests_per_minute: None,
            tokens_per_minute: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_mins(5),
            idle: Duration::from_mins(2),
            cold_start: Duration::from_mins(10),
            connect: Duration::from_secs(5),
            tls_handshake: Duration::from_secs(5),
        }
    }
}

/// Reason why a path may not stand for a route; `None` where it may.
pub(super) fn segment_fault(segment: &str) -> Option<String> {
    let lower = segment.to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    if segment.is_empty() || segment.len() > 63 || !segment.bytes().all(plain) {
        return Some(
            "write one segment of 1 to 63 letters, digits, '.', '_', '-' and '~', as \"/chat\""
                .to_owned(),
        );
    }
    let version = lower
        .strip_prefix('v')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    if version || lower.starts_with('.') || RESERVED.contains(&lower.as_str()) {
        return Some(format!(
            "\"/{segment}\" is reserved: write another path, as \"/{}-chat\"",
            lower.trim_start_matches('.')
        ));
    }
    None
}

/// Reads `[route]`; `None` when something was wrong and noted.
pub(super) fn read(
    mut table: Reader<'_>,
    (upstreams, targets): (Vec<Reader<'_>>, Vec<Reader<'_>>),
    base: &Path,
) -> Option<RouteDraft> {
    let name = table.parsed::<RouteName>("name");
    table.missing_unless(name.is_some(), "name", "a name, as \"chat\"");
    let path = path(&mut table, name.as_ref());
    let models = table.parsed_list::<ModelName>("models");
    if let Some(models) = &models {
        no_twins(&table, models);
    }
    let workspace = table.parsed::<Workspace>("workspace");
    let access = access(&mut table);
    let description = description(&mut table);
    let enabled = table.flag("enabled").is_none_or(|flag| flag.value);
    let limits = limits(&mut table);
    let timeouts = table.table("timeouts").map(timeouts).unwrap_or_default();
    let stream = table.table("stream").map(streams).unwrap_or_default();
    let host = host(&mut table);
    let load_balancing = table.table("load_balancing");
    let load_balancing = load_balancing.map(balancing::load_balancing);
    let load_balancing = load_balancing.unwrap_or_default();
    let retries = table.table("retries").map(balancing::retries);
    let ejection = table.table("ejection").map(balancing::ejection);
    let inputs = inputs::read(&mut table);
    let keep_alive_max = table.span("keep_alive_max");
    let (upstreams, targets) = servers(&mut table, upstreams, targets, (&load_balancing, base));
    table.finish();
    Some(RouteDraft {
        name: name?,
        path: path?,
        host,
        models,
        workspace,
        access,
        description,
        enabled,
        limits,
        timeouts,
        stream,
        load_balancing,
        retries: retries.unwrap_or_default(),
        ejection: ejection.unwrap_or_default(),
        inputs,
        keep_alive_max,
        upstreams,
        targets,
    })
}

/// Reads what the route leads to beside instances: servers of others, and the list.
fn servers(
    table: &mut Reader<'_>,
    upstreams: Vec<Reader<'_>>,
    targets: Vec<Reader<'_>>,
    (load_balancing, base): (&LoadBalancing, &Path),
) -> (Vec<Arc<Upstream>>, Option<TargetsDraft>) {
    let is_listed = !targets.is_empty();
    let mut of_workers = ["media", "chat_template", "keep_alive_max"].into_iter();
    let of_workers = of_workers.find(|key| table.has(key));
    if let (Some(key), false, false) = (of_workers, upstreams.is_empty(), is_listed) {
        let message = "this has an effect on workers of ours only, and what stands in [[upstream]] is someone else's: take it out";
        table.wrong(table.line_of(key), key, message);
    }
    if let Some(extra) = upstreams.get(ITEMS_MAX) {
        let message = format!("a route has at most {ITEMS_MAX} upstreams: take some out");
        table.problems.add(extra.line, "upstream", message);
    }
    for upstream in &upstreams {
        target::check_name(upstream, is_listed);
    }
    let upstreams: Vec<Arc<Upstream>> = upstreams
        .into_iter()
        .filter_map(|table| upstream::read(table, base))
        .map(Arc::new)
        .collect();
    let targets = target::read(table.table("targets"), targets, load_balancing);
    if let Some(targets) = &targets {
        target::check_reached(&upstreams, targets, table);
    }
    (upstreams, targets)
}

fn description(table: &mut Reader<'_>) -> Option<String> {
    let text = table.text("description")?;
    let odd = text.value.chars().any(char::is_control);
    if text.value.is_empty() || text.value.chars().count() > DESCRIPTION_CHARS_MAX || odd {
        let message = "write 1 to 256 characters on one line, as \"For code, up to 32k tokens\"";
        table.wrong(text.line, "description", message);
        return None;
    }
    Some(text.value.to_owned())
}

fn path(table: &mut Reader<'_>, name: Option<&Found<RouteName>>) -> Option<Found<String>> {
    let Some(path) = table.text("path") else {
        let name = name?;
        if let Some(fault) = segment_fault(name.value.as_str()) {
            let message = format!("the default, the route's name, can't be used: {fault}");
            table.wrong(name.line, "path", message);
            return None;
        }
        return Some(Found {
            value: name.value.as_str().to_owned(),
            line: name.line,
        });
    };
    let Some(segment) = path.value.strip_prefix('/') else {
        let message = format!("begin with a slash: write \"/{}\"", cut(path.value));
        table.wrong(path.line, "path", message);
        return None;
    };
    if let Some(fault) = segment_fault(segment) {
        table.wrong(path.line, "path", fault);
        return None;
    }
    Some(Found {
        value: segment.to_owned(),
        line: path.line,
    })
}

fn host(table: &mut Reader<'_>) -> Option<Found<String>> {
    let Found { value, line } = table.text("host")?;
    match host_name(value) {
        Ok(value) => Some(Found { value, line }),
        Err(message) => {
            table.wrong(line, "host", message);
            None
        }
    }
}

fn no_twins(table: &Reader<'_>, models: &Found<Vec<ModelName>>) {
    if models.value.len() > ITEMS_MAX {
        let message = format!("write at most {ITEMS_MAX} names");
        table.wrong(models.line, "models", message);
    }
    let mut sorted: Vec<_> = models.value.iter().collect();
    sorted.sort();
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && a == b
        {
            let message = format!("{a:?} stands here twice: take one out");
            table.wrong(models.line, "models", message);
        }
    }
}

fn access(table: &mut Reader<'_>) -> Option<Found<Access>> {
    let project = table.parsed::<Project>("project");
    let public = table.flag("public").filter(|flag| flag.value);
    match (project, public) {
        (Some(_), Some(public)) => {
            let message = "write project or public = true, not both";
            table.wrong(public.line, "public", message);
            None
        }
        (Some(project), None) => Some(Found {
            value: Access::Project(project.value),
            line: project.line,
        }),
        (None, Some(public)) => Some(Found {
            value: Access::Public,
            line: public.line,
        }),
        (None, None) => None,
    }
}

fn limits(table: &mut Reader<'_>) -> RouteLimits {
    let default = RouteLimits::default();
    let queue = table.whole("queue_requests_max");
    let wait = table.span("queue_wait_max");
    RouteLimits {
        max_concurrent_requests: table.whole("max_concurrent_requests"),
        queue_requests_max: queue.unwrap_or(default.queue_requests_max),
        queue_wait_max: wait.unwrap_or(default.queue_wait_max),
        requests_per_minute: table.whole("requests_per_minute"),
        tokens_per_minute: table.whole("tokens_per_minute"),
    }
}

fn timeouts(mut table: Reader<'_>) -> Timeouts {
    let default = Timeouts::default();
    let mut take = |key, default| table.span(key).unwrap_or(default);
    let timeouts = Timeouts {
        first_byte: take("first_byte", default.first_byte),
        idle: take("idle", default.idle),
        cold_start: take("cold_start", default.cold_start),
        connect: take("connect", default.connect),
        tls_handshake: take("tls_handshake", default.tls_handshake),
    };
    table.finish();
    timeouts
}

fn streams(mut table: Reader<'_>) -> Streams {
    let words = [
        ("at_end", StreamUsage::AtEnd),
        ("exact", StreamUsage::Exact),
    ];
    let usage = table.choice("usage", &words);
    let streams = Streams {
        // Some clients count comments, and give up after 300 of them.
        keep_alive: table.span("keep_alive"),
        open_after: table.span("open_after"),
        usage: usage.map_or(StreamUsage::AtEnd, |usage| usage.value),
    };
    table.finish();
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_something_else_are_refused() {
        for good in ["chat", "Team-1", "v1beta", "a.b"] {
            assert_eq!(segment_fault(good), None, "{good}");
        }
        for bad in [
            "",
            "v1",
            "V2",
            "healthz",
            "Metrics",
            "..",
            ".well-known",
            "a/b",
            "a%62",
            "ä",
        ] {
            assert!(segment_fault(bad).is_some(), "{bad}");
        }
    }
}
