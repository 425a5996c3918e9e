//! The exact bytes of requests and answers, known to the load generator and the mock alike.
//!
//! Owns the shape of a chat request as the OpenAI SDKs write it (`messages` before
//! `model`) and of vLLM 0.32's answers. The request's `user` field tells the mock what to
//! answer, so the load generator knows the answer to the byte and compares all of it.
//! Does no I/O and reads no clock.

use std::fmt::Write as _;

use memchr::memmem;

/// The model of every request.
pub(crate) const MODEL: &str = "bench";
/// Most events that one stream may have; keeps a mistaken request from eating memory.
pub(crate) const EVENTS_MAX: u32 = 100_000;
/// Most bytes that one answer may have.
pub(crate) const REPLY_MAX: usize = 16 << 20;
/// Mark of the instructions in a request.
const MARK: &str = "\"user\":\"mock ";
const WORDS: [&str; 16] = [
    "gateway",
    "the",
    "of",
    "tide",
    "and",
    "harbour",
    "with",
    "a",
    "signal",
    "for",
    "over",
    "waves",
    "caf\u{e9}",
    "said \\\"no\\\"",
    "line\\n",
    "between",
];

/// Answer that the mock is to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Instructions {
    /// Tokens to stream, an event each; 0: answer in one piece.
    pub(crate) events: u32,
    /// Events a second of this stream; 0: back to back.
    pub(crate) rate: u32,
    /// Bytes of an answer in one piece; at least those that its fields need.
    pub(crate) reply: usize,
    /// True if the stream ends with an event of usage.
    pub(crate) usage: bool,
}

impl Instructions {
    /// Reads them out of a request's first and last bytes. `None`: they are not there,
    /// or beyond the bounds, or the body's end is missing.
    pub(crate) fn find(head: &[u8], tail: &[u8]) -> Option<Self> {
        if !tail.ends_with(b"}") {
            return None;
        }
        let text = [tail, head].into_iter().find_map(|part| {
            let start = memmem::rfind(part, MARK.as_bytes())? + MARK.len();
            let rest = part.get(start..)?;
            std::str::from_utf8(rest.get(..memchr::memchr(b'"', rest)?)?).ok()
        })?;
        let mut found = Self::default();
        for pair in text.split(' ') {
            let (key, value) = pair.split_once('=')?;
            match key {
                "events" => found.events = value.parse().ok()?,
                "rate" => found.rate = value.parse().ok()?,
                "reply" => found.reply = value.parse().ok()?,
                _ => return None,
            }
        }
        let usage = b"\"include_usage\":true";
        found.usage = memmem::find(tail, usage).is_some() || memmem::find(head, usage).is_some();
        let bounded = found.events <= EVENTS_MAX && found.rate <= 1000 && found.reply <= REPLY_MAX;
        bounded.then_some(found)
    }
}

/// A chat request of `bytes` bytes, or of as many as its fields need.
pub(crate) fn chat_request(bytes: usize, model: &str, ask: Instructions) -> String {
    let start = "{\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"}";
    let mut end = format!("],\"model\":\"{model}\",\"max_tokens\":256,\"temperature\":0.7");
    if ask.events > 0 {
        end.push_str(",\"stream\":true");
        if ask.usage {
            end.push_str(",\"stream_options\":{\"include_usage\":true}");
        }
    }
    push(
        &mut end,
        format_args!(
            ",{}events={} rate={} reply={}\"}}",
            MARK.trim_start_matches(','),
            ask.events,
            ask.rate,
            ask.reply
        ),
    );
    let mut body = String::with_capacity(bytes);
    body.push_str(start);
    let mut role = "user";
    // Turns of about 2 KB, as in a long conversation; the last takes what is left.
    loop {
        let open = format!(",{{\"role\":\"{role}\",\"content\":\"");
        let left = bytes.saturating_sub(body.len() + end.len() + open.len() + 2);
        let turn = if left > 4096 { 2048 } else { left };
        body.push_str(&open);
        fill(&mut body, turn);
        body.push_str("\"}");
        if turn == left {
            break;
        }
        role = if role == "user" { "assistant" } else { "user" };
    }
    body.push_str(&end);
    body
}

/// The JSON of an answer in one piece, of `bytes` bytes or of as many as its fields need.
pub(crate) fn chat_reply(bytes: usize) -> String {
    let make = |content: &str| {
        format!(
            "{{\"id\":\"chatcmpl-bfd1d976162d7df5\",\"object\":\"chat.completion\",\"created\":1795443773,\
             \"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{content}\",\
             \"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"reasoning\":null}},\
             \"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null,\"token_ids\":null,\"routed_experts\":null}}],\
             \"service_tier\":null,\"system_fingerprint\":\"vllm-0.32.0-00000000\",\"usage\":{{\"prompt_tokens\":{PROMPT_TOKENS},\
             \"total_tokens\":{},\"completion_tokens\":{COMPLETION_TOKENS},\"prompt_tokens_details\":{{\"cached_tokens\":0,\
             \"created_cache_tokens\":0,\"multimodal_tokens\":null}},\"completion_tokens_details\":null}},\
             \"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null,\"kv_transfer_params\":null,\
             \"ec_transfer_params\":null,\"metrics\":null}}",
            PROMPT_TOKENS + COMPLETION_TOKENS
        )
    };
    let mut content = String::new();
    fill(&mut content, bytes.saturating_sub(make("").len()));
    make(&content)
}

/// Tokens that every answer in one piece claims.
const PROMPT_TOKENS: u32 = 211;
const COMPLETION_TOKENS: u32 = 64;

/// A stream of server-sent events, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// End of each event in them.
    pub(crate) ends: Vec<usize>,
}

impl Stream {
    /// The body that a client reads: the role, `events` tokens, usage if asked for, the end.
    pub(crate) fn body(events: u32, usage: bool) -> Self {
        Self::of(events, usage, |bytes, event| {
            bytes.extend_from_slice(event.as_bytes());
        })
    }

    /// The same as the mock sends it: each event a chunk of its own, as uvicorn does, and
    /// the end of the body with the last one; usage comes with the end.
    pub(crate) fn wire(events: u32, usage: bool) -> Self {
        let mut wire = Self::of(events, usage, |bytes, event| {
            bytes.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        });
        wire.bytes.extend_from_slice(b"0\r\n\r\n");
        if usage {
            wire.ends.pop();
        }
        if let Some(last) = wire.ends.last_mut() {
            *last = wire.bytes.len();
        }
        wire
    }

    fn of(events: u32, usage: bool, append: impl Fn(&mut Vec<u8>, &str)) -> Self {
        let mut stream = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        let mut push = |event: &str| {
            append(&mut stream.bytes, event);
            stream.ends.push(stream.bytes.len());
        };
        push(&chunk(
            "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\
             \"prompt_token_ids\":null,\"prompt_text\":null}",
        ));
        for number in 1..=events {
            let finish = if number == events {
                "\"stop\",\"stop_reason\":null"
            } else {
                "null"
            };
            push(&chunk(&format!(
                "{{\"content\":\" {number:06}\"}},\"logprobs\":null,\"finish_reason\":{finish},\"token_ids\":null}}]}}"
            )));
        }
        if usage {
            push(&format!(
                "data: {CHUNK_START}\"choices\":[],\"usage\":{{\"prompt_tokens\":{PROMPT_TOKENS},\"total_tokens\":{},\
                 \"completion_tokens\":{events},\"prompt_tokens_details\":{{\"cached_tokens\":0,\"created_cache_tokens\":0}}}},\
                 \"system_fingerprint\":\"vllm-0.32.0-00000000\"}}\n\n",
                PROMPT_TOKENS + events
            ));
        }
        push("data: [DONE]\n\n");
        stream
    }
}

const CHUNK_START: &str = "{\"id\":\"chatcmpl-8d08369e89ba73cb\",\"object\":\"chat.completion.chunk\",\
                           \"created\":1795443819,\"model\":\"bench\",";

fn chunk(delta: &str) -> String {
    format!("data: {CHUNK_START}\"choices\":[{{\"index\":0,\"delta\":{delta}\n\n")
}

/// Appends exactly `bytes` bytes of text as it stands in JSON strings: words, escapes
/// and letters outside ASCII, the same at every call.
fn fill(text: &mut String, bytes: usize) {
    let end = text.len() + bytes;
    let mut state = 0x2545_f491u32;
    while text.len() < end {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = WORDS.get((state >> 28) as usize).copied().unwrap_or("tide");
        if text.len() + word.len() < end {
            text.push_str(word);
            text.push(' ');
        } else {
            text.push('x');
        }
    }
}

/// Writing to a `String` cannot fail.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    if text.write_fmt(arguments).is_err() {
        text.push('?');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(body: &str) -> Option<Instructions> {
        let bytes = body.as_bytes();
        Instructions::find(
            &bytes[..bytes.len().min(1024)],
            &bytes[bytes.len().saturating_sub(1024)..],
        )
    }

    #[test]
    fn a_request_has_the_size_asked_for_and_is_json_with_messages_before_model() {
        for bytes in [1024, 4000, 32 << 10, 1 << 20] {
            let ask = Instructions {
                events: 7,
                rate: 20,
                reply: 9,
                usage: true,
            };
            let body = chat_request(bytes, MODEL, ask);
            assert_eq!(body.len(), bytes);
            assert!(body.find("\"messages\"").unwrap() < body.find("\"model\"").unwrap());
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(json["model"], MODEL);
            assert_eq!(json["stream"], true);
            assert_eq!(find_in(&body), Some(ask));
        }
    }

    #[test]
    fn instructions_survive_a_splice_at_either_end() {
        let ask = Instructions {
            events: 3,
            ..Instructions::default()
        };
        let body = chat_request(1024, MODEL, ask);
        let usage = Some(Instructions { usage: true, ..ask });
        let splice = "\"stream_options\":{\"include_usage\":true}";
        assert_eq!(
            find_in(&body.replacen('{', &format!("{{{splice},"), 1)),
            usage
        );
        let cut = &body[..body.len() - 1];
        assert_eq!(find_in(&format!("{cut},{splice}}}")), usage);
    }

    #[test]
    fn a_request_that_lost_its_end_or_asks_too_much_is_not_understood() {
        let body = chat_request(1024, MODEL, Instructions::default());
        assert_eq!(find_in(&body[..body.len() - 1]), None);
        assert_eq!(find_in("{}"), None);
        let huge = Instructions {
            events: EVENTS_MAX + 1,
            ..Instructions::default()
        };
        assert_eq!(find_in(&chat_request(1024, MODEL, huge)), None);
    }

    #[test]
    fn a_reply_has_the_size_asked_for_and_usage_that_adds_up() {
        for bytes in [1024, 20_000] {
            let reply = chat_reply(bytes);
            assert_eq!(reply.len(), bytes);
            let json: serde_json::Value = serde_json::from_str(&reply).unwrap();
            let usage = &json["usage"];
            assert_eq!(
                usage["total_tokens"].as_u64().unwrap(),
                usage["prompt_tokens"].as_u64().unwrap()
                    + usage["completion_tokens"].as_u64().unwrap()
            );
        }
        assert!(chat_reply(0).len() > 500);
    }

    #[test]
    fn a_stream_counts_its_tokens_and_ends_with_done() {
        for usage in [false, true] {
            let stream = Stream::body(12, usage);
            let text = String::from_utf8(stream.bytes.clone()).unwrap();
            let events: Vec<&str> = text.split_terminator("\n\n").collect();
            assert_eq!(events.len(), stream.ends.len());
            assert_eq!(events.len(), 14 + usize::from(usage));
            assert_eq!(*events.last().unwrap(), "data: [DONE]");
            for (number, event) in events.iter().take(events.len() - 1).enumerate() {
                let json: serde_json::Value =
                    serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
                if (1..=12).contains(&number) {
                    assert_eq!(
                        json["choices"][0]["delta"]["content"],
                        format!(" {number:06}")
                    );
                }
                if number == 13 {
                    assert_eq!(json["usage"]["completion_tokens"], 12);
                }
            }
        }
    }

    #[test]
    fn the_wire_is_the_body_in_chunks_of_an_event() {
        let (body, wire) = (Stream::body(5, true), Stream::wire(5, true));
        assert_eq!(
            body.ends.len(),
            wire.ends.len() + 1,
            "usage comes with the end"
        );
        assert_eq!(wire.ends.last(), Some(&wire.bytes.len()));
        let mut rest = &wire.bytes[..];
        let mut joined = Vec::new();
        loop {
            let line = memmem::find(rest, b"\r\n").unwrap();
            let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16);
            let length = length.unwrap();
            joined.extend_from_slice(&rest[line + 2..line + 2 + length]);
            rest = &rest[line + 4 + length..];
            if length == 0 {
                break;
            }
        }
        assert!(rest.is_empty());
        assert_eq!(joined, body.bytes);
    }
}
