//! Explanation of why a deployment runs or does not.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Reasons why a deployment runs or does not.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// Its id; the model that is asked for, where servers that someone else runs answer, or
    /// it leads to a list.
    pub deployment: String,
    /// The phase that it is in; `external` for such servers, `list` for a list.
    pub phase: String,
    /// Word for its wait, or for that of a start: `leaving`, `reserved`, `measuring`,
    /// `busy`, `turn`, `costly`, `unwanted`, `small`, `new`.
    pub waits_for: Option<String>,
    /// The answer in words with figures, the most important first.
    pub lines: Vec<String>,
    /// Deployments that would leave for this one if a request came now.
    pub evicts: Vec<EvictedView>,
}

impl ExplainView {
    /// The phase of servers that someone else runs.
    pub const EXTERNAL: &'static str = "external";
    /// The phase of a list.
    pub const LIST: &'static str = "list";
}

/// A deployment that would leave for another.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvictedView {
    /// The deployment.
    pub deployment: String,
    /// Way in which it would leave, in words.
    pub how: String,
    /// Work that it is in the middle of, and the cost of leaving.
    pub words: String,
}
