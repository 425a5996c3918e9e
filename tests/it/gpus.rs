//! GPUs as NVIDIA's library tells of them: a small library of our own, built from
//! C, says what the test wants.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::config::OffloadTo;
use tidegate::gpu::nvml::{Error, Nvml};
use tidegate::gpu::{DeviceKind, Inventory, Monitor, Readings, Sample, mig_index};
use tidegate::lifecycle::Command as Told;
use tidegate::tasks::Tasks;

use super::lifecycle::{run_on, spec};

const LIMIT: Duration = Duration::from_secs(20);
const GIB: u64 = 1 << 30;

/// A driver that says what its file says.
struct Driver {
    dir: TempDir,
    library: PathBuf,
}

impl Driver {
    fn new(state: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("libnvidia-ml.so.1");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gpus/fake_nvml.c");
        let driver = Self { dir, library };
        let define = format!("-DSTATE=\"{}\"", driver.state().display());
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([driver.library.as_os_str(), OsStr::new(&define)])
            .arg(source)
            .status();
        assert!(built.unwrap().success(), "cc can't build the library");
        driver.says(state);
        driver
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Changes what it says, at once for whoever asks next.
    fn says(&self, state: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, state).unwrap();
        fs::rename(new, self.state()).unwrap();
    }

    fn open(&self) -> Nvml {
        Nvml::open(&self.library).unwrap()
    }

    /// The inventory, with its sensors followed.
    fn watched(&self, tasks: &Tasks) -> Inventory {
        let nvml = self.open();
        let mut inventory = nvml.inventory().unwrap();
        let monitor = Monitor::new(nvml, &mut inventory, Duration::from_millis(10));
        tasks.spawn("gpus", monitor.run(tasks.ending()));
        inventory
    }
}

async fn until(readings: &mut Readings, fact: impl Fn(&Sample) -> bool) -> Arc<Sample> {
    let seen = async {
        loop {
            let sample = readings.next().await;
            if fact(&sample) {
                return sample;
            }
        }
    };
    tokio::time::timeout(LIMIT, seen).await.unwrap()
}

#[test]
fn gpus_are_listed_and_a_divided_one_by_its_parts() {
    let driver = Driver::new(
        "gpu GPU-aaaa 80000 0 0\ngpu GPU-bbbb 80000 0 1\nmig 1 MIG-b0 40000 0\nmig 1 MIG-b1 20000 0\n",
    );
    let found = driver.open().inventory().unwrap();
    let listed: Vec<_> = found.identities.iter().map(|i| (i.index, i.kind)).collect();
    let (first, second) = (mig_index(1, 0), mig_index(1, 1));
    let part = DeviceKind::Mig { gpu: 1 };
    assert_eq!(
        listed,
        [(0, DeviceKind::Gpu), (first, part), (second, part)]
    );
    assert_eq!(found.devices[1].memory, 40_000 << 20, "without the reserve");
    assert_eq!(found.visible(&[0]), "0", "vLLM reads a number");
    assert_eq!(found.visible(&[first, second]), "MIG-b0,MIG-b1");
    let ours = found
        .clone()
        .restricted(Some(OsStr::new("MIG-b1")))
        .unwrap();
    assert_eq!(ours.devices.len(), 1);
    assert!(found.restricted(Some(OsStr::new("GPU-cccc"))).is_err());
}

#[tokio::test]
async fn sensors_are_followed_and_a_failure_leaves_what_was_read_last() {
    let driver = Driver::new("gpu GPU-a 80000 100 0\nproc 0 4242 90\n");
    let tasks = Tasks::new();
    let mut readings = driver.watched(&tasks).readings;
    let first = readings.latest();
    let gpu = &first.devices[0];
    assert_eq!((gpu.utilization, gpu.temperature), (Some(37), Some(51)));
    assert_eq!(gpu.power, Some(123_456));
    assert_eq!(
        (gpu.memory_used, gpu.memory_total),
        (100 << 20, 80_000 << 20)
    );
    assert_eq!(gpu.processes[0].pid, 4242);
    assert_eq!(gpu.processes[0].memory, Some(90 << 20));

    driver.says("gpu GPU-a 80000 100 0\nfail 15\n");
    let failed = until(&mut readings, |sample| sample.fault.is_some()).await;
    assert_eq!(failed.devices, first.devices);
    let why = failed.fault.clone().unwrap();
    assert!(why.contains("fallen off the bus: restart"), "{why}");
    driver.says("gpu GPU-a 80000 700 0\n");
    let again = until(&mut readings, |sample| sample.fault.is_none()).await;
    assert_eq!(again.devices[0].memory_used, 700 << 20);
    assert!(tasks.join(LIMIT).await);
}

#[test]
fn a_machine_without_the_driver_is_told_from_one_with_a_broken_driver() {
    let error = Nvml::open(Path::new("libno-such-driver.so.1")).unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error:?}");
    assert!(
        error.to_string().contains("install NVIDIA's driver"),
        "{error}"
    );
    let driver = Driver::new("fail 18\n");
    let error = driver.open().inventory().unwrap_err();
    assert!(error.to_string().contains("different versions"), "{error}");
}

#[tokio::test]
async fn a_worker_waits_until_strangers_leave_it_enough_of_the_gpu() {
    let stranger = std::process::id();
    let taken = |mib| {
        format!("gpu GPU-a 80000 {mib} 1\nmig 0 MIG-a0 40000 {mib}\nproc 1 {stranger} {mib}\n")
    };
    let driver = Driver::new(&taken(39_500));
    let tasks = Tasks::new();
    let gpus = driver.watched(&tasks);
    let dir = tempfile::tempdir().unwrap();
    let run = run_on(dir.path(), spec(OffloadTo::Cpu, &[]), gpus.clone(), |_| {}).await;
    // Without someone who waits, the start is given up.
    let _waiting = run.held.wait(None);
    run.held.demand();
    run.phase("placing").await;
    let mut readings = gpus.readings;
    for _ in 0..3 {
        readings.next().await;
    }
    assert_eq!(run.held.snapshot().phase, "placing", "{GIB} do not fit");
    driver.says(&taken(100));
    let ready = run.phase("ready").await;
    let environ = fs::read(format!("/proc/{}/environ", ready.pid.unwrap())).unwrap();
    let environ = String::from_utf8(environ).unwrap();
    let told: Vec<_> = environ
        .split('\0')
        .filter(|v| v.starts_with("CUDA_"))
        .collect();
    assert!(told.contains(&"CUDA_VISIBLE_DEVICES=MIG-a0"), "{told:?}");
    assert!(told.contains(&"CUDA_DEVICE_ORDER=PCI_BUS_ID"), "{told:?}");
    run.end(true).await;
    assert!(tasks.join(LIMIT).await);
}

#[tokio::test]
async fn a_worker_that_says_it_sleeps_and_keeps_its_memory_is_ended() {
    let driver = Driver::new("gpu GPU-a 80000 0 0\n");
    let tasks = Tasks::new();
    let gpus = driver.watched(&tasks);
    let dir = tempfile::tempdir().unwrap();
    let run = run_on(dir.path(), spec(OffloadTo::Cpu, &[]), gpus.clone(), |_| {}).await;
    let mut readings = gpus.readings;
    let mut holds = async |pid: Option<u32>, mib: u64| {
        let pid = pid.unwrap();
        driver.says(&format!("gpu GPU-a 80000 {mib} 0\nproc 0 {pid} {mib}\n"));
        until(&mut readings, |sample| {
            sample.devices[0].memory_used == mib << 20
        })
        .await;
    };
    let keeps = run.serves().await;
    holds(keeps.pid, 60_000).await;
    run.command(Told::Offload).await;
    // Its next rung, without weights, fails in the same way.
    run.phase("stopped").await;
    let told = run.told();
    assert!(
        told.contains("still holds 58.5GiB of the 58.5GiB"),
        "{told}"
    );

    // With sensors that fail meanwhile it is believed: nothing speaks against it.
    driver.says("gpu GPU-a 80000 0 0\n");
    run.command(Told::Start).await;
    let honest = run.serves().await;
    holds(honest.pid, 60_000).await;
    driver.says("fail 15\n");
    run.command(Told::Offload).await;
    run.phase("offloaded").await;
    run.end(true).await;
    assert!(tasks.join(LIMIT).await);
}
