use super::*;
use tokio::time::advance;

const RULES: Ejection = Ejection {
    failures: 3,
    time: Duration::from_secs(5),
    time_max: Duration::from_secs(15),
};

fn health() -> Arc<Health> {
    let label = Arc::from("chat/a:80");
    Health::new(Clock::start(), label, ServerMetrics::new("chat", "a:80"))
}

fn fail(health: &Arc<Health>) {
    health.begin().failed(&Fault::Broke, RULES, || false);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_for_a_time_that_doubles_up_to_its_limit() {
    let health = health();
    fail(&health);
    fail(&health);
    health.begin().succeeded();
    fail(&health);
    fail(&health);
    assert!(health.is_usable(), "never three in a row");
    fail(&health);
    for seconds in [5, 10, 15, 15] {
        let time = Duration::from_secs(seconds);
        assert_eq!(health.standing(), ServerStanding::Ejected(time));
        assert!(!health.is_usable());
        advance(time).await;
        assert_eq!(health.standing(), ServerStanding::Probation);
        fail(&health);
    }
    assert_eq!(health.ejections(), 5);
}

#[tokio::test(start_paused = true)]
async fn on_probation_one_request_at_a_time_tries_it() {
    let health = health();
    (0..3).for_each(|_| fail(&health));
    advance(RULES.time).await;
    assert!(health.is_usable());
    let attempt = health.begin();
    assert!(!health.is_usable(), "one tries it");
    // The client left: nothing is known, and the next may try.
    drop(attempt);
    let attempt = health.begin();
    assert!(!health.is_usable());
    attempt.succeeded();
    assert_eq!(health.standing(), ServerStanding::In);
    assert!(health.is_usable());
}

#[tokio::test(start_paused = true)]
async fn time_served_is_forgiven_and_the_next_ejection_is_short_again() {
    let health = health();
    for rounds in [1, 2] {
        (0..3).for_each(|_| fail(&health));
        let out = RULES.time * rounds;
        assert_eq!(health.standing(), ServerStanding::Ejected(out));
        advance(out).await;
        health.begin().succeeded();
    }
    advance(RULES.time * 2).await;
    health.begin().succeeded();
    (0..3).for_each(|_| fail(&health));
    assert_eq!(health.standing(), ServerStanding::Ejected(RULES.time));
}

#[tokio::test(start_paused = true)]
async fn the_last_is_never_ejected() {
    let health = health();
    for _ in 0..20 {
        health.begin().failed(&Fault::Broke, RULES, || true);
        assert!(health.is_usable());
    }
    assert_eq!(health.why(), Some(Fault::Broke.words().into_owned()));
    fail(&health);
    assert!(!health.is_usable(), "there is another now");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_may_have_brought_about_is_told_and_leaves_no_server_out() {
    let health = health();
    let forbidden = Fault::Key(http::StatusCode::FORBIDDEN);
    for _ in 0..9 {
        health.begin().failed(&forbidden, RULES, || false);
    }
    assert!(health.is_usable() && health.ejections() == 0);
    assert!(
        health
            .why()
            .unwrap()
            .contains("refuses the gateway's key (403)")
    );
    health.begin().succeeded();
    assert_eq!(health.why(), None);
    let unauthorized = Fault::Key(http::StatusCode::UNAUTHORIZED);
    for _ in 0..3 {
        health.begin().failed(&unauthorized, RULES, || false);
    }
    assert!(!health.is_usable());
}

#[tokio::test(start_paused = true)]
async fn a_health_check_changes_its_mind_after_answers_in_a_row() {
    let health = health();
    for (well, usable) in [
        (false, true),
        (true, true),
        (false, true),
        (false, false),
        (true, false),
        (false, false),
        (true, false),
        (true, true),
    ] {
        health.checked(well, 2, "the answer was 503");
        assert_eq!(health.is_usable(), usable, "after {well}");
    }
    health.checked(false, 1, "the answer was 503");
    health.unchecked();
    assert!(health.is_usable());
}
