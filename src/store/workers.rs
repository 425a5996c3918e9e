//! The journal of workers: who was launched, so that the next process can adopt
//! or reap them.
//!
//! One JSON file per worker, named by its nonce. It is written before the worker
//! is launched (without a pid: the intent) and again once its pid is known, so
//! no moment leaves a process that nobody knows of. Judging whether a recorded
//! process still is ours is `lifecycle::act::process`'s part.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::OffloadTo;
use crate::names::{DeploymentId, Generation};

/// Format that this version writes; a newer one is not guessed at.
const FORMAT: u32 = 2;
/// End of the name that a record gets once it can't be read.
const ASIDE: &str = "bad";
/// Digits of a worker's name.
const NONCE_DIGITS: usize = 32;

/// Reason for which the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system failed.
    #[error("could not use the journal of workers at {path}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A newer Tidegate wrote it.
    #[error(
        "{path} was written by a newer Tidegate (format {format}, this one reads up to {FORMAT}): \
         start that version, stop its workers, then start this one"
    )]
    Newer {
        /// The record.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

/// A process, told apart from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
}

/// One worker that was launched, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRecord {
    /// Names the worker; in its environment too.
    pub nonce: String,
    /// The deployment that it is a worker of.
    pub deployment: String,
    /// Number among the workers of its deployment.
    pub generation: Generation,
    /// Digest of what was launched.
    pub fingerprint: String,
    /// The boot during which it was launched.
    pub boot_id: String,
    /// The leader; `None` until it is known.
    pub process: Option<ProcessId>,
    /// Its parent, which holds its output and all that it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<ProcessId>,
    /// The pipe of its output, as `/proc` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipe: Option<PathBuf>,
    /// The socket that it serves on.
    pub socket: PathBuf,
    /// The port of the loopback where it serves instead, as a vLLM that knows no
    /// sockets does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The key that it wants, and that proves it.
    pub api_key: String,
    /// GPUs that it was given, by index.
    pub gpus: Vec<u32>,
    /// The state directory that it was launched from, as [`identity`] tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Its log file.
    pub log: PathBuf,
    /// Place of its weights, since it was told to sleep.
    pub asleep: Option<Asleep>,
    /// Its control group, where it has one.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Files in shared memory that its processes had open when it was ready.
    #[serde(default)]
    pub shared: BTreeSet<PathBuf>,
}

/// [`OffloadTo`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asleep {
    /// In host memory.
    Cpu,
    /// On disk.
    Disk,
}

impl From<OffloadTo> for Asleep {
    fn from(to: OffloadTo) -> Self {
        match to {
            OffloadTo::Cpu => Self::Cpu,
            OffloadTo::Disk => Self::Disk,
        }
    }
}

impl From<Asleep> for OffloadTo {
    fn from(asleep: Asleep) -> Self {
        match asleep {
            Asleep::Cpu => Self::Cpu,
            Asleep::Disk => Self::Disk,
        }
    }
}

impl WorkerRecord {
    /// Record of a worker that was launched during this boot, and of which only the name is
    /// known.
    pub fn of_nonce(nonce: String, boot_id: String, cgroup: Option<PathBuf>) -> Self {
        Self {
            nonce,
            deployment: "unknown".to_owned(),
            generation: Generation(0),
            fingerprint: String::new(),
            boot_id,
            process: None,
            keeper: None,
            pipe: None,
            state: None,
            socket: PathBuf::new(),
            port: None,
            api_key: String::new(),
            gpus: Vec::new(),
            log: PathBuf::new(),
            asleep: None,
            cgroup,
            shared: BTreeSet::new(),
        }
    }

    /// The deployment's id; `None` when no deployment can have that name.
    pub fn id(&self) -> Option<DeploymentId> {
        DeploymentId::parse(&self.deployment).ok()
    }
}

/// Identity of a directory, whatever its name and whoever copied its content: its
/// device and number there.
///
/// # Errors
///
/// The directory can't be looked at.
pub fn identity(directory: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(directory)?;
    Ok(format!("{}:{}", meta.dev(), meta.ino()))
}

/// A record with the version of its format.
#[derive(Serialize, Deserialize)]
struct Versioned {
    format: u32,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// The directory of records.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// Opens the journal, and makes its directory.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub fn open(dir: PathBuf) -> Result<Self, JournalError> {
        fs::create_dir_all(&dir).map_err(|source| JournalError::Io {
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir })
    }

    fn path(&self, nonce: &str) -> PathBuf {
        self.dir.join(format!("{nonce}.json"))
    }

    /// The workers whose records could not be read, now or earlier: their names are
    /// all that is known of them.
    pub fn set_aside(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let bad = entries.map(|entry| entry.path());
        let bad = bad.filter(|path| path.extension().is_some_and(|ext| ext == ASIDE));
        let names = bad.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let is_nonce = |name: &String| {
            name.len() == NONCE_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        names.filter(is_nonce).collect()
    }

    /// Writes a record, whole.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]; an older record of that worker then stands.
    pub fn write(&self, record: &WorkerRecord) -> Result<(), JournalError> {
        let path = self.path(&record.nonce);
        let bytes = serde_json::to_value(record)
            .and_then(|value| {
                let rest = value.as_object().cloned().unwrap_or_default();
                serde_json::to_vec_pretty(&Versioned {
                    format: FORMAT,
                    rest,
                })
            })
            .map_err(io::Error::other);
        bytes
            .and_then(|bytes| super::whole::write_whole(&path, &bytes))
            .map_err(|source| JournalError::Io { path, source })
    }

    /// Forgets a worker that is gone.
    pub fn remove(&self, nonce: &str) {
        let path = self.path(nonce);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The next start finds no such process, and removes it then.
                tracing::warn!(path = %path.display(), %error, "a record of a worker stays");
            }
            _ => {}
        }
    }

    /// Moves what is known of a worker of another state directory out of the way, to
    /// `*.foreign`.
    pub fn lay_aside(&self, nonce: &str) {
        for known in ["json", ASIDE] {
            let path = self.dir.join(nonce).with_extension(known);
            // Of the two, one is there.
            drop(fs::rename(&path, path.with_extension("foreign")));
        }
    }

    /// Every record. One that can't be read is set aside as `*.bad`; what a kill
    /// left half written is removed. For the start alone, while no one writes.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] when the directory can't be read, and
    /// [`JournalError::Newer`].
    pub fn load(&self) -> Result<Vec<WorkerRecord>, JournalError> {
        let wrong = |source| JournalError::Io {
            path: self.dir.clone(),
            source,
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|ext| ext == "json") {
                records.extend(read(&path)?);
            } else if path.extension().is_some_and(|ext| ext == "tmp") {
                // The record that it was to replace still stands.
                drop(fs::remove_file(&path));
            }
        }
        records.sort_by(|a, b| a.nonce.cmp(&b.nonce));
        Ok(records)
    }
}

fn read(path: &Path) -> Result<Option<WorkerRecord>, JournalError> {
    let bytes = fs::read(path).map_err(|source| JournalError::Io {
        path: path.to_owned(),
        source,
    })?;
    let parsed = match serde_json::from_slice::<Versioned>(&bytes) {
        Ok(versioned) if versioned.format > FORMAT => {
            return Err(JournalError::Newer {
                path: path.to_owned(),
                format: versioned.format,
            });
        }
        Ok(versioned) => serde_json::from_value(serde_json::Value::Object(versioned.rest)),
        Err(error) => Err(error),
    };
    match parsed {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            let aside = path.with_extension(ASIDE);
            let moved = fs::rename(path, &aside).is_ok();
            tracing::warn!(path = %path.display(), moved, %error,
                "a record of a worker can't be read and is set aside: its worker can't be adopted, and is ended");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> WorkerRecord {
        WorkerRecord {
            nonce: "0123abcd".to_owned(),
            deployment: "team/tiny".to_owned(),
            generation: Generation(3),
            fingerprint: "f".to_owned(),
            boot_id: "b".to_owned(),
            process: None,
            keeper: None,
            pipe: None,
            state: None,
            socket: PathBuf::from("/run/a.sock"),
            port: None,
            api_key: "k".to_owned(),
            gpus: vec![0, 1],
            log: PathBuf::from("/logs/a.log"),
            asleep: Some(Asleep::Cpu),
            cgroup: None,
            shared: BTreeSet::new(),
        }
    }

    #[test]
    fn a_record_reads_back_as_last_written() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("workers")).unwrap();
        let mut record = record();
        journal.write(&record).unwrap();
        let process = ProcessId {
            pid: 42,
            start_time: 7,
        };
        record.process = Some(process);
        journal.write(&record).unwrap();
        assert_eq!(journal.load().unwrap(), [record.clone()]);
        journal.remove(&record.nonce);
        journal.remove(&record.nonce);
        assert_eq!(journal.load().unwrap(), []);
    }

    #[test]
    fn a_torn_record_is_set_aside_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().to_owned()).unwrap();
        journal.write(&record()).unwrap();
        for (name, text) in [
            ("torn.json", "{\"format\":1,\"non"),
            ("empty.json", ""),
            ("odd.json", "{\"format\":1}"),
            ("half.tmp", "{\"for"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(journal.load().unwrap().len(), 1);
        for name in ["torn.bad", "empty.bad", "odd.bad"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        assert!(
            journal.set_aside().is_empty(),
            "none of these names a worker"
        );
        let name = "b41a82f821a4a2c8bd64b32f45eadb74";
        fs::write(dir.path().join(format!("{name}.json")), "{").unwrap();
        assert_eq!(journal.load().unwrap().len(), 1);
        assert_eq!(journal.set_aside(), [name]);
        assert!(!dir.path().join("half.tmp").exists());
        assert_eq!(journal.load().unwrap().len(), 1);
    }

    #[test]
    fn a_record_of_the_format_before_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().to_owned()).unwrap();
        journal.write(&record()).unwrap();
        let path = journal.path(&record().nonce);
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let fields = json.as_object_mut().unwrap();
        fields.insert("format".to_owned(), 1.into());
        fields.remove("cgroup");
        fields.remove("shared");
        fs::write(&path, json.to_string()).unwrap();
        assert_eq!(journal.load().unwrap(), [record()]);
    }

    #[test]
    fn a_record_of_a_newer_format_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().to_owned()).unwrap();
        fs::write(dir.path().join("new.json"), "{\"format\":3,\"x\":1}").unwrap();
        let error = journal.load().unwrap_err();
        assert!(
            matches!(error, JournalError::Newer { format: 3, .. }),
            "{error}"
        );
        assert!(dir.path().join("new.json").exists());
    }
}
