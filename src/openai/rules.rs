//! Parameters of a name: keys of a request that are set, given where they are missing,
//! taken out, or bounded, before a server gets it.
//!
//! Owns which keys a rule may have, what they are called in each API, and the edits that
//! follow from them ([`Rules::apply`]). A request is walked a second time only where its
//! name has rules; its values are passed over, and bytes outside of an edit stay.
//!
//! ```text
//! rules of a file ── Rules::new ── a plan for each form of API ── apply ── patches
//! ```
//!
//! Two things are called otherwise in each API, and a rule with any of their names means
//! them: the most tokens of an answer (`max_tokens`, `max_completion_tokens`,
//! `max_output_tokens`), and the effort of reasoning (`reasoning_effort`,
//! `reasoning.effort`). All other keys are written as they stand. Where an API has no such
//! thing, the rule does nothing.

mod cursor;
mod edit;
mod plan;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::api::Api;
use super::media::{self, Inputs};
use crate::outbound::dial::media::Media;
use plan::{Form, Node};

/// Most rules of a name.
pub const RULES_MAX: usize = 32;
/// Deepest dotted key.
pub const LEVELS_MAX: usize = 4;
/// Longest part of a dotted key, in bytes.
pub const PART_BYTES_MAX: usize = 64;
/// Longest value, in bytes of JSON.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Longest values of a name together, in bytes of JSON.
pub const ALL_BYTES_MAX: usize = 16 * 1024;

/// Change that is made to a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// It has this value, whatever the client wrote.
    Set(Value),
    /// It has this value where the client wrote none, or null.
    Default(Value),
    /// It is taken out.
    Drop,
    /// A number above this becomes this.
    Max(Value),
}

/// One rule of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The key, dotted where it lies in an object.
    pub key: String,
    /// Change that is made to it.
    pub act: Act,
}

/// Changes that a name makes to a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    all: Vec<Rule>,
    /// By [`Form`].
    plans: [Vec<Node>; Form::COUNT],
}

/// Fault of a rule, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// Number of the rule, as they were given.
    pub rule: usize,
    /// In words.
    pub message: String,
}

/// Keys by which the gateway routes, counts or edits by itself, or that are the request
/// itself.
const NOT_RULED: [&str; 10] = [
    "model",
    "stream",
    "stream_options",
    "messages",
    "prompt",
    "input",
    "store",
    "background",
    "user",
    "prompt_cache_key",
];

impl Rules {
    /// Checks rules, and makes their plans.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn new(all: Vec<Rule>) -> Result<Self, Vec<RuleFault>> {
        let mut faults = Vec::new();
        let mut add = |rule, message: String| faults.push(RuleFault { rule, message });
        if all.len() > RULES_MAX {
            add(RULES_MAX, format!("a name has at most {RULES_MAX} rules"));
        }
        let mut bytes = 0;
        for (at, rule) in all.iter().enumerate() {
            if let Err(message) = check(rule, &mut bytes) {
                add(at, message);
            }
        }
        let mut plans: [Vec<Node>; Form::COUNT] = Default::default();
        if faults.is_empty() {
            for (plan, form) in plans.iter_mut().zip(Form::ALL) {
                for (at, rule) in all.iter().enumerate() {
                    if let Err(message) = plan::add(plan, form, rule)
                        && !faults.iter().any(|fault: &RuleFault| fault.rule == at)
                    {
                        faults.push(RuleFault { rule: at, message });
                    }
                }
            }
        }
        if faults.is_empty() {
            for plan in &mut plans {
                plan::finish(plan);
            }
            return Ok(Self { all, plans });
        }
        Err(faults)
    }

    /// The rules, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.all.iter()
    }

    /// True if there is no rule.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn plan(&self, api: Api) -> &[Node] {
        let form = Form::of(api);
        let plan = form.and_then(|form| self.plans.get(form as usize));
        plan.map_or(&[], Vec::as_slice)
    }
}

impl Rule {
    /// Words for the rule: `max_tokens at most 4096`.
    pub fn words(&self) -> String {
        let key = &self.key;
        match &self.act {
            Act::Set(value) => format!("{key} = {value}"),
            Act::Default(value) => format!("{key} = {value} where it is missing"),
            Act::Drop => format!("{key} taken out"),
            Act::Max(value) => format!("{key} at most {value}"),
        }
    }
}

/// Checks that a key may have a rule; else says why not.
fn check_key(key: &str) -> Result<(), String> {
    let parts: Vec<&str> = key.split('.').collect();
    let is_plain = |part: &&str| {
        !part.is_empty() && part.len() <= PART_BYTES_MAX && !part.chars().any(char::is_control)
    };
    if parts.len() > LEVELS_MAX || !parts.iter().all(is_plain) {
        return Err(format!(
            "write a key of 1 to {LEVELS_MAX} parts with dots between them, each of 1 to {PART_BYTES_MAX} bytes, as \"chat_template_kwargs.enable_thinking\""
        ));
    }
    let top = parts.first().copied().unwrap_or_default();
    if NOT_RULED.contains(&top) {
        return Err(format!(
            "{top:?} is the client's or the gateway's own: take the rule out"
        ));
    }
    let is_foreign = |(level, part): (usize, &&str)| {
        media::is_suspect(part.as_bytes(), false) && (level, *part) != (0, "chat_template_kwargs")
    };
    if parts.iter().enumerate().any(is_foreign) {
        return Err(format!(
            "{key:?} brings media or a chat template, which a name may not: take the rule out; `media` and `chat_template` of [route] say what requests may bring"
        ));
    }
    Ok(())
}

fn check(rule: &Rule, bytes: &mut usize) -> Result<(), String> {
    check_key(&rule.key)?;
    let (Act::Set(value) | Act::Default(value) | Act::Max(value)) = &rule.act else {
        return Ok(());
    };
    let text = value.to_string();
    *bytes += text.len();
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "write at most {VALUE_BYTES_MAX} bytes of JSON, not {}",
            text.len()
        ));
    }
    if *bytes > ALL_BYTES_MAX {
        return Err(format!(
            "the values of a name have at most {ALL_BYTES_MAX} bytes together: make some shorter"
        ));
    }
    if value.is_null() {
        return Err("write a value, or the key in `drop` to have it taken out".to_owned());
    }
    if matches!(rule.act, Act::Max(_)) && !value.is_number() {
        return Err("write a number".to_owned());
    }
    if plan::counts(&rule.key)
        && !value
            .as_u64()
            .is_some_and(|count| (1..=COUNT_MAX).contains(&count))
    {
        return Err(format!("write a whole number, 1 to {COUNT_MAX}"));
    }
    brings_nothing(&rule.key, value)
}

/// Largest count: each whole number up to it is one as a float too.
const COUNT_MAX: u64 = 1 << 53;

/// Checks that a value brings nothing for which a request could be refused.
fn brings_nothing(key: &str, value: &Value) -> Result<(), String> {
    let mut document = value.clone();
    for part in key.rsplit('.') {
        document = Value::Object([(part.to_owned(), document)].into_iter().collect());
    }
    let nothing = Inputs {
        media: Media::None,
        chat_template: false,
    };
    let mut walk = media::Walk::new(&nothing);
    match walk.feed(document.to_string().as_bytes()) {
        Ok(()) if walk.end().is_empty() => Ok(()),
        _ => Err(
            "this value brings media or a chat template, which a name may not: take it out"
                .to_owned(),
        ),
    }
}
