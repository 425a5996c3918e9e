//! A request for text, from what was asked to its tokens.
//!
//! Owns the reading of sampling parameters with vLLM's checks, and [`Run`]: the
//! tokens of an admitted request one after the other. Does not know in which
//! form an API writes them.

use std::sync::Arc;

use serde_json::Value;

use super::engine::{Engine, Failure, Progress, Slot};
use super::error::ApiError;
use super::json;
use super::text::{Bounds, Finish, Sequence, number_of};
use super::tokens;
use crate::random::spread;

/// Most sequences of one request.
const SEQUENCES_MAX: usize = 1024;
/// Tokens that stand for an image or a sound in a prompt.
const MEDIA_TOKENS: u32 = 64;

/// A prompt, as far as the stand-in heeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    /// Its length.
    pub(super) tokens: u32,
    /// A number that stands for its text.
    pub(super) number: u64,
}

impl Prompt {
    /// A plain text.
    pub(super) fn text(text: &str) -> Self {
        Self {
            tokens: tokens::count(text),
            number: number_of(text.as_bytes()),
        }
    }

    /// A text, or token ids.
    pub(super) fn text_or_ids(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            Value::Array(ids) => Self {
                tokens: u32::try_from(ids.len()).unwrap_or(u32::MAX),
                number: ids
                    .iter()
                    .fold(0, |hash, id| spread(hash ^ id.as_u64().unwrap_or(0))),
            },
            other => Self::text(&other.to_string()),
        }
    }

    /// A conversation.
    pub(super) fn messages(messages: &Value) -> Self {
        let (text, media) = render(messages);
        let mut prompt = Self::text(&text);
        prompt.tokens = prompt.tokens.saturating_add(media * MEDIA_TOKENS);
        prompt
    }
}

/// A conversation as the model's chat template would write it, and how many
/// images and sounds it holds.
pub(super) fn render(messages: &Value) -> (String, u32) {
    let mut text = String::new();
    let mut media = 0;
    for message in messages.as_array().into_iter().flatten() {
        let role = message.get("role").and_then(Value::as_str);
        text.push_str(role.unwrap_or("user"));
        text.push(':');
        match message.get("content") {
            Some(Value::String(content)) => text.push_str(content),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match part.get("text").and_then(Value::as_str) {
                        Some(part) => text.push_str(part),
                        None => media += 1,
                    }
                }
            }
            _ => {}
        }
        text.push('\n');
    }
    text.push_str("assistant:");
    (text, media)
}

/// Order for texts to be said.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    /// The prompts, each with as many sequences as `choices`.
    pub(super) prompts: Vec<Prompt>,
    /// Sequences per prompt.
    pub(super) choices: u32,
    /// Their bounds.
    pub(super) bounds: Bounds,
    /// A text to say instead of words: a tool call, or JSON.
    pub(super) given: Option<String>,
    /// Joins the prompt in deciding the words.
    pub(super) seed: u64,
}

impl Generation {
    /// Reads the sampling parameters of `body`. The limit stands in the first of
    /// `limits` that is given.
    ///
    /// # Errors
    ///
    /// vLLM's refusals: more tokens than the model has room for, none at all, or
    /// more sequences than the stand-in takes.
    pub(super) fn read(
        body: &Value,
        prompts: Vec<Prompt>,
        limits: &[&str],
        model_tokens_max: u32,
        seed: u64,
    ) -> Result<Self, ApiError> {
        let asked = limits.iter().find_map(|name| body.get(name)?.as_u64());
        let longest = prompts.iter().map(|prompt| prompt.tokens).max();
        let tokens_max = room(asked, longest.unwrap_or(0), model_tokens_max)?;
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        let choices = u32::try_from(number("n").unwrap_or(1)).unwrap_or(u32::MAX);
        let sequences = prompts.len().saturating_mul(choices as usize);
        if choices == 0 || sequences > SEQUENCES_MAX {
            return Err(ApiError::parameter(
                "n",
                format!(
                    "n must be at least 1 and at most {SEQUENCES_MAX} with all prompts, got {choices}."
                ),
            ));
        }
        let stop = match body.get("stop") {
            Some(Value::String(stop)) => vec![stop.clone()],
            Some(Value::Array(stops)) => stops
                .iter()
                .filter_map(|stop| stop.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            prompts,
            choices,
            bounds: Bounds {
                tokens_max,
                tokens_min: u32::try_from(number("min_tokens").unwrap_or(0)).unwrap_or(0),
                ignore_eos: body.get("ignore_eos").and_then(Value::as_bool) == Some(true),
                stop,
            },
            given: schema_of(body).map(|schema| json::example(schema).to_string()),
            seed: spread(seed ^ number("seed").unwrap_or(0)),
        })
    }

    /// Tokens of all prompts, each counted once.
    pub(super) fn prompt_tokens(&self) -> u32 {
        self.prompts.iter().map(|prompt| prompt.tokens).sum()
    }

    fn sequences(&self, garbage: bool) -> Vec<Sequence> {
        let choices = 0..u64::from(self.choices);
        self.prompts
            .iter()
            .flat_map(|prompt| choices.clone().map(move |choice| (prompt, choice)))
            .map(|(prompt, choice)| match &self.given {
                Some(text) if !garbage => Sequence::given(text, &self.bounds),
                _ => {
                    let number = spread(prompt.number ^ self.seed).wrapping_add(spread(choice));
                    Sequence::words(number, garbage, &self.bounds)
                }
            })
            .collect()
    }
}

/// Most tokens that an answer may have.
fn room(asked: Option<u64>, prompt: u32, model_max: u32) -> Result<u32, ApiError> {
    if let Some(asked) = asked.filter(|&asked| asked > u64::from(model_max)) {
        return Err(ApiError::parameter(
            "max_tokens",
            format!(
                "max_tokens={asked} cannot be greater than max_model_len={model_max}. Please request fewer output tokens. (parameter=max_tokens, value={asked})"
            ),
        ));
    }
    if asked == Some(0) {
        return Err(ApiError::parameter(
            "max_tokens",
            "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)".to_owned(),
        ));
    }
    if prompt >= model_max {
        let seen = prompt.min(model_max.saturating_add(1));
        return Err(ApiError::parameter(
            "input_tokens",
            format!(
                "This model's maximum context length is {model_max} tokens. However, your prompt contains at least {seen} input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value={seen})"
            ),
        ));
    }
    let left = model_max - prompt;
    match asked.map(u32::try_from) {
        None => Ok(left),
        Some(Ok(asked)) if asked <= left => Ok(asked),
        Some(asked) => {
            let asked = asked.unwrap_or(u32::MAX);
            Err(ApiError::parameter(
                "input_tokens",
                format!(
                    "This model's maximum context length is {model_max} tokens. However, you requested {asked} output tokens and your prompt contains at least {prompt} input tokens, for a total of at least {} tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value={prompt})",
                    asked.saturating_add(prompt)
                ),
            ))
        }
    }
}

/// The JSON schema that the answer must fit, if it must be JSON.
fn schema_of(body: &Value) -> Option<&Value> {
    let format = body.get("response_format")?;
    match format.get("type")?.as_str()? {
        "json_schema" => format.get("json_schema")?.get("schema"),
        "json_object" => Some(format),
        _ => None,
    }
    .map(|schema| if schema.is_object() { schema } else { format })
}

/// One token as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Number of the sequence that it belongs to.
    pub(super) sequence: usize,
    /// Its text.
    pub(super) text: String,
    /// Tokens of this sequence, with this one.
    pub(super) made: u32,
    /// Reason for which the sequence ends with it.
    pub(super) finish: Option<Finish>,
    /// The stop string that ended the sequence with it.
    pub(super) stopped_by: Option<String>,
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Run {
    slot: Slot,
    sequences: Vec<Sequence>,
    /// Tokens that every unfinished sequence has.
    step: u32,
    /// The sequence whose token comes next.
    next: usize,
    /// Tokens of all sequences.
    total: u32,
    aborted: bool,
}

impl Run {
    /// Waits for the admission.
    ///
    /// # Errors
    ///
    /// [`Failure`] when it is refused.
    pub(super) async fn begin(
        engine: Arc<Engine>,
        generation: &Generation,
        garbage_after_sleep: bool,
    ) -> Result<Self, Failure> {
        let sequences = generation.prompts.len() * generation.choices as usize;
        let sequences = u32::try_from(sequences).unwrap_or(u32::MAX);
        let slot = Arc::clone(&engine).admit(sequences).await?;
        let state = engine.now();
        let garbage = state.weights_lost || garbage_after_sleep && state.has_slept;
        slot.read(
            generation
                .prompt_tokens()
                .saturating_mul(generation.choices),
        );
        Ok(Self {
            slot,
            sequences: generation.sequences(garbage),
            step: 0,
            next: 0,
            total: 0,
            aborted: false,
        })
    }

    /// Waits for the next token; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`Failure::Dead`] when the engine dies meanwhile.
    pub(super) async fn next(&mut self) -> Result<Option<Token>, Failure> {
        loop {
            if self.next >= self.sequences.len() {
                self.next = 0;
                self.step += 1;
            }
            if self.next == 0 {
                if self.aborted || self.sequences.iter().all(|s| s.tokens <= self.step) {
                    return Ok(None);
                }
                let progress = self.slot.until(self.step + 1).await?;
                self.aborted = matches!(progress, Progress::Aborted(_));
            }
            let index = self.next;
            self.next += 1;
            let Some(sequence) = self.sequences.get(index) else {
                continue;
            };
            if sequence.tokens > self.step {
                return Ok(Some(self.token(index, sequence)));
            }
        }
    }

    fn token(&self, index: usize, sequence: &Sequence) -> Token {
        let (text, made, finish) = if self.aborted {
            (String::new(), self.step, Some(Finish::Abort))
        } else {
            let last = sequence.tokens == self.step + 1;
            let text = sequence.piece(self.step).into_owned();
            (text, self.step + 1, last.then_some(sequence.finish))
        };
        self.slot.made(u32::from(!self.aborted));
        if let Some(finish) = finish {
            self.slot.ended(finish);
        }
        Token {
            sequence: index,
            text,
            made,
            finish,
            stopped_by: sequence
                .stopped_by
                .clone()
                .filter(|_| finish == Some(Finish::Stop)),
        }
    }

    /// Tokens of all sequences, up to the token that [`Self::next`] gave last.
    pub(super) fn total(&mut self, token: &Token) -> u32 {
        self.total += u32::from(token.finish != Some(Finish::Abort));
        self.total
    }

    /// Waits for all sequences and returns them, cut where they were aborted.
    ///
    /// # Errors
    ///
    /// [`Failure::Dead`] when the engine dies meanwhile.
    pub(super) async fn all(mut self) -> Result<Vec<Sequence>, Failure> {
        let longest = self.sequences.iter().map(|s| s.tokens).max().unwrap_or(0);
        let progress = self.slot.until(longest).await?;
        for sequence in &mut self.sequences {
            if let Progress::Aborted(made) = progress
                && made < sequence.tokens
            {
                sequence.tokens = made;
                sequence.finish = Finish::Abort;
                sequence.stopped_by = None;
            }
            self.slot.made(sequence.tokens);
            self.slot.ended(sequence.finish);
        }
        Ok(self.sequences)
    }
}
