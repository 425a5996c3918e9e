//! `[[name]]`: a name with parameters of its own, for what its file's route or instance
//! serves.
//!
//! Targets of names are found where files are put together ([`super::link`]); the keys
//! that may have a rule stand in [`crate::openai::rules`].

use std::sync::Arc;

use super::options::json;
use super::problems::{Problems, cut};
use super::reader::{Found, Reader};
use super::tree::{Entry, Value};
use super::{Deployment, Name, Route};
use crate::names::ModelName;
use crate::openai::rules::{Act, Rule, Rules};

impl Deployment {
    /// Names that its worker knows: its own, then those of its adapters.
    pub fn names(&self) -> Vec<ModelName> {
        let own = [self.endpoint_name.clone()];
        own.into_iter().chain(self.adapters()).collect()
    }
}

impl Route {
    /// The model that a name of this route stands for; any other stands for itself.
    pub fn meaning<'a>(&'a self, name: &'a str) -> &'a str {
        let mut all = self.names.iter();
        let found = all.find(|one| one.name.as_str() == name);
        found.map_or(name, |one| one.of.as_str())
    }

    /// The deployments that answer for a name of this route: those that are called so, or
    /// have an adapter of that name; any where it is a name of the route, of its list where
    /// it has one.
    pub fn behind(&self, name: &str) -> Vec<&Arc<Deployment>> {
        let of = self.meaning(name);
        let called = |is_meant: &dyn Fn(&ModelName) -> bool| {
            let is_called = |spec: &&Arc<Deployment>| spec.names().iter().any(is_meant);
            self.deployments
                .iter()
                .filter(is_called)
                .collect::<Vec<_>>()
        };
        let listed = self.targets.as_ref();
        let of_route = listed.filter(|_| self.models.iter().any(|model| model.as_str() == of));
        if let Some(list) = of_route {
            return called(&|name| list.leads_to(name));
        }
        let own = called(&|name| name.as_str() == of);
        match listed {
            _ if !own.is_empty() => own,
            Some(list) => called(&|name| list.leads_to(name)),
            None => self.deployments.iter().collect(),
        }
    }
}

impl Name {
    /// Words for what it stands for and what becomes of requests.
    pub fn words(&self) -> String {
        let rules: Vec<String> = self.rules.iter().map(Rule::words).collect();
        let rules = if rules.is_empty() {
            "requests stay as they are".to_owned()
        } else {
            rules.join("; ")
        };
        format!("{:?} stands for {:?}: {rules}", self.name, self.of)
    }
}

/// Most names of a file.
const NAMES_MAX: usize = 64;

/// A name as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NameDraft {
    pub(super) name: Found<ModelName>,
    /// As it is written: a model of the route or instance, or the route.
    pub(super) of: Found<ModelName>,
    pub(super) rules: Arc<Rules>,
}

/// Reads every `[[name]]` of a file.
pub(super) fn read(tables: Vec<Reader<'_>>, problems: &Problems) -> Vec<NameDraft> {
    if let Some(extra) = tables.get(NAMES_MAX) {
        let message = format!("a file has at most {NAMES_MAX} names: move some to another");
        problems.add(extra.line, "name", message);
    }
    let drafts: Vec<NameDraft> = tables.into_iter().filter_map(one).collect();
    for (at, draft) in drafts.iter().enumerate() {
        let of = &draft.of;
        if let Some(other) = drafts.iter().find(|other| other.name.value == of.value) {
            let message = if other.name == draft.name {
                format!("{:?} can't stand for itself: write a model", of.value)
            } else {
                format!(
                    "{:?} is a [[name]] too, and one name can't stand for another: write of = {:?}, and its parameters here as well",
                    of.value, other.of.value
                )
            };
            problems.add(of.line, "name.of", message);
        }
        let mut before = drafts.iter().take(at);
        if let Some(first) = before.find(|other| other.name.value == draft.name.value) {
            let message = format!(
                "{:?} stands in line {} too: write another name",
                draft.name.value, first.name.line
            );
            problems.add(draft.name.line, "name.name", message);
        }
    }
    drafts
}

fn one(mut table: Reader<'_>) -> Option<NameDraft> {
    let name = model(&mut table, "name");
    table.missing_unless(name.is_some(), "name", "what clients ask for, as \"fast\"");
    let of = model(&mut table, "of");
    let wanted = "what it stands for: a model of this file's route or instance";
    table.missing_unless(of.is_some(), "of", wanted);
    let mut rules = Vec::new();
    let mut places = Vec::new();
    for (key, act) in [
        ("set", Act::Set as fn(_) -> _),
        ("default", Act::Default),
        ("max", Act::Max),
    ] {
        let mut values = Vec::new();
        flatten(table.raw_table(key), "", &mut values);
        for (dotted, entry) in values {
            let place = format!("{key}.{}", cut(&dotted));
            match json(&entry.node) {
                Ok(value) => {
                    rules.push(Rule {
                        key: dotted,
                        act: act(value),
                    });
                    places.push((entry.node.line, place));
                }
                Err((line, message)) => table.wrong(line, &place, message),
            }
        }
    }
    if let Some(dropped) = table.parsed_list::<String>("drop") {
        for key in dropped.value {
            places.push((dropped.line, "drop".to_owned()));
            rules.push(Rule {
                key,
                act: Act::Drop,
            });
        }
    }
    let rules = Rules::new(rules)
        .map_err(|faults| {
            for fault in faults {
                if let Some((line, place)) = places.get(fault.rule) {
                    table.wrong(*line, place, fault.message);
                }
            }
        })
        .unwrap_or_default();
    table.finish();
    Some(NameDraft {
        name: name?,
        of: of?,
        rules: Arc::new(rules),
    })
}

/// A name without `*`.
pub(super) fn model(table: &mut Reader<'_>, key: &'static str) -> Option<Found<ModelName>> {
    let found = table.parsed::<ModelName>(key)?;
    if found.value.as_str().contains('*') {
        table.wrong(found.line, key, "write one name here, without a *");
        return None;
    }
    Some(found)
}

/// The values of a table by their dotted keys: what lies in a table is ruled key by key,
/// so that what a client wrote beside it stays.
fn flatten<'a>(entries: &'a [Entry], path: &str, found: &mut Vec<(String, &'a Entry)>) {
    for entry in entries {
        let dotted = if path.is_empty() {
            entry.key.clone()
        } else {
            format!("{path}.{}", entry.key)
        };
        match &entry.node.value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, &dotted, found),
            _ => found.push((dotted, entry)),
        }
    }
}
