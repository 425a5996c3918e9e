//! End of serving: asked for by a signal, or by a gateway that takes over.
//!
//! Either way open requests may finish, up to `gateway.shutdown_timeout`; those that are
//! left then are told so in their own form, and cut.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handover::{self, Answers, Asked};
use super::signals::Signals;
use super::systemd::Notifier;
use crate::admin::Admin;
use crate::gateway::Gateway;
use crate::lifecycle::act::launcher::Launcher;
use crate::store::left::{self, AtOnce};
use crate::tasks::Tasks;
use crate::time::{Instant, sleep};

/// Limit of the last tasks once everything was told to end.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Pause between two looks for requests that wait for a worker.
const LOOK: Duration = Duration::from_millis(50);

/// Parts that an end needs.
pub(super) struct End {
    pub(super) gateway: Arc<Gateway>,
    pub(super) admin: Admin,
    pub(super) launcher: Arc<dyn Launcher>,
    /// Tasks of clients.
    pub(super) front: Tasks,
    /// All others.
    pub(super) tasks: Tasks,
    /// Tasks that talk with a gateway that takes over.
    pub(super) talks: Tasks,
    pub(super) answers: Answers,
    pub(super) cut: CancellationToken,
    pub(super) notifier: Arc<Notifier>,
}

impl End {
    /// Ends after a signal; a second one cuts what is still open. Returns how
    /// many workers go on.
    pub(super) async fn stop(self, signals: &mut Signals, stop_workers: bool) -> usize {
        self.notifier.stopping();
        self.gateway.set_ready(false);
        // The handles in there would hold the listeners open.
        self.talks.join(LAST_WAIT).await;
        let unready = self.admin.settings.gateway.unready_time;
        if !unready.is_zero() {
            tokio::select! {
                () = sleep(unready) => {}
                () = signals.stop() => {}
            }
        }
        self.drain(signals).await;
        self.admin.lifecycle.shutdown(stop_workers).await;
        let left = if stop_workers { 0 } else { self.alive() };
        self.tasks.join(LAST_WAIT).await;
        left
    }

    /// Lets go of everything for the gateway that asked, serves until one serves,
    /// and then ends. Returns how many workers that has now.
    pub(super) async fn give_way(
        self,
        mut asked: Asked,
        asks: &mut mpsc::Receiver<Asked>,
        signals: &mut Signals,
    ) -> usize {
        self.settle().await;
        let left = self.let_go().await;
        let usage = self.leave_usage(&self.admin.settings.gateway.state, asked.usage());
        tracing::info!("given way: serving until the new gateway does");
        let serves = async { asked.done().await || super::successor::find(&self, asks).await };
        tokio::select! {
            _ = serves => {}
            () = signals.stop() => {
                tracing::warn!("told to end while no other gateway serves");
            }
        }
        self.gateway.set_taken_over();
        self.front.end();
        self.drain(signals).await;
        usage.join(LAST_WAIT).await;
        self.talks.join(LAST_WAIT).await;
        left
    }

    /// Ends all but what serves clients, and frees what only one gateway may hold.
    /// Returns how many workers go on.
    async fn let_go(&self) -> usize {
        self.admin.lifecycle.shutdown(false).await;
        let left = self.alive();
        self.tasks.join(LAST_WAIT).await;
        let state = self.admin.settings.gateway.state.clone();
        drop(std::fs::remove_file(handover::socket(&state)));
        let (admin, launcher) = (self.admin.clone(), Arc::clone(&self.launcher));
        let release = move || {
            admin.revocations.are_elsewhere(admin.store.give_away());
            admin.store.close();
            admin.history.close();
            launcher.release();
        };
        // It fails only when the runtime ends, and the process with it.
        drop(tokio::task::spawn_blocking(release).await);
        left
    }

    /// Leaves usage beside the store, which is another's from here on.
    fn leave_usage(&self, state: &Path, begun: Option<AtOnce>) -> Tasks {
        let tasks = Tasks::new();
        let ledger = Arc::clone(self.gateway.ledger());
        let kept = left::keep(state.to_owned(), ledger, begun, tasks.ending());
        tasks.spawn("usage", kept);
        tasks
    }

    /// Has usage written down at once until the take-over that we came by is over: we too
    /// may be killed within it.
    pub(super) async fn settle_usage(&self) {
        if let Some(at_once) = self.answers.write_usage_at_once().await {
            let (store, ending) = (self.admin.store.clone(), self.tasks.ending());
            let settled = left::settle(store, at_once, ending);
            self.tasks.spawn("usage of the take-over", settled);
        }
    }

    /// Waits until no request waits for a worker: only we can start it for them.
    async fn settle(&self) {
        let due = Instant::now() + self.admin.settings.gateway.shutdown_timeout;
        let waits = || self.admin.registry.all().iter().any(|h| h.waiting() > 0);
        while waits() && Instant::now() < due {
            sleep(LOOK).await;
        }
    }

    /// Lets open requests finish, cuts those that do not, closes the access log.
    async fn drain(&self, signals: &mut Signals) {
        let connections = self.front.len();
        tracing::info!(connections, "ending: open requests may finish");
        tokio::select! {
            _ = self.front.join(self.admin.settings.gateway.shutdown_timeout) => {}
            () = signals.stop() => {}
        }
        self.cut.cancel();
        self.front.join(LAST_WAIT).await;
        let gateway = Arc::clone(&self.gateway);
        // It fails only when the runtime ends, and the process with it.
        drop(tokio::task::spawn_blocking(move || gateway.access_log().close()).await);
    }

    fn alive(&self) -> usize {
        let handles = self.admin.registry.all();
        let alive = handles.iter().filter(|h| h.snapshot().pid.is_some());
        alive.count()
    }
}
