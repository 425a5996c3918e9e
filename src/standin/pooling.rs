//! Vectors, scores and labels, and the tokenizer's routes.
//!
//! A vector is determined by its text and the seed, has length one, and the same
//! text gives the same vector; beyond that it means nothing.

use std::sync::Arc;

use serde_json::Value;

use super::app::{Answer, App, Call, json};
use super::error::ApiError;
use super::generation::{Prompt, render};
use super::json::{base64, quoted};
use super::tokens;
use crate::random::spread;
use crate::time::unix_seconds;

/// Numbers in a vector.
const DIMENSIONS: u64 = 64;
/// Most inputs of one request.
const INPUTS_MAX: usize = 8192;

/// Answers `/v1/embeddings`.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn embeddings(app: &App, call: &Call) -> Answer {
    vectors(app, call, "embd", "embedding", "embedding").await
}

/// Answers `/pooling`.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn pooling(app: &App, call: &Call) -> Answer {
    vectors(app, call, "pooling", "pooling", "data").await
}

async fn vectors(app: &App, call: &Call, prefix: &str, object: &str, field: &str) -> Answer {
    let prompts = inputs(call)?;
    app.check_model(call)?;
    let in_base64 = call.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let tokens = pool(app, &prompts).await?;
    let items: Vec<String> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| {
            let vector = vector(prompt.number ^ app.args.seed);
            let written = if in_base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                format!("\"{}\"", base64(&bytes))
            } else {
                let numbers: Vec<String> = vector
                    .iter()
                    .map(|x| format!("{:?}", f64::from(*x)))
                    .collect();
                format!("[{}]", numbers.join(","))
            };
            format!("{{\"index\":{index},\"object\":\"{object}\",\"{field}\":{written}}}")
        })
        .collect();
    Ok(json(list(app, call, prefix, &items, tokens)))
}

/// Answers `/v2/embed`, in Cohere's form.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn embed(app: &App, call: &Call) -> Answer {
    let texts = texts(call.need("texts")?);
    app.check_model(call)?;
    let prompts: Vec<Prompt> = texts.iter().map(|text| Prompt::text(text)).collect();
    let tokens = pool(app, &prompts).await?;
    let vectors: Vec<String> = prompts
        .iter()
        .map(|prompt| {
            let numbers: Vec<String> = vector(prompt.number ^ app.args.seed)
                .iter()
                .map(|x| format!("{:?}", f64::from(*x)))
                .collect();
            format!("[{}]", numbers.join(","))
        })
        .collect();
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    Ok(json(format!(
        "{{\"id\":\"embd-{}\",\"embeddings\":{{\"float\":[{}]}},\"texts\":[{}],\"meta\":{{\"api_version\":{{\"version\":\"2\"}},\"billed_units\":{{\"input_tokens\":{tokens},\"image_tokens\":null}}}},\"response_type\":\"embeddings_by_type\"}}",
        app.id_of(call),
        vectors.join(","),
        texts.join(",")
    )))
}

/// The inputs of a request: one or several, as texts, ids or a conversation.
fn inputs(call: &Call) -> Result<Vec<Prompt>, ApiError> {
    if let Some(messages) = call.get("messages") {
        return Ok(vec![Prompt::messages(messages)]);
    }
    let input = call.need("input")?;
    let prompts: Vec<Prompt> = match input {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => {
            items.iter().map(Prompt::text_or_ids).collect()
        }
        one => vec![Prompt::text_or_ids(one)],
    };
    if prompts.len() > INPUTS_MAX {
        let message = format!(
            "at most {INPUTS_MAX} inputs are taken, got {}.",
            prompts.len()
        );
        return Err(ApiError::parameter("input", message));
    }
    Ok(prompts)
}

/// Runs the prompts through the engine; returns their tokens.
async fn pool(app: &App, prompts: &[Prompt]) -> Result<u32, ApiError> {
    let most = app.args.max_model_len;
    if let Some(long) = prompts.iter().find(|prompt| prompt.tokens > most) {
        let seen = long.tokens.min(most.saturating_add(1));
        return Err(ApiError::parameter(
            "input_tokens",
            format!(
                "This model's maximum context length is {most} tokens. However, your prompt contains at least {seen} input tokens, which exceeds this limit. Please reduce the length of the input prompt. (parameter=input_tokens, value={seen})"
            ),
        ));
    }
    let count = u32::try_from(prompts.len()).unwrap_or(u32::MAX);
    let tokens = prompts.iter().map(|prompt| prompt.tokens).sum();
    let mut slot = Arc::clone(&app.engine).admit(count).await?;
    slot.read(tokens);
    slot.until(1).await?;
    for _ in prompts {
        slot.ended(super::text::Finish::Stop);
    }
    Ok(tokens)
}

fn vector(number: u64) -> Vec<f32> {
    let raw: Vec<f32> = (0..DIMENSIONS)
        .map(|at| unit(spread(number.wrapping_add(at << 32))) - 0.5)
        .collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.iter().map(|x| x / length).collect()
}

/// A number from 0 to 1.
fn unit(number: u64) -> f32 {
    f32::from(u16::try_from(number >> 48).unwrap_or(0)) / f32::from(u16::MAX)
}

/// A list with its usage.
fn list(app: &App, call: &Call, prefix: &str, items: &[String], tokens: u32) -> String {
    format!(
        "{{\"id\":\"{prefix}-{}\",\"object\":\"list\",\"created\":{},\"model\":{},\"data\":[{}],\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens},\"completion_tokens\":0,\"prompt_tokens_details\":null,\"completion_tokens_details\":null}}}}",
        app.id_of(call),
        unix_seconds(),
        app.model,
        items.join(",")
    )
}

/// One text or several.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other
            .get("text")
            .and_then(Value::as_str)
            .map_or_else(|| other.to_string(), str::to_owned),
    };
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// Scores of each pair, and the tokens read.
async fn scores(
    app: &App,
    queries: &[String],
    documents: &[String],
) -> Result<(Vec<f64>, u32), ApiError> {
    if documents.len() > INPUTS_MAX {
        let message = format!(
            "at most {INPUTS_MAX} texts are taken, got {}.",
            documents.len()
        );
        return Err(ApiError::parameter("documents", message));
    }
    let pairs: Vec<(Prompt, Prompt)> = documents
        .iter()
        .zip(queries.iter().cycle())
        .map(|(document, query)| (Prompt::text(query), Prompt::text(document)))
        .collect();
    let prompts: Vec<Prompt> = pairs
        .iter()
        .map(|(query, document)| Prompt {
            tokens: query.tokens.saturating_add(document.tokens),
            number: spread(query.number ^ spread(document.number ^ app.args.seed)),
        })
        .collect();
    let tokens = pool(app, &prompts).await?;
    let scores = prompts.iter().map(|pair| f64::from(unit(pair.number)));
    Ok((scores.collect(), tokens))
}

/// Answers `/score`: one text against several, or pair by pair.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn score(app: &App, call: &Call) -> Answer {
    let left = texts(
        call.get("queries")
            .map_or_else(|| call.need("text_1"), Ok)?,
    );
    let right = texts(
        call.get("documents")
            .map_or_else(|| call.need("text_2"), Ok)?,
    );
    app.check_model(call)?;
    let (scores, tokens) = scores(app, &left, &right).await?;
    let items: Vec<String> = scores
        .iter()
        .enumerate()
        .map(|(index, score)| {
            format!("{{\"index\":{index},\"object\":\"score\",\"score\":{score:?}}}")
        })
        .collect();
    Ok(json(list(app, call, "score", &items, tokens)))
}

/// Answers `/rerank`, the best first.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn rerank(app: &App, call: &Call) -> Answer {
    let query = texts(call.need("query")?);
    let documents = texts(call.need("documents")?);
    app.check_model(call)?;
    let (scores, tokens) = scores(app, &query, &documents).await?;
    let mut ranked: Vec<(usize, f64, &String)> = scores
        .into_iter()
        .zip(&documents)
        .enumerate()
        .map(|(index, (score, document))| (index, score, document))
        .collect();
    ranked.sort_by(|left, right| right.1.total_cmp(&left.1));
    let top = call
        .get("top_n")
        .and_then(Value::as_u64)
        .filter(|&top| top > 0);
    ranked.truncate(usize::try_from(top.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
    let items: Vec<String> = ranked
        .iter()
        .map(|(index, score, document)| {
            format!(
                "{{\"index\":{index},\"document\":{{\"text\":{},\"multi_modal\":null}},\"relevance_score\":{score:?}}}",
                quoted(document)
            )
        })
        .collect();
    Ok(json(format!(
        "{{\"id\":\"score-{}\",\"model\":{},\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}},\"results\":[{}]}}",
        app.id_of(call),
        app.model,
        items.join(",")
    )))
}

/// Answers `/classify` with two labels.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn classify(app: &App, call: &Call) -> Answer {
    let prompts = inputs(call)?;
    app.check_model(call)?;
    let tokens = pool(app, &prompts).await?;
    let items: Vec<String> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| {
            let first = f64::from(unit(spread(prompt.number ^ app.args.seed)));
            let label = if first >= 0.5 { "LABEL_0" } else { "LABEL_1" };
            let second = 1.0 - first;
            format!(
                "{{\"index\":{index},\"label\":\"{label}\",\"probs\":[{first:?},{second:?}],\"num_classes\":2}}"
            )
        })
        .collect();
    Ok(json(list(app, call, "classify", &items, tokens)))
}

/// Answers `/tokenize`, for a text or a conversation.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) fn tokenize(app: &App, call: &Call) -> Answer {
    let text = match call.get("messages") {
        Some(messages) => render(messages).0,
        None => call.need("prompt")?.as_str().unwrap_or_default().to_owned(),
    };
    app.check_model(call)?;
    let ids: Vec<String> = tokens::encode(&text).iter().map(u64::to_string).collect();
    let names = if call.flag("return_token_strs") {
        let names: Vec<_> = tokens::pieces(&text).map(quoted).collect();
        format!("[{}]", names.join(","))
    } else {
        "null".to_owned()
    };
    Ok(json(format!(
        "{{\"count\":{},\"max_model_len\":{},\"tokens\":[{}],\"token_strs\":{names}}}",
        ids.len(),
        app.args.max_model_len,
        ids.join(",")
    )))
}

/// Answers `/detokenize`.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) fn detokenize(app: &App, call: &Call) -> Answer {
    let ids = call.need("tokens")?.as_array();
    app.check_model(call)?;
    let text = tokens::decode(ids.into_iter().flatten().filter_map(Value::as_u64));
    Ok(json(format!("{{\"prompt\":{}}}", quoted(&text))))
}
