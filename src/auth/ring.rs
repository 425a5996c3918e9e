//! The keys that tokens are verified with, and what each is trusted for.
//!
//! Each key is pinned to one algorithm; a token chooses among keys by its `kid`
//! and decides nothing else (RFC 8725, 3.1 and 3.10). Keys of other issuers stand
//! apart, under the issuer's name: two issuers may use one `kid`, and neither can
//! sign for the other, or for us.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::json;

use super::algorithm::Algorithm;
use super::claims::Role;
use super::foreign::Terms;
use super::jwks::KeySet;
use super::keys::{PublicKey, SigningKey};
use super::refetch::Refetch;

/// One key that tokens of our own shape are verified with, and all that it is trusted for.
#[derive(Clone)]
pub struct TrustedKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    pub(super) issuer: Arc<str>,
    pub(super) audience: Arc<str>,
    /// A token that claims more than this is not valid.
    pub(super) role_max: Role,
}

impl TrustedKey {
    /// Trusts a key for one issuer and audience, with roles up to `role_max`; `None`
    /// when it is not a key of that algorithm.
    pub fn new(
        algorithm: Algorithm,
        key: DecodingKey,
        issuer: &str,
        audience: &str,
        role_max: Role,
    ) -> Option<Self> {
        algorithm.fits(key.family()).then(|| Self {
            algorithm,
            key,
            issuer: Arc::from(issuer),
            audience: Arc::from(audience),
            role_max,
        })
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedKey")
            .field("algorithm", &self.algorithm)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Another issuer: its keys, and what its tokens are worth here.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    pub(super) terms: Arc<Terms>,
    pub(super) keys: Arc<KeySet>,
    /// Fetches the keys again; `None` where they stand in a file.
    pub(super) refetch: Option<Arc<Refetch>>,
}

/// Two keys claim one `kid`; which one a token means would be chance.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("two trusted keys have the key id {0:?}: remove one of them")]
pub struct DuplicateKid(pub String);

/// The keys that tokens are verified with. Immutable once in use.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Keys for tokens of our own shape, by `kid`.
    keys: HashMap<Box<str>, TrustedKey>,
    /// Our own public keys, as `/.well-known/jwks.json` tells them.
    published: Vec<PublicKey>,
    /// Other issuers, by name.
    foreign: HashMap<Arc<str>, Foreign>,
}

impl Keyring {
    /// Trusts the gateway's own key for the tokens that it issues.
    pub fn own(key: &SigningKey, issuer: &str, audience: &str) -> Self {
        let mut ring = Self::default();
        ring.add_own(PublicKey::from(key), issuer, audience);
        ring
    }

    /// Trusts one more key of our own, as one that signed before. A key that is
    /// trusted already changes nothing.
    pub fn add_own(&mut self, key: PublicKey, issuer: &str, audience: &str) {
        if self.published.contains(&key) {
            return;
        }
        let trusted = TrustedKey {
            algorithm: Algorithm::EdDsa,
            key: DecodingKey::from_ed_der(key.as_bytes()),
            issuer: Arc::from(issuer),
            audience: Arc::from(audience),
            role_max: Role::Admin,
        };
        // The id is derived from the key: where it is taken, it is by this key.
        self.keys.insert(Box::from(key.kid()), trusted);
        self.published.push(key);
    }

    /// Trusts one more key for tokens of our own shape.
    ///
    /// # Errors
    ///
    /// [`DuplicateKid`] when another key has that id.
    pub fn insert(&mut self, kid: &str, key: TrustedKey) -> Result<(), DuplicateKid> {
        if self.keys.contains_key(kid) {
            return Err(DuplicateKid(kid.chars().take(80).collect()));
        }
        self.keys.insert(Box::from(kid), key);
        Ok(())
    }

    /// Our own public keys as a JWKS (RFC 7517), the present one first.
    pub fn jwks_json(&self) -> String {
        let keys: Vec<_> = self.published.iter().map(published).collect();
        json!({ "keys": keys }).to_string()
    }

    pub(super) fn get(&self, kid: &str) -> Option<&TrustedKey> {
        self.keys.get(kid)
    }

    pub(super) fn foreign(&self, issuer: &str) -> Option<&Foreign> {
        self.foreign.get(issuer)
    }

    pub(super) fn issuers(&self) -> impl Iterator<Item = &Foreign> {
        self.foreign.values()
    }

    pub(super) fn set_foreign(&mut self, foreign: Foreign) {
        let issuer = Arc::clone(&foreign.terms.issuer);
        self.foreign.insert(issuer, foreign);
    }

    /// Puts other keys in place of an issuer's.
    pub(super) fn set_foreign_keys(&mut self, issuer: &str, keys: Arc<KeySet>) {
        if let Some(foreign) = self.foreign.get_mut(issuer) {
            foreign.keys = keys;
        }
    }

    /// Takes over what was fetched for issuers that both rings know by address.
    pub(super) fn keep_fetched(&mut self, old: &Self) {
        for foreign in self.foreign.values_mut() {
            let known = old.foreign.get(&foreign.terms.issuer);
            if let Some(known) = known.filter(|known| known.refetch.is_some())
                && foreign.refetch.is_some()
            {
                foreign.keys = Arc::clone(&known.keys);
                foreign.refetch.clone_from(&known.refetch);
            }
        }
    }
}

fn published(key: &PublicKey) -> serde_json::Value {
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": Algorithm::EdDsa.name(),
        "kid": key.kid(),
        "x": URL_SAFE_NO_PAD.encode(key.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::algorithm::signed;

    #[test]
    fn one_key_id_names_one_key() {
        let key = SigningKey::ephemeral().unwrap();
        let mut ring = Keyring::own(&key, "i", "a");
        let decoding = DecodingKey::from_ed_der(key.public_key());
        let new = |algorithm| TrustedKey::new(algorithm, decoding.clone(), "j", "a", Role::User);
        let trusted = new(Algorithm::EdDsa).unwrap();
        assert!(ring.insert(key.kid(), trusted).is_err());
        assert!(new(Algorithm::Rs256).is_none());
        assert!(new(Algorithm::Hs256).is_none());
    }

    #[test]
    fn our_published_keys_read_back_as_a_key_set_that_verifies() {
        let (old, new) = (
            SigningKey::ephemeral().unwrap(),
            SigningKey::ephemeral().unwrap(),
        );
        let mut ring = Keyring::own(&new, "i", "a");
        for _ in 0..2 {
            ring.add_own(PublicKey::from(&old), "i", "a");
        }
        let set = KeySet::parse(ring.jwks_json().as_bytes()).unwrap();
        assert_eq!(set.len(), 2);
        for key in [&old, &new] {
            let found = set.choose(Some(key.kid())).unwrap();
            let signature = URL_SAFE_NO_PAD.encode(key.sign(b"text").unwrap().as_ref());
            assert_eq!(found.algorithm, Algorithm::EdDsa);
            assert!(signed(found.algorithm, &found.key, "text", &signature));
            assert!(!signed(found.algorithm, &found.key, "tex", &signature));
        }
    }
}
