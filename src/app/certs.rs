//! Keeps the certificates that are served those that stand on the disk.
//!
//! The files are looked at every [`POLL`], which sees a link swapped, a rename
//! and a file written in place alike. A pair that can't be used, such as one of
//! which only one half was written yet, changes nothing: the last good one
//! serves, and log, metric and `tidegate ps` say so.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::FileError;
use crate::gateway::client::tls::{Certificates, TlsError};
use crate::telemetry::metrics;
use crate::time::sleep;

/// Pause between two looks at the files.
const POLL: Duration = Duration::from_secs(2);

/// Stamp that tells one state of a file from another without reading it.
type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// Reloads certificates that change, and whenever `asked` says so, until `ending`.
/// `wrong` holds what is wrong with the files that stand there.
pub(super) async fn keep(
    certificates: Arc<Certificates>,
    wrong: Arc<ArcSwap<Vec<FileError>>>,
    asked: Arc<Notify>,
    ending: CancellationToken,
) {
    let mut seen = look(&certificates).await;
    report(&certificates, 0);
    loop {
        let by_hand = tokio::select! {
            () = sleep(POLL) => false,
            () = asked.notified() => true,
            () = ending.cancelled() => return,
        };
        let now = look(&certificates).await;
        if now == seen && !by_hand {
            continue;
        }
        seen = now;
        let reloading = Arc::clone(&certificates);
        let reloaded = tokio::task::spawn_blocking(move || reloading.reload()).await;
        let errors = match reloaded {
            Ok(Ok(())) => {
                tracing::info!("the certificates that stand there now are served");
                Vec::new()
            }
            Ok(Err(error)) => {
                let error = told(&certificates, &error);
                tracing::error!("{error}; the last good certificate is still served");
                vec![error]
            }
            // The runtime ends.
            Err(_) => return,
        };
        report(&certificates, errors.len());
        wrong.store(Arc::new(errors));
    }
}

fn report(certificates: &Certificates, errors: usize) {
    metrics::certificate_errors(errors);
    for (file, until) in certificates.valid_until() {
        metrics::certificate_expiry(&file, until);
    }
}

/// The error as `tidegate ps` shows it, with its causes.
fn told(certificates: &Certificates, error: &TlsError) -> FileError {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message} ({cause})");
        source = cause.source();
    }
    let first = certificates.files().first().map(PathBuf::from);
    FileError {
        file: first.unwrap_or_default(),
        line: None,
        key: "tls".to_owned(),
        message,
    }
}

async fn look(certificates: &Arc<Certificates>) -> Vec<Stamp> {
    let certificates = Arc::clone(certificates);
    let stamps = move || certificates.files().into_iter().map(stamp).collect();
    tokio::task::spawn_blocking(stamps)
        .await
        .unwrap_or_default()
}

fn stamp(path: &std::path::Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime_nsec(),
    ))
}
