//! Tasks of the process: named, tracked, ended together.
//!
//! Owns the one call of `tokio::spawn`. Everything that runs beside the main
//! future is spawned here, so the shutdown can tell it to end and wait for it.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Spawns tasks, and waits for them at the end. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
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

    /// As [`Self::spawn`], without a span: for connections, where one costs.
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
        }
    }

    /// Resolves once the tasks should end.
    pub fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task runs.
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
