//! A level of sleep is used only where it is permitted.

use super::*;
use crate::lifecycle::decide::machine::Rest;

const CPU: Rungs = Rungs {
    cpu: true,
    disk: false,
};
const DISK: Rungs = Rungs {
    cpu: false,
    disk: true,
};

fn on(host: u64) -> Stage {
    let mut stage = Stage::on(&[80]);
    let devices = crate::gpu::Inventory::simulated(&[80 * GIB]).devices;
    stage.placement = Placement::new(devices, host * GIB, params());
    stage
}

fn way(rungs: Rungs, host: u64) -> (Rest, &'static str) {
    let mut stage = on(host);
    let profile = Profile {
        rungs,
        ..profile(40)
    };
    let a = stage.serving("a", profile, secs(0), 0);
    let b = stage.know("b", self::profile(60));
    let decisions = stage.ask(b, secs(900));
    let [Decision::Evict(eviction), ..] = decisions.as_slice() else {
        panic!("{decisions:?}");
    };
    assert_eq!(eviction.victim, a);
    (eviction.rest, stage.placement.way_and_why(a).1)
}

#[test]
fn one_level_is_one_level_and_both_are_chosen_from_and_it_is_said_why() {
    let (cpu, disk) = (
        Rest::Offload(OffloadTo::Cpu),
        Rest::Offload(OffloadTo::Disk),
    );
    let both = profile(1).rungs;
    for (rungs, host, rest, why) in [
        (CPU, 256, cpu, "no other level"),
        (CPU, 10, Rest::Stop, "host memory is full"),
        (DISK, 256, disk, "no other level"),
        (both, 256, cpu, "takes less time"),
        (both, 10, disk, "host memory is full"),
        (Rungs::default(), 256, Rest::Stop, "no level of sleep"),
    ] {
        let (chosen, said) = way(rungs, host);
        assert_eq!(chosen, rest, "{rungs:?} {host}");
        assert!(said.contains(why), "{rungs:?} {host}: {said}");
    }
}

#[test]
fn an_idle_one_that_may_only_go_to_a_full_host_stays() {
    let mut stage = on(10);
    let profile = Profile {
        rungs: CPU,
        ..profile(40)
    };
    let a = stage.serving("a", profile.clone(), secs(0), 0);
    let permitted = Some(OffloadTo::Cpu);
    assert_eq!(stage.placement.offload_to(a, permitted), None);
    // Where its level failed, the machine is to find that out, and to stop it.
    let broken = Profile {
        rungs: Rungs::default(),
        ..profile
    };
    stage.placement.know(&id("a"), broken, secs(0));
    assert_eq!(stage.placement.offload_to(a, permitted), permitted);
}
