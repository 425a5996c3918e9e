//! Figures of the whole binary: what outlives a kill, and how long a reload takes.

use super::cycles::place::{Outcome, Place};
use rustix::process::Signal;
use tidegate::time::Instant;

/// Ten workers serve, and the gateway is killed: the next one adopts them all.
#[test]
fn ten_workers_outlive_a_killed_gateway_and_none_starts_again() {
    const WORKERS: usize = 10;
    let mut place = Place::new("[gpus]\nsource = \"none\"\n");
    for n in 0..WORKERS {
        let text = format!(
            "[instance]\nname = \"i{n}\"\nproject = \"demo\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\n\
             endpoint_name = \"m{n}\"\nstart = \"boot\"\n[deployment.sim]\nload = \"10ms\"\ntokens_per_second = 1000\n"
        );
        place.write(&format!("i{n}.toml"), &text);
    }
    place.start(&[]);
    let pids = |place: &Place| {
        let deployments = place.deployments();
        let serving = deployments.iter().filter(|d| d["status"] == "idle");
        serving
            .filter_map(|d| d["pid"].as_u64())
            .collect::<Vec<_>>()
    };
    place.until("ten workers", || pids(&place).len() == WORKERS);
    let before = pids(&place);
    place.signal(Signal::KILL);
    place.wait();
    let begin = Instant::now();
    place.start(&["--stop-workers"]);
    for n in 0..WORKERS {
        assert_eq!(place.chat(&format!("m{n}"), false), Outcome::Served);
    }
    let took = begin.elapsed();
    assert_eq!(pids(&place), before, "none was started again");
    println!("{WORKERS} workers adopted and serving {took:?} after the next start");
    place.signal(Signal::TERM);
    place.wait();
    let left = place.workers();
    assert!(left.is_empty(), "they end with it when told: {left:?}");
}

/// A thousand deployments in a hundred files, read again after an edit.
#[test]
fn a_reload_of_a_thousand_deployments_touches_the_one_that_changed() {
    let mut place = Place::new("[gpus]\nsource = \"none\"\n");
    let file = |n: usize, limit: usize| {
        let head = format!("[instance]\nname = \"i{n}\"\nproject = \"demo\"\nengine = \"sim\"\n");
        (0..10).fold(head, |text, m| {
            format!("{text}[[deployment]]\nmodel = \"m\"\nendpoint_name = \"m{n}-{m}\"\nmax_concurrent_requests = {limit}\n")
        })
    };
    for n in 0..100 {
        place.write(&format!("i{n}.toml"), &file(n, 5));
    }
    place.start(&[]);
    assert_eq!(place.deployments().len(), 1_000);
    let begin = Instant::now();
    for n in 0..100 {
        place.write(&format!("i{n}.toml"), &file(n, 7));
    }
    place.until("the new limits", || {
        let deployments = place.deployments();
        deployments
            .iter()
            .all(|d| d["max_concurrent_requests"] == 7)
    });
    println!(
        "1,000 deployments in 100 files, all edited: in effect after {:?}",
        begin.elapsed()
    );
    place.signal(Signal::TERM);
    place.wait();
}
