//! Helpers that the tests of this room share.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Deployment, Engine, Idle, Sim, Start};
use crate::names::{DeploymentId, InstanceName, ModelName};

/// A deployment of the stand-in with this id.
pub(crate) fn spec(id: &str) -> Arc<Deployment> {
    let (instance, endpoint) = id.split_once('/').unwrap();
    let instance = InstanceName::new(instance).unwrap();
    let endpoint_name = ModelName::new(endpoint).unwrap();
    Arc::new(Deployment {
        id: DeploymentId::new(&instance, &endpoint_name),
        instance,
        endpoint_name,
        model: "tiny".to_owned(),
        max_concurrent_requests: None,
        max_request_duration: None,
        start: Start::OnDemand,
        replicas: crate::config::Replicas::default(),
        roll: crate::config::Roll::default(),
        author: crate::config::Author::default(),
        inputs: crate::config::Inputs::default(),
        keep: false,
        idle: Idle {
            time_limit: None,
            offload: None,
            last_action_report_interval: Duration::from_secs(10),
        },
        engine: Engine::Sim(Sim {
            load: Duration::ZERO,
            wake: Duration::ZERO,
            sleep: Duration::ZERO,
            first_token: Duration::ZERO,
            tokens_per_second: 1_000.0,
            weights: 16 << 30,
            context: 1 << 30,
            max_model_len: 131_072,
            faults: Vec::new(),
        }),
    })
}
