//! `tidegate.toml` into [`Settings`].
//!
//! Owns which keys there are and their bounds; the defaults stand in
//! `defaults.rs`. A relative path is relative to the directory of the file, so
//! to the working directory where there is no file. It reads no other file:
//! whether a certificate or a directory exists is seen when it is used.

mod edge;
mod listen;
mod shares;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use listen::{addresses, listener, listeners_differ};

use super::error::FileError;
use super::keys::SETTINGS;
use super::keys::environment::Given;
use super::problems::{Problems, cut};
use super::reader::Reader;
use super::sandbox;
use super::tree::{self, FILE_BYTES_MAX, Node};
use super::trusted;
use super::{
    Admin, Gateway, GpuSource, Gpus, HostBudget, LostStore, Metrics, Models, Placement, Settings,
    Tokens, Workers, engine, file,
};
use crate::auth::keeper::{SecretSource, TrustedKeys};
use crate::models::room::DiskShare;
use crate::names::{QueueName, Workspace};
use crate::units::share_or_size;

/// The file that is read when none is named.
pub const FILE: &str = "tidegate.toml";

const MIB: u64 = 1 << 20;

/// Reads the settings from `path`; without one from `tidegate.toml` in the
/// working directory, or all defaults where that is absent.
///
/// # Errors
///
/// Everything that is wrong with the file, at once. A named file that is
/// missing is an error.
pub fn load(path: Option<&Path>) -> Result<Settings, Vec<FileError>> {
    let (settings, errors) = load_with_errors(path);
    if errors.is_empty() {
        Ok(settings)
    } else {
        Err(errors)
    }
}

/// As [`load`], with a default for whatever is wrong: for checks that go on.
pub(super) fn load_with_errors(path: Option<&Path>) -> (Settings, Vec<FileError>) {
    let file = path.unwrap_or(Path::new(FILE));
    match file::read(file, FILE_BYTES_MAX) {
        Ok(content) => {
            let (mut settings, errors) = parse_over(file, &content, std::env::vars_os());
            settings.file = std::path::absolute(file).ok();
            (settings, errors)
        }
        Err(file::Unread::Missing) if path.is_none() => {
            parse_over(Path::new(FILE), b"", std::env::vars_os())
        }
        Err(unread) => {
            let error = FileError {
                file: file.to_owned(),
                line: None,
                key: String::new(),
                message: unread.to_string(),
            };
            (Settings::default(), vec![error])
        }
    }
}

/// Reads settings from the content of a file, and everything wrong with it.
#[cfg(test)]
pub(super) fn parse(file: &Path, content: &[u8]) -> (Settings, Vec<FileError>) {
    parse_over(file, content, [])
}

/// As [`parse`], with what the environment says over it.
pub(super) fn parse_over(
    file: &Path,
    content: &[u8],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Settings, Vec<FileError>) {
    let mut settings = Settings::default();
    let errors = match tree::parse(file, content) {
        Ok(mut tree) => {
            let (given, mut errors) = Given::over(&mut tree, environment);
            let problems = Problems::new(file);
            read(&tree, &problems, &mut settings);
            errors.extend(problems.into_errors());
            given.located(&mut errors);
            errors
        }
        Err(errors) => errors,
    };
    resolve(&mut settings, file.parent().unwrap_or(Path::new("")));
    (settings, errors)
}

fn read(tree: &Node, problems: &Problems, settings: &mut Settings) {
    let mut top = Reader::top(tree, &SETTINGS, problems);
    if let Some(mut table) = top.table("gateway") {
        gateway(&mut table, &mut settings.gateway);
        table.finish();
    }
    if let Some(mut table) = top.table("tls") {
        edge::tls(&mut table, &mut settings.tls);
        table.finish();
    }
    if let Some(mut table) = top.table("cors") {
        edge::cors(&mut table, &mut settings.cors);
        table.finish();
    }
    if let Some(mut table) = top.table("telemetry") {
        edge::telemetry(&mut table, &mut settings.telemetry);
        table.finish();
    }
    if let Some(table) = top.table("tokens") {
        tokens(table, &mut settings.tokens);
    }
    if let Some(mut table) = top.table("admin") {
        let Admin { listen, socket } = &mut settings.admin;
        listener(&mut table, listen);
        set(socket, table.path("socket"));
        table.finish();
    }
    if let Some(mut table) = top.table("metrics") {
        let Metrics { listen } = &mut settings.metrics;
        listener(&mut table, listen);
        table.finish();
    }
    if let Some(table) = top.table("gpus") {
        gpus(table, &mut settings.gpus);
    }
    if let Some(table) = top.table("placement") {
        placement(table, &mut settings.placement);
    }
    if let Some(table) = top.table("workers") {
        workers(table, &mut settings.workers);
    }
    if let Some(table) = top.table("models") {
        models(table, &mut settings.models);
    }
    queues(&mut top, &mut settings.queues);
    workspaces(&mut top, &mut settings.workspaces);
    if let Some(mut engines) = top.table("engines") {
        if let Some(table) = engines.table("vllm") {
            engine::read(table, &mut settings.vllm);
        }
        engines.finish();
    }
    listeners_differ(&mut top, settings);
    top.finish();
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn gateway(table: &mut Reader<'_>, to: &mut Gateway) {
    let Gateway {
        listen,
        plain_listen,
        routes,
        state,
        request_body_max,
        connections,
        memory,
        handshake_timeout,
        header_timeout,
        keep_alive,
        body_times,
        write_timeout,
        shutdown_timeout,
        unready_time,
        access_log,
        access_logs,
        proxies,
        heads,
        forward_headers,
    } = to;
    set(listen, addresses(table, "listen"));
    set(plain_listen, addresses(table, "plain_listen"));
    set(routes, table.path("routes"));
    set(state, table.path("state"));
    set(request_body_max, table.size("request_body_max"));
    shares::connections(table, connections);
    shares::memory(table, memory, *request_body_max);
    shares::body_times(table, body_times);
    shares::keep_alive(table, keep_alive);
    set(handshake_timeout, table.span("handshake_timeout"));
    set(header_timeout, table.span("header_timeout"));
    set(write_timeout, table.span("write_timeout"));
    set(shutdown_timeout, table.span("shutdown_timeout"));
    set(unready_time, table.span("unready_time"));
    if let Some(log) = table.words("access_log") {
        *access_log = (log.value != "stdout").then(|| PathBuf::from(log.value));
    }
    set(
        &mut access_logs.bytes_max,
        table.size("access_log_bytes_max"),
    );
    let files = table.whole("access_log_files");
    set(&mut access_logs.files_max, files);
    edge::proxies(table, proxies);
    edge::heads(table, heads);
    edge::forward_headers(table, forward_headers);
    edge::proxies_fit(table, to);
}

fn tokens(mut table: Reader<'_>, to: &mut Tokens) {
    set(&mut to.issuer, table.words("issuer").map(|text| text.value));
    set(
        &mut to.audience,
        table.words("audience").map(|text| text.value),
    );
    set(&mut to.signing_key, table.path("signing_key"));
    if let Some(previous) = table.parsed_list::<PathBuf>("previous_keys") {
        to.previous_keys = Some(previous.value);
    }
    let lost = [("refuse", LostStore::Refuse), ("accept", LostStore::Accept)];
    let lost = table.choice("lost_store", &lost);
    set(&mut to.lost_store, lost.map(|lost| lost.value));
    let mut issuers = HashSet::from([to.issuer.clone()]);
    let twice = |issuer: &str| format!("the issuer {:?} stands here twice", cut(issuer));
    if let Some(hs256) = table.table("hs256") {
        let line = hs256.line;
        to.hs256 = trusted::read_hs256(hs256);
        if let Some(hs256) = &to.hs256
            && !issuers.insert(hs256.issuer.clone())
        {
            table.wrong(line, "hs256.issuer", twice(&hs256.issuer));
        }
    }
    for trusted in table.tables("trusted") {
        let line = trusted.line;
        let Some(trusted) = trusted::read(trusted) else {
            continue;
        };
        let issuer = &*trusted.terms.issuer;
        if issuers.insert(issuer.to_owned()) {
            to.trusted.push(trusted);
        } else {
            table.wrong(line, "trusted.issuer", twice(issuer));
        }
    }
    table.finish();
}

#[derive(Clone, Copy)]
enum Source {
    Auto,
    Nvml,
    None,
    Simulated,
}

fn gpus(mut table: Reader<'_>, to: &mut Gpus) {
    let words = [
        ("auto", Source::Auto),
        ("nvml", Source::Nvml),
        ("none", Source::None),
        ("simulated", Source::Simulated),
    ];
    let source = table.choice("source", &words);
    let listed = table.tables("simulated");
    let is_named = !listed.is_empty();
    let devices: Vec<u64> = listed
        .into_iter()
        .filter_map(|mut device| {
            let is_there = device.has("memory");
            let memory = device.size("memory");
            if !is_there {
                device.missing("memory", "a size, as \"80GiB\"");
            }
            device.finish();
            memory
        })
        .collect();
    match source.map(|source| source.value) {
        // Where entries are wrong, that was said of each.
        Some(Source::Simulated) if devices.is_empty() && is_named => {}
        Some(Source::Simulated) if devices.is_empty() => {
            let message = "name the pretended devices, as [{ memory = \"80GiB\" }]";
            table.wrong(table.line_of("source"), "simulated", message);
        }
        Some(Source::Simulated) => to.source = GpuSource::Simulated(devices),
        Some(_) | None if !devices.is_empty() => {
            let message = "this has an effect only with source = \"simulated\"";
            table.wrong(table.line_of("simulated"), "simulated", message);
        }
        Some(Source::None) => to.source = GpuSource::None,
        Some(Source::Nvml) => to.source = GpuSource::Nvml,
        Some(Source::Auto) | None => {}
    }
    set(&mut to.library, table.path("library"));
    let poll = table.span("poll");
    set(&mut to.poll, poll);
    let budget = table.parsed::<HostBudget>("host_memory_budget");
    set(
        &mut to.host_memory_budget,
        budget.map(|budget| budget.value),
    );
    table.finish();
}

impl FromStr for HostBudget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write a share of the memory or a size, as \"50%\" or \"64GiB\"";
        share_or_size(text, Self::Share, Self::Bytes).ok_or(wrong)
    }
}

fn placement(mut table: Reader<'_>, to: &mut Placement) {
    set(&mut to.quantum, table.number("quantum"));
    set(&mut to.patience, table.number("patience"));
    set(&mut to.wait_bound, table.span("wait_bound"));
    set(&mut to.switch_share_max, table.number("switch_share_max"));
    set(
        &mut to.prefetch,
        table.flag("prefetch").map(|flag| flag.value),
    );
    table.finish();
}

fn workers(mut table: Reader<'_>, to: &mut Workers) {
    set(
        &mut to.stop_on_exit,
        table.flag("stop_on_exit").map(|flag| flag.value),
    );
    set(&mut to.start_timeout, table.span("start_timeout"));
    set(&mut to.call_timeout, table.span("call_timeout"));
    set(&mut to.drain_timeout, table.span("drain_timeout"));
    set(&mut to.stop_grace, table.span("stop_grace"));
    set(&mut to.backoff, table.span("backoff"));
    set(&mut to.failures_max, table.whole("failures_max"));
    set(&mut to.stable_after, table.span("stable_after"));
    care(&mut table, to);
    sandbox::read(&mut table, &mut to.sandbox);
    set(&mut to.log_bytes_max, table.size("log_bytes_max"));
    table.finish();
}

/// Reads how workers are looked after, kept together and counted.
fn care(table: &mut Reader<'_>, to: &mut Workers) {
    set(&mut to.stall_timeout, table.span("stall_timeout"));
    let cgroups = table.flag("cgroups").map(|flag| flag.value);
    set(&mut to.cgroups, cgroups);
    to.memory_max = table.size("memory_max");
    if let (Some(_), false) = (to.memory_max, to.cgroups) {
        let message = "this needs control groups: take cgroups = false out";
        table.wrong(table.line_of("memory_max"), "memory_max", message);
    }
    let probes = table.span("probe_interval");
    set(&mut to.probe_interval, probes);
    set(&mut to.probe_timeout, table.span("probe_timeout"));
    let failures = table.whole("probe_failures");
    set(&mut to.probe_failures, failures);
    let up = table.span("scale_up_after");
    set(&mut to.scale_up_after, up);
    set(&mut to.scale_down_after, table.span("scale_down_after"));
}

fn models(mut table: Reader<'_>, to: &mut Models) {
    let budget = table.parsed::<DiskShare>("disk_budget");
    to.limits.budget = budget.map(|budget| budget.value);
    let free = table.parsed::<DiskShare>("disk_free_min");
    set(&mut to.limits.free_min, free.map(|free| free.value));
    let first = table.flag("fetch_first").map(|flag| flag.value);
    set(&mut to.fetch_first, first);
    set(&mut to.fetches_max, table.whole("fetches_max"));
    let keep = table.flag("keep_fetching").map(|flag| flag.value);
    set(&mut to.keep_fetching, keep);
    let ahead = table.flag("prefetch").map(|flag| flag.value);
    set(&mut to.prefetch, ahead);
    to.python = table.path("python");
    table.finish();
}

/// The queue that is always there: this machine.
#[expect(clippy::expect_used, reason = "the text is a plain name")]
pub(super) fn local_queue() -> QueueName {
    QueueName::new("local").expect("a plain name")
}

fn queues(top: &mut Reader<'_>, to: &mut Vec<QueueName>) {
    for (key, mut table) in top.named("queues") {
        // The one launcher so far; cluster engines come beside it.
        let launcher = table.choice("launcher", &[("process", ())]);
        if launcher.is_none() {
            table.missing("launcher", "\"process\", for workers on this machine");
        }
        match QueueName::new(key) {
            Ok(name) if !to.contains(&name) => to.push(name),
            Ok(_) => {}
            Err(error) => table.misnamed(error.to_string()),
        }
        table.finish();
    }
    to.sort();
}

fn workspaces(top: &mut Reader<'_>, to: &mut HashMap<Workspace, u32>) {
    for (key, mut table) in top.named("workspaces") {
        let limit = table.whole("max_concurrent_requests");
        match (Workspace::new(key), limit) {
            (Ok(name), Some(limit)) => drop(to.insert(name, limit)),
            (Ok(_), None) => {}
            (Err(error), _) => table.misnamed(error.to_string()),
        }
        table.finish();
    }
}

/// Makes relative paths relative to the directory of the file.
fn resolve(settings: &mut Settings, base: &Path) {
    let mut paths = vec![
        &mut settings.gateway.routes,
        &mut settings.gateway.state,
        &mut settings.tls.certificate,
        &mut settings.tls.private_key,
        &mut settings.tokens.signing_key,
        &mut settings.admin.socket,
    ];
    paths.extend(settings.gateway.access_log.as_mut());
    for pair in &mut settings.tls.more {
        paths.extend([&mut pair.certificate, &mut pair.private_key]);
    }
    paths.extend(settings.tls.clients.as_mut().map(|clients| &mut clients.ca));
    paths.extend(settings.telemetry.ca.as_mut());
    if let Some(SecretSource::File(file)) = &mut settings.telemetry.headers {
        paths.push(file);
    }
    for trusted in &mut settings.tokens.trusted {
        match &mut trusted.keys {
            TrustedKeys::JwksFile(file) | TrustedKeys::PublicKey { file, .. } => paths.push(file),
            TrustedKeys::JwksUrl { ca, .. } => paths.extend(ca.as_mut()),
        }
    }
    paths.extend(settings.tokens.previous_keys.iter_mut().flatten());
    if let Some(hs256) = &mut settings.tokens.hs256
        && let SecretSource::File(file) = &mut hs256.source
    {
        paths.push(file);
    }
    if settings.gpus.library.components().count() > 1 {
        paths.push(&mut settings.gpus.library);
    }
    for path in paths {
        *path = base.join(&*path);
    }
    if let Some(python) = &mut settings.models.python
        && python.components().count() > 1
    {
        *python = base.join(&*python);
    }
    settings.vllm.resolve(base);
}

#[cfg(test)]
mod tests;
