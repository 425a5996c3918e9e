use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn tapped(frames: &[&[u8]]) -> Option<Usage> {
    let mut tap = JsonTap::new(Api::Chat);
    for frame in frames {
        tap.feed(&Bytes::copy_from_slice(frame));
    }
    tap.usage()
}

fn usage(prompt: u64, completion: u64, cached: u64) -> Usage {
    Usage {
        prompt,
        completion,
        cached,
    }
}

#[test]
fn usage_of_every_api_is_read_whatever_the_frames() {
    for (body, expected) in [
        // chat
        (
            r#"{"id":"c","choices":[{"message":{"content":"} \"usage\":{\"prompt_tokens\":9} \\"}}],"usage":{"prompt_tokens":6,"total_tokens":14,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4,"multimodal_tokens":null},"completion_tokens_details":null},"metrics":null}"#,
            Some(usage(6, 8, 4)),
        ),
        // as some servers count, and with PHP's empty list for an empty object
        (
            r#"{"usage":{"prompt_tokens":7.0,"completion_tokens":2e0,"prompt_tokens_details":[],"completion_tokens_details":[]}}"#,
            Some(usage(7, 2, 0)),
        ),
        (
            r#"{"usage":{"prompt_tokens":7.5,"completion_tokens":2}}"#,
            None,
        ),
        // embeddings
        (
            r#"{"object":"list","data":[{"embedding":[0.5,-1e-3,[{}]]}],"usage":{"prompt_tokens":5,"total_tokens":5,"completion_tokens":0,"prompt_tokens_details":null}}"#,
            Some(usage(5, 0, 0)),
        ),
        // rerank: usage stands before the results
        (
            r#"{"id":"s","model":"m","usage":{"prompt_tokens":6,"total_tokens":6},"results":[{"index":1}]}"#,
            Some(usage(6, 0, 0)),
        ),
        // responses
        (
            r#"{"output":[],"usage":{"input_tokens":6,"input_tokens_details":{"cached_tokens":2,"input_tokens_per_turn":[]},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":10},"user":null}"#,
            Some(usage(6, 4, 2)),
        ),
        // messages: what the cache gave is not in input_tokens
        (
            r#"{"type":"message","content":[{"type":"text","text":"\u001d{\\"}],"usage":{"input_tokens":6,"output_tokens":4,"cache_creation_input_tokens":1,"cache_read_input_tokens":16}}"#,
            Some(usage(23, 4, 16)),
        ),
        // transcriptions count seconds
        (
            r#"{"text":"a","usage":{"type":"duration","seconds":3}}"#,
            None,
        ),
        (
            r#"{"count":2,"max_model_len":512,"tokens":[361,341]}"#,
            None,
        ),
        (
            r#"{"usage":null,"choices":[{"usage":{"prompt_tokens":1}}]}"#,
            None,
        ),
        (r#"{"x":{"usage":{"prompt_tokens":1}}}"#, None),
        (
            r#"{"usage":{"prompt_tokens":2},"x":{"usage":{"prompt_tokens":1}}}"#,
            Some(usage(2, 0, 0)),
        ),
        (
            r#"{"usage":{"prompt_tokens":2},"x":["usage",{"usage":{"prompt_tokens":1},"y":{}}],"z":"\"usage\":{"}"#,
            Some(usage(2, 0, 0)),
        ),
        (r#"{"x":"usage","usage":"x"}"#, None),
        (r#"{"error":{"message":"no","code":400}}"#, None),
        (r#"{"usage":{"prompt_tokens":"six"}}"#, None),
        (r#"[{"usage":{"prompt_tokens":1}}]"#, None),
        (
            " {\n \"a\" : { } , \"usage\" : { \"prompt_tokens\" : 1 } }",
            Some(usage(1, 0, 0)),
        ),
    ] {
        let bytes = body.as_bytes();
        assert_eq!(tapped(&[bytes]), expected, "{body}");
        for at in 0..bytes.len() {
            let (start, end) = bytes.split_at(at);
            assert_eq!(tapped(&[start, b"", end]), expected, "{at}: {body}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(tapped(&single), expected, "{body}");
    }
}

#[test]
fn usage_beyond_the_bound_is_none() {
    let body = |padding: usize| {
        let padding = " ".repeat(padding);
        format!("{{\"usage\":{{\"prompt_tokens\":1{padding}}}}}")
    };
    assert!(tapped(&[body(4000).as_bytes()]).is_some());
    let long = body(1_000_000);
    let mut tap = JsonTap::new(Api::Chat);
    for frame in long.as_bytes().chunks(1000) {
        tap.feed(&Bytes::copy_from_slice(frame));
        assert!(tap.finder.captured.len() <= CAPTURE_BYTES_MAX);
    }
    assert_eq!(tap.usage(), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a\"\\\\{}\\[\\],:é]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop_oneof![Just("usage".to_owned()), "[a-c\"\\\\{]{0,3}"];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((key, inner), 0..5).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn only_the_top_level_usage_is_found(
        members in vec(("[a-z\"\\\\{}]{0,4}", any_json()), 0..5),
        at in 0..5_usize,
        counts in proptest::option::of((any::<u64>(), any::<u64>())),
        lengths in vec(1..40_usize, 1..20),
    ) {
        let mut members: Vec<String> = members
            .iter()
            .filter(|(key, _)| key != "usage")
            .map(|(key, value)| format!("{}:{value}", json!(key)))
            .collect();
        if let Some((prompt, completion)) = counts {
            let value = json!({"prompt_tokens": prompt, "completion_tokens": completion});
            members.insert(at.min(members.len()), format!("\"usage\":{value}"));
        }
        let body = format!("{{{}}}", members.join(","));
        let mut tap = JsonTap::new(Api::Chat);
        let mut rest = body.as_bytes();
        for length in lengths.iter().cycle() {
            let (frame, after) = rest.split_at((*length).min(rest.len()));
            tap.feed(&Bytes::copy_from_slice(frame));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let expected = counts.map(|(prompt, completion)| usage(prompt, completion, 0));
        prop_assert_eq!(tap.usage(), expected, "{}", body);
    }

    #[test]
    fn garbage_is_no_usage_and_no_panic(
        frames in vec("[{}\\[\\]\",:\\\\usage0-9 ]{0,20}", 0..8),
        noise in vec(any::<u8>(), 0..50),
    ) {
        let mut tap = JsonTap::new(Api::Chat);
        for frame in &frames {
            tap.feed(&Bytes::copy_from_slice(frame.as_bytes()));
        }
        tap.feed(&Bytes::from(noise));
        prop_assert!(tap.finder.captured.len() <= CAPTURE_BYTES_MAX);
    }
}

#[test]
fn ids_of_responses_and_other_places_of_usage_are_found() {
    let mut tap = JsonTap::new(Api::Responses);
    for piece in [
        r#"{"object":"response","output":[{"id":"msg_1"}],"i"#,
        r#"d":"resp_"#,
        r#"17","usage":{"input_tokens":3,"output_tokens":4},"x":{"id":"no"}}"#,
    ] {
        tap.feed(&Bytes::copy_from_slice(piece.as_bytes()));
    }
    assert_eq!(tap.response_id().as_deref(), Some("resp_17"));
    assert_eq!(tap.usage(), Some(usage(3, 4, 0)));
    for no in [
        r#"{"id":"a b"}"#,
        r#"{"id":""}"#,
        r#"{"id":1}"#,
        r#"{"x":{"id":"a"}}"#,
        "[",
    ] {
        let mut tap = JsonTap::new(Api::Responses);
        tap.feed(&Bytes::copy_from_slice(no.as_bytes()));
        assert_eq!(tap.response_id(), None, "{no}");
    }
    let long = format!("{{\"id\":\"{}\"}}", "a".repeat(200));
    let mut tap = JsonTap::new(Api::Responses);
    tap.feed(&Bytes::from(long));
    assert_eq!(tap.response_id(), None);

    let mut tap = JsonTap::new(Api::Embed);
    tap.feed(&Bytes::from_static(br#"{"id":"e","embeddings":{"float":[[0.5]]},"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":7,"image_tokens":null}}}"#));
    assert_eq!(tap.usage(), Some(usage(7, 0, 0)));

    let mut tap = JsonTap::new(Api::Transcriptions);
    tap.feed(&Bytes::from_static(
        br#"{"text":"hi","usage":{"type":"duration","seconds":7}}"#,
    ));
    assert_eq!(tap.counted(), (None, Some(7.0)));
}
