//! `tidegate explain NAME`

use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::admin::view::{EventView, ExplainView};
use crate::percent;

/// Events that are shown below the reasons.
const EVENTS: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The instance, one deployment of it as INSTANCE/MODEL, a [[name]], or what leads to a list
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Explain {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let name = percent::of_name(&self.name);
        let explained: Vec<ExplainView> = client.get(&format!("instances/{name}/explain")).await?;
        if self.json {
            out::json(&explained)?;
            return Ok(ExitCode::SUCCESS);
        }
        for view in explained {
            out::line(format_args!("{}", view.deployment))?;
            for line in &view.lines {
                out::line(format_args!("  {}", out::indented(line, 4)))?;
            }
            if [ExplainView::EXTERNAL, ExplainView::LIST].contains(&&*view.phase) {
                continue;
            }
            let of = percent::of_name(&view.deployment);
            let path = format!("instances/{of}/events?tail={EVENTS}");
            let events: Vec<EventView> = client.get(&path).await?;
            for event in events {
                let text = out::indented(&event.text, 4);
                out::line(format_args!("  {}  {text}", out::date(event.at)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
