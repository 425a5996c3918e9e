//! Answers in every cut, answers that are none, and connections that end.

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

mod oracle;

fn request() -> Sending {
    sending(&Method::POST, Bytes::from_static(b"{}").into())
}

fn sending(method: &Method, body: Pieces) -> Sending {
    let length = (
        &http::header::CONTENT_LENGTH,
        &HeaderValue::from(body.len()),
    );
    let target = PathAndQuery::from_static("/v1/x?a=b");
    Sending::new(method, &target, [length].into_iter(), body)
}

/// Head, body and whether the connection can be used again; the text of what is wrong.
async fn exchange(wire: &mut Wire<DuplexStream>) -> Result<(u16, Vec<u8>, bool), String> {
    let sent = wire.send(&request()).await;
    let response = sent.map_err(|broken| broken.source.to_string())?;
    let mut body = Vec::new();
    while let Some(piece) = std::future::poll_fn(|cx| wire.poll_body(cx)).await {
        let piece = piece.map_err(|error| error.to_string())?;
        assert!(!piece.is_empty());
        body.extend_from_slice(&piece);
    }
    Ok((response.status().as_u16(), body, wire.is_reusable()))
}

/// Result of an answer that arrives in these pieces and is followed by the end.
async fn answered(pieces: &[&[u8]]) -> Result<(u16, Vec<u8>, bool), String> {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut wire = Wire::new(ours);
    let serve = async move {
        for piece in pieces {
            theirs.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        theirs.shutdown().await.unwrap();
        theirs
    };
    let (result, _theirs) = tokio::join!(exchange(&mut wire), serve);
    result
}

const CASES: &[(&str, u16, &str, bool)] = &[
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        200,
        "hello",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        200,
        "",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\nConnection: x, Close\r\n\r\nok",
        200,
        "ok",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=\"y\"\r\n \r\nA \r\n0123456789\r\n0\r\n\r\n",
        200,
        "hello 0123456789",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n000\r\nx-a: b\r\nx-c: d\r\n\r\n",
        200,
        "abc",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        200,
        "to the end",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nto the end",
        200,
        "to the end",
        false,
    ),
    (
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        200,
        "ok",
        false,
    ),
    (
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        200,
        "ok",
        true,
    ),
    ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        200,
        "ok",
        true,
    ),
    ("HTTP/1.1 101 Switching\r\n\r\n", 101, "", false),
    (
        "HTTP/1.1 200\r\ncontent-length: 2\r\nx-empty:\r\n\r\nok",
        200,
        "ok",
        true,
    ),
];

#[tokio::test]
async fn an_answer_is_read_the_same_in_every_cut() {
    for (text, status, body, reusable) in CASES {
        let bytes = text.as_bytes();
        let expected = Ok((*status, body.as_bytes().to_vec(), *reusable));
        assert_eq!(answered(&[bytes]).await, expected, "{text:?}");
        for at in 1..bytes.len() {
            let (start, end) = bytes.split_at(at);
            assert_eq!(answered(&[start, end]).await, expected, "{at} {text:?}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(answered(&single).await, expected, "{text:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_or_can_be_read_in_two_ways_is_refused() {
    for text in [
        "HTTP/2 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\nto the end",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;\rx\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nno field\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1x\r\na\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\na\n0\n\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\na",
        // Broken off.
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        let result = answered(&[text.as_bytes()]).await;
        assert!(result.is_err(), "{text:?}: {result:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(300 * 1024));
    assert!(answered(&[endless.as_bytes()]).await.is_err());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert!(answered(&[many.as_bytes()]).await.is_err());
    let line = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;";
    let endless = format!("{line}{}", "y".repeat(5 * 1024));
    assert!(answered(&[endless.as_bytes()]).await.is_err());
    let trailer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    let endless = format!("{trailer}{}", "a: b\r\n".repeat(5 * 1024));
    assert!(answered(&[endless.as_bytes()]).await.is_err());
}

#[tokio::test]
async fn a_request_is_written_whole_and_the_connection_serves_another() {
    let (ours, mut theirs) = duplex(64);
    let mut wire = Wire::new(ours);
    for n in 0..3 {
        let serve = async {
            let wanted = b"POST /v1/x?a=b HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
            let mut got = vec![0; wanted.len()];
            theirs.read_exact(&mut got).await.unwrap();
            assert_eq!(got, wanted);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{n}");
            theirs.write_all(answer.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(exchange(&mut wire), serve);
        assert_eq!(answer, Ok((200, n.to_string().into_bytes(), true)));
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(wire.is_alive(cx));
        assert_eq!(wire.read.capacity(), 0);
    }
    // Bytes that nobody asked for, or the end: it is not used again.
    theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert!(!wire.is_alive(cx));
}

#[tokio::test]
async fn a_connection_that_ended_unseen_tells_that_nothing_was_heard() {
    let (ours, theirs) = duplex(1 << 16);
    drop(theirs);
    let broken = Wire::new(ours).send(&request()).await.unwrap_err();
    assert!(broken.unsent && broken.unheard);

    let (ours, mut theirs) = duplex(1 << 16);
    let (mut wire, request) = (Wire::new(ours), request());
    let serve = async move {
        theirs.read_exact(&mut [0; 10]).await.unwrap();
    };
    let (sent, ()) = tokio::join!(wire.send(&request), serve);
    let broken = sent.unwrap_err();
    assert!(!broken.unsent && broken.unheard);

    let (ours, mut theirs) = duplex(1 << 16);
    let mut wire = Wire::new(ours);
    let serve = async move { theirs.write_all(b"HTTP/1.1 2").await.unwrap() };
    let (sent, ()) = tokio::join!(wire.send(&request), serve);
    assert!(!sent.unwrap_err().unheard);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_was_read_is_heard() {
    let (ours, mut theirs) = duplex(32);
    let mut wire = Wire::new(ours);
    let large = sending(&Method::POST, Bytes::from(vec![b'x'; 100_000]).into());
    let serve = async move {
        theirs
            .write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        theirs
    };
    let (sent, _theirs) = tokio::join!(wire.send(&large), serve);
    assert_eq!(sent.unwrap().status(), 413);
    assert!(!wire.is_reusable());
}

proptest! {
    #[test]
    fn a_body_in_pieces_goes_out_in_their_order_however_little_is_taken_at_once(
        lengths in vec(1..3_000_usize, 0..40),
        room in 1..5_000_usize,
    ) {
        let mut body = Pieces::default();
        let mut sent = Vec::new();
        for (number, length) in lengths.into_iter().enumerate() {
            let piece: Vec<u8> = (0..=u8::MAX).cycle().skip(number).take(length).collect();
            sent.extend_from_slice(&piece);
            body.push(piece.into());
        }
        let request = sending(&Method::POST, body);
        let (ours, mut theirs) = duplex(room);
        let mut wire = Wire::new(ours);
        let serve = async {
            let mut all = Vec::new();
            let head = b"\r\n\r\n";
            let end = |all: &[u8]| all.windows(4).position(|four| four == head);
            while end(&all).is_none_or(|at| all.len() < at + 4 + sent.len()) {
                theirs.read_buf(&mut all).await.unwrap();
            }
            theirs.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
            all.split_off(end(&all).unwrap() + 4)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answer, came) = runtime.block_on(async { tokio::join!(wire.send(&request), serve) });
        prop_assert_eq!(answer.unwrap().status(), 204);
        prop_assert_eq!(came, sent);
        prop_assert!(wire.is_reusable());
    }

    #[test]
    fn chunks_of_any_size_in_any_cut_give_the_body(
        chunks in vec(vec(any::<u8>(), 1..300), 0..20),
        cuts in vec(1..400_usize, 1..20),
    ) {
        let mut text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            text.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            text.extend(chunk);
            text.extend(b"\r\n");
        }
        text.extend(b"0\r\n\r\n");
        let (mut pieces, mut rest) = (Vec::new(), &text[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(answered(&pieces));
        prop_assert_eq!(result, Ok((200, chunks.concat(), true)));
    }
}

/// The status of an answer to this method, and whether the connection can be used
/// again once its body was read.
async fn answer_to(method: Method, text: &str) -> (u16, bool) {
    let (ours, mut theirs) = duplex(1 << 16);
    let mut wire = Wire::new(ours);
    let request = sending(&method, Bytes::from_static(b"{}").into());
    theirs.write_all(text.as_bytes()).await.unwrap();
    let answer = wire.send(&request).await.unwrap();
    while let Some(piece) = std::future::poll_fn(|cx| wire.poll_body(cx)).await {
        piece.unwrap();
    }
    (answer.status().as_u16(), wire.is_reusable())
}

#[tokio::test]
async fn what_comes_behind_an_answer_ends_the_connection() {
    let post = || Method::POST;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    // The length is that of the answer to a GET.
    assert_eq!(answer_to(Method::HEAD, head).await, (200, true));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(answer_to(Method::HEAD, chunked).await, (200, true));
    for (text, status) in [
        (format!("{head}helloHTTP/1.1 200 OK\r\n"), 200),
        (format!("{chunked}0\r\n\r\n\r\n"), 200),
        ("HTTP/1.1 204 No Content\r\n\r\nhello".to_owned(), 204),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
            304,
        ),
    ] {
        assert_eq!(answer_to(post(), &text).await, (status, false), "{text:?}");
    }
    let answer = answer_to(Method::HEAD, &format!("{head}hello")).await;
    assert_eq!(answer, (200, false));
}
