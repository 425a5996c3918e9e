//! Decisions and their reasons: a bounded ring, in words with figures, names apart.
//!
//! Those that a plot marks are kept in a ring of their own: what is merely told would push
//! them out within minutes. A file keeps that ring over a restart.

mod kept;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::deployment::Telling;
use crate::names::DeploymentId;
use crate::time::unix_seconds;

/// Happenings that are kept.
pub const HAPPENINGS_MAX: usize = 1_000;
/// Happenings that plots mark, and that are kept.
pub const MARKED_MAX: usize = 2_000;

/// Kind of a happening that plots mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A worker starts.
    Start,
    /// A worker wakes.
    Wake,
    /// It leaves for another deployment.
    Eviction,
    /// It failed.
    Failure,
    /// Its file changed.
    Edit,
}

impl MarkKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Wake => "wake",
            Self::Eviction => "eviction",
            Self::Failure => "failure",
            Self::Edit => "edit",
        }
    }
}

/// One decision or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Seconds since 1970.
    pub at: u64,
    /// Deployment of the event.
    pub deployment: DeploymentId,
    /// Event and reason: `offloaded to cpu: idle 15m`.
    pub text: Telling,
    /// Its kind, if plots mark it.
    pub mark: Option<MarkKind>,
}

/// The rings. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Held for a push or a copy, never over an await.
    rings: Arc<Mutex<Rings>>,
}

#[derive(Debug, Default)]
struct Rings {
    all: VecDeque<Happening>,
    marked: VecDeque<Happening>,
    /// Since when all of `marked` are known, in seconds since 1970.
    marked_since: u64,
    /// True if the file does not have all of `marked`.
    is_unkept: bool,
}

impl Events {
    /// Keeps one, and logs it.
    pub fn push(&self, deployment: &DeploymentId, text: Telling, mark: Option<MarkKind>) {
        tracing::info!(deployment.id = %deployment, "{deployment} {text}");
        let happening = Happening {
            at: unix_seconds(),
            deployment: deployment.clone(),
            text,
            mark,
        };
        let mut rings = self.lock();
        if mark.is_some() {
            rings.is_unkept = true;
            if push_bounded(&mut rings.marked, happening.clone(), MARKED_MAX) {
                rings.marked_since = rings.marked.front().map_or(0, |oldest| oldest.at);
            }
        }
        push_bounded(&mut rings.all, happening, HAPPENINGS_MAX);
    }

    /// The newest `count`, oldest first; of one deployment with its replicas, or
    /// of all.
    pub fn newest(&self, deployment: Option<&DeploymentId>, count: usize) -> Vec<Happening> {
        let rings = self.lock();
        let wanted =
            rings.all.iter().rev().filter(|happening| {
                deployment.is_none_or(|id| id.has_replica(&happening.deployment))
            });
        let mut newest: Vec<_> = wanted.take(count).cloned().collect();
        newest.reverse();
        newest
    }

    /// Those that plots mark, oldest first; and since when all are known, in seconds since
    /// 1970.
    pub fn marked(&self) -> (Vec<Happening>, u64) {
        let rings = self.lock();
        (rings.marked.iter().cloned().collect(), rings.marked_since)
    }

    /// Takes up those that plots mark from the file of this state directory; an empty ring
    /// where it has none, or one that can't be read.
    pub fn open(state: &Path) -> Self {
        let rings = kept::read(state).unwrap_or_else(|| Rings {
            marked_since: unix_seconds(),
            ..Rings::default()
        });
        Self {
            rings: Arc::new(Mutex::new(rings)),
        }
    }

    /// Writes those that plots mark to the file of this state directory, if there are new
    /// ones. Blocks on the disk. Losing them costs marks and nothing else.
    pub fn keep(&self, state: &Path) {
        let mut rings = self.lock();
        if !std::mem::take(&mut rings.is_unkept) {
            return;
        }
        let (marked, since) = (rings.marked.clone(), rings.marked_since);
        drop(rings);
        if let Err(error) = kept::write(state, &marked, since) {
            tracing::debug!(%error, "the marks of plots were not kept");
            self.lock().is_unkept = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if the oldest was pushed out.
fn push_bounded(ring: &mut VecDeque<Happening>, happening: Happening, max: usize) -> bool {
    let is_full = ring.len() == max;
    if is_full {
        ring.pop_front();
    }
    ring.push_back(happening);
    is_full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_sorts_by_deployment() {
        let events = Events::default();
        let ids = ["t/a", "t/b"].map(|id| DeploymentId::parse(id).unwrap());
        for n in 0..HAPPENINGS_MAX + 2 {
            events.push(&ids[n % 2], n.to_string().into(), None);
        }
        assert_eq!(events.newest(None, usize::MAX).len(), HAPPENINGS_MAX);
        let texts: Vec<_> = events
            .newest(Some(&ids[1]), 2)
            .iter()
            .map(|h| h.text.to_string())
            .collect();
        assert_eq!(texts, ["999", "1001"]);
    }
    #[test]
    fn marks_are_not_pushed_out_by_what_is_merely_told() {
        let events = Events::default();
        let id = DeploymentId::parse("t/a").unwrap();
        events.push(&id, "starting".into(), Some(MarkKind::Start));
        for n in 0..HAPPENINGS_MAX {
            events.push(&id, n.to_string().into(), None);
        }
        let (marked, since) = events.marked();
        assert_eq!(marked.len(), 1);
        assert_eq!(marked[0].mark, Some(MarkKind::Start));
        assert_eq!(since, 0, "all of them are known");
        for _ in 0..MARKED_MAX {
            events.push(&id, "failed".into(), Some(MarkKind::Failure));
        }
        let (marked, since) = events.marked();
        assert_eq!(marked.len(), MARKED_MAX);
        assert_eq!(since, marked[0].at);
    }

    #[test]
    fn marks_outlive_a_restart_with_the_names_apart_and_a_torn_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::open(dir.path());
        let [a, b] = ["t/a", "t/b"].map(|id| DeploymentId::parse(id).unwrap());
        let text = Telling::from_iter(["needed by ".into(), (&b).into()]);
        events.push(&a, text, Some(MarkKind::Eviction));
        events.push(&a, "ready".into(), None);
        events.keep(dir.path());
        let again = Events::open(dir.path());
        assert_eq!(again.marked(), events.marked());
        let (marked, _) = again.marked();
        assert_eq!(marked[0].text.for_reader(|_| true), "needed by t/b");
        assert_ne!(marked[0].text.for_reader(|_| false), "needed by t/b");
        assert_eq!(again.newest(None, 9), [], "only marks are kept");
        std::fs::write(dir.path().join("marks.json"), b"{\"since\": 7, ").unwrap();
        assert_eq!(Events::open(dir.path()).marked().0, []);
    }
}
