//! The figures of a run.

use serde::Serialize;

use crate::lifecycle::decide::policy::Seconds;

/// Outcome of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlayedOutcome {
    /// Requests that were served.
    pub served: usize,
    /// Requests that were refused.
    pub refused: usize,
    /// Requests that were never served: nothing moved any more.
    pub stuck: usize,
    /// The deployments that they were for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stuck_for: Vec<String>,
    /// Seconds that all requests together waited for their deployment.
    pub total_wait: Seconds,
    /// Mean wait.
    pub mean: Seconds,
    /// Wait that 95 of 100 stay below.
    pub p95: Seconds,
    /// Wait that 99 of 100 stay below.
    pub p99: Seconds,
    /// The longest wait.
    pub longest: Seconds,
    /// Part of the requests that waited at all.
    pub held: f64,
    /// Part of all GPUs' time that went to sleeping, waking and starting.
    pub lost: f64,
    /// Longest wait, less what the formula of the bound allows; above zero it is
    /// broken.
    pub beyond_bound: Seconds,
    /// Times that a deployment left its GPUs.
    pub switches: usize,
    /// The waits of each workspace by its number, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WaitTimes>,
}

/// The waits of one workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WaitTimes {
    /// Requests that were served.
    pub served: usize,
    /// Mean wait.
    pub mean: Seconds,
    /// Wait that 95 of 100 stay below.
    pub p95: Seconds,
    /// The longest wait.
    pub longest: Seconds,
}

impl WaitTimes {
    /// Of these waits, the shortest first.
    fn of(waits: &[Seconds]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a few million")]
        let count = waits.len().max(1) as f64;
        Self {
            served: waits.len(),
            mean: waits.iter().sum::<Seconds>() / count,
            p95: part(waits, 95),
            longest: waits.last().copied().unwrap_or_default(),
        }
    }
}

impl PlayedOutcome {
    /// Of these waits.
    pub(super) fn of(mut waits: Vec<Seconds>, refused: usize) -> Self {
        waits.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "a few million")]
        let count = waits.len().max(1) as f64;
        let WaitTimes {
            served,
            mean,
            p95,
            longest,
        } = WaitTimes::of(&waits);
        let waited = waits.len() - waits.partition_point(|wait| *wait <= 0.0);
        #[expect(clippy::cast_precision_loss, reason = "a few million")]
        let held = waited as f64 / count;
        Self {
            served,
            refused,
            total_wait: waits.iter().sum(),
            mean,
            p95,
            p99: part(&waits, 99),
            longest,
            held,
            ..Self::default()
        }
    }
}

/// The waits of each workspace, where there are several; `waits` are pairs of workspace and wait.
pub(super) fn by_workspace(waits: &[(u32, Seconds)]) -> Vec<WaitTimes> {
    let last = waits.iter().map(|(workspace, _)| *workspace).max();
    let Some(last) = last.filter(|last| *last > 0) else {
        return Vec::new();
    };
    let of = |workspace: u32| {
        let own = waits.iter().filter(|(of, _)| *of == workspace);
        let mut own: Vec<Seconds> = own.map(|(_, wait)| *wait).collect();
        own.sort_by(f64::total_cmp);
        WaitTimes::of(&own)
    };
    (0..=last).map(of).collect()
}

fn part(sorted: &[Seconds], percent: usize) -> Seconds {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}
