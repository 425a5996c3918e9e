//! A tunnel between a client and a server that both speak WebSocket.
//!
//! Messages pass as they came, whole, one after the other; what one side does
//! not take holds the other back. The client's events are read, so that its
//! session is with the model that it was let in for; the server's, to count
//! tokens. A side that is silent for too long, or says what is no WebSocket,
//! ends it with a word to the other.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::dial::{self, Line};
use super::end::End;
use super::half::Half;
use crate::gateway::record::Record;
use crate::gateway::refusal::Refusal;
use crate::gateway::route::find::find;
use crate::openai::api::Api;
use crate::openai::realtime::{self, Kind};
use crate::telemetry::metrics::Outcome;
use crate::time::{Instant, sleep_until, timeout, unix_seconds};
use crate::websocket::{self, Piece, Side};

/// Longest message of either side; that of uvicorn.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest message until the client has named its model.
const FIRST_EVENT_BYTES_MAX: usize = 256 * 1024;
/// Longest time until the client has named its model.
const FIRST_EVENT_MAX: Duration = Duration::from_secs(10);
/// Longest time for a side to take the last frame.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A client's connection that became a WebSocket.
#[derive(Debug)]
pub struct Tunnel {
    client: OnUpgrade,
    caller: Caller,
    line: Option<Line>,
    record: Box<Record>,
}

/// End of a tunnel that its deployment does not let last longer.
const TOO_LONG: End = End::new(
    Outcome::UpstreamTimeout,
    1013,
    "a session with this model may not last longer",
);

impl Tunnel {
    pub(super) fn new(
        client: OnUpgrade,
        caller: Caller,
        line: Option<Line>,
        mut record: Box<Record>,
    ) -> Self {
        record.status = Some(StatusCode::SWITCHING_PROTOCOLS);
        Self {
            client,
            caller,
            line,
            record,
        }
    }

    /// Runs until one side ends it, or `cut` is cancelled.
    pub async fn run(mut self: Box<Self>, cut: &CancellationToken) {
        let Ok(Ok(client)) = timeout(LAST_WORDS, &mut self.client).await else {
            return;
        };
        let mut client = Half::new(client, Side::Client, FIRST_EVENT_BYTES_MAX);
        let end = tokio::select! {
            end = self.session(&mut client) => end,
            () = cut.cancelled() => {
                End::new(Outcome::Unavailable, 1001, "the gateway is shutting down")
            }
        };
        if let Some((code, words)) = end.words {
            client.out.add(&websocket::close(Side::Server, code, words));
        }
        // A client that does not take it is gone, or as good as gone.
        drop(timeout(LAST_WORDS, client.finish()).await);
        self.record.outcome = end.outcome;
    }

    async fn session(&mut self, client: &mut Half) -> End {
        let (line, is_greeted) = match self.line.take() {
            Some(line) => (line, false),
            None => match self.first(client).await {
                Ok(line) => (line, true),
                Err(end) => return end,
            },
        };
        client.frames.allow(MESSAGE_BYTES_MAX);
        let mut server = Half::new(line.server, Side::Server, MESSAGE_BYTES_MAX);
        // What is held of the server is let go with the tunnel.
        let _held = line.held;
        let mut talk = Talk {
            asked: line.destination.name.as_str(),
            model: line.model,
            is_greeted,
            record: &mut self.record,
        };
        let idle = line.destination.route.timeouts.idle;
        let talking = talk.run(client, &mut server, idle);
        match line.duration_max {
            Some(max) => timeout(max, talking).await.unwrap_or(TOO_LONG),
            None => talking.await,
        }
    }

    /// Greets the client as the server would, and waits until it has named its
    /// model; then for that model's server.
    async fn first(&mut self, client: &mut Half) -> Result<Line, End> {
        let hello = realtime::created(&self.record.request_id, unix_seconds());
        client.out.add(&websocket::text(Side::Server, &hello));
        let named = timeout(FIRST_EVENT_MAX, client.listen(first_model)).await;
        let named = match named {
            Ok(named) => named?,
            Err(_) => return Err(self.refuse(client, &Refusal::NoModel)),
        };
        let connected = match named {
            Ok(name) => {
                let (route, caller) = (self.caller.route.as_deref(), &self.caller);
                match find(&caller.table, route, Some(&name), &caller.principal) {
                    Ok(found) => tokio::select! {
                        connected = dial::connect(caller, found, &mut self.record) => connected,
                        // Only its end matters here; what it says meanwhile waits.
                        never = client.listen(|_| None::<()>) => match never {
                            Err(end) => return Err(end),
                            Ok(()) => Err(Refusal::NoModel),
                        },
                    },
                    Err(refusal) => Err(refusal),
                }
            }
            Err(refusal) => Err(refusal),
        };
        connected.map_err(|refusal| self.refuse(client, &refusal))
    }

    /// Tells the client why it is not let in.
    fn refuse(&mut self, client: &mut Half, refusal: &Refusal) -> End {
        let response = refusal.response(Some(Api::Realtime));
        let status = response.status();
        self.record
            .refused(refusal, StatusCode::SWITCHING_PROTOCOLS);
        tell(client, response.body());
        let code = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => 1013,
            status if status.is_server_error() => 1011,
            _ => 1008,
        };
        End::new(refusal.outcome(), code, refusal.code())
    }
}

/// An error event with a body of ours.
fn tell(client: &mut Half, body: &Bytes) {
    let text = websocket::text(Side::Server, &realtime::failed(body));
    client.out.add(&text);
}

/// The model that the first event names, once it is there.
fn first_model(client: &Half) -> Option<Result<String, Refusal>> {
    let (payload, is_text) = client.first_message()?;
    let event = match realtime::read(payload) {
        Ok(event) if is_text => event,
        Ok(_) => return Some(Err(Refusal::NoModel)),
        Err(error) => return Some(Err(Refusal::Body(error))),
    };
    let named = event.model.filter(|_| event.kind == Kind::SessionUpdate);
    Some(named.map(Cow::into_owned).ok_or(Refusal::NoModel))
}

/// State of the talk between client and server.
struct Talk<'a> {
    /// The model that the client was let in for, by its own word.
    asked: &'a str,
    /// The same, as the server calls it.
    model: String,
    /// True once the client has heard a greeting: the server's is one too many.
    is_greeted: bool,
    record: &'a mut Record,
}

/// Result of one step.
enum Step {
    ClientRead(io::Result<usize>),
    ServerRead(io::Result<usize>),
    ClientSent(io::Result<()>),
    ServerSent(io::Result<()>),
    Silence,
}

/// Fate of a client's message.
enum Verdict {
    Passes,
    Becomes(Vec<u8>),
    Refused(Refusal),
}

/// Stands for no code at all, by RFC 6455.
const NO_CODE: u16 = 1005;

const BROKE_OFF: End = End::new(
    Outcome::UpstreamTruncated,
    1011,
    "the server of this model broke off",
);

/// End of a tunnel whose messages find no memory.
const NO_ROOM: End = End::new(
    Outcome::Limited,
    1013,
    "the gateway has no room for messages of this size now",
);

impl Talk<'_> {
    async fn run(&mut self, client: &mut Half, server: &mut Half, idle: Duration) -> End {
        let mut heard = Instant::now();
        // What it said while it was waiting goes first.
        if let Err(end) = self.up(client, server) {
            return end;
        }
        loop {
            client.make_room();
            server.make_room();
            let step = tokio::select! {
                // Each is one read or one write, which loses nothing where it is dropped.
                read = client.reads.read_buf(&mut client.frames.input), if server.out.has_room() => {
                    Step::ClientRead(read)
                }
                read = server.reads.read_buf(&mut server.frames.input), if client.out.has_room() => {
                    Step::ServerRead(read)
                }
                sent = client.out.send(&mut client.writes), if client.out.waits() => {
                    Step::ClientSent(sent)
                }
                sent = server.out.send(&mut server.writes), if server.out.waits() => {
                    Step::ServerSent(sent)
                }
                () = sleep_until(heard + idle) => Step::Silence,
            };
            heard = Instant::now();
            if let Err(end) = self.step(&step, client, server) {
                return end;
            }
            let buffered = client.bytes() + server.bytes();
            if self.record.holding.buffers(buffered).is_err() {
                return NO_ROOM;
            }
            let both = client.closed.is_some() && server.closed.is_some();
            if both && !client.out.waits() && !server.out.waits() {
                return End::silent(outcome(server));
            }
        }
    }

    fn step(&mut self, step: &Step, client: &mut Half, server: &mut Half) -> Result<(), End> {
        let is_ending = client.closed.is_some() || server.closed.is_some();
        match step {
            Step::ClientRead(Ok(count @ 1..)) => {
                self.record.bytes_in += *count as u64;
                self.up(client, server)
            }
            Step::ServerRead(Ok(count @ 1..)) => {
                self.record.bytes_out += *count as u64;
                self.down(client, server)
            }
            Step::ClientSent(Ok(())) | Step::ServerSent(Ok(())) => Ok(()),
            Step::Silence => {
                let words = "nothing was said for too long";
                Err(End::new(Outcome::UpstreamTimeout, 1001, words))
            }
            // One of them is gone.
            _ if is_ending => Err(End::silent(outcome(server))),
            Step::ClientRead(_) | Step::ClientSent(_) => Err(End::silent(Outcome::ClientGone)),
            Step::ServerRead(_) | Step::ServerSent(_) => Err(BROKE_OFF),
        }
    }

    /// Takes what the client has said to the server.
    fn up(&mut self, client: &mut Half, server: &mut Half) -> Result<(), End> {
        while let Some(piece) = client.next().map_err(End::of_client)? {
            match piece {
                // Behind its last word nothing counts.
                _ if client.closed.is_some() => {}
                Piece::Ping(raw, _) | Piece::Pong(raw) => server.out.add(&raw),
                Piece::Close(raw, code) => {
                    server.out.add(&raw);
                    client.closed = Some(code.unwrap_or(NO_CODE));
                }
                Piece::Message { raw, is_text, .. } if !is_text => server.out.add(&raw),
                Piece::Message { raw, payload, .. } => match self.verdict(&payload) {
                    Verdict::Passes => server.out.add(&raw),
                    Verdict::Becomes(text) => server.out.add(&websocket::text(Side::Client, &text)),
                    Verdict::Refused(refusal) => {
                        tell(client, refusal.response(Some(Api::Realtime)).body());
                    }
                },
            }
        }
        Ok(())
    }

    /// Judges an event of the client's. Only `session.update` names a model, and
    /// it gets the server's name for it; one for another model is refused, and so
    /// is what a server might read as such.
    fn verdict(&self, text: &[u8]) -> Verdict {
        let event = match realtime::read(text) {
            Ok(event) => event,
            Err(error) => return Verdict::Refused(Refusal::Body(error)),
        };
        if event.kind != Kind::SessionUpdate {
            return Verdict::Passes;
        }
        match event.model.as_deref() {
            Some(name) if name != self.asked => {
                let name = name.chars().take(256).collect();
                Verdict::Refused(Refusal::UnknownModel(name))
            }
            Some(name) if name == self.model && event.is_named() => Verdict::Passes,
            _ => Verdict::Becomes(event.with_model(text, &self.model)),
        }
    }

    /// Takes what the server has said to the client.
    fn down(&mut self, client: &mut Half, server: &mut Half) -> Result<(), End> {
        loop {
            let Ok(piece) = server.next() else {
                return Err(BROKE_OFF);
            };
            match piece {
                None => return Ok(()),
                Some(_) if server.closed.is_some() => {}
                Some(Piece::Ping(raw, _) | Piece::Pong(raw)) => client.out.add(&raw),
                Some(Piece::Close(raw, code)) => {
                    client.out.add(&raw);
                    server.closed = Some(code.unwrap_or(NO_CODE));
                }
                Some(Piece::Message { raw, payload, .. }) => {
                    if self.passes(&payload) {
                        client.out.add(&raw);
                    }
                }
            }
        }
    }

    /// Counts an event of the server's; whether the client is to have it.
    fn passes(&mut self, text: &[u8]) -> bool {
        // What can't be read is passed all the same: it is the client's to judge.
        let kind = realtime::read(text).map_or(Kind::Other, |event| event.kind);
        match kind {
            Kind::SessionCreated => return !std::mem::take(&mut self.is_greeted),
            Kind::Delta => {
                let now = self.record.elapsed();
                self.record.tokens.first.get_or_insert(now);
                self.record.tokens.last = Some(now);
                self.record.tokens.count += 1;
            }
            Kind::Done => {
                if let Some(usage) = realtime::usage(text) {
                    let sum = self.record.usage.get_or_insert_default();
                    sum.prompt = sum.prompt.saturating_add(usage.prompt);
                    sum.completion = sum.completion.saturating_add(usage.completion);
                    sum.cached = sum.cached.saturating_add(usage.cached);
                }
            }
            Kind::SessionUpdate | Kind::Other => {}
        }
        true
    }
}

/// Outcome of a tunnel that was closed in order, or is about to be.
fn outcome(server: &Half) -> Outcome {
    match server.closed {
        Some(code) if !matches!(code, 1000 | 1001 | NO_CODE) => Outcome::UpstreamTruncated,
        _ => Outcome::Ok,
    }
}
