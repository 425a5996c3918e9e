//! The stand-in's answers held against answers of vLLM 0.32 on a CPU.
//!
//! `tests/vllm/captures.json` holds requests and what vLLM answered. Keys and their
//! order, types and values must be the same; ids, times, texts, and numbers that
//! follow from the tokenizer or the model are free.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::process::{Reply, Sim};

/// Keys whose values follow from tokenizer, model, process or time.
const FREE: [&str; 19] = [
    "completion_tokens",
    "content",
    "count",
    "created",
    "created_at",
    "document",
    "embedding",
    "id",
    "input_tokens",
    "original_input_tokens",
    "output",
    "output_tokens",
    "prompt_tokens",
    "relevance_score",
    "score",
    "system_fingerprint",
    "text",
    "tokens",
    "total_tokens",
];

#[derive(Deserialize)]
struct Capture {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    status: u16,
    answer_headers: BTreeMap<String, String>,
    #[serde(default)]
    answer: String,
    #[serde(default)]
    events: Vec<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// JSON that remembers the order of keys.
#[derive(Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Json;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "the captures' numbers are small"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InOrder)
    }
}

/// Says where `ours` differs from `theirs`.
fn compare(place: &str, theirs: &Json, ours: &Json, wrong: &mut Vec<String>) {
    let free = FREE.iter().any(|key| place.ends_with(&format!(".{key}")));
    match (theirs, ours) {
        (Json::Object(left), Json::Object(right)) => {
            let keys = |object: &[(String, Json)]| -> Vec<String> {
                object.iter().map(|(key, _)| key.clone()).collect()
            };
            if keys(left) != keys(right) {
                wrong.push(format!("{place}: {:?} != {:?}", keys(left), keys(right)));
                return;
            }
            for ((key, left), (_, right)) in left.iter().zip(right) {
                compare(&format!("{place}.{key}"), left, right, wrong);
            }
        }
        (Json::List(left), Json::List(right)) => {
            // A vector's length is free; an empty list says nothing of its items.
            let vector = matches!(left.first(), Some(Json::Number(_)) | None);
            if !vector && left.len() != right.len() {
                wrong.push(format!("{place}: {} != {}", left.len(), right.len()));
            }
            for (left, right) in left.iter().zip(right) {
                match (left, right) {
                    (Json::Number(_), Json::Number(_)) => {}
                    _ => compare(place, left, right, wrong),
                }
            }
        }
        _ => {
            let same_type = std::mem::discriminant(theirs) == std::mem::discriminant(ours);
            if !same_type || !free && theirs != ours {
                wrong.push(format!("{place}: {theirs:?} != {ours:?}"));
            }
        }
    }
}

fn ask(sim: &Sim, capture: &Capture) -> Reply {
    let lines = capture.headers.iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = lines.concat();
    Reply::read(sim.send_raw(&capture.method, &capture.path, &head, &capture.body))
}

fn check(name: &str, capture: &Capture, reply: &Reply, wrong: &mut Vec<String>) {
    if reply.status != capture.status {
        wrong.push(format!(
            "{name}: status {} != {}",
            capture.status, reply.status
        ));
    }
    for (header, value) in &capture.answer_headers {
        if reply.header(header) != Some(value) {
            wrong.push(format!(
                "{name}: {header} {value:?} != {:?}",
                reply.header(header)
            ));
        }
    }
    if capture.answer_headers.contains_key("vary") != reply.header("vary").is_some() {
        wrong.push(format!("{name}: vary"));
    }
    if capture.events.is_empty() {
        if capture.answer.is_empty() || reply.body.is_empty() {
            assert_eq!(capture.answer, reply.body, "{name}");
            return;
        }
        let theirs = serde_json::from_str(&capture.answer).unwrap();
        let ours = serde_json::from_str(&reply.body).unwrap();
        compare(name, &theirs, &ours, wrong);
        return;
    }
    let events: Vec<&str> = reply.body.trim_end().split("\n\n").collect();
    if events.len() != capture.events.len() {
        wrong.push(format!(
            "{name}: {} events != {}",
            capture.events.len(),
            events.len()
        ));
    }
    for (number, (theirs, ours)) in capture.events.iter().zip(events).enumerate() {
        let split = |event: &str| -> (String, String) {
            let (start, data) = event.split_once("data: ").unwrap();
            (start.to_owned(), data.to_owned())
        };
        let ((their_start, theirs), (our_start, ours)) = (split(theirs), split(ours));
        assert_eq!(their_start, our_start, "{name} {number}");
        if theirs == "[DONE]" {
            assert_eq!(ours, theirs, "{name}");
            continue;
        }
        let (theirs, ours) = (serde_json::from_str(&theirs), serde_json::from_str(&ours));
        compare(
            &format!("{name}[{number}]"),
            &theirs.unwrap(),
            &ours.unwrap(),
            wrong,
        );
    }
}

fn captures() -> BTreeMap<String, Capture> {
    serde_json::from_str(include_str!("../../vllm/captures.json")).unwrap()
}

#[test]
fn a_text_model_answers_as_vllm_did() {
    let sim = Sim::ready(&[
        "--served-model-name",
        "tiny",
        "tiny-alias",
        "--api-key",
        "sk-a",
        "--max-model-len",
        "512",
        "--enable-prompt-tokens-details",
        "--load",
        "0s",
        "--sleep",
        "0s",
        "--wake",
        "0s",
        "--first-token",
        "0s",
    ]);
    let captures = captures();
    let mut wrong = Vec::new();
    let of_text = |capture: &Capture| capture.kind.as_deref() != Some("embed");
    // Those that change the engine follow below, in the order in which they were made.
    let changing = |name: &str| name.starts_with("dev_") || name == "chat_engine_dead_500";
    for (name, capture) in captures.iter().filter(|(name, _)| !changing(name)) {
        if of_text(capture) {
            check(name, capture, &ask(&sim, capture), &mut wrong);
        }
    }
    for name in [
        "dev_is_sleeping0",
        "dev_sleep_l1",
        "dev_wake_up",
        "dev_sleep_l2",
        "dev_wake_weights",
        "dev_wake_kv",
        "dev_sleep_l0",
        "dev_wake_bad",
        "dev_wake_up",
        "dev_sleep_badmode",
        "dev_sleep_l3",
        "dev_collective_rpc",
        "dev_collective_rpc_bad",
        "dev_reset_prefix_cache",
        "dev_pause",
        "dev_is_paused",
        "dev_resume",
        "dev_get_world_size",
        "dev_weight_info",
    ] {
        let capture = captures.get(name).unwrap();
        check(name, capture, &ask(&sim, capture), &mut wrong);
    }
    sim.post("/sim/fault", &serde_json::json!({"fault": "engine-dead"}));
    let dead = captures.get("chat_engine_dead_500").unwrap();
    check("dead", dead, &ask(&sim, dead), &mut wrong);
    assert_eq!(sim.get("/health").status, 503);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_embedding_model_answers_as_vllm_did() {
    let mut sim = Sim::ready(&[
        "--served-model-name",
        "tiny-embed",
        "--api-key",
        "sk-a",
        "--kind",
        "embed",
        "--max-model-len",
        "256",
        "--load",
        "0s",
        "--first-token",
        "0s",
    ]);
    let mut wrong = Vec::new();
    for (name, capture) in captures() {
        if capture.kind.as_deref() == Some("embed") {
            check(&name, &capture, &ask(&sim, &capture), &mut wrong);
        }
    }
    // The model's directory is the one thing that the command line gives otherwise.
    wrong.retain(|line| !line.starts_with("embed_models.data.root"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(sim.lives());
}
