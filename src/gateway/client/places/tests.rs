use super::*;
use crate::config::Gateway;

impl Places {
    /// True if no connection is busy.
    pub(in crate::gateway) fn is_given_back(&self) -> bool {
        self.busy.is_empty()
    }
}

fn places(max: usize, per_client: usize) -> (Arc<Places>, Arc<Memory>) {
    let memory = Memory::new(&Gateway::default(), 1 << 30);
    let limits = Connections {
        max,
        per_client: Some(per_client),
        per_token: Some(2),
    };
    (Places::new(limits, Arc::clone(&memory)), memory)
}

fn from(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

#[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
fn of(number: u8) -> Option<IpAddr> {
    Some(from(number))
}

/// Time passes, so that what comes later has been idle for less.
async fn later() {
    tokio::time::advance(Duration::from_millis(10)).await;
}

fn is_closed(place: &ConnectionPlace) -> bool {
    place.activity.leave.is_cancelled()
}

#[tokio::test(start_paused = true)]
async fn the_one_that_is_idle_for_longest_leaves_for_a_new_one() {
    let (places, _) = places(3, 3);
    let mut held = Vec::new();
    for number in 1..=3 {
        held.push(places.take(of(number)).unwrap());
        later().await;
    }
    // The first is busy, the second was.
    held[0].activity.begin();
    held[1].activity.begin();
    held[1].activity.end();
    later().await;
    let new = places.take(of(4)).unwrap();
    let closed: Vec<bool> = held.iter().map(is_closed).collect();
    assert_eq!(closed, [false, false, true]);
    assert!(new.activity.has_place.load(Ordering::Relaxed));
    let _newer = places.take(of(5)).unwrap();
    assert!(is_closed(&held[1]) && !is_closed(&held[0]) && !is_closed(&new));
    drop(held);
    assert_eq!(places.lock().places.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_address_has_its_share_and_closes_its_own() {
    let (places, _) = places(10, 2);
    let other = places.take(of(9)).unwrap();
    later().await;
    let first = places.take(of(1)).unwrap();
    later().await;
    let second = places.take(of(1)).unwrap();
    later().await;
    let third = places.take(of(1)).unwrap();
    assert!(is_closed(&first) && !is_closed(&second) && !is_closed(&other));
    second.activity.begin();
    third.activity.begin();
    places.take(of(1)).unwrap_err();
    // Those of a proxy are no address's.
    let through: Vec<_> = (0..5).map(|_| places.take(None).unwrap()).collect();
    assert!(!is_closed(&other));
    // A connection counts once its client is known.
    through[0].is_of(from(1)).unwrap_err();
    through[1].is_of(from(2)).unwrap();
    drop((second, third));
    through[0].is_of(from(1)).unwrap();
    drop((first, other, through));
    assert!(places.lock().clients.is_empty() && places.lock().all.is_empty());
}

#[tokio::test(start_paused = true)]
async fn behind_busy_places_are_a_few_more_for_who_asks_whether_we_live() {
    let (places, _) = places(2, 2);
    let busy: Vec<_> = (1..=2).map(|n| places.take(of(n)).unwrap()).collect();
    assert!(busy.iter().all(|place| place.activity.begin()));
    let mut extra = Vec::new();
    for number in 0..EXTRA_MAX {
        extra.push(places.take(of(10 + u8::try_from(number).unwrap())).unwrap());
        later().await;
    }
    assert!(!extra.iter().chain(&busy).any(is_closed));
    // One more: the one that has said nothing for longest leaves.
    let last = places.take(of(200)).unwrap();
    assert!(is_closed(&extra[0]) && !is_closed(&extra[1]));
    // A request there waits for a place, and gives up.
    let refused = places.admitted(&last.activity).await;
    assert!(matches!(refused, Err(Refusal::Overloaded { .. })));
    let waits = places.admitted(&last.activity);
    tokio::pin!(waits);
    tokio::select! {
        biased;
        _ = &mut waits => unreachable!("there is no place yet"),
        () = std::future::ready(()) => {}
    }
    drop(busy);
    waits.await.unwrap();
    assert!(last.activity.has_place.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn where_all_of_those_wait_the_first_gives_up_for_one_that_comes() {
    let (places, _) = places(1, 99);
    let busy = places.take(of(1)).unwrap();
    busy.activity.begin();
    let mut extra = Vec::new();
    for number in 0..EXTRA_MAX {
        let client = of(10 + u8::try_from(number).unwrap());
        let place = places.take(client).unwrap();
        place.activity.begin();
        extra.push(place);
        later().await;
    }
    let began = tokio::time::Instant::now();
    let first = places.admitted(&extra[0].activity);
    let comes = async { places.take(of(2)).unwrap() };
    let (refused, new) = tokio::join!(first, comes);
    assert!(matches!(refused, Err(Refusal::Overloaded { .. })));
    assert!(began.elapsed() < LOOK_AGAIN && !is_closed(&new));
    assert!(extra[1..].iter().all(|place| !is_closed(place)));
}

#[tokio::test(start_paused = true)]
async fn while_memory_is_short_new_ones_wait_and_idle_ones_are_closed() {
    let (places, memory) = places(10, 10);
    let (idle, busy) = (places.take(of(1)).unwrap(), places.take(of(2)).unwrap());
    busy.activity.begin();
    let lease = memory.lease(Holder::default(), 1).unwrap();
    assert!(!memory.is_short());
    let other = memory.lease_all();
    assert!(memory.is_short());
    // Their requests may be on their way.
    places.close_idle();
    assert!(!is_closed(&idle) && !is_closed(&busy));
    tokio::time::advance(IDLE_MIN).await;
    busy.activity.end();
    places.close_idle();
    assert!(is_closed(&idle) && !is_closed(&busy));
    let new = places.take(of(3)).unwrap();
    new.activity.begin();
    let refused = places.admitted(&new.activity).await;
    assert!(matches!(refused, Err(Refusal::Overloaded { .. })));
    drop((lease, other));
    places.admitted(&new.activity).await.unwrap();
}

#[test]
fn a_token_and_a_client_of_a_proxy_have_their_share_of_busy_connections() {
    let (places, memory) = places(10, 1);
    let principal = crate::gateway::memory::tests::principal("t", "w");
    let holder = |client: &str| memory.holder(client.parse().unwrap(), &principal);
    let (one, other) = (holder("10.0.0.1"), holder("10.0.0.2"));
    let first = places.busy(one, true, true).unwrap();
    // Its client has its share.
    assert!(matches!(
        places.busy(one, false, true),
        Err(Refusal::Full { limit: 1 })
    ));
    let second = places.busy(other, true, false).unwrap();
    // A further stream of the same connection counts no more.
    let stream = places.busy(other, false, false).unwrap();
    assert!(matches!(
        places.busy(other, true, false),
        Err(Refusal::Full { limit: 2 })
    ));
    drop((first, second, stream));
    assert!(places.busy.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_held_for_while_it_has_a_place() {
    let (places, memory) = places(10, 10);
    let first = places.take(of(1)).unwrap();
    let second = places.take(None).unwrap();
    assert_eq!(memory.used(), 2 * CONNECTION_BYTES);
    second.is_of(from(2)).unwrap();
    assert_eq!(memory.used(), 2 * CONNECTION_BYTES);
    let all = memory.lease_all();
    let beyond = places.take(of(3)).unwrap();
    assert!(!beyond.activity.has_place.load(Ordering::Relaxed));
    drop(all);
    assert_eq!(memory.used(), 2 * CONNECTION_BYTES);
    places.admitted(&beyond.activity).await.unwrap();
    assert_eq!(memory.used(), 3 * CONNECTION_BYTES);
    drop((first, second, beyond));
    assert_eq!(memory.used(), 0);
}
