//! Files that go together, made into one catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::Kept;
use super::{FileState, Files, Work};
use crate::config::error::FileError;
use crate::config::link::{self, Linked, Links};
use crate::config::{Access, Catalog, Deployment, Instance, Name, Route, RouteLimits, Timeouts};

impl Work {
    /// The catalog of what goes together, with what is wrong in any file.
    pub(super) fn finish(self, previous: Option<&Catalog>, mut errors: Vec<FileError>) -> Catalog {
        errors.sort_by(|a, b| (&a.file, a.line, &a.key).cmp(&(&b.file, b.line, &b.key)));
        errors.dedup();
        let links = self.links();
        let kept = Kept::of(previous);
        let instances: BTreeMap<&str, Arc<Instance>> = links
            .instances
            .iter()
            .filter_map(|(name, (file, _))| {
                Some((*name, kept.instance(self.instance(*file, &links)?)))
            })
            .collect();
        let routes = links
            .routes
            .values()
            .map(|linked| kept.route(self.route(linked, &instances)))
            .collect();
        let instances = instances.into_values().collect();
        drop(links);
        let states = self.digests.into_iter().zip(self.present).zip(self.now);
        let files = self.paths.into_iter().zip(states);
        let files = files.map(|(path, ((digest, present), effect))| {
            (
                path,
                Arc::new(FileState {
                    digest,
                    present,
                    effect,
                }),
            )
        });
        Catalog {
            routes,
            instances,
            errors,
            files: Files(files.collect()),
        }
    }

    fn instance(&self, file: usize, links: &Links<'_>) -> Option<Instance> {
        let parts = self.now.get(file)?.as_deref()?;
        let draft = parts.instance.as_ref()?;
        let linked = links.routes.get(link::route_name(parts)?);
        let inputs = linked
            .and_then(|linked| linked.draft)
            .map(|route| &route.inputs.value);
        let with_inputs = |spec: &Arc<Deployment>| match inputs {
            Some(inputs) if *inputs != spec.inputs => Arc::new(Deployment {
                inputs: inputs.clone(),
                ..(**spec).clone()
            }),
            _ => Arc::clone(spec),
        };
        Some(Instance {
            name: draft.name.value.clone(),
            workspace: draft.workspace.as_ref().map(|found| found.value.clone()),
            project: draft.project.as_ref().map(|project| project.value.clone()),
            queue: draft.queue.clone(),
            route: link::route_name(parts)?.parse().ok()?,
            deployments: draft
                .deployments
                .iter()
                .map(|d| with_inputs(&d.value))
                .collect(),
            file: self.paths.get(file)?.clone(),
        })
    }

    fn route(&self, linked: &Linked<'_>, instances: &BTreeMap<&str, Arc<Instance>>) -> Route {
        let behind = linked.instances.iter();
        let mut deployments: Vec<Arc<Deployment>> = behind
            .filter_map(|(_, draft)| instances.get(draft.name.value.as_str()))
            .flat_map(|instance| instance.deployments.iter().cloned())
            .collect();
        deployments.sort_by(|a, b| a.id.cmp(&b.id));
        let mut projects = linked
            .instances
            .iter()
            .filter_map(|(_, draft)| draft.project.as_ref());
        let inherited = projects.next().map_or(Access::Admins, |project| {
            Access::Project(project.value.clone())
        });
        let draft = linked.draft;
        let access = draft.and_then(|draft| draft.access.as_ref());
        Route {
            name: linked.name.clone(),
            path: draft.map_or_else(
                || linked.name.as_str().to_owned(),
                |draft| draft.path.value.clone(),
            ),
            host: draft
                .and_then(|draft| draft.host.as_ref())
                .map(|host| host.value.clone()),
            models: link::aliases(linked),
            workspace: link::workspace(linked).cloned(),
            access: access.map_or(inherited, |access| access.value.clone()),
            description: draft.and_then(|draft| draft.description.clone()),
            enabled: draft.is_none_or(|draft| draft.enabled),
            limits: draft.map_or_else(RouteLimits::default, |draft| draft.limits),
            timeouts: draft.map_or_else(Timeouts::default, |draft| draft.timeouts),
            stream: draft.map(|draft| draft.stream).unwrap_or_default(),
            load_balancing: draft.map(|d| d.load_balancing.clone()).unwrap_or_default(),
            retries: draft.map(|d| d.retries.clone()).unwrap_or_default(),
            ejection: draft.map(|d| d.ejection).unwrap_or_default(),
            inputs: draft.map(|d| d.inputs.value.clone()).unwrap_or_default(),
            keep_alive_max: draft.and_then(|draft| draft.keep_alive_max),
            upstreams: draft
                .map(|draft| draft.upstreams.clone())
                .unwrap_or_default(),
            deployments,
            targets: draft
                .and_then(|draft| draft.targets.as_ref())
                .map(|targets| targets.list.clone()),
            names: names(linked),
            file: self.paths.get(linked.file).cloned().unwrap_or_default(),
            ephemeral: draft.is_none(),
        }
    }
}

fn names(linked: &Linked<'_>) -> Vec<Arc<Name>> {
    let all = linked.names.iter().map(|one| {
        Arc::new(Name {
            name: one.draft.name.value.clone(),
            of: one.of.clone(),
            rules: Arc::clone(&one.draft.rules),
        })
    });
    let mut names: Vec<Arc<Name>> = all.collect();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    names
}
