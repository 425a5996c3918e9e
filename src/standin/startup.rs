//! From launch to ready: vLLM's log lines in its order, spread over the load time.
//!
//! Owns the words of the log, which launchers read progress from. Does not listen.

use std::io::{self, Write};
use std::process::id;
use std::time::Duration;

use super::app::App;
use super::args::{Args, ModelKind};
use super::end::SimError;
use super::faults::Misdeed;
use super::routes;
use crate::time::{sleep, unix_time};
use crate::units::Bytes;

/// Checkpoint shards that the progress line counts.
const SHARDS: u32 = 4;

/// Writes the log of a process that passes itself off as vLLM's three.
pub(super) struct Log<'a>(pub(super) &'a mut (dyn Write + Send));

impl Log<'_> {
    fn line(&mut self, process: &str, place: &str, text: &str) -> Result<(), SimError> {
        self.put(&format!(
            "({process} pid={}) INFO {} [{place}] {text}\n",
            id(),
            date()
        ))
    }

    /// A line of uvicorn, which has no prefix.
    pub(super) fn uvicorn(&mut self, text: &str) -> Result<(), SimError> {
        self.put(&format!("INFO:     {text}\n"))
    }

    fn put(&mut self, text: &str) -> Result<(), SimError> {
        let written = self.0.write_all(text.as_bytes());
        // A launcher that closed the log must not end the worker: vLLM goes on too.
        match written.and_then(|()| self.0.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(SimError::io("write the log")(error))
            }
            _ => Ok(()),
        }
    }
}

/// Month, day and time of this moment in UTC, as vLLM prints them.
fn date() -> String {
    let now = jiff::SignedDuration::try_from(unix_time()).unwrap_or_default();
    let now = jiff::Timestamp::from_duration(now).unwrap_or_default();
    now.strftime("%m-%d %H:%M:%S").to_string()
}

/// Pretends to load the model: returns once it is ready to listen.
///
/// # Errors
///
/// [`SimError::Crashed`] where a fault says so, else [`SimError::Io`].
pub(super) async fn load(app: &App, log: &mut Log<'_>) -> Result<(), SimError> {
    let args = &app.args;
    let plan = app.plan.load_full();
    let slow = plan.find(|fault| match fault {
        Misdeed::SlowStart(span) => Some(*span),
        _ => None,
    });
    let load = args.load.0.saturating_add(slow.unwrap_or_default());
    announce(args, log)?;
    sleep(load / 10).await;
    log.line("APIServer", "model.py:733", architecture(args.kind))?;
    log.line(
        "APIServer",
        "model.py:2152",
        &format!("Using max model len {}", args.max_model_len),
    )?;
    app.report_memory(args.context.0).await?;
    log.line(
        "EngineCore",
        "core.py:133",
        &format!(
            "Initializing a V1 LLM engine (v{}) with config: model='{}', max_seq_len={}",
            super::version::VERSION,
            args.model,
            args.max_model_len
        ),
    )?;
    if let Some(code) = plan.find(|fault| match fault {
        Misdeed::CrashAtStart(code) => Some(*code),
        Misdeed::OomAtStart => Some(1),
        _ => None,
    }) {
        return crash(&plan, args, log, code);
    }
    sleep(load / 10).await;
    load_weights(args, log, load * 6 / 10).await?;
    app.report_memory(args.weights.0.saturating_add(args.context.0))
        .await?;
    if plan.has(&Misdeed::NeverReady) {
        std::future::pending::<()>().await;
    }
    let tokens = args.max_model_len.saturating_mul(16);
    log.line(
        "EngineCore",
        "kv_cache_utils.py:2327",
        &format!(
            "GPU KV cache size: {tokens} tokens, Maximum concurrency for {} tokens per request: 16.00x",
            args.max_model_len
        ),
    )?;
    sleep(load / 5).await;
    log.line(
        "EngineCore",
        "core.py:402",
        &format!(
            "init engine (profile, create kv cache, warmup model) took {:.2} s",
            (load / 5).as_secs_f64()
        ),
    )
}

fn architecture(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Generate => "Resolved architecture: LlamaForCausalLM",
        ModelKind::Embed => "Resolved architecture: BertModel",
        ModelKind::Classify => "Resolved architecture: BertForSequenceClassification",
        ModelKind::Transcribe => "Resolved architecture: VoxtralRealtimeGeneration",
    }
}

/// The banner, and the arguments with keys masked.
fn announce(args: &Args, log: &mut Log<'_>) -> Result<(), SimError> {
    log.line("APIServer", "api_utils.py:347", "")?;
    for text in [
        format!(
            " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {}",
            super::version::VERSION
        ),
        format!("  █▄█▀ █     █     █     █  model   {}", args.model),
    ] {
        log.line("APIServer", "api_utils.py:347", &text)?;
    }
    let mut given = format!("{{'model_tag': '{}'", args.model);
    if !args.api_key.is_empty() {
        given.push_str(", 'api_key': ['***']");
    }
    if let Some(path) = &args.uds {
        given.push_str(", 'uds': '");
        given.push_str(&path.display().to_string());
        given.push('\'');
    } else {
        given.push_str(", 'host': '");
        given.push_str(&args.host);
        given.push_str("', 'port': ");
        given.push_str(&args.port.to_string());
    }
    given.push_str(", 'served_model_name': ['");
    given.push_str(&args.names().join("', '"));
    given.push_str("']}");
    log.line(
        "APIServer",
        "api_utils.py:286",
        &format!("non-default args: {given}"),
    )
}

/// The progress line, rewritten in place for each shard.
async fn load_weights(args: &Args, log: &mut Log<'_>, time: Duration) -> Result<(), SimError> {
    log.line(
        "Worker",
        "gpu_model_runner.py:4105",
        &format!("Starting to load model {}...", args.model),
    )?;
    for shard in 0..=SHARDS {
        if shard > 0 {
            sleep(time / SHARDS).await;
        }
        let (percent, end) = (
            shard * 100 / SHARDS,
            if shard == SHARDS { "\n" } else { "" },
        );
        log.put(&format!(
            "\rLoading safetensors checkpoint shards: {percent:3}% Completed | {shard}/{SHARDS} [00:00<00:00,  1.00it/s]\n{end}"
        ))?;
    }
    log.line(
        "Worker",
        "default_loader.py:501",
        &format!("Loading weights took {:.2} seconds", time.as_secs_f64()),
    )
}

/// The last words of a start that fails.
fn crash(
    plan: &super::faults::Plan,
    args: &Args,
    log: &mut Log<'_>,
    code: u8,
) -> Result<(), SimError> {
    let reason = if plan.has(&Misdeed::OomAtStart) {
        format!(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {}. GPU 0 has a total capacity of {} of which 0 bytes is free.",
            Bytes(args.weights.0),
            Bytes(args.weights.0)
        )
    } else {
        "RuntimeError: fault on command".to_owned()
    };
    log.put(&format!(
        "(EngineCore pid={pid}) ERROR {} [core.py:1140] EngineCore failed to start.\n(EngineCore pid={pid}) Traceback (most recent call last):\n(EngineCore pid={pid}) {reason}\n(APIServer pid={pid}) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}\n",
        date(),
        pid = id()
    ))?;
    Err(SimError::Crashed { code })
}

/// The lines around the first accepted connection.
///
/// # Errors
///
/// [`SimError::Io`] when the log cannot be written.
pub(super) fn ready(app: &App, place: &str, log: &mut Log<'_>) -> Result<(), SimError> {
    let tasks = match app.args.kind {
        ModelKind::Generate => "Supported tasks: ['generate']",
        ModelKind::Embed => "Supported tasks: ['embed', 'token_embed']",
        ModelKind::Classify => "Supported tasks: ['classify']",
        ModelKind::Transcribe => "Supported tasks: ['transcription', 'realtime']",
    };
    log.line("APIServer", "entry.py:136", tasks)?;
    log.line(
        "APIServer",
        "entry.py:140",
        &format!("Starting vLLM server on {place}"),
    )?;
    log.line("APIServer", "launcher.py:186", "Available routes are:")?;
    for (path, method) in routes::all(&app.args) {
        log.line(
            "APIServer",
            "launcher.py:195",
            &format!("Route: {path}, Methods: {method}"),
        )?;
    }
    log.uvicorn(&format!("Started server process [{}]", id()))?;
    log.uvicorn("Waiting for application startup.")?;
    log.uvicorn("Application startup complete.")
}
