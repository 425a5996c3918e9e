//! Choice of the files of a directory that are route files.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::whole_file;
use crate::config::error::FileError;
use crate::config::file::Unread;

/// Most files that are read.
const FILES_MAX: usize = 10_000;

/// Most files that are told as not read.
const UNREAD_MAX: usize = 100;

/// The route files of a directory, by name; else why there are none.
pub(super) fn list(dir: &Path) -> Result<(Vec<PathBuf>, Vec<FileError>), FileError> {
    let refused = |error: std::io::Error| {
        let message = match Unread::from(error) {
            Unread::Missing => "this directory does not exist: create it".to_owned(),
            other => other.to_string(),
        };
        whole_file(dir, message)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        if is_route_file(&name) {
            files.push(dir.join(name));
        }
    }
    files.sort();
    let mut errors = Vec::new();
    if files.len() > FILES_MAX {
        let message = format!("there are more than {FILES_MAX} files here: merge some");
        errors.push(whole_file(dir, message));
        files.truncate(FILES_MAX);
    }
    Ok((files, errors))
}

/// True if a name is that of a route file, and not of an editor's or the
/// system's own files.
pub(in crate::config) fn is_route_file(name: &OsStr) -> bool {
    let hidden = name
        .as_encoded_bytes()
        .first()
        .is_none_or(|&b| b == b'.' || b == b'#');
    let extension = Path::new(name).extension();
    !hidden && extension.is_some_and(|extension| extension == "toml" || extension == "json")
}

/// Entries of a directory of route files that are not read, each with the reason. At
/// most [`UNREAD_MAX`] of them, by name.
pub fn unread(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut unread: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let why = why_unread(&name, entry.path().is_dir())?;
            Some((dir.join(name), why))
        })
        .collect();
    unread.sort();
    unread.truncate(UNREAD_MAX);
    unread
}

fn why_unread(name: &OsStr, is_dir: bool) -> Option<&'static str> {
    let bytes = name.as_encoded_bytes();
    // The links by which Kubernetes swaps all files at once are none of the admin's.
    if bytes.starts_with(b"..") || is_route_file(name) {
        return None;
    }
    Some(match bytes.first() {
        _ if is_dir => "a directory: only files directly in this one are read",
        Some(b'.' | b'#') => "its name begins like that of a hidden or an editor's file",
        _ => "its name ends in neither .toml nor .json",
    })
}
