//! Keys of other issuers: a JWKS document, or one public key in PEM form.
//!
//! A JWKS comes from outside, so it is read with bounds, and key by key: what is
//! not for signatures, of a kind that we don't know, weak, or a shared secret, is
//! passed over; an id that two keys claim belongs to neither. Each key leaves here
//! pinned to one algorithm.

use std::collections::{HashMap, HashSet};
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::token::KID_BYTES_MAX;

/// Largest JWKS document that is read, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Most keys in one JWKS, whatever they are.
pub const JWKS_KEYS_MAX: usize = 64;

/// Sizes of RSA moduli that signatures are verified with, in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Reason why a document is not a usable set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Larger than [`JWKS_BYTES_MAX`].
    #[error("the key set is larger than {JWKS_BYTES_MAX} bytes")]
    TooLarge,
    /// Not JSON, or without a list `keys`.
    #[error("this is not a JWKS: a JSON object with a list \"keys\"")]
    NotJwks,
    /// More than [`JWKS_KEYS_MAX`] keys.
    #[error("the key set holds {0} keys: {JWKS_KEYS_MAX} is the most")]
    TooMany(usize),
    /// No key is left that signatures can be verified with.
    #[error(
        "the key set holds no usable key: Ed25519, P-256, P-384, or RSA of 2048 to 8192 bits, \
         for signatures"
    )]
    NoKey,
    /// A PEM file that is not one public key of its algorithm.
    #[error("this is not a public key for {0} in PEM form, as `openssl pkey -pubout` writes it")]
    NotPem(&'static str),
    /// A PEM file with a private key.
    #[error("this is a private key: put only its public half here, by `openssl pkey -pubout`")]
    Private,
}

/// One key of another issuer.
#[derive(Clone)]
pub(super) struct ForeignKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl fmt::Debug for ForeignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ForeignKey").field(&self.algorithm).finish()
    }
}

/// The keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    named: HashMap<Box<str>, ForeignKey>,
    unnamed: Vec<ForeignKey>,
    /// SHA-256 of the text it was read from.
    digest: [u8; 32],
}

impl KeySet {
    /// Reads a JWKS document.
    ///
    /// # Errors
    ///
    /// [`JwksError`] when it is none, out of bounds, or without a usable key.
    pub fn parse(text: &[u8]) -> Result<Self, JwksError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge);
        }
        // Also where nothing is read: what is no text is no JSON.
        let json = std::str::from_utf8(text).map_err(|_| JwksError::NotJwks)?;
        let document: Document = serde_json::from_str(json).map_err(|_| JwksError::NotJwks)?;
        if document.keys.len() > JWKS_KEYS_MAX {
            return Err(JwksError::TooMany(document.keys.len()));
        }
        let mut set = Self {
            digest: sha256(text),
            ..Self::default()
        };
        let mut seen = HashSet::new();
        for value in document.keys {
            // The id counts as claimed even by a key that is then passed over.
            let kid = value
                .get("kid")
                .and_then(Value::as_str)
                .map(Box::<str>::from);
            let again = kid.as_ref().is_some_and(|kid| !seen.insert(kid.clone()));
            let key = serde_json::from_value::<Jwk>(value)
                .ok()
                .and_then(|jwk| jwk.key());
            match (kid, key) {
                (Some(kid), _) if again => drop(set.named.remove(&kid)),
                (Some(kid), Some(key)) if (1..=KID_BYTES_MAX).contains(&kid.len()) => {
                    set.named.insert(kid, key);
                }
                (None, Some(key)) => set.unnamed.push(key),
                (_, _) => {}
            }
        }
        if set.is_empty() {
            return Err(JwksError::NoKey);
        }
        Ok(set)
    }

    /// Reads one public key, for one algorithm, from PEM.
    ///
    /// # Errors
    ///
    /// [`JwksError`] when it is not such a key.
    pub fn from_pem(text: &[u8], algorithm: Algorithm) -> Result<Self, JwksError> {
        if memchr::memmem::find(text, b"PRIVATE KEY").is_some() {
            return Err(JwksError::Private);
        }
        let key = match algorithm {
            Algorithm::EdDsa => DecodingKey::from_ed_pem(text),
            Algorithm::Es256 | Algorithm::Es384 => DecodingKey::from_ec_pem(text),
            Algorithm::Hs256 => return Err(JwksError::NotPem("HS256")),
            _ => DecodingKey::from_rsa_pem(text),
        };
        let not_pem = JwksError::NotPem(algorithm.name());
        let key = key.map_err(|_| not_pem.clone())?;
        let length = key.try_get_as_bytes().map_err(|_| not_pem.clone())?.len();
        let fits = match algorithm {
            Algorithm::EdDsa => length == 32,
            // An uncompressed point: a byte and two coordinates.
            Algorithm::Es256 => length == 65,
            Algorithm::Es384 => length == 97,
            // DER: a modulus, an exponent and at least 11 bytes around them.
            _ => length >= RSA_BYTES.start() + 12 && length <= RSA_BYTES.end() + 32,
        };
        if !fits {
            return Err(not_pem);
        }
        Ok(Self {
            named: HashMap::new(),
            unnamed: vec![ForeignKey { algorithm, key }],
            digest: sha256(text),
        })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.named.len() + self.unnamed.len()
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if both were read from the same text.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// The key that a header means. A set of one key needs no id, and one key
    /// without an id goes by any.
    pub(super) fn choose(&self, kid: Option<&str>) -> Option<&ForeignKey> {
        let only = |keys: usize| (keys == 1).then(|| self.unnamed.first()).flatten();
        match kid {
            Some(kid) => self.named.get(kid).or_else(|| only(self.len())),
            None if self.named.len() == 1 && self.unnamed.is_empty() => self.named.values().next(),
            None => only(self.len()),
        }
    }
}

fn sha256(text: &[u8]) -> [u8; 32] {
    let hash = digest(&SHA256, text);
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// Fields that we read of a key; whatever else it says, as `x5c`, is not trusted.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    /// The private half: once published, it is no secret any more.
    #[serde(default)]
    d: Option<Value>,
}

impl Jwk {
    /// The key, pinned; `None` for what is to be passed over.
    fn key(&self) -> Option<ForeignKey> {
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if self.usage.as_deref().is_some_and(|usage| usage != "sig")
            || !self.key_ops.as_ref().is_none_or(verifies)
            || self.d.is_some()
        {
            return None;
        }
        let (usual, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {
                let x = sized(self.x.as_deref()?, &(32..=32))?;
                (Algorithm::EdDsa, DecodingKey::from_ed_der(&x))
            }
            ("EC", Some("P-256")) => (Algorithm::Es256, self.point(32)?),
            ("EC", Some("P-384")) => (Algorithm::Es384, self.point(48)?),
            ("RSA", _) => {
                let n = sized(self.n.as_deref()?, &RSA_BYTES)?;
                let e = sized(self.e.as_deref()?, &(1..=8))?;
                let strong = n.first().is_some_and(|first| *first != 0) && e != [1];
                let key = DecodingKey::from_rsa_raw_components(&n, &e);
                (Algorithm::Rs256, strong.then_some(key)?)
            }
            _ => return None,
        };
        let algorithm = match &self.alg {
            None => usual,
            Some(name) => {
                let named = Algorithm::PUBLIC.iter().find(|(known, _)| known == name);
                named.map(|(_, algorithm)| *algorithm)?
            }
        };
        // One curve has one algorithm; an RSA key has six.
        let fits = algorithm == usual || (self.kty == "RSA" && algorithm.fits(key.family()));
        fits.then_some(ForeignKey { algorithm, key })
    }

    fn point(&self, bytes: usize) -> Option<DecodingKey> {
        let (x, y) = (self.x.as_deref()?, self.y.as_deref()?);
        for coordinate in [x, y] {
            sized(coordinate, &(bytes..=bytes))?;
        }
        DecodingKey::from_ec_components(x, y).ok()
    }
}

fn sized(text: &str, bytes: &std::ops::RangeInclusive<usize>) -> Option<Vec<u8>> {
    let decoded = URL_SAFE_NO_PAD.decode(text).ok()?;
    bytes.contains(&decoded.len()).then_some(decoded)
}

#[cfg(test)]
mod tests;
