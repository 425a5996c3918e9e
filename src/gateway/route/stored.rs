//! Places of responses that their clients may come back for.
//!
//! `/v1/responses/{id}` names no model: which server answered is remembered
//! here when the answer passes, and only for the workspace that asked. Bounded:
//! the oldest is forgotten first, in the workspace that has most. Not kept over
//! a restart of the gateway. The response itself stays with its server.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::names::{Generation, ModelName, Workspace};

/// Ids remembered for all workspaces together.
const IDS_MAX: usize = 131_072;
/// Ids remembered for one workspace.
const WORKSPACE_IDS_MAX: usize = 16_384;

/// Place of a response: the server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The path of the route.
    pub path: String,
    /// The name that was asked for.
    pub model: ModelName,
    /// The label of the target.
    pub target: Arc<str>,
    /// Worker that answered, where the target is a deployment: the response is gone
    /// with it.
    pub worker: Option<Generation>,
}

/// The responses of which we know where they are.
#[derive(Debug)]
pub struct Stored {
    /// Held for a look or an insertion, never over an await.
    inner: Mutex<Inner>,
    all_max: usize,
    workspace_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    workspaces: HashMap<Workspace, Shelf>,
    count: usize,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<Arc<str>, Entry>,
    /// The oldest first.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    at: Whereabouts,
    /// True once its tokens were counted.
    is_counted: bool,
}

impl Default for Stored {
    fn default() -> Self {
        Self::new(IDS_MAX, WORKSPACE_IDS_MAX)
    }
}

impl Stored {
    fn new(all_max: usize, workspace_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            all_max,
            workspace_max,
        }
    }

    /// Place of the response, if it was made for this workspace.
    pub fn find(&self, workspace: &Workspace, id: &str) -> Option<Whereabouts> {
        let inner = self.lock();
        let entry = inner.workspaces.get(workspace)?.entries.get(id)?;
        Some(entry.at.clone())
    }

    /// Remembers a response.
    fn keep(&self, workspace: &Workspace, id: &str, at: Whereabouts) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let kept = inner.workspaces.entry(workspace.clone()).or_default();
        let key: Arc<str> = Arc::from(id);
        let entry = Entry {
            at,
            is_counted: false,
        };
        if kept.entries.insert(Arc::clone(&key), entry).is_some() {
            return;
        }
        kept.order.push_back(key);
        inner.count += 1;
        if kept.order.len() > self.workspace_max {
            inner.count -= usize::from(kept.forget_oldest());
        }
        while inner.count > self.all_max {
            let fullest = inner.workspaces.values_mut().max_by_key(|s| s.order.len());
            if !fullest.is_some_and(Shelf::forget_oldest) {
                return;
            }
            inner.count -= 1;
        }
        if inner.workspaces.len() > self.all_max {
            inner.workspaces.retain(|_, kept| !kept.order.is_empty());
        }
    }

    /// True if the tokens of a response are to be counted: once, however often
    /// they are told.
    fn count_once(&self, workspace: &Workspace, id: &str) -> bool {
        let mut inner = self.lock();
        let kept = inner.workspaces.get_mut(workspace);
        let Some(entry) = kept.and_then(|kept| kept.entries.get_mut(id)) else {
            return true;
        };
        !std::mem::replace(&mut entry.is_counted, true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.order.pop_front();
        oldest.is_some_and(|id| self.entries.remove(&id).is_some())
    }
}

/// A response that passes, to be remembered once its id is known.
#[derive(Debug)]
pub struct Passing {
    stored: Arc<Stored>,
    workspace: Workspace,
    id: Option<String>,
    at: Option<Whereabouts>,
}

impl Passing {
    /// A new response, to be remembered as being `at`.
    pub fn new(stored: &Arc<Stored>, workspace: &Workspace, at: Whereabouts) -> Self {
        Self {
            stored: Arc::clone(stored),
            workspace: workspace.clone(),
            id: None,
            at: Some(at),
        }
    }

    /// One that is fetched again.
    pub fn again(stored: &Arc<Stored>, workspace: &Workspace, id: &str) -> Self {
        Self {
            stored: Arc::clone(stored),
            workspace: workspace.clone(),
            id: Some(id.to_owned()),
            at: None,
        }
    }

    /// True while the id is still to be found.
    pub fn is_nameless(&self) -> bool {
        self.id.is_none()
    }

    /// The id has passed.
    pub fn named(&mut self, id: &str) {
        if let Some(at) = self.at.take() {
            self.stored.keep(&self.workspace, id, at);
            self.id = Some(id.to_owned());
        }
    }

    /// True if the tokens that this response tells are to be counted.
    pub fn counts(&self) -> bool {
        let id = self.id.as_deref();
        id.is_none_or(|id| self.stored.count_once(&self.workspace, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(model: &str) -> Whereabouts {
        Whereabouts {
            path: "chat".to_owned(),
            model: ModelName::new(model).unwrap(),
            target: Arc::from("t"),
            worker: Some(Generation(1)),
        }
    }

    fn named(name: &str) -> Workspace {
        Workspace::new(name).unwrap()
    }

    #[test]
    fn a_response_is_found_by_its_own_workspace_only() {
        let stored = Arc::new(Stored::default());
        let mut passing = Passing::new(&stored, &named("w1"), at("m"));
        assert!(passing.is_nameless());
        passing.named("resp_1");
        passing.named("resp_2");
        assert_eq!(stored.find(&named("w1"), "resp_1"), Some(at("m")));
        assert_eq!(stored.find(&named("w2"), "resp_1"), None);
        assert_eq!(stored.find(&named("w1"), "resp_2"), None);
    }

    #[test]
    fn the_tokens_of_a_response_are_counted_once() {
        let stored = Arc::new(Stored::default());
        let mut made = Passing::new(&stored, &named("w1"), at("m"));
        assert!(made.counts(), "one without an id can't come again");
        made.named("resp_1");
        assert!(made.counts());
        let again = Passing::again(&stored, &named("w1"), "resp_1");
        assert!(!again.counts());
    }

    #[test]
    fn memory_is_bounded_and_the_workspace_that_has_most_forgets_first() {
        let stored = Arc::new(Stored::new(6, 4));
        for n in 0..9 {
            let mut passing = Passing::new(&stored, &named("large"), at("m"));
            passing.named(&format!("l{n}"));
            if n < 4 {
                let mut passing = Passing::new(&stored, &named("small"), at("m"));
                passing.named(&format!("s{n}"));
            }
        }
        let has = |workspace: &str, id: &str| stored.find(&named(workspace), id).is_some();
        assert!(has("large", "l8") && !has("large", "l0"));
        assert!(has("small", "s3") && !has("small", "s0"));
        assert_eq!(stored.lock().count, 6);
        let orders = stored
            .lock()
            .workspaces
            .values()
            .map(|s| s.order.len())
            .sum::<usize>();
        assert_eq!(orders, 6);
    }
}
