//! `tidegate check`: everything that is wrong, or what would be served.

use std::fmt;
use std::path::{Path, PathBuf};

use super::catalog::{Memory, load_first, unread};
use super::error::FileError;
use super::gateway;
use super::upstream::own;
use super::{ApiKeySource, Catalog};
use crate::names::{DeploymentId, InstanceName, RouteName};
use crate::outbound::roots::client_config;
use crate::units::counted;

/// Summary of what would be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Routes, by name.
    pub routes: Vec<RouteName>,
    /// Instances, by name.
    pub instances: Vec<InstanceName>,
    /// Deployments, by the name of their instance.
    pub deployments: Vec<DeploymentId>,
    /// Entries beside the route files that are not read, each with the reason.
    pub unread: Vec<(PathBuf, &'static str)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (routes, instances) = (self.routes.len(), self.instances.len());
        write!(
            f,
            "no errors: {}, {}, {}",
            counted(routes, "route"),
            counted(instances, "instance"),
            counted(self.deployments.len(), "deployment")
        )?;
        for route in &self.routes {
            write!(f, "\n  route {route}")?;
        }
        for deployment in &self.deployments {
            write!(f, "\n  deployment {deployment}")?;
        }
        for (path, why) in &self.unread {
            write!(f, "\n  not read: {} ({why})", path.display())?;
        }
        Ok(())
    }
}

/// Errors for what upstreams need beside their route files, and is not there.
fn unread_secrets(catalog: &Catalog) -> Vec<FileError> {
    let mut errors = Vec::new();
    for route in &catalog.routes {
        for upstream in &route.upstreams {
            // A service has another environment than the shell that checks it.
            let secrets = upstream.secrets();
            let of_files = secrets.filter(|(source, _)| matches!(source, ApiKeySource::File(_)));
            let unread = of_files.filter_map(|(source, used)| source.read(used).err());
            let ca = upstream.tls.as_ref().map(|tls| tls.ca.as_deref());
            let untrusted = ca.and_then(|ca| client_config(ca).err());
            let unread = unread.map(|error| error.to_string());
            let texts = unread.chain(untrusted.map(|error| error.to_string()));
            errors.extend(texts.map(|message| FileError {
                file: route.file.clone(),
                line: None,
                key: "upstream".to_owned(),
                message: format!("{}: {message}", upstream.address),
            }));
        }
    }
    errors
}

/// Reads the settings, as [`gateway::load`] finds them, and every route file.
///
/// # Errors
///
/// Everything that is wrong in any of them, at once.
pub fn check(config: Option<&Path>) -> Result<Summary, Vec<FileError>> {
    let (settings, mut errors) = gateway::load_with_errors(config);
    let memory = Memory::read(&settings.gateway.state.join(Memory::FILE));
    let catalog = load_first(&settings.gateway.routes, &settings.queues, &memory);
    errors.extend(unread_secrets(&catalog));
    errors.extend(own::errors(&catalog, &settings));
    errors.extend(catalog.errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let deployments = catalog
        .instances
        .iter()
        .flat_map(|instance| &instance.deployments);
    Ok(Summary {
        unread: unread(&settings.gateway.routes),
        deployments: deployments
            .map(|deployment| deployment.id.clone())
            .collect(),
        routes: catalog
            .routes
            .iter()
            .map(|route| route.name.clone())
            .collect(),
        instances: catalog.instances.iter().map(|i| i.name.clone()).collect(),
    })
}
