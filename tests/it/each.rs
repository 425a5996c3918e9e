//! A limit of requests for each worker of a deployment, with real processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::cycles::place::{Outcome, Place};

const SETTINGS: &str = "[gpus]\nsource = \"none\"\n[workers]\nscale_up_after = \"50ms\"\n";

/// One request at a time for each worker, of which there may be two.
const FILE: &str = "[route]\nname = \"each\"\npublic = true\nqueue_requests_max = 8\nqueue_wait_max = \"50s\"\n\
     [instance]\nname = \"each\"\nengine = \"sim\"\n\
     [[deployment]]\nmodel = \"m\"\nendpoint_name = \"each\"\nreplicas = { max = 2, requests_max = 1 }\n\
     [deployment.sim]\nload = \"20ms\"\nfirst_token = \"300ms\"\ntokens_per_second = 100\n";

/// Requests that each worker has.
fn loads(place: &Place) -> Vec<u64> {
    let (_, upstreams) = place.admin("GET", "upstreams").unwrap();
    let all = upstreams.as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|one| one["in_flight"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_full_worker_gets_nothing_and_who_waits_brings_another() {
    let mut place = Place::new(SETTINGS);
    place.write("each.toml", FILE);
    place.start(&[]);
    let done = AtomicBool::new(false);
    let mut most = (0, 0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let place = &place;
                scope.spawn(move || [place.chat("each", false), place.chat("each", true)])
            })
            .collect();
        scope.spawn(|| {
            for client in clients {
                assert_eq!(client.join().unwrap(), [Outcome::Served, Outcome::Served]);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let loads = loads(&place);
            most.0 = most.0.max(loads.len());
            most.1 = most.1.max(loads.into_iter().max().unwrap_or(0));
            thread::park_timeout(Duration::from_millis(5));
        }
    });
    assert_eq!(most, (2, 1), "workers, and the most requests of one");
    place.signal(rustix::process::Signal::TERM);
    place.wait();
}
