//! Facts of route files beside their texts: revision and times.
//!
//! A revision is taken of the text, so that it is the same after a restart and
//! on another machine. Texts are read again only when the file changed.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::IF_MATCH;

use crate::admin::error::{ApiError, Code};

/// Most files that are remembered; beyond, all are forgotten and read again.
const FILES_MAX: usize = 10_000;

/// Facts of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Revision of the text.
    pub(super) revision: Arc<str>,
    /// Birth of the file, in seconds since 1970, where the file system tells. An editor
    /// that replaces a file makes it anew.
    pub(super) created: Option<u64>,
    /// Last change of the file, in seconds since 1970.
    pub(super) updated: u64,
}

/// Mark of a file's state: change in nanoseconds, identity, length.
type Stamp = (i64, i64, u64, u64);

/// Facts of files, as last seen.
#[derive(Debug, Default)]
pub(super) struct FilesSeen {
    /// Locked for a look-up, never over the disk.
    seen: Mutex<HashMap<PathBuf, (Stamp, Facts)>>,
}

impl FilesSeen {
    /// Facts of a file; `None` when it can't be read. Blocks on the disk.
    pub(super) fn facts(&self, path: &Path) -> Option<Facts> {
        let metadata = std::fs::metadata(path).ok()?;
        let stamp = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ino(),
            metadata.len(),
        );
        let known = self.lock().get(path).cloned();
        if let Some((known, facts)) = known
            && known == stamp
        {
            return Some(facts);
        }
        let content = crate::config::exchange::read_file(path).ok()?;
        let born = metadata.created().ok();
        let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let facts = Facts {
            revision: revision(&content),
            created: born.map(|born| born.as_secs()),
            updated: u64::try_from(metadata.mtime()).unwrap_or_default(),
        };
        let mut seen = self.lock();
        if seen.len() >= FILES_MAX {
            seen.clear();
        }
        seen.insert(path.to_owned(), (stamp, facts.clone()));
        Some(facts)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (Stamp, Facts)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The revision of a text: 16 hexadecimal digits.
pub(super) fn revision(content: &[u8]) -> Arc<str> {
    use std::fmt::Write;
    let hash = digest(&SHA256, content);
    let mut text = String::with_capacity(16);
    for byte in hash.as_ref().iter().take(8) {
        // Writing to a text does not fail.
        let _ok = write!(text, "{byte:02x}");
    }
    Arc::from(text)
}

/// Checks that a change may go on: `If-Match` names the present revision, or is left
/// out, or `*`.
///
/// # Errors
///
/// 412 when someone else changed the file meanwhile.
pub(super) fn check_revision(headers: &HeaderMap, present: &str) -> Result<(), ApiError> {
    let Some(wanted) = headers.get(IF_MATCH) else {
        return Ok(());
    };
    let wanted = wanted.to_str().unwrap_or_default();
    let mut all = wanted.split(',').map(|one| one.trim().trim_matches('"'));
    if all.any(|one| one == "*" || one == present) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::Changed,
        format!(
            "someone changed it meanwhile: its revision is now {present}; load it again, and make your change on top of that"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_of_the_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        let seen = FilesSeen::default();
        assert_eq!(seen.facts(&path), None);
        std::fs::write(&path, "a").unwrap();
        let first = seen.facts(&path).unwrap();
        assert_eq!(seen.facts(&path), Some(first.clone()));
        std::fs::write(&path, "bb").unwrap();
        let second = seen.facts(&path).unwrap();
        assert_ne!(first.revision, second.revision);
        assert_eq!(second.revision, revision(b"bb"));
    }

    #[test]
    fn a_change_on_an_older_revision_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(check_revision(&headers, "a1").is_ok());
        for (sent, may) in [
            ("\"a1\"", true),
            ("*", true),
            ("\"b2\", \"a1\"", true),
            ("\"b2\"", false),
            ("", false),
        ] {
            headers.insert(IF_MATCH, http::HeaderValue::from_static(sent));
            assert_eq!(check_revision(&headers, "a1").is_ok(), may, "{sent}");
        }
    }
}
