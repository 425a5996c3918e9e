//! From a presented token to a [`Principal`].
//!
//! The order is the defence: size, alphabet and header are looked at before any
//! cryptography, the signature before any claim. The key is chosen by `kid` and
//! brings its own algorithm; the header's `alg` must equal it and chooses nothing.
//! Of a token with another `typ` than ours, `iss` is looked at to find whose keys to
//! try, and believed only when one of those has signed it.
//! `jsonwebtoken` checks the signature and only that: it would pass unknown
//! `crit` and huge tokens, and reads a clock of its own, so header and claims are
//! read here.
//!
//! A verified token is remembered (`cache`, and `recent` before it); a remembered one is held
//! against its end and against revocations made since, so that a revocation is
//! effective for the next request. Refusals are not remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::algorithm::signed;
use super::cache::{Cache, CacheKey, Entry};
use super::claims::{Claims, Header, Role, TYPE, VERSION};
use super::denied::Denied;
use super::foreign::{self, ForeignHeader};
use super::holders::Holders;
use super::jwks::KeySet;
use super::principal::Principal;
use super::recent::Recent;
use super::refetch::Refetch;
use super::revoked::Revocations;
use super::ring::{Keyring, TrustedKey};
use super::token::{TOKEN_BYTES_MAX, TOKEN_PREFIX, hash8, is_id};
use super::ulid::NoRandomBytes;

/// Seconds by which clocks may differ.
pub const LEEWAY: u64 = 10;

/// Number of verified tokens that are remembered: some 50 bytes each, and the principal.
/// So many that a hundred thousand tokens in use at once still find their places.
const REMEMBERED_MAX: usize = 262_144;

/// Verifies tokens. One per process, shared by all connections.
#[derive(Debug)]
pub struct Verifier {
    keys: ArcSwap<Keyring>,
    /// Counted up after each swap of `keys`, never before.
    keys_generation: AtomicU64,
    revocations: Arc<Revocations>,
    cache: Cache,
    recent: Recent,
    holders: Arc<Holders>,
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
            recent: Recent::new(),
            holders: Arc::default(),
        })
    }

    /// Verifies with other keys from now on; what was verified before counts no more.
    pub fn replace_keys(&self, keys: Keyring) {
        self.keys.store(Arc::new(keys));
        self.keys_generation.fetch_add(1, Ordering::Release);
    }

    /// Puts other keys in place of the present ones, made from these; `None` leaves
    /// all as it is, and what was verified before in force.
    pub(super) fn change_keys(&self, change: impl Fn(&Keyring) -> Option<Keyring>) {
        let mut changed = false;
        // Reload and the fetches of several issuers may meet here.
        self.keys.rcu(|keys| {
            let new = change(keys);
            changed = new.is_some();
            new.map_or_else(|| Arc::clone(keys), Arc::new)
        });
        if changed {
            self.keys_generation.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn set_issuer_keys(&self, issuer: &str, keys: &Arc<KeySet>) {
        self.change_keys(|ring| {
            let old = ring.foreign(issuer)?;
            if old.keys.same(keys) {
                return None;
            }
            let mut ring = ring.clone();
            ring.set_foreign_keys(issuer, Arc::clone(keys));
            Some(ring)
        });
    }

    /// The keys that tokens are verified with now.
    pub fn keys(&self) -> Arc<Keyring> {
        self.keys.load_full()
    }

    /// The revocations that tokens are held against.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The time that tokens are held against now, in seconds since 1970.
    pub fn now(&self) -> u64 {
        self.revocations.clock().seconds()
    }

    /// Holders who have shown a token since they were last taken from here to the store.
    pub fn holders(&self) -> &Arc<Holders> {
        &self.holders
    }

    /// Verifies a token as it was sent, with or without its prefix.
    ///
    /// # Errors
    ///
    /// [`Denied`] with the reason. Expired, revoked and not yet valid are said only of
    /// tokens that were signed by a trusted key.
    #[inline]
    pub fn verify(&self, presented: &str, now_unix: u64) -> Result<Arc<Principal>, Denied> {
        self.look_at(presented, now_unix).map_err(Refused::denied)
    }

    /// As [`Self::verify`]; where another issuer's key set lacks the key, waits for it
    /// to be fetched again, at most [`super::refetch::WAIT_MAX`]. Any other token is
    /// answered without a pause.
    ///
    /// # Errors
    ///
    /// As of [`Self::verify`].
    pub async fn verify_or_refetch(
        &self,
        presented: &str,
        now_unix: u64,
    ) -> Result<Arc<Principal>, Denied> {
        match self.look_at(presented, now_unix) {
            Ok(principal) => Ok(principal),
            Err(Refused::Denied(denied)) => Err(denied),
            // Boxed: this is rare, and every request's future would carry it.
            Err(Refused::UnknownKey { refetch, kid }) => {
                let wait = async {
                    if !refetch.awaited(kid.as_deref()).await {
                        return Err(Denied::Invalid);
                    }
                    self.look_at(presented, now_unix).map_err(|refused| {
                        if matches!(refused, Refused::UnknownKey { .. }) {
                            refetch.still_unknown(kid.as_deref());
                        }
                        refused.denied()
                    })
                };
                Box::pin(wait).await
            }
        }
    }

    fn look_at(&self, presented: &str, now_unix: u64) -> Result<Arc<Principal>, Refused> {
        if presented.is_empty() {
            return Err(Denied::Missing.into());
        }
        if presented.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Invalid.into());
        }
        let token = presented.strip_prefix(TOKEN_PREFIX).unwrap_or(presented);
        // Both generations are read before what they count, so that an entry is
        // never marked newer than the keys and revocations it was held against.
        let keys = self.keys_generation.load(Ordering::Acquire);
        let revocations = self.revocations.generation();
        if let Some(principal) = self.recent.find(token, keys, revocations, now_unix) {
            return Ok(principal);
        }
        let key = self.cache.key(token.as_bytes());
        let entry = match self.cache.get(key) {
            Some(entry) if entry.keys == keys => self.remembered(key, entry, now_unix)?,
            _ => self.afresh(key, token, keys, now_unix)?,
        };
        let principal = Arc::clone(&entry.principal);
        self.recent.put(token, entry);
        Ok(principal)
    }

    fn remembered(&self, key: CacheKey, mut entry: Entry, now: u64) -> Result<Entry, Denied> {
        if now >= entry.valid_until {
            self.cache.remove(key);
            return Err(Denied::Expired);
        }
        if now < entry.valid_from {
            return Err(Denied::Early);
        }
        let revocations = self.revocations.generation();
        if entry.revocations != revocations {
            if let Some(denied) = self.revocations.refusal(&entry.principal) {
                return Err(denied);
            }
            entry.revocations = revocations;
            self.cache.put(key, entry.clone(), now);
        }
        Ok(entry)
    }

    fn afresh(&self, key: CacheKey, token: &str, keys: u64, now: u64) -> Result<Entry, Refused> {
        let revocations = self.revocations.generation();
        let (principal, not_before) = trusted(&self.keys.load(), token)?;
        let valid_from = not_before.unwrap_or_default().max(principal.issued_at);
        let valid_from = valid_from.saturating_sub(LEEWAY);
        if now < valid_from {
            return Err(Denied::Early.into());
        }
        let valid_until = principal.expires_at.saturating_add(LEEWAY);
        if now >= valid_until {
            return Err(Denied::Expired.into());
        }
        let principal = Arc::new(principal);
        if let Some(denied) = self.revocations.refusal(&principal) {
            return Err(denied.into());
        }
        self.holders.note(&principal);
        let entry = Entry {
            principal,
            valid_from,
            valid_until,
            revocations,
            keys,
        };
        self.cache.put(key, entry.clone(), now);
        Ok(entry)
    }
}

/// Reason why a token is not let in yet.
#[derive(Debug)]
enum Refused {
    Denied(Denied),
    /// Its issuer may have made a key that we have not fetched.
    UnknownKey {
        refetch: Arc<Refetch>,
        kid: Option<String>,
    },
}

impl Refused {
    fn denied(self) -> Denied {
        match self {
            Self::Denied(denied) => denied,
            Self::UnknownKey { .. } => Denied::Invalid,
        }
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// Principal of a token whose signature, issuer, audience and shape are right, and
/// from when on it is valid, where it says so; times and revocation are not looked at.
fn trusted(keys: &Keyring, token: &str) -> Result<(Principal, Option<u64>), Refused> {
    let parts = Parts::of(token).ok_or(Denied::Invalid)?;
    match object::<Header<'_>>(&parts.header) {
        Some(header) if header.typ == TYPE => {
            let claims = own(keys, &header, &parts).ok_or(Denied::Invalid)?;
            let not_before = claims.nbf;
            Ok((principal(claims, token), not_before))
        }
        _ => foreign(keys, &parts, token),
    }
}

/// A token taken apart at its two last dots.
struct Parts<'a> {
    message: &'a str,
    header: Vec<u8>,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        Some(Self {
            message,
            header,
            payload,
            signature,
        })
    }

    /// Another dot in the payload fails here, it is no letter of base64.
    fn claims(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.payload).ok()
    }
}

/// The claims of a token of our own shape.
fn own(keys: &Keyring, header: &Header<'_>, parts: &Parts<'_>) -> Option<Claims> {
    let key = keys.get(&header.kid)?;
    if header.alg != key.algorithm.name()
        || !signed(key.algorithm, &key.key, parts.message, parts.signature)
    {
        return None;
    }
    let mut claims: Claims = object(&parts.claims()?)?;
    // Only admins give this right, so only a key that may make admins does.
    claims.load &= key.role_max == Role::Admin;
    acceptable(&claims, key).then_some(claims)
}

/// Principal of a token of another issuer.
fn foreign(
    keys: &Keyring,
    parts: &Parts<'_>,
    token: &str,
) -> Result<(Principal, Option<u64>), Refused> {
    let header = ForeignHeader::read(&parts.header).ok_or(Denied::Invalid)?;
    let claims = parts.claims().ok_or(Denied::Invalid)?;
    let claims = foreign::claims(&claims).ok_or(Denied::Invalid)?;
    let named = claims.get("iss").and_then(serde_json::Value::as_str);
    let issuer = named
        .and_then(|name| keys.foreign(name))
        .ok_or(Denied::Invalid)?;
    let Some(key) = issuer.keys.choose(header.kid.as_deref()) else {
        return Err(match &issuer.refetch {
            Some(refetch) => Refused::UnknownKey {
                refetch: Arc::clone(refetch),
                kid: header.kid,
            },
            None => Denied::Invalid.into(),
        });
    };
    if header.alg != key.algorithm.name()
        || !signed(key.algorithm, &key.key, parts.message, parts.signature)
    {
        return Err(Denied::Invalid.into());
    }
    foreign::principal(&issuer.terms, &claims, token).ok_or(Denied::Invalid.into())
}

/// Reads a JSON object, and not the array of its values that serde would take too.
fn object<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    json.starts_with(b"{")
        .then(|| serde_json::from_slice(json).ok())?
}

fn acceptable(claims: &Claims, key: &TrustedKey) -> bool {
    claims.iss == *key.issuer
        && claims.aud == *key.audience
        && claims.ver == VERSION
        && claims.rol <= key.role_max
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
        may_load: claims.load,
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
