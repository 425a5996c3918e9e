//! Deployments that fit an empty machine are served, whatever the others are; and what is said
//! of those that wait does not contradict itself.

use std::fmt::Write;

use super::*;
use crate::config::load_catalog;
use crate::deployment::Telling;
use crate::lifecycle::decide::placement::Obstacle;
use crate::random::Dice;

const GIB: u64 = 1 << 30;
const GPU: u64 = 80 * GIB;
/// Longest that a request of these tests is inside, and a sleep or an end and a start
/// of the scripted workers take.
const TURN: Duration = Duration::from_secs(20 + 2 + 4);

/// Deployments of vLLM on up to so many GPUs, of any size, some of which are kept.
fn fleet(dice: &mut Dice, gpus: usize) -> (Vec<Arc<Deployment>>, Timings) {
    let dir = tempfile::tempdir().unwrap();
    let count = 2 + dice.below(6);
    let kept = dice.below(2);
    for n in 0..count + kept {
        // Wherever the kept one stands, the others fit beside it.
        let (share, width, keep) = if n < count {
            let most = if kept == 0 { 100 } else { 90 };
            (1 + dice.below(most), 1 + dice.below(gpus), "")
        } else {
            (10, 1, "keep = true\n")
        };
        let ladder = [
            "automatic_cpu_offloading = true",
            "disk_swapping = true",
            "",
        ][dice.below(3)];
        let mut text = String::new();
        write!(
            text,
            "[instance]\nname = \"m{n}\"\nengine = \"vllm\"\n[instance.options]\n{ladder}\n\
             gpu_memory_utilization = {}\ntensor_parallel_size = {width}\n\
             [[deployment]]\nmodel = \"m\"\nendpoint_name = \"e{n}\"\n{keep}",
            f64::from(u32::try_from(share).unwrap()) / 100.0
        )
        .unwrap();
        std::fs::write(dir.path().join(format!("m{n}.toml")), text).unwrap();
    }
    let catalog = load_catalog(dir.path(), &Settings::default().queues, None);
    assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
    let specs: Vec<_> = specs(&catalog);
    let mut timings = Timings::default();
    for spec in &specs {
        // Any residue, up to all that it has awake.
        let most = if spec.keep { GPU / 10 } else { GPU / 100 };
        let bytes = match dice.below(3) {
            0 => 0,
            1 => GIB,
            _ => dice.number() % most,
        };
        timings.learn(&spec.id, |timing| timing.asleep_bytes = Some(bytes));
    }
    (specs, timings)
}

/// Asks for what is said of each, and holds it against itself.
async fn check_words(stage: &Stage, specs: &[Arc<Deployment>]) {
    for spec in specs {
        let said = stage.conductor.explain(&spec.id).await.unwrap();
        let lines: Vec<String> = said.lines.iter().map(Telling::to_string).collect();
        let text = lines.join("\n");
        let of_claim = lines.first().unwrap();
        if let Some(waits) = lines
            .iter()
            .find(|l| l.starts_with("a request now would wait"))
        {
            let (_, why) = waits.split_once(": ").unwrap();
            let same = said.phase != "placing" || of_claim.contains(why);
            assert!(same, "two reasons:\n{text}");
        }
        if said.waits_for == Some(Obstacle::Busy.label()) {
            let mut holders = lines.iter().filter(|line| line.contains(" has "));
            let hinders = |line: &String| !line.ends_with("idle, may be asked to leave");
            assert!(holders.any(hinders), "nobody is in its way:\n{text}");
        }
    }
}

async fn play(seed: u64) {
    let mut dice = Dice::new(seed);
    let gpus = 1 + dice.below(8);
    let (specs, timings) = fleet(&mut dice, gpus);
    let mut settings = Settings::default();
    settings.workers.drain_timeout = Duration::from_mins(1);
    let bound = settings.placement.wait_bound;
    let host = [0, 40 * GIB, 1 << 40][dice.below(3)];
    let machine = (vec![GPU; gpus], host);
    let on = (machine.0.as_slice(), machine.1);
    let stage = Stage::knowing(Fake::default(), on, &specs, settings, timings).await;
    let asks = (0..12 + dice.below(30)).map(|_| {
        let id = specs[dice.below(specs.len())].id.clone();
        let (at, inside) = (dice.below(300), dice.below(20));
        let stage = &stage;
        async move {
            tokio::time::sleep(Duration::from_secs(at as u64)).await;
            let came = stage.clock.now();
            let served = tokio::time::timeout(Duration::from_hours(2), stage.request(id.as_str()));
            let Ok(Some(permit)) = served.await else {
                let said = stage.conductor.explain(&id).await.unwrap().lines;
                panic!("{seed}: {id} was never served: {said:#?}");
            };
            let waited = stage.clock.now().saturating_sub(came);
            tokio::time::sleep(Duration::from_secs(inside as u64)).await;
            drop(permit);
            waited
        }
    });
    let asks: Vec<_> = asks.map(Box::pin).collect();
    let done = tokio_util::sync::CancellationToken::new();
    let words = async {
        while !done.is_cancelled() {
            check_words(&stage, &specs).await;
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
    };
    let served = async {
        let waits = futures_join(asks).await;
        done.cancel();
        waits
    };
    let (waits, ()) = tokio::join!(served, words);
    let others = u32::try_from(specs.len()).unwrap();
    let limit = bound + TURN * (others + 1);
    let longest = waits.into_iter().max().unwrap();
    assert!(longest <= limit, "{seed}: {longest:?} of {limit:?}");
}

/// All of these at once.
async fn futures_join<F: Future<Output = Duration> + Unpin>(mut all: Vec<F>) -> Vec<Duration> {
    let mut done = Vec::new();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| match std::pin::Pin::new(one).poll(cx) {
            std::task::Poll::Ready(waited) => {
                done.push(waited);
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    done
}

#[tokio::test(start_paused = true)]
async fn whoever_fits_an_empty_machine_is_served_by_workers_too() {
    for seed in 0..30 {
        play(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_whose_sleep_is_too_little_end_for_the_large_one() {
    let small = |n: u32| idles(&format!("t/small{n}"));
    let large = changed(&idles("t/large"), |spec| {
        let config::Engine::Sim(sim) = &mut spec.engine else {
            panic!("not a stand-in");
        };
        sim.weights = 77 * GIB;
    });
    // Three of 17 GiB, of which 1 GiB stays asleep, and one of 78 GiB on 80.
    let specs = [small(0), small(1), small(2), large];
    let stage = Stage::with(Fake::default(), &[GPU], &specs).await;
    for spec in &specs[..3] {
        drop(stage.request(spec.id.as_str()).await.unwrap());
    }
    let said = stage.conductor.explain(&specs[3].id).await.unwrap();
    let ways: Vec<_> = said.evicts.iter().map(|evicted| evicted.how).collect();
    assert_eq!(ways.len(), 3, "{said:?}");
    let came = stage.clock.now();
    assert!(stage.request("t/large").await.is_some());
    let waited = stage.clock.now().saturating_sub(came);
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    // As many sleep as may: one end is enough.
    let asleep = |n: usize| stage.handle(specs[n].id.as_str()).snapshot().phase == "offloaded";
    assert_eq!((0..3).filter(|n| asleep(*n)).count(), 2);
}
