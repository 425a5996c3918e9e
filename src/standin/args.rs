//! The stand-in's command line, after `vllm serve`'s.
//!
//! Owns names, defaults and bounds of its options. Does not act on them.

use std::path::PathBuf;

use super::faults::Misdeed;
use crate::units::{Bytes, Span};

/// Run the stand-in engine: vLLM's HTTP and lifecycle without a model.
#[derive(Clone, Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Args {
    /// The model that it pretends to serve: a path or a hub name.
    pub model: String,
    /// Names that requests may ask for; the first is echoed, and completions of the
    /// others are those of adapters. Default: MODEL.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub served_model_name: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 for a free one, which is printed in the log.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Listen on this Unix socket instead, mode 0600.
    #[arg(long, value_name = "PATH")]
    pub uds: Option<PathBuf>,
    /// Bearer tokens that it accepts; without one, it asks for none.
    #[arg(
        long,
        num_args = 1..,
        value_name = "KEY",
        env = "VLLM_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Vec<String>,
    /// From launch to ready.
    #[arg(long, default_value = "3s", value_name = "DURATION")]
    pub load: Span,
    /// Time that waking the weights takes.
    #[arg(long, default_value = "200ms", value_name = "DURATION")]
    pub wake: Span,
    /// Time that going to sleep takes.
    #[arg(long, default_value = "300ms", value_name = "DURATION")]
    pub sleep: Span,
    /// Time that `reload_weights` takes, after a sleep of level 2.
    #[arg(long, default_value = "500ms", value_name = "DURATION")]
    pub reload: Span,
    /// From the admission of a request to its first token.
    #[arg(long, default_value = "50ms", value_name = "DURATION")]
    pub first_token: Span,
    /// Token speed of each request by itself; 1e9 for no delay at all.
    #[arg(long, default_value = "50", value_parser = speed, value_name = "SPEED")]
    pub tokens_per_second: f64,
    /// GPU memory that it pretends to take for weights and cache while awake.
    #[arg(long, default_value = "16GiB", value_name = "SIZE")]
    pub weights: Bytes,
    /// GPU memory that it pretends to keep while asleep.
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub context: Bytes,
    /// Sequences that run at once; further ones wait.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_num_seqs: u32,
    /// Requests that may wait; further ones get 503. Default: no limit.
    #[arg(long)]
    pub max_num_queued_reqs: Option<u32>,
    /// Longest prompt and answer together, in tokens.
    #[arg(long, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(2..=16_777_216))]
    pub max_model_len: u32,
    /// What the model does, which decides the routes that exist.
    #[arg(long, value_enum, default_value_t = ModelKind::Generate)]
    pub kind: ModelKind,
    /// Tokens that it pretends to guess ahead, as speculative decoding does.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub num_speculative_tokens: u32,
    /// Another seed gives other texts for the same prompts.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A fault on command, repeatable: slow-start:10s, never-ready,
    /// crash-at-start[:CODE], oom-at-start, exit-after:30s, die-mid-stream:N,
    /// cut-mid-stream:N, half-event:N, hang-mid-stream:N, error-mid-stream:N,
    /// status-500, queue-full, hang-while-asleep, hang-on-sleep, hang-on-wake,
    /// sleep-fails, wake-fails, ignore-sigterm, keeps-memory-asleep,
    /// garbage-after-wake, logit-after-wake, adapters-lost-after-wake,
    /// slow-after-wake, guesses-lost-after-wake, engine-dead, slow-headers:2s, split:BYTES.
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<Misdeed>,
    /// Write the pretended GPU memory, in bytes, to this file.
    #[arg(long, value_name = "PATH")]
    pub memory_file: Option<PathBuf>,
    /// Helper processes in the same group, which outlive a SIGKILL of this one
    /// as vLLM's do, though never by more than ten minutes.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub processes: u8,
    /// Send and echo `x-request-id`.
    #[arg(long)]
    pub enable_request_id_headers: bool,
    /// Say in `usage` how many prompt tokens came from the cache.
    #[arg(long)]
    pub enable_prompt_tokens_details: bool,
    /// Report usage in every stream, asked for or not.
    #[arg(long)]
    pub enable_force_include_usage: bool,
    /// Serve the development routes: sleep, wake, faults.
    #[arg(
        long,
        env = "VLLM_SERVER_DEV_MODE",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub dev_mode: bool,
    /// Keep responses, so that `/v1/responses/{id}` finds them.
    #[arg(
        long,
        env = "VLLM_ENABLE_RESPONSES_API_STORE",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub responses_store: bool,
    /// Close an idle connection after this many seconds.
    #[arg(
        long,
        default_value_t = 5,
        env = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub keep_alive_seconds: u64,
    /// Be one of the helper processes.
    #[arg(long, hide = true)]
    pub child: bool,
}

/// Kind of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelKind {
    /// Text: chat, completions, responses, messages.
    Generate,
    /// Vectors: embeddings, pooling, score, rerank.
    Embed,
    /// Labels: classify.
    Classify,
    /// Words for sounds: transcriptions, translations, realtime.
    Transcribe,
}

impl Args {
    /// The names that requests may ask for; never empty.
    pub(super) fn names(&self) -> &[String] {
        if self.served_model_name.is_empty() {
            std::slice::from_ref(&self.model)
        } else {
            &self.served_model_name
        }
    }

    /// True if a bearer token opens the guarded routes.
    pub(super) fn admits(&self, token: Option<&str>) -> bool {
        let mut keys = self.api_key.iter().filter(|key| !key.is_empty()).peekable();
        keys.peek().is_none() || keys.any(|key| Some(key.as_str()) == token)
    }
}

/// Reads a token speed: a positive number.
fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.001..=1e12).contains(&speed) => Ok(speed),
        _ => Err("write a number of tokens between 0.001 and 1e12, as 50".to_owned()),
    }
}
