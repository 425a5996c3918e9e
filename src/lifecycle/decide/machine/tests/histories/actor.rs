//! One deployment of a random history.

use super::*;
use crate::random::Dice;

/// One deployment, and what is true of its worker.
pub(super) struct Actor {
    pub(super) id: DeploymentId,
    pub(super) key: LedgerKey,
    pub(super) profile: Profile,
    pub(super) policy: Policy,
    pub(super) machine: Machine,
    pub(super) alive: bool,
    pub(super) asleep: Option<OffloadTo>,
    pub(super) gate_open: bool,
    pub(super) inside: u32,
    pub(super) idle_since: Uptime,
    pub(super) waiting: Option<Uptime>,
    /// Answers that the world owes: launched, asked to sleep, and so on.
    pub(super) owed: Vec<Event>,
}

impl Actor {
    pub(super) fn new(n: usize, dice: &mut Dice, policy: Policy) -> Self {
        Self {
            id: DeploymentId::parse(&format!("t/{n}")).unwrap(),
            key: LedgerKey(0),
            profile: Profile {
                need: MemoryNeed {
                    gpus: 1 + dice.below(2),
                    awake: Amount::Bytes(2 + dice.below(7) as u64),
                    asleep: dice.below(2) as u64,
                    host: 1 + dice.below(5) as u64,
                },
                costs: Costs::expected(4 << 30, 1),
                rungs: Rungs {
                    cpu: policy.offload_to.is_some() && policy.levels.cpu,
                    disk: policy.offload_to.is_some() && policy.levels.disk,
                },
                pinned: dice.below(8) == 0,
                keeps_host: dice.below(2) == 0,
            },
            policy,
            machine: Machine::stopped(),
            alive: false,
            asleep: None,
            gate_open: false,
            inside: 0,
            idle_since: Uptime::ZERO,
            waiting: None,
            owed: Vec::new(),
        }
    }

    pub(super) fn exit(&mut self) {
        (self.alive, self.asleep) = (false, None);
        self.cut();
        self.owed.clear();
    }

    /// The requests inside end with their worker.
    pub(super) fn cut(&mut self) {
        self.inside = 0;
    }

    pub(super) fn stand(&self, now: Uptime) -> Stand {
        Stand {
            standing: Standing::of(&self.machine),
            running: self.inside,
            idle_since: (self.inside == 0).then_some(self.idle_since),
            held: u32::from(self.waiting.is_some()),
            head: self.waiting,
            waited: self
                .waiting
                .map_or(0.0, |since| now.saturating_sub(since).as_secs_f64()),
            crowd: crate::deployment::Crowd::default(),
            insists: if self.machine.wanted {
                Insists::Yes
            } else {
                Insists::No
            },
            is_kept: false,
        }
    }

    pub(super) fn check(&self) {
        let phase = self.machine.phase;
        let should_live = !matches!(
            phase,
            Phase::Stopped | Phase::Fetching | Phase::Failed | Phase::Placing { aim: Aim::Spawn }
        );
        assert_eq!(self.alive, should_live, "{} {phase:?}", self.id);
        assert_eq!(
            self.gate_open,
            phase == Phase::Ready,
            "{} {phase:?}",
            self.id
        );
        let rests = matches!(phase, Phase::Stopped | Phase::Offloaded { .. });
        assert!(
            !(rests && self.waiting.is_some()),
            "rests while a request waits: {}",
            self.id
        );
    }
}
