//! Use by each token since it was issued.
//!
//! Owns one table of sums by token id. [`keep`] brings them here from the ledger in
//! memory every [`FLUSH`], in one transaction: a crash loses at most what came within a
//! second. What a gateway could not bring here itself it leaves beside ([`super::left`]).
//!
//! A transaction that failed may be kept for all that: the disk said no to a flush of what
//! it had written. So each brings a batch with an id of its own, which stands in the store
//! with it, and one that failed is tried again as the same.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use tokio_util::sync::CancellationToken;

use super::forget::Forget;
use super::left::{ADDED, Sums, UsageJournal};
use super::{Store, StoreError};
use crate::auth::holders::Holders;
use crate::auth::ulid;
use crate::telemetry::usage::{Ledger, Tally};
use crate::time::{Instant, sleep, unix_time};

/// Sums by token id: requests, prompt tokens, completion tokens, last use in seconds
/// since 1970.
pub(super) const USAGE: TableDefinition<'_, &str, (u64, u64, u64, u64)> =
    TableDefinition::new("usage");

/// Most tokens whose usage is kept. Beyond, those unused for longest are forgotten.
pub const KEPT_MAX: usize = 100_000;

/// Pause between two transactions. Where nothing was used there is none.
pub const FLUSH: Duration = Duration::from_millis(500);

/// Pause between two looks for usage that gateways before left.
const LOOK: Duration = Duration::from_secs(5);

/// The batch that was brought last. Held over its transaction.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<Last>);

#[derive(Debug, Default)]
pub(super) struct Last {
    /// The one that may be kept or not.
    unsure: Option<Batch>,
    /// The id of the one that was kept last.
    kept: Option<String>,
}

#[derive(Debug)]
struct Batch {
    id: String,
    used: Sums,
}

impl Batches {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Adds what tokens used. All of it is kept, or nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be kept.
    pub fn add_usage(&self, used: &[(Arc<str>, Tally)]) -> Result<(), StoreError> {
        self.add_usage_within(used, KEPT_MAX)
    }

    fn add_usage_within(
        &self,
        used: &[(Arc<str>, Tally)],
        kept_max: usize,
    ) -> Result<(), StoreError> {
        if used.is_empty() {
            return Ok(());
        }
        self.write(|transaction| add(transaction, used, kept_max))
    }

    /// Brings what the ledger has, and who showed a token, into the store; what can't be
    /// kept goes back, or is tried again. Blocking.
    pub(crate) fn keep_usage(&self, ledger: &Ledger, holders: &Holders) -> Result<(), StoreError> {
        let noted = self.note_seen(holders);
        let mut last = self.0.batches.lock();
        if let Some(batch) = last.unsure.take() {
            self.keep_batch(batch, &mut last, ledger)?;
        }
        let id = ulid(unix_time())?;
        let used = ledger.take();
        if !used.is_empty() {
            self.keep_batch(Batch { id, used }, &mut last, ledger)?;
        }
        noted
    }

    fn keep_batch(&self, batch: Batch, last: &mut Last, ledger: &Ledger) -> Result<(), StoreError> {
        let before = last.kept.as_deref();
        let kept = self.write(|transaction| {
            let mut added = transaction.open_table(ADDED)?;
            if added.insert(batch.id.as_str(), ())?.is_some() {
                return Ok(());
            }
            // That one is not tried again.
            if let Some(before) = before {
                added.remove(before)?;
            }
            add(transaction, &batch.used, KEPT_MAX)
        });
        match &kept {
            Ok(()) => last.kept = Some(batch.id),
            // The store will show if it was kept.
            Err(StoreError::Transaction(_) | StoreError::Failing(_)) => last.unsure = Some(batch),
            Err(_) => ledger.give_back(batch.used),
        }
        kept
    }

    /// The same at the end: what can't be kept is left beside the store. Blocking.
    pub(crate) fn keep_last(&self, ledger: &Ledger, holders: &Holders) -> io::Result<()> {
        if self.keep_usage(ledger, holders).is_ok() {
            return Ok(());
        }
        let state = self.directory().ok_or(io::ErrorKind::NotFound)?;
        if let Some(batch) = self.0.batches.lock().unsure.take() {
            // By its id it is added only where it was not kept.
            UsageJournal::leave(state, &batch.id, &batch.used)?;
        }
        let mut journal = UsageJournal::begin(state)?;
        journal.take(ledger)?;
        journal.sync()
    }

    /// True while it is not known whether a batch was kept.
    #[cfg(test)]
    pub(crate) fn has_unsure_usage(&self) -> bool {
        self.0.batches.lock().unsure.is_some()
    }

    /// Use by a token; `None` when it was never used, or not for long.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn usage(&self, token_id: &str) -> Result<Option<Tally>, StoreError> {
        self.read(|transaction| {
            let usage = transaction.open_table(USAGE)?;
            Ok(usage.get(token_id)?.map(|entry| tally_of(entry.value())))
        })
    }

    /// Use by several tokens, in their order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store can't be read.
    pub fn usage_of(&self, token_ids: &[&str]) -> Result<Vec<Option<Tally>>, StoreError> {
        self.read(|transaction| {
            let usage = transaction.open_table(USAGE)?;
            token_ids
                .iter()
                .map(|token_id| Ok(usage.get(*token_id)?.map(|entry| tally_of(entry.value()))))
                .collect()
        })
    }
}

/// Brings the ledger's sums, and who showed a token, into the store until told to end,
/// and once more then. What can't be kept goes back, and is tried again with the next;
/// at the end it is left beside the store.
pub async fn keep(
    store: Store,
    ledger: Arc<Ledger>,
    holders: Arc<Holders>,
    ending: CancellationToken,
) {
    let mut failing = false;
    let mut looked = None;
    loop {
        if looked.is_none_or(|at: Instant| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            add_left(&store).await;
        }
        tokio::select! {
            () = ending.cancelled() => break,
            () = sleep(FLUSH) => {}
        }
        let result = flush(&store, &ledger, &holders).await;
        if let (Err(error), false) = (&result, failing) {
            tracing::warn!(error = %error, "the usage of tokens can't be kept now, and is held in memory");
        }
        failing = result.is_err();
    }
    let (last, sums, who) = (store.clone(), Arc::clone(&ledger), Arc::clone(&holders));
    let work = move || last.keep_last(&sums, &who);
    // A task that was cancelled at the end of the runtime has nothing to say.
    if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
        tracing::error!(error = %error, "the last usage of tokens is lost");
    }
    add_left(&store).await;
}

async fn add_left(store: &Store) {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || store.add_left()).await {
        Ok(Ok(count)) if count > 0 => {
            tracing::info!("took over the usage that {count} gateways before left");
        }
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "usage that was left can't be taken over now");
        }
        // A task that was cancelled at the end of the runtime has nothing to say.
        _ => {}
    }
}

async fn flush(
    store: &Store,
    ledger: &Arc<Ledger>,
    holders: &Arc<Holders>,
) -> Result<(), StoreError> {
    let store = store.clone();
    let (ledger, holders) = (Arc::clone(ledger), Arc::clone(holders));
    let work = move || store.keep_usage(&ledger, &holders);
    // A task that was cancelled at the end of the runtime has nothing to say.
    tokio::task::spawn_blocking(work).await.unwrap_or(Ok(()))
}

/// Adds what tokens used within a transaction; keeps at most `kept_max`.
pub(super) fn add(
    transaction: &WriteTransaction,
    used: &[(Arc<str>, Tally)],
    kept_max: usize,
) -> Result<(), StoreError> {
    let mut usage = transaction.open_table(USAGE)?;
    for (token_id, tally) in used {
        let earlier = usage.get(&**token_id)?.map(|entry| tally_of(entry.value()));
        let sum = earlier.unwrap_or_default().plus(*tally);
        usage.insert(&**token_id, row_of(sum))?;
    }
    if usage.len()? > kept_max as u64 {
        let mut last_uses = Vec::new();
        for entry in usage.iter()? {
            last_uses.push(entry?.1.value().3);
        }
        let mut forget = Forget::over(last_uses, kept_max);
        usage.retain(|_, (.., last_used)| forget.keeps(last_used))?;
    }
    Ok(())
}

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(USAGE)?;
    Ok(())
}

pub(super) fn tally_of(
    (requests, prompt_tokens, completion_tokens, last_used): (u64, u64, u64, u64),
) -> Tally {
    Tally {
        requests,
        prompt_tokens,
        completion_tokens,
        last_used,
    }
}

fn row_of(tally: Tally) -> (u64, u64, u64, u64) {
    (
        tally.requests,
        tally.prompt_tokens,
        tally.completion_tokens,
        tally.last_used,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{Disk, Fault};

    fn used(requests: u64, last_used: u64) -> Tally {
        Tally {
            requests,
            prompt_tokens: 10 * requests,
            completion_tokens: 100 * requests,
            last_used,
        }
    }

    #[test]
    fn usage_adds_up_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("01A"), Arc::from("01B"));
        let store = Store::open(dir.path()).unwrap();
        store
            .add_usage(&[(Arc::clone(&a), used(1, 5)), (b, used(2, 7))])
            .unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        store.add_usage(&[(a, used(3, 4))]).unwrap();
        assert_eq!(store.usage("01A").unwrap(), Some(used(4, 5)));
        let both = store.usage_of(&["01B", "01C"]).unwrap();
        assert_eq!(both, [Some(used(2, 7)), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn usage_counts_once_wherever_the_disk_fails() {
        for fault in [Fault::Error, Fault::Half] {
            for after in 0..40 {
                let dir = tempfile::tempdir().unwrap();
                let (disk, key) = (Disk::new(), dir.path().join("tokens.key"));
                let open = |disk: &Disk| Store::open_on(disk, dir.path(), &key, Arc::default());
                let store = open(&disk).unwrap().store;
                let (ledger, holders) = (Ledger::new(), Holders::default());
                let id: Arc<str> = Arc::from("01A");
                ledger.add(&id, 10, 100, 5);
                disk.fail_after(after, fault);
                let kept = store.keep_usage(&ledger, &holders);
                ledger.add(&id, 10, 100, 6);
                disk.set_broken(kept.is_err().then_some(Fault::Error));
                // The end in order, with a disk that may still fail.
                store.keep_last(&ledger, &holders).unwrap();
                drop(store);
                disk.heal();
                let store = open(&disk).unwrap().store;
                store.add_left().unwrap();
                let sum = store.usage("01A").unwrap();
                assert_eq!(sum, Some(used(2, 6)), "{fault:?} after {after}");
            }
        }
    }

    #[test]
    fn beyond_the_bound_those_unused_for_longest_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let all: Vec<_> = (0..21_u64)
            .map(|n| (Arc::from(format!("{n:02}")), used(1, 100 - n)))
            .collect();
        store.add_usage_within(&all[..20], 20).unwrap();
        assert_eq!(store.usage("19").unwrap(), Some(used(1, 81)));
        store.add_usage_within(&all[20..], 20).unwrap();
        // 21 are too many; 18 are left, and the three unused for longest are gone.
        let kept = |n: u64| store.usage(&format!("{n:02}")).unwrap().is_some();
        assert!((0..18).all(kept) && !(18..21).any(kept));
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_is_kept_within_a_second_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (ledger, ending) = (Arc::new(Ledger::new()), CancellationToken::new());
        let (kept, holders) = (Arc::clone(&ledger), Arc::default());
        let mut keeping = Box::pin(keep(store.clone(), kept, holders, ending.clone()));
        let id: Arc<str> = Arc::from("01A");
        ledger.add(&id, 10, 100, 5);
        let since = Instant::now();
        let kept = async {
            while store.usage("01A").unwrap().is_none() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = &mut keeping => panic!("ended"),
            () = kept => {}
        }
        assert_eq!(store.usage("01A").unwrap(), Some(used(1, 5)));
        assert!(since.elapsed() < Duration::from_secs(1));
        ledger.add(&id, 10, 100, 6);
        ending.cancel();
        keeping.await;
        assert_eq!(store.usage("01A").unwrap(), Some(used(2, 6)));
        assert_eq!(ledger.take(), []);
    }
}
