//! `tidegate start | stop | unload | offload | wake NAME`

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::percent;

#[derive(Debug, Args)]
pub(super) struct Name {
    /// The instance, or one deployment of it as INSTANCE/MODEL
    name: String,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Name {
    pub(super) async fn run(self, command: &str) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let path = format!("instances/{}/{command}", percent::of_name(&self.name));
        let answer: serde_json::Value = client.call(Method::POST, &path, None::<&()>).await?;
        let ids = answer
            .get("accepted")
            .and_then(|ids| ids.as_array())
            .cloned()
            .unwrap_or_default();
        for id in ids.iter().filter_map(|id| id.as_str()) {
            out::line(format_args!("{id}: {command} accepted"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
