//! The answer to `GET /v1/models`, in OpenAI's form, llama.cpp's and Anthropic's.
//!
//! Owns its field names. Which models a caller may see, and what state they are
//! in, the gateway knows.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

/// Form in which models are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenAI's, with `status` as a word and `state` as an object.
    OpenAi,
    /// That of llama.cpp's router, where `status` is the object.
    LlamaCpp,
    /// Anthropic's, which has a place for the context alone.
    Anthropic,
}

/// One model as `GET /v1/models` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntry<'a> {
    /// Name that clients write in `model`.
    pub id: &'a str,
    /// Time at which the model was made known, in seconds since 1970.
    pub created: u64,
    /// Owner who serves the model.
    pub owned_by: &'a str,
    /// The model that it stands for, with parameters of its own; vLLM tells an adapter's
    /// base so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<&'a str>,
    /// Description in the words of the one who runs the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    /// The longest prompt and answer together, in tokens, as `OpenRouter` and those who
    /// read its lists call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// The same, as vLLM tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u64>,
    /// Abilities that the model surely has; left out where nothing is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<&'static str>,
    /// True if the model answers at once, as Open `WebUI` reads it.
    pub loaded: bool,
    /// Its state, in the word that a person sees.
    #[serde(skip)]
    pub status: &'a str,
    /// Its state, in the words of programs.
    #[serde(skip)]
    pub state: State,
}

/// Standing of a model, for programs: the words are those of llama.cpp's router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// The word.
    pub value: Readiness,
    /// Seconds until it should be ready; while it loads, and where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_in_seconds: Option<u64>,
}

/// A word for how a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It answers at once.
    Loaded,
    /// It will answer soon.
    Loading,
    /// Its weights left the GPU; the next request brings them back.
    Sleeping,
    /// Nothing of it runs.
    Unloaded,
    /// It can't be started.
    Failed,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Status<'a> {
    Word(&'a str),
    Object(State),
}

#[derive(Serialize)]
struct Typed<'a> {
    object: &'static str,
    #[serde(flatten)]
    entry: &'a ModelEntry<'a>,
    status: Status<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
}

#[derive(Serialize)]
struct OfAnthropic<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_tokens: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    OpenAi(Typed<'a>),
    Anthropic(OfAnthropic<'a>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum List<'a> {
    OpenAi {
        object: &'static str,
        data: Vec<Shown<'a>>,
    },
    /// All of them on one page, whatever `limit` asks for: nothing is left to come.
    Anthropic {
        data: Vec<Shown<'a>>,
        has_more: bool,
        first_id: Option<&'a str>,
        last_id: Option<&'a str>,
    },
}

impl ModelEntry<'_> {
    fn shown(&self, form: Form) -> Shown<'_> {
        let (status, state) = match form {
            Form::OpenAi => (Status::Word(self.status), Some(self.state)),
            Form::LlamaCpp => (Status::Object(self.state), None),
            Form::Anthropic => return Shown::Anthropic(self.of_anthropic()),
        };
        Shown::OpenAi(Typed {
            object: "model",
            entry: self,
            status,
            state,
        })
    }

    fn of_anthropic(&self) -> OfAnthropic<'_> {
        let created = i64::try_from(self.created).unwrap_or_default();
        OfAnthropic {
            r#type: "model",
            id: self.id,
            display_name: self.id,
            created_at: Timestamp::from_second(created)
                .unwrap_or_default()
                .to_string(),
            max_input_tokens: self.context_length,
        }
    }

    /// The answer to `GET /v1/models/{id}`.
    pub fn body(&self, form: Form) -> Bytes {
        json(&self.shown(form))
    }
}

/// The answer to `GET /v1/models`.
pub fn list_body(entries: &[ModelEntry<'_>], form: Form) -> Bytes {
    let data = entries.iter().map(|entry| entry.shown(form)).collect();
    json(&match form {
        Form::OpenAi | Form::LlamaCpp => List::OpenAi {
            object: "list",
            data,
        },
        Form::Anthropic => List::Anthropic {
            data,
            has_more: false,
            first_id: entries.first().map(|entry| entry.id),
            last_id: entries.last().map(|entry| entry.id),
        },
    })
}

/// Serialises into memory; strings and numbers in named fields cannot fail to.
fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry() -> ModelEntry<'static> {
        ModelEntry {
            parent: None,
            id: "Qwen/Qwen3-8B",
            created: 1_795_443_643,
            owned_by: "tidegate",
            description: None,
            context_length: None,
            max_model_len: None,
            capabilities: Vec::new(),
            loaded: false,
            status: "loading",
            state: State {
                value: Readiness::Loading,
                ready_in_seconds: Some(12),
            },
        }
    }

    fn both(entry: &ModelEntry<'_>, form: Form) -> (Value, Value) {
        let one = serde_json::from_slice(&entry.body(form)).unwrap();
        let list = serde_json::from_slice(&list_body(std::slice::from_ref(entry), form)).unwrap();
        (one, list)
    }

    #[test]
    fn the_word_of_a_status_stays_and_its_object_stands_beside_it() {
        let expected = json!({
            "id": "Qwen/Qwen3-8B", "object": "model", "created": 1_795_443_643_u64,
            "owned_by": "tidegate", "loaded": false, "status": "loading",
            "state": {"value": "loading", "ready_in_seconds": 12},
        });
        let (one, list) = both(&entry(), Form::OpenAi);
        assert_eq!(one, expected);
        assert_eq!(list, json!({"object": "list", "data": [expected]}));
        let (one, _) = both(&entry(), Form::LlamaCpp);
        assert_eq!(one["status"], expected["state"]);
        assert_eq!(one.get("state"), None);
    }

    #[test]
    fn what_is_known_is_told_and_nothing_else() {
        let known = ModelEntry {
            description: Some("Small and fast"),
            context_length: Some(32_768),
            max_model_len: Some(32_768),
            capabilities: vec!["chat", "tools"],
            loaded: true,
            ..entry()
        };
        let (one, _) = both(&known, Form::OpenAi);
        assert_eq!(one["description"], "Small and fast");
        assert_eq!(one["context_length"], 32_768);
        assert_eq!(one["max_model_len"], 32_768);
        assert_eq!(one["capabilities"], json!(["chat", "tools"]));
        assert_eq!(one["loaded"], true);
    }

    #[test]
    fn anthropics_form_has_its_fields_and_one_page() {
        let expected = json!({
            "type": "model", "id": "Qwen/Qwen3-8B", "display_name": "Qwen/Qwen3-8B",
            "created_at": "2026-11-23T14:20:43Z",
        });
        let (one, list) = both(&entry(), Form::Anthropic);
        assert_eq!(one, expected);
        assert_eq!(
            list,
            json!({
                "data": [expected], "has_more": false,
                "first_id": "Qwen/Qwen3-8B", "last_id": "Qwen/Qwen3-8B",
            })
        );
        let long = ModelEntry {
            context_length: Some(32_768),
            ..entry()
        };
        assert_eq!(both(&long, Form::Anthropic).0["max_input_tokens"], 32_768);
        let none: Value = serde_json::from_slice(&list_body(&[], Form::Anthropic)).unwrap();
        assert_eq!(none["first_id"], Value::Null);
    }
}
