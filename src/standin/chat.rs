//! `/v1/chat/completions`, in vLLM's fields and order.
//!
//! Also owns what chat and completions share: stream options and usage.

use std::sync::Arc;

use serde_json::Value;

use super::app::{Answer, App, Call, events, json};
use super::error::ApiError;
use super::faults::Misdeed;
use super::generation::{Generation, Prompt, Run, Token};
use super::json::{example, quoted};
use super::stream::{DONE, End, Sink};
use super::text::{Finish, Sequence};
use crate::time::unix_seconds;

/// Events of a stream that tell usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageIn {
    /// Nothing.
    None,
    /// One last event.
    End,
    /// Every event, and one last.
    Every,
}

impl UsageIn {
    /// Reads `stream_options`.
    ///
    /// # Errors
    ///
    /// 400 when there is no stream for them.
    pub(super) fn read(app: &App, call: &Call) -> Result<Self, ApiError> {
        let options = call.get("stream_options");
        if options.is_some() && !call.flag("stream") {
            return Err(ApiError::validation(
                Some("stream_options".to_owned()),
                "{'type': 'value_error', 'loc': 'body', 'msg': 'Value error, Stream options can only be defined when `stream=True`.'}",
            ));
        }
        let flag = |name| options.and_then(|options| options.get(name)?.as_bool()) == Some(true);
        Ok(if app.args.enable_force_include_usage {
            Self::Every
        } else if !flag("include_usage") {
            Self::None
        } else if flag("continuous_usage_stats") {
            Self::Every
        } else {
            Self::End
        })
    }

    /// The `usage` field of an event of tokens, with its comma.
    pub(super) fn event(self, prompt: u32, made: u32) -> String {
        if self != Self::Every {
            return String::new();
        }
        format!(
            ",\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{},\"completion_tokens\":{made},\"completion_tokens_details\":null}}",
            prompt + made
        )
    }
}

/// A function that the answer must call.
#[derive(Clone, Debug)]
struct Tool {
    name: String,
    arguments: String,
}

impl Tool {
    /// The function that `tool_choice` forces: the one it names, or the first
    /// when any is required.
    fn forced(call: &Call) -> Option<Self> {
        let tools = call.get("tools")?.as_array()?;
        let function = |tool: &Value| tool.get("function").cloned();
        let forced = match call.get("tool_choice")? {
            Value::String(choice) if choice == "required" => tools.first().and_then(function),
            choice => {
                let name = choice.get("function")?.get("name")?;
                tools
                    .iter()
                    .filter_map(function)
                    .find(|function| function.get("name") == Some(name))
            }
        }?;
        let parameters = forced.get("parameters").map(example);
        Some(Self {
            name: forced.get("name")?.as_str()?.to_owned(),
            arguments: parameters.map_or_else(|| "{}".to_owned(), |value| value.to_string()),
        })
    }
}

/// Answers a chat request.
///
/// # Errors
///
/// vLLM's refusals.
pub(super) async fn chat(app: Arc<App>, call: Call) -> Answer {
    let messages = call.need("messages")?;
    app.check_model(&call)?;
    let usage = UsageIn::read(&app, &call)?;
    let mut generation = Generation::read(
        &call.body,
        vec![Prompt::messages(messages)],
        &["max_completion_tokens", "max_tokens"],
        app.args.max_model_len,
        app.args.seed,
    )?;
    let tool = Tool::forced(&call);
    if let Some(tool) = &tool {
        generation.given = Some(tool.arguments.clone());
    }
    let id = app.id_of(&call);
    if call.flag("stream") {
        let stream = ChatStream {
            head: head(&id, "chat.completion.chunk", &app.model),
            fingerprint: app.fingerprint.clone(),
            prompt: generation.prompt_tokens(),
            details: app.args.enable_prompt_tokens_details,
            usage,
            tool: tool.map(|tool| (tool.name, format!("chatcmpl-tool-{}", app.id()))),
        };
        let shared = Arc::clone(&app);
        return Ok(events(&app, |sink| stream.write(shared, generation, sink)));
    }
    let garbage = app.faulty(&Misdeed::GarbageAfterWake);
    let run = Run::begin(Arc::clone(&app.engine), &generation, garbage).await?;
    let sequences = run.all().await?;
    Ok(json(whole(
        &app,
        &id,
        &generation,
        &sequences,
        tool.as_ref(),
    )))
}

/// Beginning of every chunk and answer.
pub(super) fn head(id: &str, object: &str, model: &str) -> String {
    let prefix = if object.starts_with("chat") {
        "chatcmpl"
    } else {
        "cmpl"
    };
    format!(
        "{{\"id\":\"{prefix}-{id}\",\"object\":\"{object}\",\"created\":{},\"model\":{model},",
        unix_seconds()
    )
}

fn whole(
    app: &App,
    id: &str,
    generation: &Generation,
    sequences: &[Sequence],
    tool: Option<&Tool>,
) -> String {
    let choices: Vec<String> = sequences
        .iter()
        .enumerate()
        .map(|(index, sequence)| choice(app, index, sequence, tool))
        .collect();
    let prompt = generation.prompt_tokens();
    let made: u32 = sequences.iter().map(|sequence| sequence.tokens).sum();
    format!(
        "{}\"choices\":[{}],\"service_tier\":null,\"system_fingerprint\":\"{}\",\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{},\"completion_tokens\":{made},\"prompt_tokens_details\":{},\"completion_tokens_details\":null}},\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null,\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}}",
        head(id, "chat.completion", &app.model),
        choices.join(","),
        app.fingerprint,
        prompt + made,
        app.prompt_details("0")
    )
}

fn choice(app: &App, index: usize, sequence: &Sequence, tool: Option<&Tool>) -> String {
    let said = sequence.text(sequence.tokens);
    let (content, calls) = match tool {
        None => (quoted(&said), String::new()),
        Some(tool) => (
            "null".into(),
            format!(
                "\"tool_calls\":[{{\"id\":\"chatcmpl-tool-{}\",\"type\":\"function\",\"function\":{{\"name\":{},\"arguments\":{}}}}}],",
                app.id(),
                quoted(&tool.name),
                quoted(&said)
            ),
        ),
    };
    format!(
        "{{\"index\":{index},\"message\":{{\"role\":\"assistant\",\"content\":{content},\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,{calls}\"reasoning\":null}},\"logprobs\":null,\"finish_reason\":\"{}\",\"stop_reason\":{},\"token_ids\":null,\"routed_experts\":null}}",
        finish_word(sequence.finish, tool.is_some()),
        stop_reason(sequence.stopped_by.as_deref())
    )
}

/// `finish_reason`, which is another word where a tool is called.
fn finish_word(finish: Finish, calls_tool: bool) -> &'static str {
    match finish {
        Finish::Stop if calls_tool => "tool_calls",
        finish => finish.as_str(),
    }
}

/// `stop_reason`, as JSON.
pub(super) fn stop_reason(stopped_by: Option<&str>) -> std::borrow::Cow<'static, str> {
    stopped_by.map_or("null".into(), quoted)
}

/// Parts that a chat stream needs beside its tokens.
struct ChatStream {
    head: String,
    fingerprint: String,
    prompt: u32,
    details: bool,
    usage: UsageIn,
    /// Name and id of the function that is called.
    tool: Option<(String, String)>,
}

impl ChatStream {
    async fn write(self, app: Arc<App>, generation: Generation, mut sink: Sink) -> Result<(), End> {
        let garbage = app.faulty(&Misdeed::GarbageAfterWake);
        let mut run = match Run::begin(Arc::clone(&app.engine), &generation, garbage).await {
            Ok(run) => run,
            Err(failure) => return fail(&mut sink, failure.into()).await,
        };
        let sequences = generation.choices;
        let mut open = sequences;
        let mut total = 0;
        loop {
            let token = match run.next().await {
                Ok(Some(token)) => token,
                Ok(None) => break,
                Err(failure) => return fail(&mut sink, failure.into()).await,
            };
            if total == 0 && open == sequences && token.sequence == 0 && token.made <= 1 {
                self.roles(sequences, &mut sink).await?;
            }
            total = run.total(&token);
            open -= u32::from(token.finish.is_some());
            sink.send(self.event(&token, open == 0)).await?;
        }
        if self.usage != UsageIn::None {
            sink.send(self.last(total)).await?;
        }
        sink.send(DONE).await
    }

    /// The first event of each choice, which comes with the first token.
    async fn roles(&self, choices: u32, sink: &mut Sink) -> Result<(), End> {
        let (head, usage) = (&self.head, self.usage.event(self.prompt, 0));
        for index in 0..choices {
            sink.send(format!(
                "data: {head}\"choices\":[{{\"index\":{index},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}]{usage},\"prompt_token_ids\":null,\"prompt_text\":null}}\n\n"
            ))
            .await?;
        }
        Ok(())
    }

    fn event(&self, token: &Token, last: bool) -> String {
        let said = quoted(&token.text);
        let delta = match &self.tool {
            None => format!("\"content\":{said}"),
            Some((name, id)) if token.made == 1 => format!(
                "\"tool_calls\":[{{\"id\":\"{id}\",\"type\":\"function\",\"index\":0,\"function\":{{\"name\":{},\"arguments\":{said}}}}}]",
                quoted(name)
            ),
            Some(_) => {
                format!("\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":{said}}}}}]")
            }
        };
        let finish = match token.finish {
            None => "null".to_owned(),
            Some(finish) => format!(
                "\"{}\",\"stop_reason\":{}",
                finish_word(finish, self.tool.is_some()),
                stop_reason(token.stopped_by.as_deref())
            ),
        };
        let usage = self.usage.event(self.prompt, token.made);
        let fingerprint = if last && self.usage == UsageIn::None {
            format!(",\"system_fingerprint\":\"{}\"", self.fingerprint)
        } else {
            String::new()
        };
        format!(
            "data: {}\"choices\":[{{\"index\":{},\"delta\":{{{delta}}},\"logprobs\":null,\"finish_reason\":{finish},\"token_ids\":null}}]{usage}{fingerprint}}}\n\n",
            self.head, token.sequence
        )
    }

    /// The event of usage alone.
    fn last(&self, made: u32) -> String {
        let details = if self.details {
            ",\"prompt_tokens_details\":{\"cached_tokens\":0,\"created_cache_tokens\":0}"
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

/// Ends a stream of chat or completions with an error.
pub(super) async fn fail(sink: &mut Sink, error: ApiError) -> Result<(), End> {
    sink.send(error.event()).await?;
    sink.send(DONE).await
}
