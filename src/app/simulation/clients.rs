//! Clients, in order and not.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::facts::{Facts, Stands};
use crate::time::{sleep, timeout};

/// No request may take longer, whatever fails: above the sum of all limits of the
/// settings and of the longest script.
pub(super) const BOUND: Duration = Duration::from_secs(400);

/// Manner of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Sends and reads.
    Plain,
    /// Sends in pieces, so many milliseconds apart.
    Slow(u64),
    /// Leaves so many milliseconds after it has sent.
    Leaves(u64),
    /// Leaves in the middle of its body.
    Half,
    /// Sends nothing more in the middle of its body, and stays.
    Stalls,
    /// Does not read the answer, and stays.
    Deaf,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) number: usize,
    pub(super) manner: Manner,
    pub(super) text: Vec<u8>,
}

/// Sends the calls of one connection one after the other, with pauses between.
pub(super) async fn run(mut stream: DuplexStream, calls: Vec<(Call, u64)>, facts: Facts) {
    for (call, pause) in calls {
        sleep(Duration::from_millis(pause)).await;
        let number = call.number;
        let before = sent(&facts, number);
        let one = Box::pin(one(&mut stream, &call));
        let Ok(answer) = timeout(BOUND, one).await else {
            if !matches!(call.manner, Manner::Stalls | Manner::Deaf) {
                facts.wrong(format!("request {number} has no end within {BOUND:?}"));
            }
            return;
        };
        facts.step(&format!("request {number} ended: {answer:?}"));
        let Some(Answer { status, is_last }) = answer else {
            return;
        };
        judge(&facts, number, before, status);
        if is_last {
            return;
        }
    }
}

/// Notes that a request is sent now. Returns how its token stands.
fn sent(facts: &Facts, number: usize) -> Option<Stands> {
    let mut known = facts.lock();
    let token = known.asks[number].token;
    let stands = token.map(|token| known.tokens[token].stands);
    if matches!(stands, Some(Stands::Refused { .. })) {
        known.asks[number].allowed = false;
    }
    known.step(&format!("request {number} is sent, its token: {stands:?}"));
    stands
}

fn judge(facts: &Facts, number: usize, before: Option<Stands>, status: u16) {
    let mut known = facts.lock();
    known.asks[number].answer = Some(status);
    let token = known.asks[number].token;
    let after = token.map(|token| known.tokens[token].stands);
    let allowed = known.asks[number].allowed;
    drop(known);
    if !allowed && status < 400 {
        facts.wrong(format!("request {number} got {status} without authority"));
    }
    let is_good = before == Some(Stands::Good) && after == Some(Stands::Good);
    if allowed && is_good && status == 401 {
        facts.wrong(format!(
            "request {number} was refused, and its token is good"
        ));
    }
}

/// Answer of an exchange.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// True if the connection ends with it.
    is_last: bool,
}

/// Does one exchange; `None` when it broke off.
async fn one(stream: &mut DuplexStream, call: &Call) -> Option<Answer> {
    let text = &call.text;
    let body = memchr::memmem::find(text, b"\r\n\r\n").map_or(text.len(), |at| at + 4);
    let middle = body + (text.len() - body) / 2;
    match call.manner {
        Manner::Plain => stream.write_all(text).await.ok()?,
        Manner::Slow(pause) => {
            for piece in text.chunks(text.len().div_ceil(5).max(1)) {
                stream.write_all(piece).await.ok()?;
                sleep(Duration::from_millis(pause)).await;
            }
        }
        Manner::Leaves(after) => {
            stream.write_all(text).await.ok()?;
            drop(timeout(Duration::from_millis(after), answer(stream)).await);
            return None;
        }
        Manner::Half => {
            stream.write_all(&text[..middle]).await.ok()?;
            return None;
        }
        Manner::Stalls => {
            stream.write_all(&text[..middle]).await.ok()?;
            return answer(stream).await;
        }
        Manner::Deaf => {
            stream.write_all(text).await.ok()?;
            sleep(BOUND * 2).await;
            return None;
        }
    }
    answer(stream).await
}

async fn answer(stream: &mut DuplexStream) -> Option<Answer> {
    let mut all = Vec::new();
    let end = loop {
        if let Some(at) = memchr::memmem::find(&all, b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, &mut all).await?;
    };
    let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
    let status = head.get(9..12)?.parse().ok()?;
    let is_last = head.contains("connection: close");
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    if let Some(length) = field("content-length: ") {
        let length: usize = length.trim().parse().ok()?;
        while all.len() < end + length {
            more(stream, &mut all).await?;
        }
    } else if field("transfer-encoding: ").is_some() {
        while !all.ends_with(b"\r\n0\r\n\r\n") && !all[end..].starts_with(b"0\r\n\r\n") {
            more(stream, &mut all).await?;
        }
    }
    Some(Answer { status, is_last })
}

async fn more(stream: &mut DuplexStream, all: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece).await {
        Ok(read) if read > 0 => {
            all.extend_from_slice(&piece[..read]);
            Some(())
        }
        _ => None,
    }
}
