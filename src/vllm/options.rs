//! The options table (being built).

use std::collections::BTreeMap;

/// Options of one deployment by name, checked against the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptionSet(pub BTreeMap<String, serde_json::Value>);
