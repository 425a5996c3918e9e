//! Why it runs or does not.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a deployment runs or does not.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// Its id; the model that is asked for, where servers that someone else runs answer, or
    /// it leads to a list.
    pub deployment: String,
    /// The phase that it is in; `external` for such servers, `list` for a list.
    pub phase: String,
    /// In one word what it waits for, or would: `leaving`, `reserved`, `measuring`,
    /// `busy`, `turn`, `costly`, `unwanted`, `small`, `new`.
    pub waits_for: Option<String>,
    /// The answer in words with figures, the most important first.
    pub lines: Vec<String>,
    /// Who would leave for it if a request came now.
    pub evicts: Vec<EvictedView>,
}

impl ExplainView {
    /// The phase of servers that someone else runs.
    pub const EXTERNAL: &'static str = "external";
    /// The phase of a list.
    pub const LIST: &'static str = "list";
}

/// One who would leave for another.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvictedView {
    /// Who.
    pub deployment: String,
    /// How it would leave, in words.
    pub how: String,
    /// What it is in the middle of, and what that costs.
    pub words: String,
}
