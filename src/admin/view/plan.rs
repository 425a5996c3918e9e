//! What would happen.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lifecycle::{Change, Planned};

/// What `POST plan` is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// A directory of route files on the gateway's machine, in place of those in
    /// effect.
    pub routes: Option<String>,
    /// Files laid over them, by name.
    #[serde(default)]
    pub files: Vec<PlanFile>,
}

/// A file that would stand among the routes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// `team.toml`, or `team.json`.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// What a try of a change shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Review {
    /// What the file says now, with stars for secrets; none for a new one.
    pub before: Option<String>,
    /// What it would say.
    pub after: String,
    /// What would happen.
    pub plan: PlanView,
}

/// What would happen; what stays as it is is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// By deployment.
    pub deployments: Vec<PlannedView>,
    /// Routes, in words.
    pub routes: Vec<String>,
}

/// What would happen to one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedView {
    /// Its id.
    pub deployment: String,
    /// `added`, `removed`, `live` or `rolled`.
    pub change: String,
    /// What happens, in words.
    pub words: String,
    /// What its next worker will need of GPU memory, in sentences; empty where none is to
    /// come or that needs no estimate.
    #[serde(default)]
    pub memory: Vec<String>,
    /// Whether it waits until no request is inside; with `drain=1` it does not.
    #[serde(default)]
    pub waits: bool,
}

impl From<Planned> for PlannedView {
    fn from(planned: Planned) -> Self {
        Self {
            deployment: planned.deployment.to_string(),
            change: match planned.change {
                Change::Added => "added",
                Change::Removed => "removed",
                Change::Live => "live",
                Change::Rolled => "rolled",
            }
            .to_owned(),
            words: planned.words,
            memory: Vec::new(),
            waits: planned.waits,
        }
    }
}
