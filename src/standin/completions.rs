//! `/v1/completions`, in vLLM's fields and order.

use std::sync::Arc;

use serde_json::Value;

use super::app::{Answer, App, Call, events, json};
use super::chat::{UsageIn, fail, head, stop_reason};
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run, Token};
use super::json::quoted;
use super::stream::{DONE, End, Sink};
use super::text::{Sequence, number_of};

/// Tokens of a completion that asks for no number.
const TOKENS_DEFAULT: u64 = 16;

/// Answers a completions request.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn completions(app: Arc<App>, mut call: Call) -> Answer {
    let prompts = prompts(call.need("prompt")?);
    app.check_model(&call)?;
    let usage = UsageIn::read(&app, &call)?;
    if call.get("max_tokens").is_none()
        && let Some(body) = call.body.as_object_mut()
    {
        body.insert("max_tokens".to_owned(), Value::from(TOKENS_DEFAULT));
    }
    let mut generation = Generation::read(
        &call.body,
        prompts,
        &["max_tokens"],
        app.args.max_model_len,
        app.args.seed,
    )?;
    generation.seed ^= adapter(&app, &call);
    let id = app.id_of(&call);
    if call.flag("stream") {
        let stream = CompletionStream {
            head: head(&id, "text_completion", &app.model),
            fingerprint: app.fingerprint.clone(),
            prompt: generation.prompt_tokens(),
            details: app.args.enable_prompt_tokens_details,
            usage,
        };
        let shared = Arc::clone(&app);
        return Ok(events(&app, |sink| stream.write(shared, generation, sink)));
    }
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let run = Run::begin(Arc::clone(&app.engine), &generation, garbage).await?;
    let sequences = run.all().await?;
    let logprobs = call.get("logprobs").is_some_and(Value::is_u64);
    Ok(json(whole(&app, &id, &generation, &sequences, logprobs)))
}

/// Change of the seed by the adapter of a name; none where it is the model's own, or a wake
/// has lost the adapters.
fn adapter(app: &App, call: &Call) -> u64 {
    let lost = app.engine.now().has_slept && app.faulty(&Misdeed::AdaptersLostAfterWake);
    let mut others = app.args.names().iter().skip(1);
    let asked = call.get("model").and_then(Value::as_str);
    let other = others.find(|name| !lost && asked == Some(name.as_str()));
    other.map_or(0, |name| number_of(name.as_bytes()))
}

/// The logprobs of a text, in the form of completions: made up, and the same each time.
fn logprobs_of(app: &App, sequence: &Sequence) -> String {
    let changed = app.engine.now().has_slept && app.faulty(&Misdeed::LogitAfterWake);
    let mut offset = 0;
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    let (mut likely, mut offsets) = (Vec::new(), Vec::new());
    for index in 0..sequence.tokens {
        let piece = sequence.piece(index);
        let thousandths = number_of(piece.as_bytes()) % 400;
        let wrong = changed && index == sequence.tokens / 2;
        let logprob = -thousandths_of(thousandths) - if wrong { 1.5 } else { 0.0 };
        tokens.push(quoted(&piece));
        logprobs.push(format!("{logprob:?}"));
        let other = format!("\"~\":{:?}", logprob - 4.0);
        likely.push(format!("{{{}:{logprob:?},{other}}}", quoted(&piece)));
        offsets.push(offset.to_string());
        offset += piece.chars().count();
    }
    format!(
        "{{\"text_offset\":[{}],\"token_logprobs\":[{}],\"tokens\":[{}],\"top_logprobs\":[{}]}}",
        offsets.join(","),
        logprobs.join(","),
        tokens.join(","),
        likely.join(",")
    )
}

fn thousandths_of(number: u64) -> f64 {
    u32::try_from(number).map_or(0.0, f64::from) / 1_000.0
}

/// One prompt or several, as texts or as token ids.
fn prompts(value: &Value) -> Vec<Prompt> {
    match value {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => {
            items.iter().map(Prompt::text_or_ids).collect()
        }
        one => vec![Prompt::text_or_ids(one)],
    }
}

fn whole(
    app: &App,
    id: &str,
    generation: &Generation,
    sequences: &[Sequence],
    logprobs: bool,
) -> String {
    let told = |sequence| {
        if logprobs {
            logprobs_of(app, sequence)
        } else {
            "null".to_owned()
        }
    };
    let choices: Vec<String> = sequences
        .iter()
        .enumerate()
        .map(|(index, sequence)| {
            format!(
                "{{\"index\":{index},\"text\":{},\"logprobs\":{},\"finish_reason\":\"{}\",\"stop_reason\":{},\"token_ids\":null,\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"routed_experts\":null}}",
                quoted(&sequence.text(sequence.tokens)),
                told(sequence),
                sequence.finish.as_str(),
                stop_reason(sequence.stopped_by.as_deref())
            )
        })
        .collect();
    let prompt = generation.prompt_tokens();
    let made: u32 = sequences.iter().map(|sequence| sequence.tokens).sum();
    format!(
        "{}\"choices\":[{}],\"service_tier\":null,\"system_fingerprint\":\"{}\",\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{},\"completion_tokens\":{made},\"prompt_tokens_details\":{},\"completion_tokens_details\":null}},\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}}",
        head(id, "text_completion", &app.model),
        choices.join(","),
        app.fingerprint,
        prompt + made,
        app.prompt_details("null")
    )
}

/// Parts that a stream of completions needs beside its tokens.
struct CompletionStream {
    head: String,
    fingerprint: String,
    prompt: u32,
    details: bool,
    usage: UsageIn,
}

impl CompletionStream {
    async fn write(self, app: Arc<App>, generation: Generation, mut sink: Sink) -> Result<(), End> {
        let garbage = app.faulty(&Misdeed::GarbageAfterWake);
        let mut run = match Run::begin(Arc::clone(&app.engine), &generation, garbage).await {
            Ok(run) => run,
            Err(failure) => return fail(&mut sink, failure.into()).await,
        };
        let mut open = generation.prompts.len() * generation.choices as usize;
        let mut total = 0;
        loop {
            let token = match run.next().await {
                Ok(Some(token)) => token,
                Ok(None) => break,
                Err(failure) => return fail(&mut sink, failure.into()).await,
            };
            total = run.total(&token);
            open -= usize::from(token.finish.is_some());
            sink.send(self.event(&token, open == 0)).await?;
        }
        if self.usage != UsageIn::None {
            sink.send(self.last(total)).await?;
        }
        sink.send(DONE).await
    }

    fn event(&self, token: &Token, last: bool) -> String {
        let finish = token.finish.map_or_else(
            || "null".to_owned(),
            |finish| format!("\"{}\"", finish.as_str()),
        );
        let fingerprint = if last && self.usage == UsageIn::None {
            format!(",\"system_fingerprint\":\"{}\"", self.fingerprint)
        } else {
            String::new()
        };
        format!(
            "data: {}\"choices\":[{{\"index\":{},\"text\":{},\"logprobs\":null,\"finish_reason\":{finish},\"stop_reason\":{},\"prompt_token_ids\":null,\"token_ids\":null}}]{}{fingerprint}}}\n\n",
            self.head,
            token.sequence,
            quoted(&token.text),
            stop_reason(token.stopped_by.as_deref()),
            self.usage.event(self.prompt, token.made)
        )
    }

    /// The event of usage alone.
    fn last(&self, made: u32) -> String {
        let details = if self.details {
            ",\"prompt_tokens_details\":{\"cached_tokens\":0}"
        } else {
            ""
        };
        format!(
            "data: {}\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{},\"completion_tokens\":{made}{details}}},\"system_fingerprint\":\"{}\"}}\n\n",
            self.head,
            self.prompt + made,
            self.fingerprint,
            prompt = self.prompt
        )
    }
}
