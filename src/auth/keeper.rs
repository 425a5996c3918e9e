//! Keeps the keys that are in use as their files say, from the start to the end.
//!
//! Owns where keys come from, and the tasks that look at them: files every
//! [`LOOK`], addresses as [`super::refetch`] says. A file that is gone, half written or
//! wrong changes nothing: what was read from it last stays in use, with a warning.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use jsonwebtoken::DecodingKey;

use super::algorithm::Algorithm;
use super::fetch::{Fetcher, RootsError};
use super::issue::Issuer;
use super::jwks::{JWKS_BYTES_MAX, JwksError, KeySet};
use super::keys::{
    KEY_FILE_BYTES_MAX, KeyError, LoadedKey, SigningKey, parse_previous, previous_beside,
    readable_by_others,
};
use super::refetch::{JwksStatus, Refetch};
use super::revoked::Revocations;
use super::ring::{DuplicateKid, Foreign, Keyring, TrustedKey};
use super::ulid::NoRandomBytes;
use super::verify::Verifier;
use crate::tasks::Tasks;
use crate::time::sleep;

mod sources;

pub use sources::{KeySources, SecretSource, SharedSecret, TrustedIssuer, TrustedKeys};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);

/// Least bytes of a shared secret: as many as its signatures have (RFC 7518, 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Most bytes of a shared secret.
const SECRET_BYTES_MAX: usize = 4096;

/// Reason why the keys can't be used as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Our own key.
    #[error(transparent)]
    Own(#[from] KeyError),
    /// A file of keys can't be read.
    #[error(
        "could not read {path}: make it readable for the user that runs tidegate, or name another file in {key}"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The settings' key that names it.
        key: &'static str,
        /// Error met in reading it.
        #[source]
        source: io::Error,
    },
    /// Another issuer's keys are not usable.
    #[error("{path} can't be used for the issuer {issuer:?}")]
    Trusted {
        /// The file.
        path: PathBuf,
        /// The issuer.
        issuer: Arc<str>,
        /// Fault of the file.
        #[source]
        source: JwksError,
    },
    /// No authorities to verify the server of a JWKS with.
    #[error("the keys of the issuer {issuer:?} can't be fetched")]
    Roots {
        /// The issuer.
        issuer: Arc<str>,
        /// Reason why there are none.
        #[source]
        source: RootsError,
    },
    /// The shared secret is too short, too long or not there.
    #[error(
        "the HS256 secret in {0} has {1} bytes: it takes {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}; \
         make one with `openssl rand -base64 48`, or take tokens.hs256 out"
    )]
    Secret(String, usize),
    /// Two keys have one id.
    #[error(transparent)]
    Kid(#[from] DuplicateKid),
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomBytes),
}

/// Content of the files at one moment.
struct Snapshot {
    signing: SigningKey,
    ring: Keyring,
    made: bool,
    notes: Vec<String>,
    /// SHA-256 of all that was read.
    fingerprint: Vec<u8>,
}

/// The keys in use.
#[derive(Debug)]
pub struct Keys {
    sources: KeySources,
    verifier: Arc<Verifier>,
    issuer: Arc<Issuer>,
    /// Digest of what the keys in use were read from. Held over a whole reload, so that two of
    /// them do not overtake each other; nothing on the request path takes it.
    fingerprint: Mutex<Vec<u8>>,
}

/// The keys of a start, and what an administrator should know of them.
#[derive(Debug)]
pub struct LoadedKeys {
    /// The keys.
    pub keys: Arc<Keys>,
    /// True if our signing key was made just now.
    pub made: bool,
    /// Whole sentences.
    pub notes: Vec<String>,
}

impl Keys {
    /// Reads all keys, and makes a signing key where there is none. Does not wait for
    /// keys that are to be fetched. Blocking.
    ///
    /// # Errors
    ///
    /// [`KeysError`], with what to do.
    pub fn load(
        sources: KeySources,
        revocations: Arc<Revocations>,
    ) -> Result<LoadedKeys, KeysError> {
        let own = SigningKey::load_or_create(&sources.signing_key)?;
        let read = sources.read(own)?;
        let verifier = Arc::new(Verifier::new(read.ring, revocations)?);
        let (name, audience) = (&sources.issuer, &sources.audience);
        let issuer = Arc::new(Issuer::new(read.signing, name, audience));
        Ok(LoadedKeys {
            keys: Arc::new(Self {
                sources,
                verifier,
                issuer,
                fingerprint: Mutex::new(read.fingerprint),
            }),
            made: read.made,
            notes: read.notes,
        })
    }

    /// Verifies with these keys.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Issues with our key.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Reads all files again; whether anything changed. If so, every token is verified
    /// again at its next use. Blocking.
    ///
    /// # Errors
    ///
    /// [`KeysError`]; then everything stays as it is.
    pub fn reload(&self) -> Result<bool, KeysError> {
        let mut fingerprint = self
            .fingerprint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let path = &self.sources.signing_key;
        let own = SigningKey::load(path)?.ok_or_else(|| KeyError::Gone { path: path.clone() })?;
        let read = self.sources.read(own)?;
        if *fingerprint == read.fingerprint {
            return Ok(false);
        }
        // Verified before it is used to sign: no token of ours is ever refused.
        self.verifier.change_keys(|old| {
            let mut ring = read.ring.clone();
            ring.keep_fetched(old);
            Some(ring)
        });
        self.issuer.replace_key(read.signing);
        *fingerprint = read.fingerprint;
        Ok(true)
    }

    /// Starts what keeps the keys as their sources say, until the tasks end.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        for foreign in self.verifier.keys().issuers() {
            if let Some(refetch) = foreign.refetch.clone() {
                let (keys, ending) = (Arc::clone(self), tasks.ending());
                tasks.spawn("jwks", async move {
                    let verifier = &keys.verifier;
                    let replace = |issuer: &str, set: &_| verifier.set_issuer_keys(issuer, set);
                    refetch.run(replace, ending).await;
                });
            }
        }
        let (keys, ending) = (Arc::clone(self), tasks.ending());
        tasks.spawn("keys", async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = keys.look() => {}
            }
        });
    }

    /// Standing of the key sets that are fetched, for metrics.
    pub fn jwks_status(&self) -> Vec<JwksStatus> {
        let ring = self.verifier.keys();
        let fetched = ring.issuers().filter_map(|issuer| issuer.refetch.as_ref());
        fetched.map(|refetch| refetch.status()).collect()
    }

    async fn look(self: Arc<Self>) {
        let mut told = None;
        loop {
            sleep(LOOK).await;
            let keys = Arc::clone(&self);
            let Ok(result) = tokio::task::spawn_blocking(move || keys.reload()).await else {
                continue;
            };
            match result {
                Ok(changed) => {
                    if changed {
                        let kid = self.issuer.key().kid().to_owned();
                        tracing::info!(token.kid = %kid, "took changed token keys into use");
                    }
                    told = None;
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    let text = (error.to_string(), cause.unwrap_or_default());
                    if told.as_ref() != Some(&text) {
                        let (error, cause) = &text;
                        tracing::warn!(error, cause, "the token keys stay as they were");
                        told = Some(text);
                    }
                }
            }
        }
    }
}

impl KeySources {
    fn read(&self, own: LoadedKey) -> Result<Snapshot, KeysError> {
        let LoadedKey { key, made, note } = own;
        let mut files = Files::new();
        files.hash.update(key.public_key());
        files.notes.extend(note);
        let mut ring = Keyring::own(&key, &self.issuer, &self.audience);
        let beside = [previous_beside(&self.signing_key)];
        let previous = self.previous_keys.as_deref();
        for path in previous.unwrap_or(&beside) {
            if previous.is_none() && !path.exists() {
                continue;
            }
            let text = files.read(path, KEY_FILE_BYTES_MAX, "tokens.previous_keys")?;
            for key in parse_previous(path, &text)? {
                ring.add_own(key, &self.issuer, &self.audience);
            }
        }
        if let Some(shared) = &self.shared_secret {
            let key = DecodingKey::from_secret(&files.secret(&shared.source)?);
            let trusted = TrustedKey::new(
                Algorithm::Hs256,
                key,
                &shared.issuer,
                &self.audience,
                shared.role_max,
            );
            if let Some(trusted) = trusted {
                ring.insert(&shared.kid, trusted)?;
            }
        }
        for trusted in &self.trusted {
            ring.set_foreign(files.foreign(trusted)?);
        }
        Ok(Snapshot {
            signing: key,
            ring,
            made,
            notes: files.notes,
            fingerprint: files.hash.finish().as_ref().to_vec(),
        })
    }
}

/// Reads files, and remembers what they said.
struct Files {
    hash: Context,
    notes: Vec<String>,
}

impl Files {
    fn new() -> Self {
        Self {
            hash: Context::new(&SHA256),
            notes: Vec::new(),
        }
    }

    /// Reads at most one byte more than `bytes_max`, which is then too large for all
    /// that is read here.
    fn read(
        &mut self,
        path: &Path,
        bytes_max: u64,
        key: &'static str,
    ) -> Result<Vec<u8>, KeysError> {
        let mut text = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut text));
        read.map_err(|source| KeysError::Read {
            path: path.to_owned(),
            key,
            source,
        })?;
        self.add(&text);
        Ok(text)
    }

    fn add(&mut self, text: &[u8]) {
        self.hash.update(&text.len().to_ne_bytes());
        self.hash.update(text);
    }

    fn secret(&mut self, source: &SecretSource) -> Result<Vec<u8>, KeysError> {
        let (name, text) = match source {
            SecretSource::File(path) => {
                let text = self.read(
                    path,
                    SECRET_BYTES_MAX as u64 + 2,
                    "tokens.hs256.secret_file",
                )?;
                let mode = path.metadata().map(|data| data.permissions().mode());
                let note = readable_by_others("the HS256 secret", path, mode.unwrap_or(0));
                self.notes.extend(note);
                (path.display().to_string(), text)
            }
            SecretSource::Env(name) => {
                let text = std::env::var(name).unwrap_or_default().into_bytes();
                self.add(&text);
                (format!("the environment variable {name}"), text)
            }
        };
        let secret = text.trim_ascii();
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(KeysError::Secret(name, secret.len()));
        }
        Ok(secret.to_vec())
    }

    fn foreign(&mut self, trusted: &TrustedIssuer) -> Result<Foreign, KeysError> {
        let issuer = &trusted.terms.issuer;
        let mut from_file =
            |path: &Path, key, parse: &dyn Fn(&[u8]) -> Result<KeySet, JwksError>| {
                let text = self.read(path, JWKS_BYTES_MAX as u64, key)?;
                parse(&text).map_err(|source| KeysError::Trusted {
                    path: path.to_owned(),
                    issuer: Arc::clone(issuer),
                    source,
                })
            };
        let (keys, refetch) = match &trusted.keys {
            TrustedKeys::JwksFile(path) => (
                from_file(path, "tokens.trusted.jwks", &KeySet::parse)?,
                None,
            ),
            TrustedKeys::PublicKey { file, algorithm } => {
                let parse = |text: &[u8]| KeySet::from_pem(text, *algorithm);
                (from_file(file, "tokens.trusted.public_key", &parse)?, None)
            }
            TrustedKeys::JwksUrl { url, ca } => {
                let fetcher = Fetcher::new(url.clone(), ca.as_deref()).map_err(|source| {
                    KeysError::Roots {
                        issuer: Arc::clone(issuer),
                        source,
                    }
                })?;
                let refetch = Refetch::new(Arc::clone(issuer), fetcher);
                (KeySet::default(), Some(refetch))
            }
        };
        Ok(Foreign {
            terms: Arc::new(trusted.terms.clone()),
            keys: Arc::new(keys),
            refetch,
        })
    }
}

#[cfg(test)]
mod tests;
