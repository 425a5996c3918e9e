//! Tokens that are taken back before they end.
//!
//! Owns the set that every verification looks at. Readers take a snapshot without
//! a lock; a change swaps the snapshot and then counts [`Revocations::generation`]
//! up, so that a remembered verification of an older generation is looked at again.
//! Owns too the time that tokens are held against, which a cutoff is a moment of.
//! Keeping both over a restart is `store`'s.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::denied::Denied;
use super::principal::Principal;
use crate::names::Workspace;
use crate::time::NewestTime;

/// Set of what is revoked at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedSet {
    /// Tokens by `jti`.
    pub tokens: HashSet<Arc<str>>,
    /// All older tokens of a workspace, or of one of its subjects.
    pub workspaces: HashMap<Workspace, Cutoffs>,
    /// Every token that was issued before, as which of them were revoked is not known
    /// any more; seconds since 1970, 0 for none.
    pub lost_before: u64,
}

/// Moments before which a workspace's tokens are no longer accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cutoffs {
    /// For every token of the workspace; seconds since 1970, 0 for none.
    pub all: u64,
    /// For the tokens of one subject; seconds since 1970.
    pub subjects: HashMap<Arc<str>, u64>,
}

impl RevokedSet {
    /// True if a principal's token is revoked, or must be taken for revoked.
    pub fn contains(&self, principal: &Principal) -> bool {
        self.refusal(principal).is_some()
    }

    /// Reason why a principal's token is refused, where it is.
    pub fn refusal(&self, principal: &Principal) -> Option<Denied> {
        if self.tokens.contains(&principal.token_id) {
            return Some(Denied::Revoked);
        }
        let cutoffs = self.workspaces.get(&principal.workspace);
        let is_cut_off = cutoffs.is_some_and(|cutoffs| {
            let subject = cutoffs.subjects.get(&principal.subject).copied();
            principal.issued_at < cutoffs.all.max(subject.unwrap_or(0))
        });
        if is_cut_off {
            return Some(Denied::Revoked);
        }
        (principal.issued_at < self.lost_before).then_some(Denied::Forgotten)
    }
}

/// Source of what another process revokes.
pub trait Elsewhere: std::fmt::Debug + Send + Sync {
    /// Takes over what was revoked since the last call. Blocking. Returns whether that
    /// is all: if not, nobody may be let in.
    fn catch_up(&self, revocations: &Revocations) -> bool;
}

/// The current [`RevokedSet`], shared between all that verify and those that revoke.
#[derive(Debug, Default)]
pub struct Revocations {
    current: ArcSwap<RevokedSet>,
    /// Counted up after each swap of `current`, never before: a reader of the generation
    /// and then of the set has a set at least as new.
    generation: AtomicU64,
    /// Set once, when another process has what is revoked.
    elsewhere: OnceLock<Arc<dyn Elsewhere>>,
    clock: Arc<NewestTime>,
}

impl Revocations {
    /// Starts with what was revoked before, by the clock of the machine.
    pub fn new(set: RevokedSet) -> Self {
        Self::by(set, Arc::default())
    }

    /// Starts with what was revoked before, by this clock.
    pub fn by(set: RevokedSet, clock: Arc<NewestTime>) -> Self {
        Self {
            current: ArcSwap::from_pointee(set),
            generation: AtomicU64::new(0),
            elsewhere: OnceLock::new(),
            clock,
        }
    }

    /// The time that tokens are held against.
    pub fn clock(&self) -> &Arc<NewestTime> {
        &self.clock
    }

    /// Counts the changes so far.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Another process revokes from now on, and tells it there.
    pub fn are_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        // A gateway gives way once; the first one holds.
        drop(self.elsewhere.set(elsewhere));
    }

    /// Takes over what another process has revoked, where one does. Returns whether all
    /// that is revoked is known.
    pub async fn are_known(self: &Arc<Self>) -> bool {
        let Some(elsewhere) = self.elsewhere.get().cloned() else {
            return true;
        };
        let own = Arc::clone(self);
        let caught_up = tokio::task::spawn_blocking(move || elsewhere.catch_up(&own));
        caught_up.await.unwrap_or(false)
    }

    /// True if another process revokes.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.get().is_some()
    }

    /// Set of what is revoked now.
    pub fn snapshot(&self) -> Arc<RevokedSet> {
        self.current.load_full()
    }

    /// True if a principal's token is revoked now, or must be taken for revoked.
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.current.load().contains(principal)
    }

    /// Reason why a principal's token is refused now, where it is.
    pub(super) fn refusal(&self, principal: &Principal) -> Option<Denied> {
        self.current.load().refusal(principal)
    }

    /// Puts another set in place of the current one.
    pub fn replace(&self, set: RevokedSet) {
        self.current.store(Arc::new(set));
        self.changed();
    }

    /// Revokes one token; the next verification that begins refuses it.
    pub fn add(&self, token_id: &str) {
        let token_id: Arc<str> = Arc::from(token_id);
        self.change(|set| {
            set.tokens.insert(Arc::clone(&token_id));
        });
    }

    /// Revokes every token of a workspace that was issued before `unix` seconds.
    pub fn cut_off_workspace(&self, workspace: &Workspace, unix: u64) {
        self.change(|set| {
            let cutoffs = set.workspaces.entry(workspace.clone()).or_default();
            cutoffs.all = cutoffs.all.max(unix);
        });
    }

    /// Revokes every token of a subject that was issued before `unix` seconds.
    pub fn cut_off_subject(&self, workspace: &Workspace, subject: &str, unix: u64) {
        let subject: Arc<str> = Arc::from(subject);
        self.change(|set| {
            let cutoffs = set.workspaces.entry(workspace.clone()).or_default();
            let until = cutoffs.subjects.entry(Arc::clone(&subject)).or_default();
            *until = (*until).max(unix);
        });
    }

    fn change(&self, change: impl Fn(&mut RevokedSet)) {
        self.current.rcu(|set| {
            let mut next = RevokedSet::clone(set);
            change(&mut next);
            next
        });
        self.changed();
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}
