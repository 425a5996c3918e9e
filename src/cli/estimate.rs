//! Needs of deployments on the devices of this machine, for people.

use std::collections::HashMap;

use super::out;
use crate::config::{Deployment, Engine, GpuSource, Settings};
use crate::gpu::nvml::Nvml;
use crate::gpu::{Device, Inventory};
use crate::lifecycle::act::command::Engines;
use crate::lifecycle::act::command::fit::{Estimated, NoEstimate, said};
use crate::models::checkpoint::Checkpoint;
use crate::models::hub::HubModel;

/// The devices; none where there is no driver, which `serve` says.
pub(super) fn devices(settings: &Settings) -> Vec<Device> {
    match &settings.gpus.source {
        GpuSource::Simulated(memory) => Inventory::simulated(memory).devices,
        GpuSource::None => Vec::new(),
        GpuSource::Auto | GpuSource::Nvml => Nvml::open(&settings.gpus.library)
            .and_then(|nvml| nvml.inventory())
            .map_or_else(|_| Vec::new(), |inventory| inventory.devices),
    }
}

/// Tells what deployments will need.
pub(super) struct Estimates<'a> {
    engines: &'a Engines,
    settings: &'a Settings,
    devices: Vec<Device>,
    /// Answers of the hub about a model at a revision.
    heard: HashMap<(String, Option<String>), Result<Checkpoint, String>>,
}

impl<'a> Estimates<'a> {
    pub(super) fn new(engines: &'a Engines, settings: &'a Settings, devices: Vec<Device>) -> Self {
        Self {
            engines,
            settings,
            devices,
            heard: HashMap::new(),
        }
    }

    /// By the model where it lies on this machine, in sentences.
    pub(super) fn of(&self, spec: &Deployment) -> Vec<String> {
        self.engines.foretold(spec, &self.devices)
    }

    /// The same, or else by what the hub says of the form of that model.
    pub(super) async fn of_hub(&mut self, spec: &Deployment) -> Vec<String> {
        let told = self.asked(spec).await;
        said(told, &self.devices)
    }

    async fn asked(&mut self, spec: &Deployment) -> Estimated {
        let told = self.engines.foretell(spec);
        let (Some(Err(NoEstimate::Away(name))), Engine::Vllm(vllm)) = (&told, &spec.engine) else {
            return told;
        };
        let revision = vllm.options.get_text("revision").map(str::to_owned);
        let key = (name.clone(), revision);
        if !self.heard.contains_key(&key) {
            let python = self.settings.models.python.as_deref();
            let Ok(python) = self.engines.vllm.python(python).await else {
                return told;
            };
            out::note(&format!("asks the hub what form {name} has"));
            let (name, revision) = key.clone();
            let model = HubModel {
                python,
                name,
                revision,
                environment: None,
                before: None,
            };
            let looked = model.look().await.map_err(|error| error.to_string());
            self.heard.insert(key.clone(), looked);
        }
        match self.heard.get(&key)? {
            Ok(checkpoint) => self.engines.foretell_by(spec, checkpoint),
            Err(why) => Some(Err(NoEstimate::Unknown(why.clone()))),
        }
    }
}
