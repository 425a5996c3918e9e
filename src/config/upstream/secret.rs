//! Secrets that a server is told and no route file says: from a variable, or a file of its own.

use std::path::PathBuf;

use crate::auth::Secret;
use crate::config::file;

/// Source of an upstream's key, or of what else it is told in secret: read at load and
/// when its file changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeySource {
    /// An environment variable.
    Env(String),
    /// A file; surrounding white space is cut.
    File(PathBuf),
}

/// Use of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretUse {
    /// The server's key.
    Key,
    /// The value of a header.
    Header,
}

/// Reason why there is no secret; `key` is the key of the route file that names it.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The variable is not set.
    #[error(
        "{key}: the environment variable {name} is not set, or is empty: set it, or name another"
    )]
    Env {
        /// The key that names it.
        key: &'static str,
        /// The variable.
        name: String,
    },
    /// The file can't be read.
    #[error("{key}: {path} can't be read: {reason}", path = .path.display())]
    Unread {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// It holds nothing that could be sent.
    #[error("{key}: {} must hold the key alone, on one line of printable characters", .path.display())]
    NotKey {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It holds a key of TLS.
    #[error("{key}: {} holds a PEM, which is for TLS: write the server's API key into a file of its own", .path.display())]
    Pem {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// Largest key file, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

impl ApiKeySource {
    /// Reads the secret. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ApiKeyError`] when there is none.
    pub fn read(&self, used: SecretUse) -> Result<Secret<String>, ApiKeyError> {
        match self {
            Self::Env(name) => {
                let text = std::env::var(name).unwrap_or_default();
                let key = used.env_key();
                let name = name.clone();
                used.sendable(&text).ok_or(ApiKeyError::Env { key, name })
            }
            Self::File(path) => {
                let (key, path) = (used.file_key(), path.clone());
                let text = match file::read(&path, KEY_FILE_BYTES_MAX) {
                    Ok(text) => text,
                    Err(unread) => {
                        let reason = unread.to_string();
                        return Err(ApiKeyError::Unread { key, path, reason });
                    }
                };
                if text.starts_with(b"-----BEGIN ") {
                    return Err(ApiKeyError::Pem { key, path });
                }
                let text = String::from_utf8(text).unwrap_or_default();
                // Windows' editors begin a text with a byte order mark.
                let secret = used.sendable(text.trim_start_matches('\u{feff}'));
                secret.ok_or(ApiKeyError::NotKey { key, path })
            }
        }
    }
}

impl SecretUse {
    fn env_key(self) -> &'static str {
        match self {
            Self::Key => "api_key_env",
            Self::Header => "headers_env",
        }
    }

    fn file_key(self) -> &'static str {
        match self {
            Self::Key => "api_key_file",
            Self::Header => "headers_file",
        }
    }

    /// The text without the white space around it, if it can be sent.
    fn sendable(self, text: &str) -> Option<Secret<String>> {
        let text = text.trim();
        // No key has a space; a header may, as behind the scheme of an authorization.
        let takes = |byte: u8| byte.is_ascii_graphic() || self == Self::Header && byte == b' ';
        let is_sendable = !text.is_empty() && text.bytes().all(takes);
        is_sendable.then(|| Secret::new(text.to_owned()))
    }
}

/// Reason why a text is no name of an environment variable; `None` where it is one. The text may
/// be the secret itself, so it is not shown.
pub(super) fn variable_fault(name: &str) -> Option<&'static str> {
    let first = name.bytes().next();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_name = first.is_some_and(|b| !b.is_ascii_digit()) && name.bytes().all(plain);
    (!is_name).then_some(
        "this is not the name of an environment variable: write one, as \"UPSTREAM_KEY\", not the key itself",
    )
}
