//! Instances leave and come back: an export is the JSON form of a route file
//! under the header `"tidegate": {"export": 1}`.
//!
//! Owns the header, what belongs to an instance (its tables, its deployments and
//! the route of its own file), its renaming, and that no secret goes out: one
//! that was written in place becomes a name. Pure; whether the result can be
//! served is [`super::with_file`]'s to say, and files are the admin API's.

mod author;
mod difference;
mod route_file;
mod tenant;
mod text;

use std::path::{Path, PathBuf};

pub use route_file::RouteFile;
use serde_json::{Map, Value as Json, json};

use super::error::FileError;
use super::file;
use super::options::json as to_json;
use super::tree::{self, FILE_BYTES_MAX};
use crate::names::{InstanceName, InvalidName};
use crate::vllm::options::{OptionScope, OptionSet, SecretText, ValueKind, find};

/// The version of exports that is written; older ones are read as well.
pub const EXPORT_VERSION: u64 = 1;
const HEADER: &str = "tidegate";

/// Reason why a text is not an instance that can be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// It is larger than a route file may be.
    #[error("this is larger than {FILE_BYTES_MAX} bytes: split it into several instances")]
    Large,
    /// It is neither TOML nor JSON.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Syntax(Vec<FileError>),
    /// It has no header of ours.
    #[error(
        "this is not an export of tidegate: take one from `tidegate export`, or use `tidegate launch` for a route file"
    )]
    Foreign,
    /// A later tidegate wrote it.
    #[error(
        "this export has version {0}, and this tidegate knows {EXPORT_VERSION}: export it with this version, or install the newer one"
    )]
    Newer(u64),
    /// It describes no instance.
    #[error("there is no [instance] in it: write one, with a name and [[deployment]]")]
    NoInstance,
    /// It describes no route.
    #[error("there is no [route] in it: write one, with a name")]
    NoRoute,
    /// The route has no name, or not a name.
    #[error("route.name: {0}")]
    RouteName(#[source] InvalidName),
    /// The instance has no name, or not a name.
    #[error("instance.name: {0}")]
    Name(#[from] InvalidName),
    /// Its file can't be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error, and what to do.
        reason: String,
    },
    /// A value that JSON has no form for.
    #[error("line {line}: {message}")]
    Value {
        /// The line, from 1.
        line: usize,
        /// The error.
        message: &'static str,
    },
}

/// Syntax of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// As a route file that ends in `.toml`.
    Toml,
    /// As a route file that ends in `.json`.
    Json,
}

impl Syntax {
    /// JSON if the first character says so: no TOML begins with a brace.
    pub fn of(content: &[u8]) -> Self {
        let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        if text.trim_ascii_start().starts_with(b"{") {
            Self::Json
        } else {
            Self::Toml
        }
    }

    /// Ending of the names of such files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Json => "json",
        }
    }
}

/// An instance on its way in or out.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    name: InstanceName,
    /// The tables of its file.
    tables: Map<String, Json>,
    /// The header's version, if it has one.
    version: Option<u64>,
    /// The text that it was read from, if that is a route file in TOML.
    source: Option<String>,
}

impl Exchange {
    /// Reads a route file or an export.
    ///
    /// # Errors
    ///
    /// It is too large, no text of ours, from a newer version, or without an instance.
    pub fn read(content: &[u8]) -> Result<Self, ExchangeError> {
        let (syntax, mut tables) = read_tables(content)?;
        let version = tables.remove(HEADER).map(|header| version(&header));
        let version = version.transpose()?;
        let instance = tables.get("instance").and_then(Json::as_object);
        let instance = instance.ok_or(ExchangeError::NoInstance)?;
        let name = instance.get("name").and_then(Json::as_str);
        let name = InstanceName::new(name.unwrap_or_default())?;
        // Comments are worth keeping.
        let source = (version.is_none() && syntax == Syntax::Toml)
            .then(|| String::from_utf8_lossy(content).into_owned());
        Ok(Self {
            name,
            tables,
            version,
            source,
        })
    }

    /// Reads an export, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and when it has no header.
    pub fn import(content: &[u8]) -> Result<Self, ExchangeError> {
        let read = Self::read(content)?;
        match read.version {
            Some(_) => Ok(read),
            None => Err(ExchangeError::Foreign),
        }
    }

    /// The name of the instance.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// The tables of its file.
    pub fn tables(&self) -> &Map<String, Json> {
        &self.tables
    }

    /// True if it was read from an export, which has a header.
    pub fn is_export(&self) -> bool {
        self.version.is_some()
    }

    /// Leaves only what is the instance's: its tables, its deployments, and the
    /// route of the same file if that leads to it.
    #[must_use]
    pub fn instance_only(mut self) -> Self {
        let own = self.route_is_own();
        // Names are of the route, if there is one in the file.
        let named = own || !self.tables.contains_key("route");
        let is_listed = self.tables.contains_key("target");
        let kept = |key: &str| {
            matches!(key, "instance" | "deployment")
                || own && key == "route"
                || own && is_listed && matches!(key, "target" | "upstream")
                || named && key == "name"
        };
        self.tables.retain(|key, _| kept(key));
        self
    }

    /// True if the file holds nothing beside the instance and its own route.
    pub fn is_alone(&self) -> bool {
        self.clone().instance_only().tables == self.tables
    }

    /// The name of the route that stands in the same file.
    pub fn route(&self) -> Option<&str> {
        self.tables.get("route")?.get("name")?.as_str()
    }

    fn route_is_own(&self) -> bool {
        let named = self.tables.get("instance").and_then(|i| i.get("route"));
        match named.and_then(Json::as_str) {
            None => true,
            Some(named) => Some(named) == self.route(),
        }
    }

    /// Gives it another name, and its own route with it where that has the same.
    pub fn rename(&mut self, name: &InstanceName) {
        if self.name == *name {
            return;
        }
        let own = self.route_is_own();
        let old = std::mem::replace(&mut self.name, name.clone());
        let change = |table: Option<&mut Json>, keys: &[&str]| {
            let Some(table) = table.and_then(Json::as_object_mut) else {
                return;
            };
            for (key, value) in table {
                let text = value.as_str().filter(|_| keys.contains(&key.as_str()));
                if text == Some(old.as_str()) {
                    *value = json!(name);
                } else if text.and_then(|text| text.strip_prefix('/')) == Some(old.as_str()) {
                    *value = json!(format!("/{name}"));
                }
            }
        };
        let instance_keys: &[&str] = if own { &["name", "route"] } else { &["name"] };
        change(self.tables.get_mut("instance"), instance_keys);
        if own {
            change(self.tables.get_mut("route"), &["name", "path"]);
            // A host name leads to one route only, and stays with the first.
            let route = self.tables.get_mut("route").and_then(Json::as_object_mut);
            drop(route.and_then(|route| route.remove("host")));
        }
    }

    /// Gives the deployment that clients call `from` another name. False where
    /// there is none.
    pub fn rename_endpoint(&mut self, from: &str, to: &str) -> bool {
        let deployments = self.tables.get_mut("deployment");
        let mut deployments = deployments
            .and_then(Json::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Json::as_object_mut);
        let Some(found) = deployments.find(|deployment| endpoint(deployment) == Some(from)) else {
            return false;
        };
        found.insert("endpoint_name".to_owned(), json!(to));
        for (table, key) in [("name", "of"), ("target", "to")] {
            let tables = self.tables.get_mut(table).and_then(Json::as_array_mut);
            for table in tables.into_iter().flatten() {
                let meant = table.get_mut(key);
                if let Some(meant) = meant.filter(|meant| meant.as_str() == Some(from)) {
                    *meant = json!(to);
                }
            }
        }
        let route = self.tables.get_mut("route");
        let mirrored = route.and_then(|route| route.pointer_mut("/targets/mirror/to"));
        if let Some(meant) = mirrored.filter(|meant| meant.as_str() == Some(from)) {
            *meant = json!(to);
        }
        true
    }

    /// Takes secrets that were written in place out of it, leaving their names:
    /// `INSTANCE.OPTION`, or `INSTANCE/MODEL.OPTION` for one deployment.
    pub fn take_secrets(&mut self) -> Vec<(String, SecretText)> {
        let mut taken = Vec::new();
        let name = self.name.clone();
        if let Some(instance) = self
            .tables
            .get_mut("instance")
            .and_then(Json::as_object_mut)
        {
            taken.extend(take(instance, OptionScope::Instance, name.as_str()));
        }
        let deployments = self.tables.get_mut("deployment");
        let deployments = deployments.and_then(Json::as_array_mut);
        for table in deployments.into_iter().flatten() {
            let Some(table) = table.as_object_mut() else {
                continue;
            };
            let owner = format!("{name}/{}", endpoint(table).unwrap_or_default());
            taken.extend(take(table, OptionScope::Deployment, &owner));
        }
        if !taken.is_empty() {
            // The text, too, is without them from here on.
            let source = self.source.take();
            self.source = source.and_then(|source| text::over(&source, &self.tables));
        }
        taken
    }

    /// The secrets of the store that it names.
    pub fn named_secrets(&self) -> Vec<&str> {
        let deployments = self.tables.get("deployment").and_then(Json::as_array);
        let tables = deployments.into_iter().flatten();
        let tables = tables.chain(self.tables.get("instance"));
        let options = tables.filter_map(|table| table.get("options")?.as_object());
        let named = options.flat_map(Map::values);
        named
            .filter_map(|value| value.get("secret")?.as_str())
            .collect()
    }

    /// True if an option takes a secret from a file or a variable of the machine.
    pub fn names_machine_secrets(&self) -> bool {
        let deployments = self.tables.get("deployment").and_then(Json::as_array);
        let tables = deployments.into_iter().flatten();
        let tables = tables.chain(self.tables.get("instance"));
        let options = tables.filter_map(|table| table.get("options")?.as_object());
        options
            .flat_map(Map::values)
            .any(|value| value.get("file").is_some() || value.get("env").is_some())
    }

    /// The text of it for a file that is there, in the syntax that its name says: laid
    /// over what was sent, or over what the file says now, so that comments stay.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Value`] for a value that TOML has no form for.
    pub fn text_for(&self, path: &Path, old: &[u8]) -> Result<String, ExchangeError> {
        written_for(path, &self.tables, self.source.as_deref(), old)
    }

    /// The export. Secrets are to be taken out before; one that could not be, as
    /// it is not written as one, is blotted out.
    pub fn export(&self) -> Json {
        let mut tables = self.tables.clone();
        let deployments = tables.get_mut("deployment").and_then(Json::as_array_mut);
        deployments.into_iter().flatten().for_each(blot);
        tables.get_mut("instance").into_iter().for_each(blot);
        tables.insert(HEADER.to_owned(), json!({ "export": EXPORT_VERSION }));
        Json::Object(tables)
    }

    /// The text of a new route file for it, and how that is written: TOML, unless it has
    /// no form for a value.
    pub fn file(&self) -> (Syntax, String) {
        written(&self.tables, self.source.as_deref())
    }

    /// The text of it in the syntax in which it was sent, so that its lines are those
    /// that the sender knows.
    pub fn as_sent(&self) -> (Syntax, String) {
        let source = self.source.as_deref();
        match source.and_then(|source| text::over(source, &self.tables)) {
            Some(text) => (Syntax::Toml, text),
            None => (Syntax::Json, pretty(&self.tables)),
        }
    }
}

/// The tables of a text, and how it is written.
fn read_tables(content: &[u8]) -> Result<(Syntax, Map<String, Json>), ExchangeError> {
    if u64::try_from(content.len()).is_ok_and(|size| size > FILE_BYTES_MAX) {
        return Err(ExchangeError::Large);
    }
    let syntax = Syntax::of(content);
    let input = format!("input.{}", syntax.extension());
    let tree = tree::parse(Path::new(&input), content).map_err(ExchangeError::Syntax)?;
    match to_json(&tree).map_err(|(line, message)| ExchangeError::Value { line, message })? {
        Json::Object(tables) => Ok((syntax, tables)),
        _ => Err(ExchangeError::NoInstance),
    }
}

/// The text of these tables in the syntax that a file's name says: laid over `source`,
/// which was sent, or over `old`, which stands there.
fn written_for(
    path: &Path,
    tables: &Map<String, Json>,
    source: Option<&str>,
    old: &[u8],
) -> Result<String, ExchangeError> {
    if path.extension().is_some_and(|end| end == "json") {
        return Ok(pretty(tables));
    }
    let there = source.or_else(|| std::str::from_utf8(old).ok());
    let written = match there.filter(|text| read_tables(text.as_bytes()).is_ok()) {
        Some(text) => text::over(text, tables),
        None => text::new(tables),
    };
    written.ok_or(ExchangeError::Value {
        line: 1,
        message: "TOML has no null, and no number above 9223372036854775807: leave it out, or write a smaller one",
    })
}

/// The text of a new file.
fn written(tables: &Map<String, Json>, source: Option<&str>) -> (Syntax, String) {
    let toml = match source {
        Some(source) => text::over(source, tables),
        None => text::new(tables),
    };
    match toml {
        Some(text) => (Syntax::Toml, text),
        None => (Syntax::Json, pretty(tables)),
    }
}

fn pretty(tables: &Map<String, Json>) -> String {
    format!("{:#}\n", Json::Object(tables.clone()))
}

/// Reads the text of a route file.
///
/// # Errors
///
/// It is not there, no regular file, too large, or may not be read.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ExchangeError> {
    file::read(path, FILE_BYTES_MAX).map_err(|unread| ExchangeError::File {
        path: path.to_owned(),
        reason: unread.to_string(),
    })
}

/// Name that clients call a deployment by: as its table says, or the model's name.
fn endpoint(deployment: &Map<String, Json>) -> Option<&str> {
    let text = |key| deployment.get(key).and_then(Json::as_str);
    text("endpoint_name").or_else(|| text("model"))
}

fn version(header: &Json) -> Result<u64, ExchangeError> {
    match header.get("export").and_then(Json::as_u64) {
        None | Some(0) => Err(ExchangeError::Foreign),
        Some(version) if version > EXPORT_VERSION => Err(ExchangeError::Newer(version)),
        Some(version) => Ok(version),
    }
}

/// Hides what stands in place of a secret and is not where to find one.
fn blot(table: &mut Json) {
    let options = table.get_mut("options").and_then(Json::as_object_mut);
    for (key, value) in options.into_iter().flatten() {
        let is_secret = find(key).is_some_and(|row| row.kind == ValueKind::Secret);
        if is_secret && !value.is_object() && !value.is_null() {
            *value = json!("***");
        }
    }
}

/// Takes the secrets out of the options of one table.
fn take(
    table: &mut Map<String, Json>,
    scope: OptionScope,
    owner: &str,
) -> Vec<(String, SecretText)> {
    let Some(options) = table.get_mut("options").and_then(Json::as_object_mut) else {
        return Vec::new();
    };
    let mut taken = Vec::new();
    for (key, value) in options {
        // One by one, as a wrong option beside it must not let a secret through.
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        let Ok(mut set) = OptionSet::parse(scope, &alone) else {
            continue;
        };
        let secrets = set.take_secrets(|option| format!("{owner}.{option}"));
        if !secrets.is_empty()
            && let Some(named) = set.to_json().remove(key)
        {
            *value = named;
            taken.extend(secrets);
        }
    }
    taken
}

#[cfg(test)]
mod tests;
