//! Last changes through the API and the people who made them: an index of the audit, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::Store;
use crate::store::audit::{AuditEvent, KEPT_MAX, PAGE_MAX};

/// Seconds that a file's time may be behind or ahead of the event of its change.
const SAME_CHANGE: u64 = 20;

/// Changes of one instance or route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Creation, in seconds since 1970.
    pub created: Option<u64>,
    /// Last change, in seconds since 1970.
    pub updated: u64,
    /// Author of the last change.
    pub by: Arc<str>,
}

impl Touched {
    /// Author of the last change of the file, if the API made it; else `file`.
    pub fn last_by(&self, file_changed: Option<u64>) -> Option<String> {
        match file_changed {
            Some(changed) if changed > self.updated + SAME_CHANGE => Some("file".to_owned()),
            _ => Some(self.by.to_string()),
        }
    }
}

/// The index.
#[derive(Debug, Default)]
pub struct TouchedIndex {
    /// Changes by target; locked for a look-up.
    all: Mutex<HashMap<String, Touched>>,
    /// True once anyone logged in.
    logged_in: AtomicBool,
}

/// The actions that write a file; the first three make it.
const WRITES: [&str; 4] = ["launch", "import", "clone", "change"];

/// True if an event is a change of a file that was made.
pub(super) fn is_edit(event: &AuditEvent) -> bool {
    let writes = event.action == "delete" || WRITES.contains(&event.action.as_str());
    writes && event.outcome == "done"
}

impl TouchedIndex {
    /// Index of the store's events; an empty one where they can't be read.
    pub fn of(store: &Store) -> Self {
        let index = Self::default();
        let (mut before, mut read) = (None, 0);
        let mut events: Vec<AuditEvent> = Vec::new();
        while let Ok(page) = store.audit(before, PAGE_MAX, |event| event.who != "-") {
            read += page.len() as u64;
            before = page.last().map(|audited| audited.number);
            events.extend(page.into_iter().map(|audited| audited.event));
            if before.is_none() || read >= KEPT_MAX {
                break;
            }
        }
        for event in events.iter().rev() {
            index.note(event);
        }
        index
    }

    /// Takes an event in.
    pub fn note(&self, event: &AuditEvent) {
        if event.outcome != "done" {
            return;
        }
        if event.action == "login" {
            self.logged_in.store(true, Ordering::Relaxed);
        }
        let mut all = self.lock();
        if event.action == "delete" {
            all.remove(&event.target);
        } else if WRITES.contains(&event.action.as_str()) {
            let made = event.action != "change";
            let created = all.get(&event.target).and_then(|touched| touched.created);
            let touched = Touched {
                created: if made { Some(event.at) } else { created },
                updated: event.at,
                by: Arc::from(event.who.as_str()),
            };
            all.insert(event.target.clone(), touched);
        }
    }

    /// True if anyone ever logged in to the dashboard.
    pub fn has_login(&self) -> bool {
        self.logged_in.load(Ordering::Relaxed)
    }

    /// Changes of a target: `instance:NAME`, `route:NAME`.
    pub fn of_target(&self, target: &str) -> Option<Touched> {
        self.lock().get(target).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Touched>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, who: &str, action: &str) -> AuditEvent {
        AuditEvent {
            at,
            who: who.to_owned(),
            workspace: None,
            role: None,
            via: "token".to_owned(),
            peer: None,
            link_by: None,
            action: action.to_owned(),
            target: "instance:a".to_owned(),
            outcome: "done".to_owned(),
            detail: String::new(),
        }
    }

    #[test]
    fn the_index_knows_who_made_and_who_changed_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for event in [
            event(1, "user:ana", "launch"),
            event(5, "user:bo", "change"),
            event(6, "user:cy", "stop"),
        ] {
            store.put_audit(&event, None).unwrap();
        }
        let touched = TouchedIndex::of(&store).of_target("instance:a").unwrap();
        assert_eq!((touched.created, touched.updated), (Some(1), 5));
        assert_eq!(touched.last_by(Some(6)).as_deref(), Some("user:bo"));
        assert_eq!(touched.last_by(Some(500)).as_deref(), Some("file"));
        let deleted = event(9, "user:ana", "delete");
        store.put_audit(&deleted, None).unwrap();
        assert_eq!(TouchedIndex::of(&store).of_target("instance:a"), None);
    }
}
