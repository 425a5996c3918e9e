//! Number of replicas that a deployment should have, and when one is replaced.
//!
//! Pure: it is told the load and the time. Another replica is asked for once the
//! load has wanted one for a while, and one is given back once the rest could
//! have carried the load for longer: a burst moves nothing, a wave does.

use std::time::Duration;

use crate::config::Replicas;
use crate::time::Uptime;

/// Of what the others could carry, the load must be below this share before one
/// replica is given back.
const SPARE_SHARE: u64 = 80;

/// Times since which the load of one deployment has asked for a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::lifecycle) struct Scale {
    /// Time since which more were wanted than there are.
    more_since: Option<Uptime>,
    /// Time since which fewer would do.
    fewer_since: Option<Uptime>,
}

/// Verdict on the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Verdict {
    /// Nothing, or not yet.
    Stay,
    /// Start one more.
    More,
    /// Drain one.
    Fewer,
}

/// Times for which the load must ask.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) struct Patience {
    pub(in crate::lifecycle) up: Duration,
    pub(in crate::lifecycle) down: Duration,
}

impl Scale {
    /// Looks at the load: `requests` at work or waiting, `up` replicas that
    /// serve or will.
    pub(in crate::lifecycle) fn look(
        &mut self,
        replicas: Replicas,
        patience: Patience,
        requests: u32,
        up: u32,
        now: Uptime,
    ) -> Verdict {
        let carried = |count: u32| u64::from(count) * u64::from(replicas.requests_each);
        let load = u64::from(requests);
        // The first is started by demand, and stopped when idle.
        let more = up >= 1 && up < replicas.max && load > carried(up);
        let least = replicas.min.max(1);
        let fewer = up > least && load * 100 <= carried(up - 1) * SPARE_SHARE;
        let since = |held: &mut Option<Uptime>, wanted: bool| {
            *held = wanted.then(|| held.unwrap_or(now));
            held.map(|since| now.saturating_sub(since))
        };
        let more_for = since(&mut self.more_since, more);
        let fewer_for = since(&mut self.fewer_since, fewer);
        if more_for.is_some_and(|asked| asked >= patience.up) {
            self.more_since = None;
            return Verdict::More;
        }
        if fewer_for.is_some_and(|asked| asked >= patience.down) {
            self.fewer_since = None;
            return Verdict::Fewer;
        }
        Verdict::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Replicas = Replicas {
        min: 0,
        max: 2,
        requests_each: 10,
        requests_max: None,
        number: 1,
    };
    const PATIENCE: Patience = Patience {
        up: Duration::from_secs(2),
        down: Duration::from_mins(1),
    };

    /// Looks once a second at these loads; when it wanted what.
    fn verdicts(mut up: u32, loads: impl IntoIterator<Item = u32>) -> Vec<(u64, Verdict)> {
        let mut scale = Scale::default();
        let mut seen = Vec::new();
        for (second, load) in (0..).zip(loads) {
            let now = Duration::from_secs(second);
            match scale.look(TWO, PATIENCE, load, up, now) {
                Verdict::Stay => {}
                verdict => {
                    up = if verdict == Verdict::More {
                        up + 1
                    } else {
                        up - 1
                    };
                    seen.push((second, verdict));
                }
            }
        }
        seen
    }

    #[test]
    fn a_wave_brings_another_replica_and_its_end_takes_it_away() {
        let wave = [[20; 5].as_slice(), &[3; 70]].concat();
        assert_eq!(
            verdicts(1, wave),
            [(2, Verdict::More), (65, Verdict::Fewer)]
        );
    }

    #[test]
    fn bursts_and_loads_in_between_move_nothing() {
        assert_eq!(verdicts(1, [20, 3, 20, 20, 3, 20, 3]), []);
        assert_eq!(verdicts(2, [9; 200]), [], "above what one should carry");
        let ripple = (0..300).map(|n| if n % 50 == 0 { 12 } else { 2 });
        assert_eq!(verdicts(2, ripple), [], "it came again and again");
    }

    #[test]
    fn neither_the_bounds_nor_the_first_worker_are_scales_to_move() {
        assert_eq!(verdicts(2, [500; 20]), [], "no more than max");
        assert_eq!(verdicts(0, [500; 20]), [], "demand starts the first");
        assert_eq!(verdicts(1, [0; 200]), [], "idle time stops the last");
    }
}
