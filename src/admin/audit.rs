//! Audit of changes: each change and each refusal becomes an event of the store.
//!
//! An event that can't be kept is logged instead, and the change stands: a full
//! disk must not keep an admin from stopping what fills it. Refusals are bounded
//! in rate, so that a stranger who knocks a thousand times a second costs a few
//! writes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;

use super::access::Caller;
use super::error::Answer;
use super::touched::{Touched, TouchedIndex};
use crate::store::Store;
use crate::store::audit::{AuditEvent, ChangedText};
use crate::time::unix_seconds;

/// Most refusals that are kept in one second; the others are counted.
const REFUSALS_A_SECOND: u32 = 5;
/// Most characters of a target or detail.
const TEXT_CHARS_MAX: usize = 500;

/// Keeps events. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Audit {
    store: Store,
    /// Locked for an addition.
    refusals: Arc<Mutex<Refusals>>,
    touched: Arc<TouchedIndex>,
}

#[derive(Debug, Default)]
struct Refusals {
    second: u64,
    kept: u32,
    /// Refusals left out since the last that was kept.
    left_out: u64,
}

impl Refusals {
    /// Number of refusals left out since the last that was kept, if one more may be kept.
    fn admit(&mut self, now: u64) -> Option<u64> {
        if self.second != now {
            (self.second, self.kept) = (now, 0);
        }
        if self.kept == REFUSALS_A_SECOND {
            self.left_out += 1;
            return None;
        }
        self.kept += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Effect of a change.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// In words, key by key.
    pub(super) words: String,
    /// To the file.
    pub(super) text: Option<ChangedText>,
}

/// Caller who was refused and is not known.
#[derive(Clone, Copy, Debug)]
pub struct Stranger {
    /// Way in which the stranger tried: `session`, `token`, `none`.
    pub via: &'static str,
    /// Address of the stranger.
    pub peer: Option<IpAddr>,
}

impl Audit {
    /// Keeps events in this store.
    pub fn new(store: Store) -> Self {
        Self {
            touched: Arc::new(TouchedIndex::of(&store)),
            store,
            refusals: Arc::default(),
        }
    }

    /// True if anyone ever logged in to the dashboard.
    pub fn has_login(&self) -> bool {
        self.touched.has_login()
    }

    /// Changes of an instance or a route: the first and the last.
    pub fn touched(&self, target: &str) -> Option<Touched> {
        self.touched.of_target(target)
    }

    /// Records that something was done.
    pub async fn done(&self, caller: &Caller, action: &str, target: &str, detail: &str) {
        let event = event(caller, action, target, "done", detail);
        self.keep(event, None).await;
    }

    /// Records that something was tried and did not work.
    pub async fn failed(&self, caller: &Caller, action: &str, target: &str, detail: &str) {
        let event = event(caller, action, target, "failed", detail);
        self.keep(event, None).await;
    }

    /// Keeps the outcome of a change, and the things that it changed.
    pub(super) async fn told<T>(
        &self,
        caller: &Caller,
        action: &str,
        target: &str,
        done: &Answer<T>,
        changed: impl FnOnce(&T) -> Changed,
    ) {
        match done {
            Ok(Json(answer)) => {
                let changed = changed(answer);
                let event = event(caller, action, target, "done", &changed.words);
                self.keep(event, changed.text).await;
            }
            Err(error) if error.code.is_refusal() => {
                self.refused(caller, action, target, &error.message).await;
            }
            Err(error) => self.failed(caller, action, target, &error.message).await,
        }
    }

    /// Records that something was refused to someone known.
    pub async fn refused(&self, caller: &Caller, action: &str, target: &str, detail: &str) {
        self.refuse(event(caller, action, target, "refused", detail))
            .await;
    }

    /// Records that something was refused to someone unknown.
    pub async fn refused_stranger(
        &self,
        stranger: Stranger,
        action: &str,
        target: &str,
        detail: &str,
    ) {
        let event = AuditEvent {
            at: unix_seconds(),
            who: "-".to_owned(),
            workspace: None,
            role: None,
            via: stranger.via.to_owned(),
            peer: stranger.peer.map(|peer| peer.to_string()),
            link_by: None,
            action: cut(action),
            target: cut(target),
            outcome: "refused".to_owned(),
            detail: cut(detail),
        };
        self.refuse(event).await;
    }

    async fn refuse(&self, mut event: AuditEvent) {
        let admitted = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.admit(event.at)
        };
        match admitted {
            None => return,
            Some(0) => {}
            Some(more) => event.detail = format!("{} (and {more} more before)", event.detail),
        }
        self.keep(event, None).await;
    }

    async fn keep(&self, event: AuditEvent, text: Option<ChangedText>) {
        tracing::info!(
            who = %event.who, via = %event.via, action = %event.action, target = %event.target,
            outcome = %event.outcome, "{} {} {}: {}", event.who, event.action, event.target, event.outcome
        );
        self.touched.note(&event);
        let store = self.store.clone();
        let kept =
            tokio::task::spawn_blocking(move || store.put_audit(&event, text.as_ref())).await;
        if let Ok(Err(error)) = kept {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an audit event could not be kept; it stands in this log only"
            );
        }
    }
}

fn event(caller: &Caller, action: &str, target: &str, outcome: &str, detail: &str) -> AuditEvent {
    AuditEvent {
        at: unix_seconds(),
        who: caller.name.to_string(),
        workspace: caller.workspace().cloned(),
        role: Some(caller.role),
        via: caller.via.as_str().to_owned(),
        peer: caller.peer.map(|peer| peer.to_string()),
        link_by: caller.link_by.as_deref().map(str::to_owned),
        action: cut(action),
        target: cut(target),
        outcome: outcome.to_owned(),
        detail: cut(detail),
    }
}

/// A text of a caller, bounded and without control characters.
fn cut(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(TEXT_CHARS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_kept() {
        let mut refusals = Refusals::default();
        let kept = (0..100).filter(|_| refusals.admit(7).is_some()).count();
        assert_eq!(kept, REFUSALS_A_SECOND as usize);
        assert_eq!(refusals.admit(8), Some(95));
        assert_eq!(refusals.admit(8), Some(0));
    }

    #[test]
    fn texts_of_callers_are_bounded_and_plain() {
        assert_eq!(cut("a\n\u{1b}[31mb"), "a  [31mb");
        assert_eq!(cut(&"x".repeat(1 << 20)).len(), TEXT_CHARS_MAX);
    }
}
