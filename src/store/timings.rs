//! Measurements of each deployment: the time that its transitions took and the
//! memory that it held, to foretell the next ones; and its popularity, so that
//! a restart or an upgrade does not choose blindly who leaves.
//!
//! One small JSON file. Losing it costs an estimate and nothing else, so a file
//! that can't be read counts as empty, and a file without some of it is read.
//! Measurements of other options than the present ones are forgotten, but for
//! the popularity: clients know nothing of options.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::OffloadTo;
use crate::names::DeploymentId;

/// Weight of the newest duration in the mean.
const WEIGHT: f64 = 0.3;
/// Deployments that are known, those that are gone for good among them.
const KNOWN_MAX: usize = 4_096;
/// Durations that are kept for the tail.
const RECENT_MAX: usize = 10;

/// Durations of one kind of transition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Mean in milliseconds, the newest weighing most.
    mean_ms: Option<f64>,
    /// The newest, in milliseconds, the newest last.
    recent_ms: Vec<u64>,
}

impl Measure {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let ms = took.as_secs_f64() * 1_000.0;
        let mean = self.mean_ms.map_or(ms, |mean| mean + WEIGHT * (ms - mean));
        self.mean_ms = Some(mean);
        if self.recent_ms.len() >= RECENT_MAX {
            self.recent_ms.remove(0);
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.recent_ms.push(ms);
    }

    /// The mean in seconds; `None` before the first.
    pub fn mean(&self) -> Option<f64> {
        self.mean_ms.map(|ms| ms / 1_000.0)
    }

    /// Duration that nine of ten of the newest ones did not exceed.
    pub fn tail(&self) -> Option<Duration> {
        let mut sorted = self.recent_ms.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * 9).div_ceil(10).saturating_sub(1);
        sorted.get(at).copied().map(Duration::from_millis)
    }
}

/// Measurements of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// Fingerprint of the options that it was measured with.
    fingerprint: String,
    /// Time from launch to ready.
    pub start: Measure,
    /// Time from asleep with weights in host memory to ready.
    pub wake_cpu: Measure,
    /// Time from asleep without weights to ready.
    pub wake_disk: Measure,
    /// Weights to host memory, but for the first time of each worker.
    pub sleep_cpu: Measure,
    /// The same, the first time of each worker: the memory is pinned then.
    pub first_sleep_cpu: Measure,
    /// Weights dropped.
    pub sleep_disk: Measure,
    /// Times that it slept without weights since it last did with them.
    pub disk_cycles: u32,
    /// Most bytes that it was seen to hold on a GPU awake.
    pub awake_bytes: Option<u64>,
    /// Bytes that it was last seen to hold on a GPU asleep.
    pub asleep_bytes: Option<u64>,
    /// Bytes of its weights, of all GPUs together, by its log.
    pub weights_bytes: Option<u64>,
    /// Tokens each second of its taste when its newest worker came up.
    pub taste_start: Option<f64>,
    /// The same after its newest wake.
    pub taste_wake: Option<f64>,
    /// Popularity among clients; `None` before the first request.
    pub popularity: Option<Popularity>,
}

/// Popularity of a deployment among clients, as it stood when it was written down. All
/// times but the last are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Popularity {
    /// Time for which it had been watched.
    pub watched: f64,
    /// Its requests, those of long ago counting less.
    pub count: f64,
    /// Mean time between two, the newest weighing most.
    pub gap: f64,
    /// Time since the last one.
    pub silent: f64,
    /// Time that a request took.
    pub service: f64,
    /// Time of the note, in seconds since 1970.
    pub at: u64,
}

impl Popularity {
    /// Seconds that passed since; none where the clock was set back.
    pub fn away(&self, unix_seconds: u64) -> f64 {
        Duration::from_secs(unix_seconds.saturating_sub(self.at)).as_secs_f64()
    }

    fn is_sound(&self) -> bool {
        let all = [
            self.watched,
            self.count,
            self.gap,
            self.silent,
            self.service,
        ];
        all.iter()
            .all(|figure| figure.is_finite() && *figure >= 0.0)
    }
}

/// A transition that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From launch to ready.
    Start,
    /// To sleep; whether it is the first of this worker.
    Sleep(OffloadTo, bool),
    /// From asleep to ready.
    Wake(OffloadTo),
}

/// Forecasts of each deployment.
#[derive(Debug, Default)]
pub struct Timings {
    path: Option<PathBuf>,
    known: BTreeMap<String, Timing>,
}

impl Timings {
    /// Reads the file, if there is one.
    pub fn open(path: PathBuf) -> Self {
        let read = fs::read(&path).ok();
        let known = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            path: Some(path),
            known: known.unwrap_or_default(),
        }
    }

    /// Measurements of this deployment.
    pub fn get(&self, id: &DeploymentId) -> Timing {
        self.known.get(id.as_str()).cloned().unwrap_or_default()
    }

    /// Forgets what was measured of other options than these.
    pub fn is_of(&mut self, id: &DeploymentId, fingerprint: &str) {
        let timing = self.known.entry(id.as_str().to_owned()).or_default();
        if timing.fingerprint != fingerprint {
            *timing = Timing {
                fingerprint: fingerprint.to_owned(),
                popularity: timing.popularity,
                ..Timing::default()
            };
        }
    }

    /// Popularity of this deployment when it was last written down.
    pub fn popularity(&self, id: &DeploymentId) -> Option<Popularity> {
        let known = self.known.get(id.as_str())?;
        known.popularity.filter(Popularity::is_sound)
    }

    /// Writes down how much each is asked for. Where more are known than there is room
    /// for, those that are not `there` are forgotten.
    pub fn popular(
        &mut self,
        all: impl IntoIterator<Item = (DeploymentId, Popularity)>,
        there: impl Fn(&str) -> bool,
    ) {
        if self.known.len() > KNOWN_MAX {
            self.known.retain(|id, _| there(id));
        }
        for (id, popularity) in all {
            // Another figure would not be read back.
            if popularity.is_sound() {
                let timing = self.known.entry(id.as_str().to_owned()).or_default();
                timing.popularity = Some(popularity);
            }
        }
        self.save();
    }

    /// Remembers how long a transition took.
    pub fn measured(&mut self, id: &DeploymentId, transition: Transition, took: Duration) {
        self.learn(id, |timing| {
            match transition {
                Transition::Start => &mut timing.start,
                Transition::Sleep(OffloadTo::Cpu, true) => &mut timing.first_sleep_cpu,
                Transition::Sleep(OffloadTo::Cpu, false) => &mut timing.sleep_cpu,
                Transition::Sleep(OffloadTo::Disk, _) => &mut timing.sleep_disk,
                Transition::Wake(OffloadTo::Cpu) => &mut timing.wake_cpu,
                Transition::Wake(OffloadTo::Disk) => &mut timing.wake_disk,
            }
            .add(took);
            match transition {
                Transition::Sleep(OffloadTo::Cpu, _) => timing.disk_cycles = 0,
                Transition::Sleep(OffloadTo::Disk, _) => timing.disk_cycles += 1,
                Transition::Start | Transition::Wake(_) => {}
            }
        });
    }

    /// Changes what is known of a deployment, and writes it down if it changed.
    pub fn learn(&mut self, id: &DeploymentId, change: impl FnOnce(&mut Timing)) {
        let timing = self.known.entry(id.as_str().to_owned()).or_default();
        let before = timing.clone();
        change(timing);
        if *timing != before {
            self.save();
        }
    }

    fn save(&self) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec_pretty(&self.known)
            .map_err(std::io::Error::other)
            .and_then(|bytes| super::whole::write_whole(path, &bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "the times of starts were not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> DeploymentId {
        DeploymentId::parse("team/tiny").unwrap()
    }

    #[test]
    fn times_read_back_and_a_torn_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timings.json");
        let mut timings = Timings::open(path.clone());
        assert_eq!(timings.get(&id()), Timing::default());
        timings.is_of(&id(), "a");
        timings.measured(&id(), Transition::Start, Duration::from_millis(3_250));
        let wake = Transition::Wake(OffloadTo::Cpu);
        timings.measured(&id(), wake, Duration::from_millis(200));
        let mut again = Timings::open(path.clone());
        assert_eq!(again.get(&id()), timings.get(&id()));
        assert_eq!(again.get(&id()).start.mean(), Some(3.25));
        again.is_of(&id(), "a");
        assert!(again.get(&id()).wake_cpu.mean().is_some());
        again.is_of(&id(), "b");
        assert_eq!(again.get(&id()).start.mean(), None, "of other options");
        fs::write(&path, b"{\"team/t").unwrap();
        assert_eq!(Timings::open(path).get(&id()), Timing::default());
    }

    const ASKED: Popularity = Popularity {
        watched: 3_600.0,
        count: 12.5,
        gap: 40.0,
        silent: 7.0,
        service: 2.5,
        at: 1_000,
    };

    #[test]
    fn how_much_it_is_asked_for_outlives_other_options_and_a_clock_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timings.json");
        let mut timings = Timings::open(path.clone());
        timings.is_of(&id(), "a");
        let odd = DeploymentId::parse("team/odd").unwrap();
        let gap = f64::NAN;
        let all = [(id(), ASKED), (odd.clone(), Popularity { gap, ..ASKED })];
        timings.popular(all, |_| true);
        let mut again = Timings::open(path);
        again.is_of(&id(), "b");
        assert_eq!(again.popularity(&id()), Some(ASKED));
        assert_eq!(again.popularity(&odd), None);
        assert!((ASKED.away(1_060) - 60.0).abs() < 1e-9);
        assert!(ASKED.away(10).abs() < 1e-9);
    }

    #[test]
    fn those_that_are_gone_for_good_are_forgotten_once_there_are_many() {
        let dir = tempfile::tempdir().unwrap();
        let mut timings = Timings::open(dir.path().join("timings.json"));
        timings.popular([(id(), ASKED)], |_| false);
        assert_eq!(timings.popularity(&id()), Some(ASKED), "there is room");
        let many = (0..=KNOWN_MAX).map(|n| DeploymentId::parse(&format!("team/m{n}")).unwrap());
        timings.popular(many.map(|id| (id, ASKED)), |_| false);
        timings.popular([(id(), ASKED)], |there| there == "team/m7");
        assert_eq!(timings.known.len(), 2);
        assert_eq!(timings.popularity(&id()), Some(ASKED));
    }

    #[test]
    fn a_file_of_before_it_was_written_down_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timings.json");
        let old = r#"{"team/tiny":{"fingerprint":"a","start":{"mean_ms":5.0,"recent_ms":[5]},"disk_cycles":2}}"#;
        fs::write(&path, old).unwrap();
        let timings = Timings::open(path);
        assert_eq!(timings.get(&id()).start.mean(), Some(0.005));
        assert_eq!(timings.popularity(&id()), None);
    }

    #[test]
    fn the_mean_follows_the_newest_and_the_tail_is_that_of_the_last_ten() {
        let mut measure = Measure::default();
        assert_eq!((measure.mean(), measure.tail()), (None, None));
        for seconds in [100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] {
            measure.add(Duration::from_secs(seconds));
        }
        assert_eq!(measure.tail(), Some(Duration::from_secs(9)));
        let mean = measure.mean().unwrap();
        assert!(
            (8.0..12.0).contains(&mean),
            "the first is forgotten: {mean}"
        );
    }
}
