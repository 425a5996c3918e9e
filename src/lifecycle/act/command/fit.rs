//! Memory that a spec will need, by its model: what of that lies on this machine, or what
//! the hub says of its form.
//!
//! It reads a config and heads of files, and starts nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Engines, WorkerPlace};
use crate::config;
use crate::gpu::Device;
use crate::models::cache;
use crate::models::checkpoint::Checkpoint;
use crate::models::source::{ModelSource, check_revision};
use crate::vllm::args::{CommandLine, flags};
use crate::vllm::environment::{MODELSCOPE, is_modelscope};
use crate::vllm::fit::{Fit, FitTerms, Shape, Weights};
use crate::vllm::versions::Version;

/// Estimate of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The estimate.
    pub fit: Arc<Fit>,
    /// Parts of the model that do not agree, in sentences.
    pub doubts: Vec<String>,
}

/// Reason why there is no estimate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEstimate {
    /// The model of the hub is not here.
    #[error(
        "{0} is not on this machine yet: `tidegate pull {0}` fetches it, and `tidegate check --hub` asks for its form alone"
    )]
    Away(String),
    /// Something is wrong or not known.
    #[error("{0}")]
    Unknown(String),
}

impl From<String> for NoEstimate {
    fn from(why: String) -> Self {
        Self::Unknown(why)
    }
}

/// An estimate, or why there is none; `None` for what needs none.
pub type Estimated = Option<Result<Fitted, NoEstimate>>;

impl Fitted {
    /// It in sentences, on the largest of these devices.
    pub fn words(&self, devices: &[Device]) -> Vec<String> {
        let largest = devices.iter().map(|device| device.memory).max();
        let words = match largest {
            Some(memory) => self.fit.words(memory),
            None => self.fit.to_string(),
        };
        std::iter::once(words)
            .chain(self.doubts.iter().cloned())
            .collect()
    }
}

/// An estimate as people read it; nothing where there is nothing to say.
pub fn said(told: Estimated, devices: &[Device]) -> Vec<String> {
    match told {
        None => Vec::new(),
        Some(Ok(fitted)) => fitted.words(devices),
        Some(Err(why)) => vec![format!("no estimate of its GPU memory: {why}")],
    }
}

impl Engines {
    /// Memory that a worker of this spec will need, by what is known of its version,
    /// whether or not that is installed. Blocks.
    pub fn foretell(&self, spec: &config::Deployment) -> Estimated {
        let read = |line: Line| {
            let directory = directory(&spec.model, &line.line)?;
            estimate(&Checkpoint::read(&directory)?, &line)
        };
        Some(self.assumed_line(spec)?.and_then(read))
    }

    /// The same, by what someone else told of its model.
    pub fn foretell_by(&self, spec: &config::Deployment, checkpoint: &Checkpoint) -> Estimated {
        let line = self.assumed_line(spec)?;
        Some(line.and_then(|line| estimate(checkpoint, &line)))
    }

    /// Words of [`Self::foretell`], for people.
    pub fn foretold(&self, spec: &config::Deployment, devices: &[Device]) -> Vec<String> {
        said(self.foretell(spec), devices)
    }

    /// Command line of vLLM; `None` for another engine.
    fn assumed_line(&self, spec: &config::Deployment) -> Option<Result<Line, NoEstimate>> {
        let config::Engine::Vllm(vllm) = &spec.engine else {
            return None;
        };
        let line = || {
            let assumed = self.vllm.assumed(vllm.version.as_deref());
            let assumed = assumed.map_err(|error| error.to_string())?;
            // First whether it may be named: what is there is told to no one else.
            let line = self.vllm_line(spec, vllm, &assumed, WorkerPlace::shown())?;
            let version = assumed.version;
            Ok(Line { line, version })
        };
        Some(line())
    }
}

/// A command line, and the version that it is for.
struct Line {
    line: CommandLine,
    version: Version,
}

/// Memory that a model needs when it is run so.
fn estimate(checkpoint: &Checkpoint, line: &Line) -> Result<Fitted, NoEstimate> {
    let terms = FitTerms::read(&line.line.argv, line.version)?;
    let shape = Shape::read(&checkpoint.config)?;
    let mut weights = Weights::default();
    for tensor in &checkpoint.tensors {
        weights.add(
            &shape,
            &tensor.name,
            &tensor.dtype,
            &tensor.sizes,
            tensor.bytes,
        );
    }
    Ok(Fitted {
        fit: Arc::new(Fit::of(shape, &weights, terms)?),
        doubts: checkpoint.doubts.clone(),
    })
}

/// Directory of the model.
fn directory(model: &str, line: &CommandLine) -> Result<PathBuf, NoEstimate> {
    if Path::new(model).is_dir() {
        return Ok(PathBuf::from(model));
    }
    let name = match ModelSource::parse(model) {
        Ok(ModelSource::Hub(name)) => name,
        Ok(ModelSource::Directory(_)) => {
            return Err(format!("there is no model at {model}").into());
        }
        Err(error) => return Err(error.to_string().into()),
    };
    let value = |wanted: &str| {
        let mut named = flags(&line.argv).filter(|(flag, _)| *flag == wanted);
        named.find_map(|(_, value)| value)
    };
    let revision = value("--revision");
    if let Some(revision) = revision {
        check_revision(revision).map_err(|error| error.to_string())?;
    }
    let variable = |name: &str| match line.env.get(name) {
        Some(own) => Some(OsString::from(own.expose())),
        None => std::env::var_os(name),
    };
    if is_modelscope(variable) {
        return Err(format!("{MODELSCOPE} is set, and what lies there is not looked at").into());
    }
    let own = value("--download-dir").map(PathBuf::from);
    let cache = own.or_else(|| cache::place(variable));
    let found = cache.and_then(|cache| cache::snapshot(&cache, &name, revision));
    found.ok_or(NoEstimate::Away(name))
}

#[cfg(test)]
mod tests;
