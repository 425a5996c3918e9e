//! Source of a model, read from its name, and the files that a fetch brings.

use std::path::PathBuf;

/// Most characters of one part of a hub's name, by the hub's own rule.
const PART_CHARS_MAX: usize = 96;
/// Most characters of a revision.
const REVISION_CHARS_MAX: usize = 200;

/// A model, by what brings it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `Qwen/Qwen3-8B`: a name of the hub.
    Hub(String),
    /// `/models/qwen`: a directory of this machine.
    Directory(PathBuf),
}

/// Reason for which a text names no model that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSource {
    /// A scheme that nothing here speaks.
    #[error(
        "models are not fetched from {0:?}: write a name of the hub, as \"Qwen/Qwen3-8B\", or copy it into a directory and write its path"
    )]
    Scheme(String),
    /// One file of several of a model, by its quantization.
    #[error(
        "{0:?} names one file of a model by its quantization, and those are not fetched: the engine does it at its start; or write the path of the file"
    )]
    Quantization(String),
    /// No name of the hub.
    #[error(
        "{0:?} is no name of a model: write one of the hub, as \"Qwen/Qwen3-8B\", or a path that begins with \"/\" or \"./\""
    )]
    Name(String),
    /// No revision.
    #[error("{0:?} is no revision: write a branch, a tag or a commit, as \"main\"")]
    Revision(String),
    /// A directory has no revisions.
    #[error("a directory has no revisions: leave --revision out")]
    Directory,
}

impl ModelSource {
    /// Reads what people write as a model.
    ///
    /// # Errors
    ///
    /// [`NoSource`], in a sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, NoSource> {
        let shown = || text.chars().take(100).collect::<String>();
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(NoSource::Scheme(format!("{scheme}://")));
        }
        if let Some((before, _)) = text.split_once(':') {
            return Err(if before.contains('/') {
                NoSource::Quantization(shown())
            } else {
                NoSource::Scheme(format!("{before}:"))
            });
        }
        let mut parts = text.split('/');
        let count = text.split('/').count();
        if count <= 2 && parts.all(is_part) {
            Ok(Self::Hub(text.to_owned()))
        } else {
            Err(NoSource::Name(shown()))
        }
    }
}

/// True if the hub allows this as a part of a name.
fn is_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty()
        && part.len() <= PART_CHARS_MAX
        && part.chars().all(plain)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Checks a revision, which becomes part of a path.
///
/// # Errors
///
/// [`NoSource::Revision`].
pub fn check_revision(text: &str) -> Result<(), NoSource> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    let parts = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']);
    let is_plain = text.len() <= REVISION_CHARS_MAX && text.chars().all(plain);
    if is_plain && text.split('/').all(parts) {
        Ok(())
    } else {
        Err(NoSource::Revision(text.chars().take(100).collect()))
    }
}

/// A file of a model, as its source states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path from the model's own directory.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Name of its content in the cache; `None`: not stated.
    pub blob: Option<String>,
    /// Bytes that are there already.
    pub there: u64,
    /// True if all of it is there.
    pub whole: bool,
}

/// Plan of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPlan {
    /// Directory for the model.
    pub folder: PathBuf,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it stands for.
    pub commit: String,
    /// Its files.
    pub files: Vec<ModelFile>,
}

impl FetchPlan {
    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes that are there.
    pub fn there(&self) -> u64 {
        self.files.iter().map(|file| file.there).sum()
    }

    /// Bytes that are not there.
    pub fn missing(&self) -> u64 {
        self.total().saturating_sub(self.there())
    }
}

/// Outcome of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The directory that an engine loads.
    pub path: PathBuf,
    /// The commit; `None` where the source has none.
    pub commit: Option<String>,
    /// Its bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_a_model_comes_from() {
        let hub = |name: &str| Ok(ModelSource::Hub(name.to_owned()));
        for name in ["Qwen/Qwen3-8B", "gpt2", "meta-llama/Llama-3.1-8B_x"] {
            assert_eq!(ModelSource::parse(name), hub(name));
        }
        for path in ["/models/qwen", "./qwen", "../qwen"] {
            let found = ModelSource::parse(path);
            assert_eq!(found, Ok(ModelSource::Directory(path.into())));
        }
        for (text, words) in [
            ("s3://bucket/qwen", "not fetched from \"s3://\""),
            ("clearml:0123", "not fetched from \"clearml:\""),
            ("mlflow:qwen/3", "not fetched from \"mlflow:\""),
            ("unsloth/Qwen3-GGUF:Q4_K_M", "quantization"),
            ("", "no name"),
            ("a/b/c", "no name"),
            ("a/../b", "no name"),
            ("-x", "no name"),
            ("models--a", "no name"),
            ("a b", "no name"),
        ] {
            let error = ModelSource::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_revision_stays_below_its_directory() {
        for good in ["main", "refs/pr/2", "v1.0", "0123456789abcdef"] {
            assert_eq!(check_revision(good), Ok(()), "{good:?}");
        }
        for bad in ["", "../x", "a//b", "/main", "a/../b", "-x", "a b", "a/.git"] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
    }
}
