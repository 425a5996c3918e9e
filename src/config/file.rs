//! One file of `routes.d`: `[route]`, `[[upstream]]`, `[[target]]`, `[instance]`,
//! `[[deployment]]` and `[[name]]` into parts that are right by themselves.
//!
//! Clashes with other files are found in [`super::link`].

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::error::FileError;
use super::inputs;
use super::instance::{self, InstanceDraft, RouteChoice};
use super::keys::ROUTE_FILE;
use super::name::{self, NameDraft};
use super::problems::Problems;
use super::reader::Reader;
use super::route::{self, RouteDraft};
use super::tree;
use crate::names::QueueName;

/// Content of one file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parts {
    /// Its `[route]`.
    pub(super) route: Option<RouteDraft>,
    /// Its `[instance]`.
    pub(super) instance: Option<InstanceDraft>,
    /// Each `[[name]]`.
    pub(super) names: Vec<NameDraft>,
}

/// Reason why the content of a file could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// There is no such file.
    #[error("this file does not exist: create it or name another")]
    Missing,
    /// It is a directory, a socket or the like.
    #[error("this is not a regular file: put a text file here")]
    Special,
    /// It is larger than allowed.
    #[error("this file is larger than {0} bytes: split it")]
    Large(u64),
    /// The system refused.
    #[error("this file can't be read: {0}")]
    Refused(io::ErrorKind),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Refused(kind),
        }
    }
}

/// Reads a regular file of at most `bytes_max`.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Unread> {
    // Before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(Unread::Special);
    }
    let mut content = Vec::new();
    let size = fs::File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut content)?;
    if u64::try_from(size).is_ok_and(|size| size > bytes_max) {
        return Err(Unread::Large(bytes_max));
    }
    Ok(content)
}

/// Reads the content of a route file.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub(super) fn parse(
    file: &Path,
    content: &[u8],
    queues: &[QueueName],
) -> Result<Parts, Vec<FileError>> {
    let tree = tree::parse(file, content)?;
    let problems = Problems::new(file);
    let mut top = Reader::top(&tree, &ROUTE_FILE, &problems);
    let base = file.parent().unwrap_or(Path::new(""));

    let route = top.table("route");
    let upstreams = top.tables("upstream");
    let targets = top.tables("target");
    let instance = top.table("instance");
    let deployments = top.tables("deployment");
    let names = top.tables("name");
    if route.is_none() && instance.is_none() {
        let message = "this file has neither [route] nor [instance]: write one of them";
        problems.add(top.line, "", message);
    }
    for (key, tables) in [("upstream", &upstreams), ("target", &targets)] {
        if let (None, Some(table)) = (&route, tables.first()) {
            let message = format!("[[{key}]] needs a [route] in the same file: write one");
            problems.add(table.line, key, message);
        }
    }
    if let (None, Some(deployment)) = (&instance, deployments.first()) {
        let message = "[[deployment]] needs an [instance] in the same file: write one";
        problems.add(deployment.line, "deployment", message);
    }
    let has_route = route.is_some();
    let route = route.and_then(|table| route::read(table, (upstreams, targets), base));
    let instance = instance.and_then(|table| instance::read(table, deployments, has_route, queues));
    let names = name::read(names, &problems);
    top.finish();

    if let (Some(route), Some(instance)) = (&route, &instance)
        && !route.upstreams.is_empty()
        && route.targets.is_none()
        && instance.route == RouteChoice::Own
    {
        let message = "a route leads to upstreams or to an instance, and to both only by a list: write [[target]] for each, or move the instance to a file of its own, or name its route in instance.route";
        problems.add(instance.name.line, "instance", message);
    }
    if let (Some(route), Some(instance)) = (&route, &instance)
        && let Some(deployment) = instance.deployments.first()
    {
        inputs::check_author(&route.inputs, &deployment.value.author, &problems);
    }
    let errors = problems.into_errors();
    if errors.is_empty() {
        Ok(Parts {
            route,
            instance,
            names,
        })
    } else {
        Err(errors)
    }
}

#[cfg(test)]
mod tests;
