//! The schema that editors use names the keys that are read, and no others.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::errors;
use crate::vllm::options::render::schema_value;
use crate::vllm::versions::Version;

/// Texts that end within a table, with the way to it in the schema.
const TABLES: &[(&str, &str)] = &[
    ("", ""),
    ("[route]", "/properties/route"),
    (
        "[route]\nname = \"r\"\n[route.timeouts]",
        "/properties/route/properties/timeouts",
    ),
    (
        "[route]\nname = \"r\"\n[route.stream]",
        "/properties/route/properties/stream",
    ),
    (
        "[route]\nname = \"r\"\n[route.load_balancing]",
        "/properties/route/properties/load_balancing",
    ),
    (
        "[route]\nname = \"r\"\n[route.retries]",
        "/properties/route/properties/retries",
    ),
    (
        "[route]\nname = \"r\"\n[route.ejection]",
        "/properties/route/properties/ejection",
    ),
    (
        "[route]\nname = \"r\"\n[[upstream]]",
        "/properties/upstream/items",
    ),
    (
        "[route]\nname = \"r\"\n[[upstream]]\nurl = \"http://a\"\n[upstream.health_check]",
        "/properties/upstream/items/properties/health_check",
    ),
    (
        "[instance]\nname = \"i\"\n[[deployment]]",
        "/properties/deployment/items",
    ),
    (
        "[instance]\nname = \"i\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\n[deployment.sim]",
        "/properties/deployment/items/properties/sim",
    ),
    (
        "[instance]\nname = \"i\"\n[[deployment]]\nmodel = \"m\"\n[deployment.replicas]",
        "/properties/deployment/items/properties/replicas",
    ),
    (
        "[[deployment]]\nmodel = \"m\"\n[instance]",
        "/properties/instance",
    ),
    (
        "[[deployment]]\nmodel = \"m\"\n[instance]\nname = \"i\"\n[instance.idle]",
        "/properties/instance/properties/idle",
    ),
];

#[test]
fn the_schema_of_route_files_names_the_keys_that_are_read() {
    let schema = schema_value(Version::new(0, 32, 0));
    for (table, pointer) in TABLES {
        let errors = errors("t.toml", &format!("{table}\nqqqqqqqqqqqq = 1\n"));
        let known = errors
            .iter()
            .find_map(|error| Some(error.split_once("known are ")?.1))
            .unwrap_or_else(|| panic!("no list of keys for {table:?}: {errors:?}"));
        let known: BTreeSet<&str> = known.split(", ").collect();
        let stated = schema.pointer(&format!("{pointer}/properties"));
        let stated: BTreeSet<&str> = stated
            .and_then(Json::as_object)
            .unwrap_or_else(|| panic!("no {pointer} in the schema"))
            .keys()
            .map(String::as_str)
            .filter(|key| *key != "$schema")
            .collect();
        let stated: Vec<_> = stated.symmetric_difference(&known).collect();
        assert!(
            stated.is_empty(),
            "the schema (`vllm::options::render::schema`) and the reader differ in {table:?}: {stated:?}"
        );
    }
}
