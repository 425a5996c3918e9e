//! Figures and limits that placement and the machine go by: from a deployment's spec, and
//! from what was measured of it.
//!
//! Pure. Measured figures win over declared ones, and both over guesses.

use std::time::Duration;

use super::ledger::{Amount, MemoryNeed};
use super::machine::{Broken, Policy};
use super::placement::{self, Profile, Rungs};
use super::policy::costs::Costs;
use crate::config::{self, Engine, Levels, Settings, Start};
use crate::gpu::Device;
use crate::store::timings::Timing;
use crate::units::of_gibibytes;
use crate::vllm::fit::Fit;
use crate::vllm::installation::VERSION_ASSUMED;
use crate::vllm::versions::Version;

/// Bytes that an engine that sleeps keeps on a GPU, at most, where it was not measured.
const ASLEEP_BYTES: u64 = 3 << 29;
/// After so many sleeps without weights host memory is tried again, however slow
/// it was.
const DISK_CYCLES_MAX: u32 = 10;
/// Seconds that the stand-in takes to end.
const SIM_STOP: f64 = 0.1;

/// Policy that the machine goes by.
pub(in crate::lifecycle) fn policy(spec: &config::Deployment, settings: &Settings) -> Policy {
    let (workers, idle) = (&settings.workers, &spec.idle);
    let stays = spec.keep || spec.replicas.number <= spec.replicas.min;
    let limit = |limit: Option<Duration>| limit.filter(|_| !stays);
    // A claim may wait for its patience, and then for others to leave.
    let leave = workers.drain_timeout + workers.call_timeout + workers.stop_grace * 2;
    Policy {
        offload_after: limit(idle.offload.and_then(|offload| offload.after)),
        offload_to: idle.offload.map(|offload| offload.levels.first()),
        levels: idle.offload.map_or(Levels::BOTH, |offload| offload.levels),
        stop_after: limit(idle.time_limit),
        // The conductor knows whether it is here.
        fetch_first: false,
        place_timeout: settings.placement.wait_bound + leave * 2,
        start_timeout: workers.start_timeout,
        call_timeout: workers.call_timeout,
        drain_timeout: workers.drain_timeout,
        stop_grace: workers.stop_grace,
        backoff_base: workers.backoff,
        stable_after: workers.stable_after,
        failures_max: workers.failures_max,
        restart_unasked: starts_at_boot(spec),
    }
}

/// True if it is started with the gateway.
pub(in crate::lifecycle) fn starts_at_boot(spec: &config::Deployment) -> bool {
    let replicas = spec.replicas;
    (spec.start == Start::Boot && replicas.number == 1) || replicas.number <= replicas.min
}

/// Profile that placement goes by. `gpu_memory` is that of the largest device.
pub(in crate::lifecycle) fn profile(
    spec: &config::Deployment,
    timing: &Timing,
    fit: Option<&Fit>,
    broken: Broken,
    gpu_memory: u64,
) -> Profile {
    let need = need(spec, timing, fit, gpu_memory);
    let levels = spec.idle.offload.map(|offload| offload.levels);
    Profile {
        costs: costs(spec, timing, fit, &need),
        need,
        rungs: Rungs {
            cpu: levels.is_some_and(|levels| levels.cpu) && !broken.cpu,
            disk: levels.is_some_and(|levels| levels.disk) && !broken.disk,
        },
        pinned: spec.keep,
        keeps_host: matches!(spec.engine, Engine::Vllm(_)),
    }
}

/// Reason why a worker of this spec could never run on these devices, as far as its
/// options tell.
pub(in crate::lifecycle) fn misfit(
    spec: &config::Deployment,
    devices: &[Device],
) -> Option<String> {
    let memory = devices.iter().map(|device| device.memory).max()?;
    placement::misfit(&need(spec, &Timing::default(), None, memory), devices)
}

/// Memory that a worker of this spec needs.
fn need(
    spec: &config::Deployment,
    timing: &Timing,
    fit: Option<&Fit>,
    gpu_memory: u64,
) -> MemoryNeed {
    let (gpus, awake, asleep, weights) = match &spec.engine {
        Engine::Sim(sim) => {
            let awake = Amount::Bytes(sim.weights.saturating_add(sim.context));
            return MemoryNeed {
                gpus: 1,
                awake,
                asleep: sim.context,
                host: sim.weights,
            };
        }
        Engine::Vllm(vllm) => {
            let gpus = usize::try_from(vllm.options.gpus()).unwrap_or(usize::MAX);
            let share = vllm.options.get_float("gpu_memory_utilization");
            // What is installed where none is named is not known here: no more than the newest.
            let version = vllm.version.as_deref().and_then(|text| text.parse().ok());
            let version: Version = version.unwrap_or(VERSION_ASSUMED);
            let awake = Amount::Share(share.unwrap_or(version.memory_share()));
            let weights = timing.weights_bytes.or(fit.map(Fit::weights_in_all));
            (gpus, awake, ASLEEP_BYTES, weights)
        }
    };
    let device = Device {
        index: 0,
        memory: gpu_memory,
    };
    // It takes what was declared while it starts, and was seen to take more after.
    let awake = match timing.awake_bytes {
        Some(seen) if seen > awake.on(device) => Amount::Bytes(seen),
        _ => awake,
    };
    let most = awake.on(device).saturating_mul(gpus as u64);
    MemoryNeed {
        gpus,
        awake,
        asleep: timing.asleep_bytes.unwrap_or(asleep),
        // No more than all that it takes can have to be kept.
        host: weights.unwrap_or(most),
    }
}

fn costs(
    spec: &config::Deployment,
    timing: &Timing,
    fit: Option<&Fit>,
    need: &MemoryNeed,
) -> Costs {
    let guess = match &spec.engine {
        Engine::Sim(sim) => {
            let (sleep, wake) = (sim.sleep.as_secs_f64(), sim.wake.as_secs_f64());
            Costs {
                sleep_cpu: sleep,
                wake_cpu: wake,
                sleep_disk: sleep,
                wake_disk: wake,
                stop: SIM_STOP,
                start: sim.load.as_secs_f64(),
            }
        }
        Engine::Vllm(_) => {
            let costs = Costs::expected(need.host, need.gpus);
            match fit {
                Some(fit) if fit.repacks => costs.repacked(need.host),
                _ => costs,
            }
        }
    };
    let mut costs = Costs {
        sleep_cpu: timing.sleep_cpu.mean().unwrap_or(guess.sleep_cpu),
        wake_cpu: timing.wake_cpu.mean().unwrap_or(guess.wake_cpu),
        sleep_disk: timing.sleep_disk.mean().unwrap_or(guess.sleep_disk),
        wake_disk: timing.wake_disk.mean().unwrap_or(guess.wake_disk),
        stop: guess.stop,
        start: timing.start.mean().unwrap_or(guess.start),
    };
    if timing.disk_cycles >= DISK_CYCLES_MAX {
        costs.sleep_cpu = costs.sleep_cpu.min(guess.sleep_cpu);
        costs.wake_cpu = costs.wake_cpu.min(guess.wake_cpu);
    }
    costs
}

/// Bytes of weights, of all ranks together, by an engine's log: vLLM 0.32 writes
/// `Model loading took 14.98 GiB memory and 5.3 seconds` for each rank.
pub(in crate::lifecycle) fn weights_in<'a>(
    lines: impl DoubleEndedIterator<Item = &'a str>,
    ranks: u64,
) -> Option<u64> {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once("Model loading took ")?;
        let gib: f64 = rest.split_once(" GiB")?.0.trim().parse().ok()?;
        let bytes = of_gibibytes(gib);
        (bytes > 0).then_some(bytes)
    };
    let mut lines = lines.rev();
    Some(lines.find_map(of_line)? * ranks.max(1))
}

#[cfg(test)]
pub(in crate::lifecycle) mod tests {
    use super::*;
    use crate::config::OffloadTo;
    use crate::lifecycle::act::process::tests::spec;
    use crate::store::timings::{Timings, Transition};
    use crate::vllm::fit::{FitTerms, Shape, Weights};

    /// A model of so many bytes, with or without experts.
    pub(in crate::lifecycle) fn fit(bytes: u64, experts: u64) -> Fit {
        let config = serde_json::json!({
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 1000, "max_position_embeddings": 512, "num_experts": experts,
        });
        let shape = Shape::read(&config).unwrap();
        let mut weights = Weights::default();
        weights.add(
            &shape,
            "model.layers.0.mlp.weight",
            "BF16",
            &[bytes / 2, 1],
            bytes,
        );
        let terms = FitTerms::read(&["serve".to_owned()], VERSION_ASSUMED).unwrap();
        Fit::of(shape, &weights, terms).unwrap()
    }

    #[test]
    fn the_share_that_is_leased_is_that_of_the_version() {
        let awake = |version: Option<&str>| {
            let mut spec = vllm();
            if let Engine::Vllm(vllm) = &mut spec.engine {
                vllm.version = version.map(str::to_owned);
            }
            need(&spec, &Timing::default(), None, 80 << 30).awake
        };
        assert_eq!(awake(Some("0.11.0")), Amount::Share(0.9));
        assert_eq!(awake(Some("0.32.0")), Amount::Share(0.92));
        assert_eq!(awake(None), Amount::Share(0.92));
    }

    fn vllm() -> config::Deployment {
        let spec = spec("t/a");
        config::Deployment {
            engine: Engine::Vllm(config::Vllm {
                version: None,
                options: crate::vllm::options::OptionSet::default(),
            }),
            ..config::Deployment::clone(&spec)
        }
    }

    #[test]
    fn a_model_tells_its_size_before_anything_was_measured() {
        let of = |timing: &Timing, fit: Option<&Fit>| {
            profile(&vllm(), timing, fit, Broken::default(), 80 << 30)
        };
        let share = |share| crate::units::share_of(80 << 30, share);
        let none = Timing::default();
        let most = of(&none, None).need.host;
        assert!(
            most.abs_diff(share(0.92)) < 2,
            "all that it may take: {most}"
        );
        let plain = of(&none, Some(&fit(16 << 30, 0)));
        assert_eq!(plain.need.host, 16 << 30);
        let experts = of(&none, Some(&fit(16 << 30, 8)));
        assert_eq!(experts.need.host, 16 << 30);
        let slower = experts.costs.wake_disk / plain.costs.wake_disk;
        assert!((5.0..10.0).contains(&slower), "{slower}");
        let mut seen = Timing::default();
        seen.weights_bytes = Some(15 << 30);
        let seen = of(&seen, Some(&fit(16 << 30, 0)));
        assert_eq!(seen.need.host, 15 << 30, "what was measured wins");
    }

    #[test]
    fn the_log_tells_the_weights() {
        let log = [
            "INFO [gpu_model_runner.py] Model loading took 14.5 GiB memory and 5.3 seconds",
            "INFO init engine",
        ];
        assert_eq!(weights_in(log.into_iter(), 2), Some(29 << 30));
        assert_eq!(weights_in(["x"].into_iter(), 1), None);
    }

    #[test]
    fn what_was_measured_wins_and_a_slow_level_is_tried_again() {
        let spec = spec("t/a");
        let mut timings = Timings::default();
        let sleep = Transition::Sleep(OffloadTo::Cpu, false);
        timings.measured(&spec.id, sleep, Duration::from_secs(36));
        let costs = |timings: &Timings| {
            let timing = timings.get(&spec.id);
            profile(&spec, &timing, None, Broken::default(), 80 << 30).costs
        };
        assert!((costs(&timings).sleep_cpu - 36.0).abs() < 1e-9);
        assert!(!costs(&timings).prefers_cpu());
        for _ in 0..DISK_CYCLES_MAX {
            let sleep = Transition::Sleep(OffloadTo::Disk, false);
            timings.measured(&spec.id, sleep, Duration::from_millis(300));
        }
        assert!(costs(&timings).prefers_cpu());
    }

    #[test]
    fn the_first_sleep_of_a_worker_does_not_speak_against_its_level() {
        let spec = spec("t/a");
        let mut timings = Timings::default();
        let first = Transition::Sleep(OffloadTo::Cpu, true);
        timings.measured(&spec.id, first, Duration::from_secs(36));
        let timing = timings.get(&spec.id);
        let costs = profile(&spec, &timing, None, Broken::default(), 80 << 30).costs;
        assert!(costs.prefers_cpu());
    }
}
