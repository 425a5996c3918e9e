use super::*;
use proptest::prelude::*;
use tokio::time::advance;

fn limits(requests: Option<u32>, tokens: Option<u32>) -> RateLimits {
    RateLimits { requests, tokens }
}

fn token() -> Arc<str> {
    Arc::from("01J")
}

#[tokio::test(start_paused = true)]
async fn a_full_budget_holds_as_many_as_its_limit_and_says_when_the_next_fits() {
    let (rates, token) = (Rates::new(), token());
    let limits = limits(Some(6), None);
    for left in (0..6).rev() {
        let (mut hold, standings) = rates.hold(&token, limits, 0).unwrap();
        assert_eq!(standings.requests.unwrap().remaining, left);
        assert_eq!(standings.tokens, None);
        hold.sent();
    }
    let denied = rates.hold(&token, limits, 0).unwrap_err();
    assert_eq!((denied.budget, denied.limit), (Budget::Requests, 6));
    assert_eq!(denied.after, Duration::from_secs(10));
    advance(denied.after).await;
    assert!(rates.hold(&token, limits, 0).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_denied_request_and_a_dropped_one_are_charged_nothing() {
    let (rates, token) = (Rates::new(), token());
    let both = limits(Some(2), Some(100));
    let first = rates.hold(&token, both, 80).unwrap();
    // The tokens do not fit, so the request is not held either.
    let denied = rates.hold(&token, both, 80).unwrap_err();
    assert_eq!(denied.budget, Budget::Tokens);
    assert_eq!(denied.standings.requests.unwrap().remaining, 1);
    drop(first);
    let (_hold, standings) = rates.hold(&token, both, 100).unwrap();
    assert_eq!(standings.requests.unwrap().remaining, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_really_used_becomes_debt_and_is_paid_off_with_time() {
    let (rates, token) = (Rates::new(), token());
    let limits = limits(None, Some(60));
    let (hold, _) = rates.hold(&token, limits, 10).unwrap();
    hold.settle(150);
    let denied = rates.hold(&token, limits, 10).unwrap_err();
    assert_eq!(denied.after, Duration::from_secs(100));
    let standing = denied.standings.tokens.unwrap();
    assert_eq!((standing.remaining, standing.reset.as_secs()), (0, 150));
    advance(Duration::from_secs(100)).await;
    assert!(rates.hold(&token, limits, 10).is_ok());
    let (hold, _) = rates.hold(&token, limits, 10).unwrap();
    hold.settle(0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_gets_back_what_time_has_not_paid_off() {
    let (rates, token) = (Rates::new(), token());
    let limits = limits(Some(1), None);
    let (mut hold, _) = rates.hold(&token, limits, 0).unwrap();
    hold.sent();
    assert!(rates.hold(&token, limits, 0).is_err());
    hold.refund();
    let (mut hold, _) = rates.hold(&token, limits, 0).unwrap();
    hold.sent();
    advance(Duration::from_mins(1)).await;
    let (mut other, _) = rates.hold(&token, limits, 0).unwrap();
    other.sent();
    hold.refund();
    assert!(rates.hold(&token, limits, 0).is_err(), "given twice");
}

#[tokio::test(start_paused = true)]
async fn idle_accounts_are_forgotten_and_others_are_not() {
    let rates = Rates::new();
    let limits = limits(Some(60), None);
    let (busy, _) = rates.hold(&token(), limits, 0).unwrap();
    for index in 0..5000 {
        let token = Arc::from(format!("t{index}"));
        drop(rates.hold(&token, limits, 0).unwrap());
    }
    assert!(rates.len() <= ACCOUNTS_MIN, "{}", rates.len());
    rates.sweep();
    assert_eq!(rates.len(), 1);
    drop(busy);
    rates.sweep();
    assert!(rates.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lowered_limit_keeps_the_share_that_is_used() {
    let (rates, token) = (Rates::new(), token());
    let (hold, _) = rates.hold(&token, limits(None, Some(1000)), 0).unwrap();
    hold.settle(500);
    let (_hold, standings) = rates.hold(&token, limits(None, Some(10)), 0).unwrap();
    assert_eq!(standings.tokens.unwrap().remaining, 5);
}

proptest! {
    #[test]
    fn requests_sent_are_never_above_the_limit_and_nothing_leaks(
        steps in prop::collection::vec((0..5_u8, 0..8_usize, 0..200_u64), 1..200),
        limit in 1..50_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (rates, token) = (Rates::new(), token());
            let limits = limits(Some(limit), Some(1000));
            let (mut held, mut sent): (Vec<Hold>, Vec<Hold>) = (Vec::new(), Vec::new());
            let (mut seconds, mut charged) = (0_u64, 0_u64);
            for (step, pick, count) in steps {
                match step {
                    0 => held.extend(rates.hold(&token, limits, count).ok().map(|(hold, _)| hold)),
                    1 if !held.is_empty() => {
                        let mut hold = held.swap_remove(pick % held.len());
                        hold.sent();
                        charged += 1;
                        sent.push(hold);
                    }
                    2 if !held.is_empty() => drop(held.swap_remove(pick % held.len())),
                    3 if !sent.is_empty() => sent.swap_remove(pick % sent.len()).settle(count),
                    _ => {
                        seconds += count / 20;
                        advance(Duration::from_secs(count / 20)).await;
                    }
                }
                // What a full budget has, and what came in since.
                let most = u64::from(limit) + (u64::from(limit) * seconds).div_ceil(60);
                assert!(charged + held.len() as u64 <= most, "{charged} of {most}");
            }
            held.clear();
            sent.clear();
            advance(Duration::from_hours(24)).await;
            rates.sweep();
            assert!(rates.is_empty(), "something is held for ever");
        });
    }
}
