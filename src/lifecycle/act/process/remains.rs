//! Remains of the last run: workers that are adopted, and others that are ended.
//!
//! No process is touched that was not started from this very state directory. This module
//! decides by records and by the marks of processes alone; it does not look if a worker
//! that is found is well.

use std::sync::PoisonError;
use std::time::Duration;

use super::worker::{self, Worker};
use super::{Inner, Launched, Nonce, places, proc};
use crate::proc::Stat;
use crate::store::workers::{JournalError, WorkerRecord};

/// Time that the remains of a dead worker may take to end.
const REMAINS_LIMIT: Duration = Duration::from_secs(10);

impl Inner {
    /// Returns the recorded workers whose leader lives. Ends the rest of ours.
    pub(super) async fn recover(&self) -> Result<Vec<Launched>, JournalError> {
        let mut living = Vec::new();
        for record in self.journal.load()? {
            let nonce = Nonce::recorded(&record.nonce);
            if self.worker(&nonce).is_some() {
                continue;
            }
            let same_boot = record.boot_id == self.boot_id;
            if same_boot && !self.is_ours(&record) {
                self.leave_alone(&record.nonce, &record.deployment);
                continue;
            }
            if let Some(worker) = Worker::found(&record).filter(|_| same_boot) {
                living.push(self.keep(nonce, worker));
            } else {
                tell_gone(&record, same_boot);
                self.end_remains(&record, same_boot).await;
            }
        }
        for nonce in self.journal.set_aside() {
            if proc::has_strangers(&nonce, &self.identity) {
                self.leave_alone(&nonce, "unknown");
                continue;
            }
            let groups = self.groups.as_ref();
            let cgroup = groups.map(|groups| groups.path(places::short(&nonce)));
            let record = WorkerRecord::of_nonce(nonce, self.boot_id.clone(), cgroup);
            self.end_remains(&record, true).await;
        }
        let known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<Nonce> = known.keys().cloned().collect();
        self.places.clean_others(&known);
        Ok(living)
    }

    /// True if a record was written here, and did not come with a copy of another
    /// state directory.
    fn is_ours(&self, record: &WorkerRecord) -> bool {
        match &record.state {
            Some(state) => *state == self.identity,
            // Of a version that did not write it down: then the log's place tells.
            None => record.log.starts_with(&self.places.logs),
        }
    }

    /// Touches no process of a worker that another gateway may run.
    fn leave_alone(&self, nonce: &str, deployment: &str) {
        tracing::warn!(deployment.id = %deployment, worker.nonce = %nonce,
            "a record of a worker came with a copy of another state directory: it is laid aside, and that worker, which may be another gateway's, is left alone; end it by hand if it is not");
        self.journal.lay_aside(nonce);
    }

    async fn end_remains(&self, record: &WorkerRecord, same_boot: bool) {
        let gone = worker::end_remains(record);
        let gone = !same_boot || crate::time::timeout(REMAINS_LIMIT, gone).await.is_ok();
        if gone {
            self.forget(&record.nonce);
        } else {
            tracing::error!(deployment.id = %record.deployment, pid = ?record.process,
                "processes of a worker of the last run can't be killed; they may hold memory");
        }
    }
}

/// Logs that a recorded worker is not there any more, and if another process has its number now.
fn tell_gone(record: &WorkerRecord, same_boot: bool) {
    let deployment = &record.deployment;
    let process = record.process.as_ref();
    let is_another = process.is_some_and(|process| {
        let stat = Stat::of(process.pid);
        stat.is_some_and(|stat| stat.start_time != process.start_time)
    });
    let what = match (same_boot, is_another) {
        (false, _) => "the machine was started anew since",
        (true, true) => "its process has ended; another has its number now, and is left alone",
        (true, false) => "its process has ended",
    };
    tracing::info!(deployment.id = %deployment, pid = ?process.map(|process| process.pid),
        "the last run's worker of {deployment} is gone: {what}");
}
