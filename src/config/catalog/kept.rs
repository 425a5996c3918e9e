//! Parts that one catalog takes over from the one before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Catalog, Deployment, Instance, Route};
use crate::names::DeploymentId;

/// Parts that were there before, so that what did not change stays the same `Arc`.
pub(super) struct Kept<'a> {
    routes: HashMap<&'a str, &'a Arc<Route>>,
    instances: HashMap<&'a str, &'a Arc<Instance>>,
    deployments: HashMap<&'a DeploymentId, &'a Arc<Deployment>>,
}

impl<'a> Kept<'a> {
    pub(super) fn of(previous: Option<&'a Catalog>) -> Self {
        let routes = previous.map_or(&[][..], |catalog| &catalog.routes);
        let instances = previous.map_or(&[][..], |catalog| &catalog.instances);
        let deployments = instances.iter().flat_map(|instance| &instance.deployments);
        Self {
            routes: routes
                .iter()
                .map(|route| (route.name.as_str(), route))
                .collect(),
            instances: instances.iter().map(|i| (i.name.as_str(), i)).collect(),
            deployments: deployments.map(|d| (&d.id, d)).collect(),
        }
    }

    pub(super) fn route(&self, route: Route) -> Arc<Route> {
        match self.routes.get(route.name.as_str()) {
            Some(old) if ***old == route => Arc::clone(old),
            _ => Arc::new(route),
        }
    }

    pub(super) fn instance(&self, mut instance: Instance) -> Arc<Instance> {
        for deployment in &mut instance.deployments {
            if let Some(old) = self.deployments.get(&deployment.id)
                && **old == *deployment
            {
                *deployment = Arc::clone(old);
            }
        }
        match self.instances.get(instance.name.as_str()) {
            Some(old) if ***old == instance => Arc::clone(old),
            _ => Arc::new(instance),
        }
    }
}
