//! The answer to `GET /v1/models`, in OpenAI's form.
//!
//! Owns its field names. Which models a caller may see, and what state they are
//! in, the gateway knows.

use bytes::Bytes;
use serde::Serialize;

/// One model as `GET /v1/models` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntry<'a> {
    /// What clients write in `model`.
    pub id: &'a str,
    /// When it was made known, in seconds since 1970.
    pub created: u64,
    /// Who serves it.
    pub owned_by: &'a str,
    /// Its state, a field that OpenAI does not have: `ready`, `asleep`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'a str>,
    /// The longest prompt and answer together, in tokens, as vLLM tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u64>,
}

#[derive(Serialize)]
struct Typed<'a> {
    object: &'static str,
    #[serde(flatten)]
    entry: &'a ModelEntry<'a>,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Typed<'a>>,
}

impl ModelEntry<'_> {
    fn typed(&self) -> Typed<'_> {
        Typed {
            object: "model",
            entry: self,
        }
    }

    /// The answer to `GET /v1/models/{id}`.
    pub fn body(&self) -> Bytes {
        json(&self.typed())
    }
}

/// The answer to `GET /v1/models`.
pub fn list_body(entries: &[ModelEntry<'_>]) -> Bytes {
    json(&List {
        object: "list",
        data: entries.iter().map(ModelEntry::typed).collect(),
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

    #[test]
    fn models_are_listed_in_openai_form_with_their_status() {
        let entry = ModelEntry {
            id: "Qwen/Qwen3-8B",
            created: 1_795_443_643,
            owned_by: "tidegate",
            status: Some("asleep"),
            max_model_len: None,
        };
        let expected = json!({
            "id": "Qwen/Qwen3-8B", "object": "model", "created": 1_795_443_643_u64,
            "owned_by": "tidegate", "status": "asleep",
        });
        let one: Value = serde_json::from_slice(&entry.body()).unwrap();
        assert_eq!(one, expected);
        let list: Value = serde_json::from_slice(&list_body(&[entry])).unwrap();
        assert_eq!(list, json!({"object": "list", "data": [expected]}));
    }
}
