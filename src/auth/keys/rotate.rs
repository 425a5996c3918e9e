//! A new signing key, with an overlap in which tokens of the old one are good.
//!
//! Owns the file of previous keys beside the signing key: public halves only, the
//! newest first, with which tokens are verified and nothing is signed. A key may
//! be taken out of it once the last token that it signed has ended.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::pki_types::pem::{PemObject, SectionKind};

use super::super::files::{PRIVATE, PUBLIC, Staged};
use super::{KeyError, SigningKey, kid, pem, private_pem};

/// Most previous keys that a rotation keeps, and that one file may hold.
pub const PREVIOUS_MAX: usize = 8;

/// Bytes before the 32 of an Ed25519 public key (RFC 8410, 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The public half of an Ed25519 key that only verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Names the key in token headers, as [`SigningKey::kid`] does.
    pub fn kid(&self) -> String {
        kid(&self.0)
    }

    /// The key: 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_spki(der: &[u8]) -> Option<Self> {
        let key = der.strip_prefix(&SPKI_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }

    fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[SPKI_PREFIX.as_slice(), &self.0].concat())
    }
}

impl From<&SigningKey> for PublicKey {
    fn from(key: &SigningKey) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(key.public_key()) {
            *to = *from;
        }
        Self(bytes)
    }
}

/// File in which a rotation keeps previous keys when the settings name none:
/// `tokens.key.previous` beside `tokens.key`.
pub fn previous_beside(signing_key: &Path) -> PathBuf {
    let mut name = signing_key.as_os_str().to_owned();
    name.push(".previous");
    PathBuf::from(name)
}

/// Reads previous keys: public ones, or whole old key files, of which the public
/// half is kept.
pub(in crate::auth) fn parse_previous(
    path: &Path,
    text: &[u8],
) -> Result<Vec<PublicKey>, KeyError> {
    let invalid = || KeyError::Previous {
        path: path.to_owned(),
    };
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>) as PemObject>::pem_slice_iter(text) {
        let key = match section.map_err(|_| invalid())? {
            (SectionKind::PublicKey, der) => PublicKey::from_spki(&der),
            (SectionKind::PrivateKey, der) => Ed25519KeyPair::from_pkcs8(&der)
                .ok()
                .map(|pair| PublicKey::from(&SigningKey::from_pair(pair))),
            _ => None,
        };
        keys.push(key.ok_or_else(invalid)?);
    }
    if !(1..=PREVIOUS_MAX).contains(&keys.len()) {
        return Err(invalid());
    }
    Ok(keys)
}

/// Result of a rotation.
#[derive(Debug)]
pub struct Rotated {
    /// Id of the key that signs from now on.
    pub kid: String,
    /// Id of the key that signed before, and verifies until it is taken out.
    pub previous_kid: String,
    /// File of the previous keys.
    pub previous: PathBuf,
    /// Ids that fell out of that file; their tokens are no longer valid.
    pub dropped: Vec<String>,
}

/// Makes a new signing key, and keeps the public half of the old one in the file
/// `previous`, before the keys that stand there. Blocking.
///
/// The old key is kept first and replaced then, each as a whole: a gateway that
/// reads the files between the two, or after a crash there, loses nothing.
///
/// # Errors
///
/// [`KeyError`]; the signing key is then what it was.
pub fn rotate(signing_key: &Path, previous: &Path) -> Result<Rotated, KeyError> {
    let gone = || KeyError::Gone {
        path: signing_key.to_owned(),
    };
    let old = PublicKey::from(&SigningKey::load(signing_key)?.ok_or_else(gone)?.key);
    let mut keys = match std::fs::read(previous) {
        Ok(text) => parse_previous(previous, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            let path = previous.to_owned();
            return Err(KeyError::Read { path, source });
        }
    };
    keys.retain(|key| *key != old);
    keys.insert(0, old.clone());
    let dropped = keys.split_off(keys.len().min(PREVIOUS_MAX));
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Make)?;
    let (new, key) = (private_pem(&pair)?, SigningKey::from_pair(pair));
    let bundle: String = keys.iter().map(PublicKey::to_pem).collect();
    for (path, content, mode) in [(previous, &bundle, PUBLIC), (signing_key, &new, PRIVATE)] {
        Staged::write(path, content.as_bytes(), mode)
            .and_then(Staged::replace)
            .map_err(|source| KeyError::Write {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(Rotated {
        kid: key.kid().to_owned(),
        previous_kid: old.kid(),
        previous: previous.to_owned(),
        dropped: dropped.iter().map(PublicKey::kid).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_rotation_keeps_the_old_public_key_and_makes_another_to_sign_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.key");
        let previous = previous_beside(&path);
        assert!(previous.ends_with("tokens.key.previous"));
        let mut kids = vec![
            SigningKey::load_or_create(&path)
                .unwrap()
                .key
                .kid()
                .to_owned(),
        ];
        for round in 1..=PREVIOUS_MAX + 1 {
            let rotated = rotate(&path, &previous).unwrap();
            assert_eq!(rotated.previous_kid, *kids.last().unwrap());
            let signing = SigningKey::load_or_create(&path).unwrap();
            assert_eq!((signing.key.kid(), signing.note), (&*rotated.kid, None));
            kids.push(rotated.kid);
            let text = fs::read(&previous).unwrap();
            assert!(!text.windows(7).any(|w| w == b"PRIVATE"));
            let kept: Vec<_> = parse_previous(&previous, &text)
                .unwrap()
                .iter()
                .map(PublicKey::kid)
                .collect();
            let newest = kids.iter().rev().skip(1).take(PREVIOUS_MAX);
            assert!(newest.eq(&kept), "round {round}: {kept:?}");
            let dropped = if round > PREVIOUS_MAX {
                &kids[..1]
            } else {
                &[]
            };
            assert_eq!(rotated.dropped, dropped);
        }
    }

    #[test]
    fn what_can_not_be_rotated_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.key");
        let previous = previous_beside(&path);
        let error = rotate(&path, &previous).unwrap_err();
        assert!(matches!(error, KeyError::Gone { .. }), "{error:?}");
        assert!(!path.exists());
        SigningKey::load_or_create(&path).unwrap();
        let before = fs::read(&path).unwrap();
        fs::write(&previous, "no keys").unwrap();
        let error = rotate(&path, &previous).unwrap_err();
        assert!(matches!(error, KeyError::Previous { .. }), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read(&previous).unwrap(), b"no keys");
    }

    #[test]
    fn an_old_key_file_serves_as_a_previous_key_by_its_public_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.key");
        let key = SigningKey::load_or_create(&path).unwrap().key;
        let keys = parse_previous(&path, &fs::read(&path).unwrap()).unwrap();
        assert_eq!(keys, [PublicKey::from(&key)]);
        assert_eq!(keys[0].kid(), key.kid());
        let ec = rcgen::KeyPair::generate().unwrap();
        for text in [ec.serialize_pem(), ec.public_key_pem(), String::new()] {
            assert!(parse_previous(&path, text.as_bytes()).is_err(), "{text}");
        }
    }
}
