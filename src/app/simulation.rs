//! Histories of a gateway, its store and its surroundings, in which all fails that can.
//!
//! One seed is one history, replayed step by step: one thread, a clock that stands until
//! all wait, connections in memory, a disk that fails as real ones do. The gateway, the
//! store and what holds tokens against them are the real ones; clients, servers, the
//! worker of the one deployment and the person who revokes tokens are played.
//!
//! Whatever fails: no token is accepted after its refusal was acknowledged; nothing
//! reaches a server without authority; usage counts once, and a crash loses at most what
//! came since it was last kept; every request ends, once, within a bound; what was held
//! for it is given back; what is not durable is told.
//!
//! ```sh
//! TIDEGATE_SEEDS=10000 cargo test --lib app::simulation   # so many histories
//! TIDEGATE_SEED=42 cargo test --lib app::simulation       # this one, with its steps
//! ```

mod clients;
mod facts;
mod history;
mod life;
mod requests;
mod servers;
mod stage;

use std::sync::atomic::{AtomicUsize, Ordering};

use history::History;

/// Histories of a plain `cargo test`.
const SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a whole number"))
}

/// Plays one history; its steps, and the promises that were broken.
fn play(seed: u64) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { Box::pin(History::new(seed).play()).await })
}

#[test]
fn whatever_fails_no_promise_is_broken() {
    let seeds: Vec<u64> = match number("TIDEGATE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TIDEGATE_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (steps, wrong) = play(*seed);
                    let steps = steps.join("\n");
                    assert!(
                        wrong.is_empty(),
                        "{steps}\nTIDEGATE_SEED={seed}: {wrong:#?}"
                    );
                }
            });
        }
    });
}

#[test]
fn a_seed_is_the_same_history_each_time() {
    for seed in 0..10 {
        let (first, second) = (play(seed).0, play(seed).0);
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        assert_eq!(
            differs.map(|at| (&first[at], &second[at])),
            None,
            "of seed {seed}"
        );
        assert_eq!(first.len(), second.len(), "of seed {seed}");
    }
}
