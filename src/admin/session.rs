//! Sessions of the dashboard: a token, or a one-time link, exchanged for a cookie.
//!
//! Owns the sessions. A session ends when it is logged out, a day after its
//! last use, a week after it began, when its token ends, and at once when its
//! token is revoked. Sessions outlive a restart; one-time links do not.
//!
//! The cookie is `ID.SECRET`. Only the SHA-256 of the secret is kept, and the
//! token against forged requests is derived from the secret: a reader of the
//! store can't log in with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::auth::{NoRandomBytes, Principal, Revocations, Role, TokenKind, TokenLimits, ulid};
use crate::names::{Project, Workspace};
use crate::store::records::RecordKind;
use crate::store::{Store, StoreError};

/// Name of the cookie. Its prefix binds the cookie to this host, HTTPS and all paths.
pub const COOKIE: &str = "__Host-tidegate";

/// Longest life of a session, in seconds: a week.
const LIFE_MAX: u64 = 7 * 86_400;
/// Longest time that a session may be unused, in seconds: a day.
const IDLE_MAX: u64 = 86_400;
/// Life of a one-time link, in seconds: half an hour.
const LINK_LIFE: u64 = 1_800;
/// Most sessions; the one that was unused for longest ends.
const SESSIONS_MAX: usize = 1_000;
/// Most one-time links that wait to be used; the oldest ends.
const LINKS_MAX: usize = 20;
/// Most characters that are kept of what a browser calls itself.
const AGENT_CHARS_MAX: usize = 200;

/// Identity and rights of someone who logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// `user:ana`.
    pub subject: String,
    /// Operator or admin.
    pub role: Role,
    /// Projects of an operator.
    pub projects: Vec<Project>,
    /// The token that was exchanged; none for a one-time link.
    pub token: Option<GrantToken>,
    /// Maker of the one-time link that was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_by: Option<String>,
}

/// The token that a session hangs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantToken {
    /// Its id.
    pub jti: String,
    /// Its tenant.
    pub workspace: Workspace,
    /// Issue of the token, in seconds since 1970.
    pub issued: u64,
    /// End of the token, in seconds since 1970.
    pub expires: u64,
    /// Name that people gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Grant {
    /// The subject of whoever came by a one-time link.
    pub const LINK: &str = "one-time link";

    /// Whoever opens a one-time link that this admin made.
    pub fn link(by: String) -> Self {
        Self {
            subject: Self::LINK.to_owned(),
            role: Role::Admin,
            projects: Vec::new(),
            token: None,
            link_by: Some(by),
        }
    }

    /// The holder of a token.
    pub fn of(principal: &Principal) -> Self {
        Self {
            subject: principal.subject.to_string(),
            role: principal.role,
            projects: principal.projects.clone(),
            token: Some(GrantToken {
                jti: principal.token_id.to_string(),
                workspace: principal.workspace.clone(),
                issued: principal.issued_at,
                expires: principal.expires_at,
                label: principal.label.as_ref().map(ToString::to_string),
            }),
            link_by: None,
        }
    }

    /// True if the token that the grant hangs on was revoked.
    pub(super) fn is_revoked(&self, revocations: &Revocations) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        revocations.is_revoked(&Principal {
            workspace: token.workspace.clone(),
            subject: Arc::from(self.subject.as_str()),
            token_id: Arc::from(token.jti.as_str()),
            kind: TokenKind::User,
            role: self.role,
            projects: Vec::new(),
            endpoints: Vec::new(),
            limits: TokenLimits::default(),
            may_load: false,
            label: None,
            metadata: None,
            issued_at: token.issued,
            expires_at: token.expires,
            issuer: Arc::from(""),
            hash8: [0; 8],
        })
    }
}

/// One session, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The person, and their rights.
    pub grant: Grant,
    /// SHA-256 of the cookie's secret, base64.
    secret_hash: String,
    /// Start of the session, in seconds since 1970.
    pub created: u64,
    /// Latest end of the session, in seconds since 1970.
    pub expires: u64,
    /// Name that the browser gives itself.
    pub agent: String,
    /// Address that the login came from.
    pub address: String,
    /// Last use, in seconds since 1970; kept in memory only.
    #[serde(skip)]
    pub last_used: u64,
}

impl Session {
    fn is_over(&self, now: u64) -> bool {
        now >= self.expires || now.saturating_sub(self.last_used) >= IDLE_MAX
    }
}

/// Result of a search by a cookie.
#[derive(Clone, Debug)]
pub enum SessionFound {
    /// A session, its id, and what changes must be sent with.
    Session(Arc<str>, Box<Session>, Arc<str>),
    /// No session that goes on.
    Over,
}

/// A session that begins: what the cookie holds.
#[derive(Debug)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// The value of the cookie.
    pub cookie: String,
    /// Seconds until it ends at the latest.
    pub max_age: u64,
}

/// Reason for which no session begins.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomBytes),
    /// The session can't be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sessions of all who are logged in.
#[derive(Debug)]
pub struct Sessions {
    store: Store,
    revocations: Arc<Revocations>,
    /// Locked for a look-up, never over an await or the disk.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Arc<str>, Session>,
    /// Hashes of codes, and when they end; the oldest first.
    links: Vec<(String, u64, String)>,
}

impl Sessions {
    /// The sessions that an earlier process left.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn open(store: Store, revocations: Arc<Revocations>) -> Result<Self, StoreError> {
        let now = revocations.clock().seconds();
        let kept = store.records::<Session>(RecordKind::Session)?;
        let (over, kept): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(_, s)| now >= s.expires);
        let over: Vec<String> = over.into_iter().map(|(id, _)| id).collect();
        if !over.is_empty() {
            store.remove_records(RecordKind::Session, &over)?;
        }
        let sessions = kept.into_iter().map(|(id, mut session)| {
            // Nothing is known of the time between.
            session.last_used = now;
            (Arc::from(id), session)
        });
        let state = State {
            sessions: sessions.collect(),
            links: Vec::new(),
        };
        Ok(Self {
            store,
            revocations,
            state: Mutex::new(state),
        })
    }

    /// Makes the code of a one-time link of this admin, and says until when it works.
    ///
    /// # Errors
    ///
    /// [`NoRandomBytes`] when the system gives none.
    pub fn link(&self, by: &str) -> Result<(String, u64), NoRandomBytes> {
        let code = random()?;
        let expires = self.now() + LINK_LIFE;
        let mut state = self.lock();
        if state.links.len() == LINKS_MAX {
            state.links.remove(0);
        }
        state.links.push((hash(&code), expires, by.to_owned()));
        Ok((code, expires))
    }

    /// Takes a code: who made the link, once, while it works.
    pub fn take_link(&self, code: &str) -> Option<String> {
        let (hash, now) = (hash(code), self.now());
        let mut state = self.lock();
        state.links.retain(|(_, expires, _)| *expires > now);
        let mut links = state.links.iter();
        let place = links.position(|(kept, ..)| same(kept, &hash))?;
        Some(state.links.remove(place).2)
    }

    /// Begins a session. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`SessionError`], and no session was begun.
    pub fn begin(&self, grant: Grant, agent: &str, address: &str) -> Result<Begun, SessionError> {
        let (id, secret) = (ulid(self.revocations.clock().now())?, random()?);
        let now = self.now();
        let token_ends = grant.token.as_ref().map_or(u64::MAX, |token| token.expires);
        let printable = |c: &char| !c.is_control();
        let session = Session {
            grant,
            secret_hash: hash(&secret),
            created: now,
            expires: (now + LIFE_MAX).min(token_ends),
            agent: agent
                .chars()
                .filter(printable)
                .take(AGENT_CHARS_MAX)
                .collect(),
            address: address.to_owned(),
            last_used: now,
        };
        self.store.put_record(RecordKind::Session, &id, &session)?;
        let begun = Begun {
            cookie: format!("{id}.{secret}"),
            max_age: session.expires.saturating_sub(now),
            id: id.clone(),
        };
        let mut state = self.lock();
        state.sessions.insert(Arc::from(id), session);
        if state.sessions.len() > SESSIONS_MAX {
            let oldest = state.sessions.iter().min_by_key(|(_, s)| s.last_used);
            if let Some(id) = oldest.map(|(id, _)| Arc::clone(id)) {
                state.sessions.remove(&id);
            }
        }
        Ok(begun)
    }

    /// Finds the session of a cookie, and counts as its use.
    pub fn find(&self, cookie: &str) -> SessionFound {
        let now = self.now();
        let Some((id, secret)) = cookie.split_once('.') else {
            return SessionFound::Over;
        };
        let mut state = self.lock();
        let Some((id, session)) = state
            .sessions
            .get_key_value(id)
            .map(|(id, _)| Arc::clone(id))
            .and_then(|id| state.sessions.get_mut(&id).map(|session| (id, session)))
        else {
            return SessionFound::Over;
        };
        if !same(&session.secret_hash, &hash(secret)) {
            return SessionFound::Over;
        }
        if session.is_over(now) || session.grant.is_revoked(&self.revocations) {
            state.sessions.remove(&id);
            return SessionFound::Over;
        }
        session.last_used = now;
        SessionFound::Session(id, Box::new(session.clone()), csrf(secret))
    }

    /// Ends a session. Blocks on the disk. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when a restart would bring it back; here it has ended.
    pub fn end(&self, id: &str) -> Result<bool, StoreError> {
        let there = self.lock().sessions.remove(id).is_some();
        self.store
            .remove_records(RecordKind::Session, &[id.to_owned()])?;
        Ok(there)
    }

    /// Every session that goes on, by id.
    pub fn list(&self) -> Vec<(Arc<str>, Session)> {
        let now = self.now();
        let state = self.lock();
        let all = state.sessions.iter();
        let mut list: Vec<_> = all
            .filter(|(_, s)| !s.is_over(now) && !s.grant.is_revoked(&self.revocations))
            .map(|(id, session)| (Arc::clone(id), session.clone()))
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    fn now(&self) -> u64 {
        self.revocations.clock().seconds()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 random bits, as a text for URLs.
pub(super) fn random() -> Result<String, NoRandomBytes> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

pub(super) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn csrf(secret: &str) -> Arc<str> {
    Arc::from(hash(&format!("tidegate csrf {secret}")))
}

/// True if two texts are the same; the time that it takes does not tell how far.
pub(super) fn same(a: &str, b: &str) -> bool {
    verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests;
