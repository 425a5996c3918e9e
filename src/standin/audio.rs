//! `/v1/audio/transcriptions` and `/v1/audio/translations`: words for any sound.
//!
//! Owns the reading of the form, as vLLM's web framework reads it, and the forms
//! of the answers. A sound is as long as its bytes at 16 kHz, and what it says is
//! determined by its bytes and the seed.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use memchr::memmem;
use serde_json::{Value, json as value};

use super::app::{Answer, App, Body, Call, events, json};
use super::chat::fail;
use super::error::ApiError;
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run};
use super::json::quoted;
use super::stream::{DONE, End, Sink};
use super::text::number_of;
use crate::time::unix_seconds;

/// Bytes of a second of sound: 16,000 samples of two bytes.
const SECOND_BYTES: usize = 32_000;
/// Tokens of the prompt for a sound, as whisper has them.
const PROMPT_TOKENS: u32 = 4;
/// Most tokens of an answer.
const ANSWER_TOKENS_MAX: u32 = 32;

/// A form as a JSON object of its fields, with the sound apart.
#[derive(Debug)]
pub(super) struct Form {
    /// The text fields.
    pub(super) fields: Value,
    /// The file.
    pub(super) file: Option<Bytes>,
}

/// Reads a form.
///
/// # Errors
///
/// The web framework's words for one that is broken.
pub(super) fn form(content_type: &str, body: &Bytes) -> Result<Form, ApiError> {
    let broken = || {
        ApiError::Detail(
            http::StatusCode::BAD_REQUEST,
            "There was an error parsing the body".to_owned(),
        )
    };
    let boundary = content_type.split_once("boundary=").map(|(_, rest)| rest);
    let boundary = boundary.and_then(|rest| rest.split(';').next());
    let boundary = boundary.ok_or_else(broken)?.trim().trim_matches('"');
    let (first, next) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let mut at = first.len();
    if !body.starts_with(first.as_bytes()) {
        return Err(broken());
    }
    let mut fields = serde_json::Map::new();
    let mut file = None;
    while body.get(at..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
        let rest = body.slice(at + 2..);
        let head_end = memmem::find(&rest, b"\r\n\r\n").ok_or_else(broken)?;
        let value = rest.slice(head_end + 4..);
        let end = memmem::find(&value, next.as_bytes()).ok_or_else(broken)?;
        let head = String::from_utf8_lossy(rest.get(..head_end).unwrap_or_default()).into_owned();
        let name = head
            .split_once("name=\"")
            .and_then(|(_, rest)| rest.split('"').next());
        let value = value.slice(..end);
        if head.contains("filename=") {
            file = Some(value);
        } else {
            let text = String::from_utf8_lossy(&value).into_owned();
            let value = match text.to_ascii_lowercase().as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => Value::String(text),
            };
            fields.insert(name.unwrap_or_default().to_owned(), value);
        }
        at += 2 + head_end + 4 + end + next.len();
    }
    let fields = Value::Object(fields);
    Ok(Form { fields, file })
}

/// Answers a request for the words of a sound.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn transcribe(app: Arc<App>, form: Form, translates: bool) -> Answer {
    let call = Call {
        body: form.fields,
        request_id: None,
    };
    app.check_model(&call)?;
    let items = call.body.as_object().map_or(0, serde_json::Map::len);
    let file = form.file.ok_or_else(|| ApiError::missing("file", items))?;
    let format = call.get("response_format").and_then(Value::as_str);
    let format = format.unwrap_or("json").to_owned();
    if !matches!(format.as_str(), "json" | "text" | "verbose_json") {
        let message = "Currently only support response_format: `text`, `json` or `verbose_json`";
        return Err(ApiError::parameter("response_format", message.to_owned()));
    }
    let seconds = file.len().div_ceil(SECOND_BYTES);
    let prompt = Prompt {
        tokens: PROMPT_TOKENS,
        number: number_of(&file),
    };
    let limit = value!({"max_completion_tokens": ANSWER_TOKENS_MAX});
    let generation = Generation::read(
        &limit,
        vec![prompt],
        &["max_completion_tokens"],
        app.args.max_model_len,
        app.args.seed,
    )?;
    if call.flag("stream") {
        let asked = Asked {
            usage: call.flag("stream_include_usage"),
            each: call.flag("stream_continuous_usage_stats"),
        };
        let shared = Arc::clone(&app);
        return Ok(events(&app, |sink| write(shared, generation, asked, sink)));
    }
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let run = Run::begin(Arc::clone(&app.engine), &generation, garbage).await?;
    let sequences = run.all().await?;
    let said = sequences
        .first()
        .map_or_else(String::new, |s| s.text(s.tokens));
    Ok(match format.as_str() {
        "text" => plain(said),
        "verbose_json" => json(format!(
            "{{\"duration\":\"{seconds}\",\"language\":\"en\",\"text\":{},\"segments\":null,\"words\":null}}",
            quoted(&said)
        )),
        // A translation tells no usage.
        _ if translates => json(format!("{{\"text\":{}}}", quoted(&said))),
        _ => json(format!(
            "{{\"text\":{},\"usage\":{{\"type\":\"duration\",\"seconds\":{seconds}}}}}",
            quoted(&said)
        )),
    })
}

fn plain(text: String) -> Response<Body> {
    let mut response = json(text);
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Usage that a stream is to tell.
#[derive(Clone, Copy, Debug)]
struct Asked {
    usage: bool,
    each: bool,
}

async fn write(
    app: Arc<App>,
    generation: Generation,
    asked: Asked,
    mut sink: Sink,
) -> Result<(), End> {
    let head = format!(
        "\"id\":\"trsc-{}\",\"object\":\"transcription.chunk\",\"created\":{},\"model\":{}",
        app.id(),
        unix_seconds(),
        app.model
    );
    let prompt = generation.prompt_tokens();
    let usage = |made: u32| {
        format!(
            "\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{},\"completion_tokens\":{made}}}",
            prompt + made
        )
    };
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let mut run = match Run::begin(Arc::clone(&app.engine), &generation, garbage).await {
        Ok(run) => run,
        Err(failure) => return fail(&mut sink, failure.into()).await,
    };
    let mut made = 0;
    loop {
        let token = match run.next().await {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(failure) => return fail(&mut sink, failure.into()).await,
        };
        made = token.made;
        let finish = token.finish.map_or("null", |_| "\"stop\"");
        let each = if asked.usage && asked.each {
            format!(",{}", usage(made))
        } else {
            String::new()
        };
        let event = format!(
            "data: {{{head},\"choices\":[{{\"delta\":{{\"content\":{}}},\"finish_reason\":{finish},\"stop_reason\":null}}]{each}}}\n\n",
            quoted(&token.text)
        );
        sink.send(event).await?;
    }
    if asked.usage {
        let event = format!("data: {{{head},\"choices\":[],{}}}\n\n", usage(made));
        sink.send(event).await?;
    }
    sink.send(DONE).await
}
