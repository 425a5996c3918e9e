//! Decisions and their reasons: a bounded ring, in words with figures, names apart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::deployment::Telling;
use crate::names::DeploymentId;
use crate::time::unix_seconds;

/// Happenings that are kept.
pub const HAPPENINGS_MAX: usize = 1_000;

/// One decision or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Seconds since 1970.
    pub at: u64,
    /// Deployment of the event.
    pub deployment: DeploymentId,
    /// Event and reason: `offloaded to cpu: idle 15m`.
    pub text: Telling,
}

/// The ring. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Held for a push or a copy, never over an await.
    ring: Arc<Mutex<VecDeque<Happening>>>,
}

impl Events {
    /// Keeps one, and logs it.
    pub fn push(&self, deployment: &DeploymentId, text: Telling) {
        tracing::info!(deployment.id = %deployment, "{deployment} {text}");
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == HAPPENINGS_MAX {
            ring.pop_front();
        }
        ring.push_back(Happening {
            at: unix_seconds(),
            deployment: deployment.clone(),
            text,
        });
    }

    /// The newest `count`, oldest first; of one deployment with its replicas, or
    /// of all.
    pub fn newest(&self, deployment: Option<&DeploymentId>, count: usize) -> Vec<Happening> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = ring
            .iter()
            .rev()
            .filter(|happening| deployment.is_none_or(|id| id.has_replica(&happening.deployment)));
        let mut newest: Vec<_> = wanted.take(count).cloned().collect();
        newest.reverse();
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_sorts_by_deployment() {
        let events = Events::default();
        let ids = ["t/a", "t/b"].map(|id| DeploymentId::parse(id).unwrap());
        for n in 0..HAPPENINGS_MAX + 2 {
            events.push(&ids[n % 2], n.to_string().into());
        }
        assert_eq!(events.newest(None, usize::MAX).len(), HAPPENINGS_MAX);
        let texts: Vec<_> = events
            .newest(Some(&ids[1]), 2)
            .iter()
            .map(|h| h.text.to_string())
            .collect();
        assert_eq!(texts, ["999", "1001"]);
    }
}
