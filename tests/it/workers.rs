//! Workers as real processes: started, ended with all that they started, found
//! again by the next process.

mod records;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::config::{Deployment, Engine, Idle, Sim, Start, VllmEngine};
use tidegate::deployment::{Handle, Registry};
use tidegate::lifecycle::act::command::Engines;
use tidegate::lifecycle::act::launcher::{Exit, Launched, Launcher, Nonce, Order};
use tidegate::lifecycle::act::process::{Bounds, Options, ProcessError, ProcessLauncher};
use tidegate::names::{DeploymentId, Generation, InstanceName, ModelName};
use tidegate::tasks::Tasks;
use tidegate::time::Clock;

/// No wait in these tests may be longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A deployment whose engine is a shell script.
struct Bench {
    dir: TempDir,
    engine: PathBuf,
    registry: Registry,
    handle: Arc<Handle>,
    tasks: Tasks,
}

impl Bench {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = dir.path().join("engine");
        fs::write(&engine, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&engine, fs::Permissions::from_mode(0o755)).unwrap();
        let (registry, _demands) = Registry::new(Clock::start());
        let handle = registry.insert(spec());
        Self {
            dir,
            engine,
            registry,
            handle,
            tasks: Tasks::new(),
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn open(&self) -> Result<ProcessLauncher, ProcessError> {
        let engines = Engines::at(&self.state(), &self.engine, &VllmEngine::default());
        self.open_with(engines)
    }

    fn open_with(&self, engines: Engines) -> Result<ProcessLauncher, ProcessError> {
        self.open_as(engines, true)
    }

    fn open_bounded(&self, cgroups: bool) -> Result<ProcessLauncher, ProcessError> {
        let engines = Engines::at(&self.state(), &self.engine, &VllmEngine::default());
        self.open_as(engines, cgroups)
    }

    fn open_as(&self, engines: Engines, cgroups: bool) -> Result<ProcessLauncher, ProcessError> {
        ProcessLauncher::open(Options {
            state: self.state(),
            own: PathBuf::from(env!("CARGO_BIN_EXE_tidegate")),
            engines,
            log_bytes_max: 1 << 20,
            bounds: Bounds {
                cgroups,
                ..Bounds::default()
            },
            gpus: tidegate::gpu::Inventory::none(),
            tasks: self.tasks.clone(),
            fetches: None,
        })
    }

    fn order(&self) -> Order {
        Order {
            nonce: Nonce::random(),
            handle: Arc::clone(&self.handle),
            spec: self.handle.spec(),
            generation: Generation(1),
            gpus: Arc::from([]),
        }
    }

    /// Waits for a line of the worker's output, and returns what follows `mark`.
    async fn said(&self, mark: &str) -> String {
        let mut seen = self.handle.console.watch();
        loop {
            let (lines, _) = self.handle.console.tail(100);
            let mut newest = lines.iter().rev().take_while(|line| &***line != "again");
            if let Some(rest) = newest.find_map(|line| line.strip_prefix(mark)) {
                return rest.trim().to_owned();
            }
            let more = tokio::time::timeout(LIMIT, seen.changed()).await;
            more.unwrap().unwrap();
        }
    }

    fn records(&self) -> usize {
        let dir = fs::read_dir(self.state().join("workers")).unwrap();
        dir.filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension().is_some_and(|ext| ext == "json")
        })
        .count()
    }
}

fn spec() -> Arc<Deployment> {
    let instance = InstanceName::new("team").unwrap();
    let endpoint_name = ModelName::new("tiny").unwrap();
    Arc::new(Deployment {
        id: DeploymentId::new(&instance, &endpoint_name),
        instance,
        endpoint_name,
        model: "tiny".to_owned(),
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
            offload: None,
            last_action_report_interval: Duration::from_secs(10),
        },
        engine: Engine::Sim(Sim {
            load: Duration::ZERO,
            wake: Duration::ZERO,
            sleep: Duration::ZERO,
            first_token: Duration::ZERO,
            tokens_per_second: 100.0,
            weights: 0,
            context: 0,
            max_model_len: 131_072,
            faults: Vec::new(),
        }),
    })
}

fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

async fn exited(launcher: &ProcessLauncher, nonce: &Nonce) -> Exit {
    let exited = tokio::time::timeout(LIMIT, launcher.exited(nonce)).await;
    exited.unwrap()
}

async fn launch(launcher: &ProcessLauncher, bench: &Bench) -> Launched {
    launcher.submit(bench.order()).await.unwrap()
}

#[tokio::test]
async fn a_worker_leads_its_own_session_and_gets_its_key_and_socket() {
    let bench = Bench::new(
        "echo \"session $(cut -d' ' -f6 /proc/$$/stat)\"; echo \"pid $$\"; echo \"key $VLLM_API_KEY\"\n\
         echo \"args $*\"; echo \"tmp $TMPDIR\"; sleep 60",
    );
    let launcher = bench.open().unwrap();
    let worker = launch(&launcher, &bench).await;
    let pid = worker.pid.unwrap().to_string();
    assert_eq!(bench.said("pid ").await, pid);
    assert_eq!(bench.said("session ").await, pid);
    assert_eq!(bench.said("key ").await, *worker.api_key);
    let args = bench.said("args ").await;
    let tidegate::outbound::Address::Unix(socket) = &worker.address else {
        panic!("not a socket");
    };
    assert!(args.starts_with("sim tiny "), "{args}");
    assert!(
        args.contains(&format!("--uds {}", socket.display())),
        "{args}"
    );
    let temporary = PathBuf::from(bench.said("tmp ").await);
    assert!(temporary.is_dir());
    assert_eq!(bench.records(), 1);
    launcher.stop(&worker.nonce);
    assert_eq!(
        exited(&launcher, &worker.nonce).await.how,
        "was ended by signal 15"
    );
    assert_eq!(bench.records(), 0);
    assert!(!temporary.exists());
}

#[tokio::test]
async fn a_vllm_that_knows_no_sockets_gets_a_port_of_its_own_and_keeps_it() {
    let bench = Bench::new(
        "[ \"$1\" = --version ] && { echo 0.7.2; exit; }\necho \"args $*\"\nexec sleep 60",
    );
    let mut vllm = VllmEngine::default();
    vllm.versions
        .insert("0.7.2".to_owned(), bench.engine.clone());
    let engines = Engines::at(&bench.state(), &bench.engine, &vllm);
    let launcher = bench.open_with(engines.clone()).unwrap();
    let mut order = bench.order();
    order.spec = Arc::new(Deployment {
        engine: Engine::Vllm(tidegate::config::Vllm {
            version: Some("0.7.2".to_owned()),
            options: tidegate::vllm::options::OptionSet::default(),
        }),
        ..Deployment::clone(&order.spec)
    });
    launcher.prepare(&order.spec, &order.handle).await.unwrap();
    let worker = launcher.submit(order).await.unwrap();
    let tidegate::outbound::Address::Tcp { host, port } = &worker.address else {
        panic!("not a port");
    };
    assert_eq!(&**host, "127.0.0.1");
    let args = bench.said("args ").await;
    let wanted = format!("serve tiny --host 127.0.0.1 --port {port} ");
    assert!(args.starts_with(&wanted), "{args}");
    drop(launcher);
    let next = bench.open_with(engines).unwrap();
    let found = next.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].address, worker.address);
    next.kill(&worker.nonce);
    exited(&next, &worker.nonce).await;
}

#[tokio::test]
async fn the_same_nonce_never_launches_two() {
    let bench = Bench::new("echo started; sleep 60");
    let launcher = bench.open().unwrap();
    let order = bench.order();
    let first = launcher.submit(order.clone()).await.unwrap();
    let second = launcher.submit(order).await.unwrap();
    assert_eq!(first.pid, second.pid);
    launcher.kill(&first.nonce);
    exited(&launcher, &first.nonce).await;
    assert!(launcher.find(&first.nonce).is_none());
}

#[tokio::test]
async fn what_a_worker_started_ends_with_it_even_if_it_ignores_the_signal() {
    // A child that ignores SIGTERM, and one that left the session.
    let bench = Bench::new(
        "sh -c 'trap \"\" TERM; echo \"child $$\"; while :; do sleep 1; done' &\n\
         setsid sh -c 'echo \"stray $$\"; exec sleep 60' &\n\
         sleep 60",
    );
    let launcher = bench.open().unwrap();
    let worker = launch(&launcher, &bench).await;
    let (child, stray) = (bench.said("child ").await, bench.said("stray ").await);
    launcher.stop(&worker.nonce);
    exited(&launcher, &worker.nonce).await;
    assert!(!lives(&child) && !lives(&stray), "{child} {stray}");
}

#[tokio::test]
async fn what_hides_from_every_mark_ends_with_its_control_group() {
    // No session, no environment and no output of the worker's, and no parent.
    let bench = Bench::new(
        "(setsid env -i sh -c 'echo \"stray $$\"; exec sleep 66 > /dev/null 2>&1' &)\nsleep 66",
    );
    for cgroups in [true, false] {
        let launcher = bench.open_bounded(cgroups).unwrap();
        bench.handle.console.push("again");
        let worker = launch(&launcher, &bench).await;
        let stray = bench.said("stray ").await;
        let mut group = None;
        change_record(&bench.state(), |record| {
            group = record["cgroup"].as_str().map(PathBuf::from);
        });
        launcher.stop(&worker.nonce);
        exited(&launcher, &worker.nonce).await;
        assert!(!lives(&stray), "{stray} lives, control groups: {cgroups}");
        assert!(
            group.is_none_or(|group| !group.exists()),
            "its group is removed"
        );
    }
}

/// The same for one that an earlier process of ours started, and whose keeper or
/// engine alone is killed meanwhile.
#[tokio::test]
async fn what_daemonised_ends_with_its_worker_whoever_is_killed_first() {
    for killed in ["keeper", "process"] {
        let bench = Bench::new(
            "(setsid env -i sh -c 'echo \"stray $$\"; exec sleep 66 > /dev/null 2>&1' &)\nsleep 66",
        );
        let first = bench.open_bounded(false).unwrap();
        let worker = launch(&first, &bench).await;
        let stray = bench.said("stray ").await;
        drop(first);
        let next = bench.open_bounded(false).unwrap();
        assert_eq!(next.list().await.unwrap().len(), 1);
        let mut pid = 0;
        change_record(&bench.state(), |record| {
            pid = i32::try_from(record[killed]["pid"].as_u64().unwrap()).unwrap();
        });
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        if killed == "keeper" {
            // Its children are ours from here on; only the engine's marks tell them.
            next.kill(&worker.nonce);
        }
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        exited(&next, &worker.nonce).await;
        assert!(!lives(&worker.pid.unwrap().to_string()), "{killed}");
        assert!(!lives(&stray), "{killed}: {stray} lives");
    }
}

#[tokio::test]
async fn an_exit_tells_its_code_and_the_last_lines_are_read_before_it() {
    let bench = Bench::new("echo 'OSError: no such model'; exit 3");
    let launcher = bench.open().unwrap();
    let worker = launch(&launcher, &bench).await;
    assert_eq!(
        exited(&launcher, &worker.nonce).await.how,
        "exited with code 3"
    );
    let (lines, _) = bench.handle.console.tail(1);
    assert_eq!(lines[0].as_ref(), "OSError: no such model");
}

#[tokio::test]
async fn a_worker_outlives_us_and_is_found_again() {
    let bench = Bench::new("echo \"pid $$\"; sleep 60");
    let first = bench.open().unwrap();
    let launched = launch(&first, &bench).await;
    bench.said("pid ").await;
    assert!(
        matches!(bench.open(), Err(ProcessError::Busy(_))),
        "two at once"
    );
    drop(first);

    let second = bench.open().unwrap();
    let found = second.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].pid, &found[0].api_key),
        (launched.pid, &launched.api_key)
    );
    assert_eq!(found[0].fingerprint, second.fingerprint(&spec()));
    let handle = bench.registry.insert(spec());
    second.adopt(&launched.nonce, &handle);
    second.stop(&launched.nonce);
    exited(&second, &launched.nonce).await;
    assert!(!lives(&launched.pid.unwrap().to_string()));
    let (lines, _) = handle.console.tail(10);
    assert!(
        lines.iter().any(|line| line.starts_with("pid ")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_a_dead_worker_left_is_ended_before_anything_is_placed() {
    let bench = Bench::new("sleep 61 & echo \"child $!\"; wait");
    let first = bench.open().unwrap();
    let launched = launch(&first, &bench).await;
    let child = bench.said("child ").await;
    drop(first);
    let pid = |pid: u64| rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let mut keeper = 0;
    change_record(&bench.state(), |record| {
        keeper = record["keeper"]["pid"].as_u64().unwrap();
    });
    // The keeper first: it would end what its engine leaves.
    for killed in [pid(keeper), pid(launched.pid.unwrap().into())] {
        rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(killed), rustix::process::WaitOptions::empty()).unwrap();
    }
    assert!(lives(&child), "its child is an orphan now");

    let second = bench.open().unwrap();
    assert!(second.list().await.unwrap().is_empty());
    assert!(!lives(&child));
    assert_eq!(bench.records(), 0);
}

/// Rewrites the only record of the journal.
fn change_record(state: &Path, mut change: impl FnMut(&mut serde_json::Value)) {
    for entry in fs::read_dir(state.join("workers")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "json") {
            let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut record);
            fs::write(&path, record.to_string()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_worker_launched_but_not_written_down_is_found_by_its_nonce_and_ended() {
    let bench = Bench::new("echo \"pid $$\"; sleep 62");
    let first = bench.open().unwrap();
    let launched = launch(&first, &bench).await;
    bench.said("pid ").await;
    drop(first);
    change_record(&bench.state(), |record| {
        record["process"] = serde_json::Value::Null;
    });

    let second = bench.open().unwrap();
    assert!(second.list().await.unwrap().is_empty());
    assert!(!lives(&launched.pid.unwrap().to_string()));
}

#[tokio::test]
async fn a_foreign_process_on_a_reused_pid_is_not_touched() {
    let bench = Bench::new("exit 0");
    let first = bench.open().unwrap();
    let launched = launch(&first, &bench).await;
    let copy = bench.dir.path().join("copy");
    let mut foreign = std::process::Command::new("sleep")
        .arg("63")
        .spawn()
        .unwrap();
    for entry in fs::read_dir(bench.state().join("workers")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "json") {
            fs::copy(&path, &copy).unwrap();
        }
    }
    exited(&first, &launched.nonce).await;
    drop(first);
    fs::copy(&copy, bench.state().join("workers/old.json")).unwrap();
    let pid = foreign.id();
    change_record(&bench.state(), |record| {
        record["process"]["pid"] = pid.into();
        // Start times count in hundredths: these two may share one.
        let start_time = record["process"]["start_time"].as_u64().unwrap();
        record["process"]["start_time"] = (start_time - 1).into();
    });

    let second = bench.open().unwrap();
    assert!(second.list().await.unwrap().is_empty());
    assert!(lives(&pid.to_string()), "it is not ours");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[tokio::test]
async fn an_engine_that_cannot_run_says_so_in_its_log() {
    let bench = Bench::new("exit 0");
    fs::remove_file(&bench.engine).unwrap();
    let launcher = bench.open().unwrap();
    let worker = launch(&launcher, &bench).await;
    assert_eq!(
        exited(&launcher, &worker.nonce).await.how,
        "exited with code 1"
    );
    assert!(
        bench
            .said("tidegate: can't run ")
            .await
            .contains("No such file")
    );
}
