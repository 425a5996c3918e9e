use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LONG: Duration = Duration::from_secs(20);

/// Look-ups of which each waits for a word before it answers; and how many there were.
fn waiting() -> (Arc<Lookups>, Sender<Vec<IpAddr>>, Arc<AtomicUsize>) {
    let (answer, answers) = channel();
    let (answers, count) = (Mutex::new(answers), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let lookups = Lookups::new(move |host| {
        if host == "quick" {
            return Ok(vec![HERE, HERE]);
        }
        counted.fetch_add(1, Ordering::SeqCst);
        answers.lock().unwrap().recv().map_err(io::Error::other)
    });
    (lookups, answer, count)
}

#[tokio::test]
async fn one_look_up_serves_all_who_ask_and_holds_no_other_up() {
    let (lookups, answer, count) = waiting();
    let short = Duration::from_millis(1);
    for _ in 0..200 {
        let found = lookups.find("slow", short).await;
        assert_eq!(found, Err(Unfound::Timeout));
    }
    let quick = lookups.find("quick", LONG).await.unwrap();
    assert_eq!(*quick, [HERE]);
    assert_eq!(count.load(Ordering::SeqCst), 1, "one thread for 200");
    let (one, other) = (lookups.find("slow", LONG), lookups.find("slow", LONG));
    answer.send(vec![HERE]).unwrap();
    let (one, other) = tokio::join!(one, other);
    assert_eq!((one.unwrap()[0], other.unwrap()[0]), (HERE, HERE));
    assert_eq!(*lookups.find("slow", short).await.unwrap(), [HERE]);
    assert_eq!(
        count.load(Ordering::SeqCst),
        1,
        "believed while it is fresh"
    );
}

fn age(lookups: &Lookups, by: Duration) {
    let mut names = lookups.lock();
    let name = names.get_mut("slow").unwrap();
    let then = |since: &mut Instant| *since -= by;
    if let Some((_, since)) = &mut name.good {
        then(since);
    }
    if let Some((_, since)) = &mut name.bad {
        then(since);
    }
}

#[tokio::test]
async fn an_old_answer_serves_until_there_is_a_newer_one() {
    let (lookups, answer, count) = waiting();
    answer.send(vec![HERE]).unwrap();
    lookups.find("slow", LONG).await.unwrap();
    age(&lookups, FRESH);
    // No server answers: the old one is good enough, for each who asks.
    for _ in 0..3 {
        assert_eq!(*lookups.find("slow", LONG).await.unwrap(), [HERE]);
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let there: IpAddr = "127.0.0.9".parse().unwrap();
    answer.send(vec![there]).unwrap();
    let mut open = lookups.lock().get("slow").unwrap().open.clone();
    if let Some(open) = &mut open {
        open.ended.changed().await.unwrap_err();
    }
    assert_eq!(*lookups.find("slow", LONG).await.unwrap(), [there]);
    // After an hour without an answer it is none.
    age(&lookups, STALE_MAX);
    let short = Duration::from_millis(1);
    assert_eq!(lookups.find("slow", short).await, Err(Unfound::Timeout));
}

#[tokio::test]
async fn addresses_that_failed_are_asked_for_again_and_no_answer_is_one_for_a_second() {
    let (lookups, answer, count) = waiting();
    answer.send(Vec::new()).unwrap();
    for _ in 0..3 {
        let found = lookups.find("slow", LONG).await;
        assert_eq!(found, Err(Unfound::No(Arc::from("it has no address"))));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    age(&lookups, FAILED);
    answer.send(vec![HERE]).unwrap();
    assert_eq!(*lookups.find("slow", LONG).await.unwrap(), [HERE]);
    lookups.doubt("slow");
    age(&lookups, FAILED);
    let there: IpAddr = "127.0.0.9".parse().unwrap();
    answer.send(vec![there]).unwrap();
    assert_eq!(*lookups.find("slow", LONG).await.unwrap(), [there]);
}

#[tokio::test]
async fn a_look_up_that_panics_is_an_answer_too() {
    let lookups = Lookups::new(|_| panic!("on purpose"));
    let found = lookups.find("slow", LONG).await;
    assert_eq!(found, Err(Unfound::No(Arc::from("the look-up broke off"))));
}

#[tokio::test]
async fn look_ups_have_a_bound() {
    let (lookups, answer, count) = waiting();
    let short = Duration::from_millis(1);
    for number in 0..THREADS_MAX {
        let found = lookups.find(&format!("n{number}"), short).await;
        assert_eq!(found, Err(Unfound::Timeout));
    }
    let more = lookups.find("more", LONG).await;
    assert!(matches!(more, Err(Unfound::No(_))), "{more:?}");
    assert!(count.load(Ordering::SeqCst) <= THREADS_MAX);
    // Those that wait for a word hear that none will come.
    drop(answer);
}
