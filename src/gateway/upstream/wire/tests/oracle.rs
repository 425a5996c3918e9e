//! hyper's client reads the same bytes: what we take for an answer it takes for the
//! same one, and of those that are as they should be we refuse none.

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::sample::select;

use super::*;
use crate::fuzz;

/// Status, headers but for those of the framing, and body.
type Answer = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

fn fields(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    let fields = headers.iter().filter(|(name, _)| *name != "content-length");
    fields
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect()
}

async fn ours(socket: DuplexStream) -> Option<Answer> {
    let mut wire = Wire::new(socket);
    let head = wire.send(&request()).await.ok()?;
    let mut body = Vec::new();
    while let Some(piece) = std::future::poll_fn(|cx| wire.poll_body(cx)).await {
        body.extend_from_slice(&piece.ok()?);
    }
    Some((head.status().as_u16(), fields(head.headers()), body))
}

async fn theirs(socket: DuplexStream) -> Option<Answer> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(socket)).await.ok()?;
    let answer = async move {
        let request = http::Request::post("/v1/x?a=b").header("content-length", "2");
        let request = request.body(Full::new(Bytes::from_static(b"{}"))).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes().to_vec();
        Some((head.status.as_u16(), fields(&head.headers), body))
    };
    tokio::join!(answer, driver).0
}

/// Answers that both readers make of these pieces.
fn both(text: &[u8], cuts: &[usize]) -> (Option<Answer>, Option<Answer>) {
    let (mut pieces, mut rest, mut cuts) = (Vec::new(), text, cuts.iter().cycle());
    while !rest.is_empty() {
        let at = cuts.next().map_or(rest.len(), |cut| *cut);
        let (piece, after) = rest.split_at(at.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let serve = |mut socket: DuplexStream| {
        let pieces = pieces.clone();
        async move {
            for piece in pieces {
                // The client may have left.
                drop(socket.write_all(piece).await);
                tokio::task::yield_now().await;
            }
            drop(socket.shutdown().await);
            socket
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (to_us, at_us) = duplex(1 << 20);
        let (to_them, at_them) = duplex(1 << 20);
        let us = async { tokio::join!(ours(to_us), serve(at_us)).0 };
        let them = async { tokio::join!(theirs(to_them), serve(at_them)).0 };
        tokio::join!(us, them)
    })
}

/// Answers as they should be.
fn proper() -> impl Strategy<Value = Vec<u8>> {
    let early = select(vec![
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
    ]);
    let line = select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 ",
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 503 caf\u{e9}",
        "HTTP/1.1 299 a b c",
    ]);
    let field = select(vec![
        "X-A: 1",
        "x-a:2",
        "x-b:   spaced  ",
        "Connection: close",
        "connection: Keep-Alive, x-a",
        "x-empty:",
        "set-cookie: a=b; c",
        "x-utf: caf\u{e9}",
    ]);
    let chunk = (
        vec(any::<u8>(), 1..200),
        select(vec!["", ";a", ";a=b", " ; a = \"b;c\"", "\t"]),
    );
    let trailer = select(vec!["", "x-t: 1\r\n", "x-t: 1\r\nX-U:2\r\n"]);
    let body = prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(|body| {
            let mut text = format!("content-length: {}\r\n\r\n", body.len()).into_bytes();
            text.extend(body);
            text
        }),
        vec(any::<u8>(), 0..300).prop_map(|body| [b"\r\n", &body[..]].concat()),
        (vec(chunk, 0..8), trailer).prop_map(|(chunks, trailer)| {
            let mut text = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
            for (chunk, extension) in chunks {
                text.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
                text.extend([&chunk[..], b"\r\n"].concat());
            }
            text.extend(format!("0\r\n{trailer}\r\n").into_bytes());
            text
        }),
    ];
    (early, line, vec(field, 0..6), body).prop_map(|(early, line, fields, body)| {
        let mut text = format!("{early}{line}\r\n").into_bytes();
        for field in fields {
            text.extend(format!("{field}\r\n").into_bytes());
        }
        text.extend(body);
        text
    })
}

/// Pieces that are put where they do not belong.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        select(vec![
            "\r",
            "\n",
            "\r\n",
            "\r\n\r\n",
            " ",
            "\t",
            ":",
            ";",
            ",",
            "0",
            "f",
            "-",
            "+",
            "\0",
            "chunked",
            "gzip",
            "content-length: 3\r\n",
            "content-length: 3, 3\r\n",
            "transfer-encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "HTTP/1.0",
            "HTTP/1.1 204 No Content\r\n",
            "HTTP/1.1 101 x\r\n\r\n",
            "0\r\n\r\n",
            "\u{e9}",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        vec(any::<u8>(), 1..3),
    ]
}

proptest! {
    #[test]
    fn a_proper_answer_is_read_as_hyper_reads_it(
        text in proper(),
        cuts in vec(1..200_usize, 1..8),
    ) {
        let (ours, theirs) = both(&text, &cuts);
        prop_assert!(ours.is_some());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn what_is_taken_for_an_answer_hyper_takes_for_the_same(
        text in proper(),
        changes in vec((any::<prop::sample::Index>(), 0..3_usize, pieces()), 1..4),
        cuts in vec(1..200_usize, 1..8),
    ) {
        let mut text = text;
        for (at, removed, piece) in changes {
            // Most of what can go wrong is in the first lines.
            let at = at.index(text.len().min(160) + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece);
        }
        let (ours, theirs) = both(&text, &cuts);
        if ours.is_some() {
            prop_assert_eq!(ours, theirs);
        }
    }
}

/// Answers of vLLM, of proxies, and of servers that were clever.
const ANSWERS: [&str; 4] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=\"y\"\r\n \r\nA\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\r\nuntil the end",
    "HTTP/1.1 204 No Content\r\n\r\n",
];

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_answer(
        text in fuzz::damaged(
            &ANSWERS,
            &[
                "\r", "\n", "\r\n", "\r\n\r\n", " ", "\t", ":", ";", ",", "0", "f", "-", "+", "\0", "\u{e9}",
                "chunked", "gzip", "content-length: 3\r\n", "content-length: 3, 3\r\n",
                "transfer-encoding: chunked\r\n", "transfer-encoding: identity\r\n", "HTTP/1.0",
                "HTTP/1.1 101 x\r\n\r\n", "HTTP/1.1 304 x\r\n", "0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\n",
            ],
        ),
        cuts in fuzz::cuts(),
    ) {
        let (ours, theirs) = both(&text, &cuts);
        if ours.is_some() {
            prop_assert_eq!(ours, theirs);
        }
    }
}
