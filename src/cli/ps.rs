//! `tidegate ps`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::admin::view::{
    DeploymentView, InstanceView, NameView, ReplicaView, RouteView, StatusView, UpstreamView,
};
use crate::time::unix_seconds;

#[derive(Debug, Args)]
pub(super) struct Ps {
    #[command(flatten)]
    remote: RemoteArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct All {
    status: StatusView,
    instances: Vec<InstanceView>,
    upstreams: Vec<UpstreamView>,
    names: Vec<NameView>,
}

impl Ps {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let status: StatusView = client.get("status").await?;
        let instances: Vec<InstanceView> = client.get("instances").await?;
        let upstreams: Vec<UpstreamView> = client.get("upstreams").await?;
        let routes: Vec<RouteView> = client.get("routes").await?;
        if self.json {
            out::json(&All {
                status,
                instances,
                upstreams,
                names: routes.into_iter().flat_map(|route| route.names).collect(),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> = instances
            .iter()
            .flat_map(|instance| instance.deployments.iter().map(move |d| (instance, d)))
            .flat_map(|(instance, d)| {
                let replicas = d.replicas.iter().map(|r| replica(d, r));
                std::iter::once(row(instance, d)).chain(replicas)
            })
            .collect();
        let header = [
            "INSTANCE",
            "MODEL",
            "ENGINE",
            "STATUS",
            "IDLE",
            "GPUS",
            "IN FLIGHT",
            "WAITING",
            "ROUTE",
            "FOR",
        ];
        out::table(&header, &rows)?;
        show_upstreams(&upstreams)?;
        show_names(&routes)?;
        for deployment in instances.iter().flat_map(|instance| &instance.deployments) {
            if let Some(reason) = &deployment.reason {
                let reason = out::indented(reason, 4);
                out::line(format_args!("\n{}: {reason}", deployment.id))?;
            }
        }
        if let Some(isolation) = &status.isolation {
            out::line(format_args!("\n{isolation}"))?;
        }
        for warning in &status.warnings {
            out::line(format_args!("\n{warning}"))?;
        }
        for error in &status.config_errors {
            let line = error
                .line
                .map_or_else(String::new, |line| format!(":{line}"));
            let key = if error.key.is_empty() {
                String::new()
            } else {
                format!(" {}:", error.key)
            };
            out::line(format_args!(
                "\nnot in effect: {}{line}:{key} {}",
                error.file, error.message
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(instance: &InstanceView, deployment: &DeploymentView) -> Vec<String> {
    let limit = deployment.max_concurrent_requests;
    let in_flight = match limit {
        Some(limit) => format!("{}/{limit}", deployment.in_flight),
        None => deployment.in_flight.to_string(),
    };
    let gpus: Vec<String> = deployment.gpus.iter().map(ToString::to_string).collect();
    let idle = deployment
        .idle_seconds
        .filter(|_| deployment.in_flight == 0);
    vec![
        instance.name.clone(),
        deployment.endpoint.clone(),
        deployment.engine.clone(),
        status(deployment),
        idle.map_or_else(|| "-".to_owned(), out::ago),
        if gpus.is_empty() {
            "-".to_owned()
        } else {
            gpus.join(",")
        },
        in_flight,
        deployment.waiting.to_string(),
        instance.route.clone(),
        out::ago(unix_seconds().saturating_sub(deployment.since)),
    ]
}

/// Row of one of several workers, below its deployment.
fn replica(deployment: &DeploymentView, replica: &ReplicaView) -> Vec<String> {
    let number = replica.id.strip_prefix(&deployment.id).unwrap_or_default();
    let number = if number.is_empty() { "#1" } else { number };
    let gpus: Vec<String> = replica.gpus.iter().map(ToString::to_string).collect();
    let mut row = vec![String::new(), format!("  {number}"), String::new()];
    row.push(replica.status.clone());
    row.push(String::new());
    row.push(if gpus.is_empty() {
        "-".to_owned()
    } else {
        gpus.join(",")
    });
    row.push(replica.in_flight.to_string());
    row.extend([String::new(), String::new()]);
    row.push(out::ago(unix_seconds().saturating_sub(replica.since)));
    row
}

/// Servers that someone else runs, and workers that something speaks against.
fn show_upstreams(upstreams: &[UpstreamView]) -> Result<(), Failure> {
    let shown = |view: &&UpstreamView| view.deployment.is_none() || view.why.is_some();
    let rows: Vec<Vec<String>> = upstreams.iter().filter(shown).map(upstream).collect();
    if rows.is_empty() {
        return Ok(());
    }
    out::line("")?;
    let header = [
        "ROUTE",
        "UPSTREAM",
        "STATE",
        "IN FLIGHT",
        "WAITING THERE",
        "KV CACHE",
        "WHY",
    ];
    out::table(&header, &rows)
}

/// Names with parameters of their own.
fn show_names(routes: &[RouteView]) -> Result<(), Failure> {
    let row = |route: &RouteView, name: &NameView| {
        let rules = name.rules.join("; ");
        vec![
            name.name.clone(),
            name.of.clone(),
            route.name.clone(),
            rules,
        ]
    };
    let names = |route: &'_ RouteView| -> Vec<Vec<String>> {
        route.names.iter().map(|name| row(route, name)).collect()
    };
    let rows: Vec<Vec<String>> = routes.iter().flat_map(names).collect();
    if rows.is_empty() {
        return Ok(());
    }
    out::line("")?;
    out::table(&["NAME", "STANDS FOR", "ROUTE", "PARAMETERS"], &rows)
}

fn upstream(view: &UpstreamView) -> Vec<String> {
    let nothing = || "-".to_owned();
    let state = match view.back_in_seconds {
        Some(seconds) => format!("{} for {}", view.state, out::ago(seconds)),
        None => view.state.clone(),
    };
    let cache = view.kv_cache_usage;
    vec![
        view.route.clone(),
        view.address.clone(),
        state,
        view.in_flight.to_string(),
        view.engine_waiting.map_or_else(nothing, |n| n.to_string()),
        cache.map_or_else(nothing, |full| format!("{:.0}%", full * 100.0)),
        view.why.clone().unwrap_or_else(nothing),
    ]
}

/// The status, with the progress of a start behind it.
fn status(deployment: &DeploymentView) -> String {
    let status = &deployment.status;
    if status != "loading" {
        return status.clone();
    }
    if deployment.phase == "placing" {
        return format!("{status} (waits for GPU memory)");
    }
    let mut text = status.clone();
    if let (Some(percent), Some(progress)) = (deployment.percent, &deployment.progress) {
        text = format!("{text} {percent}% ({progress})");
    }
    if let Some(left) = deployment.ready_in_seconds {
        text = format!("{text}, about {} left", out::ago(left));
    }
    text
}
