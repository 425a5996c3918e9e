//! Meaning of rules in each form of API: a tree of the keys that are wanted in a body.

use serde_json::Value;

use super::{Act, Rule};
use crate::openai::api::Api;

/// APIs whose requests are of one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Chat,
    Completions,
    Responses,
    Messages,
    Embeddings,
}

impl Form {
    pub(super) const COUNT: usize = 5;

    /// In the order of their discriminants.
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::Embeddings,
    ];

    /// `None` where rules mean nothing: there is no text to be made, or the body is a form.
    pub(super) fn of(api: Api) -> Option<Self> {
        match api {
            Api::Chat => Some(Self::Chat),
            Api::Completions => Some(Self::Completions),
            Api::Responses => Some(Self::Responses),
            Api::Messages => Some(Self::Messages),
            Api::Embeddings => Some(Self::Embeddings),
            Api::CountTokens
            | Api::Embed
            | Api::Rerank
            | Api::Score
            | Api::Pooling
            | Api::Classify
            | Api::Tokenize
            | Api::Detokenize
            | Api::Transcriptions
            | Api::Translations
            | Api::Speech
            | Api::Images
            | Api::ImageEdits
            | Api::Realtime => None,
        }
    }
}

/// Spellings of the most tokens of an answer.
const OUTPUT: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
/// Spellings of the effort of reasoning.
const EFFORT: [&str; 2] = ["reasoning_effort", "reasoning.effort"];

/// True if a key is a count by which the gateway estimates what a request may cost.
pub(super) fn counts(key: &str) -> bool {
    OUTPUT.contains(&key) || key == "n"
}

/// A key that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Names of the key; the first is written where none is there.
    pub(super) names: Vec<String>,
    /// The same with what it lies in, for errors.
    pub(super) place: String,
    pub(super) acts: Acts,
    /// Keys of the object behind it.
    pub(super) inner: Vec<Node>,
    /// Text that is written behind its key where nothing is there, if anything is.
    pub(super) missing: Option<String>,
    /// The same with its key.
    pub(super) member: Option<String>,
}

/// Changes that are made to a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Acts {
    pub(super) set: Option<Put>,
    pub(super) default: Option<Put>,
    pub(super) drop: bool,
    pub(super) max: Option<Cap>,
}

/// A value that is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Put {
    pub(super) text: String,
    /// Number in it, of a key that counts.
    pub(super) count: Option<u64>,
}

/// Most that a number may be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cap {
    pub(super) put: Put,
    pub(super) value: f64,
}

impl Put {
    fn new(value: &Value) -> Self {
        Self {
            text: value.to_string(),
            count: value.as_u64(),
        }
    }
}

impl Acts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, rule: &Rule) -> Result<(), String> {
        let key = &rule.key;
        // A value that is missing, and one that is too large, do not meet.
        let is_alone = match &rule.act {
            Act::Default(_) => self.set.is_none() && self.default.is_none() && !self.drop,
            Act::Max(_) => self.set.is_none() && self.max.is_none() && !self.drop,
            Act::Set(_) | Act::Drop => self.is_empty(),
        };
        if !is_alone {
            return Err(format!(
                "another rule of this name has {key:?}, or a key that means the same, already: leave one; only default and max go together"
            ));
        }
        match &rule.act {
            Act::Set(value) => self.set = Some(Put::new(value)),
            Act::Default(value) => self.default = Some(Put::new(value)),
            Act::Drop => self.drop = true,
            Act::Max(value) => {
                self.max = Some(Cap {
                    put: Put::new(value),
                    value: value.as_f64().unwrap_or(f64::INFINITY),
                });
            }
        }
        let given = self.default.as_ref().map(|put| put.text.parse::<f64>());
        match (given, &self.max) {
            (Some(Err(_)), Some(_)) => Err(format!("write a number as the default of {key:?}")),
            (Some(Ok(given)), Some(most)) if given > most.value => {
                let most = &most.put.text;
                Err(format!(
                    "the default of {key:?} is above its max: write at most {most}"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Names of a key in a form: its path, the other names of its last part; `None`
/// where there is no such thing.
fn called(key: &str, form: Form) -> Option<(Vec<&str>, Vec<&str>)> {
    let is_output = OUTPUT.contains(&key);
    let is_effort = EFFORT.contains(&key);
    let one = |name| Some((vec![name], Vec::new()));
    match form {
        Form::Embeddings if is_output => None,
        Form::Embeddings | Form::Messages if is_effort => None,
        // vLLM reads the newer one where both are there; other servers know only one.
        Form::Chat if key == "max_completion_tokens" => Some((vec![key], vec!["max_tokens"])),
        Form::Chat if is_output => Some((vec!["max_tokens"], vec!["max_completion_tokens"])),
        Form::Completions | Form::Messages if is_output => one("max_tokens"),
        Form::Responses if is_output => one("max_output_tokens"),
        Form::Responses if is_effort => Some((vec!["reasoning", "effort"], Vec::new())),
        _ if is_effort => one("reasoning_effort"),
        _ => Some((key.split('.').collect(), Vec::new())),
    }
}

/// Adds a rule to the tree of a form.
pub(super) fn add(plan: &mut Vec<Node>, form: Form, rule: &Rule) -> Result<(), String> {
    let Some((path, others)) = called(&rule.key, form) else {
        return Ok(());
    };
    let mut nodes = plan;
    let mut place = String::new();
    let last = path.len().saturating_sub(1);
    for (level, part) in path.into_iter().enumerate() {
        if level > 0 {
            place.push('.');
        }
        place.push_str(part);
        let known = nodes
            .iter()
            .position(|node| node.names.iter().any(|name| name == part));
        let at = known.unwrap_or_else(|| {
            let mut names = vec![part.to_owned()];
            if level == last {
                names.extend(others.iter().map(|name| (*name).to_owned()));
            }
            nodes.push(Node {
                names,
                place: place.clone(),
                acts: Acts::default(),
                inner: Vec::new(),
                missing: None,
                member: None,
            });
            nodes.len() - 1
        });
        let Some(node) = nodes.get_mut(at) else {
            return Ok(());
        };
        let is_within = level < last && !node.acts.is_empty();
        if is_within || level == last && !node.inner.is_empty() {
            return Err(format!(
                "{:?} and another rule of this name lie one within the other: leave one",
                rule.key
            ));
        }
        if level == last {
            return node.acts.add(rule);
        }
        nodes = &mut node.inner;
    }
    Ok(())
}

/// Makes what is written where nothing is there, once a tree is whole.
pub(super) fn finish(nodes: &mut [Node]) {
    for node in nodes {
        finish(&mut node.inner);
        let own = node.acts.set.as_ref().or(node.acts.default.as_ref());
        let members = node
            .inner
            .iter()
            .filter_map(|inner| inner.member.as_deref());
        let members: Vec<&str> = members.collect();
        node.missing = match own {
            Some(put) => Some(put.text.clone()),
            None if members.is_empty() => None,
            None => Some(format!("{{{}}}", members.join(","))),
        };
        let name = node.names.first().map(|name| Value::from(name.as_str()));
        let both = name.zip(node.missing.as_ref());
        node.member = both.map(|(name, value)| format!("{name}:{value}"));
    }
}

impl Node {
    /// Count in the value that is written where nothing is there.
    pub(super) fn count(&self) -> Option<u64> {
        let own = self.acts.set.as_ref().or(self.acts.default.as_ref());
        own.and_then(|put| put.count)
    }
}
