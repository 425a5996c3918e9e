//! Record of the models that we fetched: `models.json` in the state directory.
//!
//! Written before a fetch begins, so that what a kill leaves is known as ours. Only
//! what stands here as ours is ever removed; a file that was there before stands here
//! as somebody else's. Several processes may use it: a lock beside it is held for each
//! change. Calls block on the disk.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::lock::ModelLock;
use super::source::FetchPlan;
use crate::time::unix_seconds;

/// End of the name of a content while we write it.
const PART: &str = ".tidegate.incomplete";

/// Reason for which the record can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file can't be read or written.
    #[error(
        "{path}, which tells what was fetched, can't be read or written: look at its owner and the disk"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The file makes no sense.
    #[error(
        "{path}, which tells what was fetched, makes no sense: restore it, or remove it, and nothing in the caches counts as ours"
    )]
    Senseless {
        /// The file.
        path: PathBuf,
        /// The error in the text.
        #[source]
        source: serde_json::Error,
    },
}

/// A file of a model that was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Its path from the model's own directory.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Name of its content in the cache.
    pub blob: Option<String>,
    /// True if we brought it.
    pub ours: bool,
}

/// A model that was fetched, or is being.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptModel {
    /// Its name.
    pub name: String,
    /// The revision that was asked for.
    pub revision: String,
    /// Its commit.
    pub commit: String,
    /// Its directory in the cache.
    pub folder: PathBuf,
    /// Its files.
    pub files: Vec<KeptFile>,
    /// Time of the last fetch, in seconds since 1970.
    pub fetched: u64,
}

impl KeptModel {
    /// The directory that an engine loads.
    pub fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(&self.commit)
    }

    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes of its files that are there, those under way among them.
    pub fn there(&self) -> u64 {
        let length = |file: &KeptFile| {
            let facts = fs::metadata(self.snapshot().join(&file.name));
            if facts.is_ok_and(|facts| facts.len() == file.size) {
                return file.size;
            }
            let part = file
                .part(&self.folder)
                .and_then(|part| fs::metadata(part).ok());
            part.map_or(0, |facts| facts.len().min(file.size))
        };
        self.files.iter().map(length).sum()
    }

    /// True if every file is there in its full length.
    pub fn is_whole(&self) -> bool {
        self.files.iter().all(|file| {
            let facts = fs::metadata(self.snapshot().join(&file.name));
            facts.is_ok_and(|facts| facts.len() == file.size)
        })
    }
}

impl KeptFile {
    /// Path of its content in the cache.
    pub fn content(&self, folder: &Path) -> Option<PathBuf> {
        Some(folder.join("blobs").join(self.blob.as_ref()?))
    }

    /// Path of its content until it is whole.
    pub fn part(&self, folder: &Path) -> Option<PathBuf> {
        Some(
            folder
                .join("blobs")
                .join(format!("{}{PART}", self.blob.as_ref()?)),
        )
    }
}

/// Bytes of a plan's files that are there by now, whatever process brings them.
pub fn there_of(plan: &FetchPlan) -> u64 {
    let files = plan.files.iter().map(|file| KeptFile {
        name: file.name.clone(),
        size: file.size,
        blob: file.blob.clone(),
        ours: false,
    });
    let so_far = KeptModel {
        name: String::new(),
        revision: plan.revision.clone(),
        commit: plan.commit.clone(),
        folder: plan.folder.clone(),
        files: files.collect(),
        fetched: 0,
    };
    so_far.there()
}

#[derive(Default, Serialize, Deserialize)]
struct Content {
    models: Vec<KeptModel>,
}

/// The record of a state directory.
#[derive(Clone, Debug)]
pub struct FetchRecord {
    directory: PathBuf,
}

impl FetchRecord {
    /// Record of a state directory.
    pub fn at(state: &Path) -> Self {
        Self {
            directory: state.to_owned(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("models.json")
    }

    /// Models that were fetched.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn read(&self) -> Result<Vec<KeptModel>, RecordError> {
        let path = self.path();
        match fs::read(&path) {
            Ok(text) => {
                let content: Result<Content, _> = serde_json::from_slice(&text);
                let content = content.map_err(|source| RecordError::Senseless { path, source })?;
                Ok(content.models)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(RecordError::File { path, source }),
        }
    }

    /// Admits a fetch and notes what it is about to do, under one lock: `judge` gets what
    /// was fetched before and what other fetches still bring. What was noted of the model
    /// before goes on: a file that an earlier fetch of ours brought stays ours. The caller
    /// holds the model's [`ModelLock`].
    ///
    /// # Errors
    ///
    /// The fault that `judge` finds, else [`RecordError`]; nothing is noted then.
    pub fn admit<E: From<RecordError>>(
        &self,
        name: &str,
        plan: &FetchPlan,
        judge: impl FnOnce(Claimed) -> Result<(), E>,
    ) -> Result<(), E> {
        let (_lock, mut models) = self.open()?;
        judge(Claimed::of(&models, &plan.folder))?;
        note(&mut models, name, plan);
        Ok(self.write(models)?)
    }

    /// Takes a model out.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn forget(&self, gone: &KeptModel) -> Result<(), RecordError> {
        let (_lock, mut models) = self.open()?;
        models.retain(|model| (&model.folder, &model.commit) != (&gone.folder, &gone.commit));
        self.write(models)
    }

    /// The record, and the lock that keeps others from changing it.
    fn open(&self) -> Result<(File, Vec<KeptModel>), RecordError> {
        let failed = |source| self.failed(source);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(failed)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.directory.join("models.lock"))
            .map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        Ok((lock, self.read()?))
    }

    /// Puts it into the place of the old one, whole. The caller holds the lock.
    fn write(&self, models: Vec<KeptModel>) -> Result<(), RecordError> {
        let text = serde_json::to_vec_pretty(&Content { models });
        let text = text.map_err(|error| self.failed(error.into()))?;
        let fresh = self.directory.join("models.json.new");
        let written = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, self.path()));
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> RecordError {
        RecordError::File {
            path: self.path(),
            source,
        }
    }
}

/// Space of the disk that the models on record take, each content once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Bytes that are there, of all caches, and those that fetches under way still bring.
    pub together: u64,
    /// Bytes of these that are still to come into the cache of the model in question.
    pub coming: u64,
}

impl Claimed {
    /// Space of all on record, for a fetch into `own`, whose lock is held.
    fn of(models: &[KeptModel], own: &Path) -> Self {
        // The same content may stand in several commits.
        let mut contents: HashMap<PathBuf, (u64, u64)> = HashMap::new();
        let mut claimed = Self::default();
        for model in models {
            let is_coming = model.folder != own && ModelLock::is_taken(&model.folder);
            let is_near = model.folder.parent() == own.parent();
            for file in model.files.iter().filter(|file| file.ours) {
                let Some(content) = file.content(&model.folder) else {
                    continue;
                };
                let there = fs::symlink_metadata(&content);
                let part = || fs::symlink_metadata(file.part(&model.folder)?).ok();
                let there = there.ok().or_else(part).map_or(0, |facts| facts.len());
                let all = if is_coming {
                    there.max(file.size)
                } else {
                    there
                };
                let known = contents.entry(content).or_default();
                claimed.together += all.saturating_sub(known.0);
                known.0 = known.0.max(all);
                let coming = if is_near { all - there } else { 0 };
                claimed.coming += coming.saturating_sub(known.1);
                known.1 = known.1.max(coming);
            }
        }
        claimed
    }
}

/// Notes a fetch in place of what stands there of the same commit.
fn note(models: &mut Vec<KeptModel>, name: &str, plan: &FetchPlan) {
    let ours = |blob: &Option<String>| {
        let mut before = models.iter().filter(|model| model.folder == plan.folder);
        blob.is_some() && before.any(|m| m.files.iter().any(|f| f.ours && f.blob == *blob))
    };
    let is_there = |file: &KeptFile| file.content(&plan.folder).is_some_and(|path| path.exists());
    let files = plan.files.iter().map(|file| {
        let kept = KeptFile {
            name: file.name.clone(),
            size: file.size,
            blob: file.blob.clone(),
            ours: false,
        };
        let ours = ours(&file.blob) || (!file.whole && !is_there(&kept));
        KeptFile { ours, ..kept }
    });
    let kept = KeptModel {
        name: name.to_owned(),
        revision: plan.revision.clone(),
        commit: plan.commit.clone(),
        folder: plan.folder.clone(),
        files: files.collect(),
        fetched: unix_seconds(),
    };
    models.retain(|model| (&model.folder, &model.commit) != (&kept.folder, &kept.commit));
    // A model of which we brought nothing is not ours to keep account of.
    if kept.files.iter().any(|file| file.ours) {
        models.push(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::ModelFile;
    use super::*;

    fn plan(folder: &Path, there: bool) -> FetchPlan {
        FetchPlan {
            folder: folder.to_owned(),
            revision: "main".to_owned(),
            commit: "c".repeat(40),
            files: vec![ModelFile {
                name: "model.safetensors".to_owned(),
                size: 10,
                blob: Some("b".to_owned()),
                there: 0,
                whole: there,
            }],
        }
    }

    /// Admits a fetch; returns what was claimed before.
    fn admit(record: &FetchRecord, plan: &FetchPlan) -> Claimed {
        let mut found = Claimed::default();
        let admitted: Result<(), RecordError> = record.admit("a/b", plan, |claimed| {
            found = claimed;
            Ok(())
        });
        admitted.unwrap();
        found
    }

    #[test]
    fn what_was_there_before_is_not_ours_and_what_a_kill_left_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models--a--b");
        fs::create_dir_all(folder.join("blobs")).unwrap();
        let record = FetchRecord::at(&dir.path().join("state"));
        fs::write(folder.join("blobs/b"), "0123456789").unwrap();
        admit(&record, &plan(&folder, true));
        assert_eq!(record.read().unwrap(), []);
        fs::remove_file(folder.join("blobs/b")).unwrap();
        admit(&record, &plan(&folder, false));
        fs::write(folder.join("blobs/b.tidegate.incomplete"), "012").unwrap();
        let claimed = admit(&record, &plan(&folder, false));
        assert_eq!((claimed.together, claimed.coming), (3, 0));
        assert_eq!(record.read().unwrap()[0].there(), 3);
        // Brought by another fetch of ours.
        fs::write(folder.join("blobs/b"), "0123456789").unwrap();
        admit(&record, &plan(&folder, true));
        let kept = record.read().unwrap();
        assert!(kept[0].files[0].ours);
        assert_eq!(kept.len(), 1);
        record.forget(&kept[0]).unwrap();
        assert_eq!(record.read().unwrap(), []);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("models.json"), "{").unwrap();
        let record = FetchRecord::at(dir.path());
        let admitted: Result<(), RecordError> =
            record.admit("a/b", &plan(dir.path(), false), |_| Ok(()));
        let error = admitted.unwrap_err();
        assert!(error.to_string().contains("makes no sense"), "{error}");
        assert_eq!(fs::read(dir.path().join("models.json")).unwrap(), b"{");
    }

    #[test]
    fn what_others_still_bring_counts_and_a_content_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let record = FetchRecord::at(&dir.path().join("state"));
        let (first, second) = (dir.path().join("hub/one"), dir.path().join("hub/two"));
        let (near, far) = (&second, dir.path().join("other/three"));
        admit(&record, &plan(&first, false));
        // Broken off with nothing there, it holds no place.
        assert_eq!(admit(&record, &plan(near, false)), Claimed::default());
        let lock = ModelLock::take(&first).unwrap().unwrap();
        fs::create_dir_all(first.join("blobs")).unwrap();
        fs::write(first.join("blobs/b.tidegate.incomplete"), "0123").unwrap();
        let claimed = |together, coming| Claimed { together, coming };
        assert_eq!(admit(&record, &plan(near, false)), claimed(10, 6));
        assert_eq!(admit(&record, &plan(&far, false)), claimed(10, 0));
        drop(lock);
        fs::write(first.join("blobs/b"), "0123456789").unwrap();
        let other = FetchPlan {
            commit: "d".repeat(40),
            ..plan(&first, true)
        };
        assert_eq!(admit(&record, &other), claimed(10, 0));
        assert_eq!(admit(&record, &other), claimed(10, 0));
        assert_eq!(record.read().unwrap().len(), 4);
    }

    #[test]
    fn a_fetch_that_is_not_admitted_is_not_noted() {
        let dir = tempfile::tempdir().unwrap();
        let record = FetchRecord::at(dir.path());
        let gone = || RecordError::File {
            path: dir.path().to_owned(),
            source: io::ErrorKind::StorageFull.into(),
        };
        let admitted = record.admit("a/b", &plan(dir.path(), false), |_| Err(gone()));
        assert!(admitted.is_err());
        assert_eq!(record.read().unwrap(), []);
    }
}
