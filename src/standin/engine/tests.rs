//! Tests of admission and pacing, on a paused clock.

use clap::Parser;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn engine(options: &[&str]) -> Arc<Engine> {
    let line = ["sim", "m"].iter().chain(options);
    Engine::new(&Line::try_parse_from(line).unwrap().args)
}

fn running(engine: &Engine) -> u32 {
    engine.counters.running.load(Ordering::Acquire)
}

fn waiting(engine: &Engine) -> u32 {
    engine.counters.waiting.load(Ordering::Acquire)
}

#[tokio::test(start_paused = true)]
async fn tokens_come_on_an_absolute_schedule() {
    let engine = engine(&["--first-token", "50ms", "--tokens-per-second", "30"]);
    let begin = Instant::now();
    let mut slot = Arc::clone(&engine).admit(1).await.unwrap();
    for token in 1..=301 {
        assert_eq!(slot.until(token).await, Ok(Progress::Reached));
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(10_050), "{took:?}");
    assert!(took <= Duration::from_millis(10_052), "no drift: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_engine_lets_requests_wait_in_order() {
    let engine = engine(&["--max-num-seqs", "1", "--max-num-queued-reqs", "1"]);
    let first = Arc::clone(&engine).admit(1).await.unwrap();
    let second = Arc::clone(&engine).admit(1);
    tokio::pin!(second);
    assert!(futures_pending(second.as_mut()).await);
    assert_eq!((running(&engine), waiting(&engine)), (1, 1));
    let third = Arc::clone(&engine).admit(1).await;
    assert_eq!(third.err(), Some(Failure::QueueFull));
    drop(first);
    let second = second.await.unwrap();
    assert_eq!((running(&engine), waiting(&engine)), (1, 0));
    drop(second);
    engine.empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_request_goes_on_where_it_was() {
    let engine = engine(&["--first-token", "1s", "--tokens-per-second", "1"]);
    let mut slot = Arc::clone(&engine).admit(1).await.unwrap();
    assert_eq!(slot.until(2).await, Ok(Progress::Reached));
    engine.state.send_modify(|state| state.runs = false);
    let frozen = Instant::now();
    {
        let next = slot.until(3);
        tokio::pin!(next);
        assert!(futures_pending(next.as_mut()).await);
        crate::time::sleep(Duration::from_secs(100)).await;
        assert!(futures_pending(next.as_mut()).await);
        engine.state.send_modify(|state| state.runs = true);
        assert_eq!(next.await, Ok(Progress::Reached));
    }
    let took = frozen.elapsed();
    assert!(took >= Duration::from_secs(101), "{took:?}");
    assert!(took < Duration::from_millis(101_010), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_who_runs_and_who_waits_but_not_who_comes_later() {
    let engine = engine(&["--max-num-seqs", "1", "--first-token", "0s"]);
    let mut first = Arc::clone(&engine).admit(1).await.unwrap();
    assert_eq!(first.until(51).await, Ok(Progress::Reached));
    let second = Arc::clone(&engine).admit(1);
    tokio::pin!(second);
    assert!(futures_pending(second.as_mut()).await);
    engine.state.send_modify(|state| {
        state.epoch += 1;
        state.admits = false;
    });
    assert_eq!(first.until(100).await, Ok(Progress::Aborted(51)));
    let mut second = second.await.unwrap();
    assert!(matches!(second.until(9).await, Ok(Progress::Aborted(_))));
    drop((first, second));
    let third = Arc::clone(&engine).admit(1);
    tokio::pin!(third);
    assert!(futures_pending(third.as_mut()).await);
    engine.state.send_modify(|state| state.admits = true);
    let mut third = third.await.unwrap();
    assert_eq!(third.until(1).await, Ok(Progress::Reached));
}

#[tokio::test(start_paused = true)]
async fn a_dead_engine_fails_all() {
    let engine = engine(&[]);
    let mut slot = Arc::clone(&engine).admit(2).await.unwrap();
    engine.state.send_modify(|state| state.dead = true);
    assert_eq!(slot.until(9).await, Err(Failure::Dead));
    let late = Arc::clone(&engine).admit(1).await;
    assert_eq!(late.err(), Some(Failure::Dead));
    drop(slot);
    assert_eq!(running(&engine), 0);
}

/// True if a future does not resolve now.
async fn futures_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(future.as_mut().poll(context).is_pending())
    })
    .await
}
