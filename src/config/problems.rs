//! Errors of a file so far, and the hints that go with it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::error::FileError;

/// Errors found in one file so far.
#[derive(Debug)]
pub(super) struct Problems {
    file: PathBuf,
    list: RefCell<Vec<FileError>>,
}

impl Problems {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            list: RefCell::default(),
        }
    }

    /// Notes one more.
    pub(super) fn add(&self, line: usize, key: impl Into<String>, message: impl Into<String>) {
        self.list.borrow_mut().push(FileError {
            file: self.file.clone(),
            line: Some(line),
            key: key.into(),
            message: message.into(),
        });
    }

    /// All of them, by line; empty when nothing is wrong.
    pub(super) fn into_errors(self) -> Vec<FileError> {
        let mut list = self.list.into_inner();
        list.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        // What an instance says wrong is met again in each of its deployments.
        list.dedup();
        list
    }
}

/// The known name that is most like this one, if any is.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = cut(name).to_lowercase();
    known
        .map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// A text that someone wrote, cut to a readable length.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
