//! Input of a simulation: a fleet of deployments on GPUs, and the requests for it.

use crate::config::Prefer;
use crate::lifecycle::decide::policy::Seconds;
use crate::lifecycle::decide::policy::costs::Costs;
use crate::random::Dice;

/// Most requests of a trace.
pub(super) const ARRIVALS_MAX: usize = 5_000_000;

/// The machine that the requests of a file are simulated on.
#[derive(Clone, Copy, Debug)]
pub struct PlayedMachine {
    /// Number of GPUs that it has.
    pub gpus: usize,
    /// Bytes of each.
    pub gpu_memory: u64,
    /// Bytes of host memory for sleepers.
    pub host_memory: u64,
}

pub(super) const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// Memory of each GPU, in GiB.
pub(super) const GPU_GIB: f64 = 80.0;
/// Host memory for each GPU, in GiB.
const HOST_GIB: f64 = 128.0;
/// Requests that an engine works on at once.
pub const BATCH_MAX: usize = 64;

/// One deployment of a fleet.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// The GPUs that it is bound to.
    pub home: Vec<usize>,
    /// Bytes on each of them while awake.
    pub awake: u64,
    /// Bytes on each of them while asleep.
    pub asleep: u64,
    /// Bytes of its weights.
    pub weights: u64,
    /// Costs of its transitions.
    pub costs: Costs,
    /// True if tidegate never makes it leave; others know no such thing.
    pub keep: bool,
    /// Workspace whose requests it is for, by number.
    pub workspace: u32,
    /// Share of the requests.
    pub(super) popularity: f64,
    /// Number of GPUs that it takes.
    pub(super) gpus: usize,
    /// Tokens per second of a request alone.
    pub(super) speed: f64,
    /// Mean seconds of prefill.
    pub(super) prefill: Seconds,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Time when it comes, in seconds.
    pub at: Seconds,
    /// Deployment that it is for, by its place in the fleet.
    pub model: usize,
    /// Seconds of work, were it alone.
    pub work: Seconds,
    /// Client that sends it, where a client is known by a key.
    pub key: Option<u32>,
}

/// A fleet and its requests.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of it.
    pub name: String,
    /// Number of GPUs.
    pub gpus: usize,
    /// Bytes of each GPU.
    pub gpu_memory: u64,
    /// Bytes of host memory for sleepers.
    pub host_memory: u64,
    /// The deployments.
    pub fleet: Vec<Model>,
    /// The requests, in order of time.
    pub arrivals: Vec<Arrival>,
    /// Time for which requests come, in seconds.
    pub horizon: Seconds,
    /// Lists of deployments: requests for the first of one may go to any of it.
    pub lists: Vec<Vec<usize>>,
    /// Choice of the one of a list that is asked.
    pub prefer: Prefer,
}

/// Sizes of weights in GiB, with GPUs and tokens per second.
const CLASSES: [(f64, usize, f64); 5] = [
    (8.0, 1, 120.0),
    (16.0, 1, 80.0),
    (28.0, 1, 50.0),
    (64.0, 2, 45.0),
    (140.0, 4, 35.0),
];
/// Shares of the classes in a fleet on four GPUs or more, summed up.
const SHARES: [f64; 5] = [0.35, 0.65, 0.82, 0.94, 1.0];
/// And of the small classes, summed up.
const SHARES_SMALL: [f64; 3] = [0.35, 0.65, 1.0];

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of models are far below 2^53"
)]
pub(super) fn bytes(gib: f64) -> u64 {
    (gib * GIB) as u64
}

impl PlayedMachine {
    /// So many GPUs of the study, with their host memory.
    pub fn of_gpus(gpus: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "thousands of GPUs at most")]
        let host_memory = bytes(HOST_GIB * gpus as f64);
        Self {
            gpus,
            gpu_memory: bytes(GPU_GIB),
            host_memory,
        }
    }
}

impl Model {
    /// One of any size; its requests bring their own work.
    pub(super) fn of_size(name: &str, weights: u64, gpus: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
        let (gib, k) = (weights as f64 / GIB, gpus as f64);
        Self {
            name: name.to_owned(),
            home: Vec::new(),
            awake: bytes((1.25 * gib + 3.0) / k),
            asleep: bytes(if gpus > 1 { 2.2 } else { 1.2 }),
            weights,
            costs: Costs::expected(weights, gpus),
            keep: false,
            workspace: 0,
            popularity: 1.0,
            gpus,
            speed: 0.0,
            prefill: 0.0,
        }
    }

    /// One of this class. Footprint and costs are those of the study.
    pub(super) fn of_class(number: usize, class: usize) -> Self {
        let (gib, gpus, speed) = CLASSES.get(class).copied().unwrap_or((8.0, 1, 120.0));
        #[expect(clippy::cast_precision_loss, reason = "a few GPUs")]
        let k = gpus as f64;
        Self {
            name: format!("m{number}-{gib}g"),
            home: Vec::new(),
            awake: bytes((1.25 * gib + 3.0) / k),
            asleep: bytes(if gpus > 1 { 2.2 } else { 1.2 }),
            weights: bytes(gib),
            costs: Costs::expected(bytes(gib), gpus),
            keep: false,
            workspace: 0,
            popularity: 0.0,
            gpus,
            speed,
            prefill: 0.1 + gib / 200.0,
        }
    }

    /// Any one, by the shares of the study.
    pub(super) fn any(number: usize, small: bool, dice: &mut Dice) -> Self {
        let shares = if small {
            &SHARES_SMALL[..]
        } else {
            &SHARES[..]
        };
        Self::of_class(number, dice.weighted(shares))
    }

    /// Seconds of work of one request.
    pub(super) fn work(&self, dice: &mut Dice) -> Seconds {
        let tokens = dice.lognormal(150.0, 1.0).clamp(5.0, 2_000.0);
        dice.exponential(self.prefill) + tokens / self.speed
    }
}

impl Workload {
    pub(super) fn new(name: &str, gpus: usize, fleet: Vec<Model>, horizon: Seconds) -> Self {
        Self::on(name, PlayedMachine::of_gpus(gpus), fleet, horizon)
    }

    pub(super) fn on(
        name: &str,
        machine: PlayedMachine,
        fleet: Vec<Model>,
        horizon: Seconds,
    ) -> Self {
        let PlayedMachine {
            gpus,
            gpu_memory,
            host_memory,
        } = machine;
        let mut trace = Self {
            name: name.to_owned(),
            gpus,
            gpu_memory,
            host_memory,
            fleet,
            arrivals: Vec::new(),
            horizon,
            lists: Vec::new(),
            prefer: Prefer::Order,
        };
        trace.settle();
        trace
    }

    /// Those that a request for a deployment is tried at, where they serve already.
    pub(super) fn awake_before(&self, model: usize) -> &[usize] {
        let mut lists = self.lists.iter();
        let list = lists.find(|list| list.first() == Some(&model));
        match (list, self.prefer) {
            (Some(list), Prefer::Awake) => list,
            // Nothing fails here, so the first always answers.
            _ => &[],
        }
    }

    /// Gives each deployment its GPUs, one after the other: those to which the
    /// least memory is bound yet, as nobody knows how popular it will be.
    fn settle(&mut self) {
        let mut bound = vec![0_u64; self.gpus];
        for model in &mut self.fleet {
            let mut places: Vec<(u64, usize)> = bound.iter().copied().zip(0..).collect();
            places.sort_unstable();
            let mut home: Vec<usize> = places.into_iter().map(|(_, place)| place).collect();
            home.truncate(model.gpus);
            home.sort_unstable();
            for place in &home {
                if let Some(bound) = bound.get_mut(*place) {
                    *bound += model.awake;
                }
            }
            model.home = home;
        }
    }

    pub(super) fn push(&mut self, at: Seconds, model: usize, work: Seconds, key: Option<u32>) {
        self.arrivals.push(Arrival {
            at,
            model,
            work,
            key,
        });
    }

    pub(super) fn sort(&mut self) {
        self.arrivals
            .sort_by(|a, b| a.at.total_cmp(&b.at).then(a.model.cmp(&b.model)));
    }
}
