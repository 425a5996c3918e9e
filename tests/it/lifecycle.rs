//! The control plane end to end: real processes of the stand-in, from the first
//! request to the last, over a restart.
#![expect(clippy::panic, reason = "a test that fails says why")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::config::{
    Catalog, Deployment, Engine, GpuSource, Idle, Instance, Levels, Offload, OffloadTo, Settings,
    Sim, Start,
};
use tidegate::deployment::{Handle as Held, Registry, Snapshot};
use tidegate::gpu::Inventory;
use tidegate::lifecycle::act::calls::Http;
use tidegate::lifecycle::act::command::Engines;
use tidegate::lifecycle::act::process::{Bounds, Options, ProcessLauncher};
use tidegate::lifecycle::{Command, Conductor, ConductorParts, Control};
use tidegate::names::{DeploymentId, InstanceName, ModelName, QueueName, RouteName};
use tidegate::store::timings::Timings;
use tidegate::tasks::Tasks;
use tidegate::time::Clock;
use tidegate::vllm::about::{About, Capability};
use tidegate::vllm::client::Client;

const LIMIT: Duration = Duration::from_secs(20);

/// One run of the control plane.
pub(super) struct Run {
    tasks: Tasks,
    conductor: Control,
    pub(super) held: Arc<Held>,
}

async fn run(state: &Path, to: OffloadTo, faults: &[&str]) -> Run {
    run_on(state, spec(to, faults), Inventory::none(), |_| {}).await
}

/// Runs one deployment on these devices.
pub(super) async fn run_on(
    state: &Path,
    spec: Arc<Deployment>,
    gpus: Inventory,
    tune: impl FnOnce(&mut Settings),
) -> Run {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    let (clock, tasks) = (Clock::start(), Tasks::new());
    let (registry, demands) = Registry::new(clock);
    let mut settings = Settings::default();
    settings.gateway.state = state.to_owned();
    settings.gpus.source = GpuSource::None;
    settings.workers.backoff = Duration::from_millis(50);
    settings.workers.failures_max = 2;
    tune(&mut settings);
    let engines = Engines::at(state, &own, &settings.vllm);
    let launcher = ProcessLauncher::open(Options {
        state: state.to_owned(),
        own,
        engines,
        log_bytes_max: 1 << 20,
        bounds: Bounds {
            cgroups: true,
            ..Bounds::default()
        },
        gpus: gpus.clone(),
        tasks: tasks.clone(),
        fetches: None,
    })
    .unwrap();
    let parts = ConductorParts {
        registry: registry.clone(),
        demands,
        settings: Arc::new(settings),
        tasks: tasks.clone(),
        clock,
        launcher: Arc::new(launcher),
        calls: Arc::new(Http),
        gpus,
        timings: Timings::open(state.join("timings.json")),
        host_memory: 1 << 40,
    };
    let conductor = Conductor::start(parts, &catalog(&spec)).await.unwrap();
    let held = registry.get(&spec.id).unwrap();
    Run {
        tasks,
        conductor,
        held,
    }
}

impl Run {
    pub(super) async fn phase(&self, phase: &str) -> Arc<Snapshot> {
        let mut watch = self.held.watch();
        let reached = watch.wait_for(|snapshot| snapshot.phase == phase);
        let Ok(reached) = tokio::time::timeout(LIMIT, reached).await else {
            let events = self.conductor.events(None, 50);
            panic!("never {phase}: {events:?} {:?}", self.held.console.tail(20));
        };
        Arc::clone(&reached.unwrap())
    }

    /// Ready after a demand, and answering through the open gate.
    pub(super) async fn serves(&self) -> Arc<Snapshot> {
        self.held.demand();
        let snapshot = self.phase("ready").await;
        let _permit = self.held.gate.enter().unwrap();
        let worker = snapshot.workers.first().unwrap();
        let client = Client::new(
            worker.address.clone(),
            Arc::clone(&worker.api_key),
            Arc::from("tiny"),
        );
        client.warm_up(LIMIT).await.unwrap();
        snapshot
    }

    /// Answer of its worker about its model, once there is one.
    async fn about(&self) -> Arc<About> {
        let told = async {
            while self.held.about().max_model_len.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, told).await.unwrap();
        self.held.about()
    }

    pub(super) async fn command(&self, command: Command) {
        let done = self.conductor.command(&self.held.id, command).await;
        done.unwrap();
    }

    /// Everything that was told so far.
    pub(super) fn told(&self) -> String {
        let events = self.conductor.events(None, 100);
        let texts = events.iter().map(|event| event.text.to_string());
        texts.collect::<Vec<_>>().join("\n")
    }

    /// Ends the process, as far as a test can.
    pub(super) async fn end(self, stop_workers: bool) {
        self.conductor.shutdown(stop_workers).await;
        assert!(self.tasks.join(LIMIT).await, "tasks are left");
    }
}

pub(super) fn spec(to: OffloadTo, faults: &[&str]) -> Arc<Deployment> {
    let instance = InstanceName::new("team").unwrap();
    let endpoint_name = ModelName::new("tiny").unwrap();
    Arc::new(Deployment {
        id: DeploymentId::new(&instance, &endpoint_name),
        instance,
        endpoint_name,
        model: "models/tiny".to_owned(),
        max_concurrent_requests: None,
        max_request_duration: None,
        start: Start::OnDemand,
        replicas: tidegate::config::Replicas::default(),
        roll: tidegate::config::Roll::default(),
        author: tidegate::config::Author::default(),
        inputs: tidegate::config::Inputs::default(),
        keep: false,
        idle: Idle {
            time_limit: None,
            offload: Some(Offload {
                after: Some(Duration::from_hours(1)),
                levels: match to {
                    OffloadTo::Cpu => Levels::CPU,
                    OffloadTo::Disk => Levels::DISK,
                },
            }),
            last_action_report_interval: Duration::from_secs(10),
        },
        engine: Engine::Sim(Sim {
            load: Duration::from_millis(100),
            wake: Duration::from_millis(20),
            sleep: Duration::from_millis(20),
            first_token: Duration::ZERO,
            tokens_per_second: 1e9,
            weights: 1 << 30,
            context: 1 << 20,
            max_model_len: 4096,
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
        }),
    })
}

fn catalog(spec: &Arc<Deployment>) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.instances.push(Arc::new(Instance {
        name: InstanceName::new("team").unwrap(),
        workspace: None,
        project: None,
        queue: QueueName::new("local").unwrap(),
        route: RouteName::new("team").unwrap(),
        deployments: vec![Arc::clone(spec)],
        file: "team.toml".into(),
    }));
    catalog
}

#[tokio::test]
async fn a_request_starts_a_worker_that_sleeps_wakes_and_stops_when_told() {
    for to in [OffloadTo::Cpu, OffloadTo::Disk] {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), to, &[]).await;
        let first = run.serves().await;
        run.command(Command::Offload).await;
        run.phase("offloaded").await;
        let again = run.serves().await;
        assert_eq!(first.pid, again.pid, "woken, not started");
        run.command(Command::Stop).await;
        run.phase("stopped").await;
        assert!(!Path::new(&format!("/proc/{}", first.pid.unwrap())).exists());
        run.end(true).await;
    }
}

#[tokio::test]
async fn a_worker_serves_on_over_a_restart_awake_or_asleep() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(dir.path(), OffloadTo::Cpu, &[]).await;
    let pid = first.serves().await.pid;
    first.end(false).await;

    let second = run(dir.path(), OffloadTo::Cpu, &[]).await;
    assert_eq!(second.held.snapshot().phase, "ready", "adopted at once");
    assert_eq!(second.serves().await.pid, pid);
    second.command(Command::Offload).await;
    second.phase("offloaded").await;
    second.end(false).await;

    let third = run(dir.path(), OffloadTo::Cpu, &[]).await;
    assert_eq!(third.held.snapshot().phase, "offloaded");
    assert_eq!(third.serves().await.pid, pid);
    third.end(false).await;

    // Another command line: ended before anything is placed.
    let fourth = run(dir.path(), OffloadTo::Cpu, &["slow-start:1ms"]).await;
    assert_eq!(fourth.held.snapshot().phase, "stopped");
    assert!(!Path::new(&format!("/proc/{}", pid.unwrap())).exists());
    fourth.end(true).await;
}

#[tokio::test]
async fn what_a_worker_tells_of_its_model_is_known_once_it_serves_and_once_it_is_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(dir.path(), OffloadTo::Cpu, &[]).await;
    assert_eq!(*first.held.about(), About::default());
    first.serves().await;
    let told = first.about().await;
    assert_eq!(told.max_model_len, Some(4096));
    let does = [Capability::Chat, Capability::Completions];
    assert_eq!(told.capabilities(&[]), does);
    // Of another model it says nothing.
    let other = Deployment {
        model: "models/other".to_owned(),
        ..Deployment::clone(&first.held.spec())
    };
    let same = first.held.spec();
    first.held.set_spec(Arc::new(other));
    assert_eq!(*first.held.about(), About::default());
    first.held.told(&same, &told);
    assert_eq!(*first.held.about(), About::default());
    first.held.set_spec(same);
    first.end(false).await;

    let second = run(dir.path(), OffloadTo::Cpu, &[]).await;
    assert_eq!(second.about().await.capabilities(&[]), does);
    second.end(true).await;
}

#[tokio::test]
async fn a_worker_that_dies_at_its_start_is_given_up_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), OffloadTo::Cpu, &["oom-at-start"]).await;
    run.held.demand();
    let mut watch = run.held.watch();
    let refused = watch.wait_for(|snapshot| snapshot.refusals > 0);
    let refused = tokio::time::timeout(LIMIT, refused).await.unwrap().unwrap();
    let reason = refused.reason.clone().unwrap();
    let reason = reason.to_string();
    assert!(reason.starts_with("exited with code 1: "), "{reason}");
    assert!(reason.contains("Error"), "{reason}");
    drop(refused);
    run.end(true).await;
}
