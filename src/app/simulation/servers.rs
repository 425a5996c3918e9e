//! Servers that answer as each request's script says, in memory.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::facts::{Facts, Script};
use crate::outbound::socket::in_memory;
use crate::tasks::Tasks;
use crate::time::sleep;

/// A server that can be killed.
#[derive(Debug)]
pub(super) struct Server(CancellationToken);

impl Server {
    /// Serves at `path` until it is killed.
    pub(super) fn start(path: PathBuf, facts: &Facts, tasks: &Tasks) -> Self {
        let killed = CancellationToken::new();
        let mut accepts = in_memory::listen(&path);
        let (facts, ending, all) = (facts.clone(), killed.clone(), tasks.clone());
        let serving = async move {
            while let Some(stream) = accepts.recv().await {
                let (facts, ending) = (facts.clone(), ending.clone());
                let name = path.display().to_string();
                all.spawn_bare(async move {
                    tokio::select! {
                        biased;
                        () = ending.cancelled() => {}
                        _ = connection(stream, &name, &facts) => {}
                    }
                });
            }
        };
        let until = killed.clone();
        tasks.spawn_bare(async move {
            tokio::select! {
                biased;
                () = until.cancelled() => {}
                () = serving => {}
            }
        });
        Self(killed)
    }

    /// Ends it and its connections at once.
    pub(super) fn kill(&self) {
        self.0.cancel();
    }
}

/// Serves requests one after the other; `None` when either side has ended.
async fn connection(mut stream: DuplexStream, name: &str, facts: &Facts) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let (head, body) = request(&mut stream, &mut buffer).await?;
        let number = head.lines().find_map(|line| {
            let value = line.strip_prefix("x-request-id: sim-")?;
            value.trim().parse::<usize>().ok()
        });
        let Some((number, script)) = number.and_then(|number| served(facts, number, name)) else {
            facts.wrong(format!("{name} got a request that no one sent: {head:?}"));
            return None;
        };
        if head.contains("tgw_") {
            facts.wrong(format!("the token of request {number} came to {name}"));
        }
        let streams = String::from_utf8_lossy(&body).contains("\"include_usage\":true");
        answer(&mut stream, script, number, streams, facts).await?;
    }
}

/// Notes that a request came, and says what is done with it.
fn served(facts: &Facts, number: usize, name: &str) -> Option<(usize, Script)> {
    let mut known = facts.lock();
    let ask = known.asks.get_mut(number)?;
    let at = ask.served.min(ask.scripts.len().saturating_sub(1));
    let script = *ask.scripts.get(at)?;
    ask.served += 1;
    let allowed = ask.allowed;
    known.step(&format!("{name} has request {number}: {script:?}"));
    drop(known);
    if !allowed {
        facts.wrong(format!("request {number} was served without authority"));
    }
    Some((number, script))
}

async fn request(stream: &mut DuplexStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
        .unwrap_or(0_usize);
    while buffer.len() < end + length {
        more(stream, buffer).await?;
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some((head, body))
}

async fn more(stream: &mut DuplexStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece).await {
        Ok(read) if read > 0 => {
            buffer.extend_from_slice(&piece[..read]);
            Some(())
        }
        _ => None,
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// Answers as the script says; `None` where the connection ends with it.
async fn answer(
    stream: &mut DuplexStream,
    script: Script,
    number: usize,
    streams: bool,
    facts: &Facts,
) -> Option<()> {
    let (prompt, completion) = script.usage(number);
    let usage = format!(
        r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{}}}"#,
        prompt + completion
    );
    let is_told = match script {
        Script::Json { after } => {
            sleep(Duration::from_millis(after)).await;
            document(stream, &usage).await?;
            true
        }
        Script::Stream { events, apart } => {
            begin(stream, events, apart).await?;
            end(stream, streams.then_some(&usage)).await?;
            streams
        }
        fault => return fail(stream, fault).await,
    };
    if is_told {
        facts.lock().asks[number].told = Some((prompt, completion));
    }
    Some(())
}

async fn document(stream: &mut DuplexStream, usage: &str) -> Option<()> {
    let document = format!(
        r#"{{"id":"a","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"hello"}},"finish_reason":"stop"}}],{usage}}}"#
    );
    let length = document.len();
    write(
        stream,
        &format!("{HEAD}content-length: {length}\r\n\r\n{document}"),
    )
    .await
}

/// Does the deeds that are no answer.
async fn fail(stream: &mut DuplexStream, script: Script) -> Option<()> {
    let text = match script {
        Script::StreamCut { events } | Script::StreamStall { events } => {
            begin(stream, events, 50).await?;
            String::new()
        }
        Script::Status(status) => format!(
            "HTTP/1.1 {status} Odd\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        ),
        Script::Garbage => "\x16\x03\x01 nonsense\r\n\r\n".to_owned(),
        Script::Half => format!("{HEAD}content-length: 200\r\n\r\n{{\"id\":"),
        Script::Nonsense => format!("{HEAD}content-length: 9\r\n\r\n{{\"usage\":"),
        _ => String::new(),
    };
    write(stream, &text).await?;
    match script {
        Script::Silent | Script::StreamStall { .. } => std::future::pending().await,
        Script::Status(_) | Script::Nonsense => Some(()),
        _ => None,
    }
}

async fn write(stream: &mut DuplexStream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).await.ok()
}

async fn begin(stream: &mut DuplexStream, events: u64, apart: u64) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    for _ in 0..events {
        sleep(Duration::from_millis(apart)).await;
        let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
        chunk(stream, event).await?;
    }
    Some(())
}

async fn end(stream: &mut DuplexStream, usage: Option<&String>) -> Option<()> {
    if let Some(usage) = usage {
        chunk(stream, &format!("data: {{\"choices\":[],{usage}}}\n\n")).await?;
    }
    chunk(stream, "data: [DONE]\n\n").await?;
    write(stream, "0\r\n\r\n").await
}

async fn chunk(stream: &mut DuplexStream, text: &str) -> Option<()> {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes()).await.ok()
}
