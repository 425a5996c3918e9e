//! Figures for the choice of the worker to move: estimates, and the harm of a move.
//!
//! Pure: arithmetic on seconds, no clock and no state but the estimates that a
//! deployment's own history gives. [`super::placement`] decides with it, for the
//! product and for `tidegate simulate` alike.
//!
//! ```text
//!  arrivals ------> rate ----\
//!  transitions ---> costs ----> harm(victim, claimant) --> score: least leaves first
//!  requests ------> service -/
//! ```

pub mod costs;
pub mod follow;
pub mod rate;

use std::time::Duration;

use crate::config;

/// Seconds as the arithmetic of the policy takes them.
pub type Seconds = f64;

/// Shortest time ahead in which a return counts against a victim.
const HORIZON_MIN: Seconds = 60.0;

/// Weights of the figures in a decision; `[placement]` and constants of the study.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Length of a busy window, in switch costs.
    pub quantum: f64,
    /// Time that demand waits before it may cut a busy window, in switch costs.
    pub patience: f64,
    /// A switch is made once the requests that wait have waited this part of its harm.
    pub kappa: f64,
    /// Claims that wait longer go first.
    pub wait_bound: Duration,
    /// Largest share of time spent switching; 1 for no such limit.
    pub switch_share_max: f64,
    /// True if sleepers are woken that a client is expected to ask next.
    pub prefetch: bool,
}

/// The study's `kappa`: 0 to 0.3 made no difference beyond noise.
const KAPPA: f64 = 0.15;

impl From<&config::Placement> for Params {
    fn from(settings: &config::Placement) -> Self {
        Self {
            quantum: settings.quantum,
            patience: settings.patience,
            kappa: KAPPA,
            wait_bound: settings.wait_bound,
            switch_share_max: settings.switch_share_max,
            prefetch: settings.prefetch,
        }
    }
}

impl Params {
    /// Seconds that a resident stays at least, for a switch of this cost.
    pub fn window(&self, switch: Seconds) -> Seconds {
        if self.switch_share_max >= 1.0 {
            return 0.0;
        }
        // A share of nothing would mean never; a thousandth is next to it.
        (1.0 / self.switch_share_max.max(1e-3) - 1.0) * switch
    }
}

/// Seconds that the requests inside take to end, as a rule.
pub fn drain(running: u32, service: Seconds) -> Seconds {
    if running == 0 {
        return 0.0;
    }
    service * (1.0 + 0.7 * f64::from(running).ln())
}

/// Expectation of a victim's requests.
pub trait Outlook {
    /// The chance that one comes within so many seconds.
    fn chance(&self, within: Seconds) -> f64;

    /// Sum of seconds that the requests of the next `within` seconds wait until these are over.
    fn waits(&self, within: Seconds) -> Seconds;
}

/// Requests that come independently, at a rate per second.
#[derive(Clone, Copy, Debug)]
pub struct Steady(pub f64);

impl Outlook for Steady {
    fn chance(&self, within: Seconds) -> f64 {
        -(-self.0 * within).exp_m1()
    }

    fn waits(&self, within: Seconds) -> Seconds {
        self.0 * within * within / 2.0
    }
}

/// The seconds of waiting that a victim's leaving is expected to cause: `away`
/// is how long it is gone at least, `back` what bringing it back takes.
pub fn harm(outlook: &dyn Outlook, held: u32, away: Seconds, back: Seconds) -> Seconds {
    outlook.chance(HORIZON_MIN.max(2.0 * away)) * back
        + outlook.waits(away)
        + f64::from(held) * away
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busier_and_the_dearer_to_bring_back_does_more_harm() {
        let harm = |rate, back| harm(&Steady(rate), 0, 5.0, back);
        assert!(harm(0.1, 2.0) < harm(0.2, 2.0));
        assert!(harm(0.1, 2.0) < harm(0.1, 8.0));
        assert!(harm(0.0, 8.0).abs() < 1e-9, "nobody comes back to it");
    }

    #[test]
    fn a_share_of_time_sets_the_window() {
        let mut params = Params::from(&config::Settings::default().placement);
        assert!(params.window(10.0).abs() < 1e-9);
        params.switch_share_max = 0.1;
        assert!((params.window(10.0) - 90.0).abs() < 1e-9);
    }
}
