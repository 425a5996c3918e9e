//! The fetch of a model as a task, which reports how far it is; and what the model tells
//! of the memory that it will need.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, FetchNews, What};
use super::running::Target;

/// Models that are looked at at once: a catalog of hundreds is no burst on the disk.
static LOOKS: Semaphore = Semaphore::const_new(2);

impl Effects {
    /// Token that ends a fetch that is about to begin.
    pub(in crate::lifecycle) fn fetch_token(&self) -> CancellationToken {
        self.tasks.ending().child_token()
    }

    /// Brings the model of a deployment here, until it is or `token` is cancelled.
    pub(in crate::lifecycle) fn fetch(
        &self,
        target: Target<'_>,
        number: u64,
        token: CancellationToken,
    ) {
        let (this, handle) = (self.clone(), Arc::clone(target.handle));
        let spec = Arc::clone(target.spec);
        self.tasks.spawn("fetch", async move {
            let (told, mut progress) = watch::channel(None);
            let ended = this.launcher.fetch(&spec, &handle, &told);
            tokio::pin!(ended);
            loop {
                let news = tokio::select! {
                    ended = &mut ended => FetchNews::Ended(ended),
                    // Never closed: this holds its sender.
                    _ = progress.changed() => match *progress.borrow_and_update() {
                        Some(now) => FetchNews::Progress(now),
                        None => continue,
                    },
                    () = token.cancelled() => return,
                };
                let is_over = matches!(news, FetchNews::Ended(_));
                this.report(&handle.id, What::Fetch(number, news)).await;
                if is_over {
                    return;
                }
            }
        });
    }

    /// Looks what a worker of the spec with this digest will need of memory, before one was
    /// measured.
    pub(in crate::lifecycle) fn foretell(&self, target: Target<'_>, fingerprint: &Arc<str>) {
        if !self.launcher.foretells(target.spec) {
            return;
        }
        let (this, id) = (self.clone(), target.handle.id.clone());
        let (spec, digest) = (Arc::clone(target.spec), Arc::clone(fingerprint));
        self.tasks.spawn("estimate of memory", async move {
            // Never closed.
            let Ok(_turn) = LOOKS.acquire().await else {
                return;
            };
            let launcher = Arc::clone(&this.launcher);
            let looked = tokio::task::spawn_blocking(move || launcher.foretell(&spec)).await;
            if let Ok(Some(fit)) = looked {
                this.report(&id, What::Foretold(digest, fit)).await;
            }
        });
    }
}
