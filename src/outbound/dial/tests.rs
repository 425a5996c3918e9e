use tokio::net::{TcpListener, TcpSocket};

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn families_are_tried_in_turn_and_no_more_than_a_few_addresses() {
    let all = [
        ip("::1"),
        ip("::2"),
        ip("::3"),
        ip("1.1.1.1"),
        ip("1.1.1.2"),
    ];
    let turn = [
        ip("::1"),
        ip("1.1.1.1"),
        ip("::2"),
        ip("1.1.1.2"),
        ip("::3"),
    ];
    assert_eq!(in_turn(&all), turn);
    assert!(in_turn(&[]).is_empty());
    let many: Vec<_> = (0..=255).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    assert_eq!(in_turn(&many), many[..ADDRESSES_MAX]);
}

#[tokio::test]
async fn an_address_that_fails_or_is_silent_gives_way_to_the_next() {
    let good = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = good.local_addr().unwrap().port();
    let refuses = connect_to("x", port, &[ip("127.0.0.1")], LONG).await;
    assert!(matches!(refuses, Err(Failure::Refused)), "{refuses:?}");
    let both = [ip("127.0.0.1"), ip("127.0.0.2")];
    let stream = connect_to("x", port, &both, LONG).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip(), both[1]);

    // One whose queue is full does not answer.
    let silent = TcpSocket::new_v4().unwrap();
    let full = SocketAddr::new(ip("127.0.0.3"), port);
    silent.bind(full).unwrap();
    let _silent = silent.listen(1).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = timeout(NEXT_AFTER, TcpStream::connect(full)).await {
        held.push(stream.unwrap());
    }
    let late = connect_to("x", port, &[ip("127.0.0.3")], NEXT_AFTER).await;
    assert!(matches!(late, Err(Failure::Timeout)), "{late:?}");
    let both = [ip("127.0.0.3"), ip("127.0.0.2")];
    let stream = connect_to("x", port, &both, LONG).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip(), both[1]);
}

#[tokio::test]
async fn a_name_is_found_as_the_system_finds_it() {
    let found = addresses("localhost", LONG).await.unwrap();
    assert!(
        !found.is_empty() && found.iter().all(IpAddr::is_loopback),
        "{found:?}"
    );
    let none = addresses("no\0name", LONG).await;
    assert!(matches!(none, Err(Failure::Name(_))), "{none:?}");
}
