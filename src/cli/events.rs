//! `tidegate events [NAME]`

use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::admin::view::EventView;
use crate::percent;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// The instance, or one deployment of it as INSTANCE/MODEL; all without
    name: Option<String>,
    /// How many, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    tail: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Events {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let path = match &self.name {
            Some(name) => format!(
                "instances/{}/events?tail={}",
                percent::of_name(name),
                self.tail
            ),
            None => format!("events?tail={}", self.tail),
        };
        let events: Vec<EventView> = client.get(&path).await?;
        if self.json {
            out::json(&events)?;
            return Ok(ExitCode::SUCCESS);
        }
        for event in events {
            out::line(format_args!(
                "{}  {}  {}",
                out::date(event.at),
                event.deployment,
                out::indented(&event.text, 4)
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
