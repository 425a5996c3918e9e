//! One process that answers requests: an upstream, or one of the workers that a
//! deployment has at present.
//!
//! A [`Server`] holds the connections to it and the key that it wants. A
//! deployment's servers are its [`Fleet`], which follows the workers of the
//! snapshot; a worker that left it has its idle connections closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;

use super::balance;
use super::pool::Pool;
use crate::deployment::{Permit, Snapshot, Worker};
use crate::names::Generation;

/// Idle time of connections to our own workers, which are started with a far
/// longer keep-alive.
const WORKER_IDLE: Duration = Duration::from_mins(1);

/// One process that answers.
#[derive(Debug)]
pub struct Server {
    /// Its connections.
    pub pool: Arc<Pool>,
    /// The `Authorization` that it wants.
    pub authorization: Option<HeaderValue>,
    /// The worker that it is; `None` for a server that someone else runs.
    worker: Option<Arc<Worker>>,
}

impl Server {
    /// A server that someone else runs.
    pub fn external(pool: Arc<Pool>, key: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            authorization: key.map(bearer),
            worker: None,
        })
    }

    fn of(worker: &Arc<Worker>) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::new(worker.address.clone(), WORKER_IDLE),
            authorization: Some(bearer(&worker.api_key)),
            worker: Some(Arc::clone(worker)),
        })
    }

    /// How busy it is: requests that it has in flight.
    pub fn load(&self) -> u64 {
        let in_flight = match &self.worker {
            Some(worker) => worker.gate.in_flight(),
            None => self.pool.active(),
        };
        u64::from(in_flight)
    }

    fn is(&self, worker: &Worker) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(&own.gate, &worker.gate))
    }

    /// Which worker of its deployment it is.
    pub fn generation(&self) -> Option<Generation> {
        self.worker.as_ref().map(|worker| worker.generation)
    }

    /// Enters it; `None` when its gate is closed, or it has none.
    pub fn enter(&self) -> Option<Permit> {
        self.worker.as_ref()?.gate.enter()
    }
}

/// The servers of one deployment.
#[derive(Debug, Default)]
pub struct Fleet {
    /// In the order of the snapshot's workers.
    servers: ArcSwap<Vec<Arc<Server>>>,
    /// Held while `servers` is replaced, never over an await.
    change: Mutex<()>,
}

impl Fleet {
    /// Enters the worker that is to take a request; `None` when no gate is open.
    pub fn enter(&self, snapshot: &Snapshot) -> Option<(Arc<Server>, Permit)> {
        let servers = self.follow(snapshot);
        if let [only] = servers.as_slice() {
            return Some((Arc::clone(only), only.enter()?));
        }
        let first = balance::choose(&servers, |server| server.load())?;
        let rest = servers.iter().filter(|server| !Arc::ptr_eq(server, first));
        std::iter::once(first)
            .chain(rest)
            .find_map(|server| Some((Arc::clone(server), server.enter()?)))
    }

    /// The servers of the workers that there are now.
    pub fn follow(&self, snapshot: &Snapshot) -> Arc<Vec<Arc<Server>>> {
        let known = self.servers.load();
        if is_same(&known, &snapshot.workers) {
            return Arc::clone(&known);
        }
        drop(known);
        let _held = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.servers.load_full();
        if is_same(&before, &snapshot.workers) {
            return before;
        }
        let server_of = |worker: &Arc<Worker>| {
            let known = before.iter().find(|server| server.is(worker));
            known.map_or_else(|| Server::of(worker), Arc::clone)
        };
        let now: Arc<Vec<_>> = Arc::new(snapshot.workers.iter().map(server_of).collect());
        for gone in before
            .iter()
            .filter(|old| !now.iter().any(|s| Arc::ptr_eq(s, old)))
        {
            gone.pool.close_idle();
        }
        self.servers.store(Arc::clone(&now));
        now
    }
}

fn is_same(servers: &[Arc<Server>], workers: &[Arc<Worker>]) -> bool {
    servers.len() == workers.len() && servers.iter().zip(workers).all(|(s, w)| s.is(w))
}

fn bearer(key: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;
    use crate::deployment::Gate;
    use crate::time::Clock;

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

    #[tokio::test]
    async fn requests_are_spread_over_the_workers_of_a_deployment() {
        let (workers, fleet) = (workers(4), Fleet::default());
        let now = snapshot(&workers);
        let inside: Vec<_> = (0..400).map(|_| fleet.enter(&now).unwrap()).collect();
        for worker in &workers {
            let has = worker.gate.in_flight();
            assert!((90..=110).contains(&has), "{has} of 400");
        }
        drop(inside);
    }

    #[tokio::test]
    async fn a_worker_whose_gate_is_closed_gets_nothing_and_keeps_what_it_has() {
        let (workers, fleet) = (workers(2), Fleet::default());
        let both = snapshot(&workers);
        let inside: Vec<_> = (0..10).map(|_| fleet.enter(&both).unwrap()).collect();
        let left = workers[0].gate.close();
        assert!(left > 0, "it has some of ten");
        for _ in 0..10 {
            let (server, _permit) = fleet.enter(&both).unwrap();
            assert!(server.is(&workers[1]));
        }
        assert_eq!(workers[0].gate.in_flight(), left);
        workers[1].gate.close();
        assert!(fleet.enter(&both).is_none());
        drop(inside);
        workers[0].gate.drained().await;
    }

    #[tokio::test]
    async fn a_worker_that_stays_keeps_its_connections() {
        let (workers, fleet) = (workers(3), Fleet::default());
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
}
