//! `tidegate args FILE`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::common::{ConfigArg, Failure, InvalidSettings};
use super::estimate::{Estimates, devices};
use super::out;
use crate::config::{self, Engine};
use crate::lifecycle::act::command;
use crate::lifecycle::act::command::Engines;
use crate::vllm::installation::{Installation, InstallationError};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A route file, TOML or JSON
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArg,
}

impl Args {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let content = std::fs::read(&self.file)
            .map_err(|error| format!("{} can't be read: {error}", self.file.display()))?;
        let others = config::load_catalog(&settings.gateway.routes, &settings.queues, None);
        let catalog = config::with_file(&others, &settings.queues, &self.file, &content)
            .map_err(InvalidSettings)?;
        let engines = Engines::new(&settings).within(&catalog);
        let mut estimates = Estimates::new(&engines, &settings, devices(&settings));
        let mut refused = false;
        let own = catalog
            .instances
            .iter()
            .filter(|instance| instance.file == self.file);
        for deployment in own.flat_map(|instance| &instance.deployments) {
            out::line(format_args!("# {}", deployment.id))?;
            match line(&engines, deployment).await {
                Ok(text) => {
                    out::line(text)?;
                    for words in estimates.of_hub(deployment).await {
                        out::line(format_args!("# {words}"))?;
                    }
                }
                Err(error) => {
                    refused = true;
                    out::line(format_args!("# refused: {error}"))?;
                }
            }
        }
        Ok(if refused {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// The command as a shell would read it, secrets masked, with notes as comments.
async fn line(engines: &Engines, spec: &config::Deployment) -> Result<String, String> {
    let place = command::WorkerPlace::shown();
    match &spec.engine {
        Engine::Vllm(vllm) => {
            let (installation, doubts) = installation(engines, vllm.version.as_deref()).await?;
            let line = engines.vllm_line(spec, vllm, &installation, place)?;
            let mut text = Vec::new();
            crate::vllm::args::print(&mut text, &line).map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            let notes = doubts.iter().map(|doubt| format!("\n# {doubt}"));
            Ok(text + &notes.collect::<String>())
        }
        Engine::Sim(_) => {
            let line = engines.command_line(spec, &command::Engine::StandIn, place)?;
            Ok(format!("tidegate {}", line.args.join(" ")))
        }
    }
}

/// The vLLM that would run, and what is not sure of it. Nothing is installed.
async fn installation(
    engines: &Engines,
    version: Option<&str>,
) -> Result<(Installation, Vec<String>), String> {
    let found = match engines.vllm.look(version, &out::note).await {
        Ok(Some(found)) => found,
        Ok(None) | Err(InstallationError::Missing(_)) => {
            let assumed = engines.vllm.assumed(version);
            assumed.map_err(|error| error.to_string())?
        }
        Err(error) => return Err(error.to_string()),
    };
    let doubts = found.doubts.clone();
    Ok((found, doubts))
}
