mod pieces;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
pub(in super::super) use pieces::in_pieces;

pub(in super::super) const SDK_BODY: &str = r#"{"messages":[{"role":"user","content":"say \"hi\" \\ {[]}"}],"model":"Qwen/Qwen3-8B","max_completion_tokens":64,"n":2,"stream":true,"stream_options":{"include_usage":false},"temperature":0.70,"user":"ana","store":null}"#;

#[test]
fn the_fields_that_matter_are_found() {
    let found = scan(SDK_BODY.as_bytes()).unwrap();
    assert_eq!(found.model.as_deref(), Some("Qwen/Qwen3-8B"));
    assert!(matches!(found.model, Some(Cow::Borrowed(_))));
    assert!(found.stream);
    assert_eq!(
        found.stream_options.as_ref().unwrap().include_usage,
        Some(false)
    );
    assert!(!found.usage_was_asked());
    assert_eq!(found.output_tokens_max(), Some(64));
    assert_eq!((found.n, found.store), (Some(2), None));
    assert_eq!(found.user.as_deref(), Some("ana"));
}

#[test]
fn only_the_top_level_counts() {
    let body = br#"{"metadata":{"model":"x","stream":true},"tools":[{"n":9}],"include_usage":1,"include_usage":2}"#;
    let found = scan(body).unwrap();
    assert_eq!((found.model, found.stream, found.n), (None, false, None));
}

#[test]
fn keys_and_models_may_be_written_with_escapes() {
    let found = scan(br#"{"mod\u0065l":"\u0071wen\/\ud83d\ude00","\u0073tream":true}"#).unwrap();
    assert_eq!(found.model.as_deref(), Some("qwen/\u{1f600}"));
    assert!(found.stream);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn bodies_that_others_could_read_differently_are_refused() {
    for (body, code) in [
        (&br#"{"model":"a","model":"b"}"#[..], "duplicate_key"),
        (br#"{"model":"a","mod\u0065l":"a"}"#, "duplicate_key"),
        (br#"{"stream":true,"stream":true}"#, "duplicate_key"),
        (
            br#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            "duplicate_key",
        ),
        (br#"{"n":1,"n":1}"#, "duplicate_key"),
        (br#"{"model":1}"#, "invalid_model"),
        (br#"{"model":null}"#, "invalid_model"),
        (br#"{"model":["a"]}"#, "invalid_model"),
        (br#"{"model":"\ud800"}"#, "invalid_model"),
        (br#"{"model":"\x41"}"#, "invalid_model"),
        (b"{\"model\":\"\xff\"}", "invalid_json"),
        (b"{\"x\":\"\xff\"}", "invalid_json"),
        (b"{\"x\":\"\xc3\"}", "invalid_json"),
        (b"{\"x\":\"\xed\xa0\x80\"}", "invalid_json"),
        (b"{\"x\":1}\xc3", "invalid_json"),
        (b"{\"messages\":[{\"content\":\"a\xfeb\"}]}", "invalid_json"),
        (b"{\"model\":\"a\nb\"}", "invalid_model"),
        (br#"{"stream":2}"#, "invalid_value"),
        (br#"{"stream":"maybe"}"#, "invalid_value"),
        (br#"{"stream_options":[]}"#, "invalid_value"),
        (
            br#"{"stream_options":{"include_usage":2}}"#,
            "invalid_value",
        ),
        (br#"{"max_tokens":"many"}"#, "invalid_value"),
        (br#"{"max_tokens":-1}"#, "invalid_value"),
        (br#"{"max_tokens":1.5}"#, "invalid_value"),
        (br#"{"user":7}"#, "invalid_value"),
        (br#"{"store":"perhaps"}"#, "invalid_value"),
        (b"", "invalid_json"),
        (b"  ", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"[{\"model\":\"a\"}]", "invalid_json"),
        (b"null", "invalid_json"),
        (b"\xef\xbb{}", "invalid_json"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "invalid_json"),
        (b" \xef\xbb\xbf{}", "invalid_json"),
        (b"\xff\xfe{\0}\0", "invalid_json"),
        (b"{\0\"\0}\0", "invalid_json"),
        (b"\0{\0}", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b"{}x", "invalid_json"),
        (b"x{}", "invalid_json"),
        (b"{\"a\":NaN}", "invalid_json"),
        (b"{\"a\":-Infinity}", "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b"{\"a\":1,}", "invalid_json"),
        (b"{\"a\":[1,]}", "invalid_json"),
        (b"{,}", "invalid_json"),
        (b"{\"a\":[1}}", "invalid_json"),
        (b"{\"a\":{\"b\":1]}", "invalid_json"),
        (b"{\"a\":01}", "invalid_json"),
        (b"{\"a\":+1}", "invalid_json"),
        (b"{\"a\":1.}", "invalid_json"),
        (b"{\"a\":.5}", "invalid_json"),
        (b"{\"a\":1e}", "invalid_json"),
        (b"{\"a\":truex}", "invalid_json"),
        (b"{\"a\" 1}", "invalid_json"),
        (b"{\"a\":1 \"b\":2}", "invalid_json"),
        (b"{\"a\":\"", "invalid_json"),
        (b"{\"a\":\"\\", "invalid_json"),
        (b"{\"a\":// no\n1}", "invalid_json"),
        (b"{\"\xff\":1}", "invalid_json"),
    ] {
        let text = String::from_utf8_lossy(body);
        assert_eq!(
            strict(body).map_err(|error| error.code()).err(),
            Some(code),
            "{text}"
        );
    }
}

#[test]
fn an_error_tells_the_client_what_to_look_at() {
    let error = scan(br#"{"model":"a","x":}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request body is not valid JSON: expected a value at byte 17"
    );
    let error = strict(br#"{"model":"a","stream":2}"#).unwrap_err();
    assert_eq!(error.to_string(), "`stream` must be true, false or null");
    assert_eq!(error.param(), Some("stream"));
}

/// As for our own workers, which take what vLLM takes.
fn strict(body: &[u8]) -> Result<Scan<'_>, ScanError> {
    let mut scan = scan(body)?;
    scan.odd.take().map_or(Ok(scan), Err)
}

#[test]
fn what_other_servers_may_take_is_noted_and_the_rest_is_read() {
    let body = br#"{"max_tokens":-1,"n":[1,{"a":2}],"user":7,"stream":{},"model":"m","stream_options":"x","store":true}"#;
    let found = scan(body).unwrap();
    let expected = "a non-negative integer or null";
    let key = "max_tokens".into();
    assert_eq!(found.odd, Some(ScanError::Field { key, expected }));
    assert_eq!(found.model.as_deref(), Some("m"));
    assert_eq!(
        (found.max_tokens, found.n, found.store),
        (None, None, Some(true))
    );
    assert!(!found.stream && found.user.is_none() && found.stream_options.is_none());
}

#[test]
fn counts_and_switches_may_be_spelled_as_pydantic_takes_them() {
    let found = strict(br#"{"max_tokens":"100","stream":"false","store":1,"background":"On"}"#);
    let found = found.unwrap();
    assert_eq!((found.max_tokens, found.stream), (Some(100), false));
    assert_eq!((found.store, found.background), (Some(true), Some(true)));
    assert!(strict(br#"{"stream":"TRUE"}"#).unwrap().stream);
    for odd in [
        r#""-1""#,
        r#""1e3""#,
        r#""""#,
        r#"" 1""#,
        r#""99999999999999999999""#,
    ] {
        let body = format!("{{\"max_tokens\":{odd}}}");
        assert!(strict(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn a_byte_order_mark_is_read_over_and_not_passed_on() {
    let body = b"\xef\xbb\xbf {\"model\":\"a\"}";
    let scan = scan(body).unwrap();
    assert_eq!(scan.model.as_deref(), Some("a"));
    for (model, sent) in [
        (None, " {\"model\":\"a\"}"),
        (Some("b"), " {\"model\":\"b\"}"),
    ] {
        let edits = crate::openai::splice::Edits {
            model,
            include_usage: false,
            continuous_usage: false,
        };
        let whole = bytes::Bytes::from_static(body).into();
        let spliced = crate::openai::splice::splice(&whole, &scan, edits);
        assert_eq!(spliced.into_one(), sent);
    }
}

#[test]
fn nesting_has_a_bound() {
    let nested = |levels: usize| {
        let inner = levels - 1;
        format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
    };
    assert!(scan(nested(128).as_bytes()).is_ok());
    assert!(matches!(
        scan(nested(129).as_bytes()),
        Err(ScanError::TooDeep { .. })
    ));
    assert!(matches!(
        scan("{\"a\":".repeat(1_000_000).as_bytes()),
        Err(ScanError::TooDeep { .. })
    ));
    let inside_options = format!("{{\"stream_options\":{}}}", nested(128));
    assert!(matches!(
        scan(inside_options.as_bytes()),
        Err(ScanError::TooDeep { .. })
    ));
}

/// Meaning of a field's value by the rules of the API; `Err` where it is odd.
fn expected_count(value: Option<&Value>) -> Result<Option<u64>, ()> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => Ok(Some(count)),
            (None, Some(float)) => {
                let text = format!("{float:.0}");
                let is_whole = float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
                let count = text.trim_start_matches("-0").parse();
                match (is_whole, text.as_str()) {
                    (true, "-0") => Ok(Some(0)),
                    (true, _) => count.map(Some).map_err(|_| ()),
                    _ => Err(()),
                }
            }
            _ => Err(()),
        },
        Some(Value::String(text)) if !text.contains('+') => text.parse().map(Some).map_err(|_| ()),
        Some(_) => Err(()),
    }
}

fn expected_flag(value: Option<&Value>) -> Result<Option<bool>, ()> {
    let word = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(value)) => return Ok(Some(*value)),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) if text.contains('.') => return Err(()),
        Some(Value::String(text)) => text.to_ascii_lowercase(),
        Some(_) => return Err(()),
    };
    match word.as_str() {
        "true" | "1" | "1.0" | "yes" | "on" | "t" | "y" => Ok(Some(true)),
        "false" | "0" | "0.0" | "no" | "off" | "f" | "n" => Ok(Some(false)),
        _ => Err(()),
    }
}

fn expected_words(value: Option<&Value>) -> Result<Option<Cow<'_, str>>, ()> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(Cow::Borrowed(value))),
        Some(_) => Err(()),
    }
}

/// A value that is odd is taken for none, and noted.
fn noted<T>(found: Result<Option<T>, ()>, is_odd: &mut bool) -> Option<T> {
    *is_odd |= found.is_err();
    found.unwrap_or_default()
}

fn expected_options(value: Option<&Value>, is_odd: &mut bool) -> Option<StreamOptions> {
    let map = match value {
        None | Some(Value::Null) => return None,
        Some(Value::Object(map)) => map,
        Some(_) => return noted(Err(()), is_odd),
    };
    let mut flag = |key| noted(expected_flag(map.get(key)), is_odd);
    Some(StreamOptions {
        include_usage: flag("include_usage"),
        continuous_usage_stats: flag("continuous_usage_stats"),
        layout: OptionsLayout::default(),
    })
}

/// Result that `scan` should have, worked out of serde's tree, and whether something is odd.
fn expected(map: &Map<String, Value>) -> Result<(Scan<'_>, bool), ()> {
    if map.get("model").is_some_and(Value::is_null) {
        return Err(());
    }
    let mut odd = false;
    let scan = Scan {
        model: expected_words(map.get("model"))?,
        stream: noted(expected_flag(map.get("stream")), &mut odd).unwrap_or(false),
        stream_options: expected_options(map.get("stream_options"), &mut odd),
        max_tokens: noted(expected_count(map.get("max_tokens")), &mut odd),
        max_completion_tokens: noted(expected_count(map.get("max_completion_tokens")), &mut odd),
        max_output_tokens: noted(expected_count(map.get("max_output_tokens")), &mut odd),
        n: noted(expected_count(map.get("n")), &mut odd),
        user: noted(expected_words(map.get("user")), &mut odd),
        prompt_cache_key: noted(expected_words(map.get("prompt_cache_key")), &mut odd),
        background: noted(expected_flag(map.get("background")), &mut odd),
        store: noted(expected_flag(map.get("store")), &mut odd),
        prompt: 0..0,
        brings: false,
        odd: None,
        layout: Layout::default(),
    };
    Ok((scan, odd))
}

fn without_layout(mut scan: Scan<'_>) -> Scan<'_> {
    scan.layout = Layout::default();
    scan.brings = false;
    scan.prompt = 0..0;
    if let Some(options) = &mut scan.stream_options {
        options.layout = OptionsLayout::default();
    }
    scan
}

/// Tells whether an object has a key twice.
fn repeats_a_key(body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    let (mut keys, mut more) = (Vec::new(), reader.open_object().unwrap_or(false));
    while more {
        let Ok(key) = reader.key() else { break };
        keys.push(key.decode().map(Cow::into_owned));
        let Ok(_) = reader.skip_value(1) else { break };
        more = reader.more_members().unwrap_or(false);
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    keys.len() < count
}

/// Errors of serde that `scan` leaves to the worker, because they lie inside
/// strings and numbers that do not matter here.
const LEFT_TO_THE_WORKER: [&str; 7] = [
    "control character",
    "invalid escape",
    "invalid unicode code point",
    "surrogate",
    "unexpected end of hex escape",
    "number out of range",
    "recursion limit exceeded",
];

pub(in super::super) fn agrees_with_serde(body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    // The mark is ours to take.
    let bare = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let theirs = serde_json::from_slice::<Map<String, Value>>(bare);
    match (scan(body), theirs) {
        (Ok(mut ours), Ok(map)) => {
            let is_odd = ours.odd.take().is_some();
            assert_eq!(Ok((without_layout(ours), is_odd)), expected(&map), "{text}");
        }
        (Ok(_), Err(error)) => {
            let error = error.to_string();
            // An escape of four digits that has none may take the end of its string.
            let is_left = LEFT_TO_THE_WORKER.iter().any(|left| error.contains(left))
                || error.contains("EOF while parsing a string") && text.contains("\\u");
            assert!(is_left, "{error}: {text}");
        }
        (Err(ScanError::Model), Ok(map)) if !repeats_a_key(body) => {
            assert_eq!(expected(&map), Err(()), "{text}");
        }
        // Serde takes the last of duplicates, silently.
        (Err(ScanError::Duplicate { .. } | ScanError::Model), Ok(_)) | (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => panic!("{error}: {text}"),
    }
}

/// Keys that matter, keys that look like it, and others.
fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(vec![
            "model", "stream", "stream_options", "max_tokens", "max_completion_tokens",
            "max_output_tokens", "n", "user", "prompt_cache_key", "background", "store",
            "include_usage", "continuous_usage_stats", "Model", "models", "",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-4000..4000_i32).prop_map(|quarters| json!(f64::from(quarters) / 4.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any_key(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// An object whose known fields mostly have values that their API allows.
pub(in super::super) fn any_body() -> impl Strategy<Value = Map<String, Value>> {
    let sensible = prop_oneof![
        "[a-zA-Z0-9/\"\\\\é😀\n]{0,12}".prop_map(|model| ("model".to_owned(), json!(model))),
        any::<Option<bool>>().prop_map(|stream| ("stream".to_owned(), json!(stream))),
        any::<Option<u32>>().prop_map(|max| ("max_tokens".to_owned(), json!(max))),
        (any::<Option<bool>>(), any::<Option<bool>>()).prop_map(|(usage, all)| {
            let options = json!({"include_usage": usage, "continuous_usage_stats": all});
            ("stream_options".to_owned(), options)
        }),
        any::<Option<bool>>().prop_map(|usage| {
            let options = usage.map(|usage| json!({ "include_usage": usage, "x": [1] }));
            ("stream_options".to_owned(), json!(options))
        }),
        Just(("stream_options".to_owned(), json!({}))),
    ];
    let member = prop_oneof![3 => sensible, 1 => (any_key(), any_value())];
    vec(member, 0..9).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn it_agrees_with_serde_on_any_document(body in any_body(), is_pretty: bool) {
        let bytes = if is_pretty {
            serde_json::to_vec_pretty(&body).unwrap()
        } else {
            serde_json::to_vec(&body).unwrap()
        };
        let is_duplicate = matches!(scan(&bytes), Err(ScanError::Duplicate { .. }));
        prop_assert!(!is_duplicate);
        agrees_with_serde(&bytes);
    }

    #[test]
    fn it_agrees_with_serde_on_any_value(value in any_value()) {
        agrees_with_serde(&serde_json::to_vec(&value).unwrap());
    }

    #[test]
    fn it_agrees_with_serde_on_damaged_bodies(
        body in any_body(),
        damage in vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut bytes = serde_json::to_vec(&body).unwrap();
        for (index, way, byte) in damage {
            let at = index.index(bytes.len().max(1));
            match way {
                0 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
                1 if at < bytes.len() => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, b"{}[]\",:\\tn0-. "[usize::from(byte) % 14]),
            }
        }
        agrees_with_serde(&bytes);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        agrees_with_serde(&bytes);
    }

    #[test]
    fn no_json_like_text_makes_it_panic(text in "[{}\\[\\]\",:\\\\tfnu0-9eE.+ \n-]{0,60}") {
        agrees_with_serde(text.as_bytes());
        agrees_with_serde(format!("{{\"model\":{text}").as_bytes());
    }
}

#[test]
fn every_single_flipped_bit_is_judged_as_serde_does() {
    for at in 0..SDK_BODY.len() {
        for bit in 0..8 {
            let mut bytes = SDK_BODY.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            agrees_with_serde(&bytes);
        }
        agrees_with_serde(&SDK_BODY.as_bytes()[..at]);
    }
}
