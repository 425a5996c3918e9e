//! A fetch of a model, with all that belongs to it: the lock, the place, the record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fetch::{Judged, Provider, Unfetched, Watch};
use super::lock::ModelLock;
use super::record::{FetchRecord, there_of};
use super::room::{Disk, DiskLimits};
use super::source::{FetchPlan, Fetched};
use crate::time::sleep;

/// Pause between two looks if another fetch has ended.
const LOCK_POLL: Duration = Duration::from_millis(500);

/// After so many of them it is looked how far that is.
const LOOK_AFTER: u32 = 10;

/// Fetches models into what the record keeps account of.
#[derive(Clone, Debug)]
pub struct Puller {
    /// Record of the models that were fetched.
    pub record: FetchRecord,
    /// Space of the disk that models may take.
    pub limits: DiskLimits,
}

/// Hears how a fetch goes.
pub trait Hearer: Send + Sync {
    /// Hears the beginning: bytes that are there, and bytes of all.
    fn begins(&self, plan: &FetchPlan);
    /// Hears that so many bytes are there.
    fn came(&self, done: u64);
    /// Another fetch is at work, and has brought so many bytes of so many.
    fn other_came(&self, _done: u64, _total: u64) {}
    /// Hears of something else.
    fn says(&self, words: &str);
}

impl Puller {
    /// Fetches a model called `name`. Dropping the future ends it, and the next goes on
    /// from there.
    ///
    /// # Errors
    ///
    /// [`Unfetched`], in a sentence that says what to do.
    pub async fn pull(
        &self,
        name: &str,
        source: &dyn Provider,
        hearer: &dyn Hearer,
    ) -> Result<Fetched, Unfetched> {
        let under_way = UnderWay {
            puller: self,
            name,
            hearer,
            held: Mutex::default(),
        };
        loop {
            let fetched = source.fetch(&under_way).await;
            let Err(Unfetched::Busy(_)) = fetched else {
                return fetched;
            };
            hearer.says(&format!(
                "another fetch of {name} is at work: waiting for its end"
            ));
            // Planned anew then: what the other brought is there, and is the other's.
            under_way.wait().await?;
        }
    }
}

struct UnderWay<'a> {
    puller: &'a Puller,
    name: &'a str,
    hearer: &'a dyn Hearer,
    held: Mutex<Held>,
}

/// The model's own directory once it is known, and its lock once we have it.
#[derive(Default)]
struct Held {
    folder: Option<PathBuf>,
    /// Plan of another fetch that has the lock.
    other: Option<FetchPlan>,
    lock: Option<Arc<ModelLock>>,
}

impl UnderWay<'_> {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if nobody has it.
    fn take(&self, folder: &Path) -> Result<bool, Unfetched> {
        let mut held = self.held();
        held.folder = Some(folder.to_owned());
        if held.lock.is_none() {
            let lock = ModelLock::take(folder).map_err(|source| {
                let path = folder.to_owned();
                Unfetched::Cache { path, source }
            })?;
            held.lock = lock.map(Arc::new);
        }
        Ok(held.lock.is_some())
    }

    async fn wait(&self) -> Result<(), Unfetched> {
        let Some(plan) = self.held().other.take() else {
            return Ok(());
        };
        let plan = Arc::new(plan);
        for polls in 0_u32.. {
            if self.take(&plan.folder)? {
                break;
            }
            if polls % LOOK_AFTER == 0 {
                self.look_at_other(&plan).await;
            }
            sleep(LOCK_POLL).await;
        }
        Ok(())
    }

    /// Tells how far another fetch is.
    async fn look_at_other(&self, plan: &Arc<FetchPlan>) {
        let other = Arc::clone(plan);
        let there = tokio::task::spawn_blocking(move || there_of(&other)).await;
        if let Ok(there) = there {
            self.hearer.other_came(there, plan.total());
        }
    }
}

impl Watch for UnderWay<'_> {
    fn planned<'a>(&'a self, plan: &'a FetchPlan) -> Judged<'a> {
        Box::pin(async move {
            if !self.take(&plan.folder)? {
                self.held().other = Some(plan.clone());
                return Err(Unfetched::Busy(self.name.to_owned()));
            }
            let (puller, name, owned) = (self.puller.clone(), self.name.to_owned(), plan.clone());
            let judged = tokio::task::spawn_blocking(move || admit(&puller, &name, &owned)).await;
            judged.unwrap_or_else(|_| Err(Unfetched::Busy(self.name.to_owned())))?;
            self.hearer.begins(plan);
            Ok(())
        })
    }

    fn came(&self, done: u64) -> Result<(), Unfetched> {
        self.hearer.came(done);
        let folder = self.held().folder.clone();
        if let Some(folder) = folder
            && let Some(disk) = Disk::of(&folder)
        {
            self.puller.limits.check_on(&folder, disk)?;
        }
        Ok(())
    }

    fn says(&self, words: &str) {
        self.hearer.says(words);
    }
}

/// Admits a fetch where there is place for it, and notes what is about to come.
fn admit(puller: &Puller, name: &str, plan: &FetchPlan) -> Result<(), Unfetched> {
    puller.record.admit(name, plan, |claimed| {
        let Some(disk) = Disk::of(&plan.folder) else {
            return Ok(());
        };
        let checked = puller
            .limits
            .check(&plan.folder, disk, plan.missing(), claimed);
        Ok(checked?)
    })
}
