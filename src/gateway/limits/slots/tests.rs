use super::*;
use proptest::prelude::*;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

const DENY: QueuePatience = QueuePatience {
    queue_max: 0,
    wait_max: Duration::ZERO,
};
const WAIT: QueuePatience = QueuePatience {
    queue_max: 2,
    wait_max: Duration::from_secs(5),
};

#[tokio::test]
async fn a_full_limit_denies_at_once_where_no_queue_is() {
    let slots = Slots::new(Some(1));
    let first = take(&slots, DENY).await.unwrap();
    assert_eq!(
        take(&slots, DENY).await.unwrap_err(),
        NoSlot::Full { limit: 1 }
    );
    drop(first);
    assert!(take(&slots, DENY).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_place_or_its_deadline() {
    let slots = Slots::new(Some(1));
    let first = take(&slots, DENY).await.unwrap();
    assert_eq!(take(&slots, WAIT).await.unwrap_err(), NoSlot::TimedOut);
    let mut waiting = Box::pin(take(&slots, WAIT));
    assert!(poll_once(&mut waiting).await.is_none());
    drop(first);
    let second = waiting.await.unwrap();
    assert_eq!(slots.used(), 1);
    drop(second);
    assert_eq!(slots.used(), 0);
}

#[tokio::test]
async fn a_raised_limit_lets_waiters_in_and_a_lowered_one_cuts_no_one() {
    let slots = Slots::new(Some(1));
    let first = take(&slots, DENY).await.unwrap();
    let mut waiting = Box::pin(take(&slots, WAIT));
    assert!(poll_once(&mut waiting).await.is_none());
    slots.set_limit(Some(2));
    let second = waiting.await.unwrap();
    slots.set_limit(Some(1));
    assert_eq!(slots.used(), 2);
    drop(first);
    assert!(take(&slots, DENY).await.is_err(), "one is still inside");
    drop(second);
    assert!(take(&slots, DENY).await.is_ok());
}

async fn take(slots: &Arc<Slots>, patience: QueuePatience) -> Result<Slot, NoSlot> {
    take_as(slots, patience, "acme", Class::First).await
}

async fn take_as(
    slots: &Arc<Slots>,
    patience: QueuePatience,
    workspace: &str,
    class: Class,
) -> Result<Slot, NoSlot> {
    let workspace = &Workspace::new(workspace).unwrap();
    slots.take(patience, Turn { workspace, class }).await
}

async fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

proptest! {
    #[test]
    fn no_order_of_arrivals_exits_and_aborts_leaks_a_place(
        steps in prop::collection::vec((0..4_u8, 0..9_usize), 1..200),
        limit in 1..4_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let slots = Slots::new(Some(limit));
            let patience = QueuePatience { queue_max: 4, wait_max: Duration::from_secs(1) };
            let mut held = Vec::new();
            let mut waiting = Vec::new();
            for (step, pick) in steps {
                match step {
                    0 => {
                        let slots = Arc::clone(&slots);
                        let workspace = ["a", "b", "c"][pick % 3];
                        let class = [Class::First, Class::Second, Class::Last][pick / 3];
                        let mut future = Box::pin(async move {
                            take_as(&slots, patience, workspace, class).await
                        });
                        match poll_once(&mut future).await {
                            Some(Ok(slot)) => held.push(slot),
                            Some(Err(_)) => {}
                            None => waiting.push(future),
                        }
                    }
                    1 if !held.is_empty() => drop(held.swap_remove(pick % held.len())),
                    2 if !waiting.is_empty() => {
                        let mut future = waiting.swap_remove(pick % waiting.len());
                        match poll_once(&mut future).await {
                            Some(Ok(slot)) => held.push(slot),
                            Some(Err(_)) => {}
                            None => waiting.push(future),
                        }
                    }
                    // Dropped while it waits, with or without a place on its way.
                    3 if !waiting.is_empty() => drop(waiting.swap_remove(pick % waiting.len())),
                    _ => {}
                }
                assert!(slots.used() <= limit);
            }
            waiting.clear();
            assert_eq!(slots.used() as usize, held.len());
            held.clear();
            assert_eq!(slots.used(), 0);
        });
    }
}

/// Names of the waiting requests, in the order in which they get the one place.
async fn order_of(queue: &[(&'static str, Class)]) -> Vec<&'static str> {
    let slots = Slots::new(Some(1));
    let patience = QueuePatience {
        queue_max: 100,
        wait_max: Duration::from_secs(5),
    };
    let mut held = slots.take_free();
    let mut waiting = Vec::new();
    for (workspace, class) in queue.iter().copied() {
        let slots = Arc::clone(&slots);
        let take = async move { take_as(&slots, patience, workspace, class).await };
        let mut future = Box::pin(take);
        assert!(poll_once(&mut future).await.is_none());
        waiting.push((workspace, future));
    }
    let mut order = Vec::new();
    while !waiting.is_empty() {
        drop(held.take());
        let mut still = Vec::new();
        for (workspace, mut future) in waiting {
            match poll_once(&mut future).await {
                Some(slot) => {
                    assert!(held.is_none(), "two got the one place");
                    held = Some(slot.unwrap());
                    order.push(workspace);
                }
                None => still.push((workspace, future)),
            }
        }
        waiting = still;
    }
    order
}

#[tokio::test(start_paused = true)]
async fn classes_come_in_order_and_workspaces_take_turns_within_one() {
    let (first, last) = (Class::First, Class::Last);
    let queue = [
        ("slow", last),
        ("a", first),
        ("a", first),
        ("a", first),
        ("b", first),
    ];
    assert_eq!(order_of(&queue).await, ["a", "b", "a", "a", "slow"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_room_for_a_workspace_with_less_in_it() {
    let slots = Slots::new(Some(1));
    let held = slots.take_free().unwrap();
    let mut greedy: Vec<_> = (0..2).map(|_| Box::pin(take(&slots, WAIT))).collect();
    for future in &mut greedy {
        assert!(poll_once(future).await.is_none());
    }
    let full = NoSlot::Full { limit: 1 };
    assert_eq!(take(&slots, WAIT).await.unwrap_err(), full);
    let mut modest = Box::pin(take_as(&slots, WAIT, "other", Class::First));
    assert!(poll_once(&mut modest).await.is_none());
    let newest = greedy.pop().unwrap();
    assert_eq!(newest.await.unwrap_err(), full);
    // Each has one: a newcomer of a lower class finds no one to send away.
    let third = take_as(&slots, WAIT, "third", Class::Last);
    assert_eq!(third.await.unwrap_err(), full);
    drop(held);
    drop(greedy.pop().unwrap().await.unwrap());
    drop(modest.await.unwrap());
    assert_eq!(slots.used(), 0);
}

#[test]
fn seats_are_counted_for_each_key_and_forgotten() {
    let seats = Seats::new();
    let (a, b) = (seats.take(&"a", 2).unwrap(), seats.take(&"a", 2).unwrap());
    assert!(seats.take(&"a", 2).is_none());
    assert!(seats.take(&"b", 1).is_some(), "given back at once");
    assert_eq!(seats.keys(), 1);
    drop(a);
    assert!(seats.take(&"a", 2).is_some());
    drop(b);
    assert_eq!(seats.keys(), 0);
}

proptest! {
    #[test]
    fn while_two_workspaces_wait_neither_gets_more_than_one_turn_ahead(
        arrivals in prop::collection::vec(prop::sample::select(&["a", "b", "c"][..]), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        let queue: Vec<_> = arrivals.iter().map(|name| (*name, Class::First)).collect();
        let order = runtime.block_on(order_of(&queue));
        for (one, other) in [("a", "b"), ("b", "c"), ("a", "c")] {
            let total = |name| arrivals.iter().filter(|n| **n == name).count();
            let (mut served, mut against) = (0_usize, 0_usize);
            for name in &order {
                if served == total(one) || against == total(other) {
                    break;
                }
                served += usize::from(*name == one);
                against += usize::from(*name == other);
                prop_assert!(served.abs_diff(against) <= 1, "{:?}", order);
            }
        }
    }
}
