//! Effects that changes would have.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lifecycle::{Change, Planned};

/// Body of `POST plan`.
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
    /// Text of the file.
    pub text: String,
}

/// Result of a try of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Review {
    /// Present text of the file, with stars for secrets; none for a new one.
    pub before: Option<String>,
    /// Text that the file would have.
    pub after: String,
    /// Effects that the change would have.
    pub plan: PlanView,
}

/// Effects that a change would have; deployments that it leaves alone are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Effects by deployment.
    pub deployments: Vec<PlannedView>,
    /// Routes, in words.
    pub routes: Vec<String>,
}

/// Effect that a change would have on one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedView {
    /// Its id.
    pub deployment: String,
    /// `added`, `removed`, `live` or `rolled`.
    pub change: String,
    /// The effect, in words.
    pub words: String,
    /// GPU memory that its next worker will need, in sentences; empty where none is to
    /// come or that needs no estimate.
    #[serde(default)]
    pub memory: Vec<String>,
    /// True if it waits until no request is inside; with `drain=1` it does not.
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
