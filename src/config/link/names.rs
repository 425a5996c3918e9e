//! Targets of `[[name]]` of each file: a model of its own route, or of its instance.

use super::{Claim, Clash, Linked, Links, Party, route_name};
use crate::auth::Pattern;
use crate::config::file::Parts;
use crate::config::name::NameDraft;
use crate::config::problems::nearest;
use crate::names::ModelName;

/// A name, and where it was written.
#[derive(Clone, Debug)]
pub(in crate::config) struct Named<'a> {
    /// The file that it stands in.
    pub(super) file: usize,
    pub(in crate::config) draft: &'a NameDraft,
    /// The name of the model that it stands for.
    pub(in crate::config) of: ModelName,
}

/// That a name's file has what it stands for. No route is called so.
pub(super) fn claim(draft: &NameDraft) -> Claim {
    Claim::Leads(format!("model {}", draft.of.value))
}

impl<'a> Links<'a> {
    /// Finds what the names of a file lead to, once all instances have their routes.
    pub(super) fn attach_names(&mut self, file: usize, parts: &'a Parts) {
        for draft in &parts.names {
            let of = &draft.of.value;
            let own = parts.route.as_ref().map(|route| route.name.value.as_str());
            let own = own.and_then(|name| self.routes.get_key_value(name));
            let own = own.filter(|(_, linked)| linked.file == file);
            let of_route = own.and_then(|(name, linked)| Some((*name, meant(linked, of)?)));
            let found = of_route.or_else(|| of_instance(parts, of));
            if let Some((route, of)) = found {
                // Where there is none, that was said.
                if let Some(linked) = self.routes.get_mut(route) {
                    linked.names.push(Named { file, draft, of });
                }
                continue;
            }
            let known = known(own.map(|(_, linked)| linked), parts);
            self.clashes.push(nowhere(file, draft, &known));
        }
    }

    /// Names that stand where a pattern of any route would lead elsewhere. One that has
    /// no letters is for what has no name of its own.
    pub(super) fn check_patterns(&mut self) {
        let drafts = self.routes.values().filter_map(|linked| {
            let models = linked.draft?.models.as_ref()?;
            Some((linked.file, models))
        });
        let patterns = drafts.flat_map(|(file, models)| {
            let texts = models.value.iter().map(ModelName::as_str);
            let texts = texts.filter(|text| text.contains('*') && text.bytes().any(|b| b != b'*'));
            texts.filter_map(move |text| Some((file, models.line, Pattern::new(text).ok()?)))
        });
        let patterns: Vec<_> = patterns.collect();
        let mut found = Vec::new();
        for named in self.routes.values().flat_map(|linked| &linked.names) {
            let name = &named.draft.name;
            for (file, line, pattern) in &patterns {
                if !pattern.matches(name.value.as_str()) {
                    continue;
                }
                let pattern_party = Party {
                    file: *file,
                    line: *line,
                    key: "route.models",
                };
                found.push(Clash {
                    claim: Claim::Model(name.value.to_string()),
                    parties: super::in_order(vec![pattern_party, named.party()]),
                    message: format!(
                        "the name {:?} and the pattern {:?} are in each other's way, see {{other}}: write a name that no pattern leads to, or a narrower pattern",
                        name.value,
                        pattern.as_str()
                    ),
                });
            }
        }
        self.clashes.extend(found);
    }
}

impl Named<'_> {
    /// True if it is called so.
    pub(super) fn is(&self, name: &ModelName) -> bool {
        self.draft.name.value == *name
    }

    pub(super) fn party(&self) -> Party {
        Party {
            file: self.file,
            line: self.draft.name.line,
            key: "name.name",
        }
    }
}

/// The model of a route that a name means.
fn meant(linked: &Linked<'_>, of: &ModelName) -> Option<ModelName> {
    let aliases = super::aliases(linked);
    let is_meant = |alias: &ModelName| {
        let alias = alias.as_str();
        alias == of.as_str()
            || alias.contains('*')
                && Pattern::new(alias).is_ok_and(|pattern| pattern.matches(of.as_str()))
    };
    let mut instances = linked.instances.iter();
    if instances.any(|(_, instance)| serves(instance, of)) || aliases.iter().any(is_meant) {
        return Some(of.clone());
    }
    if *of.as_str() != *linked.name.as_str() {
        return None;
    }
    // The route itself, where it leads to one model, or by all its names to one list.
    let is_listed = linked.draft.is_some_and(|draft| draft.targets.is_some());
    let mut models: Vec<ModelName> = linked
        .instances
        .iter()
        .flat_map(|(_, instance)| &instance.deployments)
        .map(|deployment| deployment.value.endpoint_name.clone())
        .filter(|_| !is_listed)
        .collect();
    if is_listed {
        let mut named = aliases.into_iter();
        models.extend(named.find(|alias| !alias.as_str().contains('*')));
    } else if models.is_empty() {
        let named = aliases.into_iter();
        models.extend(named.filter(|alias| !alias.as_str().contains('*')));
    }
    models.sort();
    models.dedup();
    match models.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// The same of the instance of a file, with the route that leads to it.
fn of_instance<'a>(parts: &'a Parts, of: &ModelName) -> Option<(&'a str, ModelName)> {
    let instance = parts.instance.as_ref()?;
    serves(instance, of).then_some((route_name(parts)?, of.clone()))
}

pub(super) fn serves(instance: &super::InstanceDraft, of: &ModelName) -> bool {
    let mut deployments = instance.deployments.iter();
    deployments.any(|deployment| deployment.value.names().contains(of))
}

/// Models that a name of a file could stand for.
fn known(own: Option<&Linked<'_>>, parts: &Parts) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    let mut add = |instance: &super::InstanceDraft| {
        for deployment in &instance.deployments {
            known.extend(deployment.value.names().iter().map(ToString::to_string));
        }
    };
    parts.instance.iter().for_each(&mut add);
    if let Some(linked) = own {
        linked
            .instances
            .iter()
            .for_each(|(_, instance)| add(instance));
        known.extend(super::aliases(linked).iter().map(ToString::to_string));
    }
    known.sort();
    known.dedup();
    known
}

fn nowhere(file: usize, draft: &NameDraft, known: &[String]) -> Clash {
    let of = &draft.of;
    let near = nearest(of.value.as_str(), known.iter().map(String::as_str));
    let hint = match (near, known.is_empty()) {
        (Some(near), _) => format!("did you mean {near:?}?"),
        (None, true) => "write the name in the file of the route that serves it".to_owned(),
        (None, false) => format!(
            "write {}, or move the name to the file of the route that serves it",
            known
                .iter()
                .take(8)
                .map(|name| format!("{name:?}"))
                .collect::<Vec<_>>()
                .join(" or ")
        ),
    };
    Clash {
        claim: claim(draft),
        parties: vec![Party {
            file,
            line: of.line,
            key: "name.of",
        }],
        message: format!(
            "{:?} is no one model of this file's route or instance: {hint}",
            of.value
        ),
    }
}
