//! `[engines.vllm]`: where vLLM comes from, and what instances may load.

use std::path::{Path, PathBuf};

use super::VllmEngine;
use super::problems::cut;
use super::reader::Reader;
use super::tree::{Entry, Value};
use crate::vllm::rules::Allowed;
use crate::vllm::versions::Version;

/// Reads the table into `to`.
pub(super) fn read(mut table: Reader<'_>, to: &mut VllmEngine) {
    if let Some(command) = table.path("command") {
        to.command = command;
    }
    if let Some(python) = table.path("python") {
        to.python = python;
    }
    if let Some(index) = table.words("index_url") {
        let known = ["http://", "https://", "file://"];
        if known.iter().any(|scheme| index.value.starts_with(scheme)) {
            to.index_url = Some(index.value);
        } else {
            let message = "write the address of a package index, as \"https://HOST/simple\"";
            table.wrong(index.line, "index_url", message);
        }
    }
    if let Some(arguments) = table.parsed_list::<String>("pip_arguments") {
        to.pip_arguments = arguments.value;
    }
    if let Some(limit) = table.span("install_timeout") {
        to.install_timeout = limit;
    }
    versions(&mut table, to);
    to.allowed = table.table("allowed").map(allowed);
    table.finish();
}

fn versions(table: &mut Reader<'_>, to: &mut VllmEngine) {
    let problems = table.problems;
    for Entry { key, line, node } in table.raw_table("versions") {
        let path = format!("engines.vllm.versions.{}", cut(key));
        if key.parse::<Version>().is_err() {
            let message = "this is not a version: write one in quotes, as \"0.11.0\"";
            problems.add(*line, path, message);
        } else if let Value::Text(text) = &node.value {
            to.versions.insert(key.clone(), PathBuf::from(text));
        } else {
            let message = "write the path of a venv or of a command, in quotes";
            problems.add(*line, path, message);
        }
    }
}

fn allowed(mut table: Reader<'_>) -> Allowed {
    let mut allowed = Allowed::default();
    if let Some(models) = table.parsed_list::<String>("models") {
        allowed.sources = Some(models.value);
    }
    for (key, to) in [
        ("directories", &mut allowed.directories),
        ("plugins", &mut allowed.plugins),
    ] {
        let Some(paths) = table.parsed_list::<PathBuf>(key) else {
            continue;
        };
        if paths.value.iter().all(|path| path.is_absolute()) {
            *to = paths.value;
        } else {
            table.wrong(paths.line, key, "write whole paths, which begin with \"/\"");
        }
    }
    if let Some(trust) = table.flag("trust_remote_code") {
        allowed.trust_remote_code = trust.value;
    }
    if let Some(code) = table.flag("code") {
        allowed.code = code.value;
    }
    if let Some(raw) = table.flag("raw") {
        allowed.raw = raw.value;
    }
    table.finish();
    allowed
}

impl VllmEngine {
    /// Makes relative paths relative to `base`; a bare command is looked up on
    /// PATH.
    pub(super) fn resolve(&mut self, base: &Path) {
        let paths = self.versions.values_mut();
        for path in paths.chain([&mut self.command, &mut self.python]) {
            if path.components().count() > 1 {
                *path = base.join(&*path);
            }
        }
    }
}
