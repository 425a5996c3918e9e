//! Secrets of instances, apart from their files: what a route file names as
//! `{ secret = "NAME" }`.
//!
//! Owns `secrets.json` in the state directory, readable by its owner only. It is
//! read anew with each question, so there is one truth, on the disk. Whoever
//! changes it does so one at a time; the admin API holds its own lock. Who may
//! ask for which secret is decided elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::whole::write_durable;
use crate::vllm::options::SecretText;

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Reason for which a secret could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file can't be read or written.
    #[error("the secrets in {path} can't be read or written: see to its permissions and the disk")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The file is not ours.
    #[error("{path} does not hold secrets by name: restore it from a backup, or move it away")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// There would be too many.
    #[error("the secrets in {path} would take more than {BYTES_MAX} bytes: delete some instances")]
    Large {
        /// The file.
        path: PathBuf,
    },
}

/// The secrets of one state directory.
#[derive(Clone, Debug)]
pub struct Secrets {
    path: PathBuf,
}

impl Secrets {
    /// Secrets of this state directory, which need not exist yet.
    pub fn at(state: &Path) -> Self {
        Self {
            path: state.join("secrets.json"),
        }
    }

    /// The secret of this name.
    ///
    /// # Errors
    ///
    /// The file is there and can't be read.
    pub fn get(&self, name: &str) -> Result<Option<SecretText>, SecretsError> {
        Ok(self.read()?.remove(name).map(SecretText::new))
    }

    /// Keeps these, over those of the same names.
    ///
    /// # Errors
    ///
    /// The file can't be read or written; nothing was changed then.
    pub fn put(&self, secrets: &[(String, SecretText)]) -> Result<(), SecretsError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let mut all = self.read()?;
        for (name, secret) in secrets {
            all.insert(name.clone(), secret.expose().to_owned());
        }
        self.write(&all)
    }

    /// Forgets every secret whose name is not to be kept.
    ///
    /// # Errors
    ///
    /// The file can't be read or written; nothing was changed then.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<(), SecretsError> {
        let mut all = self.read()?;
        let before = all.len();
        all.retain(|name, _| keep(name));
        if all.len() == before {
            return Ok(());
        }
        self.write(&all)
    }

    fn read(&self) -> Result<BTreeMap<String, String>, SecretsError> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(self.failed(source)),
            Ok(_) => {}
        }
        // The cause is not told: it could quote a secret.
        serde_json::from_slice(&bytes).map_err(|_| SecretsError::Damaged {
            path: self.path.clone(),
        })
    }

    fn write(&self, all: &BTreeMap<String, String>) -> Result<(), SecretsError> {
        let bytes = serde_json::to_vec(all).map_err(|error| self.failed(error.into()))?;
        if u64::try_from(bytes.len()).is_ok_and(|size| size > BYTES_MAX) {
            return Err(SecretsError::Large {
                path: self.path.clone(),
            });
        }
        write_durable(&self.path, &bytes).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> SecretsError {
        SecretsError::File {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn shown(secrets: &Secrets, name: &str) -> Option<String> {
        let found = secrets.get(name).unwrap();
        found.map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn secrets_outlive_their_keeper_and_are_the_owners_alone() {
        let state = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(state.path());
        assert_eq!(shown(&secrets, "a.token"), None);
        let secret = |text: &str| SecretText::new(text.to_owned());
        secrets.put(&[("a.token".into(), secret("one"))]).unwrap();
        secrets.put(&[("b.token".into(), secret("two"))]).unwrap();
        let again = Secrets::at(state.path());
        assert_eq!(shown(&again, "a.token").as_deref(), Some("one"));
        let mode = std::fs::metadata(state.path().join("secrets.json"));
        assert_eq!(mode.unwrap().permissions().mode() & 0o777, 0o600);
        again.retain(|name| name != "a.token").unwrap();
        assert_eq!(shown(&secrets, "a.token"), None);
        assert_eq!(shown(&secrets, "b.token").as_deref(), Some("two"));
    }

    #[test]
    fn a_damaged_file_is_an_error_that_quotes_nothing_and_is_not_overwritten() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("secrets.json");
        std::fs::write(&path, "hf_topsecret").unwrap();
        let secrets = Secrets::at(state.path());
        let error = secrets.get("a").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("topsecret"));
        let new = [("a".to_owned(), SecretText::new("b".to_owned()))];
        secrets.put(&new).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hf_topsecret");
    }
}
