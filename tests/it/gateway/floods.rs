//! Clients that send without end, or not at all.

use std::time::Duration;

use tidegate::config::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::{Bench, Client, LIMIT, OK, answering};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The frames of one number.
type Flood = Box<dyn Fn(usize) -> Vec<u8> + Send>;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Sends pieces until the gateway closes; `false` when it took them all.
async fn is_stopped(client: Client<TcpStream>, pieces: impl Iterator<Item = Vec<u8>>) -> bool {
    let (mut read, mut write) = client.0.into_split();
    let ends = async {
        let mut buffer = vec![0; 64 << 10];
        while read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        true
    };
    let sends = async {
        let mut batch = Vec::new();
        for piece in pieces {
            batch.extend(piece);
            if batch.len() > 16 << 10 {
                if write.write_all(&batch).await.is_err() {
                    return true;
                }
                batch.clear();
            }
        }
        // Its end would come soon, if it were on its way.
        false
    };
    let both = async {
        tokio::select! {
            stopped = ends => stopped,
            stopped = sends => stopped,
        }
    };
    tokio::time::timeout(LIMIT, both).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_ends_its_connection_and_no_other() {
    const FRAMES: usize = 400_000;
    let bench = Bench::new(&[answering(OK).await], "").await;
    let mut other = bench.connect().await;
    // `:method: GET`, `:scheme: https`, `:path: /`, with an authority.
    let head = b"\x82\x87\x84\x41\x01x";
    let request = |n: usize| u32::try_from(2 * n + 1).unwrap();
    let floods: [(&str, Flood); 6] = [
        ("ping", Box::new(|_| frame(6, 0, 0, &[0; 8]))),
        ("settings", Box::new(|_| frame(4, 0, 0, &[]))),
        ("priority", Box::new(|_| frame(2, 0, 1, &[0, 0, 0, 0, 1]))),
        ("unknown", Box::new(|_| frame(77, 0, 0, &[]))),
        (
            "reset",
            Box::new(move |n| {
                let mut both = frame(1, 4, request(n), head);
                both.extend(frame(3, 0, request(n), &[0, 0, 0, 8]));
                both
            }),
        ),
        (
            "continuation",
            Box::new(move |n| match n {
                0 => frame(1, 0, 1, head),
                _ => frame(9, 0, 1, b"\x00\x01a\x01b"),
            }),
        ),
    ];
    for (name, flood) in floods {
        let mut client = bench.connect().await;
        client.send(PREFACE).await;
        assert!(is_stopped(client, (0..FRAMES).map(flood)).await, "{name}");
        other.send(bench.post(r#"{"model":"chat"}"#)).await;
        assert_eq!(other.answer().await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn who_sends_too_slowly_or_not_at_all_is_let_go() {
    let mut settings = Settings::default();
    let short = Duration::from_millis(200);
    settings.gateway.header_timeout = short;
    settings.gateway.keep_alive = short;
    settings.gateway.body_times.pause_max = short;
    settings.gateway.handshake_timeout = short;
    let bench = Bench::with(&[answering(OK).await], "", settings).await;
    for begin in [
        "",
        "P",
        "PRI * HT",
        "POST /v1/chat",
        "POST /v1/chat HTTP/1.1\r\nHost: x\r\nX",
    ] {
        let mut client = bench.connect().await;
        client.send(begin).await;
        assert_ends(client).await;
    }
    assert_ends(Client(TcpStream::connect(bench.tls).await.unwrap())).await;
    // Half a body: it is told why.
    let mut client = bench.connect().await;
    let request = bench.post(r#"{"model":"chat"}"#);
    client.send(&request[..request.len() - 3]).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "request_body_incomplete")
    );
}

async fn assert_ends(mut client: Client<TcpStream>) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LIMIT, client.0.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "still open");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go_and_its_server_too() {
    let mut settings = Settings::default();
    settings.gateway.write_timeout = Duration::from_millis(200);
    let (gone, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = super::bench::server(move |_, mut peer| {
        let gone = gone.clone();
        async move {
            peer.request().await.unwrap();
            // One line of JSON without end.
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n\"")
                .await;
            let piece = vec![b'a'; 64 << 10];
            let mut sent = 0;
            while peer.0.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            gone.send(sent).unwrap();
        }
    })
    .await;
    let bench = Bench::with(&[address], "", settings).await;
    let mut client = bench.connect().await;
    client.send(bench.post(r#"{"model":"chat"}"#)).await;
    let sent = tokio::time::timeout(LIMIT, seen.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(sent < 64 << 20, "{sent} bytes were taken from the server");
}
