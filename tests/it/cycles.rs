//! Random histories of the whole binary with real processes: requests, commands,
//! edits, workers that are killed, and the gateway itself killed at any moment.
//!
//! Promises that must hold: a request is answered whole, or refused as documented, or cut
//! only where a process that served it was killed; at the end no process is left
//! and no GPU memory is held. A failure prints its seed. `TIDEGATE_CYCLES=10000`
//! makes it long, `TIDEGATE_SEED=n` replays the choices.
#![expect(
    clippy::indexing_slicing,
    reason = "tables are indexed by their own length"
)]

pub(crate) mod place;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use place::{Outcome, Place};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidegate::random::Dice;

/// Cycles of a run where none are named.
const CYCLES: u64 = 60;
const MODELS: usize = 5;
const CLIENTS: usize = 4;

/// An instance of one model on simulated GPUs.
fn instance(n: usize, edition: usize) -> String {
    let ladder = ["automatic_cpu_offloading", "disk_swapping"][n % 2];
    let weights = 8 + n + edition % 3;
    format!(
        "[instance]\nname = \"i{n}\"\nproject = \"demo\"\nengine = \"sim\"\nroll = \"{roll}\"\n\
         [instance.idle]\noffload_after = \"{offload}ms\"\ntime_limit = \"2s\"\n\
         [instance.options]\n{ladder} = true\n\
         [[deployment]]\nmodel = \"m\"\nendpoint_name = \"m{n}\"\n{replicas}\
         [deployment.sim]\nload = \"40ms\"\nwake = \"5ms\"\nsleep = \"5ms\"\nfirst_token = \"2ms\"\n\
         tokens_per_second = 400\nweights = \"{weights}GiB\"\ncontext = \"1GiB\"\n{faults}",
        roll = ["idle", "now"][edition % 2],
        offload = 150 + 100 * n,
        replicas = if n == 0 {
            "replicas = { max = 2, requests_each = 1 }\n"
        } else {
            ""
        },
        faults = match n {
            3 => "faults = [\"ignore-sigterm\"]\n",
            4 => "faults = [\"sleep-fails\"]\n",
            _ => "",
        },
    )
}

const SETTINGS: &str = "[gpus]\nsource = \"simulated\"\nsimulated = [{ memory = \"24GiB\" }, { memory = \"16GiB\" }]\n\
     [placement]\nwait_bound = \"1s\"\n\
     [workers]\ncall_timeout = \"5s\"\nstart_timeout = \"20s\"\ndrain_timeout = \"5s\"\nstop_grace = \"300ms\"\n\
     backoff = \"20ms\"\nfailures_max = 100\nprobe_interval = \"500ms\"\nscale_up_after = \"50ms\"\nscale_down_after = \"300ms\"\n";

/// Counts of what clients saw, and when processes were killed under them.
#[derive(Default)]
struct Tally {
    seen: Mutex<BTreeMap<Outcome, u64>>,
    /// Counted up before and after each kill: a request that saw it change, or
    /// odd, may have been cut by it.
    kills: AtomicU64,
    lost: Mutex<Vec<String>>,
}

impl Tally {
    fn note(&self, outcome: Outcome, model: &str, (before, after): (u64, u64)) {
        let killed = before != after || before % 2 == 1;
        let excused = match &outcome {
            Outcome::Served | Outcome::Refused(_) => true,
            // What was not sent yet waits for the next worker.
            Outcome::Broken(text) if text.contains("no_healthy_backend") => false,
            Outcome::Broken(_) | Outcome::Cut(_) | Outcome::Unreached => killed,
        };
        if !excused {
            self.lost
                .lock()
                .unwrap()
                .push(format!("{model}: {outcome:?}"));
        }
        *self.seen.lock().unwrap().entry(outcome).or_default() += 1;
    }
}

fn client(place: &Place, tally: &Tally, stop: &AtomicBool, mut dice: Dice) {
    while !stop.load(Ordering::Acquire) {
        let model = format!("m{}", dice.below(MODELS));
        let stream = dice.below(2) == 0;
        let before = tally.kills.load(Ordering::Acquire);
        let outcome = place.chat(&model, stream);
        let after = tally.kills.load(Ordering::Acquire);
        tally.note(outcome, &model, (before, after));
        thread::park_timeout(Duration::from_millis(dice.below(30) as u64));
    }
}

/// Kills a worker. Until the gateway knows, requests that it cut are excused.
fn kill_worker(place: &Place, tally: &Tally, pid: u64) {
    tally.kills.fetch_add(1, Ordering::AcqRel);
    let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(process, Signal::KILL).unwrap_or_default();
    let has_it = |d: &Value| {
        let replicas = d["replicas"].as_array().cloned().unwrap_or_default();
        d["pid"] == pid || replicas.iter().any(|r| r["pid"] == pid)
    };
    place.until("the end of a killed worker", || {
        let deployments = place.deployments();
        !deployments.is_empty() && !deployments.iter().any(has_it)
    });
    tally.kills.fetch_add(1, Ordering::AcqRel);
}

#[test]
fn random_cycles_lose_no_request_and_leave_nothing_behind() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().unwrap())
    };
    let (cycles, seed) = (
        number("TIDEGATE_CYCLES", CYCLES),
        number("TIDEGATE_SEED", 1),
    );
    let mut place = Place::new(SETTINGS);
    for n in 0..MODELS {
        place.write(&format!("i{n}.toml"), &instance(n, 0));
    }
    place.start(&[]);
    let tally = Tally::default();
    let mut dice = Dice::new(seed);
    let mut restarts = 0;
    let mut left = cycles;
    while left > 0 {
        // Clients end before the gateway is replaced, so that each knows what it asked.
        let round = left.min(25 + dice.below(50) as u64);
        left -= round;
        let stop = AtomicBool::new(false);
        let kill_gateway = dice.below(2) == 0;
        thread::scope(|scope| {
            for n in 0..CLIENTS {
                let dice = Dice::new(dice.number() ^ n as u64);
                let (place, tally, stop) = (&place, &tally, &stop);
                scope.spawn(move || client(place, tally, stop, dice));
            }
            for _ in 0..round {
                cycle(&place, &tally, &mut dice);
            }
            if kill_gateway {
                // Mid-flight, whatever it is doing.
                tally.kills.fetch_add(1, Ordering::AcqRel);
                place.signal(Signal::KILL);
                stop.store(true, Ordering::Release);
            }
            stop.store(true, Ordering::Release);
        });
        if kill_gateway {
            place.wait();
            place.start(&[]);
            tally.kills.fetch_add(1, Ordering::AcqRel);
            restarts += 1;
        }
        let lost = tally.lost.lock().unwrap().clone();
        assert!(
            lost.is_empty(),
            "seed {seed}, {left} cycles left: {lost:#?}\n{}",
            place.tail()
        );
    }
    finish(&mut place);
    let outcomes = tally.seen.lock().unwrap();
    let served = outcomes.get(&Outcome::Served).copied().unwrap_or(0);
    assert!(
        served * 8 > cycles,
        "seed {seed}: too few were served: {outcomes:?}"
    );
    // Shown with --nocapture, for the run by hand.
    println!("{cycles} cycles, seed {seed}, {restarts} restarts after SIGKILL: {outcomes:?}");
}

/// One thing happens to someone.
fn cycle(place: &Place, tally: &Tally, dice: &mut Dice) {
    let n = dice.below(MODELS);
    match dice.below(10) {
        0 => {
            let pids: Vec<u64> = place
                .deployments()
                .iter()
                .filter_map(|d| d["pid"].as_u64())
                .collect();
            if let Some(&pid) = pids.get(dice.below(pids.len().max(1))) {
                kill_worker(place, tally, pid);
            }
        }
        1 => place.write(&format!("i{n}.toml"), &instance(n, dice.below(6))),
        what => {
            let command = [
                "start", "stop", "offload", "wake", "start", "start", "offload", "start",
            ];
            let command = command[what - 2];
            // A command that makes no sense now is refused, and that is right.
            drop(place.admin("POST", &format!("instances/i{n}/{command}")));
        }
    }
    thread::park_timeout(Duration::from_millis(dice.below(40) as u64));
}

/// Everything is stopped: no process is left, and no memory is held.
fn finish(place: &mut Place) {
    for n in 0..MODELS {
        let (status, answer) = place
            .admin("POST", &format!("instances/i{n}/stop"))
            .unwrap();
        assert!(status < 300, "{answer}");
    }
    place.until("all to stop", || {
        let deployments = place.deployments();
        deployments.len() == MODELS && deployments.iter().all(|d| d["status"] == "stopped")
    });
    assert!(
        place.held() < 1.0,
        "the ledger still holds {} bytes",
        place.held()
    );
    let left = place.workers();
    assert!(left.is_empty(), "workers are left: {left:?}");
    place.signal(Signal::TERM);
    place.wait();
    let state = place.path().join(".tidegate");
    let records = fs::read_dir(state.join("workers")).unwrap().flatten();
    let records: Vec<PathBuf> = records
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some())
        .collect();
    assert!(records.is_empty(), "records are left: {records:?}");
}
