//! `tidegate check`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::common::{ConfigArg, Failure, show_plan};
use super::estimate::{Estimates, devices};
use super::out;
use crate::admin::view::{PlanFile, PlanRequest, PlanView};
use crate::config::check::check;
use crate::config::{Catalog, FileError, Settings, load_catalog};
use crate::gateway::client::tls::Certificates;
use crate::gpu::Device;
use crate::lifecycle::act::command::Engines;
use crate::lifecycle::misfits;
use crate::names::DeploymentId;
use crate::units::counted;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArg,
    /// Say what the running gateway would do about these files, and do nothing:
    /// which workers go on, which are replaced and when
    #[arg(long)]
    plan: bool,
    /// Ask the hub for the form of models that are not on this machine, to say what GPU
    /// memory they will need
    #[arg(long, conflicts_with = "plan")]
    hub: bool,
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
                let settings = self.config.load()?;
                let devices = devices(&settings);
                let catalog = load_catalog(&settings.gateway.routes, &settings.queues, None);
                let misfits = of_files(&catalog, &devices);
                if !misfits.is_empty() {
                    return show(&misfits);
                }
                out::line(summary)?;
                self.estimates(&settings, &catalog, devices).await?;
                Ok(ExitCode::SUCCESS)
            }
            Err(errors) => show(&errors),
        }
    }

    /// Says what GPU memory each deployment will need, as far as its model is here or the
    /// hub may be asked.
    async fn estimates(
        &self,
        settings: &Settings,
        catalog: &Catalog,
        devices: Vec<Device>,
    ) -> Result<(), Failure> {
        let engines = Engines::new(settings).within(catalog);
        let mut estimates = Estimates::new(&engines, settings, devices);
        for spec in catalog.instances.iter().flat_map(|i| &i.deployments) {
            let said = if self.hub {
                estimates.of_hub(spec).await
            } else {
                estimates.of(spec)
            };
            for words in said {
                out::line(format_args!("  {}: {words}", spec.id))?;
            }
        }
        Ok(())
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
        show_plan(&plan)?;
        if plan.deployments.is_empty() && plan.routes.is_empty() {
            out::line("nothing would change")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Deployments that these devices could never hold, by their files.
fn of_files(catalog: &Catalog, devices: &[Device]) -> Vec<FileError> {
    let of_file = |(id, why): (DeploymentId, String)| {
        let mut instances = catalog.instances.iter();
        let instance = instances.find(|i| i.deployments.iter().any(|d| d.id == id))?;
        Some(FileError {
            file: instance.file.clone(),
            line: None,
            key: "deployment".to_owned(),
            message: format!("{id} can never start: {why}"),
        })
    };
    let misfits = misfits(catalog, devices).into_iter();
    misfits.filter_map(of_file).collect()
}

/// Prints what is wrong.
fn show(errors: &[FileError]) -> Result<ExitCode, Failure> {
    for error in errors {
        out::line(error)?;
    }
    out::line(counted(errors.len(), "error"))?;
    Ok(ExitCode::FAILURE)
}
