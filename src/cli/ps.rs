//! `tidegate ps`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::Client;
use super::{ConfigArg, Failure, out};
use crate::admin::view::{DeploymentView, InstanceView, StatusView};
use crate::time::unix_seconds;

#[derive(Debug, Args)]
pub(super) struct Ps {
    #[command(flatten)]
    config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct All {
    status: StatusView,
    instances: Vec<InstanceView>,
}

impl Ps {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.config)?;
        let status: StatusView = client.get("status").await?;
        let instances: Vec<InstanceView> = client.get("instances").await?;
        if self.json {
            out::json(&All { status, instances })?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> = instances
            .iter()
            .flat_map(|instance| instance.deployments.iter().map(move |d| row(instance, d)))
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
        for deployment in instances.iter().flat_map(|instance| &instance.deployments) {
            if let Some(reason) = &deployment.reason {
                out::line(format_args!("\n{}: {reason}", deployment.id))?;
            }
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

/// The status, with the progress of a start behind it.
fn status(deployment: &DeploymentView) -> String {
    let status = &deployment.status;
    match (status.as_str(), deployment.percent, &deployment.progress) {
        ("loading", Some(percent), Some(progress)) => format!("{status} {percent}% ({progress})"),
        _ => status.clone(),
    }
}
