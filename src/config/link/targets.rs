//! Ends that each `[[target]]` leads to: a model behind its route, or upstreams of its file.

use std::sync::Arc;

use super::names::serves;
use super::{Claim, Clash, Linked, Links, Party};
use crate::config::problems::nearest;
use crate::config::target::{MIRROR_TO, TargetList, TargetRule};
use crate::config::{Deployment, Engine, Upstream};
use crate::names::ModelName;
use crate::openai::api::{Api, ApiSet};

/// That a target's route has what it leads to. No route is called so.
fn claim(to: &ModelName) -> Claim {
    Claim::Leads(format!("target {to}"))
}

/// Names that a list claims.
pub(super) fn claims(list: &TargetList) -> impl Iterator<Item = Claim> {
    let mirror = list.mirror.iter().map(|mirror| &mirror.to);
    let all = list.targets.iter().map(|rule| &rule.to).chain(mirror);
    all.map(claim)
}

impl Links<'_> {
    /// Targets that lead nowhere, or to two things of one name, or that serve nothing of what
    /// the others do.
    pub(super) fn check_targets(&mut self) {
        let mut found = Vec::new();
        for linked in self.routes.values() {
            let targets = linked.draft.and_then(|draft| draft.targets.as_ref());
            let Some(targets) = targets else {
                continue;
            };
            let list = &targets.list.targets;
            for (at, (rule, line)) in list.iter().zip(&targets.lines).enumerate() {
                let fault = self.fault(linked, &rule.to);
                let fault = fault.or_else(|| stranger(linked, list, at));
                let at = (linked.file, *line, "target.to");
                found.extend(fault.map(|message| clash(&rule.to, at, message)));
            }
            if let Some(mirror) = &targets.list.mirror {
                let fault = self.fault(linked, &mirror.to);
                let fault = fault.or_else(|| strange_mirror(linked, list, &mirror.to));
                let at = (linked.file, targets.mirror_line, MIRROR_TO);
                found.extend(fault.map(|message| clash(&mirror.to, at, message)));
            }
        }
        self.clashes.extend(found);
    }

    /// Fault of a target that leads to `to`; `None` where there is none.
    fn fault(&self, linked: &Linked<'_>, to: &ModelName) -> Option<String> {
        let mut names = upstreams(linked).filter_map(|upstream| upstream.name.as_ref());
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
        let hint = if let Some(named) = linked.names.iter().find(|named| named.is(to)) {
            format!(
                "it is a [[name]]: write what that stands for, {:?}",
                named.of
            )
        } else if let Some(near) = nearest(to.as_str(), known.iter().map(String::as_str)) {
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

/// The upstreams of a route's file.
fn upstreams<'a>(linked: &Linked<'a>) -> impl Iterator<Item = &'a Arc<Upstream>> {
    linked.draft.into_iter().flat_map(|draft| &draft.upstreams)
}

fn clash(
    to: &ModelName,
    (file, line, key): (usize, usize, &'static str),
    message: String,
) -> Clash {
    Clash {
        claim: claim(to),
        parties: vec![Party { file, line, key }],
        message,
    }
}

/// Fault of a mirror that has no API in common with any of a list; `None` where it has one,
/// or that is not known.
fn strange_mirror(linked: &Linked<'_>, list: &[TargetRule], to: &ModelName) -> Option<String> {
    let own = served(linked, to).bits();
    let mut others = list.iter();
    if others.any(|rule| served(linked, &rule.to).bits() & own != 0) {
        return None;
    }
    Some(format!(
        "{to:?} serves nothing of what the targets do, so that nothing is copied: write another, or take mirror out"
    ))
}

/// Fault of one of a list that has no API in common with any other; `None` where it has one,
/// or that is not known. Of two that have none the second is told.
fn stranger(linked: &Linked<'_>, list: &[TargetRule], at: usize) -> Option<String> {
    let to = &list.get(at)?.to;
    let own = served(linked, to).bits();
    let others = list.iter().enumerate().filter(|(n, _)| *n != at);
    let others = others.map(|(_, other)| served(linked, &other.to).bits());
    let others = others.reduce(|all, one| all | one)?;
    if own & others != 0 || at == 0 && list.len() == 2 {
        return None;
    }
    let labels = ApiSet::of_bits(own).iter().map(Api::label);
    Some(format!(
        "{to:?} serves only {}, and none of the others does: no request can go on from one to the other: take it out, or write in `apis` of each [[upstream]] what it serves",
        labels.collect::<Vec<_>>().join(", ")
    ))
}

/// The APIs that a target of this name is known to serve; all where that is not known. What
/// every model has, its tokenizer, is left out.
fn served(linked: &Linked<'_>, to: &ModelName) -> ApiSet {
    let called = upstreams(linked).filter(|upstream| upstream.name.as_ref() == Some(to));
    let stated = called.map(|upstream| upstream.apis.unwrap_or(ApiSet::ALL));
    let instances = linked.instances.iter();
    let deployments = instances.flat_map(|(_, instance)| &instance.deployments);
    let named = deployments.filter(|found| found.value.names().contains(to));
    let run = named.map(|found| by_options(&found.value));
    let all = stated.chain(run).map(ApiSet::bits);
    let all = all.reduce(|all, one| all | one);
    let tokenizer = ApiSet::bit(Api::Tokenize) | ApiSet::bit(Api::Detokenize);
    ApiSet::of_bits(all.unwrap_or(u32::MAX) & !tokenizer)
}

/// APIs that a model of ours serves, as far as its options say.
fn by_options(deployment: &Deployment) -> ApiSet {
    let Engine::Vllm(vllm) = &deployment.engine else {
        return ApiSet::ALL;
    };
    let (generates, pools) = match vllm.options.get_text("task") {
        Some("generate") => (true, false),
        Some("embed" | "embedding" | "classify" | "score" | "reward") => (false, true),
        _ => return ApiSet::ALL,
    };
    let mut set = ApiSet::default();
    for api in Api::ALL.into_iter().chain([Api::Realtime]) {
        let is_pooling = matches!(
            api,
            Api::Embeddings | Api::Embed | Api::Rerank | Api::Score | Api::Pooling | Api::Classify
        );
        if is_pooling && pools || !is_pooling && generates {
            set.insert(api);
        }
    }
    set
}

/// Names that a target of a route can lead to.
fn known(linked: &Linked<'_>) -> Vec<String> {
    let names = upstreams(linked).filter_map(|upstream| upstream.name.as_ref());
    let mut known: Vec<String> = names.map(ToString::to_string).collect();
    for (_, instance) in &linked.instances {
        for deployment in &instance.deployments {
            known.extend(deployment.value.names().iter().map(ToString::to_string));
        }
    }
    known
}
