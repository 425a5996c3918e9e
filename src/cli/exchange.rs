//! `tidegate launch | export | clone | delete`

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http::Method;

use super::client::Client;
use super::common::{Failure, RemoteArg, show_plan};
use super::out;
use crate::admin::exchange::{CloneRequest, Deleted, Launched};
use crate::config::exchange::read_file;
use crate::names::InstanceName;
use crate::percent;

/// Largest file from standard input, in bytes; the gateway refuses it then.
const INPUT_BYTES_MAX: u64 = (1 << 20) + 1;

#[derive(Debug, Args)]
pub(super) struct Launch {
    /// A route file or an export, TOML or JSON; - for standard input
    file: PathBuf,
    /// Name of the instance, instead of that in the file
    #[arg(long)]
    name: Option<InstanceName>,
    /// Show the file that would be written and what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Launch {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut content = Vec::new();
        if self.file == Path::new("-") {
            let input = std::io::stdin().lock().take(INPUT_BYTES_MAX);
            { input }.read_to_end(&mut content)?;
        } else {
            content = read_file(&self.file)?;
        }
        let dry_run = u8::from(self.dry_run);
        let path = match &self.name {
            Some(name) => format!(
                "instances?dry_run={dry_run}&name={}",
                percent::of_name(name.as_str())
            ),
            None => format!("instances?dry_run={dry_run}"),
        };
        let client = Client::new(&self.remote)?;
        let bytes = Bytes::from(content);
        told(&client.call_bytes(Method::POST, &path, bytes).await?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The instance
    name: InstanceName,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Export {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let path = format!("instances/{}/export", percent::of_name(self.name.as_str()));
        let export: serde_json::Value = client.get(&path).await?;
        out::json(&export)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct Clone {
    /// The instance
    name: InstanceName,
    /// The name of the copy
    new: InstanceName,
    /// A new endpoint name for one of its models, as OLD=NEW
    #[arg(long = "endpoint", value_name = "OLD=NEW", value_parser = pair)]
    endpoints: Vec<(String, String)>,
    /// Show the file that would be written and what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Clone {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let path = format!(
            "instances/{}/clone?dry_run={}",
            percent::of_name(self.name.as_str()),
            u8::from(self.dry_run)
        );
        let request = CloneRequest {
            name: self.new,
            endpoint_names: BTreeMap::from_iter(self.endpoints),
        };
        told(&client.call(Method::POST, &path, Some(&request)).await?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The instance
    name: InstanceName,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Delete {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let path = format!("instances/{}", percent::of_name(self.name.as_str()));
        let done: Deleted = client.call(Method::DELETE, &path, None::<&()>).await?;
        out::line(format_args!("{}: deleted", done.deleted))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn told(launched: &Launched) -> Result<ExitCode, Failure> {
    let Launched { instance, file, .. } = launched;
    if let Some(review) = &launched.review {
        out::line(format_args!("{instance}: would be launched, in {file}:"))?;
        for line in review.after.lines() {
            out::line(format_args!("+ {line}"))?;
        }
        show_plan(&review.plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    let what = if launched.unchanged {
        "is there already, just so, in"
    } else {
        "launched, in"
    };
    out::line(format_args!("{instance}: {what} {file}"))?;
    Ok(ExitCode::SUCCESS)
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let pair = text.split_once('=').ok_or("write OLD=NEW")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}
