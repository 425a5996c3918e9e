//! `tidegate args FILE`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::{ConfigArg, Failure, InvalidSettings, out};
use crate::config::{self, Engine};
use crate::lifecycle::command::Engines;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A route file, TOML or JSON
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArg,
}

impl Args {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let content = std::fs::read(&self.file)
            .map_err(|error| format!("{} can't be read: {error}", self.file.display()))?;
        let others = config::load_catalog(&settings.gateway.routes, &settings.queues, None);
        let catalog = config::with_file(&others, &settings.queues, &self.file, &content)
            .map_err(InvalidSettings)?;
        let engines = Engines::new(&settings);
        let mut refused = false;
        let own = catalog
            .instances
            .iter()
            .filter(|instance| instance.file == self.file);
        for deployment in own.flat_map(|instance| &instance.deployments) {
            out::line(format_args!("# {}", deployment.id))?;
            match line(&engines, deployment) {
                Ok(text) => out::line(text)?,
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
fn line(engines: &Engines, spec: &config::Deployment) -> Result<String, String> {
    let socket = Path::new("WORKER.sock");
    match &spec.engine {
        Engine::Vllm(vllm) => {
            let line = engines.vllm_line(spec, vllm, socket)?;
            let mut text = Vec::new();
            crate::vllm::args::print(&mut text, &line).map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
        }
        Engine::Sim(_) => {
            let line = engines.command_line(spec, socket)?;
            Ok(format!("tidegate {}", line.args.join(" ")))
        }
    }
}
