//! Points on which a route and the instances behind it must agree, and the model names
//! that they claim together.

use std::collections::BTreeSet;

use super::{Claim, Clash, Linked, Party, in_order, place_of};
use crate::config::Access;
use crate::config::route::RouteDraft;
use crate::names::{ModelName, Project, Workspace};

fn group(linked: &Linked<'_>, key: &'static str, claim: Claim, message: String) -> Clash {
    let instances = linked.instances.iter().map(|(file, instance)| Party {
        file: *file,
        line: instance.name.line,
        key,
    });
    let mut parties: Vec<Party> = instances.collect();
    if linked
        .instances
        .iter()
        .all(|(file, _)| *file != linked.file)
    {
        parties.push(place_of(linked));
    }
    Clash {
        claim,
        parties: in_order(parties),
        message,
    }
}

fn leads(linked: &Linked<'_>) -> Claim {
    Claim::Leads(linked.name.to_string())
}

/// Upstreams and instances behind one route, without a list of both.
pub(super) fn mixed(linked: &Linked<'_>, draft: &RouteDraft) -> Option<Clash> {
    let is_one_kind = draft.upstreams.is_empty() || linked.instances.is_empty();
    if is_one_kind || draft.targets.is_some() {
        return None;
    }
    let name = &linked.name;
    let message = format!(
        "the route {name:?} has upstreams of its own in {{other}}: a route leads to upstreams or to instances, and to both only by a list of [[target]]"
    );
    Some(group(linked, "instance.route", leads(linked), message))
}

/// The workspace that a route is for: its own word, or that of the instance in its
/// file. An instance of another file joins the route, and does not take it over.
pub(in crate::config) fn workspace<'a>(linked: &'a Linked<'_>) -> Option<&'a Workspace> {
    let own = linked.draft.and_then(|draft| draft.workspace.as_ref());
    let mut instances = linked.instances.iter();
    let beside = instances.find(|(file, _)| *file == linked.file);
    let beside = || beside.and_then(|(_, instance)| instance.workspace.as_ref());
    own.or_else(beside).map(|found| &found.value)
}

/// Instances of another workspace than the route.
pub(super) fn foreigners(linked: &Linked<'_>) -> Option<Clash> {
    let of_route = workspace(linked);
    let mut instances = linked.instances.iter();
    let foreign = instances.find_map(|(_, instance)| {
        let found = instance.workspace.as_ref()?;
        (of_route != Some(&found.value)).then_some(&found.value)
    })?;
    let of_route = of_route.map_or_else(|| "(none)".to_owned(), |name| format!("{name:?}"));
    let message = format!(
        "the route {:?} is for the workspace {of_route} and an instance of it for {foreign:?}: write the same workspace here and in {{other}}",
        linked.name,
    );
    Some(group(linked, "instance.workspace", leads(linked), message))
}

/// Instances whose project is not that of the route.
pub(super) fn strangers(linked: &Linked<'_>, draft: &RouteDraft) -> Option<Clash> {
    let explicit = match draft.access.as_ref().map(|access| &access.value) {
        // An admin who writes that lets everyone in.
        Some(Access::Public) => return None,
        Some(Access::Project(project)) => Some(project),
        Some(Access::Admins) | None => None,
    };
    let own = linked
        .instances
        .iter()
        .filter_map(|(_, instance)| instance.project.as_ref());
    let mut projects: BTreeSet<&Project> = own.map(|project| &project.value).collect();
    projects.extend(explicit);
    if projects.len() < 2 {
        return None;
    }
    let all: Vec<String> = projects
        .iter()
        .map(|project| format!("{project:?}"))
        .collect();
    let message = format!(
        "route {:?} and its instances belong to different projects ({}): write the same project here and in {{other}}",
        linked.name,
        all.join(", ")
    );
    Some(group(linked, "instance.project", leads(linked), message))
}

/// A name of the route's own that could mean several models.
pub(super) fn ambiguous(linked: &Linked<'_>, draft: &RouteDraft) -> Option<Clash> {
    let names = endpoint_names(linked);
    let models = draft.models.as_ref()?;
    let vague = models.value.iter().find(|model| !names.contains(model))?;
    if names.len() < 2 || draft.targets.is_some() {
        return None;
    }
    let all: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let message = format!(
        "the name {vague:?} in models of route {:?} could mean {}: take it out, as each is reached by its own name, or give each its own route; see {{other}}",
        linked.name,
        all.join(" or ")
    );
    let claim = Claim::Leads(linked.name.to_string());
    let mut clash = group(linked, "instance.route", claim, message);
    for party in &mut clash.parties {
        if party.file == linked.file {
            party.line = models.line;
            party.key = "route.models";
        }
    }
    Some(clash)
}

fn endpoint_names<'a>(linked: &Linked<'a>) -> BTreeSet<&'a ModelName> {
    let deployments = linked
        .instances
        .iter()
        .flat_map(|(_, instance)| &instance.deployments);
    deployments
        .map(|deployment| &deployment.value.endpoint_name)
        .collect()
}

/// True if the name of a route could mean several models, and means none of them.
fn is_nameless(linked: &Linked<'_>, draft: &RouteDraft) -> bool {
    draft.targets.is_none() && endpoint_names(linked).len() > 1
}

/// The names of the route's own by which it is reached on `/v1`.
pub(in crate::config) fn aliases(linked: &Linked<'_>) -> Vec<ModelName> {
    let Some(draft) = linked.draft else {
        return Vec::new();
    };
    match &draft.models {
        Some(models) => models.value.clone(),
        None if is_nameless(linked, draft) => Vec::new(),
        None => ModelName::new(linked.name.as_str()).into_iter().collect(),
    }
}

/// Each name with its place and the endpoint that it is an adapter of; empty for
/// the names of endpoints and the route's own.
pub(super) fn model_claims(linked: &Linked<'_>) -> Vec<(String, Party, String)> {
    let mut claims = Vec::new();
    if let Some(draft) = linked.draft {
        let file = linked.file;
        match &draft.models {
            Some(models) => claims.extend(models.value.iter().map(|model| {
                let party = Party {
                    file,
                    line: models.line,
                    key: "route.models",
                };
                (model.to_string(), party, String::new())
            })),
            None if is_nameless(linked, draft) => {}
            None => {
                let party = Party {
                    file,
                    line: draft.name.line,
                    key: "route.models",
                };
                claims.push((linked.name.to_string(), party, String::new()));
            }
        }
    }
    for (file, instance) in &linked.instances {
        claims.extend(instance.deployments.iter().map(|deployment| {
            let line = deployment.line;
            let party = Party {
                file: *file,
                line,
                key: "deployment.endpoint_name",
            };
            (
                deployment.value.endpoint_name.to_string(),
                party,
                String::new(),
            )
        }));
        for deployment in &instance.deployments {
            claims.extend(deployment.value.adapters().into_iter().map(|adapter| {
                let party = Party {
                    file: *file,
                    line: deployment.line,
                    key: "deployment.options.lora_modules",
                };
                let base = deployment.value.endpoint_name.to_string();
                (adapter.to_string(), party, base)
            }));
        }
    }
    claims.extend(linked.names.iter().map(|named| {
        let party = named.party();
        // No other is the same.
        let base = format!("{}:{}", party.file, party.line);
        (named.draft.name.value.to_string(), party, base)
    }));
    claims
}
