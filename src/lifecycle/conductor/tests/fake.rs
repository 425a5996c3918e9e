//! A scripted place to run workers, and scripted workers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Deployment, OffloadTo};
use crate::deployment;
use crate::lifecycle::act::calls::{Callee, Calls, Depth, Proven};
use crate::lifecycle::act::launcher::{
    Boxed, Exit, FetchFailure, LaunchError, Launched, Launcher, ListError, Nonce, Order,
    WorkerActivity,
};
use crate::models::pace::{FetchProgress, Pace};
use crate::vllm::fit::Fit;

/// State of the scripted world: what it does next, and what it was asked.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fault of its own"
)]
pub(super) struct World {
    /// Every worker that was launched and has not ended.
    pub(super) alive: HashMap<Nonce, CancellationToken>,
    /// Calls so far, in order.
    pub(super) log: Vec<String>,
    /// Fates of the next starts; ready when empty.
    pub(super) starts: VecDeque<Fate>,
    /// Version that workers tell of their engine; none when empty.
    pub(super) version: String,
    /// True if calls to sleep fail.
    pub(super) sleep_fails: bool,
    /// Workers that ignore being asked to end.
    pub(super) deaf: bool,
    /// True if nothing can be written down.
    pub(super) full: bool,
    /// True if an install goes on without end.
    pub(super) installing: bool,
    /// True if probes fail.
    pub(super) unwell: bool,
    /// Workers that the last run left.
    pub(super) left: Vec<Launched>,
    pub(super) most_at_once: usize,
    /// True if models have to come here first; `fetch_ends` says how, well when empty.
    pub(super) fetches: bool,
    pub(super) fetch_ends: VecDeque<FetchFailure>,
    /// Memory that the models tell that they will need.
    pub(super) fit: Option<Arc<Fit>>,
    /// Fetches that are under way.
    pub(super) fetching: usize,
}

/// Fate of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Crashes,
    NeverReady,
    Unlaunchable,
}

/// Time that a fetch takes, and its bytes.
pub(super) const FETCH: Duration = Duration::from_mins(10);
pub(super) const FETCH_BYTES: u64 = 100 << 20;

/// Time that a start takes.
pub(super) const LOAD: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Default)]
pub(super) struct Fake(Arc<Mutex<World>>);

impl Fake {
    pub(super) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, text: &str) {
        self.world().log.push(text.to_owned());
    }

    pub(super) fn count(&self, what: &str) -> usize {
        self.world().log.iter().filter(|line| *line == what).count()
    }

    pub(super) fn end(&self, nonce: &Nonce) {
        if let Some(gone) = self.world().alive.remove(nonce) {
            gone.cancel();
        }
    }

    pub(super) fn crash_all(&self) {
        let nonces: Vec<_> = self.world().alive.keys().cloned().collect();
        for nonce in &nonces {
            self.end(nonce);
        }
    }
}

/// A fetch under way, ended when dropped.
struct UnderWay<'a>(&'a Fake);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.world().fetching -= 1;
    }
}

impl Launcher for Fake {
    fn fingerprint(&self, spec: &Deployment) -> Arc<str> {
        Arc::from(format!("{:?}", spec.engine))
    }

    fn prepare<'a>(
        &'a self,
        _: &'a Deployment,
        _: &'a deployment::Handle,
    ) -> Boxed<'a, Result<(), LaunchError>> {
        Box::pin(async {
            if self.world().installing {
                self.note("install");
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }

    fn fetches(&self, _: &Deployment) -> bool {
        self.world().fetches
    }

    fn fetch<'a>(
        &'a self,
        _: &'a Deployment,
        _: &'a deployment::Handle,
        progress: &'a watch::Sender<Option<FetchProgress>>,
    ) -> Boxed<'a, Result<(), FetchFailure>> {
        Box::pin(async move {
            self.note("fetch");
            self.world().fetching += 1;
            let _under_way = UnderWay(self);
            let mut pace = Pace::default();
            for step in 0..10 {
                let done = FETCH_BYTES / 10 * step;
                pace.note(FETCH / 10 * u32::try_from(step).unwrap(), done);
                progress.send_replace(Some(FetchProgress::of(&pace, done, FETCH_BYTES)));
                crate::time::sleep(FETCH / 10).await;
            }
            self.world().fetch_ends.pop_front().map_or(Ok(()), Err)
        })
    }

    fn foretells(&self, _: &Deployment) -> bool {
        self.world().fit.is_some()
    }

    fn foretell(&self, _: &Deployment) -> Option<Arc<Fit>> {
        self.world().fit.clone()
    }

    fn submit(&self, order: Order) -> Boxed<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            self.note("launch");
            self.can_record().map_err(LaunchError::State)?;
            let mut world = self.world();
            if world.starts.front() == Some(&Fate::Unlaunchable) {
                world.starts.pop_front();
                return Err(LaunchError::Spec("there is no such model".to_owned()));
            }
            world
                .alive
                .insert(order.nonce.clone(), CancellationToken::new());
            world.most_at_once = world.most_at_once.max(world.alive.len());
            Ok(Launched {
                generation: order.generation,
                gpus: Arc::clone(&order.gpus),
                ..launched(&order.spec, order.nonce)
            })
        })
    }

    fn can_record(&self) -> Result<(), String> {
        if self.world().full {
            return Err("its record can't be written: no space left on /state".to_owned());
        }
        Ok(())
    }

    fn list(&self) -> Boxed<'_, Result<Vec<Launched>, ListError>> {
        let left = std::mem::take(&mut self.world().left);
        for launched in &left {
            let token = CancellationToken::new();
            self.world().alive.insert(launched.nonce.clone(), token);
        }
        Box::pin(async { Ok(left) })
    }

    fn activity(&self, _nonce: &Nonce) -> Option<WorkerActivity> {
        Some(WorkerActivity::default())
    }

    fn find(&self, _nonce: &Nonce) -> Option<Launched> {
        None
    }

    fn adopt(&self, _nonce: &Nonce, _handle: &Arc<deployment::Handle>) {
        self.note("adopt");
    }

    fn stop(&self, nonce: &Nonce) {
        self.note("stop");
        if !self.world().deaf {
            self.end(nonce);
        }
    }

    fn kill(&self, nonce: &Nonce) {
        self.note("kill");
        self.end(nonce);
    }

    fn exited(&self, nonce: &Nonce) -> Boxed<'_, Exit> {
        let gone = self.world().alive.get(nonce).cloned();
        Box::pin(async move {
            if let Some(gone) = gone {
                gone.cancelled().await;
            }
            let how = "exited with code 1".to_owned();
            Exit {
                how,
                out_of_memory: false,
            }
        })
    }

    fn note_asleep(&self, _nonce: &Nonce, _asleep: Option<OffloadTo>) {}
}

impl Calls for Fake {
    fn ready(&self, worker: Callee) -> Boxed<'_, ()> {
        let fate = self.world().starts.pop_front();
        let version = self.world().version.clone();
        if !version.is_empty() {
            worker.taste.version.get_or_init(|| version);
        }
        Box::pin(async move {
            match fate {
                None => crate::time::sleep(LOAD).await,
                Some(Fate::Crashes) => {
                    crate::time::sleep(LOAD).await;
                    self.end(&worker.launched.nonce);
                    std::future::pending::<()>().await;
                }
                Some(_) => std::future::pending().await,
            }
        })
    }

    fn sleep(&self, _worker: Callee, _to: OffloadTo) -> Boxed<'_, Result<(), String>> {
        self.note("sleep");
        let fails = self.world().sleep_fails;
        Box::pin(async move {
            crate::time::sleep(Duration::from_millis(300)).await;
            if fails { Err("no".to_owned()) } else { Ok(()) }
        })
    }

    fn wake(&self, _worker: Callee, _from: OffloadTo) -> Boxed<'_, Result<(), String>> {
        self.note("wake");
        Box::pin(async {
            crate::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        })
    }

    fn probe(&self, _worker: Callee, depth: Depth) -> Boxed<'_, Result<(), String>> {
        self.note(match depth {
            Depth::Look => "look",
            Depth::Answer => "probe",
        });
        let unwell = self.world().unwell;
        Box::pin(async move {
            if unwell {
                return Err("no answer within 20s".to_owned());
            }
            Ok(())
        })
    }

    fn prove(&self, worker: Callee) -> Boxed<'_, Result<Proven, String>> {
        Box::pin(async move {
            match worker.launched.asleep {
                _ if worker.launched.api_key.is_empty() => Err("it is another".to_owned()),
                Some(_) => Ok(Proven::Asleep),
                None => Ok(Proven::Awake),
            }
        })
    }
}

pub(super) fn launched(spec: &Deployment, nonce: Nonce) -> Launched {
    Launched {
        nonce,
        deployment: spec.id.clone(),
        generation: crate::names::Generation(1),
        address: crate::outbound::Address::Unix("/tmp/none.sock".into()),
        api_key: Arc::from("key"),
        pid: Some(7),
        fingerprint: Arc::from(format!("{:?}", spec.engine)),
        gpus: Arc::from([]),
        asleep: None,
    }
}
