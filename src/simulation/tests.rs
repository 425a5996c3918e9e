mod fleets;

use std::time::Duration;

use super::*;
use crate::config::Prefer;

fn of(spec: &str, seed: u64) -> Workload {
    spec::trace(spec, seed).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let once = run(&of("zipf:20:2:0.3:1", 5), Scheme::Ours, default_params());
    let again = run(&of("zipf:20:2:0.3:1", 5), Scheme::Ours, default_params());
    let other = run(&of("zipf:20:2:0.3:1", 6), Scheme::Ours, default_params());
    assert_eq!(once, again);
    assert!(once.total_wait.total_cmp(&other.total_wait).is_ne());
}

#[test]
fn every_request_is_served_by_all_who_refuse_none() {
    let trace = of("agents:12:2:0.01", 3);
    for scheme in Scheme::ALL {
        let outcome = run(&trace, scheme, default_params());
        let all = trace.arrivals.len();
        assert_eq!(outcome.served + outcome.refused, all, "{scheme:?}");
        assert_eq!(outcome.stuck, 0, "{scheme:?}");
        assert_eq!(outcome.refused > 0, scheme == Scheme::Never, "{scheme:?}");
    }
}

#[test]
fn less_is_waited_than_with_others_and_no_one_waits_beyond_the_bound() {
    for spec in ["zipf:20:2:0.3:1", "bursty:20:4:300:2400:8"] {
        let (mut ours, mut exclusive, mut lru) = (0.0, 0.0, 0.0);
        for seed in 11..14 {
            let trace = of(spec, seed);
            let outcome = run(&trace, Scheme::Ours, default_params());
            assert!(outcome.beyond_bound <= 0.0, "{spec} {seed} {outcome:?}");
            ours += outcome.total_wait;
            exclusive += run(&trace, Scheme::Exclusive, default_params()).total_wait;
            lru += run(&trace, Scheme::Lru, default_params()).total_wait;
        }
        assert!(ours <= 0.65 * exclusive, "{spec}: {ours} {exclusive}");
        assert!(ours <= 0.85 * lru, "{spec}: {ours} {lru}");
    }
}

#[test]
fn no_one_waits_beyond_the_bound_where_there_is_more_to_do_than_can_be_done() {
    // Each of these was beyond it once.
    for (spec, seed) in [
        ("bursty:40:4:300:2400:8", 403),
        ("daily:60:4:0.3", 402),
        ("zipf:200:16:1.2:1", 403),
    ] {
        let outcome = run(&of(spec, seed), Scheme::Ours, default_params());
        assert!(outcome.longest > 120.0, "{spec} {seed} {outcome:?}");
        assert!(outcome.beyond_bound <= 0.0, "{spec} {seed} {outcome:?}");
    }
}

#[test]
fn a_workspace_that_floods_waits_longer_than_the_one_beside_it() {
    let (mut calm, mut flood) = (0.0, 0.0);
    for seed in 401..404 {
        let outcome = run(
            &of("flood:10:2:0.1:1", seed),
            Scheme::Ours,
            default_params(),
        );
        assert!(outcome.beyond_bound <= 0.0, "{outcome:?}");
        calm += outcome.workspaces[0].p95;
        flood += outcome.workspaces[1].p95;
    }
    assert!(calm < 0.6 * flood, "{calm} {flood}");
}

#[test]
fn the_level_is_chosen_by_what_it_takes() {
    let trace = of("rivals:35.9/0.3:1.2/8.2:35.9/0.3:1.2/8.2:0.016:0.016", 4);
    let outcome = run(&trace, Scheme::Ours, default_params());
    assert!(outcome.lost < 0.15, "{outcome:?}");
}

#[test]
fn a_list_that_is_asked_for_who_is_awake_saves_waits_and_switches() {
    for spec in ["zipf:20:2:0.3:1", "bursty:20:4:300:2400:8"] {
        let mut trace = of(spec, 12);
        let plain = run(&trace, Scheme::Ours, default_params());
        // Each begins a list with the two that follow it.
        let all = trace.fleet.len();
        trace.lists = (0..all)
            .map(|n| vec![n, (n + 1) % all, (n + 2) % all])
            .collect();
        let order = run(&trace, Scheme::Ours, default_params());
        assert_eq!(order, plain, "nothing fails, so the first always answers");
        trace.prefer = Prefer::Awake;
        let awake = run(&trace, Scheme::Ours, default_params());
        assert_eq!(awake.served, order.served);
        assert!(
            awake.total_wait < 0.7 * order.total_wait,
            "{spec}: {awake:?} {order:?}"
        );
        assert!(
            awake.switches < order.switches,
            "{spec}: {awake:?} {order:?}"
        );
    }
}

#[test]
fn a_limit_on_switching_is_kept_and_paid_for_by_waiting() {
    let trace = of("rivals:3.2:1.2:3.2:1.2:0.05:0.05", 4);
    let free = run(&trace, Scheme::Ours, default_params());
    let limited = Params {
        switch_share_max: 0.1,
        ..default_params()
    };
    let limited = run(&trace, Scheme::Ours, limited);
    assert!(free.lost > 0.1 && limited.lost <= 0.1, "{limited:?}");
    assert!(limited.mean > free.mean);
}

#[test]
fn a_wrong_spec_says_where() {
    for (text, expected) in [
        ("zipf:20:2", "column 10: RATE is missing"),
        ("flood:9:2:1:9999", "requests, and 5000000 is the most"),
        ("zip:20", "column 1: \"zip\" is no kind of trace"),
        ("zipf:20:x:1:1", "column 9: G: write a whole number"),
        ("zipf:20:2:0:1", "column 11: RATE: write a number above 0"),
        ("zipf:20:2:1:1:7", "column 15: there is more here"),
        ("rivals:1:1/x", "column 10: WA: write a number"),
        ("zipf:20:2:99999:1", "requests, and 5000000 is the most"),
    ] {
        let error = spec::trace(text, 1).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
