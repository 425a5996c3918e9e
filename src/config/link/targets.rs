//! What each `[[target]]` leads to: a model behind its route, or upstreams of its file.

use super::names::serves;
use super::{Claim, Clash, Linked, Links, Party};
use crate::config::problems::nearest;
use crate::config::target::TargetRule;
use crate::names::ModelName;

/// That a target's route has what it leads to. No route is called so.
pub(super) fn claim(rule: &TargetRule) -> Claim {
    Claim::Leads(format!("target {}", rule.to))
}

impl Links<'_> {
    /// Targets that lead nowhere, or to two things of one name.
    pub(super) fn check_targets(&mut self) {
        let mut found = Vec::new();
        for linked in self.routes.values() {
            let targets = linked.draft.and_then(|draft| draft.targets.as_ref());
            let Some(targets) = targets else {
                continue;
            };
            for (rule, line) in targets.list.targets.iter().zip(&targets.lines) {
                if let Some(message) = self.fault(linked, &rule.to) {
                    let party = Party {
                        file: linked.file,
                        line: *line,
                        key: "target.to",
                    };
                    found.push(Clash {
                        claim: claim(rule),
                        parties: vec![party],
                        message,
                    });
                }
            }
        }
        self.clashes.extend(found);
    }

    /// What is wrong with a target that leads to `to`; `None` where nothing is.
    fn fault(&self, linked: &Linked<'_>, to: &ModelName) -> Option<String> {
        let upstreams = linked.draft.iter().flat_map(|draft| &draft.upstreams);
        let mut names = upstreams.filter_map(|upstream| upstream.name.as_ref());
        let is_upstream = names.any(|name| name == to);
        let mut instances = linked.instances.iter();
        let is_model = instances.any(|(_, instance)| serves(instance, to));
        match (is_upstream, is_model) {
            (true, false) | (false, true) => None,
            (true, true) => Some(format!(
                "{to:?} could mean the upstream or the model of that name: give the upstream another"
            )),
            (false, false) => Some(self.nowhere(linked, to)),
        }
    }

    fn nowhere(&self, linked: &Linked<'_>, to: &ModelName) -> String {
        let known = known(linked);
        let hint = if let Some(near) = nearest(to.as_str(), known.iter().map(String::as_str)) {
            format!("did you mean {near:?}?")
        } else if self.instances.values().any(|(_, other)| serves(other, to)) {
            format!(
                "that model is behind another route: write route = {:?} in its [instance]",
                linked.name
            )
        } else {
            "write a model of an instance that names this route, or the name of an [[upstream]] of this file".to_owned()
        };
        format!(
            "{to:?} is neither a model behind the route {:?} nor an upstream of it: {hint}",
            linked.name
        )
    }
}

/// What a target of a route can lead to.
fn known(linked: &Linked<'_>) -> Vec<String> {
    let upstreams = linked.draft.iter().flat_map(|draft| &draft.upstreams);
    let names = upstreams.filter_map(|upstream| upstream.name.as_ref());
    let mut known: Vec<String> = names.map(ToString::to_string).collect();
    for (_, instance) in &linked.instances {
        for deployment in &instance.deployments {
            known.push(deployment.value.endpoint_name.to_string());
            known.extend(deployment.value.adapters().iter().map(ToString::to_string));
        }
    }
    known
}
