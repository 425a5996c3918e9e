use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The streams of vLLM 0.32, in short.
const CHAT: &str = r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"prompt_token_ids":null}

data: {"id":"c","choices":[{"index":0,"delta":{"content":"a \"usage\":{} b"},"finish_reason":null}]}

data: {"id":"c","choices":[{"index":0,"delta":{"content":""},"finish_reason":"length"}]}

data: {"id":"c","choices":[],"usage":{"prompt_tokens":6,"total_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}},"system_fingerprint":"v"}

data: [DONE]

"#;
const CONTINUOUS: &str = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":6,"completion_tokens":0}}

data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":6,"completion_tokens":1}}

"#;
const COMPLETIONS: &str = r#"data: {"id":"c","choices":[{"index":0,"text":"hello","finish_reason":null}]}

data: {"id":"c","choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":null}

data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"total_tokens":4,"completion_tokens":2}}

data: [DONE]

"#;
const RESPONSES: &str = r#"event: response.created
data: {"response":{"id":"r","output":[],"usage":null},"sequence_number":0,"type":"response.created"}

event: response.output_text.delta
data: {"delta":"x","sequence_number":1,"type":"response.output_text.delta"}

event: response.completed
data: {"response":{"output":[{"usage":{"input_tokens":99}}],"usage":{"input_tokens":6,"input_tokens_details":{"cached_tokens":1},"output_tokens":3}},"type":"response.completed"}

"#;
const MESSAGES: &str = r#"event: message_start
data: {"type":"message_start","message":{"content":[],"usage":{"input_tokens":6,"output_tokens":0}}}

event: content_block_delta
data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"hell"},"index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":3}}

event: message_stop
data: {"type":"message_stop"}

"#;
const FAILS: &str = r#": keep-alive

data: {"choices":[{"delta":{"content":"x"}}]}

data: {"error": {"message": "EngineCore", "code": 500}}

data: [DONE]

"#;

/// All that a tap tells at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in super::super) struct Facts {
    usage: Option<Usage>,
    events: u64,
    content_events: u64,
    done: bool,
    errored: bool,
}

pub(in super::super) fn run<'a>(
    api: Api,
    removes: bool,
    frames: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, Facts) {
    let mut tap = StreamTap::new(api, removes);
    let mut sent = Vec::new();
    for frame in frames {
        tap.feed(Bytes::copy_from_slice(frame), &mut |part| {
            sent.extend_from_slice(&part);
        });
        assert!(tap.held.len() <= EVENT_HELD_MAX + 1);
        assert!(tap.line.len() <= LINE_KEPT_MAX);
    }
    sent.extend_from_slice(&tap.finish());
    let facts = Facts {
        usage: tap.usage(),
        events: tap.events(),
        content_events: tap.content_events(),
        done: tap.done(),
        errored: tap.errored(),
    };
    (sent, facts)
}

fn usage(prompt: u64, completion: u64, cached: u64) -> Usage {
    Usage {
        prompt,
        completion,
        cached,
    }
}

pub(in super::super) fn streams() -> [(Api, &'static str, Facts); 6] {
    let facts = |usage, events, content_events, done, errored| Facts {
        usage,
        events,
        content_events,
        done,
        errored,
    };
    [
        (
            Api::Chat,
            CHAT,
            facts(Some(usage(6, 3, 2)), 4, 2, true, false),
        ),
        (
            Api::Chat,
            CONTINUOUS,
            facts(Some(usage(6, 1, 0)), 2, 1, false, false),
        ),
        (
            Api::Completions,
            COMPLETIONS,
            facts(Some(usage(1, 2, 0)), 3, 2, true, false),
        ),
        (
            Api::Responses,
            RESPONSES,
            facts(Some(usage(6, 3, 1)), 3, 1, true, false),
        ),
        (
            Api::Messages,
            MESSAGES,
            facts(Some(usage(6, 3, 0)), 4, 1, true, false),
        ),
        (Api::Chat, FAILS, facts(None, 2, 1, true, true)),
    ]
}

/// The event of a stream that is cut out, with its blank line.
fn without_usage_event(stream: &str, line_end: &str) -> String {
    let blank = line_end.repeat(2);
    stream
        .split_inclusive(&blank)
        .filter(|event| !event.contains(r#""choices":[],"usage":{"#))
        .collect()
}

#[test]
fn every_stream_tells_the_same_whatever_the_frames_and_line_ends() {
    for (api, stream, facts) in streams() {
        for line_end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', line_end);
            let cut = without_usage_event(&stream, line_end);
            let bytes = stream.as_bytes();
            let check = |frames: &[&[u8]]| {
                let (sent, told) = run(api, false, frames.iter().copied());
                assert_eq!(sent, bytes, "{stream}");
                assert_eq!(told, facts, "{stream}");
                let (sent, told) = run(api, true, frames.iter().copied());
                assert_eq!(String::from_utf8_lossy(&sent), cut);
                assert_eq!(told, facts, "{stream}");
            };
            check(&[bytes]);
            check(&bytes.chunks(1).collect::<Vec<_>>());
            for at in 0..bytes.len() {
                let (start, end) = bytes.split_at(at);
                check(&[start, b"", end]);
            }
        }
    }
}

#[test]
fn a_frame_without_the_usage_event_goes_out_uncopied() {
    let frame = Bytes::from_static(CONTINUOUS.as_bytes());
    for removes in [false, true] {
        let mut tap = StreamTap::new(Api::Chat, removes);
        let mut sent = Vec::new();
        tap.feed(frame.clone(), &mut |part| sent.push(part));
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].as_ptr(), frame.as_ptr());
        assert_eq!(sent[0].len(), frame.len());
    }
}

#[test]
fn content_is_known_at_the_first_frame_that_has_it() {
    let mut tap = StreamTap::new(Api::Chat, true);
    for (event, content_events) in CHAT.split_inclusive("\n\n").zip([0, 1, 2, 2, 2]) {
        tap.feed(Bytes::from(event), &mut |_| {});
        assert_eq!(tap.content_events(), content_events, "{event}");
    }
}

#[test]
fn deltas_of_all_kinds_are_content() {
    for (delta, is_content) in [
        (r#"{"role":"assistant","content":""}"#, false),
        (r#"{"role": "assistant", "content": null}"#, false),
        (r#"{"role":"assistant","content":"x"}"#, true),
        (r#"{"role":"assistant"}"#, false),
        (r"{}", false),
        (r#"{"content":null}"#, false),
        (r#"{"content":""}"#, true),
        (r#"{"reasoning":"hm"}"#, true),
        (
            r#"{"role":"assistant","tool_calls":[{"index":0,"function":{"name":"f"}}]}"#,
            true,
        ),
        (r#"{"role":"assistant","tool_calls":[]}"#, false),
        (r#"{"broken"#, false),
    ] {
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        let (_, facts) = run(Api::Chat, false, [event.as_bytes()]);
        assert_eq!(facts.content_events == 1, is_content, "{delta}");
    }
}

#[test]
fn ends_and_errors_are_known_without_event_names_too() {
    for (api, event, done, errored) in [
        (
            Api::Responses,
            "data: {\"response\":{\"error\":null},\"type\":\"response.failed\"}\n\n",
            true,
            true,
        ),
        (
            Api::Responses,
            "data: {\"type\":\"response.incomplete\"}\n\n",
            true,
            false,
        ),
        (
            Api::Responses,
            "event: error\ndata: {\"type\":\"error\",\"code\":\"x\"}\n\n",
            false,
            true,
        ),
        (
            Api::Messages,
            "data: {\"type\": \"message_stop\"}\n\n",
            true,
            false,
        ),
        (
            Api::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n",
            false,
            true,
        ),
        (
            Api::Chat,
            "event: error\ndata: {\"message\":\"x\"}\n\n",
            false,
            true,
        ),
        (
            Api::Chat,
            "data: {\"error\":null,\"choices\":[]}\n\n",
            false,
            false,
        ),
        (Api::Chat, "data:[DONE]\n\n", true, false),
        (
            Api::Responses,
            "\u{feff}data: {\"type\":\"response.incomplete\"}\n\n",
            true,
            false,
        ),
        (
            Api::Chat,
            "\u{feff}event: error\ndata: {\"message\":\"x\"}\n\n",
            false,
            true,
        ),
        // It is one only where the stream begins.
        (
            Api::Chat,
            "data: {\"choices\":[]}\n\n\u{feff}data: [DONE]\n\n",
            false,
            false,
        ),
    ] {
        let (_, facts) = run(api, false, [event.as_bytes()]);
        assert_eq!((facts.done, facts.errored), (done, errored), "{event}");
    }
}

#[test]
fn usage_behind_a_very_long_answer_is_found_in_bounded_memory() {
    let text = "\\\"usage\\\": x ".repeat(40_000);
    let event = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":{},\"usage\":{{\"input_tokens\":7,\"output_tokens\":5}}}}}}\n\n",
        json!([{"text": text}])
    );
    for size in [1000, 8192, 65_536, usize::MAX] {
        let (sent, facts) = run(Api::Responses, false, event.as_bytes().chunks(size));
        assert_eq!(sent, event.as_bytes());
        assert_eq!(
            (facts.usage, facts.done),
            (Some(usage(7, 5, 0)), true),
            "{size}"
        );
    }
}

#[test]
fn an_event_too_long_to_be_the_usage_event_is_let_go() {
    let padding = "x".repeat(200_000);
    let event = format!(
        "data: {{\"id\":\"{padding}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":1}}}}\n\n"
    );
    let (sent, facts) = run(Api::Chat, true, event.as_bytes().chunks(1000));
    assert_eq!(sent, event.as_bytes());
    assert_eq!(facts.usage, Some(usage(1, 0, 0)));
    let endless = vec![b'x'; 1_000_000];
    let (sent, _) = run(Api::Chat, true, endless.chunks(777));
    assert_eq!(sent, endless);
}

#[test]
fn half_an_event_waits_for_its_end_and_leaves_room_for_an_error_event() {
    let mut tap = StreamTap::new(Api::Chat, false);
    let start = r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"he"#;
    tap.feed(Bytes::from(start), &mut |part| panic!("{part:?} went out"));
    assert!(tap.at_event_boundary());
    let mut sent = Vec::new();
    let end = "llo\"}}]}\n\n";
    tap.feed(Bytes::from(end), &mut |part| sent.extend_from_slice(&part));
    assert_eq!(sent, format!("{start}{end}").as_bytes());
}

#[test]
fn an_event_beyond_the_bound_goes_out_before_its_end() {
    let mut tap = StreamTap::new(Api::Chat, false);
    let mut sent = Vec::new();
    let start = format!("data: {{\"id\":\"{}", "c".repeat(EVENT_HELD_MAX));
    tap.feed(Bytes::from(start.clone()), &mut |part| {
        sent.extend_from_slice(&part);
    });
    assert_eq!(sent, start.as_bytes());
    assert!(!tap.at_event_boundary());
}

#[test]
fn a_held_event_goes_out_when_the_stream_ends_early() {
    let mut tap = StreamTap::new(Api::Chat, true);
    let start = r#"data: {"id":"c","choices":[],"usage":{"prompt"#;
    tap.feed(Bytes::from(start), &mut |part| panic!("{part:?} went out"));
    assert!(tap.at_event_boundary());
    assert_eq!(tap.finish(), start.as_bytes());
    assert!(!tap.at_event_boundary());
}

#[test]
fn a_boundary_is_told_exactly_where_one_has_gone_out() {
    for (api, stream, _) in streams() {
        for removes in [false, true] {
            let mut tap = StreamTap::new(api, removes);
            let mut sent = String::new();
            assert!(tap.at_event_boundary());
            for byte in stream.bytes() {
                tap.feed(Bytes::copy_from_slice(&[byte]), &mut |part| {
                    sent.push_str(std::str::from_utf8(&part).unwrap());
                });
                let open = sent.rsplit("\n\n").next().unwrap();
                let is_comment = open.starts_with(':') && open.ends_with('\n');
                let expected = open.is_empty() || is_comment;
                assert_eq!(tap.at_event_boundary(), expected, "{sent:?}");
            }
        }
    }
}

/// Text that should go out of a stream with the usage events cut: read whole and
/// line by line, as the specification of event streams tells it.
fn cut_by_the_book(stream: &str) -> String {
    let mut out = String::new();
    let mut event = String::new();
    let (mut has_field, mut data) = (false, Vec::new());
    let mut rest = stream;
    while let Some(end) = rest.find(['\n', '\r']) {
        let length = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        let (line, whole) = (&rest[..end], &rest[..end + length]);
        rest = &rest[end + length..];
        event.push_str(whole);
        if line.is_empty() {
            if !matches!(data.as_slice(), [USAGE_EVENT]) {
                out.push_str(&event);
            }
        } else if line.starts_with(':') && !has_field {
            out.push_str(&event);
        } else {
            has_field |= !line.starts_with(':');
            if let Some(value) = line.strip_prefix("data:") {
                data.push(value.strip_prefix(' ').unwrap_or(value));
            }
            continue;
        }
        event.clear();
        data.clear();
        has_field = false;
    }
    // One that is whole but for its blank line.
    if matches!(data.as_slice(), [USAGE_EVENT]) {
        return out;
    }
    out + &event + rest
}

const USAGE_EVENT: &str = r#"{"choices":[],"usage":{"prompt_tokens":1}}"#;

proptest! {
    #[test]
    fn exactly_the_usage_events_are_cut(
        pieces in vec(
            proptest::sample::select(vec![
                "data: ", "data:", USAGE_EVENT, "\n", "\n\n", "\r", "\r\n", "\r\n\r\n", "\r\r",
                ":c", "event: x", "{\"choices\":[{", "data: {\"choices\":[]}", "id: 1", "x",
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n",
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\r\n\r\n",
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\r\r",
            ]),
            0..20,
        ),
        lengths in vec(1..60_usize, 1..20),
    ) {
        let stream = pieces.concat();
        let mut frames = Vec::new();
        let mut rest = stream.as_bytes();
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (frame, after) = rest.split_at((*length).min(rest.len()));
            frames.push(frame);
            rest = after;
        }
        let (sent, _) = run(Api::Chat, true, frames.iter().copied());
        prop_assert_eq!(String::from_utf8(sent).unwrap(), cut_by_the_book(&stream));
        let (sent, facts) = run(Api::Chat, false, frames.iter().copied());
        prop_assert_eq!(sent, stream.as_bytes());
        let (_, whole) = run(Api::Chat, false, [stream.as_bytes()]);
        prop_assert_eq!(facts, whole);
    }

    #[test]
    fn no_bytes_are_lost_or_changed(
        frames in vec(vec(any::<u8>(), 0..60), 0..10),
        api in proptest::sample::select(Api::ALL.to_vec()),
        removes: bool,
    ) {
        let (sent, _) = run(api, removes, frames.iter().map(Vec::as_slice));
        prop_assert_eq!(sent, frames.concat());
    }
}
