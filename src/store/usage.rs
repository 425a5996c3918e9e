//! What each token has used since it was issued.
//!
//! Owns one table of sums by token id. [`keep`] brings them here from the ledger in
//! memory every [`FLUSH`], in one transaction: a crash loses at most what came within a
//! second. What a gateway could not bring here itself it leaves beside ([`super::left`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use tokio_util::sync::CancellationToken;

use super::forget::Forget;
use super::{Store, StoreError, left};
use crate::auth::holders::Holders;
use crate::telemetry::usage::{Ledger, Tally};
use crate::time::{Instant, sleep};

/// By token id: requests, prompt tokens, completion tokens, last use in seconds
/// since 1970.
pub(super) const USAGE: TableDefinition<'_, &str, (u64, u64, u64, u64)> =
    TableDefinition::new("usage");

/// Most tokens whose usage is kept. Beyond, those unused for longest are forgotten.
pub const KEPT_MAX: usize = 100_000;

/// Between two transactions. Where nothing was used there is none.
pub const FLUSH: Duration = Duration::from_millis(500);

/// Between two looks for what gateways before left.
const LOOK: Duration = Duration::from_secs(5);

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

    /// What a token has used; `None` when it was never used, or not for long.
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

    /// What several tokens have used, in their order.
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
    if flush(&store, &ledger, &holders).await.is_err() {
        leave(&store, &ledger).await;
    }
    add_left(&store).await;
}

/// Writes the ledger beside a store that fails at the end.
async fn leave(store: &Store, ledger: &Arc<Ledger>) {
    let (store, ledger) = (store.clone(), Arc::clone(ledger));
    let work = move || {
        let state = store.directory().ok_or(io::ErrorKind::NotFound)?;
        let mut journal = left::Journal::begin(state)?;
        journal.take(&ledger)?;
        journal.sync()
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
        tracing::error!(error = %error, "the last usage of tokens is lost");
    }
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
    let work = move || {
        let noted = store.note_seen(&holders);
        let taken = ledger.take();
        let kept = store.add_usage(&taken);
        if kept.is_err() {
            ledger.give_back(taken);
        }
        kept.and(noted)
    };
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
