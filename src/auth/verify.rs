//! From a presented token to a [`Principal`].
//!
//! The order is the defence: size, alphabet and header are looked at before any
//! cryptography, the signature before any claim. The key is chosen by `kid` and
//! brings its own algorithm; the header's `alg` must equal it and chooses nothing.
//! `jsonwebtoken` checks the signature and only that: it would pass unknown
//! `crit` and huge tokens, and reads a clock of its own, so header and claims are
//! read here.
//!
//! A verified token is remembered (`cache`); a remembered one is held
//! against its end and against revocations made since, so that a revocation is
//! effective for the next request. Refusals are not remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::cache::{Cache, CacheKey, Entry};
use super::claims::{Claims, Header, TYPE, VERSION};
use super::keys::{Keyring, TrustedKey};
use super::principal::Principal;
use super::revoked::Revocations;
use super::{NoRandomBytes, TOKEN_BYTES_MAX, TOKEN_PREFIX};

/// How far clocks may differ, in seconds.
pub const LEEWAY: u64 = 10;

/// How many verified tokens are remembered: about 4 MiB, and the principals.
const REMEMBERED_MAX: usize = 65_536;

/// Longest `jti` and `sub` that are accepted, in bytes.
const ID_BYTES_MAX: usize = 800;

/// Why a caller is not let in. The texts are constant: nothing of the token is echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// No token was sent.
    #[error("no token was sent: send one as 'Authorization: Bearer TOKEN'")]
    Missing,
    /// It is not a token that this gateway trusts.
    #[error("the token is not valid for this gateway")]
    Invalid,
    /// It was valid, and has ended.
    #[error("the token has expired: ask for a new one")]
    Expired,
    /// It was taken back.
    #[error("the token was revoked: ask for a new one")]
    Revoked,
}

impl Denied {
    /// The reason as a label of logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Verifies tokens. One per process, shared by all connections.
#[derive(Debug)]
pub struct Verifier {
    keys: ArcSwap<Keyring>,
    /// Counted up after each swap of `keys`, never before.
    keys_generation: AtomicU64,
    revocations: Arc<Revocations>,
    cache: Cache,
}

impl Verifier {
    /// Verifies with these keys and revocations.
    ///
    /// # Errors
    ///
    /// [`NoRandomBytes`] when the system gives no random bytes.
    pub fn new(keys: Keyring, revocations: Arc<Revocations>) -> Result<Self, NoRandomBytes> {
        Self::remembering(keys, revocations, REMEMBERED_MAX)
    }

    fn remembering(
        keys: Keyring,
        revocations: Arc<Revocations>,
        capacity: usize,
    ) -> Result<Self, NoRandomBytes> {
        Ok(Self {
            keys: ArcSwap::from_pointee(keys),
            keys_generation: AtomicU64::new(0),
            revocations,
            cache: Cache::new(capacity)?,
        })
    }

    /// Verifies with other keys from now on; what was verified before counts no more.
    pub fn replace_keys(&self, keys: Keyring) {
        self.keys.store(Arc::new(keys));
        self.keys_generation.fetch_add(1, Ordering::Release);
    }

    /// The revocations that tokens are held against.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Verifies a token as it was sent, with or without its prefix.
    ///
    /// # Errors
    ///
    /// [`Denied`] with the reason. Expired and revoked are said only of tokens that
    /// were signed by a trusted key.
    pub fn verify(&self, presented: &str, now_unix: u64) -> Result<Arc<Principal>, Denied> {
        if presented.is_empty() {
            return Err(Denied::Missing);
        }
        if presented.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Invalid);
        }
        let token = presented.strip_prefix(TOKEN_PREFIX).unwrap_or(presented);
        let key = self.cache.key(token.as_bytes());
        // Both generations are read before what they count, so that an entry is
        // never marked newer than the keys and revocations it was held against.
        let keys = self.keys_generation.load(Ordering::Acquire);
        match self.cache.get(key) {
            Some(entry) if entry.keys == keys => self.remembered(key, entry, now_unix),
            _ => self.afresh(key, token, keys, now_unix),
        }
    }

    fn remembered(
        &self,
        key: CacheKey,
        mut entry: Entry,
        now: u64,
    ) -> Result<Arc<Principal>, Denied> {
        if now >= entry.valid_until {
            self.cache.remove(key);
            return Err(Denied::Expired);
        }
        let revocations = self.revocations.generation();
        if entry.revocations != revocations {
            if self.revocations.is_revoked(&entry.principal) {
                return Err(Denied::Revoked);
            }
            entry.revocations = revocations;
            self.cache.put(key, entry.clone(), now);
        }
        Ok(entry.principal)
    }

    fn afresh(
        &self,
        key: CacheKey,
        token: &str,
        keys: u64,
        now: u64,
    ) -> Result<Arc<Principal>, Denied> {
        let revocations = self.revocations.generation();
        let claims = trusted_claims(&self.keys.load(), token).ok_or(Denied::Invalid)?;
        let not_yet = |moment: Option<u64>| moment.is_some_and(|m| m > now.saturating_add(LEEWAY));
        if not_yet(claims.nbf) || not_yet(claims.iat) {
            return Err(Denied::Invalid);
        }
        let valid_until = claims.exp.saturating_add(LEEWAY);
        if now >= valid_until {
            return Err(Denied::Expired);
        }
        let principal = Arc::new(principal(claims, token));
        if self.revocations.is_revoked(&principal) {
            return Err(Denied::Revoked);
        }
        let entry = Entry {
            principal: Arc::clone(&principal),
            valid_until,
            revocations,
            keys,
        };
        self.cache.put(key, entry, now);
        Ok(principal)
    }
}

/// Recognises a token in logs: 8 hexadecimal digits of its SHA-256, prefix aside.
pub fn hash8(token: &str) -> [u8; 8] {
    let token = token.strip_prefix(TOKEN_PREFIX).unwrap_or(token);
    let hash = digest(&SHA256, token.as_bytes());
    let mut digits = [b'0'; 8];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash.as_ref()) {
        for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if half < 10 {
                b'0' + half
            } else {
                b'a' + half - 10
            };
        }
    }
    digits
}

/// The claims of a token whose signature, issuer, audience and shape are right;
/// times and revocation are not looked at.
fn trusted_claims(keys: &Keyring, token: &str) -> Option<Claims> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    let header = URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: Header<'_> = object(&header)?;
    let key = keys.get(&header.kid)?;
    if header.typ != TYPE || header.alg != key.algorithm.name() {
        return None;
    }
    let algorithm = key.algorithm.of_jwt();
    let signed =
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm).ok()?;
    if !signed {
        return None;
    }
    // Another dot in the payload would fail here, it is no letter of base64.
    let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = object(&claims)?;
    acceptable(&claims, key).then_some(claims)
}

/// Reads a JSON object, and not the array of its values that serde would take too.
fn object<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    json.starts_with(b"{")
        .then(|| serde_json::from_slice(json).ok())?
}

fn acceptable(claims: &Claims, key: &TrustedKey) -> bool {
    let is_id = |text: &str| {
        (1..=ID_BYTES_MAX).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    claims.iss == *key.issuer
        && claims.aud == *key.audience
        && claims.ver == VERSION
        && is_id(&claims.jti)
        && is_id(&claims.sub)
        && claims.agree()
}

fn principal(claims: Claims, token: &str) -> Principal {
    Principal {
        workspace: claims.ws,
        subject: Arc::from(claims.sub),
        token_id: Arc::from(claims.jti),
        kind: claims.knd,
        role: claims.rol,
        projects: claims.grp,
        endpoints: claims.ep,
        limits: claims.lim,
        label: claims.lbl.map(Arc::from),
        metadata: claims.md.map(Arc::new),
        issued_at: claims.iat.unwrap_or(0),
        expires_at: claims.exp,
        issuer: Arc::from(claims.iss),
        hash8: hash8(token),
    }
}

#[cfg(test)]
mod tests;
