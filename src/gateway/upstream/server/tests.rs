//! Servers and fleets, without a connection.

use super::*;
use crate::config::LoadBalancing;
use crate::deployment::Gate;
use crate::names::{InstanceName, ModelName};
use crate::openai::api::Api;
use crate::outbound::Address;

fn fleet() -> Fleet {
    let instance = InstanceName::new("lab").unwrap();
    let model = ModelName::new("chat").unwrap();
    Fleet::new(DeploymentId::new(&instance, &model), Clock::start())
}

fn workers(n: u32) -> Vec<Arc<Worker>> {
    let worker = |n: u32| {
        Arc::new(Worker {
            generation: Generation(n),
            address: Address::Unix(format!("/run/{n}.sock").into()),
            api_key: Arc::from("k"),
            gate: Gate::opened(Clock::start()),
        })
    };
    (0..n).map(worker).collect()
}

fn snapshot(workers: &[Arc<Worker>]) -> Snapshot {
    Snapshot {
        workers: workers.into(),
        ..Snapshot::stopped()
    }
}

fn enter(fleet: &Fleet, now: &Snapshot, tried: &[Arc<Server>]) -> Option<(Arc<Server>, Permit)> {
    let rules = LoadBalancing::default();
    let pick = Pick {
        rules: &rules,
        key: None,
        api: Api::Chat,
    };
    fleet.enter(now, pick, tried)
}

#[tokio::test]
async fn requests_are_spread_over_the_workers_of_a_deployment() {
    let (workers, fleet) = (workers(4), fleet());
    let now = snapshot(&workers);
    let inside: Vec<_> = (0..400)
        .map(|_| enter(&fleet, &now, &[]).unwrap())
        .collect();
    for worker in &workers {
        let has = worker.gate.in_flight();
        assert!((90..=110).contains(&has), "{has} of 400");
    }
    drop(inside);
}

#[tokio::test]
async fn a_full_worker_is_passed_over_and_places_follow_the_workers() {
    let (workers, fleet) = (workers(3), fleet());
    let all = snapshot(&workers);
    assert_eq!(fleet.places(None, &all), None);
    assert_eq!(fleet.places(Some(4), &all), Some(4));
    fleet.set_each_max(Some(2));
    assert_eq!(fleet.places(None, &all), Some(6));
    assert_eq!(fleet.places(Some(4), &all), Some(4));
    assert_eq!(fleet.places(None, &snapshot(&[])), Some(2));
    // The same key for all: without the limit they would crowd at one.
    let rules = LoadBalancing {
        load_factor: 10.0,
        ..LoadBalancing::default()
    };
    let pick = Pick {
        rules: &rules,
        key: Some(7),
        api: Api::Chat,
    };
    let inside: Vec<_> = (0..6)
        .map(|_| fleet.enter(&all, pick, &[]).unwrap())
        .collect();
    let loads: Vec<_> = workers
        .iter()
        .map(|worker| worker.gate.in_flight())
        .collect();
    assert_eq!(loads, [2, 2, 2]);
    // A request that has a place is let in, whatever retrievals take beside it.
    assert!(fleet.enter(&all, pick, &[]).is_some());
    drop(inside);
    workers[0].gate.close();
    assert_eq!(fleet.places(None, &all), Some(4));
}

#[tokio::test]
async fn a_worker_whose_gate_is_closed_gets_nothing_and_keeps_what_it_has() {
    let (workers, fleet) = (workers(2), fleet());
    let both = snapshot(&workers);
    let inside: Vec<_> = (0..10)
        .map(|_| enter(&fleet, &both, &[]).unwrap())
        .collect();
    let left = workers[0].gate.close();
    assert!(left > 0, "it has some of ten");
    for _ in 0..10 {
        let (server, _permit) = enter(&fleet, &both, &[]).unwrap();
        assert!(server.is(&workers[1]));
        assert!(enter(&fleet, &both, &[server]).is_none(), "no third one");
    }
    assert_eq!(workers[0].gate.in_flight(), left);
    workers[1].gate.close();
    assert!(enter(&fleet, &both, &[]).is_none());
    drop(inside);
    workers[0].gate.drained().await;
}

#[tokio::test]
async fn a_worker_that_stays_keeps_its_connections() {
    let (workers, fleet) = (workers(3), fleet());
    let before = fleet.follow(&snapshot(&workers));
    let after = fleet.follow(&snapshot(&workers[1..]));
    assert_eq!(after.len(), 2);
    assert!(Arc::ptr_eq(&before[1], &after[0]) && Arc::ptr_eq(&before[2], &after[1]));
    // A snapshot that was published again holds new workers with the same gates.
    let anew = |worker: &Arc<Worker>| Arc::new(Worker::clone(worker));
    let again: Vec<_> = workers[1..].iter().map(anew).collect();
    let same = fleet.follow(&snapshot(&again));
    assert!(Arc::ptr_eq(&after, &same));
}
