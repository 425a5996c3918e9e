//! `/v1/completions`, in vLLM's fields and order.

use std::sync::Arc;

use serde_json::Value;

use super::app::{Answer, App, Call, events, json};
use super::chat::{UsageIn, fail, head, stop_reason};
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run, Token};
use super::json::quoted;
use super::stream::{DONE, End, Sink};
use super::text::Sequence;

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
    let generation = Generation::read(
        &call.body,
        prompts,
        &["max_tokens"],
        app.args.max_model_len,
        app.args.seed,
    )?;
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
    Ok(json(whole(&app, &id, &generation, &sequences)))
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

fn whole(app: &App, id: &str, generation: &Generation, sequences: &[Sequence]) -> String {
    let choices: Vec<String> = sequences
        .iter()
        .enumerate()
        .map(|(index, sequence)| {
            format!(
                "{{\"index\":{index},\"text\":{},\"logprobs\":null,\"finish_reason\":\"{}\",\"stop_reason\":{},\"token_ids\":null,\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"routed_experts\":null}}",
                quoted(&sequence.text(sequence.tokens)),
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
