//! Tasting: asks the fixed prompt, and holds the answers against those of before.
//!
//! A taste is bounded as a whole, however many names there are, and what is not answered
//! within its bound, or with an error, is no taste. [`crate::vllm::taste`] judges.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::{COMPLETIONS, CallError, Client, LOOK_TIMEOUT, unwanted};
use crate::names::ModelName;
use crate::time::{Instant, timeout};
use crate::vllm::figures;
use crate::vllm::taste::{self, Guesses, Reference, Round, Said, TasteFigures};

/// Longest taste, of all names together.
const TASTE_MAX: Duration = Duration::from_secs(30);
/// Times that each name is asked after a wake, at most: whoever else uses the machine may
/// slow one answer, and what is nearly as likely may be said.
const TRIES: u32 = 3;
/// Adapters that are asked at once.
const AT_ONCE: usize = 16;

impl Client {
    /// Answers of the model and of each of these adapters to a fixed prompt when the
    /// likeliest token is always taken; `None` where no texts are completed.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also where it takes longer than the limit or half a minute.
    pub async fn taste(
        &self,
        adapters: &[ModelName],
        limit: Duration,
    ) -> Result<Option<Reference>, CallError> {
        let limit = limit.min(TASTE_MAX);
        within(limit, async {
            let before = self.guesses().await?;
            let Some(model) = self.round(&[&self.model], limit).await? else {
                return Ok(None);
            };
            let after = self.guesses().await?;
            let mut rounds = Vec::with_capacity(adapters.len().div_ceil(AT_ONCE));
            for some in adapters.chunks(AT_ONCE) {
                let names: Vec<&str> = some.iter().map(ModelName::as_str).collect();
                let round = self.round(&names, limit).await?;
                rounds.push(round.ok_or_else(gone)?);
            }
            Ok(Some(Reference {
                model,
                adapters: rounds,
                guesses: after.map(|after| after.since(before.unwrap_or_default())),
            }))
        })
        .await
    }

    /// Makes sure that it still says what it said before it slept, and as fast. vLLM
    /// answers garbage with status 200 where weights were not loaded again.
    pub(super) async fn same_taste(
        &self,
        before: &Reference,
        limit: Duration,
    ) -> Result<TasteFigures, CallError> {
        let limit = limit.min(TASTE_MAX);
        within(limit, async {
            let counted = match before.guesses {
                Some(_) => self.guesses().await?,
                None => None,
            };
            let tokens_per_second = self.same(&before.model, limit).await?;
            let guesses_held = match before.guesses {
                Some(known) => {
                    let now = self.guesses().await?.unwrap_or_default();
                    let now = now.since(counted.unwrap_or_default());
                    hold_as_often(known, now)?;
                    Some(now.rate())
                }
                None => None,
            };
            for round in &before.adapters {
                self.same(round, limit).await?;
            }
            Ok(TasteFigures {
                tokens_per_second,
                guesses_held,
            })
        })
        .await
    }

    /// Makes sure that the names of a round still say what they said, and as fast. Returns
    /// their tokens each second, at best.
    async fn same(&self, before: &Round, limit: Duration) -> Result<f64, CallError> {
        let names: Vec<&str> = before.said.iter().map(|(name, _)| name.as_str()).collect();
        // How much more often each agreed than not.
        let mut agreed = vec![0_i32; names.len()];
        let mut fastest = Duration::MAX;
        let mut difference = None;
        for _ in 0..TRIES {
            let now = self.round(&names, limit).await?.ok_or_else(gone)?;
            fastest = fastest.min(now.took);
            let each = before.said.iter().zip(&now.said).zip(&mut agreed);
            for (((name, before), (_, now)), agreed) in each {
                match before.same(now) {
                    Ok(()) => *agreed += 1,
                    Err(other) => {
                        *agreed -= 1;
                        difference = Some((name.clone(), other));
                    }
                }
            }
            if agreed.iter().all(|more| *more > 0) && !before.is_faster_by_far(fastest) {
                return Ok(before.speed_in(fastest));
            }
        }
        Err(match difference {
            Some((name, difference)) if agreed.iter().any(|more| *more <= 0) => {
                CallError::Garbage { name, difference }
            }
            _ => CallError::Slow {
                name: names.join(", "),
                before: before.speed(),
                after: before.speed_in(fastest),
            },
        })
    }

    /// Answers of some names, asked beside each other; `None` where no texts are completed.
    async fn round(&self, names: &[&str], limit: Duration) -> Result<Option<Round>, CallError> {
        let began = Instant::now();
        let answers = join_all(names.iter().map(|name| self.said(name, limit))).await;
        let took = began.elapsed();
        let answers: Option<Vec<Said>> = answers.into_iter().collect::<Result<_, _>>()?;
        let owned = names.iter().map(|name| (*name).to_owned());
        Ok(answers.map(|said| Round {
            said: owned.zip(said).collect(),
            took,
        }))
    }

    /// Answer of one name; `None` where no texts are completed.
    async fn said(&self, name: &str, limit: Duration) -> Result<Option<Said>, CallError> {
        let mut logprobs = true;
        loop {
            let body = taste::question(name, logprobs);
            let answer = self.call(Method::POST, COMPLETIONS, Some(&body), limit);
            let (status, text) = answer.await?;
            match status {
                StatusCode::OK => {
                    let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
                    let said = Said::read(&answer).map(Some);
                    return said.ok_or_else(|| unwanted(COMPLETIONS, status, &text));
                }
                // Some are started with no logprobs to tell.
                StatusCode::BAD_REQUEST if logprobs => logprobs = false,
                // The route is missing, or says that such a model completes nothing: each
                // version in its own way.
                status if status.is_client_error() => return Ok(None),
                _ => return Err(unwanted(COMPLETIONS, status, &text)),
            }
        }
    }

    /// Counts of speculative decoding so far; `None` where nothing is guessed.
    async fn guesses(&self) -> Result<Option<Guesses>, CallError> {
        const PATH: &str = "/metrics";
        match self.call(Method::GET, PATH, None, LOOK_TIMEOUT).await? {
            (StatusCode::OK, page) => Ok(figures::guesses(&String::from_utf8_lossy(&page))),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, text) => Err(unwanted(PATH, status, &text)),
        }
    }

    /// Version of the engine by its own word; `None` where it doesn't tell.
    pub async fn version(&self) -> Option<String> {
        let answer = self.call(Method::GET, "/version", None, LOOK_TIMEOUT);
        let (_, text) = answer.await.ok()?;
        let answer: Value = serde_json::from_slice(&text).ok()?;
        answer.get("version")?.as_str().map(str::to_owned)
    }
}

/// Runs a taste within its bound.
async fn within<T>(
    limit: Duration,
    taste: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let path = COMPLETIONS;
    let done = timeout(limit, taste).await;
    done.unwrap_or(Err(CallError::Timeout { path, limit }))
}

/// Makes sure that guesses hold about as often as they did.
fn hold_as_often(before: Guesses, after: Guesses) -> Result<(), CallError> {
    if before.are_better_by_far(after) {
        return Err(CallError::Guesses {
            before: before.rate() * 100.0,
            after: after.rate() * 100.0,
        });
    }
    Ok(())
}

/// Polls all of them side by side, until the last is done.
async fn join_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    poll_fn(|context| {
        let mut waits = false;
        for (one, done) in &mut running {
            if done.is_none() {
                match one.as_mut().poll(context) {
                    Poll::Ready(output) => *done = Some(output),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    running.into_iter().filter_map(|(_, done)| done).collect()
}

/// Error of a worker that had the route before.
fn gone() -> CallError {
    let text = b"it completes no texts any more";
    unwanted(COMPLETIONS, StatusCode::NOT_FOUND, text)
}
