//! Allowance by the admin: for files of admins, and, narrower, for those that
//! operators wrote.
//!
//! An admin may run any program here, so `[engines.vllm.allowed]` holds an admin's
//! own files to what it lists and no further. An operator must not become the
//! gateway's user: what their files may say is a list of what is harmless, and
//! whatever is not on it is refused, in every version.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::vllm::versions::Version;

/// The oldest vLLM that an operator may have installed.
pub const FLOOR: Version = Version::new(0, 18, 0);

/// Reason why older versions are for admins.
pub const FLOOR_REASON: &str = "before 0.18.0 the files of a model run code though trust_remote_code is off (CVE-2025-66448, CVE-2026-22807, CVE-2026-27893)";

/// Names that a message lists at most.
const LISTED_MAX: usize = 12;

/// Allowance of instances: what they may load and say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Directories of models, tokenizers, adapters, templates and media.
    pub directories: Vec<PathBuf>,
    /// Hub names: `*` for all, `Qwen/*` for one owner, or a whole name. `None`:
    /// all for an admin, and for an operator what admins named already.
    pub sources: Option<Vec<String>>,
    /// Python files with parsers, or directories of such.
    pub plugins: Vec<PathBuf>,
    /// True if models may bring code of their own.
    pub trust_remote_code: bool,
    /// True if arguments may name Python code to load.
    pub code: bool,
    /// True if operators may write raw arguments: `cli`, `model_overrides` and
    /// `config_overrides`.
    pub raw: bool,
    /// Rules for the file of an operator besides; `None` for an admin's.
    pub operator: Option<Operator>,
}

/// Rules that an operator's file is judged by, beside what the settings allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// Names that admins wrote in their files.
    pub named: Named,
    /// Versions that the settings list.
    pub versions: BTreeSet<String>,
}

/// Names that admins wrote in their files, which others may therefore use as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Models, tokenizers and adapters: hub names and paths.
    pub models: BTreeSet<String>,
    /// Branches, tags and commits.
    pub revisions: BTreeSet<String>,
}

impl Allowed {
    /// Everything: for those who may run any program here anyway.
    pub fn all() -> Self {
        Self {
            directories: vec![PathBuf::from("/")],
            sources: None,
            plugins: vec![PathBuf::from("/")],
            trust_remote_code: true,
            code: true,
            raw: true,
            operator: None,
        }
    }

    /// Checks that a model, tokenizer or adapter may be loaded.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn model(&self, source: &str) -> Result<(), String> {
        let named = self.operator.as_ref().map(|operator| &operator.named);
        if named.is_some_and(|named| named.models.contains(source)) {
            return Ok(());
        }
        if is_path(source) {
            return self.path(source);
        }
        if source.contains("://") {
            return Err(format!(
                "{source:?} is an address: name a model of the hub, or a directory"
            ));
        }
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => source.starts_with(prefix),
            None => pattern == source,
        };
        match (&self.sources, named) {
            (None, None) => Ok(()),
            (Some(sources), _) if sources.iter().any(fits) => Ok(()),
            (Some(sources), _) => Err(format!(
                "the admin does not allow {source:?}; allowed are: {}",
                listed(sources.iter().map(String::as_str))
            )),
            (None, Some(named)) => Err(format!(
                "no admin named {source:?} yet; named are: {}. Ask an admin for a route file with it, or for [engines.vllm.allowed] models",
                listed(named.models.iter().map(String::as_str))
            )),
        }
    }

    /// Checks that a branch, tag or commit may be loaded. On the hub anyone may offer
    /// files to a repository, and each offer has a revision: the name of an allowed
    /// model says nothing of those.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn revision(&self, revision: &str) -> Result<(), String> {
        let Some(operator) = &self.operator else {
            return Ok(());
        };
        let all = |sources: &Vec<String>| sources.iter().any(|source| source == "*");
        if revision == "main"
            || operator.named.revisions.contains(revision)
            || self.sources.as_ref().is_some_and(all)
        {
            return Ok(());
        }
        Err(format!(
            "no admin named the revision {revision:?} yet, and anyone may offer one to a repository: leave it out, or ask an admin for a route file with it"
        ))
    }

    /// Checks that a file or directory may be used.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn path(&self, path: &str) -> Result<(), String> {
        within(path, &self.directories)
    }

    /// Checks that a plugin may be loaded.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn plugin(&self, path: &str) -> Result<(), String> {
        within(path, &self.plugins)
    }

    /// Checks that models may bring code of their own.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn remote_code(&self) -> Result<(), String> {
        self.trust_remote_code
            .then_some(())
            .ok_or_else(|| "the admin does not allow trust_remote_code".to_owned())
    }

    /// Checks that `what` may name Python code to load.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn code(&self, what: &str) -> Result<(), String> {
        self.code.then_some(()).ok_or_else(|| {
            format!("{what} names code or files to load, which the admin does not allow")
        })
    }

    /// Checks that raw arguments may be written as this option.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn raw(&self, option: &str) -> Result<(), String> {
        if self.operator.is_none() || self.raw {
            return Ok(());
        }
        Err(format!(
            "{option} is for admins: write the options of the table instead, or ask an admin, who may set [engines.vllm.allowed] raw = true"
        ))
    }

    /// Checks that this version of vLLM may be run; `None` is what the admin installed.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub fn version(&self, version: Option<&str>) -> Result<(), String> {
        let (Some(operator), Some(version)) = (&self.operator, version) else {
            return Ok(());
        };
        if operator.versions.contains(version) {
            return Ok(());
        }
        // 0.18.0rc1 came before what 0.18.0 mended, and reads as the same numbers.
        let (release, local) = version.split_once('+').unwrap_or((version, ""));
        let is_release = release.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && local
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.');
        let parsed = version.parse::<Version>();
        if is_release && parsed.is_ok_and(|parsed| parsed >= FLOOR) {
            return Ok(());
        }
        Err(format!(
            "vLLM {version} is for admins: {FLOOR_REASON}. Write a release from {FLOOR} on, or one that [engines.vllm.versions] lists: {}",
            listed(operator.versions.iter().map(String::as_str))
        ))
    }
}

/// True if a model's name is a path: the hub's have at most one slash, between
/// names that begin with a letter or digit.
pub fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~', '\\'])
        || source.matches('/').count() > 1
        || source.ends_with('/')
        || source.contains("/.")
}

fn within(path: &str, directories: &[PathBuf]) -> Result<(), String> {
    let text = path;
    let path = Path::new(path);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(format!("write {text:?} as an absolute path without \"..\""));
    }
    if directories
        .iter()
        .any(|directory| path.starts_with(directory))
    {
        return Ok(());
    }
    let names: Vec<String> = directories
        .iter()
        .map(|d| d.display().to_string())
        .collect();
    Err(format!(
        "the admin does not allow {text:?}; allowed are paths in: {}",
        listed(names.iter().map(String::as_str))
    ))
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let shown: Vec<&str> = names.take(LISTED_MAX).collect();
    match (shown.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(allowed: Allowed) -> Allowed {
        let named = Named {
            models: ["Qwen/Qwen3-8B", "/srv/models/one"]
                .map(str::to_owned)
                .into(),
            revisions: ["v2".to_owned()].into(),
        };
        let versions = ["0.7.2".to_owned()].into();
        Allowed {
            operator: Some(Operator { named, versions }),
            ..allowed
        }
    }

    #[test]
    fn an_operator_loads_what_admins_named_or_what_the_settings_list() {
        let by_default = operator(Allowed::default());
        for (source, loads) in [
            ("Qwen/Qwen3-8B", true),
            ("/srv/models/one", true),
            ("/srv/models/one/x", false),
            ("/srv/models", false),
            ("owner/repo", false),
            ("Qwen/Qwen3-8", false),
        ] {
            assert_eq!(by_default.model(source).is_ok(), loads, "{source}");
        }
        let listed = operator(Allowed {
            sources: Some(vec!["owner/*".to_owned()]),
            ..Allowed::default()
        });
        assert!(listed.model("owner/repo").is_ok() && listed.model("other/repo").is_err());
        assert!(Allowed::default().model("owner/repo").is_ok(), "an admin's");
    }

    #[test]
    fn an_operator_gets_no_revision_that_anyone_could_have_offered() {
        let by_default = operator(Allowed::default());
        assert!(by_default.revision("main").is_ok() && by_default.revision("v2").is_ok());
        for offered in ["refs/pr/7", "0f3b7a", "v3"] {
            assert!(by_default.revision(offered).is_err(), "{offered}");
        }
        assert!(Allowed::default().revision("refs/pr/7").is_ok());
    }

    #[test]
    fn an_operator_gets_listed_versions_and_releases_without_published_holes() {
        let by_default = operator(Allowed::default());
        for (version, runs) in [
            (None, true),
            (Some("0.7.2"), true),
            (Some("0.18.0"), true),
            (Some("0.32.0+cu129"), true),
            (Some("0.99.0"), true),
            (Some("0.17.9"), false),
            (Some("0.2.0"), false),
            (Some("0.18.0rc1"), false),
            (Some("0.18.0.dev3"), false),
            (Some("0.18.0-1"), false),
            (Some("0.7.2+x"), false),
        ] {
            assert_eq!(by_default.version(version).is_ok(), runs, "{version:?}");
        }
        let why = by_default.version(Some("0.2.0")).unwrap_err();
        assert!(
            why.contains("CVE-2026-27893") && why.contains("0.7.2"),
            "{why}"
        );
        assert!(Allowed::default().version(Some("0.2.0")).is_ok());
    }
}
