use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::request::scan;
use super::*;

fn allowed(media: Media, chat_template: bool) -> Inputs {
    Inputs {
        media,
        chat_template,
    }
}

/// Result of a walk over a body that came in pieces of so many bytes.
fn walked(body: &[u8], inputs: &Inputs, piece: usize) -> Result<Vec<NamedHost>, ScanError> {
    let mut walk = Walk::new(inputs);
    for piece in body.chunks(piece) {
        walk.feed(piece)?;
    }
    Ok(walk.end())
}

/// Judgement of a body, the same however it comes; and that its scan notices what it brings.
fn judged(body: &str, inputs: &Inputs) -> Result<Vec<NamedHost>, String> {
    let whole = walked(body.as_bytes(), inputs, body.len());
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(walked(body.as_bytes(), inputs, piece), whole, "{body}");
    }
    let mut scanner = super::super::request::Scanner::default();
    for piece in body.as_bytes().chunks(5) {
        scanner.feed(piece);
    }
    let brings = scan(body.as_bytes()).unwrap().brings;
    assert!(!brings || scanner.end().unwrap().brings, "{body}");
    if whole.as_ref().map_or(true, |named| !named.is_empty()) {
        assert!(brings, "the scan does not notice {body}");
    }
    whole.map_err(|error| error.to_string())
}

/// A body of each API with one picture, and where it stands.
fn everywhere(url: &Json) -> Vec<(Json, &'static str)> {
    let part = json!({"type": "image_url", "image_url": {"detail": "low", "url": url}});
    vec![
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}),
            "messages[0].content[1].image_url.url",
        ),
        (
            json!({"messages": [{"role": "tool", "content": [{"image_url": url}]}]}),
            "messages[0].content[0].image_url",
        ),
        (
            json!({"messages": [{"content": [{"type": "video_url", "video_url": {"url": url}}]}]}),
            "messages[0].content[0].video_url.url",
        ),
        (
            json!({"messages": [{"content": [{"type": "audio_url", "audio_url": url, "uuid": "a"}]}]}),
            "messages[0].content[0].audio_url",
        ),
        (
            json!({"input": [{"type": "message", "content": [{"type": "input_image", "image_url": url}]}]}),
            "input[0].content[0].image_url",
        ),
        (
            json!({"input": [{"content": [{"type": "input_file", "file_url": url}]}]}),
            "input[0].content[0].file_url",
        ),
        (
            json!({"messages": [{"content": [{"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}]}]}),
            "messages[0].content[0].content[0].source.url",
        ),
        (json!({"images": ["data:,a", url]}), "images[1]"),
        (
            json!({"inputs": [{"content": [{"image_url": {"url": url}}]}]}),
            "inputs[0].content[0].image_url.url",
        ),
        (
            json!({"documents": {"content": [{"image_url": [[{"url": url}]]}]}}),
            "documents.content[0].image_url[0][0].url",
        ),
        (
            json!({"input": "a", "tools": [{"type": "mcp", "server_url": url}]}),
            "tools[0].server_url",
        ),
        (
            json!({"chat_template_kwargs": {"image_url": url}}),
            "chat_template_kwargs.image_url",
        ),
    ]
}

#[test]
fn media_may_come_from_the_internet_and_from_nowhere_nearer() {
    let inputs = Inputs::default();
    for bad in [
        "http://127.0.0.1/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "https://[::ffff:10.0.0.1]/",
        "http://2130706433/",
        "http://localhost:8000/",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://example.org/a",
        "/etc/passwd",
        " http://example.org/",
    ] {
        for (body, place) in everywhere(&json!(bad)) {
            let error = judged(&body.to_string(), &inputs).unwrap_err();
            assert!(error.starts_with(&format!("`{place}`: ")), "{bad}: {error}");
        }
    }
    for (body, place) in everywhere(&json!("https://example.org/a.png")) {
        let named = judged(&body.to_string(), &inputs).unwrap();
        let host = "example.org".parse().unwrap();
        let place = place.to_owned();
        assert_eq!(named, [NamedHost { place, host }]);
    }
    for good in [json!("data:image/png;base64,iVBO"), json!(""), Json::Null] {
        for (body, _) in everywhere(&good) {
            assert_eq!(judged(&body.to_string(), &inputs), Ok(Vec::new()));
        }
    }
}

#[test]
fn a_route_says_from_where_media_come() {
    let hosts = ["gpu7", "10.0.0.1", "images.example.org"].map(|host| host.parse().unwrap());
    let hosts = Media::Hosts(hosts.into());
    let cases: [(&Media, &str, bool); 14] = [
        (&Media::Any, "http://127.0.0.1/", true),
        (&Media::Any, "file:///srv/a.png", true),
        (&Media::Data, "data:,a", true),
        (&Media::Data, "DATA:,a", true),
        (&Media::Data, "https://example.org/", false),
        (&Media::None, "data:,a", false),
        (&Media::None, "https://example.org/", false),
        (&hosts, "http://gpu7/a", true),
        (&hosts, "http://GPU7.:80/a", true),
        (&hosts, "http://10.0.0.1/a", true),
        (&hosts, "data:,a", true),
        (&hosts, "http://10.0.0.2/a", false),
        (&hosts, "http://a.images.example.org/", false),
        (&hosts, "file://gpu7/etc/passwd", false),
    ];
    for (media, url, passes) in cases {
        let inputs = allowed(media.clone(), false);
        for (body, _) in everywhere(&json!(url)) {
            let judged = judged(&body.to_string(), &inputs);
            assert_eq!(judged.is_ok(), passes, "{media:?} {url}: {judged:?}");
            // An operator who lists hosts has looked at them.
            assert!(judged.map_or(true, |named| named.is_empty()));
        }
    }
}

#[test]
fn no_media_means_none_that_lie_in_the_request_either() {
    let none = allowed(Media::None, false);
    for body in [
        json!({"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}]}),
        json!({"messages": [{"content": [{"type": "image", "source": {"type": "base64", "data": "AA"}}]}]}),
        json!({"messages": [{"content": [{"image_embeds": "AA"}]}]}),
        json!({"prompt_embeds": ["AA"]}),
    ] {
        assert!(judged(&body.to_string(), &none).is_err(), "{body}");
        assert_eq!(
            judged(&body.to_string(), &Inputs::default()),
            Ok(Vec::new())
        );
    }
}

#[test]
fn keys_and_values_are_read_as_they_are_meant_and_not_as_they_are_spelled() {
    let inputs = Inputs::default();
    let escaped = |text: &str| {
        let escapes: Vec<String> = text.bytes().map(|b| format!("\\u{b:04X}")).collect();
        escapes.concat()
    };
    for body in [
        r#"{"messages":[{"content":[{"image\u005furl":{"url":"http://127.0.0.1"}}]}]}"#.to_owned(),
        r#"{"messages":[{"content":[{"image_url":{"\u0075rl":"http://127.0.0.1"}}]}]}"#.to_owned(),
        r#"{"a":[{"image_url":{"url":"http:\/\/127.0.0.1"}}]}"#.to_owned(),
        r#"{"a":[{"image_url":{"url":"\u0066ile:///etc/passwd"}}]}"#.to_owned(),
        r#"{"a":[{"image_url":{"url":"data:,a","url":"http://127.0.0.1"}}]}"#.to_owned(),
        r#"{"a":[{"image_url":{"url":"http://127.0.0.1","url":"data:,a"}}]}"#.to_owned(),
        r#"{"a":[{"image_url":null,"image_url":"http://127.0.0.1"}]}"#.to_owned(),
        r#"{"a":{"image_url":"http://example.org\u002f@127.0.0.1","image_url" : "http://\u0031\u0032\u0037.0.0.1"}}"#.to_owned(),
        format!(
            r#"{{"{}":["{}"]}}"#,
            escaped("images"),
            escaped("http://127.0.0.1/")
        ),
        format!(
            r#"{{"images":["http://127.0.0.1/{}"]}}"#,
            "\\ud83d\\ude00".repeat(1000)
        ),
        format!(r#"{{"images":["http://127.0.0.1/{}"]}}"#, "ä".repeat(5000)),
        format!(r#"{{"images":["http://example.org{}@127.0.0.1/"]}}"#, "a".repeat(5000)),
        r#"{"images":["http://a\ud800.example.org/"]}"#.to_owned(),
        r#"{"images":["http://exa\tmple.org/"]}"#.to_owned(),
    ] {
        assert!(judged(&body, &inputs).is_err(), "{body}");
    }
    for spared in [
        r#"{"messages":[{"content":"look at \"image_url\":\"http://127.0.0.1\""}]}"#,
        r#"{"metadata":{"callback_url":"http://10.0.0.1/"},"messages":[]}"#,
        r#"{"tools":[{"parameters":{"properties":{"image_url":{"type":"string","pattern":"a"},"url":{"default":"http://10.0.0.1"}}}}]}"#,
        r#"{"input":[{"annotations":[{"type":"url_citation","url":"http://10.0.0.1"}]}]}"#,
    ] {
        assert_eq!(judged(spared, &inputs), Ok(Vec::new()), "{spared}");
    }
}

#[test]
fn a_template_is_refused_wherever_an_engine_would_read_one() {
    for (body, place) in [
        (r#"{"chat_template":"{{ 1 }}"}"#, "chat_template"),
        (r#"{"chat_template":7}"#, "chat_template"),
        (r#"{"chat_template":true}"#, "chat_template"),
        (r#"{"chat_template":["a"]}"#, "chat_template"),
        (r#"{"chat_template":{}}"#, "chat_template"),
        (r#"{"chat\u005ftemplate":""}"#, "chat_template"),
        (
            r#"{"chat_template":null,"chat_template":"a"}"#,
            "chat_template",
        ),
        (
            r#"{"chat_template_kwargs":{"enable_thinking":false,"chat_template":"a"}}"#,
            "chat_template_kwargs.chat_template",
        ),
        (
            r#"{"chat_template\u005fkwargs":{"chat_templat\u0065":"a"},"chat_template_kwargs":{}}"#,
            "chat_template_kwargs.chat_template",
        ),
    ] {
        let error = judged(body, &Inputs::default()).unwrap_err();
        assert!(error.starts_with(&format!("`{place}`: ")), "{error}");
        assert_eq!(judged(body, &allowed(Media::Public, true)), Ok(Vec::new()));
    }
    for spared in [
        r#"{"chat_template":null}"#,
        r#"{"chat_template_kwargs":{"enable_thinking":false,"chat_template":null,"tools":[1]}}"#,
        r#"{"chat_template_kwargs":null}"#,
        r#"{"messages":[{"content":"a","chat_template":"a"}]}"#,
    ] {
        assert_eq!(
            judged(spared, &Inputs::default()),
            Ok(Vec::new()),
            "{spared}"
        );
    }
}

#[test]
fn one_request_names_a_bounded_number_of_hosts() {
    let urls = |count: usize| {
        let urls = (0..count * 2).map(|n| format!("https://h{}.example.org/", n / 2));
        json!({"images": urls.collect::<Vec<_>>()}).to_string()
    };
    let named = judged(&urls(HOSTS_MAX), &Inputs::default()).unwrap();
    assert_eq!(named.len(), HOSTS_MAX);
    assert!(judged(&urls(HOSTS_MAX + 1), &Inputs::default()).is_err());
}

#[test]
fn what_widens_is_known() {
    let hosts = |host: &str| Media::Hosts(vec![host.parse().unwrap()]);
    for (inputs, widens) in [
        (Inputs::default(), false),
        (allowed(Media::Data, false), false),
        (allowed(Media::None, false), false),
        (allowed(Media::Any, false), true),
        (allowed(hosts("example.org"), false), false),
        (allowed(hosts("gpu7"), false), true),
        (allowed(Media::None, true), true),
    ] {
        assert_eq!(inputs.widens(), widens, "{inputs:?}");
    }
}

/// True if something that is not allowed stands in a value, worked out of serde's tree.
fn is_refused(value: &Json, meaning: Meaning, is_top: bool, inputs: &Inputs) -> bool {
    let is_none = inputs.media == Media::None;
    let itself = match (meaning, value) {
        (_, Json::Null) => false,
        (Meaning::Template, _) => !inputs.chat_template,
        (Meaning::Address, Json::String(url)) if url.is_empty() => false,
        (Meaning::Address | Meaning::Inline, _) if is_none => true,
        (Meaning::Address, Json::String(url)) => {
            !url.starts_with("data:") && !url.contains("example")
        }
        _ => false,
    };
    let mut within: Box<dyn Iterator<Item = bool>> = match value {
        Json::Array(all) => Box::new(
            all.iter()
                .map(|value| is_refused(value, meaning, false, inputs)),
        ),
        Json::Object(all) => Box::new(
            all.iter()
                .map(|(key, value)| is_refused(value, of_key(meaning, is_top, key), false, inputs)),
        ),
        _ => Box::new(std::iter::empty()),
    };
    itself || within.any(|one| one)
}

fn any_tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i8>().prop_map(Json::from),
        proptest::sample::select(vec![
            "http://127.0.0.1/",
            "https://example.org/a",
            "data:,a",
            "data",
            "",
            "file:/a",
            "a\"b\\",
            "http://é.org",
            "😀\n",
        ])
        .prop_map(Json::from),
    ];
    let key = proptest::sample::select(vec![
        "image_url",
        "url",
        "source",
        "data",
        "images",
        "input_audio",
        "metadata",
        "messages",
        "chat_template",
        "chat_template_kwargs",
        "content",
        "a_embeds",
        "a\"",
        "é",
        "",
    ]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::vec((key.clone(), inner), 0..5).prop_map(|members| {
                let members = members.into_iter();
                Json::Object(
                    members
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_walk_finds_in_any_body_what_stands_in_its_tree(
        tree in any_tree(),
        media in proptest::sample::select(vec![Media::Public, Media::None]),
        chat_template: bool,
        is_pretty: bool,
        is_escaped: bool,
    ) {
        let mut body: Map<String, Json> = tree.as_object().cloned().unwrap_or_default();
        body.entry("messages").or_insert(tree);
        let tree = Json::Object(body);
        let inputs = allowed(media, chat_template);
        let mut text = if is_pretty {
            serde_json::to_string_pretty(&tree).unwrap()
        } else {
            tree.to_string()
        };
        if is_escaped {
            text = text.replace("url", "u\\u0072l").replace("chat", "c\\u0068at");
        }
        let refused = is_refused(&tree, Meaning::Plain, true, &inputs);
        prop_assert_eq!(judged(&text, &inputs).is_err(), refused, "{}", text);
    }
}
