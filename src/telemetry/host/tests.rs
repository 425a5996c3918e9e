use super::*;

/// A place that looks like `/proc`, or like a control group.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn process(&self, pid: u32, parent: u32, session: u32, ticks: u64, kilobytes: u64) {
        let stat = format!(
            "{pid} (vllm) S {parent} {pid} {session} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {pid}0 0"
        );
        self.write(&format!("{pid}/stat"), &stat);
        let smaps = format!(
            "0-f ---p 0 0:0 0 [rollup]\nRss: {kilobytes} kB\nPss: {} kB\n",
            kilobytes / 2
        );
        self.write(&format!("{pid}/smaps_rollup"), &smaps);
    }
}

const SECOND: Uptime = Duration::from_secs(1);

#[test]
fn two_samples_of_the_machine_make_rates() {
    let proc = Fixture::new();
    let stat = |busy: u64, idle: u64| {
        proc.write(
            "stat",
            &format!("cpu {busy} 0 0 {idle} 0 0 0 0\ncpu0 1\ncpu1 1\n"),
        );
    };
    let moved = |bytes: u64, sectors: u64| {
        proc.write(
            "net/dev",
            &format!("eth0: {bytes} 0 0 0 0 0 0 0 {bytes} 0\n"),
        );
        proc.write(
            "diskstats",
            &format!("8 0 sda 0 0 {sectors} 0 0 0 {sectors} 0\n"),
        );
    };
    proc.write("meminfo", "MemTotal: 100 kB\nMemAvailable: 60 kB\n");
    stat(1_000, 1_000);
    moved(5_000, 100);
    let mut sampler = Sampler::of(proc.0.path());
    let first = sampler.machine(SECOND);
    assert_eq!((first.cpu, first.network, first.disk), (None, None, None));
    assert_eq!(
        (first.memory_total, first.memory_used),
        (Some(102_400), Some(40_960))
    );
    stat(1_050, 1_150);
    moved(25_000, 140);
    let second = sampler.machine(SECOND * 11);
    assert_eq!(second.cpu, Some(0.5), "a quarter of two processors");
    let rates = |taken, given| Some(HostRates { taken, given });
    assert_eq!(second.network, rates(2_000.0, 2_000.0));
    assert_eq!(second.disk, rates(2_048.0, 2_048.0));
    // Counters that went back, as after a driver was loaded anew, are no huge rate.
    moved(0, 0);
    assert_eq!(
        sampler.machine(SECOND * 12).network,
        Some(HostRates::default())
    );
    // Twice at one moment is no division by zero.
    assert_eq!(sampler.machine(SECOND * 12).cpu, None);
}

#[test]
fn a_tree_is_followed_while_its_processes_come_and_go() {
    let proc = Fixture::new();
    proc.process(10, 1, 10, 500, 1_000);
    proc.process(11, 10, 10, 100, 2_000);
    proc.process(99, 1, 99, 9_999, 9_999);
    let trees = [Tree::Session(10), Tree::Roots(vec![10]), Tree::Session(77)];
    let mut sampler = Sampler::of(proc.0.path());
    let first = sampler.trees(SECOND, &trees);
    for usage in &first[..2] {
        let usage = usage.unwrap();
        assert_eq!((usage.processes, usage.cpu), (2, None));
        assert_eq!(usage.memory, Some(1_500 << 10));
        assert_eq!(usage.memory_resident, Some(3_000 << 10));
    }
    assert_eq!(first[2], None);
    // One goes on, one has ended, one is new and may not be looked into.
    proc.process(10, 1, 10, 600, 1_000);
    fs::remove_dir_all(proc.0.path().join("11")).unwrap();
    proc.process(12, 10, 10, 50, 0);
    fs::remove_file(proc.0.path().join("12/smaps_rollup")).unwrap();
    proc.write("12/status", "Name: vllm\nVmRSS:\t 300 kB\n");
    proc.write("10/io", "read_bytes: 1000\nwrite_bytes: 0\n");
    for usage in &sampler.trees(SECOND * 2, &trees)[..2] {
        let usage = usage.unwrap();
        assert_eq!(usage.cpu, Some(1.5));
        assert_eq!(usage.memory, Some(800 << 10));
        assert_eq!(usage.memory_resident, Some(1_300 << 10));
        let rates = HostRates {
            taken: 1_000.0,
            given: 0.0,
        };
        assert_eq!(usage.disk, Some(rates));
    }
    // A process id that is used again does not inherit.
    fs::remove_dir_all(proc.0.path().join("10")).unwrap();
    fs::remove_dir_all(proc.0.path().join("12")).unwrap();
    let gone = sampler.trees(SECOND * 3, &trees);
    assert_eq!(gone, [None, None, None]);
}

#[test]
fn a_ring_of_parents_ends() {
    let proc = Fixture::new();
    proc.process(10, 11, 10, 1, 1);
    proc.process(11, 10, 10, 1, 1);
    let mut sampler = Sampler::of(proc.0.path());
    let usages = sampler.trees(SECOND, &[Tree::Roots(vec![10])]);
    assert_eq!(usages[0].unwrap().processes, 2);
}

#[test]
fn a_control_group_is_sampled_until_it_is_gone() {
    let group = Fixture::new();
    group.write("cpu.stat", "usage_usec 1000000\n");
    group.write("memory.current", "4096\n");
    group.write("io.stat", "8:0 rbytes=100 wbytes=0\n");
    let mut sampler = Sampler::default();
    let path = group.0.path();
    assert_eq!(sampler.group(SECOND, path).unwrap().memory, Some(4_096));
    group.write("cpu.stat", "usage_usec 4000000\n");
    let usage = sampler.group(SECOND * 3, path).unwrap();
    assert_eq!(usage.cpu, Some(1.5));
    assert_eq!(usage.disk, Some(HostRates::default()));
    for file in ["cpu.stat", "memory.current", "io.stat"] {
        fs::remove_file(path.join(file)).unwrap();
    }
    assert_eq!(sampler.group(SECOND * 4, path), None);
}

#[test]
fn a_machine_that_tells_nothing_is_no_error() {
    let proc = Fixture::new();
    let mut sampler = Sampler::of(proc.0.path().join("absent"));
    for now in [SECOND, SECOND * 2] {
        assert_eq!(sampler.machine(now), HostSample::default());
        assert_eq!(sampler.trees(now, &[Tree::Session(1)]), [None]);
    }
}

#[test]
fn this_very_process_is_seen() {
    let mut sampler = Sampler::default();
    let tree = Tree::Roots(vec![std::process::id()]);
    let usage = sampler.trees(SECOND, &[tree])[0].unwrap();
    assert!(usage.memory.is_some_and(|bytes| bytes > 100_000));
    let machine = sampler.machine(SECOND);
    assert!(machine.memory_total > machine.memory_used);
    assert!(machine.processors.is_some_and(|count| count > 0));
}

#[tokio::test]
async fn what_is_known_is_recorded() {
    let recorder = Recorder::new(crate::time::Clock::start());
    let usage = HostUsage {
        cpu: Some(1.0),
        memory: Some(65_536),
        ..HostUsage::default()
    };
    usage.record(&recorder, &"worker:a/b".parse().unwrap());
    let machine = HostSample {
        network: Some(HostRates::default()),
        ..HostSample::default()
    };
    machine.record(&recorder);
    assert_eq!(recorder.flush().len(), 4);
}
