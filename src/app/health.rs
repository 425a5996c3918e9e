//! Keeps the store alive, and tells whether what it is given is kept.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::store::health::TEND;
use crate::telemetry::metrics::{self, StoreHealth};
use crate::time::sleep;

/// Tends the store until told to end.
pub(super) async fn keep(admin: Admin, ending: CancellationToken) {
    loop {
        let store = admin.store.clone();
        let tended = tokio::task::spawn_blocking(move || {
            store.tend();
            (store.fault(), store.lost_at().unwrap_or_default())
        });
        // A task that was cancelled at the end of the runtime has nothing to say.
        let Ok((fault, lost_at)) = tended.await else {
            return;
        };
        metrics::store(&StoreHealth {
            degraded: fault.is_some(),
            held: admin.store.held(),
            lost_at,
            clock_behind: admin.store.clock().behind().unwrap_or_default(),
        });
        admin.gateway.set_degraded(fault.map(Arc::from));
        tokio::select! {
            () = sleep(TEND) => {}
            () = ending.cancelled() => return,
        }
    }
}
