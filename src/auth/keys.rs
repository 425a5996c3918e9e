//! The key that signs tokens, and its file: PKCS#8 PEM, mode 0600, made on first
//! start. Replacing it is `rotate`'s; which keys are trusted for what is
//! [`super::ring`]'s.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::files::{PRIVATE, Staged};
use crate::pem::{PemKind, fault};

mod rotate;

pub(in crate::auth) use rotate::parse_previous;
pub use rotate::{PREVIOUS_MAX, PublicKey, Rotated, previous_beside, rotate};

/// Largest key file that is read, in bytes. An Ed25519 key takes about 120.
pub(super) const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Reason why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is there and can't be read.
    #[error(
        "could not read the token signing key {path}: make it readable for the user that \
         runs tidegate, or set tokens.signing_key to another file"
    )]
    Read {
        /// The key's file.
        path: PathBuf,
        /// Error met in reading it.
        #[source]
        source: io::Error,
    },
    /// The file is not an Ed25519 key.
    #[error(
        "{path} is not an Ed25519 private key in PKCS#8 PEM form: restore it from a backup, make one \
         with `openssl genpkey -algorithm ed25519 -out {path}`, or remove it and a new key \
         is made at the next start, under which no earlier token is valid"
    )]
    Invalid {
        /// The key's file.
        path: PathBuf,
    },
    /// The file holds something else than a key that can be read.
    #[error("the token signing key {path} can't be used: {why}")]
    Wrong {
        /// The key's file.
        path: PathBuf,
        /// Content that the file has instead, and a remedy.
        why: &'static str,
    },
    /// There was no file and none could be made.
    #[error(
        "could not write a new token signing key to {path}: make its directory writable \
         for the user that runs tidegate, or set tokens.signing_key to another file"
    )]
    Write {
        /// The key's file.
        path: PathBuf,
        /// Error met in writing it.
        #[source]
        source: io::Error,
    },
    /// The file of previous keys holds something else.
    #[error(
        "{path} is not a file of 1 to {PREVIOUS_MAX} Ed25519 keys in PEM form: write the public \
         keys of `openssl pkey -pubout`, or take the file out of tokens.previous_keys"
    )]
    Previous {
        /// The file.
        path: PathBuf,
    },
    /// There is no key to rotate, or none any more.
    #[error(
        "the token signing key {path} is gone: restore it from a backup; without it a new one is \
         made at the next start, under which no earlier token is valid"
    )]
    Gone {
        /// The key's file.
        path: PathBuf,
    },
    /// The system has no random bytes, or the key can't be encoded.
    #[error("the cryptographic library could not make a token signing key")]
    Make,
}

/// The Ed25519 key that signs tokens. Does not print.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    kid: Arc<str>,
}

/// A signing key, and how it was come by.
#[derive(Debug)]
pub struct LoadedKey {
    /// The key.
    pub key: SigningKey,
    /// True if the key was made just now.
    pub made: bool,
    /// Note about its file for an administrator: a whole sentence.
    pub note: Option<String>,
}

impl SigningKey {
    /// Reads the key from its file, or makes key and file where there is none.
    ///
    /// Of two processes that make it at once, one wins and both use its key.
    ///
    /// # Errors
    ///
    /// [`KeyError`], a sentence that says what to do.
    pub fn load_or_create(path: &Path) -> Result<LoadedKey, KeyError> {
        if let Some(loaded) = Self::load(path)? {
            return Ok(loaded);
        }
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Make)?;
        let text = private_pem(&pair)?;
        let write = |source| KeyError::Write {
            path: path.to_owned(),
            source,
        };
        let staged = Staged::write(path, text.as_bytes(), PRIVATE).map_err(write)?;
        if staged.place().map_err(write)? {
            let key = Self::from_pair(pair);
            return Ok(LoadedKey {
                key,
                made: true,
                note: None,
            });
        }
        Self::load(path)?.ok_or_else(|| write(io::ErrorKind::NotFound.into()))
    }

    /// A key that no file holds: for one process, as a demonstration or a test.
    ///
    /// # Errors
    ///
    /// [`KeyError::Make`] when the system has no random bytes.
    pub fn ephemeral() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Make)?;
        Ok(Self::from_pair(pair))
    }

    /// Names the key in token headers: derived from its public half.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half: 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<impl AsRef<[u8]> + use<>> {
        self.pair.try_sign(message).ok()
    }

    pub(super) fn load(path: &Path) -> Result<Option<LoadedKey>, KeyError> {
        let read = |source| KeyError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let mode = file.metadata().map_err(read)?.permissions().mode();
        let mut content = Vec::new();
        file.take(KEY_FILE_BYTES_MAX)
            .read_to_end(&mut content)
            .map_err(read)?;
        let key = Self::from_pem(&content).ok_or_else(|| {
            let path = path.to_owned();
            match fault(&content, PemKind::PrivateKey) {
                Some(why) => KeyError::Wrong { path, why },
                None => KeyError::Invalid { path },
            }
        })?;
        let note = readable_by_others("the token signing key", path, mode);
        Ok(Some(LoadedKey {
            key,
            made: false,
            note,
        }))
    }

    fn from_pem(text: &[u8]) -> Option<Self> {
        let document = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(document.secret_pkcs8_der()).ok()?;
        Some(Self::from_pair(pair))
    }

    fn from_pair(pair: Ed25519KeyPair) -> Self {
        let kid = Arc::from(kid(pair.public_key().as_ref()));
        Self { pair, kid }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Warning about a secret file, if others can read it.
pub(super) fn readable_by_others(what: &str, path: &Path, mode: u32) -> Option<String> {
    (mode & 0o077 != 0).then(|| {
        format!(
            "{what} {file} can be read by other users (mode {mode:04o}): run `chmod 600 {file}`",
            file = path.display(),
            mode = mode & 0o7777
        )
    })
}

fn private_pem(pair: &Ed25519KeyPair) -> Result<String, KeyError> {
    let document = pair.to_pkcs8v1().map_err(|_| KeyError::Make)?;
    Ok(pem("PRIVATE KEY", document.as_ref()))
}

/// The first 8 bytes of the public key's SHA-256, in 11 characters.
fn kid(public_key: &[u8]) -> String {
    let hash = digest(&SHA256, public_key);
    URL_SAFE_NO_PAD.encode(hash.as_ref().get(..8).unwrap_or_default())
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, c) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text + "\n-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn refused(path: &Path) -> String {
        SigningKey::load_or_create(path).unwrap_err().to_string()
    }

    #[test]
    fn first_start_makes_a_private_key_that_the_next_start_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("certs/tokens.key");
        let first = SigningKey::load_or_create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((first.made, mode & 0o777), (true, 0o600));
        let second = SigningKey::load_or_create(&path).unwrap();
        assert_eq!((second.made, second.note), (false, None));
        assert_eq!(first.key.kid(), second.key.kid());
        assert_eq!(first.key.public_key(), second.key.public_key());
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn processes_that_start_together_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.key");
        let kids: Vec<String> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| SigningKey::load_or_create(&path).unwrap().key))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap().kid().to_owned())
                .collect()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.key");
        SigningKey::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let note = SigningKey::load_or_create(&path).unwrap().note.unwrap();
        assert!(
            note.contains("0644") && note.contains("chmod 600"),
            "{note}"
        );
    }

    #[test]
    fn a_file_that_is_no_ed25519_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let rsa_or_ec = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for content in ["", "garbage", rsa_or_ec.as_str()] {
            let path = dir.path().join("tokens.key");
            fs::write(&path, content).unwrap();
            assert!(refused(&path).contains("openssl genpkey"), "{content:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert!(refused(dir.path()).contains("could not read"));
    }

    #[test]
    fn a_signing_key_does_not_print_its_private_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.key");
        let key = SigningKey::load_or_create(&path).unwrap().key;
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey {{ kid: {:?}, .. }}", key.kid())
        );
    }
}
