//! A change before it is made: the file before and after, and what would happen.
//!
//! Changes nothing, and knows no one who asks: whether a change is theirs to make is
//! [`super::change`]'s.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Admin;
use super::error::on_disk;
use super::view::{PlanView, PlannedView, Review};
use crate::config::Catalog;
use crate::lifecycle::act::command::Engines;

/// Effects that a candidate would have if it came into effect.
pub(super) async fn planned(admin: &Admin, candidate: Catalog) -> PlanView {
    let (before, candidate) = (admin.catalog.load(), Arc::new(candidate));
    let planned = admin.lifecycle.plan(Arc::clone(&candidate)).await;
    let planned = planned.into_iter().map(PlannedView::from).collect();
    PlanView {
        deployments: with_memory(admin, Arc::clone(&candidate), planned).await,
        routes: routes_changed(&before, &candidate),
    }
}

/// Adds what workers to come will need of memory, as far as their models are here.
async fn with_memory(
    admin: &Admin,
    candidate: Arc<Catalog>,
    planned: Vec<PlannedView>,
) -> Vec<PlannedView> {
    let (settings, devices) = (Arc::clone(&admin.settings), admin.gpus.devices.clone());
    let plain = planned.clone();
    let looked = on_disk(move || {
        let engines = Engines::new(&settings).within(&candidate);
        let specs = candidate.instances.iter().flat_map(|i| &i.deployments);
        let specs: HashMap<&str, _> = specs.map(|spec| (spec.id.as_str(), spec)).collect();
        let mut planned = planned;
        for each in &mut planned {
            let comes = matches!(each.change.as_str(), "added" | "rolled");
            let spec = specs.get(each.deployment.as_str()).filter(|_| comes);
            each.memory = spec.map_or_else(Vec::new, |spec| engines.foretold(spec, &devices));
        }
        planned
    });
    looked.await.unwrap_or(plain)
}

/// The change as a text, and the effects that it would have.
pub(super) async fn of(
    admin: &Admin,
    before: Option<String>,
    after: String,
    catalog: Catalog,
) -> Review {
    Review {
        before,
        after,
        plan: planned(admin, catalog).await,
    }
}

/// Routes that come, go or differ, in words.
fn routes_changed(before: &Catalog, after: &Catalog) -> Vec<String> {
    let find = |catalog: &Catalog, name: &str| {
        let mut routes = catalog.routes.iter();
        routes.find(|route| route.name.as_str() == name).cloned()
    };
    let names: BTreeSet<&str> = before
        .routes
        .iter()
        .chain(&after.routes)
        .map(|route| route.name.as_str())
        .collect();
    let said = names
        .into_iter()
        .filter_map(|name| match (find(before, name), find(after, name)) {
            (None, Some(_)) => Some(format!("route {name}: new, at once")),
            (Some(_), None) => Some(format!(
                "route {name}: removed, at once; requests inside finish"
            )),
            (Some(old), Some(new)) => {
                let same = old.path == new.path
                    && old.models == new.models
                    && old.names == new.names
                    && old.access == new.access
                    && old.enabled == new.enabled
                    && old.limits == new.limits
                    && old.timeouts == new.timeouts
                    && old.upstreams == new.upstreams
                    && old.targets == new.targets;
                (!same).then(|| format!("route {name}: takes effect at once"))
            }
            (None, None) => None,
        });
    said.collect()
}
