//! `tidegate check`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::{ConfigArg, Failure, out};
use crate::admin::view::{PlanFile, PlanRequest, PlanView};
use crate::config::check::check;
use crate::gateway::tls::Certificates;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArg,
    /// Say what the running gateway would do about these files, and do nothing:
    /// which workers go on, which are replaced and when
    #[arg(long)]
    plan: bool,
    /// With --plan: route files laid over those in effect; without any, the
    /// directory that the configuration names
    #[arg(value_name = "FILE", requires = "plan")]
    files: Vec<PathBuf>,
}

impl Check {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        if !self.files.is_empty() {
            return self.planned().await;
        }
        match check(self.config.config.as_deref()) {
            Ok(_) if self.plan => self.planned().await,
            Ok(summary) => {
                self.certificates()?;
                out::line(summary)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(errors) => {
                for error in &errors {
                    out::line(error)?;
                }
                let count = errors.len();
                out::line(format_args!(
                    "{count} {}",
                    if count == 1 { "error" } else { "errors" }
                ))?;
                Ok(ExitCode::FAILURE)
            }
        }
    }

    /// Reads certificates and keys, unless the first start is to make them.
    fn certificates(&self) -> Result<(), Failure> {
        let tls = self.config.load()?.tls;
        if tls.certificate.exists() || tls.private_key.exists() {
            Certificates::load(tls)?;
        }
        Ok(())
    }

    async fn planned(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let mut request = PlanRequest::default();
        if self.files.is_empty() {
            let routes = std::path::absolute(&settings.gateway.routes)?;
            request.routes = Some(routes.display().to_string());
        }
        for file in &self.files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
            let name = file.file_name().unwrap_or(file.as_os_str());
            request.files.push(PlanFile {
                name: name.to_string_lossy().into_owned(),
                text,
            });
        }
        let client = Client::at(&settings.admin.socket);
        let plan: PlanView = client
            .call(http::Method::POST, "plan", Some(&request))
            .await?;
        for deployment in &plan.deployments {
            out::line(format_args!(
                "{}: {}",
                deployment.deployment, deployment.words
            ))?;
        }
        for route in &plan.routes {
            out::line(route)?;
        }
        if plan.deployments.is_empty() && plan.routes.is_empty() {
            out::line("nothing would change")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
