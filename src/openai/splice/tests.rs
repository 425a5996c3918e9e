use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::request::{scan, tests::any_body};
use super::*;

fn spliced(body: &str, edits: Edits<'_>) -> String {
    let whole = Bytes::copy_from_slice(body.as_bytes());
    let out = splice(&whole.clone().into(), &scan(&whole).unwrap(), edits);
    String::from_utf8(out.into_one().to_vec()).unwrap()
}

pub(in super::super) const RENAME: Edits<'static> = Edits {
    model: Some("served"),
    include_usage: false,
    continuous_usage: false,
};
pub(in super::super) const ASK: Edits<'static> = Edits {
    model: None,
    include_usage: true,
    continuous_usage: false,
};
pub(in super::super) const BOTH: Edits<'static> = Edits {
    model: Some("served"),
    include_usage: true,
    continuous_usage: false,
};

pub(in super::super) const ASK_ALWAYS: Edits<'static> = Edits {
    model: None,
    include_usage: true,
    continuous_usage: true,
};

#[test]
fn all_other_bytes_stay_as_they_were() {
    for (edits, body, expected) in [
        (
            RENAME,
            "{ \"n\" : 1.50e+1 ,\n\t\"model\" : \"a\\u0062\" , \"x\":[ ] } \n",
            "{ \"n\" : 1.50e+1 ,\n\t\"model\" : \"served\" , \"x\":[ ] } \n",
        ),
        (RENAME, " { } ", " {\"model\":\"served\" } "),
        (RENAME, "{\"a\":1}", "{\"model\":\"served\",\"a\":1}"),
        (
            ASK,
            "{\"stream\":true}",
            "{\"stream_options\":{\"include_usage\":true},\"stream\":true}",
        ),
        (
            ASK,
            "{\"stream\":true,\"stream_options\": null }",
            "{\"stream\":true,\"stream_options\": {\"include_usage\":true} }",
        ),
        (
            ASK,
            "{\"stream\":true,\"stream_options\":{ }}",
            "{\"stream\":true,\"stream_options\":{\"include_usage\":true }}",
        ),
        (
            ASK,
            "{\"stream\":true,\"stream_options\":{\"x\":1}}",
            "{\"stream\":true,\"stream_options\":{\"include_usage\":true,\"x\":1}}",
        ),
        (
            ASK,
            "{\"stream_options\":{\"include_usage\": false },\"stream\":true}",
            "{\"stream_options\":{\"include_usage\": true },\"stream\":true}",
        ),
        (
            ASK,
            "{\"stream_options\":{\"continuous_usage_stats\":true},\"stream\":true}",
            "{\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":false},\"stream\":true}",
        ),
        (
            ASK_ALWAYS,
            "{\"stream\":true}",
            "{\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true},\"stream\":true}",
        ),
        (
            ASK_ALWAYS,
            "{\"stream\":true,\"stream_options\":{\"include_usage\":true , \"x\":1}}",
            "{\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true,\"include_usage\":true , \"x\":1}}",
        ),
        (
            ASK_ALWAYS,
            "{\"stream_options\":{\"continuous_usage_stats\": false},\"stream\":true}",
            "{\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\": true},\"stream\":true}",
        ),
        (
            BOTH,
            "{\"stream\":true}",
            "{\"model\":\"served\",\"stream_options\":{\"include_usage\":true},\"stream\":true}",
        ),
        (
            BOTH,
            "{\"stream_options\":null,\"stream\":true,\"model\":\"\"}",
            "{\"stream_options\":{\"include_usage\":true},\"stream\":true,\"model\":\"served\"}",
        ),
    ] {
        assert_eq!(spliced(body, edits), expected);
    }
}

#[test]
fn a_body_that_needs_no_edit_is_not_copied() {
    for (body, edits) in [
        ("{\"model\":\"served\"}", RENAME),
        ("{\"model\":\"a\",\"stream\":false}", ASK),
        ("{\"stream\":null,\"stream_options\":{}}", ASK),
        (
            "{\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
            ASK,
        ),
        (
            "{\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
            ASK_ALWAYS,
        ),
        ("{\"stream\":true}", Edits::default()),
    ] {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let out = splice(&body.clone().into(), &scan(&body).unwrap(), edits).into_one();
        assert_eq!(out.as_ptr(), body.as_ptr(), "{body:?}");
        assert_eq!(out, body);
    }
}

/// The document that a splice should leave, worked out on serde's tree.
pub(in super::super) fn expected(
    mut map: Map<String, Value>,
    edits: Edits<'_>,
) -> Map<String, Value> {
    if let Some(model) = edits.model {
        map.insert("model".to_owned(), json!(model));
    }
    let streams = map.get("stream") == Some(&Value::Bool(true));
    let options = map.get("stream_options").cloned().unwrap_or_default();
    let is_asked = options["include_usage"] == json!(true);
    if streams && (edits.continuous_usage || edits.include_usage && !is_asked) {
        let mut options = options.as_object().cloned().unwrap_or_default();
        options.insert("include_usage".to_owned(), json!(true));
        if edits.continuous_usage {
            options.insert("continuous_usage_stats".to_owned(), json!(true));
        } else if options.get("continuous_usage_stats") == Some(&json!(true)) {
            options.insert("continuous_usage_stats".to_owned(), json!(false));
        }
        map.insert("stream_options".to_owned(), Value::Object(options));
    }
    map
}

proptest! {
    #[test]
    fn a_spliced_document_differs_in_the_edited_fields_only(
        mut map in any_body(),
        streams: bool,
        is_pretty: bool,
        model in proptest::option::of(any::<String>()),
        include_usage: bool,
        continuous_usage: bool,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        if streams {
            map.insert("stream".to_owned(), json!(true));
        }
        let bytes = if is_pretty {
            serde_json::to_vec_pretty(&map).unwrap()
        } else {
            serde_json::to_vec(&map).unwrap()
        };
        let body = Bytes::from(bytes);
        let edits = Edits { model: model.as_deref(), include_usage, continuous_usage };
        if let Ok(found) = scan(&body) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Pieces::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([body.len()]) {
                pieces.push(body.slice(from..cut));
                from = cut;
            }
            let out = splice(&pieces, &found, edits).into_one();
            let after: Map<String, Value> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&after, &expected(map, edits));
            // The worker's view of the result is ours.
            let again = scan(&out).unwrap();
            let asks = include_usage || continuous_usage;
            prop_assert!(again.usage_was_asked() || !(asks && again.stream));
            prop_assert_eq!(splice(&out.clone().into(), &again, edits).into_one(), out);
        }
    }
}
