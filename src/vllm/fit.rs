//! GPU memory that an engine will need, before it was ever started.
//!
//! ```text
//!  config.json ── Shape ──┐
//!  heads of the weights ──┼─ Weights ─┐
//!  command line ── FitTerms ─┴───────────┴─ Fit ── on a GPU ── Room
//! ```
//!
//! Arithmetic alone: it reads no file and asks nobody. What has no estimate says so;
//! figures that were measured are better than these.

mod keeps;
mod shape;
mod terms;
mod weights;

#[cfg(test)]
mod tests;

use std::fmt;

pub use keeps::Keeps;
pub use shape::Shape;
pub use terms::{FitTerms, Length, OnLoad};
pub use weights::Weights;

use crate::units::{Bytes, share_of};

/// GPUs from this size on get vLLM's larger defaults.
const LARGE_BYTES: u64 = 70 << 30;
/// vLLM 0.32's most tokens in a step, on large GPUs and on others.
const TOKENS: (u64, u64) = (8_192, 2_048);
/// vLLM 0.32's most requests in a step, on large GPUs and on others.
const REQUESTS: (u64, u64) = (1_024, 256);
/// Bytes that `PyTorch` and its libraries take beside.
const LIBRARIES_BYTES: u64 = 300 << 20;
/// Bytes of the libraries that talk between the GPUs of one worker.
const COMMUNICATION_BYTES: u64 = 600 << 20;
/// Recorded graphs, as logs of vLLM tell of models of 8 to 80 thousand million parameters.
const GRAPHS_BYTES: u64 = 700 << 20;
/// Tokens in a block of the cache.
const BLOCK: u64 = 16;

/// Memory that a worker needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// GPUs.
    pub gpus: u64,
    /// Bytes of weights on each.
    pub weights: u64,
    /// Bytes of the cache for each token on each GPU, while requests are short.
    pub per_token: u64,
    /// The longest context; `None`: as much as fits.
    pub length: Option<u64>,
    /// True where weights are changed after they were read: they are read again far
    /// slower than others.
    pub repacks: bool,
    shape: Shape,
    terms: FitTerms,
}

/// Its memory as it stands on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that it is given.
    pub given: u64,
    /// Bytes that it needs before any request: weights, and what a step takes.
    pub needs: u64,
    /// Bytes that remain for the cache.
    pub left: u64,
    /// Tokens that fit, in requests of the longest context.
    pub tokens: u64,
    /// The longest request that fits.
    pub longest: u64,
}

impl Fit {
    /// Needs of these weights on these terms.
    ///
    /// # Errors
    ///
    /// Fails with what has no estimate, in a sentence without its subject.
    pub fn of(shape: Shape, weights: &Weights, terms: FitTerms) -> Result<Self, String> {
        if weights.is_empty() {
            return Err("there are no weights whose sizes are known".to_owned());
        }
        let windows = shape.kept.iter().filter_map(|(keeps, _)| match keeps {
            Keeps::Heads { window, .. } => *window,
            _ => None,
        });
        let shortest = windows.min().filter(|_| terms.no_window);
        let length = match terms.length {
            Length::Config => Some(shape.length),
            Length::Fitting => None,
            Length::Tokens(tokens) => Some(tokens),
        };
        let mut fit = Self {
            gpus: terms
                .tensor_parallel
                .saturating_mul(terms.pipeline_parallel),
            weights: weights.on_each(&shape, &terms),
            per_token: 0,
            length: length.map(|length| length.min(shortest.unwrap_or(length))),
            repacks: shape.experts > 0 || weights.are_packed() || terms.on_load.is_some(),
            shape,
            terms,
        };
        fit.per_token = fit.cache(1, 1).saturating_sub(fit.states());
        Ok(fit)
    }

    /// Bytes of the weights on all GPUs together.
    pub fn weights_in_all(&self) -> u64 {
        self.weights.saturating_mul(self.gpus)
    }

    /// Its memory as it stands on a GPU with so much.
    pub fn on(&self, memory: u64) -> Room {
        let given = share_of(memory, self.terms.utilization.clamp(0.0, 1.0));
        let needs = self.weights.saturating_add(self.step(memory));
        let left = given.saturating_sub(needs);
        let tokens = self.tokens(memory);
        let top = self.length.unwrap_or(self.shape.length);
        let longest = self.longest(left, tokens, top);
        let each = self.cache(top, tokens).max(1);
        let fitting = if longest < top {
            longest
        } else {
            let all = u128::from(left) * u128::from(top) / u128::from(each);
            u64::try_from(all).unwrap_or(u64::MAX)
        };
        Room {
            given,
            needs,
            left,
            tokens: fitting,
            longest,
        }
    }

    /// Most tokens in one step.
    fn tokens(&self, memory: u64) -> u64 {
        let (large, small) = TOKENS;
        let usual = if memory >= LARGE_BYTES { large } else { small };
        self.terms.tokens.unwrap_or(usual)
    }

    /// Bytes that a step takes beside weights and cache, on each GPU.
    fn step(&self, memory: u64) -> u64 {
        let shape = &self.shape;
        let parallel = self.terms.tensor_parallel.max(1);
        let (large, small) = REQUESTS;
        let usual = if memory >= LARGE_BYTES { large } else { small };
        let tokens = self.tokens(memory);
        let requests = self.terms.requests.unwrap_or(usual).min(tokens);
        let element = self.terms.element.unwrap_or(shape.element);
        // What goes from layer to layer, twice, and what it becomes inside of one.
        let inside = shape.inner.div_ceil(parallel).saturating_mul(3);
        let each = inside.saturating_add(shape.hidden.saturating_mul(4));
        let passes = tokens.saturating_mul(each).saturating_mul(element);
        // In 32 bits, and once more where they are sorted.
        let chooses = requests.saturating_mul(shape.vocabulary).saturating_mul(8);
        let mut bytes = LIBRARIES_BYTES.saturating_add(passes.max(chooses));
        if self.gpus > 1 {
            bytes = bytes.saturating_add(COMMUNICATION_BYTES);
        }
        if !self.terms.eager {
            bytes = bytes.saturating_add(GRAPHS_BYTES);
        }
        bytes
    }

    /// Bytes of the cache that a request of so many tokens takes on each GPU, where a
    /// step brings so many.
    fn cache(&self, length: u64, step: u64) -> u64 {
        let parallel = self.terms.tensor_parallel.max(1);
        let element = self.terms.cache_element.or(self.shape.cache_element);
        let element = element.unwrap_or(self.terms.element.unwrap_or(self.shape.element));
        let of_kind = |(keeps, layers): &(Keeps, u64)| {
            let tokens = match keeps {
                Keeps::State { bytes } => return bytes.div_ceil(parallel).saturating_mul(*layers),
                Keeps::Heads {
                    window: Some(window),
                    ..
                } => length.min(window.saturating_add(step).saturating_add(BLOCK)),
                _ => length,
            };
            let bytes = keeps.per_token(parallel, element).saturating_mul(tokens);
            bytes.saturating_mul(*layers)
        };
        let all = self.shape.kept.iter().map(of_kind);
        self.of_stage(all.fold(0, u64::saturating_add))
    }

    /// Bytes of the states that a request has beside its tokens.
    fn states(&self) -> u64 {
        self.cache(0, 0)
    }

    /// Part of all layers that the stage with most of them has.
    fn of_stage(&self, bytes: u64) -> u64 {
        let layers = self.shape.layers.max(1);
        let stages = self.terms.pipeline_parallel.clamp(1, layers);
        let most = u128::from(bytes) * u128::from(layers.div_ceil(stages));
        u64::try_from(most / u128::from(layers)).unwrap_or(u64::MAX)
    }

    /// The longest request of at most `top` tokens whose cache fits.
    fn longest(&self, left: u64, step: u64, top: u64) -> u64 {
        if self.cache(top, step) <= left {
            return top;
        }
        // It grows with the length: halved until it is found.
        let (mut fits, mut does_not) = (0, top);
        while does_not - fits > 1 {
            let middle = fits + (does_not - fits) / 2;
            if self.cache(middle, step) <= left {
                fits = middle;
            } else {
                does_not = middle;
            }
        }
        fits
    }

    /// Reason why it can't run on GPUs with so much memory, and what to do, in a sentence without
    /// its subject; `None` where it can.
    pub fn misfit(&self, memory: u64) -> Option<String> {
        let room = self.on(memory);
        let each = self.each();
        if room.left == 0 {
            return Some(format!(
                "needs about {} on {each}, and gpu_memory_utilization gives it {} of {}: raise that, take a quantized model, or split it with tensor_parallel_size",
                Bytes(room.needs),
                Bytes(room.given),
                Bytes(memory)
            ));
        }
        let length = self.length?;
        (room.longest < length).then(|| {
            format!(
                "needs about {} on {each}; {} remain, which hold no request of max_model_len = {length}: set it to {} or less, raise gpu_memory_utilization, or split the model with tensor_parallel_size",
                Bytes(room.needs),
                Bytes(room.left),
                rounded(room.longest)
            )
        })
    }

    /// Words for its memory on GPUs with so much, in a sentence without its subject.
    pub fn words(&self, memory: u64) -> String {
        if let Some(why) = self.misfit(memory) {
            return why;
        }
        let room = self.on(memory);
        format!(
            "needs about {} on {}; {} remain for {} tokens of cache",
            Bytes(room.needs),
            self.each(),
            Bytes(room.left),
            grouped(room.tokens)
        )
    }

    fn each(&self) -> String {
        let plural = if self.gpus == 1 { "" } else { "s" };
        format!("each of {} GPU{plural}", self.gpus)
    }
}

/// Needs of a GPU whose size is not known.
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "needs about {} of weights on {}, and {} for each token of cache",
            Bytes(self.weights),
            self.each(),
            Bytes(self.per_token)
        )
    }
}

/// A number of tokens to two digits, downwards.
fn rounded(tokens: u64) -> u64 {
    let digits = tokens.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    tokens / unit * unit
}

/// A number of tokens as people read it: two digits, as `410,000`.
fn grouped(tokens: u64) -> String {
    let text = rounded(tokens).to_string();
    let mut grouped = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
