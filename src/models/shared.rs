//! Fetches that several wait for: one of a model at a time, however many want it.
//!
//! A fetch runs as a task of its own while anyone waits for it, and ends with the last.
//! The next goes on from where it was. No more than so many run at once; the others wait
//! for their turn, in the order in which they were asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::fetch::Unfetched;
use super::hub::HubModel;
use super::pace::{FetchProgress, Pace};
use super::pull::{Hearer, Puller};
use super::source::FetchPlan;
use crate::tasks::Tasks;
use crate::time::{Clock, sleep};

/// A fetch of which nothing came for so long has ended.
const STALL_MAX: Duration = Duration::from_mins(10);

/// State of a fetch.
#[derive(Clone, Debug)]
enum State {
    /// Progress; `None` until the plan is known.
    UnderWay(Option<FetchProgress>),
    Ended(Result<(), Arc<Unfetched>>),
}

type UnderWay = Weak<watch::Sender<State>>;

/// The fetches of this process.
#[derive(Debug)]
pub struct Fetches {
    tasks: Tasks,
    clock: Clock,
    puller: Puller,
    /// A permit for each that may run.
    turns: Arc<Semaphore>,
    /// Held for a look or a change, never over an await.
    under_way: Mutex<HashMap<HubModel, UnderWay>>,
}

impl Fetches {
    /// No fetch yet; at most so many at once.
    pub fn new(tasks: Tasks, clock: Clock, puller: Puller, at_once_max: u32) -> Self {
        let turns = usize::try_from(at_once_max).unwrap_or(1);
        Self {
            tasks,
            clock,
            puller,
            turns: Arc::new(Semaphore::new(turns)),
            under_way: Mutex::default(),
        }
    }

    /// The record and the limits that they keep to.
    pub fn puller(&self) -> &Puller {
        &self.puller
    }

    /// Waits until a model is here; `hears` is told how far it is. Dropping the future
    /// ends the fetch if nobody else waits for it.
    ///
    /// # Errors
    ///
    /// The reason why it is not here.
    pub async fn fetch(
        &self,
        model: &HubModel,
        hears: impl Fn(FetchProgress),
    ) -> Result<(), Arc<Unfetched>> {
        loop {
            let mut state = self.join(model);
            loop {
                match state.borrow_and_update().clone() {
                    State::UnderWay(progress) => progress.into_iter().for_each(&hears),
                    State::Ended(ended) => return ended,
                }
                if state.changed().await.is_err() {
                    break;
                }
            }
            // It was given up just as we came: one of our own then, unless all ends.
            if self.tasks.ending().is_cancelled() {
                return Err(Arc::new(Unfetched::Busy(model.name.clone())));
            }
        }
    }

    /// The fetch of a model, begun if there is none. It is the same whatever the one that
    /// runs may reach.
    fn join(&self, model: &HubModel) -> watch::Receiver<State> {
        let same = HubModel {
            before: None,
            ..model.clone()
        };
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, state| state.strong_count() > 0);
        if let Some(state) = under_way.get(&same).and_then(Weak::upgrade)
            && matches!(*state.borrow(), State::UnderWay(_))
            && state.receiver_count() > 0
        {
            return state.subscribe();
        }
        let (state, receiver) = watch::channel(State::UnderWay(None));
        let state = Arc::new(state);
        under_way.insert(same, Arc::downgrade(&state));
        let (puller, model, clock) = (self.puller.clone(), model.clone(), self.clock);
        let (ending, turns) = (self.tasks.ending(), Arc::clone(&self.turns));
        self.tasks.spawn("fetch of a model", async move {
            let told = Told::new(clock, &state);
            let fetched = async {
                // Its time begins with its turn; never closed.
                let _turn = turns.acquire().await;
                tokio::select! {
                    ended = puller.pull(&model.name, &model, &told) => ended.map(drop),
                    () = told.stalled() => Err(Unfetched::Stalled(model.name.clone())),
                }
            };
            let ended = tokio::select! {
                ended = fetched => ended,
                () = state.closed() => return,
                () = ending.cancelled() => return,
            };
            state.send_replace(State::Ended(ended.map_err(Arc::new)));
        });
        receiver
    }
}

/// Tells all who wait how far a fetch is.
struct Told<'a> {
    clock: Clock,
    state: &'a watch::Sender<State>,
    /// Held for a look or a change, never over an await.
    pace: Mutex<(Pace, FetchProgress)>,
}

impl<'a> Told<'a> {
    fn new(clock: Clock, state: &'a watch::Sender<State>) -> Self {
        let (pace, total) = (Pace::default(), 0);
        let progress = FetchProgress::of(&pace, 0, total);
        Self {
            clock,
            state,
            pace: Mutex::new((pace, progress)),
        }
    }

    fn tell(&self, done: u64, total: Option<u64>) {
        let mut held = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let total = total.unwrap_or(held.1.total);
        if total == 0 {
            return;
        }
        held.0.note(self.clock.now(), done);
        held.1 = FetchProgress::of(&held.0, done, total);
        self.state.send_replace(State::UnderWay(Some(held.1)));
    }

    /// Ends once no byte has come for too long.
    async fn stalled(&self) {
        let done = || {
            let held = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            held.1.done
        };
        let mut before = done();
        loop {
            sleep(STALL_MAX).await;
            let now = done();
            if now == before {
                return;
            }
            before = now;
        }
    }
}

impl Hearer for Told<'_> {
    fn begins(&self, plan: &FetchPlan) {
        // A whole model is no fetch.
        if plan.missing() > 0 {
            self.tell(plan.there(), Some(plan.total()));
        }
    }

    fn came(&self, done: u64) {
        self.tell(done, None);
    }

    fn other_came(&self, done: u64, total: u64) {
        self.tell(done, Some(total));
    }

    fn says(&self, words: &str) {
        tracing::info!("{words}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::pin::pin;

    use super::super::record::FetchRecord;
    use super::super::room::{DiskLimits, DiskShare};
    use super::*;
    use crate::time::timeout;

    /// A Python that notes that it began, tells a plan of 4 bytes, and is done once the
    /// file `go` can be read, which is a pipe.
    fn model(dir: &Path) -> HubModel {
        let folder = dir.join("hub/models--acme--tiny").display().to_string();
        let commit = "a".repeat(40);
        let file = r#"{"name":"config.json","size":4,"blob":"b","there":1,"whole":false}"#;
        let plan = format!(
            r#"{{"event":"plan","commit":"{commit}","revision":"main","folder":"{folder}","files":[{file}]}}"#
        );
        let done = r#"{"event":"done","snapshot":"/x"}"#;
        let script = format!(
            "#!/bin/sh\ncd {dir}\necho >> began\necho '{plan}'\nread word\nread word < go\necho '{done}'\n",
            dir = dir.display()
        );
        let python = dir.join("python");
        std::fs::write(&python, script).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&python, mode).unwrap();
        let mut pipe = std::process::Command::new("mkfifo");
        assert!(pipe.arg(dir.join("go")).status().unwrap().success());
        HubModel {
            python,
            name: "acme/tiny".to_owned(),
            revision: None,
            environment: None,
            before: None,
        }
    }

    fn fetches(dir: &Path) -> Fetches {
        let limits = DiskLimits {
            budget: None,
            free_min: DiskShare::Bytes(0),
        };
        let puller = Puller {
            record: FetchRecord::at(&dir.join("state")),
            limits,
        };
        Fetches::new(Tasks::new(), Clock::start(), puller, 1)
    }

    fn times_begun(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("began"))
            .unwrap()
            .lines()
            .count()
    }

    /// Waits until a fetch has told how far it is.
    async fn under_way(fetches: &Fetches, model: &HubModel) {
        let (told, mut progress) = watch::channel(None);
        let hears = |now| {
            told.send_replace(Some(now));
        };
        let fetch = fetches.fetch(model, hears);
        tokio::select! {
            ended = fetch => panic!("it ended: {ended:?}"),
            first = progress.wait_for(Option::is_some) => {
                let progress = first.unwrap().unwrap();
                assert_eq!((progress.done, progress.total), (1, 4));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_of_which_nothing_comes_any_more_is_stalled() {
        let (state, _receiver) = watch::channel(State::UnderWay(None));
        let told = Told::new(Clock::start(), &state);
        let mut stalled = pin!(told.stalled());
        for done in 1..=10 {
            told.tell(done, Some(100));
            let ended = timeout(STALL_MAX / 2, &mut stalled).await;
            assert!(ended.is_err(), "stalled at {done}");
        }
        let ended = timeout(STALL_MAX * 2, stalled).await;
        assert!(ended.is_ok(), "it waits for ever");
    }

    #[tokio::test]
    async fn one_fetch_serves_all_who_wait_and_outlives_each_but_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let (fetches, model) = (fetches(dir.path()), model(dir.path()));
        let mut first = pin!(fetches.fetch(&model, |_| {}));
        tokio::select! {
            biased;
            ended = &mut first => panic!("it ended: {ended:?}"),
            // Comes and goes: the first still waits.
            () = under_way(&fetches, &model) => {}
        }
        let second = fetches.fetch(&model, |_| {});
        let go = dir.path().join("go");
        let say = tokio::task::spawn_blocking(move || std::fs::write(go, "go\n"));
        let (first, second, said) = tokio::join!(first, second, say);
        said.unwrap().unwrap();
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert_eq!(times_begun(dir.path()), 1);
    }

    #[tokio::test]
    async fn another_model_waits_for_its_turn() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fetches = fetches(dir.path());
        let (model, other_model) = (model(dir.path()), model(other.path()));
        let mut first = pin!(fetches.fetch(&model, |_| {}));
        let mut second = pin!(fetches.fetch(&other_model, |_| {}));
        tokio::select! {
            biased;
            ended = &mut first => panic!("it ended: {ended:?}"),
            ended = &mut second => panic!("it ended: {ended:?}"),
            () = under_way(&fetches, &model) => {}
        }
        assert!(!other.path().join("began").exists(), "two at once");
        let go = |dir: &Path| {
            let go = dir.join("go");
            tokio::task::spawn_blocking(move || std::fs::write(go, "go\n"))
        };
        let (first, second, ..) = tokio::join!(first, second, go(dir.path()), go(other.path()));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert_eq!(times_begun(other.path()), 1);
    }

    #[tokio::test]
    async fn a_fetch_ends_with_the_last_who_waits_and_the_next_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (fetches, model) = (fetches(dir.path()), model(dir.path()));
        for times in 1..=3 {
            under_way(&fetches, &model).await;
            // Once more where the one before still held the model's lock.
            assert!(times_begun(dir.path()) >= times);
        }
    }
}
