//! Tells when `routes.d` has changed.
//!
//! Events of the file system are hints that make it fast; a fingerprint taken
//! every two seconds is the truth that misses nothing, also where there are no
//! events: on network file systems, behind links, while the directory itself is
//! swapped. What changed is not told: the loader compares contents.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::catalog::is_route_file;
use crate::time::{Instant, sleep_until};

/// A change is told once it was quiet for so long …
const QUIET: Duration = Duration::from_millis(50);
/// … but at the latest so long after its first event.
const DELAY_MAX: Duration = Duration::from_millis(500);
/// Pause between two comparisons of the fingerprint.
const POLL: Duration = Duration::from_secs(2);

/// Watches one directory of route files.
#[derive(Debug)]
pub struct Watcher {
    /// One place: a hint that finds it taken says nothing new.
    hints: mpsc::Receiver<()>,
    /// Times to tell, and to tell at the latest, while events come in.
    burst: Option<(Instant, Instant)>,
    poll: Duration,
    poll_at: Instant,
    /// Never locked over an await.
    state: Arc<Mutex<State>>,
}

impl Watcher {
    /// Starts to watch. Whatever changes after this call is told, so make the
    /// watcher first and load then.
    pub fn new(dir: &Path) -> Self {
        Self::with(dir, POLL, true)
    }

    fn with(dir: &Path, poll: Duration, events: bool) -> Self {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let (sender, hints) = mpsc::channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let mut state = State {
            events: events
                .then(|| start(dir.clone(), Arc::clone(&moved), sender))
                .flatten(),
            dir,
            moved,
            identity: None,
            fingerprint: Vec::new(),
            changed: false,
        };
        state.look();
        state.changed = false;
        Self {
            hints,
            burst: None,
            poll,
            poll_at: Instant::now() + poll,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Resolves when the directory has changed since the last time.
    ///
    /// Cancel-safe: what was noticed and not told is told by the next call. It
    /// may tell of a change that makes no difference.
    pub async fn changed(&mut self) {
        while !self.take_changed() {
            self.wait().await;
            let state = Arc::clone(&self.state);
            // It fails only while the runtime is shut down.
            drop(tokio::task::spawn_blocking(move || lock(&state).look()).await);
        }
    }

    fn take_changed(&self) -> bool {
        std::mem::take(&mut lock(&self.state).changed)
    }

    /// Waits until it is time to look. Notes a change that was told by events.
    async fn wait(&mut self) {
        loop {
            let at = match self.burst {
                Some((quiet, latest)) => quiet.min(latest),
                None => self.poll_at,
            };
            tokio::select! {
                biased;
                () = sleep_until(at) => break,
                // Without events the sender is gone, and only the clock remains.
                Some(()) = self.hints.recv() => {
                    let now = Instant::now();
                    let latest = self.burst.map_or(now + DELAY_MAX, |(_, latest)| latest);
                    self.burst = Some((now + QUIET, latest));
                }
            }
        }
        if self.burst.take().is_some() {
            lock(&self.state).changed = true;
        }
        self.poll_at = Instant::now() + self.poll;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Each look starts from the file system, whatever became of the last one.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hint(hints: &mpsc::Sender<()>) {
    match hints.try_send(()) {
        // A place that is taken holds the same hint, and without a receiver no
        // one wants it.
        Ok(()) | Err(_) => {}
    }
}

/// Starts the thread of events; `None` where the system has none to give.
fn start(
    dir: PathBuf,
    moved: Arc<AtomicBool>,
    hints: mpsc::Sender<()>,
) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else {
            // Something was lost.
            moved.store(true, Ordering::Release);
            hint(&hints);
            return;
        };
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
        {
            // Our own reading.
            return;
        }
        let of_dir = event.need_rescan() || event.paths.contains(&dir);
        if of_dir {
            moved.store(true, Ordering::Release);
        }
        if of_dir || event.paths.iter().any(|path| concerns(&dir, path)) {
            hint(&hints);
        }
    };
    notify::recommended_watcher(handler)
        .inspect_err(|error| {
            tracing::warn!(error = %error, "no file events: routes are compared every {POLL:?}");
        })
        .ok()
}

/// True if a path is a route file, or one of the links that Kubernetes swaps to
/// replace all files of a directory at once: `..data`.
fn concerns(dir: &Path, path: &Path) -> bool {
    path.parent() == Some(dir)
        && path
            .file_name()
            .is_some_and(|name| is_route_file(name) || name.as_encoded_bytes().starts_with(b".."))
}

/// Directory that stands at a path: device and inode.
type Identity = (u64, u64);

#[derive(Debug)]
struct State {
    dir: PathBuf,
    events: Option<RecommendedWatcher>,
    /// True if the directory itself may have been replaced. Set by the thread
    /// of events, cleared here.
    moved: Arc<AtomicBool>,
    /// The directory that is watched; `None` while it is missing.
    identity: Option<Identity>,
    fingerprint: Vec<Print>,
    /// Seen and not told yet.
    changed: bool,
}

impl State {
    /// Compares with what was seen last, after the watch is on the directory
    /// that stands there now, so that nothing falls between.
    fn look(&mut self) {
        let moved = self.moved.swap(false, Ordering::AcqRel);
        let identity = fs::metadata(&self.dir)
            .ok()
            .map(|meta| (meta.dev(), meta.ino()));
        if moved || identity != self.identity || identity.is_none() {
            self.rewatch();
            self.identity = identity;
        }
        let fingerprint = fingerprint(&self.dir, identity);
        if fingerprint != self.fingerprint {
            self.fingerprint = fingerprint;
            self.changed = true;
        }
    }

    /// Puts the watch on the directory, and on its parent to see it replaced.
    fn rewatch(&mut self) {
        let Some(events) = &mut self.events else {
            return;
        };
        for path in [Some(self.dir.as_path()), self.dir.parent()]
            .into_iter()
            .flatten()
        {
            // Either may be missing; the next look tries again.
            drop(events.unwatch(path));
            drop(events.watch(path, RecursiveMode::NonRecursive));
        }
    }
}

/// Marks that tell one state of a file from another without reading it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Print {
    name: OsString,
    link: Option<PathBuf>,
    /// Device, inode, size, and times of content and of the inode in
    /// nanoseconds.
    stamp: Option<(u64, u64, u64, i64, i64, i64, i64)>,
}

fn stamp(meta: &Metadata) -> (u64, u64, u64, i64, i64, i64, i64) {
    (
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    )
}

/// The present state of the directory and of its route files, by name. A
/// missing directory differs from an empty one.
fn fingerprint(dir: &Path, identity: Option<Identity>) -> Vec<Print> {
    let mut prints: Vec<Print> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_route_file(&entry.file_name()))
        .map(|entry| Print {
            name: entry.file_name(),
            link: fs::read_link(entry.path()).ok(),
            stamp: fs::metadata(entry.path()).ok().as_ref().map(stamp),
        })
        .collect();
    prints.extend(identity.map(|(device, inode)| Print {
        name: OsString::from("."),
        link: None,
        stamp: Some((device, inode, 0, 0, 0, 0, 0)),
    }));
    prints.sort();
    prints
}

#[cfg(test)]
mod tests;
