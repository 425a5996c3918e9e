//! The conductor against a scripted launcher, on a paused clock.

mod adoption;
mod care;
mod clients;
mod crashes;
mod explains;
mod fake;
mod fetches;
mod fleets;
mod many;
mod replicas;
mod room;

use super::*;
use crate::config::{Deployment, Idle, Instance, Levels, Offload, OffloadTo, Start};
use crate::deployment::{self, Permit, Refusal, Status};
use crate::gpu::Inventory;
use crate::lifecycle::act::launcher::Nonce;
use crate::lifecycle::act::process::tests::spec;
use crate::lifecycle::control::{Command, CommandError};
use crate::names::{InstanceName, QueueName, RouteName};
use fake::{Fake, Fate, LOAD, launched};

/// A running conductor.
struct Stage {
    fake: Fake,
    conductor: Control,
    registry: Registry,
    clock: Clock,
}

impl Stage {
    async fn with(fake: Fake, gpus: &[u64], specs: &[Arc<Deployment>]) -> Self {
        Self::tuned(fake, gpus, specs, |_| {}).await
    }

    /// With durations of its own.
    async fn tuned(
        fake: Fake,
        gpus: &[u64],
        specs: &[Arc<Deployment>],
        tune: impl FnOnce(&mut config::Workers),
    ) -> Self {
        let mut settings = Settings {
            workers: config::Workers {
                backoff: Duration::from_secs(2),
                failures_max: 3,
                start_timeout: Duration::from_mins(2),
                call_timeout: Duration::from_secs(30),
                drain_timeout: Duration::from_secs(30),
                stop_grace: Duration::from_secs(10),
                ..Settings::default().workers
            },
            ..Settings::default()
        };
        tune(&mut settings.workers);
        Self::of(fake, gpus, specs, settings).await
    }

    async fn of(fake: Fake, gpus: &[u64], specs: &[Arc<Deployment>], settings: Settings) -> Self {
        let timings = Timings::default();
        Self::knowing(fake, (gpus, 1 << 40), specs, settings, timings).await
    }

    /// With what an earlier process has written down, on these GPUs and so much host
    /// memory.
    async fn knowing(
        fake: Fake,
        (gpus, host_memory): (&[u64], u64),
        specs: &[Arc<Deployment>],
        settings: Settings,
        timings: Timings,
    ) -> Self {
        let clock = Clock::start();
        let (registry, demands) = Registry::new(clock);
        let parts = ConductorParts {
            registry: registry.clone(),
            demands,
            settings: Arc::new(settings),
            tasks: Tasks::new(),
            clock,
            launcher: Arc::new(fake.clone()),
            calls: Arc::new(fake.clone()),
            gpus: Inventory::simulated(gpus),
            timings,
            host_memory,
        };
        let conductor = Conductor::start(parts, &catalog(specs)).await.unwrap();
        Self {
            fake,
            conductor,
            registry,
            clock,
        }
    }

    async fn new(specs: &[Arc<Deployment>]) -> Self {
        Self::with(Fake::default(), &[], specs).await
    }
    fn handle(&self, id: &str) -> Arc<deployment::Handle> {
        self.registry
            .get(&DeploymentId::parse(id).unwrap())
            .unwrap()
    }

    /// Reason why it failed or was stopped, in words.
    fn reason(&self, id: &str) -> String {
        let snapshot = self.handle(id).snapshot();
        snapshot.reason.as_ref().unwrap().to_string()
    }

    async fn command(&self, id: &str, command: Command) -> Result<(), CommandError> {
        let id = DeploymentId::parse(id).unwrap();
        self.conductor.command(&id, command).await
    }

    /// Waits until its phase is this one.
    async fn phase(&self, id: &str, phase: &str) -> Arc<deployment::Snapshot> {
        let mut watch = self.handle(id).watch();
        let reached = watch.wait_for(|snapshot| snapshot.phase == phase);
        let reached = tokio::time::timeout(Duration::from_hours(1), reached).await;
        let Ok(reached) = reached else {
            panic!("never {phase}: {:?}", self.conductor.events(None, 30));
        };
        Arc::clone(&reached.unwrap())
    }

    /// Does what a request does: enters, or waits for the gate; `None` when refused.
    async fn request(&self, id: &str) -> Option<(Permit, Permit)> {
        let handle = self.handle(id);
        let mut watch = handle.watch();
        let refusals = watch.borrow().refusals;
        let _waiting = handle.wait(None);
        loop {
            if let Some(permit) = handle.gate.enter() {
                let workers = Arc::clone(&handle.snapshot().workers);
                let least = workers.iter().filter(|worker| worker.gate.is_open());
                let least = least.min_by_key(|worker| worker.gate.in_flight());
                if let Some(inside) = least.and_then(|worker| worker.gate.enter()) {
                    return Some((inside, permit));
                }
            }
            watch.mark_unchanged();
            handle.demand();
            if watch.changed().await.is_err() || watch.borrow().refusals > refusals {
                return None;
            }
        }
    }
}

fn catalog(specs: &[Arc<Deployment>]) -> Catalog {
    let instance = Instance {
        name: InstanceName::new("t").unwrap(),
        workspace: None,
        project: None,
        queue: QueueName::new("local").unwrap(),
        route: RouteName::new("t").unwrap(),
        deployments: specs.to_vec(),
        file: "t.toml".into(),
    };
    Catalog {
        instances: vec![Arc::new(instance)],
        ..Catalog::default()
    }
}

fn changed(spec: &Arc<Deployment>, change: impl FnOnce(&mut Deployment)) -> Arc<Deployment> {
    let mut spec = Deployment::clone(spec);
    change(&mut spec);
    Arc::new(spec)
}

/// Offloaded after a minute, stopped after five.
fn idles(id: &str) -> Arc<Deployment> {
    changed(&spec(id), |spec| {
        spec.idle = Idle {
            time_limit: Some(Duration::from_mins(5)),
            offload: Some(Offload {
                after: Some(Duration::from_mins(1)),
                levels: Levels::BOTH,
            }),
            ..spec.idle
        };
    })
}

#[tokio::test(start_paused = true)]
async fn simultaneous_requests_start_one_worker_and_all_are_served() {
    let stage = Stage::new(&[spec("t/a")]).await;
    let requests = (0..50).map(|_| stage.request("t/a"));
    let mut served = Vec::new();
    let tasks: Vec<_> = requests.map(Box::pin).collect();
    for task in tasks {
        served.push(task.await.expect("served"));
    }
    assert_eq!((served.len(), stage.fake.count("launch")), (50, 1));
    let snapshot = stage.handle("t/a").snapshot();
    assert!(!snapshot.workers.is_empty() && snapshot.status == Status::Idle);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_offloaded_then_woken_then_stopped() {
    let stage = Stage::new(&[idles("t/a")]).await;
    let permit = stage.request("t/a").await.unwrap();
    // Inside for long: that is not idleness.
    tokio::time::advance(Duration::from_mins(20)).await;
    assert_eq!(stage.handle("t/a").snapshot().phase, "ready");
    drop(permit);
    let left = stage.clock.now();
    let snapshot = stage.phase("t/a", "offloaded").await;
    let waited = stage.clock.now().saturating_sub(left);
    assert!(
        waited >= Duration::from_mins(1) && waited < Duration::from_secs(90),
        "{waited:?}"
    );
    assert!(snapshot.workers.is_empty() && snapshot.status == Status::Offloaded);

    let permit = stage.request("t/a").await.unwrap();
    assert_eq!(
        (stage.fake.count("launch"), stage.fake.count("wake")),
        (1, 1)
    );
    drop(permit);
    let left = stage.clock.now();
    stage.phase("t/a", "stopped").await;
    let waited = stage.clock.now().saturating_sub(left);
    assert!(
        waited >= Duration::from_mins(5) && waited < Duration::from_secs(303),
        "{waited:?}"
    );
    assert!(stage.fake.world().alive.is_empty());
}

#[tokio::test(start_paused = true)]
async fn crashes_back_off_and_are_given_up_with_the_reason() {
    let fake = Fake::default();
    fake.world().starts.extend([Fate::Crashes; 3]);
    let stage = Stage::with(fake, &[], &[spec("t/a")]).await;
    let began = stage.clock.now();
    assert!(stage.request("t/a").await.is_none(), "refused in the end");
    // Three starts, with pauses of 2 s and 4 s between.
    let waited = stage.clock.now().saturating_sub(began);
    let least = LOAD * 3 + Duration::from_secs(6);
    assert!(
        waited >= least && waited < least + Duration::from_secs(1),
        "{waited:?}"
    );
    let snapshot = stage.handle("t/a").snapshot();
    assert_eq!(
        (snapshot.status, snapshot.refusal),
        (Status::Failed, Some(Refusal::Failed))
    );
    assert_eq!(snapshot.reason, Some("exited with code 1".into()));
    assert_eq!(stage.fake.count("launch"), 3);
    stage.command("t/a", Command::Start).await.unwrap();
    stage.phase("t/a", "ready").await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_launched_is_refused_at_once() {
    let fake = Fake::default();
    fake.world().starts.push_back(Fate::Unlaunchable);
    let stage = Stage::with(fake, &[], &[spec("t/a")]).await;
    assert!(stage.request("t/a").await.is_none());
    let snapshot = stage.handle("t/a").snapshot();
    assert_eq!(snapshot.reason, Some("there is no such model".into()));
    assert_eq!(stage.fake.count("launch"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_is_ended_and_tried_again() {
    let fake = Fake::default();
    fake.world().starts.push_back(Fate::NeverReady);
    fake.world().deaf = true;
    let stage = Stage::with(fake, &[], &[spec("t/a")]).await;
    assert!(stage.request("t/a").await.is_some());
    assert_eq!(
        (stage.fake.count("launch"), stage.fake.count("kill")),
        (2, 1)
    );
    assert_eq!(stage.fake.world().most_at_once, 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_serving_is_made_good_by_the_next_request() {
    let stage = Stage::new(&[spec("t/a")]).await;
    let permit = stage.request("t/a").await.unwrap();
    stage.fake.crash_all();
    stage.phase("t/a", "failed").await;
    assert!(!stage.handle("t/a").gate.is_open());
    drop(permit);
    assert!(stage.request("t/a").await.is_some());
    assert_eq!(stage.handle("t/a").snapshot().generation.0, 2);
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_the_requests_inside_and_refuses_others_until_a_start() {
    let stage = Stage::new(&[spec("t/a")]).await;
    let permit = stage.request("t/a").await.unwrap();
    stage.command("t/a", Command::Stop).await.unwrap();
    stage.phase("t/a", "draining").await;
    assert_eq!(stage.fake.count("stop"), 0);
    assert!(stage.request("t/a").await.is_none());
    assert_eq!(
        stage.handle("t/a").snapshot().refusal,
        Some(Refusal::Stopped)
    );
    drop(permit);
    stage.phase("t/a", "stopped").await;
    assert!(stage.request("t/a").await.is_none(), "stays down");
    stage.command("t/a", Command::Start).await.unwrap();
    assert!(stage.request("t/a").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn commands_that_make_no_sense_are_refused_in_words() {
    let stage = Stage::new(&[spec("t/a"), idles("t/b")]).await;
    for (id, command, word) in [
        ("t/none", Command::Start, "no deployment"),
        ("t/a", Command::Offload, "automatic_cpu_offloading"),
        ("t/b", Command::Offload, "no worker to offload"),
        ("t/b", Command::Wake, "start it instead"),
    ] {
        let error = stage.command(id, command).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    drop(stage.request("t/b").await);
    stage.command("t/b", Command::Offload).await.unwrap();
    stage.phase("t/b", "offloaded").await;
    stage.command("t/b", Command::Wake).await.unwrap();
    stage.phase("t/b", "ready").await;
}

#[tokio::test(start_paused = true)]
async fn an_unloaded_one_ends_and_is_started_by_its_next_request() {
    let kept_up = changed(&spec("t/c"), |spec| {
        (spec.replicas.min, spec.replicas.max) = (1, 2);
    });
    let stage = Stage::new(&[idles("t/a"), idles("t/b"), kept_up]).await;
    let permit = stage.request("t/a").await.unwrap();
    stage.command("t/a", Command::Unload).await.unwrap();
    stage.phase("t/a", "draining").await;
    assert_eq!(stage.fake.count("stop"), 0, "who is inside may finish");
    drop(permit);
    stage.phase("t/a", "stopped").await;
    assert!(stage.request("t/a").await.is_some(), "not refused");
    // One that sleeps, or is about to, ends too.
    drop(stage.request("t/b").await);
    stage.command("t/b", Command::Offload).await.unwrap();
    stage.command("t/b", Command::Unload).await.unwrap();
    stage.phase("t/b", "stopped").await;
    for (id, word) in [("t/b", "no worker to unload"), ("t/c", "min = 1")] {
        let refused = stage.command(id, Command::Unload).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_touches_only_what_changed() {
    let specs = ["t/a", "t/b", "t/c", "t/d"].map(idles);
    let stage = Stage::new(&specs).await;
    for id in ["t/a", "t/b", "t/c", "t/d"] {
        drop(stage.request(id).await);
    }
    let next = [
        // Shorter idle time: at once, without touching the worker.
        changed(&specs[0], |spec| {
            spec.idle.time_limit = Some(Duration::from_mins(9));
        }),
        // Another engine option: rolled.
        changed(&specs[1], |spec| {
            let config::Engine::Sim(sim) = &mut spec.engine else {
                panic!("not a stand-in");
            };
            sim.weights += 1;
        }),
        Arc::clone(&specs[2]),
        spec("t/new"),
    ];
    stage.conductor.apply(Arc::new(catalog(&next))).await;
    let snapshot = stage.phase("t/b", "starting").await;
    assert_eq!(snapshot.generation.0, 2);
    stage.phase("t/b", "ready").await;
    for id in ["t/a", "t/c"] {
        assert_eq!(stage.handle(id).snapshot().generation.0, 1, "{id}");
    }
    assert_eq!(stage.handle("t/a").spec().idle, next[0].idle);
    assert_eq!(stage.handle("t/new").snapshot().phase, "stopped");
    let gone = DeploymentId::parse("t/d").unwrap();
    assert!(
        stage.registry.get(&gone).is_none(),
        "stopped, then forgotten"
    );
    assert_eq!(stage.fake.world().alive.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_removed_and_added_again_serves_again() {
    let specs = [spec("t/a")];
    let stage = Stage::new(&specs).await;
    let permit = stage.request("t/a").await;
    stage.conductor.apply(Arc::new(catalog(&[]))).await;
    stage.phase("t/a", "draining").await;
    stage.conductor.apply(Arc::new(catalog(&specs))).await;
    drop(permit);
    assert!(stage.request("t/a").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn shutdown_stops_every_worker_or_leaves_every_worker() {
    for stop_workers in [true, false] {
        let boot = changed(&spec("t/b"), |spec| spec.start = Start::Boot);
        let stage = Stage::new(&[spec("t/a"), boot]).await;
        drop(stage.request("t/a").await);
        stage.phase("t/b", "ready").await;
        stage.conductor.shutdown(stop_workers).await;
        let left = stage.fake.world().alive.len();
        assert_eq!(left, if stop_workers { 0 } else { 2 });
        let refused = stage.command("t/a", Command::Start).await;
        assert_eq!(refused, Err(CommandError::Ended));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_fails_ends_the_worker_and_the_next_request_starts_another() {
    let stage = Stage::new(&[idles("t/a")]).await;
    stage.fake.world().sleep_fails = true;
    drop(stage.request("t/a").await);
    stage.phase("t/a", "stopped").await;
    let permit = stage.request("t/a").await;
    assert!(permit.is_some());
    assert_eq!(
        (stage.fake.count("launch"), stage.fake.count("stop")),
        (2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn last_activity_is_reported_at_its_interval_while_there_is_news() {
    let stage = Stage::new(&[spec("t/a")]).await;
    let permit = stage.request("t/a").await.unwrap();
    let mut watch = stage.handle("t/a").watch();
    watch.mark_unchanged();
    watch.changed().await.unwrap();
    for _ in 0..2 {
        let from = stage.clock.now();
        watch.changed().await.unwrap();
        let waited = stage.clock.now().saturating_sub(from);
        assert!(
            waited >= Duration::from_secs(9) && waited < Duration::from_secs(11),
            "{waited:?}"
        );
        assert!(watch.borrow().last_activity.is_some());
    }
    // At the instant of a report it would be no news: that one was inside.
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(permit);
    let last = tokio::time::timeout(Duration::from_hours(1), watch.changed()).await;
    last.expect("its leaving is reported").unwrap();
    let more = tokio::time::timeout(Duration::from_hours(1), watch.changed()).await;
    assert!(more.is_err(), "nothing happened since");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_start_that_still_installs_its_engine() {
    let stage = Stage::new(&[spec("t/a")]).await;
    stage.fake.world().installing = true;
    stage.command("t/a", Command::Start).await.unwrap();
    stage.phase("t/a", "starting").await;
    stage.command("t/a", Command::Stop).await.unwrap();
    stage.phase("t/a", "stopped").await;
    assert_eq!(stage.fake.count("launch"), 0);
    stage.fake.world().installing = false;
    stage.command("t/a", Command::Start).await.unwrap();
    stage.phase("t/a", "ready").await;
}
