//! Rest of a text that is given other values.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::read_tables;
use super::{FILE, new, over, says_same};

const FILE_OF_ANA: &str = r#"#:schema ../.tidegate/route.schema.json
# Owner: Ana. Do not raise the limits without asking.

[route] # the public one
name = "team"
path  =  '/team'     # kept short
# Ana: 600 was too much.
requests_per_minute = 300
models = [
    "chat",      # the old name
    # for the notebooks
    "gpt-4o-mini",
]

[instance]
project = "research"   # billing
name = "team"

# Ana: not below ten minutes.
idle.offload_after = "10m"

# The big one.
[[deployment]]
model = "Qwen/Qwen3-8B"
options = { dtype = "bfloat16", max_model_len = 8_192 } # half of what it can

# The small one.
[[deployment]]
model = "Qwen/Qwen3-0.6B"
[deployment.options]
seed = 0x2A # the answer
gpu_memory_utilization = 1.0
# the end
"#;

fn tables(text: &str) -> Map<String, Json> {
    read_tables(text.as_bytes()).unwrap().1
}

/// The text after this was done to its tables; only these lines went, only these came.
fn changed(text: &str, change: impl FnOnce(&mut Json), gone: &[&str], come: &[&str]) -> String {
    let mut wanted = Json::Object(tables(text));
    change(&mut wanted);
    let written = over(text, wanted.as_object().unwrap()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let mut added = Vec::new();
    for line in written.lines() {
        match lines.iter().position(|known| *known == line) {
            Some(place) => drop(lines.remove(place)),
            None => added.push(line),
        }
    }
    let (mut gone, mut come) = (gone.to_vec(), come.to_vec());
    for list in [&mut lines, &mut added, &mut gone, &mut come] {
        list.sort_unstable();
    }
    assert_eq!((lines, added), (gone, come), "{written}");
    written
}

#[test]
fn a_changed_value_changes_its_line_alone() {
    let text = FILE_OF_ANA;
    let set =
        |path: &'static str, to: Json| move |all: &mut Json| *all.pointer_mut(path).unwrap() = to;
    changed(text, |_| {}, &[], &[]);
    changed(
        text,
        set("/route/path", json!("/other")),
        &["path  =  '/team'     # kept short"],
        &["path  =  \"/other\"     # kept short"],
    );
    changed(
        text,
        set("/deployment/0/options/max_model_len", json!(4096)),
        &["options = { dtype = \"bfloat16\", max_model_len = 8_192 } # half of what it can"],
        &["options = { dtype = \"bfloat16\", max_model_len = 4096 } # half of what it can"],
    );
    changed(
        text,
        set("/instance/idle/offload_after", json!("20m")),
        &["idle.offload_after = \"10m\""],
        &["idle.offload_after = \"20m\""],
    );
    // A form knows no difference between 1 and 1.0.
    changed(
        text,
        set("/deployment/1/options/gpu_memory_utilization", json!(1)),
        &[],
        &[],
    );
    changed(
        text,
        set("/deployment/1/options/seed", json!(7)),
        &["seed = 0x2A # the answer"],
        &["seed = 7 # the answer"],
    );
}

#[test]
fn what_comes_stands_where_it_belongs() {
    let text = FILE_OF_ANA;
    let written = changed(
        text,
        |all| {
            all["instance"]["queue"] = json!("local");
            all["instance"]["options"] = json!({ "seed": 1 });
            all["deployment"][0]["max_concurrent_requests"] = json!(4);
            all["route"]["models"] = json!(["chat", "new", "gpt-4o-mini"]);
        },
        &[],
        &[
            "    \"new\",",
            "queue = \"local\"",
            "",
            "[instance.options]",
            "seed = 1",
            "max_concurrent_requests = 4",
        ],
    );
    let at = |part: &str| written.find(part).unwrap();
    assert!(at("queue = ") < at("[instance.options]"), "{written}");
    assert!(at("seed = 1") < at("# The big one."), "{written}");
    assert!(at("requests = 4") < at("# The small one."), "{written}");
}

#[test]
fn what_goes_leaves_the_comments_above_it() {
    let remove = |table: &'static str, key: &'static str| {
        move |all: &mut Json| drop(all[table].as_object_mut().unwrap().remove(key))
    };
    changed(
        FILE_OF_ANA,
        remove("route", "requests_per_minute"),
        &["requests_per_minute = 300"],
        &[],
    );
    changed(
        FILE_OF_ANA,
        remove("instance", "idle"),
        &["idle.offload_after = \"10m\""],
        &[],
    );
    changed(
        FILE_OF_ANA,
        |all| all["route"]["models"] = json!(["chat"]),
        &["    \"gpt-4o-mini\","],
        &[],
    );
    changed(
        FILE_OF_ANA,
        |all| all["route"]["models"] = json!(["gpt-4o-mini"]),
        &["    \"chat\",      # the old name"],
        &[],
    );
    // The whole table goes, and what is said of it; what is said of the file stays.
    let written = changed(
        FILE_OF_ANA,
        |all| drop(all["deployment"].as_array_mut().unwrap().remove(0)),
        &[
            "# The big one.",
            "[[deployment]]",
            "model = \"Qwen/Qwen3-8B\"",
            "options = { dtype = \"bfloat16\", max_model_len = 8_192 } # half of what it can",
            "",
        ],
        &[],
    );
    assert!(written.contains("# The small one.\n[[deployment]]\nmodel = \"Qwen/Qwen3-0.6B\""));
    let written = changed(
        FILE_OF_ANA,
        |all| drop(all.as_object_mut().unwrap().remove("route")),
        &[
            "[route] # the public one",
            "name = \"team\"",
            "path  =  '/team'     # kept short",
            "# Ana: 600 was too much.",
            "requests_per_minute = 300",
            "models = [",
            "    \"chat\",      # the old name",
            "    # for the notebooks",
            "    \"gpt-4o-mini\",",
            "]",
        ],
        &[],
    );
    assert!(written.starts_with("#:schema ../.tidegate/route.schema.json\n# Owner: Ana."));
}

#[test]
fn lists_keep_their_form() {
    for (text, list, wanted) in [
        ("['a', 'b']", json!(["b"]), "['b']"),
        ("['a', 'b']", json!(["a"]), "['a']"),
        ("['a']", json!(["a", "b"]), "['a', \"b\"]"),
        (
            "[ 'a', 'b' ]",
            json!(["a", "c", "b"]),
            "[ 'a', \"c\", 'b' ]",
        ),
        (
            "[\n  'a', # a\n]",
            json!(["a", "b"]),
            "[\n  'a', # a\n  \"b\",\n]",
        ),
        (
            "[\n  'a' # a\n]",
            json!(["a", "b"]),
            "[\n  'a', # a\n  \"b\"\n]",
        ),
        (
            "[\n  'a', # a\n  'b' # b\n]",
            json!(["a"]),
            "[\n  'a' # a\n]",
        ),
        (
            "[\n  'a',\n  # of b\n  'b',\n  'c',\n]",
            json!(["a", "c"]),
            "[\n  'a',\n  # of b\n  'c',\n]",
        ),
        ("[]", json!(["a"]), "[\"a\"]"),
        ("['a', 'b']", json!(["b", "a"]), "[\"b\", \"a\"]"),
        ("'a'", json!(["a"]), "[\"a\"]"),
    ] {
        let text = format!("[route]\nmodels = {text} # end\n");
        let wanted = format!("[route]\nmodels = {wanted} # end\n");
        let file = json!({ "route": { "models": list } });
        assert_eq!(over(&text, file.as_object().unwrap()), Some(wanted));
    }
}

#[test]
fn ends_of_lines_marks_and_inline_tables_stay() {
    let text = FILE_OF_ANA.replace('\n', "\r\n");
    let mut wanted = tables(&text);
    wanted["route"]["path"] = json!("/other");
    let written = over(&text, &wanted).unwrap();
    assert_eq!(written, text.replace("'/team'", "\"/other\""));
    let text = format!("\u{feff}{FILE_OF_ANA}");
    let written = over(&text, &wanted).unwrap();
    assert_eq!(written, text.replace("'/team'", "\"/other\""));
    changed(
        "instance = { name = \"a\", project = \"p\" } # one line\n",
        |all| {
            all["instance"]["project"] = json!("q");
            all["instance"]["idle"] = json!({ "time_limit": "1h" });
            all["deployment"] = json!([{ "model": "m" }]);
        },
        &["instance = { name = \"a\", project = \"p\" } # one line"],
        &[
            "instance = { name = \"a\", project = \"q\", idle = { time_limit = \"1h\" } } # one line",
            "",
            "[[deployment]]",
            "model = \"m\"",
        ],
    );
}

#[test]
fn a_new_text_is_in_the_order_in_which_people_write() {
    let value = json!({
        "deployment": [{ "options": { "hf_overrides": { "a": [1, { "b": 2 }] }, "seed": null }, "model": "m", "endpoint_name": "e" }],
        "instance": { "idle": { "time_limit": "1h" }, "name": "a", "project": "p" },
        "route": { "path": "/a", "name": "a" },
    });
    let text = new(value.as_object().unwrap()).unwrap();
    assert_eq!(
        text,
        "[route]\nname = \"a\"\npath = \"/a\"\n\n[instance]\nname = \"a\"\nproject = \"p\"\n\n\
         [instance.idle]\ntime_limit = \"1h\"\n\n[[deployment]]\nmodel = \"m\"\nendpoint_name = \"e\"\n\n\
         [deployment.options]\nhf_overrides = { a = [1, { b = 2 }] }\n"
    );
}

#[test]
fn what_toml_has_no_form_for_is_not_written() {
    for value in [
        json!({ "k": null }),
        json!({ "k": [null] }),
        json!(u64::MAX),
    ] {
        let file = json!({ "instance": { "name": "a", "options": { "hf_overrides": value } } });
        assert_eq!(new(file.as_object().unwrap()), None, "{value}");
        let text = "[instance]\nname = \"a\" # x\n";
        assert_eq!(over(text, file.as_object().unwrap()), None, "{value}");
    }
}

/// A table of a file with a comment above each key.
fn commented() -> impl Strategy<Value = (String, Json)> {
    let value = prop_oneof![
        any::<i32>().prop_map(|n| json!(n)),
        any::<bool>().prop_map(|flag| json!(flag)),
        "[a-z\"\\\\#é\\[ ]{0,8}".prop_map(|text| json!(text)),
        proptest::collection::vec("[a-c]{1,2}", 0..4).prop_map(|list| json!(list)),
        proptest::collection::btree_map("[a-c]", 0..9, 0..3).prop_map(|table| json!(table)),
    ];
    proptest::collection::btree_map("[a-e]", value, 0..5).prop_map(|keys| {
        let mut text = String::new();
        for (number, (key, value)) in keys.iter().enumerate() {
            let mut table = Map::new();
            table.insert(key.clone(), value.clone());
            let line = new(&table).unwrap();
            text.push_str("# above ");
            text.push_str(&number.to_string());
            text.push('\n');
            text.push_str(&line);
        }
        (text, json!(keys))
    })
}

proptest! {
    #[test]
    fn any_tables_over_any_text_say_what_was_meant_and_keep_the_comments_above(
        (root, mut old) in commented(),
        (inner, held) in commented(),
        (each, one) in commented(),
        (_, mut wanted) in commented(),
        (_, other) in commented(),
        more in proptest::collection::vec(commented().prop_map(|(_, table)| table), 0..3),
        keep_route: bool,
    ) {
        let text = format!("{root}# of a\n[route]\n{inner}\n# of b\n[[deployment]]\n{each}\n# of c\n[[deployment]]\nmodel = \"m\"\n");
        old["route"] = held;
        old["deployment"] = json!([one, { "model": "m" }]);
        prop_assert!(says_same(&tables(&text), old.as_object().unwrap(), FILE), "{}", text);
        if keep_route {
            wanted["route"] = other;
        }
        wanted["deployment"] = json!(more);
        let wanted = wanted.as_object().unwrap();
        let written = over(&text, wanted);
        prop_assert!(written.is_some(), "{text}\n{wanted:?}");
        let written = written.unwrap();
        for line in root.lines().filter(|line| line.starts_with("# above")) {
            prop_assert!(written.contains(line), "{line}\n{text}\n{written}");
        }
        prop_assert_eq!(over(&written, wanted), Some(written.clone()));
    }
}
