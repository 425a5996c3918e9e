//! `tidegate login`

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::admin::view::LoginLinkView;

#[derive(Debug, Args)]
pub(super) struct Login {
    #[command(flatten)]
    remote: RemoteArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Login {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let link: LoginLinkView = client
            .call(Method::POST, "login-links", None::<&()>)
            .await?;
        if self.json {
            out::json(&link)?;
        } else {
            out::line(&link.url)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
