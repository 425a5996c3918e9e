//! The fetch of a model as a task, which reports how far it is.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, FetchNews, What};
use super::running::Target;

impl Effects {
    /// What ends a fetch that is about to begin.
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
}
