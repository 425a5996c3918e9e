//! Tidegate killed at each step of each transition, and started again.
//!
//! The scripted world below outlives the conductor as processes and their records
//! do. Every effect on it is a step before and a step after; at one of them the
//! conductor dies, and nothing that it still does has any effect. Every step of a
//! script through all transitions is tried, and for each of them a second death
//! in each of the first steps of the next life.

use super::*;
use crate::lifecycle::act::calls::{Callee, Calls, Depth, Proven};
use crate::lifecycle::act::launcher::{
    Boxed, Exit, LaunchError, Launched, Launcher, ListError, Order,
};
use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Steps of a second life at which it ends too.
const SECOND_STEPS: usize = 4;
/// More steps than any script takes.
const STEPS_MAX: usize = 200;

/// A process.
#[derive(Debug)]
struct Process {
    of: DeploymentId,
    asleep: Option<OffloadTo>,
    gone: CancellationToken,
}

/// State that outlives the conductor: processes, and what was written down of them.
#[derive(Debug, Default)]
struct Kept {
    processes: BTreeMap<String, Process>,
    /// With whether the process was written down too, or only the intent.
    records: BTreeMap<String, (Launched, bool)>,
}

impl Kept {
    fn end(&mut self, nonce: &Nonce) {
        if let Some(process) = self.processes.remove(nonce.as_str()) {
            process.gone.cancel();
        }
        self.records.remove(nonce.as_str());
    }
}

/// One life of Tidegate in that world.
#[derive(Clone, Debug)]
struct Life {
    kept: Arc<Mutex<Kept>>,
    /// Steps done, and at which it ends.
    steps: Arc<Mutex<usize>>,
    ends_at: usize,
    dead: CancellationToken,
}

impl Life {
    fn new(kept: &Arc<Mutex<Kept>>, ends_at: usize) -> Self {
        Self {
            kept: Arc::clone(kept),
            steps: Arc::default(),
            ends_at,
            dead: CancellationToken::new(),
        }
    }

    /// One step further; whether it still lives.
    fn step(&self) -> bool {
        let mut steps = self.steps.lock().unwrap();
        if *steps == self.ends_at {
            self.dead.cancel();
            return false;
        }
        *steps += 1;
        true
    }

    /// An effect, with a step before and one after it.
    fn does(&self, effect: impl FnOnce(&mut Kept)) -> bool {
        if !self.step() {
            return false;
        }
        effect(&mut self.kept.lock().unwrap());
        self.step()
    }
}

impl Launcher for Life {
    fn fingerprint(&self, spec: &Deployment) -> Arc<str> {
        Arc::from(format!("{:?}", spec.engine))
    }

    fn prepare<'a>(
        &'a self,
        _: &'a Deployment,
        _: &'a deployment::Handle,
    ) -> Boxed<'a, Result<(), LaunchError>> {
        Box::pin(async { Ok(()) })
    }

    fn submit(&self, order: Order) -> Boxed<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            let launched = Launched {
                generation: order.generation,
                gpus: Arc::clone(&order.gpus),
                ..launched(&order.spec, order.nonce)
            };
            let nonce = launched.nonce.as_str().to_owned();
            let record = |known| (nonce.clone(), (launched.clone(), known));
            let process = Process {
                of: launched.deployment.clone(),
                asleep: None,
                gone: CancellationToken::new(),
            };
            let done = self.does(|kept| kept.records.extend([record(false)]))
                && self.does(|kept| kept.processes.extend([(nonce.clone(), process)]))
                && self.does(|kept| kept.records.extend([record(true)]));
            if !done {
                pending::<()>().await;
            }
            Ok(launched)
        })
    }

    fn list(&self) -> Boxed<'_, Result<Vec<Launched>, ListError>> {
        let mut kept = self.kept.lock().unwrap();
        let records = kept.records.clone();
        let mut living = Vec::new();
        for (nonce, (launched, known)) in records {
            if known && kept.processes.contains_key(&nonce) {
                living.push(launched);
            } else {
                kept.end(&launched.nonce);
            }
        }
        Box::pin(async { Ok(living) })
    }

    fn find(&self, _nonce: &Nonce) -> Option<Launched> {
        None
    }

    fn adopt(&self, _nonce: &Nonce, _handle: &Arc<deployment::Handle>) {}

    fn stop(&self, nonce: &Nonce) {
        self.does(|kept| kept.end(nonce));
    }

    fn kill(&self, nonce: &Nonce) {
        self.does(|kept| kept.end(nonce));
    }

    fn exited(&self, nonce: &Nonce) -> Boxed<'_, Exit> {
        let kept = self.kept.lock().unwrap();
        let gone = kept.processes.get(nonce.as_str());
        let gone = gone.map(|process| process.gone.clone());
        drop(kept);
        Box::pin(async move {
            if let Some(gone) = gone {
                gone.cancelled().await;
            }
            Exit {
                how: "ended".to_owned(),
                out_of_memory: false,
            }
        })
    }

    fn note_asleep(&self, nonce: &Nonce, asleep: Option<OffloadTo>) {
        self.does(|kept| {
            if let Some((launched, _)) = kept.records.get_mut(nonce.as_str()) {
                launched.asleep = asleep;
            }
        });
    }
}

impl Life {
    /// Turns a worker to sleep or wakes it.
    async fn turn(&self, worker: &Callee, asleep: Option<OffloadTo>) -> Result<(), String> {
        let nonce = worker.launched.nonce.as_str();
        let done = self.does(|kept| {
            if let Some(process) = kept.processes.get_mut(nonce) {
                process.asleep = asleep;
            }
        });
        if !done {
            pending::<()>().await;
        }
        crate::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }
}

impl Calls for Life {
    fn ready(&self, _worker: Callee) -> Boxed<'_, ()> {
        Box::pin(async {
            crate::time::sleep(LOAD).await;
            if !self.does(|_| {}) {
                pending::<()>().await;
            }
        })
    }

    fn sleep(&self, worker: Callee, to: OffloadTo) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move { self.turn(&worker, Some(to)).await })
    }

    fn wake(&self, worker: Callee, _from: OffloadTo) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move { self.turn(&worker, None).await })
    }

    fn probe(&self, _worker: Callee, _depth: Depth) -> Boxed<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn prove(&self, worker: Callee) -> Boxed<'_, Result<Proven, String>> {
        let kept = self.kept.lock().unwrap();
        let process = kept.processes.get(worker.launched.nonce.as_str());
        let proof = match process.map(|process| process.asleep) {
            Some(None) => Ok(Proven::Awake),
            Some(Some(_)) => Ok(Proven::Asleep),
            None => Err("it is gone".to_owned()),
        };
        drop(kept);
        Box::pin(async { proof })
    }
}

/// Two that share a GPU, of which only one can be awake.
async fn begin(life: &Life) -> (Stage, Tasks) {
    let clock = Clock::start();
    let (registry, demands) = Registry::new(clock);
    let tasks = Tasks::new();
    let parts = ConductorParts {
        registry: registry.clone(),
        demands,
        settings: Arc::default(),
        tasks: tasks.clone(),
        clock,
        launcher: Arc::new(life.clone()),
        calls: Arc::new(life.clone()),
        gpus: Inventory::simulated(&[20 << 30]),
        timings: Timings::default(),
        host_memory: 1 << 40,
    };
    let specs = ["t/a", "t/b"].map(|id| {
        changed(&idles(id), |spec| {
            spec.idle.time_limit = Some(Duration::from_secs(6));
            spec.idle.offload = Some(Offload {
                after: Some(Duration::from_secs(3)),
                levels: Levels::BOTH,
            });
        })
    });
    let conductor = Conductor::start(parts, &catalog(&specs)).await.unwrap();
    let stage = Stage {
        fake: Fake::default(),
        conductor,
        registry,
        clock,
    };
    (stage, tasks)
}

/// Every transition: start, drain, sleep, wake, stop.
async fn script(stage: &Stage) {
    drop(stage.request("t/a").await.expect("served"));
    drop(stage.request("t/b").await.expect("served"));
    drop(stage.request("t/a").await.expect("served"));
    stage.command("t/b", Command::Stop).await.unwrap();
    stage.phase("t/b", "stopped").await;
    stage.phase("t/a", "offloaded").await;
    stage.phase("t/a", "stopped").await;
}

/// Lives until its script or it ends; whether the script did.
async fn live(life: &Life) -> bool {
    let lived = async {
        let (stage, tasks) = begin(life).await;
        let done = tokio::select! {
            () = script(&stage) => true,
            () = life.dead.cancelled() => false,
        };
        tasks.end();
        done
    };
    tokio::select! {
        done = lived => done,
        // While it still sorted out what the one before had left.
        () = life.dead.cancelled() => false,
    }
}

/// A life that nothing ends finds a world in order, serves, and leaves nothing.
async fn check(kept: &Arc<Mutex<Kept>>, deaths: &str) {
    let life = Life::new(kept, usize::MAX);
    let (stage, tasks) = begin(&life).await;
    let held = stage.registry.holdings();
    {
        let kept = kept.lock().unwrap();
        let mut of: Vec<_> = kept.processes.values().map(|p| p.of.clone()).collect();
        of.sort();
        let mut accounted: Vec<_> = held.iter().map(|held| held.deployment.clone()).collect();
        accounted.sort();
        assert_eq!(
            of, accounted,
            "{deaths}: who lives, and who is accounted for"
        );
        of.dedup();
        assert_eq!(of.len(), kept.processes.len(), "{deaths}: two of one");
        let awake = kept.processes.values().filter(|p| p.asleep.is_none());
        assert!(awake.count() <= 1, "{deaths}: both awake on one GPU");
        assert!(kept.processes.keys().eq(kept.records.keys()), "{deaths}");
    }
    let served = tokio::time::timeout(Duration::from_hours(1), script(&stage)).await;
    assert!(
        served.is_ok(),
        "{deaths}: {:?}",
        stage.conductor.events(None, 20)
    );
    stage.conductor.shutdown(true).await;
    tasks.end();
    let kept = kept.lock().unwrap();
    assert!(
        kept.processes.is_empty() && kept.records.is_empty(),
        "{deaths}: {kept:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn killed_at_each_step_of_each_transition_it_leaves_no_orphan_and_serves_again() {
    let mut first = 0;
    loop {
        assert!(first < STEPS_MAX, "a script without end");
        let kept = Arc::default();
        if live(&Life::new(&kept, first)).await {
            break;
        }
        check(&kept, &format!("killed at step {first}")).await;
        for second in 0..SECOND_STEPS {
            let kept = Arc::default();
            live(&Life::new(&kept, first)).await;
            live(&Life::new(&kept, second)).await;
            check(&kept, &format!("killed at step {first}, then at {second}")).await;
        }
        first += 1;
    }
    assert!(first > 20, "only {first} steps");
}
