//! `[instance]` and `[[deployment]]`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::gateway::local_queue;
use super::options::{self, Options};
use super::problems::{cut, nearest};
use super::reader::{Found, Reader};
use super::route::segment_fault;
use super::{
    Author, Deployment, Engine, Idle, Inputs, Levels, Offload, Replicas, Roll, Sim, Start, Vllm,
};
use crate::names::{
    DeploymentId, InstanceName, ModelName, Project, QueueName, RouteName, Workspace,
};

/// An instance as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InstanceDraft {
    pub(super) name: Found<InstanceName>,
    pub(super) workspace: Option<Found<Workspace>>,
    pub(super) project: Option<Found<Project>>,
    pub(super) queue: QueueName,
    pub(super) route: RouteChoice,
    pub(super) deployments: Vec<Found<Arc<Deployment>>>,
}

/// The route that leads to an instance.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RouteChoice {
    /// One that stands in any file.
    Named(Found<RouteName>),
    /// That of the instance's own file.
    Own,
    /// One made for it, named like it.
    Ephemeral,
}

/// Longest name of an author, in bytes.
pub(super) const AUTHOR_BYTES_MAX: usize = 300;
/// Most deployments of an instance.
const DEPLOYMENTS_MAX: usize = 256;
/// Longest name or path of weights, in characters.
const MODEL_CHARS_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Vllm,
    Sim,
}

/// Parts that the deployments of an instance have in common.
struct Common<'a> {
    instance: InstanceName,
    kind: Kind,
    version: Option<String>,
    roll: Roll,
    idle: IdleDraft,
    options: Options<'a>,
    author: Author,
}

struct IdleDraft {
    time_limit: Option<Duration>,
    offload_after: Option<Found<Duration>>,
    levels: Option<Levels>,
    interval: Duration,
}

/// Reads `[instance]`; `None` when something was wrong and noted.
pub(super) fn read(
    mut table: Reader<'_>,
    deployments: Vec<Reader<'_>>,
    has_route: bool,
    queues: &[QueueName],
) -> Option<InstanceDraft> {
    let name = table.parsed::<InstanceName>("name");
    table.missing_unless(name.is_some(), "name", "a name, as \"team-llms\"");
    let workspace = table.parsed::<Workspace>("workspace");
    let project = table.parsed::<Project>("project");
    let queue = queue(&mut table, queues);
    let route = route(&mut table, name.as_ref(), has_route);
    let words = [("vllm", Kind::Vllm), ("sim", Kind::Sim)];
    let kind = table
        .choice("engine", &words)
        .map_or(Kind::Vllm, |kind| kind.value);
    let version = version(&mut table, kind);
    let words = [("idle", Roll::Idle), ("now", Roll::Now)];
    let roll = table.choice("roll", &words).map(|roll| roll.value);
    let idle = idle(&mut table);
    let author = author(&mut table);
    let path = table.dotted("options");
    let options = Options {
        path: &path,
        entries: table.raw_table("options"),
    };
    if deployments.is_empty() {
        let message = "an instance has at least one model: write [[deployment]] with its model";
        table.problems.add(table.line, "deployment", message);
    }
    if let Some(extra) = deployments.get(DEPLOYMENTS_MAX) {
        let message = format!("an instance has at most {DEPLOYMENTS_MAX} deployments");
        table.problems.add(extra.line, "deployment", message);
    }
    let common = Common {
        // A draft with an unreadable name is thrown away below.
        instance: name
            .as_ref()
            .map(|name| name.value.clone())
            .or_else(|| InstanceName::new("unnamed").ok())?,
        kind,
        version,
        roll: roll.unwrap_or_default(),
        idle,
        options,
        author,
    };
    let deployments = read_deployments(deployments, &common);
    table.finish();
    Some(InstanceDraft {
        name: name?,
        workspace,
        project,
        queue,
        route,
        deployments,
    })
}

fn queue(table: &mut Reader<'_>, queues: &[QueueName]) -> QueueName {
    let Some(queue) = table.parsed::<QueueName>("queue") else {
        return local_queue();
    };
    if !queues.contains(&queue.value) {
        let known = queues.iter().map(QueueName::as_str);
        let name = &queue.value;
        let message = match nearest(name.as_str(), known.clone()) {
            Some(near) => format!("the queue {name:?} does not exist: did you mean {near:?}?"),
            None => format!(
                "the queue {name:?} does not exist: add [queues.{name}] to tidegate.toml or write one of {}",
                known.collect::<Vec<_>>().join(", ")
            ),
        };
        table.wrong(queue.line, "queue", message);
    }
    queue.value
}

fn route(
    table: &mut Reader<'_>,
    name: Option<&Found<InstanceName>>,
    has_route: bool,
) -> RouteChoice {
    if let Some(route) = table.parsed::<RouteName>("route") {
        return RouteChoice::Named(route);
    }
    if has_route {
        return RouteChoice::Own;
    }
    if let Some(name) = name
        && let Some(fault) = segment_fault(name.value.as_str())
    {
        let message = format!(
            "without a route the instance's name is the path of its endpoint, but {fault}; or name a route"
        );
        table.wrong(name.line, "route", message);
    }
    RouteChoice::Ephemeral
}

fn version(table: &mut Reader<'_>, kind: Kind) -> Option<String> {
    let version = table.words("vllm_version")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-');
    if kind == Kind::Sim {
        let message = "this has an effect only with engine = \"vllm\": take it out";
        table.wrong(version.line, "vllm_version", message);
    } else if !version.value.starts_with(|c: char| c.is_ascii_digit())
        || version.value.len() > 40
        || !version.value.bytes().all(plain)
    {
        let message = "this is not a version: write one, as \"0.32.0\"";
        table.wrong(version.line, "vllm_version", message);
    }
    Some(version.value)
}

/// Author of the file: what an operator wrote over the API says so, and holds the
/// instance to what operators may do. It stands in the file so that it goes where the
/// file goes and no other record can be lost; whoever edits files here may take it out.
fn author(table: &mut Reader<'_>) -> Author {
    let Some(author) = table.words("author") else {
        return Author::Admin;
    };
    if author.value.len() > AUTHOR_BYTES_MAX {
        let message = format!("a name has at most {AUTHOR_BYTES_MAX} bytes");
        table.wrong(author.line, "author", message);
    }
    Author::Operator(author.value.into())
}

fn idle(table: &mut Reader<'_>) -> IdleDraft {
    let mut draft = IdleDraft {
        time_limit: None,
        offload_after: None,
        levels: None,
        interval: Duration::from_secs(10),
    };
    let Some(mut idle) = table.table("idle") else {
        return draft;
    };
    draft.time_limit = idle.span("time_limit");
    let line = idle.line_of("offload_after");
    draft.offload_after = idle
        .span("offload_after")
        .map(|value| Found { value, line });
    draft.levels = levels(&mut idle);
    let interval = idle.span("last_action_report_interval");
    draft.interval = interval.unwrap_or(draft.interval);
    if let (Some(limit), Some(offload)) = (draft.time_limit, &draft.offload_after)
        && offload.value >= limit
    {
        let message = "the worker is stopped before this passes: write less than time_limit";
        idle.wrong(line, "offload_after", message);
    }
    idle.finish();
    draft
}

/// The levels that weights may go to.
fn levels(idle: &mut Reader<'_>) -> Option<Levels> {
    let line = idle.line_of("levels");
    let words = idle.parsed_list::<String>("levels")?.value;
    let known = words.iter().all(|word| word == "cpu" || word == "disk");
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    let twice = words.len() > usize::from(has("cpu")) + usize::from(has("disk"));
    if words.is_empty() || !known || twice {
        let message = "write [\"cpu\"] for host memory, [\"disk\"] for dropping the weights, or [\"cpu\", \"disk\"] for whichever takes less time";
        idle.wrong(line, "levels", message);
        return None;
    }
    Some(Levels {
        cpu: has("cpu"),
        disk: has("disk"),
    })
}

fn read_deployments(tables: Vec<Reader<'_>>, common: &Common<'_>) -> Vec<Found<Arc<Deployment>>> {
    let mut names = HashSet::new();
    let problems = tables.first().map(|table| table.problems);
    let mut deployments = Vec::with_capacity(tables.len());
    for table in tables {
        let (line, noted) = (table.line, table.problems);
        let Some(deployment) = deployment(table, common) else {
            continue;
        };
        let name = deployment.endpoint_name.clone();
        if !names.insert(name.clone()) {
            let message = format!("{name:?} stands in this instance twice: write another");
            noted.add(line, "deployment.endpoint_name", message);
        }
        deployments.push(Found {
            value: Arc::new(deployment),
            line,
        });
    }
    for deployment in &deployments {
        let id = &deployment.value.id;
        let clash = |other: &&Found<Arc<Deployment>>| {
            other.value.id != *id && id.has_replica(&other.value.id)
        };
        if deployment.value.replicas.max > 1
            && let Some(other) = deployments.iter().find(clash)
            && let Some(table) = problems
        {
            let message = format!(
                "{:?} is what a replica of {:?} would be called: write another",
                other.value.endpoint_name, deployment.value.endpoint_name
            );
            table.add(other.line, "deployment.endpoint_name", message);
        }
    }
    deployments
}

fn deployment(mut table: Reader<'_>, common: &Common<'_>) -> Option<Deployment> {
    let model = table.required_words("model").filter(|model| {
        let fits = model.value.chars().count() <= MODEL_CHARS_MAX && !model.value.starts_with('-');
        if !fits {
            let message = "write the name or path of a model, of at most 1024 characters, not beginning with '-'";
            table.wrong(model.line, "model", message);
        }
        fits
    });
    let endpoint = endpoint(&mut table, model.as_ref());
    let max_concurrent_requests = table.whole("max_concurrent_requests");
    let max_request_duration = table.span("max_request_duration");
    let words = [("on-demand", Start::OnDemand), ("boot", Start::Boot)];
    let start = table.choice("start", &words).map(|start| start.value);
    let replicas = replicas(&mut table);
    let keep = table.flag("keep").is_some_and(|keep| keep.value);
    let path = table.dotted("options");
    let own = Options {
        path: &path,
        entries: table.raw_table("options"),
    };
    let problems = table.problems;
    let options = options::merge(common.options, own, problems);
    let idle = Idle {
        time_limit: common.idle.time_limit,
        offload: offload(common, own, &table),
        last_action_report_interval: common.idle.interval,
    };
    let engine = match (common.kind, table.table("sim")) {
        (Kind::Sim, sim) => Engine::Sim(sim.map(self::sim).unwrap_or_default()),
        (Kind::Vllm, sim) => {
            if let Some(sim) = sim {
                let message = "this has an effect only with engine = \"sim\": take it out";
                problems.add(sim.line, sim.path, message);
            }
            let version = common.version.clone();
            if let Some(version) = &version {
                options::fit_version(&options, version, &[own, common.options], problems);
            }
            Engine::Vllm(Vllm { version, options })
        }
    };
    table.finish();
    let (model, endpoint_name) = (model?.value, endpoint?);
    Some(Deployment {
        id: DeploymentId::new(&common.instance, &endpoint_name),
        instance: common.instance.clone(),
        endpoint_name,
        model,
        max_concurrent_requests,
        max_request_duration,
        replicas,
        start: start.unwrap_or_default(),
        roll: common.roll,
        keep,
        idle,
        engine,
        author: common.author.clone(),
        inputs: Inputs::default(),
    })
}

fn replicas(deployment: &mut Reader<'_>) -> Replicas {
    let mut replicas = Replicas::default();
    let Some(mut table) = deployment.table("replicas") else {
        return replicas;
    };
    let each = table.whole("requests_each");
    let line_max = table.line_of("requests_max");
    replicas.requests_max = table.whole("requests_max");
    let most = table.whole("max");
    let line = table.line_of("min");
    let least = table.whole("min");
    replicas.min = least.unwrap_or(replicas.min);
    // A file that wants several at least names no bound below that.
    replicas.max = most.unwrap_or(replicas.min.max(1));
    if replicas.min > replicas.max {
        let message = format!("this is more than max = {}: write less", replicas.max);
        table.wrong(line, "min", message);
    }
    let max = replicas.requests_max.unwrap_or(u32::MAX);
    if let Some(each) = each
        && each > max
    {
        let message = format!(
            "this is less than requests_each = {each}: write more, or a lower requests_each"
        );
        table.wrong(line_max, "requests_max", message);
    }
    replicas.requests_each = each.unwrap_or(replicas.requests_each.min(max));
    table.finish();
    replicas
}

fn endpoint(table: &mut Reader<'_>, model: Option<&Found<String>>) -> Option<ModelName> {
    let line = table.line_of("endpoint_name");
    if let Some(text) = table.text("endpoint_name") {
        return match ModelName::new(text.value) {
            Ok(name) => Some(name),
            Err(error) => {
                table.wrong(line, "endpoint_name", error.to_string());
                None
            }
        };
    }
    let model = model?;
    match ModelName::new(&model.value) {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("the default, the model's name, can't be used: {error}");
            table.wrong(model.line, "endpoint_name", message);
            None
        }
    }
}

fn offload(common: &Common<'_>, own: Options<'_>, table: &Reader<'_>) -> Option<Offload> {
    let named = common.idle.levels;
    let levels = options::offload_levels(named, common.options, own, table.problems);
    let after = common.idle.offload_after.as_ref();
    let levels = match (levels, common.kind, after) {
        (Some(levels), ..) => levels,
        (None, Kind::Sim, _) => Levels::BOTH,
        (None, Kind::Vllm, None) => return None,
        (None, Kind::Vllm, Some(after)) => {
            let message = "no option says where the weights go: set automatic_cpu_offloading = true or disk_swapping = true in [instance.options], or levels = [\"cpu\", \"disk\"] here";
            table
                .problems
                .add(after.line, "instance.idle.offload_after", message);
            return None;
        }
    };
    Some(Offload {
        after: after.map(|after| after.value),
        levels,
    })
}

impl Default for Sim {
    fn default() -> Self {
        Self {
            load: Duration::from_secs(3),
            wake: Duration::from_millis(200),
            sleep: Duration::from_millis(300),
            first_token: Duration::from_millis(50),
            tokens_per_second: 50.0,
            weights: 16 << 30,
            context: 1 << 30,
            max_model_len: 131_072,
            faults: Vec::new(),
        }
    }
}

fn sim(mut table: Reader<'_>) -> Sim {
    let default = Sim::default();
    let mut span = |key, default| table.span(key).unwrap_or(default);
    let load = span("load", default.load);
    let wake = span("wake", default.wake);
    let sleep = span("sleep", default.sleep);
    let first_token = span("first_token", default.first_token);
    let speed = table.number("tokens_per_second");
    let weights = table.size("weights");
    let context = table.size("context");
    let length = table.whole("max_model_len");
    let faults = table.parsed_list::<String>("faults");
    if let Some(faults) = &faults {
        for fault in &faults.value {
            if !is_fault(fault) {
                let message = format!("{:?} is not a fault: write NAME or NAME:VALUE", cut(fault));
                table.wrong(faults.line, "faults", message);
            }
        }
    }
    table.finish();
    Sim {
        load,
        wake,
        sleep,
        first_token,
        tokens_per_second: speed.unwrap_or(default.tokens_per_second),
        weights: weights.unwrap_or(default.weights),
        context: context.unwrap_or(default.context),
        max_model_len: length.unwrap_or(default.max_model_len),
        faults: faults.map_or(default.faults, |faults| faults.value),
    }
}

/// True if a text has the form of a fault: `slow-start` or `slow-start:10s`.
/// The stand-in knows which ones there are.
fn is_fault(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let (name, value) = text.split_once(':').unwrap_or((text, "0"));
    [name, value]
        .iter()
        .all(|part| !part.is_empty() && part.len() <= 64 && part.bytes().all(plain))
        && !name.starts_with('-')
}
