//! A file of `routes.d` without an instance, on its way in or out.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::{ExchangeError, Syntax, read_tables, written, written_for};
use crate::names::RouteName;

/// A route on its way in or out: a file without an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteFile {
    name: RouteName,
    pub(super) tables: Map<String, Json>,
    /// The text that it was read from, if that is TOML.
    source: Option<String>,
}

impl RouteFile {
    /// Reads a route file.
    ///
    /// # Errors
    ///
    /// It is too large, no text of ours, or without a route.
    pub fn read(content: &[u8]) -> Result<Self, ExchangeError> {
        let (syntax, tables) = read_tables(content)?;
        let route = tables.get("route").and_then(Json::as_object);
        let route = route.ok_or(ExchangeError::NoRoute)?;
        let name = route.get("name").and_then(Json::as_str);
        let name = RouteName::new(name.unwrap_or_default()).map_err(ExchangeError::RouteName)?;
        let source =
            (syntax == Syntax::Toml).then(|| String::from_utf8_lossy(content).into_owned());
        Ok(Self {
            name,
            tables,
            source,
        })
    }

    /// The name of the route.
    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// True if the file describes an instance too.
    pub fn has_instance(&self) -> bool {
        self.tables.contains_key("instance") || self.tables.contains_key("deployment")
    }

    /// Its tables, for a form.
    pub fn json(&self) -> Json {
        Json::Object(self.tables.clone())
    }

    /// The text of a new file for it, and how that is written: TOML, unless it has no
    /// form for a value.
    pub fn file(&self) -> (Syntax, String) {
        written(&self.tables, self.source.as_deref())
    }

    /// The text of it for a file that is there, as [`super::Exchange::text_for`] makes it.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Value`] for a value that TOML has no form for.
    pub fn text_for(&self, path: &Path, old: &[u8]) -> Result<String, ExchangeError> {
        written_for(path, &self.tables, self.source.as_deref(), old)
    }
}
