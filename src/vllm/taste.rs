//! Answers of a model to a fixed prompt, and the judgement if a wake changed them.
//!
//! A wake can answer with status 200 and say garbage, or lose what was laid over the
//! weights. So a fixed prompt is asked when a worker comes up and after each wake, at
//! temperature 0 and with logprobs. Arithmetic alone: [`super::client`] asks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// Tokens that are asked for.
pub const TOKENS: usize = 32;
/// Prompt that goes on in a way that any model is sure of, so that few tokens are nearly as
/// likely as others.
const PROMPT: &str = "One, two, three, four, five, six, seven,";
/// Others that are told beside each token.
const OTHERS: u64 = 2;
/// Most that the logprob of a token may differ from what it was, and from that of another
/// token so that either may be said. Sums in 16 bits and in another order differ by a tenth.
const DRIFT: f64 = 0.5;
/// Most that logprobs may be off in the mean.
const DRIFT_MEAN: f64 = 0.15;
/// Characters that must be as before where an engine tells no logprobs.
const CHARS: usize = 16;
/// Answers that take less than this say nothing of an engine's speed.
const SPEED_FLOOR: Duration = Duration::from_millis(250);
/// Share of its speed at which an engine is slow: a half, and a little more, as what comes
/// before the first token is no slower.
const SLOW: f64 = 0.55;
/// Guessed tokens below which nothing is said of how many of them hold.
const GUESSED_MIN: f64 = 8.0;
/// Share of its rate of guesses that hold at which speculative decoding is lost.
const LOST: f64 = 0.5;

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    logprob: f64,
    /// The likeliest ones in its place.
    likely: BTreeMap<String, f64>,
}

impl Token {
    /// True if another might as well have been said here.
    fn is_nearly(&self, text: &str) -> bool {
        let other = self.likely.get(text);
        other.is_some_and(|logprob| (self.logprob - logprob).abs() <= DRIFT)
    }
}

/// An answer to the fixed prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    text: String,
    /// Empty where the engine tells no logprobs.
    tokens: Vec<Token>,
}

/// Difference of two answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Another text.
    Text {
        /// Text before.
        before: String,
        /// Text now.
        after: String,
    },
    /// The same tokens, with other logprobs.
    Logprobs {
        /// The number of the token that is furthest off, from 1.
        at: usize,
        /// Distance of that one, in nats.
        off: f64,
    },
    /// No logprobs where there were some.
    Untold,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { before, after } => {
                let quoted = |text: &str| text.chars().take(60).collect::<String>();
                let (before, after) = (quoted(before), quoted(after));
                write!(f, "answers {after:?} to what it answered {before:?} before")
            }
            Self::Logprobs { at, off } => write!(
                f,
                "says what it said before with other logprobs: token {at} is off by {off:.2}"
            ),
            Self::Untold => f.write_str("tells no logprobs any more"),
        }
    }
}

/// Body of the question to this model.
pub(super) fn question(model: &str, logprobs: bool) -> Value {
    let mut body = json!({"model": model, "prompt": PROMPT, "max_tokens": TOKENS,
        "ignore_eos": true, "temperature": 0, "seed": 1});
    if logprobs && let Some(body) = body.as_object_mut() {
        body.insert("logprobs".to_owned(), OTHERS.into());
    }
    body
}

impl Said {
    /// Reads an answer; `None` where it is none, or says nothing.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let choice = answer.pointer("/choices/0")?;
        let text = choice.get("text")?.as_str()?.to_owned();
        let list = |name: &str| choice.pointer(&format!("/logprobs/{name}"))?.as_array();
        let tokens = match (list("tokens"), list("token_logprobs")) {
            (Some(tokens), Some(logprobs)) if tokens.len() == logprobs.len() => {
                let likely = list("top_logprobs").map_or(&[][..], Vec::as_slice);
                let likely = likely.iter().map(Some).chain(std::iter::repeat(None));
                let each = tokens.iter().zip(logprobs).zip(likely).take(TOKENS);
                each.map(|((text, logprob), likely)| token(text, logprob, likely))
                    .collect::<Option<Vec<Token>>>()?
            }
            (None, None) => Vec::new(),
            _ => return None,
        };
        let is_empty = text.is_empty() && tokens.is_empty();
        (!is_empty).then_some(Self { text, tokens })
    }

    /// Holds a later answer against it.
    ///
    /// # Errors
    ///
    /// The difference, where batching and the order of sums don't explain it.
    pub fn same(&self, after: &Self) -> Result<(), Difference> {
        let text = || Difference::Text {
            before: self.text.clone(),
            after: after.text.clone(),
        };
        if self.tokens.is_empty() {
            let beginning = |said: &Self| said.text.chars().take(CHARS).collect::<String>();
            let same = beginning(self) == beginning(after);
            return if same { Ok(()) } else { Err(text()) };
        }
        if after.tokens.is_empty() {
            return Err(Difference::Untold);
        }
        let (mut furthest, mut sum, mut compared) = ((0, 0.0), 0.0, 0_u32);
        let mut is_tied = false;
        for (at, (before, now)) in self.tokens.iter().zip(&after.tokens).enumerate() {
            if before.text != now.text {
                // Behind another token stands another text: up to here it was the same.
                is_tied = before.is_nearly(&now.text) && now.is_nearly(&before.text);
                if is_tied {
                    break;
                }
                return Err(text());
            }
            let off = (before.logprob - now.logprob).abs();
            if off > furthest.1 {
                furthest = (at + 1, off);
            }
            (sum, compared) = (sum + off, compared + 1);
        }
        let (at, off) = furthest;
        if off > DRIFT || sum > DRIFT_MEAN * f64::from(compared) {
            return Err(Difference::Logprobs { at, off });
        }
        if !is_tied && self.tokens.len() != after.tokens.len() {
            return Err(text());
        }
        Ok(())
    }
}

/// Reads a token of an answer; `None` where it makes no sense.
fn token(text: &Value, logprob: &Value, likely: Option<&Value>) -> Option<Token> {
    let likely = likely.and_then(Value::as_object).into_iter().flatten();
    Some(Token {
        text: text.as_str()?.to_owned(),
        logprob: logprob.as_f64()?,
        likely: likely
            .filter_map(|(text, logprob)| Some((text.clone(), logprob.as_f64()?)))
            .collect(),
    })
}

/// Answers to names that were asked beside each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Each name with its answer.
    pub said: Vec<(String, Said)>,
    /// Time that they took together.
    pub took: Duration,
}

impl Round {
    /// Tokens each second, of all of them together.
    pub fn speed(&self) -> f64 {
        self.speed_in(self.took)
    }

    /// Tokens each second where the same tokens take so long.
    pub(super) fn speed_in(&self, took: Duration) -> f64 {
        let tokens = u32::try_from(TOKENS * self.said.len()).unwrap_or(u32::MAX);
        f64::from(tokens) / took.as_secs_f64().max(1e-6)
    }

    /// True if one that took so long is by far the slower.
    pub fn is_faster_by_far(&self, took: Duration) -> bool {
        took > SPEED_FLOOR && self.took < took.mul_f64(SLOW)
    }
}

/// Counts of speculative decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guesses {
    /// Tokens that were guessed.
    pub guessed: f64,
    /// Those of them that held.
    pub held: f64,
}

impl Guesses {
    /// Counts since those.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            guessed: self.guessed - before.guessed,
            held: self.held - before.held,
        }
    }

    /// Share of the guesses that hold; 0 where nothing is guessed.
    pub fn rate(self) -> f64 {
        if self.guessed > 0.0 {
            self.held / self.guessed
        } else {
            0.0
        }
    }

    /// True if guesses hold by far less often than these did.
    pub fn are_better_by_far(self, after: Self) -> bool {
        self.guessed >= GUESSED_MIN && self.held > 0.0 && after.rate() < self.rate() * LOST
    }
}

/// Answers of a worker when it came up, by the names that it answers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The model's own name, alone.
    pub model: Round,
    /// Names of adapters, as many of them in a round as are asked at once.
    pub adapters: Vec<Round>,
    /// Guesses during the round of the model; `None` where nothing is guessed.
    pub guesses: Option<Guesses>,
}

/// Figures of one taste of the model's own name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TasteFigures {
    /// Tokens each second, at best.
    pub tokens_per_second: f64,
    /// Share of the guesses of speculative decoding that hold; `None` where it is off.
    pub guesses_held: Option<f64>,
}

impl Reference {
    /// Figures of it.
    pub fn figures(&self) -> TasteFigures {
        TasteFigures {
            tokens_per_second: self.model.speed(),
            guesses_held: self.guesses.map(Guesses::rate),
        }
    }
}

#[cfg(test)]
mod tests;
