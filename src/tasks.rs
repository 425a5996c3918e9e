//! Tasks of the process: named, tracked, ended together.
//!
//! Owns the calls of `tokio::spawn`. Everything that runs beside the main
//! future is spawned here, so the shutdown can tell it to end and wait for it.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Spawns tasks, and waits for them at the end. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
    /// The first that ended though all depends on it; one for all sets of a kin.
    fallen: watch::Sender<Option<Fallen>>,
}

/// A task that should never end by itself has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the task {name:?}, without which tidegate can't go on, {how}: this is a fault of tidegate, \
     which ends now, in order; start it again"
)]
pub struct Fallen {
    /// The task's name.
    pub name: &'static str,
    how: &'static str,
}

/// Tells of a task when it ends.
struct Vital {
    name: &'static str,
    ending: CancellationToken,
    fallen: watch::Sender<Option<Fallen>>,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if self.ending.is_cancelled() {
            return;
        }
        let how = if std::thread::panicking() {
            "broke down in a panic, of which the log tells"
        } else {
            "ended by itself"
        };
        let name = self.name;
        self.fallen.send_if_modified(|fallen| {
            let is_first = fallen.is_none();
            fallen.get_or_insert(Fallen { name, how });
            is_first
        });
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future beside the others. `name` stands in its log lines.
    ///
    /// The future should end by itself once [`Self::ending`] resolves.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let span = tracing::debug_span!("task", task.name = name);
        let task = tokio::spawn(self.tracker.track_future(future.instrument(span)));
        drop(task);
    }

    /// As [`Self::spawn`], for a future on which all depends: if it ends before the
    /// tasks should, by a panic or by itself, [`Self::fallen`] resolves.
    pub fn spawn_vital(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let vital = Vital {
            name,
            ending: self.ending(),
            fallen: self.fallen.clone(),
        };
        self.spawn(name, async move {
            // Dropped with the future, also when it panics.
            let _vital = vital;
            future.await;
        });
    }

    /// As [`Self::spawn_vital`], for a future that may be dropped at any point.
    pub fn spawn_vital_until_end(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let ending = self.ending();
        self.spawn_vital(name, async move {
            tokio::select! {
                () = future => {}
                () = ending.cancelled() => {}
            }
        });
    }

    /// Resolves once a task has ended on which all depends, of this set or of one
    /// that it is a child of or a parent to. Cancel-safe.
    pub async fn fallen(&self) -> Fallen {
        let mut fallen = self.fallen.subscribe();
        let seen = fallen.wait_for(Option::is_some).await;
        match seen.ok().and_then(|fallen| *fallen) {
            Some(fallen) => fallen,
            // The sender lives in `self`.
            None => std::future::pending().await,
        }
    }

    /// As [`Self::spawn`], for a future that may be dropped at any point: it is
    /// once the tasks should end.
    pub fn spawn_until_end(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let ending = self.ending();
        self.spawn(name, async move {
            tokio::select! {
                () = future => {}
                () = ending.cancelled() => {}
            }
        });
    }

    /// As [`Self::spawn`], without a span: for connections, where one costs, and for calls, whose
    /// log lines stand by themselves.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn_bare(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.tracker.track_future(future)));
    }

    /// A set whose tasks are waited for apart from these, and told to end with them.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            ending: self.ending.child_token(),
            fallen: self.fallen.clone(),
        }
    }

    /// A set that is told to end and waited for by itself.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            ending: CancellationToken::new(),
            fallen: self.fallen.clone(),
        }
    }

    /// Resolves once the tasks should end.
    pub fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Number of tasks that run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// True if no task runs.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tells the tasks to end, without waiting.
    pub fn end(&self) {
        self.ending.cancel();
        self.tracker.close();
    }

    /// Tells the tasks to end and waits for them, at most `limit`. Returns
    /// whether all have ended.
    pub async fn join(&self, limit: Duration) -> bool {
        self.end();
        crate::time::timeout(limit, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_is_told_of_unless_all_should_end() {
        for (panics, words) in [(true, "panic"), (false, "by itself")] {
            let tasks = Tasks::new();
            tasks.child().spawn_vital("heart", async move {
                assert!(!panics, "the test wants it");
            });
            let fallen = tasks.fallen().await;
            assert_eq!(fallen.name, "heart");
            assert!(fallen.to_string().contains(words), "{fallen}");
        }
        let tasks = Tasks::new();
        let ending = tasks.ending();
        tasks.spawn_vital("heart", async move { ending.cancelled().await });
        assert!(tasks.join(Duration::from_secs(5)).await);
        assert_eq!(*tasks.fallen.borrow(), None);
    }
}
