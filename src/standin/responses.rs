//! `/v1/responses`: kept where the stand-in keeps responses, else forgotten.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::app::{Answer, App, Call, events, json};
use super::chat::fail;
use super::error::ApiError;
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run};
use super::json::{float, quoted};
use super::stored::Running;
use super::stream::{End, Sink};
use super::text::Finish;
use crate::time::unix_seconds;

/// Answers a request for a response.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn responses(app: Arc<App>, call: Call) -> Answer {
    let input = call.need("input")?;
    let mut prompt = match input {
        Value::String(text) => Prompt::messages(&Value::from(vec![
            serde_json::json!({"role": "user", "content": text}),
        ])),
        items => Prompt::messages(items),
    };
    if let Some(instructions) = call.get("instructions").and_then(Value::as_str) {
        let instructions = Prompt::text(instructions);
        prompt.tokens = prompt.tokens.saturating_add(instructions.tokens);
        prompt.number ^= instructions.number;
    }
    app.check_model(&call)?;
    let background = call.flag("background");
    if background && !app.args.responses_store {
        return Err(ApiError::Error {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            message: "This vLLM engine does not support `store=True` and therefore does not support the background mode. To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.".to_owned(),
            param: Some("background".to_owned()),
        });
    }
    let generation = Generation::read(
        &call.body,
        vec![prompt],
        &["max_output_tokens"],
        app.args.max_model_len,
        app.args.seed,
    )?;
    let mut reply = Reply::new(&app, &call, &generation);
    reply.keeps = app.args.responses_store && call.get("store") != Some(&Value::Bool(false));
    if background {
        return Ok(json(reply.begin_beside(&app, generation)));
    }
    if call.flag("stream") {
        let shared = Arc::clone(&app);
        return Ok(events(&app, |sink| reply.write(shared, generation, sink)));
    }
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let run = Run::begin(Arc::clone(&app.engine), &generation, garbage).await?;
    let sequences = run.all().await?;
    let said = sequences
        .first()
        .map_or_else(String::new, |s| s.text(s.tokens));
    let made = sequences.first().map_or(0, |s| s.tokens);
    let finish = sequences.first().map_or(Finish::Stop, |s| s.finish);
    let body = reply.body(Stage::Ended {
        said: &said,
        made,
        finish,
    });
    reply.keep(&app, &body);
    Ok(json(body))
}

/// Stage of a response.
#[derive(Clone, Copy, Debug)]
enum Stage<'a> {
    /// Under way.
    Begun,
    /// In the background, with this status.
    Beside(&'static str),
    /// Said in full.
    Ended {
        said: &'a str,
        made: u32,
        finish: Finish,
    },
}

/// The fixed parts of one response.
struct Reply {
    id: String,
    message: String,
    created: u64,
    model: String,
    prompt: u32,
    tokens_max: u32,
    temperature: String,
    top_p: String,
    instructions: String,
    metadata: String,
    background: bool,
    keeps: bool,
}

impl Reply {
    /// Keeps it, where responses are kept.
    fn keep(&self, app: &App, body: &str) {
        if self.keeps {
            app.stored.keep(&self.id, body.to_owned(), None);
        }
    }

    /// Begins it in the background; returns how it stands at first.
    fn begin_beside(mut self, app: &Arc<App>, generation: Generation) -> String {
        self.background = true;
        let cancel = CancellationToken::new();
        let running = Running {
            cancel: cancel.clone(),
            cancelled: self.body(Stage::Beside("cancelled")),
        };
        let queued = self.body(Stage::Beside("queued"));
        app.stored.keep(&self.id, queued.clone(), Some(running));
        let app = Arc::clone(app);
        let tasks = app.tasks.clone();
        tasks.spawn_bare(async move {
            let made = async {
                let run = Run::begin(Arc::clone(&app.engine), &generation, false).await?;
                run.all().await
            };
            let made = tokio::select! {
                made = made => made,
                () = cancel.cancelled() => return,
            };
            let body = match made.as_deref() {
                Ok([one, ..]) => self.body(Stage::Ended {
                    said: &one.text(one.tokens),
                    made: one.tokens,
                    finish: one.finish,
                }),
                Ok([]) | Err(_) => self.body(Stage::Beside("failed")),
            };
            app.stored.keep(&self.id, body, None);
        });
        queued
    }

    fn new(app: &App, call: &Call, generation: &Generation) -> Self {
        let given = |name| call.get(name).map_or("null".to_owned(), Value::to_string);
        Self {
            id: format!("resp_{}", app.id()),
            message: format!("msg_{}", app.id()),
            created: unix_seconds(),
            model: app.model.clone(),
            prompt: generation.prompt_tokens(),
            tokens_max: generation.bounds.tokens_max,
            temperature: float(call.get("temperature"), 1.0),
            top_p: float(call.get("top_p"), 1.0),
            instructions: given("instructions"),
            metadata: given("metadata"),
            background: false,
            keeps: false,
        }
    }

    /// The message that the output consists of.
    fn item(&self, status: &str, said: Option<&str>) -> String {
        let content = said.map(part).unwrap_or_default();
        format!(
            "{{\"id\":\"{}\",\"content\":[{content}],\"role\":\"assistant\",\"status\":\"{status}\",\"type\":\"message\",\"phase\":null}}",
            self.message
        )
    }

    fn body(&self, stage: Stage<'_>) -> String {
        let (status, incomplete, output, usage) = match stage {
            Stage::Begun => ("in_progress", "null", String::new(), "null".to_owned()),
            Stage::Beside(status) => (status, "null", String::new(), "null".to_owned()),
            Stage::Ended { said, made, finish } => {
                let (status, incomplete) = match finish {
                    Finish::Length => ("incomplete", "{\"reason\":\"max_output_tokens\"}"),
                    Finish::Stop | Finish::Abort => ("completed", "null"),
                };
                let usage = format!(
                    "{{\"input_tokens\":{},\"input_tokens_details\":{{\"cached_tokens\":0,\"cache_write_tokens\":0,\"input_tokens_per_turn\":[],\"cached_tokens_per_turn\":[]}},\"output_tokens\":{made},\"output_tokens_details\":{{\"reasoning_tokens\":0,\"tool_output_tokens\":0,\"output_tokens_per_turn\":[],\"tool_output_tokens_per_turn\":[]}},\"total_tokens\":{}}}",
                    self.prompt,
                    self.prompt + made
                );
                (
                    status,
                    incomplete,
                    self.item("completed", Some(said)),
                    usage,
                )
            }
        };
        format!(
            "{{\"id\":\"{}\",\"created_at\":{},\"incomplete_details\":{incomplete},\"instructions\":{},\"metadata\":{},\"model\":{},\"object\":\"response\",\"output\":[{output}],\"parallel_tool_calls\":true,\"temperature\":{},\"tool_choice\":\"none\",\"tools\":[],\"top_p\":{},\"background\":{},\"max_output_tokens\":{},\"max_tool_calls\":null,\"previous_response_id\":null,\"prompt\":null,\"reasoning\":null,\"service_tier\":\"auto\",\"status\":\"{status}\",\"text\":null,\"top_logprobs\":null,\"truncation\":\"disabled\",\"usage\":{usage},\"user\":null,\"presence_penalty\":0.0,\"frequency_penalty\":0.0,\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"input_messages\":null,\"output_messages\":null}}",
            self.id,
            self.created,
            self.instructions,
            self.metadata,
            self.model,
            self.temperature,
            self.top_p,
            self.background,
            self.tokens_max
        )
    }

    async fn write(self, app: Arc<App>, generation: Generation, sink: Sink) -> Result<(), End> {
        let mut out = Numbered { sink, number: 0 };
        let begun = format!("\"response\":{}", self.body(Stage::Begun));
        out.send("response.created", &begun).await?;
        out.send("response.in_progress", &begun).await?;
        let garbage = app.faulty(&Misdeed::GarbageAfterWake);
        let mut run = match Run::begin(Arc::clone(&app.engine), &generation, garbage).await {
            Ok(run) => run,
            Err(failure) => return fail(&mut out.sink, failure.into()).await,
        };
        let place = format!(
            "\"content_index\":0,\"item_id\":\"{}\",\"output_index\":0",
            self.message
        );
        let (mut said, mut made, mut finish) = (String::new(), 0, Finish::Stop);
        loop {
            let token = match run.next().await {
                Ok(Some(token)) => token,
                Ok(None) => break,
                Err(failure) => return fail(&mut out.sink, failure.into()).await,
            };
            if made == 0 {
                let item = self.item("in_progress", None);
                let item = format!("\"item\":{item},\"output_index\":0");
                out.send("response.output_item.added", &item).await?;
                let added = format!("{place},\"part\":{}", part(""));
                out.send("response.content_part.added", &added).await?;
            }
            said.push_str(&token.text);
            (made, finish) = (token.made, token.finish.unwrap_or(finish));
            let delta = format!("{place},\"delta\":{},\"logprobs\":[]", quoted(&token.text));
            out.send("response.output_text.delta", &delta).await?;
        }
        let done = format!("{place},\"logprobs\":[],\"text\":{}", quoted(&said));
        out.send("response.output_text.done", &done).await?;
        let done = format!("{place},\"part\":{}", part(&said));
        out.send("response.content_part.done", &done).await?;
        let item = self.item("completed", Some(&said));
        let item = format!("\"item\":{item},\"output_index\":0");
        out.send("response.output_item.done", &item).await?;
        let said = &said;
        let body = self.body(Stage::Ended { said, made, finish });
        self.keep(&app, &body);
        let whole = format!("\"response\":{body}");
        out.send("response.completed", &whole).await
    }
}

/// One part of a message.
fn part(text: &str) -> String {
    format!(
        "{{\"annotations\":[],\"text\":{},\"type\":\"output_text\",\"logprobs\":null}}",
        quoted(text)
    )
}

/// Events with their numbers.
struct Numbered {
    sink: Sink,
    number: u32,
}

impl Numbered {
    async fn send(&mut self, name: &str, fields: &str) -> Result<(), End> {
        let number = self.number;
        self.number += 1;
        let event = format!(
            "event: {name}\ndata: {{{fields},\"sequence_number\":{number},\"type\":\"{name}\"}}\n\n"
        );
        self.sink.send(event).await
    }
}
