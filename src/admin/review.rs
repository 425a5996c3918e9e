//! A change before it is made: the file before and after, and what would happen.
//!
//! Changes nothing, and knows no one who asks: whether a change is theirs to make is
//! [`super::change`]'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Admin;
use super::view::{PlanView, PlannedView, Review};
use crate::config::Catalog;

/// What would happen if this came into effect.
pub(super) async fn planned(admin: &Admin, candidate: Catalog) -> PlanView {
    let (before, candidate) = (admin.catalog.load(), Arc::new(candidate));
    let planned = admin.lifecycle.plan(Arc::clone(&candidate)).await;
    PlanView {
        deployments: planned.into_iter().map(PlannedView::from).collect(),
        routes: routes_changed(&before, &candidate),
    }
}

/// How a change looks, and what would happen.
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
                    && old.upstreams == new.upstreams;
                (!same).then(|| format!("route {name}: takes effect at once"))
            }
            (None, None) => None,
        });
    said.collect()
}
