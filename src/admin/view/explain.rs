//! Why it runs or does not.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a deployment runs or does not.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// Its id.
    pub deployment: String,
    /// The phase that it is in.
    pub phase: String,
    /// In one word what it waits for, or would: `leaving`, `reserved`, `measuring`,
    /// `busy`, `turn`, `costly`, `unwanted`, `small`, `new`.
    pub waits_for: Option<String>,
    /// The answer in words with figures, the most important first.
    pub lines: Vec<String>,
    /// Who would leave for it if a request came now.
    pub evicts: Vec<EvictedView>,
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
