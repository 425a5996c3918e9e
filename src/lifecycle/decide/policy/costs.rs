//! Seconds that the transitions of a deployment take.
//!
//! Measured where they were; else what weights of that size took in published
//! runs. A level is chosen by these, so a wrong guess is corrected by the first
//! time that it is tried.

use super::Seconds;
use crate::config::OffloadTo;
use crate::lifecycle::decide::machine::Rest;
use crate::units::gibibytes;

/// Seconds of each transition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Weights to host memory.
    pub sleep_cpu: Seconds,
    /// And back.
    pub wake_cpu: Seconds,
    /// Weights dropped.
    pub sleep_disk: Seconds,
    /// And read again.
    pub wake_disk: Seconds,
    /// Process ended.
    pub stop: Seconds,
    /// Time from launch to ready.
    pub start: Seconds,
}

/// Gibibytes per second from a GPU to pinned host memory, as published.
const TO_HOST: f64 = 15.0;
/// And back.
const FROM_HOST: f64 = 20.0;
/// Gibibytes per second from disk.
const FROM_DISK: f64 = 2.0;
/// Factor by which weights are read slower again that are changed after reading: experts,
/// and quantized ones. Five to ten times (vllm#53687).
const REPACKED: f64 = 7.0;
/// Seconds that an engine takes to end.
const STOP: Seconds = 2.0;
/// Seconds of a start, beside one for each gibibyte of weights.
const START: Seconds = 40.0;

impl Costs {
    /// Costs to expect of weights of this size on so many GPUs, before anything
    /// was measured.
    pub fn expected(weights: u64, gpus: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a number of GPUs")]
        let (gib, k) = (gibibytes(weights), gpus.max(1) as f64);
        // Ranks wait for each other.
        let several = if gpus > 1 { 0.5 } else { 0.0 };
        Self {
            sleep_cpu: gib / k / TO_HOST + 0.2 + several,
            wake_cpu: 0.3 + gib / k / FROM_HOST + several,
            sleep_disk: 0.3 + several,
            wake_disk: 0.5 + gib / FROM_DISK + several,
            stop: STOP,
            start: START + gib,
        }
    }

    /// The same, of weights of this size that are changed after they were read.
    #[must_use]
    pub fn repacked(self, weights: u64) -> Self {
        let again = gibibytes(weights) / FROM_DISK;
        Self {
            wake_disk: self.wake_disk + again * (REPACKED - 1.0),
            ..self
        }
    }

    /// Seconds that leaving in this way takes.
    pub fn leave(&self, rest: Rest) -> Seconds {
        match rest {
            Rest::Offload(OffloadTo::Cpu) => self.sleep_cpu,
            Rest::Offload(OffloadTo::Disk) => self.sleep_disk,
            Rest::Stop | Rest::Restart => self.stop,
        }
    }

    /// Seconds that coming back takes after leaving in this way.
    pub fn back(&self, rest: Rest) -> Seconds {
        match rest {
            Rest::Offload(OffloadTo::Cpu) => self.wake_cpu,
            Rest::Offload(OffloadTo::Disk) => self.wake_disk,
            Rest::Stop | Rest::Restart => self.start,
        }
    }

    /// The shortest way to leave.
    pub fn leave_min(&self) -> Seconds {
        self.sleep_cpu.min(self.sleep_disk)
    }

    /// True if host memory is the faster place, there and back.
    pub fn prefers_cpu(&self) -> bool {
        self.sleep_cpu + self.wake_cpu <= self.sleep_disk + self.wake_disk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_one_that_takes_less_there_and_back() {
        let costs = Costs::expected(16 << 30, 1);
        assert!(costs.prefers_cpu());
        // As llmux measured: level 1 pins slowly, level 2 reads again quickly.
        let llmux = Costs {
            sleep_cpu: 35.9,
            wake_cpu: 1.2,
            sleep_disk: 0.3,
            wake_disk: 8.2,
            ..costs
        };
        assert!(!llmux.prefers_cpu());
    }
}
