//! Calls to a worker over HTTP: is it well, sleep, wake, answer one token.
//!
//! Owns the paths and bodies of vLLM's own routes. Each call is one connection
//! with a time limit and a bounded answer. When to ask is the conductor's to
//! decide, and requests of clients do not pass here.

mod tasting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use super::about::{About, ROUTES};
use super::taste::{Difference, Reference, TasteFigures};
use crate::outbound::Address;
use crate::outbound::exchange::ask;
use crate::outbound::socket::{Limits, Socket};
use crate::time::timeout;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer that an error quotes.
const QUOTE_CHARS_MAX: usize = 200;
/// Path where texts are completed.
const COMPLETIONS: &str = "/v1/completions";
/// Limit of a call that only looks.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Depth of a worker's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepLevel {
    /// Weights in host memory.
    One,
    /// Weights dropped, to be read again.
    Two,
}

/// Reason why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke.
    #[error("{path}: no answer from the worker")]
    Connection {
        /// Path that was asked for.
        path: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The time limit passed.
    #[error("{path}: no answer within {limit:?}")]
    Timeout {
        /// Path that was asked for.
        path: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// An answer that is not the one wanted.
    #[error("{path}: the worker answered {status}: {text}")]
    Answer {
        /// Path that was asked for.
        path: &'static str,
        /// Its status.
        status: StatusCode,
        /// The beginning of its text.
        text: String,
    },
    /// It woke, and says other things than before.
    #[error("since it woke it {difference} (asked as {name})")]
    Garbage {
        /// The name that was asked.
        name: String,
        /// Difference from before.
        difference: Difference,
    },
    /// It woke, and is slower than before.
    #[error(
        "since it woke it makes {after:.0} tokens each second, and made {before:.0} before (asked as {name})"
    )]
    Slow {
        /// The names that were asked.
        name: String,
        /// Tokens each second before it slept.
        before: f64,
        /// Tokens each second now, at best.
        after: f64,
    },
    /// It woke, and what it guesses ahead holds far less often than before.
    #[error(
        "since it woke {after:.0} % of what speculative decoding guesses holds, and {before:.0} % did before"
    )]
    Guesses {
        /// Per cent that held before it slept.
        before: f64,
        /// Per cent that hold now.
        after: f64,
    },
    /// It says that it did, and `/is_sleeping` says that it did not.
    #[error("the worker reports is_sleeping={0}, against what it was told")]
    NotObeyed(bool),
}

/// Asks one worker.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    api_key: Arc<str>,
    model: Arc<str>,
}

impl Client {
    /// Asks the worker at `address`, which serves `model`.
    pub fn new(address: Address, api_key: Arc<str>, model: Arc<str>) -> Self {
        Self {
            address,
            api_key,
            model,
        }
    }

    /// Checks that `/health` answers 200.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn health(&self) -> Result<(), CallError> {
        self.expect(Method::GET, "/health", None, LOOK_TIMEOUT)
            .await
            .map(drop)
    }

    /// Checks that the worker knows our key and serves our model: the proof that
    /// this address answers for that worker and no other.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn prove(&self) -> Result<(), CallError> {
        self.listed().await.map(drop)
    }

    /// Our model, as the worker lists it.
    async fn listed(&self) -> Result<Value, CallError> {
        const PATH: &str = "/v1/models";
        let text = self.expect(Method::GET, PATH, None, LOOK_TIMEOUT).await?;
        let mut answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        let models = answer.get_mut("data").and_then(Value::as_array_mut);
        let ours = models.and_then(|models| {
            models
                .iter_mut()
                .find(|model| model.get("id").and_then(Value::as_str) == Some(&self.model))
        });
        ours.map(Value::take)
            .ok_or_else(|| unwanted(PATH, StatusCode::OK, &text))
    }

    /// Facts that the worker tells of its model. Nothing is asked of the model itself.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn about(&self) -> Result<About, CallError> {
        let listed = self.listed().await?;
        let length = listed.get("max_model_len").and_then(Value::as_u64);
        let mut found = Vec::new();
        for (path, capability) in ROUTES {
            found.extend(self.has(path).await?.then_some(capability));
        }
        Ok(About::of_routes(length, found))
    }

    /// True if it has a route that is asked by POST.
    async fn has(&self, path: &'static str) -> Result<bool, CallError> {
        match self.call(Method::GET, path, None, LOOK_TIMEOUT).await? {
            (StatusCode::METHOD_NOT_ALLOWED, _) => Ok(true),
            (StatusCode::NOT_FOUND, _) => Ok(false),
            (status, text) => Err(unwanted(path, status, &text)),
        }
    }

    /// True if it sleeps. A worker without that route never does.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn is_sleeping(&self) -> Result<bool, CallError> {
        const PATH: &str = "/is_sleeping";
        let (status, text) = self.call(Method::GET, PATH, None, LOOK_TIMEOUT).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        answer
            .get("is_sleeping")
            .and_then(Value::as_bool)
            .ok_or_else(|| unwanted(PATH, status, &text))
    }

    /// Asks for one token, or one embedding, and waits for it.
    ///
    /// # Errors
    ///
    /// [`CallError`] of the first route that the worker has.
    pub async fn warm_up(&self, limit: Duration) -> Result<(), CallError> {
        let completion = json!({"model": &*self.model, "prompt": "a", "max_tokens": 1});
        let input = json!({"model": &*self.model, "input": "a"});
        for (path, body) in [
            (COMPLETIONS, &completion),
            ("/v1/embeddings", &input),
            ("/pooling", &input),
            ("/classify", &input),
        ] {
            let (status, text) = self.call(Method::POST, path, Some(body), limit).await?;
            match status {
                StatusCode::OK => return Ok(()),
                // vLLM 0.32 has only the routes of the model's tasks.
                StatusCode::NOT_FOUND if is_route_missing(&text) => {}
                _ => return Err(unwanted(path, status, &text)),
            }
        }
        // Speech models and the like: nothing cheap can be asked of them.
        Ok(())
    }

    /// Puts the worker to sleep, and makes sure that it does. No request may be
    /// inside.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the worker's state is then unknown.
    pub async fn sleep(&self, level: SleepLevel, limit: Duration) -> Result<(), CallError> {
        // The default mode of vLLM 0.32 is abort, which cuts what is inside.
        let path = match level {
            SleepLevel::One => "/sleep?level=1&mode=wait",
            SleepLevel::Two => "/sleep?level=2&mode=wait",
        };
        self.expect(Method::POST, path, None, limit).await?;
        self.confirm(true).await
    }

    /// Wakes the worker, and makes sure that it answers, and what it answered
    /// before it slept, where that is known. Returns the figures of that.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the worker must then not be used again.
    pub async fn wake(
        &self,
        level: SleepLevel,
        before: Option<&Reference>,
        limit: Duration,
    ) -> Result<Option<TasteFigures>, CallError> {
        match level {
            SleepLevel::One => {
                self.expect(Method::POST, "/wake_up", None, limit).await?;
            }
            // Without the reload vLLM 0.32 answers garbage with status 200.
            SleepLevel::Two => {
                let reload = json!({"method": "reload_weights"});
                for (path, body) in [
                    ("/wake_up?tags=weights", None),
                    ("/collective_rpc", Some(&reload)),
                    ("/wake_up?tags=kv_cache", None),
                    ("/reset_prefix_cache", None),
                ] {
                    self.expect(Method::POST, path, body, limit).await?;
                }
            }
        }
        self.confirm(false).await?;
        match before {
            Some(before) => self.same_taste(before, limit).await.map(Some),
            None => self.warm_up(limit).await.map(|()| None),
        }
    }

    async fn confirm(&self, wanted: bool) -> Result<(), CallError> {
        match self.is_sleeping().await? {
            sleeping if sleeping == wanted => Ok(()),
            sleeping => Err(CallError::NotObeyed(sleeping)),
        }
    }

    async fn expect(
        &self,
        method: Method,
        path: &'static str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        match self.call(method, path, body, limit).await? {
            (StatusCode::OK, text) => Ok(text),
            (status, text) => Err(unwanted(path, status, &text)),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &'static str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), CallError> {
        match timeout(limit, self.exchange(method, path, body, limit)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(CallError::Connection { path, source }),
            Err(_) => Err(CallError::Timeout { path, limit }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "worker")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.api_key))
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))?;
        let limits = Limits {
            connect: limit,
            tls_handshake: limit,
        };
        let socket = Socket::connect(&self.address, None, limits).await?;
        Ok(ask(socket, request, ANSWER_BYTES_MAX).await?)
    }
}

/// True if a 404 means that the route, and not the model, is missing.
fn is_route_missing(text: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    answer.get("detail").and_then(Value::as_str) == Some("Not Found")
}

fn unwanted(path: &'static str, status: StatusCode, text: &[u8]) -> CallError {
    let text = String::from_utf8_lossy(text);
    CallError::Answer {
        path,
        status,
        text: text.chars().take(QUOTE_CHARS_MAX).collect(),
    }
}
