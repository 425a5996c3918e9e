//! `/v1/realtime`: a WebSocket that hears sound and says words, as vLLM's does.
//!
//! Owns the opening and the few events. The model is named in `session.update`;
//! a commit begins an answer, one that is final ends the sound.

use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json as value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::app::{App, Body, Call};
use super::error::ApiError;
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run};
use crate::random::spread;
use crate::time::unix_seconds;
use crate::websocket::{self, Piece, Reader, Side};

/// Longest message, as uvicorn has it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Tokens of the prompt for each piece of sound.
const PIECE_TOKENS: u32 = 2;

/// Opens the connection, and talks on it beside the server.
///
/// # Errors
///
/// The web framework's refusal of what is no WebSocket.
pub(super) fn open(
    app: &Arc<App>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let key = key.and_then(|key| key.to_str().ok()).map(websocket::accept);
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(accept), Some(client)) = (key, client) else {
        return Err(ApiError::not_found());
    };
    let shared = Arc::clone(app);
    app.tasks.spawn_bare(async move {
        if let Ok(stream) = client.await {
            // A client that leaves is no failure.
            drop(Talk::new(shared, TokioIo::new(stream)).run().await);
        }
    });
    let mut response = Response::new(Either::Left(http_body_util::Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

type Stream = TokioIo<hyper::upgrade::Upgraded>;

/// One conversation.
struct Talk {
    app: Arc<App>,
    stream: Stream,
    frames: Reader,
    is_for_model: bool,
    is_heard: bool,
    pieces: u32,
    number: u64,
}

/// End of a conversation.
enum Over {
    Closed,
    Gone,
}

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl Talk {
    fn new(app: Arc<App>, stream: Stream) -> Self {
        Self {
            app,
            stream,
            frames: Reader::new(Side::Client, MESSAGE_BYTES_MAX),
            is_for_model: false,
            is_heard: false,
            pieces: 0,
            number: 0,
        }
    }

    async fn run(mut self) -> Result<(), Over> {
        let id = format!("sess-{}", self.app.id());
        let created = unix_seconds();
        self.say(&value!({"type": "session.created", "id": id, "created": created}))
            .await?;
        loop {
            match self.frames.piece() {
                Ok(Some(Piece::Ping(_, payload))) => {
                    self.stream.write_all(&websocket::pong(&payload)).await?;
                }
                Ok(Some(Piece::Pong(_))) => {}
                Ok(Some(Piece::Close(_, code))) => {
                    let end = websocket::close(Side::Server, code.unwrap_or(1000), "");
                    self.stream.write_all(&end).await?;
                    return Err(Over::Closed);
                }
                Ok(Some(Piece::Message { payload, .. })) => self.event(&payload).await?,
                Ok(None) => {
                    if self.stream.read_buf(&mut self.frames.input).await? == 0 {
                        return Err(Over::Gone);
                    }
                }
                Err(broken) => {
                    let end = websocket::close(Side::Server, broken.code(), "");
                    self.stream.write_all(&end).await?;
                    return Err(Over::Closed);
                }
            }
        }
    }

    async fn say(&mut self, event: &Value) -> Result<(), Over> {
        let text = websocket::text(Side::Server, event.to_string().as_bytes());
        self.stream.write_all(&text).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn fail(&mut self, error: &str, code: &str) -> Result<(), Over> {
        self.say(&value!({"type": "error", "error": error, "code": code}))
            .await
    }

    async fn event(&mut self, text: &[u8]) -> Result<(), Over> {
        let Ok(event) = serde_json::from_slice::<Value>(text) else {
            return self.fail("Invalid JSON", "invalid_json").await;
        };
        match event.get("type").and_then(Value::as_str) {
            Some("session.update") => {
                // vLLM looks the field up, and tells the name of what it missed.
                if event.get("model").is_none() {
                    return self.fail("'model'", "processing_error").await;
                }
                let call = Call {
                    body: event,
                    request_id: None,
                };
                self.is_for_model = self.app.check_model(&call).is_ok();
                Ok(())
            }
            Some("input_audio_buffer.append") => {
                let sound = event.get("audio").and_then(Value::as_str);
                let Some(sound) = sound.filter(|sound| !sound.is_empty()) else {
                    return self.fail("Invalid audio data", "invalid_audio").await;
                };
                self.pieces += 1;
                self.number = spread(self.number ^ super::text::number_of(sound.as_bytes()));
                Ok(())
            }
            Some("input_audio_buffer.commit") if !self.is_for_model => {
                let error = "Model not validated. Make sure to validate the model by sending a session.update event.";
                self.fail(error, "model_not_validated").await
            }
            Some("input_audio_buffer.commit") => {
                if event.get("final") != Some(&Value::Bool(true)) {
                    self.is_heard = true;
                    return Ok(());
                }
                if !std::mem::take(&mut self.is_heard) {
                    return Ok(());
                }
                self.answer().await
            }
            other => {
                let error = format!("Unknown event type: {}", other.unwrap_or("None"));
                self.fail(&error, "unknown_event").await
            }
        }
    }

    /// Says what was heard: a word for each piece of sound.
    async fn answer(&mut self) -> Result<(), Over> {
        let pieces = std::mem::take(&mut self.pieces).max(1);
        let prompt = Prompt {
            tokens: pieces.saturating_mul(PIECE_TOKENS),
            number: self.number,
        };
        let limit = value!({"max_tokens": pieces, "ignore_eos": true});
        let args = &self.app.args;
        let generation = Generation::read(
            &limit,
            vec![prompt],
            &["max_tokens"],
            args.max_model_len,
            args.seed,
        );
        let Ok(generation) = generation else {
            return self.fail("The sound is too long", "processing_error").await;
        };
        let garbage = self.app.faulty(&Misdeed::GarbageAfterWake);
        let engine = Arc::clone(&self.app.engine);
        let Ok(mut run) = Run::begin(engine, &generation, garbage).await else {
            return self.fail("The engine is busy", "processing_error").await;
        };
        let (mut text, mut made) = (String::new(), 0);
        loop {
            // A client that leaves is noticed while words are made.
            let next = tokio::select! {
                next = run.next() => next,
                read = self.stream.read_buf(&mut self.frames.input) => match read {
                    Ok(0) | Err(_) => return Err(Over::Gone),
                    Ok(_) => continue,
                },
            };
            let token = match next {
                Ok(Some(token)) => token,
                Ok(None) => break,
                Err(_) => {
                    return self
                        .fail("EngineCore encountered an issue.", "processing_error")
                        .await;
                }
            };
            if self.app.plan.load().instead_of_event(made).is_some() {
                return Err(Over::Gone);
            }
            text.push_str(&token.text);
            made = token.made;
            self.say(&value!({"type": "transcription.delta", "delta": token.text}))
                .await?;
        }
        let total = prompt.tokens + made;
        self.say(&value!({
            "type": "transcription.done", "text": text,
            "usage": {"prompt_tokens": prompt.tokens, "total_tokens": total, "completion_tokens": made},
        }))
        .await
    }
}
