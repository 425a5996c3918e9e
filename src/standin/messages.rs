//! `/v1/messages`: Anthropic's form, as vLLM serves it.

use std::sync::Arc;

use serde_json::Value;

use super::app::{Answer, App, Call, events, json};
use super::engine::Failure;
use super::error::ApiError;
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run};
use super::json::quoted;
use super::stream::{End, Sink};
use super::text::Finish;

/// Answers a request for a message.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn messages(app: Arc<App>, call: Call) -> Answer {
    let prompt = prompt(&call)?;
    call.need("max_tokens")?;
    app.check_model(&call)?;
    let mut generation = Generation::read(
        &call.body,
        vec![prompt],
        &["max_tokens"],
        app.args.max_model_len,
        app.args.seed,
    )?;
    if let Some(Value::Array(stops)) = call.get("stop_sequences") {
        generation.bounds.stop = stops
            .iter()
            .filter_map(|stop| Some(stop.as_str()?.to_owned()))
            .collect();
    }
    let id = app.id_of(&call);
    if call.flag("stream") {
        let shared = Arc::clone(&app);
        return Ok(events(&app, |sink| stream(shared, generation, id, sink)));
    }
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let run = Run::begin(Arc::clone(&app.engine), &generation, garbage).await?;
    let sequences = run.all().await?;
    let prompt = generation.prompt_tokens();
    let said = sequences
        .first()
        .map_or_else(String::new, |s| s.text(s.tokens));
    let made: u32 = sequences.iter().map(|sequence| sequence.tokens).sum();
    let finish = sequences.first().map(|sequence| sequence.finish);
    Ok(json(format!(
        "{{\"id\":\"chatcmpl-{id}\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\"text\":{}}}],\"model\":{},\"stop_reason\":\"{}\",\"usage\":{}}}",
        quoted(&said),
        app.model,
        stop_reason(finish),
        usage(prompt, made)
    )))
}

/// The conversation, with its system text, as one prompt.
fn prompt(call: &Call) -> Result<Prompt, ApiError> {
    call.need("model")?;
    let messages = call.need("messages")?;
    let mut prompt = Prompt::messages(messages);
    if let Some(system) = call.get("system") {
        let system = Value::from(vec![
            serde_json::json!({"role": "system", "content": system}),
        ]);
        let system = Prompt::messages(&system);
        prompt.tokens = prompt.tokens.saturating_add(system.tokens);
        prompt.number ^= system.number;
    }
    Ok(prompt)
}

/// Answers how many tokens a conversation has.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) fn count_tokens(app: &App, call: &Call) -> Answer {
    let prompt = prompt(call)?;
    app.check_model(call)?;
    let tokens = prompt.tokens;
    Ok(json(format!(
        "{{\"input_tokens\":{tokens},\"context_management\":{{\"original_input_tokens\":{tokens}}}}}"
    )))
}

fn stop_reason(finish: Option<Finish>) -> &'static str {
    match finish {
        Some(Finish::Length) => "max_tokens",
        _ => "end_turn",
    }
}

fn usage(prompt: u32, made: u32) -> String {
    format!(
        "{{\"input_tokens\":{prompt},\"output_tokens\":{made},\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0}}"
    )
}

fn event(name: &str, fields: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{fields}}}\n\n")
}

async fn stream(
    app: Arc<App>,
    generation: Generation,
    id: String,
    mut sink: Sink,
) -> Result<(), End> {
    let prompt = generation.prompt_tokens();
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let mut run = match Run::begin(Arc::clone(&app.engine), &generation, garbage).await {
        Ok(run) => run,
        Err(failure) => return fail(&mut sink, failure).await,
    };
    let (mut made, mut finish) = (0, None);
    loop {
        let token = match run.next().await {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(failure) => return fail(&mut sink, failure).await,
        };
        if token.made <= 1 {
            sink.send(event(
                "message_start",
                &format!(",\"message\":{{\"id\":\"chatcmpl-{id}\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":{},\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{{\"input_tokens\":{prompt},\"output_tokens\":0}}}}", app.model),
            ))
            .await?;
            sink.send(event(
                "content_block_start",
                ",\"content_block\":{\"type\":\"text\",\"text\":\"\"},\"index\":0",
            ))
            .await?;
        }
        if !token.text.is_empty() {
            let said = quoted(&token.text);
            sink.send(event(
                "content_block_delta",
                &format!(",\"delta\":{{\"type\":\"text_delta\",\"text\":{said}}},\"index\":0"),
            ))
            .await?;
        }
        (made, finish) = (token.made, token.finish);
    }
    sink.send(event("content_block_stop", ",\"index\":0"))
        .await?;
    sink.send(event(
        "message_delta",
        &format!(
            ",\"delta\":{{\"stop_reason\":\"{}\",\"stop_sequence\":null}},\"usage\":{}",
            stop_reason(finish),
            usage(prompt, made)
        ),
    ))
    .await?;
    sink.send(event("message_stop", "")).await
}

/// Ends a stream of a message with an error.
async fn fail(sink: &mut Sink, failure: Failure) -> Result<(), End> {
    let body = ApiError::from(failure).anthropic_body();
    let body = String::from_utf8_lossy(&body).into_owned();
    sink.send(format!("event: error\ndata: {body}\n\n")).await
}
