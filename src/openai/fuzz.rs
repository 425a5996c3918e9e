//! Bodies, events, forms and usage out of damaged corpora; see [`crate::fuzz`].

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::request::tests::{SDK_BODY, agrees_with_serde, in_pieces};
use super::splice::tests::{ASK, ASK_ALWAYS, BOTH, RENAME, expected};
use super::splice::{Edits, splice};
use super::sse::tests::{run, streams};
use super::usage::JsonTap;
use super::{form, realtime, request};
use crate::fuzz;
use crate::pieces::Pieces;

/// Requests of SDKs and agents.
const BODIES: [&str; 6] = [
    SDK_BODY,
    r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a\u00e9\\\""}]}],"stream":true}"#,
    r#"{ "stream" : true , "stream_options" : { "x":1, "include_usage" : null , "continuous_usage_stats":true } , "model":"a" }"#,
    r#"{"input":["a",{"b":[1,-0.5e+3,true,null]}],"model":"text","encoding_format":"float"}"#,
    r#"{"model":"claude","max_tokens":1e2,"system":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}],"metadata":{"user_id":"u"}}"#,
    "{}",
];
const JSON: [&str; 36] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u00e9",
    "\\ud800",
    "\\u0000",
    "\\x",
    "\n",
    " ",
    "null",
    "true",
    "false",
    "0",
    "-",
    "01",
    "1e999",
    "1.0",
    "9007199254740993",
    "\"model\":",
    "\"mod\\u0065l\":\"x\",",
    "\"stream\":true,",
    "\"stream_options\":{",
    "\"include_usage\":",
    "\"max_tokens\":",
    "\"usage\":{\"prompt_tokens\":7},",
    "\"usage\":null",
    "{}",
    "[]",
    "\u{feff}",
    "\"a\":{\"b\":[{}]},",
    "NaN",
];
const EVENTS: [&str; 24] = [
    "data: ",
    "data:",
    "data",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "\r\n\r\n",
    ":",
    ": c",
    "event: error\n",
    "event: response.completed\n",
    "id: 1",
    "[DONE]",
    "data: [DONE]\n\n",
    "{\"choices\":[]}",
    "}",
    "{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}",
    "\"usage\":",
    "\"finish_reason\":\"stop\"",
    "{\"error\":{}}",
    "\"",
    "\u{e9}",
    "\u{feff}",
];
/// One sound and its model, as SDKs send them, behind the boundary `X`.
const FORMS: [&str; 2] = [
    "--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--\r\n--Xy\r\n\r\n--X--\r\n",
    "--X\r\ncontent-disposition:form-data;name=stream\r\n\r\ntrue\r\n--X\r\ncontent-disposition:form-data;name=model\r\n\r\nw\r\n--X--\r\n",
];
const PARTS: [&str; 14] = [
    "--X\r\n",
    "--X--",
    "--X",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "--",
    "name=",
    "\"",
    ";",
    "model",
    "Content-Disposition: form-data; name=\"model\"\r\n\r\nb",
    "filename*=",
    "\0",
];
const SESSIONS: [&str; 3] = [
    r#"{"type":"session.update","model":"voice","session":{"model":"other"}}"#,
    r#"{"type":"transcription.done","text":"x","usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
    r#"{"response":{"usage":{"input_tokens":3}},"type":"response.done"}"#,
];

/// True if the flags of streams are written as true, false or null: vLLM takes more,
/// and so do we, but the tree that we are held against does not.
fn has_plain_flags(map: &Map<String, Value>) -> bool {
    let options = map.get("stream_options").and_then(Value::as_object);
    let of_options = |key| options.and_then(|options| options.get(key));
    let flags = [
        map.get("stream"),
        of_options("include_usage"),
        of_options("continuous_usage_stats"),
    ];
    let mut flags = flags.into_iter().flatten();
    flags.all(|flag| flag.is_boolean() || flag.is_null())
}

/// The body as it comes in pieces of these lengths.
fn arrived(body: &[u8], cuts: &[usize]) -> Pieces {
    let mut pieces = Pieces::default();
    for piece in fuzz::pieces(body, cuts) {
        pieces.push(Bytes::copy_from_slice(piece));
    }
    pieces
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_request_scan(body in fuzz::damaged(&BODIES, &JSON), cuts in fuzz::cuts()) {
        agrees_with_serde(&body);
        let mut at = 0;
        let cuts: Vec<usize> = fuzz::pieces(&body, &cuts).iter().map(|piece| {
            at += piece.len();
            at
        }).collect();
        prop_assert_eq!(in_pieces(&body, &cuts), request::scan(&body));
    }

    #[test]
    fn fuzz_splice(
        body in fuzz::damaged(&BODIES, &JSON),
        cuts in fuzz::cuts(),
        edits in proptest::sample::select(vec![RENAME, ASK, ASK_ALWAYS, BOTH, Edits::default()]),
    ) {
        let Ok(found) = request::scan(&body) else { return Ok(()) };
        let out = splice(&arrived(&body, &cuts), &found, edits).into_one();
        let again = request::scan(&out).unwrap();
        prop_assert!(edits.model.is_none() || again.model.as_deref() == edits.model);
        prop_assert!(again.usage_was_asked() || !(edits.include_usage && again.stream));
        if let Ok(map) = serde_json::from_slice::<Map<String, Value>>(&body)
            && has_plain_flags(&map)
        {
            let after: Map<String, Value> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(after, expected(map, edits));
        }
    }

    #[test]
    fn fuzz_event_stream(
        stream in fuzz::damaged(&streams().map(|(_, text, _)| text), &EVENTS),
        api in proptest::sample::select(Api::ALL.to_vec()),
        removes: bool,
        cuts in fuzz::cuts(),
    ) {
        let (sent, facts) = run(api, removes, fuzz::pieces(&stream, &cuts));
        let (sent_whole, facts_whole) = run(api, removes, [&stream[..]]);
        prop_assert_eq!(&sent, &sent_whole);
        prop_assert_eq!(facts, facts_whole);
        prop_assert!(removes || sent == stream);
        prop_assert!(sent.len() <= stream.len());
    }

    #[test]
    fn fuzz_usage(
        body in fuzz::damaged(
            &[
                r#"{"id":"c","choices":[{"message":{"content":"} \"usage\":{} \\"}}],"usage":{"prompt_tokens":6,"total_tokens":14,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4}}}"#,
                r#"{"id":"r","usage":{"input_tokens":6,"input_tokens_details":{"cached_tokens":1},"output_tokens":3},"output":[]}"#,
                r#"{"usage":{"prompt_tokens":6,"total_tokens":6},"results":[{"index":1}]}"#,
            ],
            &JSON,
        ),
        api in proptest::sample::select(Api::ALL.to_vec()),
        cuts in fuzz::cuts(),
    ) {
        // What is not JSON tells nothing that could be wrong.
        prop_assume!(serde_json::from_slice::<IgnoredAny>(&body).is_ok());
        // Nor is it told which of two is right: readers differ about a key that is repeated.
        prop_assume!(memchr::memmem::find_iter(&body, b"\"usage\"").count() <= 1);
        let mut tap = JsonTap::new(api);
        for piece in fuzz::pieces(&body, &cuts) {
            tap.feed(&Bytes::copy_from_slice(piece));
        }
        let mut at_once = JsonTap::new(api);
        at_once.feed(&Bytes::copy_from_slice(&body));
        prop_assert_eq!(tap.counted(), at_once.counted());
        prop_assert_eq!(tap.response_id(), at_once.response_id());
    }

    #[test]
    fn fuzz_form(body in fuzz::damaged(&FORMS, &PARTS), cuts in fuzz::cuts()) {
        drop(form::boundary(&String::from_utf8_lossy(&body)));
        let Ok(found) = form::scan(&body, "X") else { return Ok(()) };
        let pieces = arrived(&body, &cuts);
        if found.model.is_some() {
            let out = splice(&pieces, &found, RENAME).into_one();
            let again = form::scan(&out, "X").unwrap();
            prop_assert_eq!(again.model.as_deref(), RENAME.model);
        } else {
            // Blank lines before the first boundary are left out.
            let out = splice(&pieces, &found, Edits::default()).into_one();
            let blank = body.strip_suffix(&out[..]).unwrap();
            prop_assert!(blank.iter().all(|byte| b"\r\n".contains(byte)));
        }
    }

    #[test]
    fn fuzz_session_event(text in fuzz::damaged(&SESSIONS, &JSON)) {
        let _: Option<_> = realtime::usage(&text);
        let Ok(event) = realtime::read(&text) else { return Ok(()) };
        if event.kind == realtime::Kind::Other && !event.is_named() {
            // Never renamed: there may be nothing behind the name's comma.
            return Ok(());
        }
        let renamed = event.with_model(&text, "served");
        let again = realtime::read(&renamed).unwrap();
        prop_assert_eq!(again.model.as_deref(), Some("served"));
        if let Ok(theirs) = serde_json::from_slice::<Value>(&text)
            && event.is_named()
        {
            let named = |at: &Value| at.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
            let model = named(&theirs["model"]).or_else(|| named(&theirs["session"]["model"]));
            prop_assert_eq!(event.model.map(|model| json!(model)), model.map(|model| json!(model)));
        }
    }
}
