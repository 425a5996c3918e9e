//! `[[target]]` and `[route.targets]`: the ordered list that the names of a route lead to.
//!
//! Own models and servers of others stand in one list. How one of them is chosen belongs to
//! the list, what is asked of each to the target. What a target leads to is seen where
//! files are put together ([`super::link`]); who is asked, `gateway` says.

use std::sync::Arc;
use std::time::Duration;

use super::keys::WHEN;
use super::name::model;
use super::reader::{Found, Reader};
use super::{LoadBalancing, Upstream};
use crate::names::ModelName;

/// The list that the names of a route lead to.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetList {
    /// Choice of the target that is asked first.
    pub prefer: Prefer,
    /// Key by which requests stay with one target, by weight.
    pub sticky: Option<Sticky>,
    /// Target that gets copies.
    pub mirror: Option<Mirror>,
    /// In the order of the file; never empty.
    pub targets: Vec<TargetRule>,
}

/// Target that gets copies of requests, and answers in vain.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// A model behind the route, or the name of some of its upstreams.
    pub to: ModelName,
    /// Share of the requests that is copied: above 0, at most 1.
    pub share: f64,
}

/// One target of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetRule {
    /// A model behind the route, or the name of some of its upstreams.
    pub to: ModelName,
    /// Time within which it has to be able to answer; `None` for however long it takes.
    pub can_in: Option<Duration>,
    /// Its share of the requests.
    pub weight: u32,
    /// After what the next one is asked.
    pub when: Vec<GoOn>,
}

/// Choice of the target that is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// By their order.
    #[default]
    Order,
    /// Those that serve already; then by their order.
    Awake,
    /// By weight.
    Weight,
}

/// Property of requests that holds them at one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Their token.
    Token,
    /// The value of the route's session header.
    Session,
}

/// Reason to ask the next target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// No connection.
    Unreachable,
    /// The server answered with this status; 503 too where it has no place in time.
    Status(u16),
    /// The model could not be started, or is stopped.
    ModelFailed,
    /// The prompt is longer than its context.
    TooLong,
}

impl GoOn {
    /// All of them, in the order of their words.
    const ALL: [Self; 5] = [
        Self::Unreachable,
        Self::Status(502),
        Self::Status(503),
        Self::ModelFailed,
        Self::TooLong,
    ];
}

impl TargetList {
    /// True if one of its targets is called so.
    pub fn leads_to(&self, name: &ModelName) -> bool {
        self.targets.iter().any(|target| target.to == *name)
    }
}

/// A list as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TargetsDraft {
    pub(super) list: TargetList,
    /// The line of each `to`.
    pub(super) lines: Vec<usize>,
    /// The line of the mirror's `to`.
    pub(super) mirror_line: usize,
}

impl TargetsDraft {
    /// True if a target or the mirror is called so.
    fn names(&self, name: &ModelName) -> bool {
        let mirror = self.list.mirror.as_ref();
        self.list.leads_to(name) || mirror.is_some_and(|mirror| mirror.to == *name)
    }
}

/// The key of a mirror's target.
pub(super) const MIRROR_TO: &str = "route.targets.mirror.to";

/// Most targets of a list.
const TARGETS_MAX: usize = 32;

/// Keys of `[route.targets]`.
#[derive(Default)]
struct Choosing {
    prefer: Prefer,
    sticky: Option<Sticky>,
    mirror: Option<Found<Mirror>>,
}

/// Reads the list of a route; `None` where it has none.
pub(super) fn read(
    rules: Option<Reader<'_>>,
    tables: Vec<Reader<'_>>,
    balancing: &LoadBalancing,
) -> Option<TargetsDraft> {
    if let Some(extra) = tables.get(TARGETS_MAX) {
        let message = format!("a route has at most {TARGETS_MAX} targets: take some out");
        extra.problems.add(extra.line, "target", message);
    }
    let is_listed = !tables.is_empty();
    let rules = rules.map(|rules| choosing(rules, is_listed, balancing));
    let Choosing {
        prefer,
        sticky,
        mirror,
    } = rules.unwrap_or_default();
    let problems = tables.first()?.problems;
    let mut draft = TargetsDraft {
        list: TargetList {
            prefer,
            sticky,
            mirror: mirror.as_ref().map(|mirror| mirror.value.clone()),
            targets: Vec::new(),
        },
        lines: Vec::new(),
        mirror_line: mirror.map_or(0, |mirror| mirror.line),
    };
    for table in tables {
        let Some((rule, line)) = one(table, prefer) else {
            continue;
        };
        if draft.list.leads_to(&rule.to) {
            let message = format!("{:?} stands in the list twice: take one out", rule.to);
            problems.add(line, "target.to", message);
        }
        draft.list.targets.push(rule);
        draft.lines.push(line);
    }
    let is_weightless = draft.list.targets.iter().all(|rule| rule.weight == 0);
    if let (true, Some(first)) = (is_weightless, draft.lines.first()) {
        let message = "the weights come to nothing: write 1 or more for those that are asked";
        problems.add(*first, "target.weight", message);
    }
    if let (Some(mirror), [only]) = (&draft.list.mirror, draft.list.targets.as_slice())
        && mirror.to == only.to
    {
        let message = format!(
            "{:?} answers all requests itself: write another here, or take mirror out",
            only.to
        );
        problems.add(draft.mirror_line, MIRROR_TO, message);
    }
    Some(draft)
}

fn choosing(mut table: Reader<'_>, is_listed: bool, balancing: &LoadBalancing) -> Choosing {
    let words = [
        ("order", Prefer::Order),
        ("awake", Prefer::Awake),
        ("weight", Prefer::Weight),
    ];
    let prefer = table.choice("prefer", &words).map(|found| found.value);
    let prefer = prefer.unwrap_or_default();
    let words = [("token", Sticky::Token), ("session", Sticky::Session)];
    let sticky = table.choice("sticky", &words);
    if let Some(Found { value, line }) = &sticky {
        if prefer != Prefer::Weight {
            let message = "this is for prefer = \"weight\": write that, or take this out";
            table.wrong(*line, "sticky", message);
        } else if *value == Sticky::Session && balancing.session_header.is_none() {
            let message =
                "no header tells a session: write session_header in [route.load_balancing]";
            table.wrong(*line, "sticky", message);
        }
    }
    let mirror = table.table("mirror").and_then(mirror);
    if !is_listed {
        table.misnamed("there is no list: write [[target]], or take this out");
    }
    table.finish();
    Choosing {
        prefer,
        sticky: sticky.map(|sticky| sticky.value),
        mirror,
    }
}

/// Reads the name of what a target or a mirror leads to.
fn end(table: &mut Reader<'_>) -> Option<Found<ModelName>> {
    let to = model(table, "to");
    let wanted = "a model behind the route, or the name of an [[upstream]]";
    table.missing_unless(to.is_some(), "to", wanted);
    to
}

fn mirror(mut table: Reader<'_>) -> Option<Found<Mirror>> {
    let to = end(&mut table);
    let share = table.number("share").unwrap_or(1.0);
    table.finish();
    let Found { value: to, line } = to?;
    let value = Mirror { to, share };
    Some(Found { value, line })
}

fn one(mut table: Reader<'_>, prefer: Prefer) -> Option<(TargetRule, usize)> {
    let to = end(&mut table);
    let can_in = table.span("can_in");
    let weight = table.whole("weight");
    if weight.is_some() && prefer != Prefer::Weight {
        let message =
            "this is for prefer = \"weight\" in [route.targets]: write that, or take this out";
        table.wrong(table.line_of("weight"), "weight", message);
    }
    let when = when(&mut table);
    table.finish();
    let to = to?;
    let rule = TargetRule {
        to: to.value,
        can_in,
        weight: weight.unwrap_or(1),
        when: when.unwrap_or_else(|| GoOn::ALL.to_vec()),
    };
    Some((rule, to.line))
}

fn when(table: &mut Reader<'_>) -> Option<Vec<GoOn>> {
    let words = table.parsed_list::<String>("when")?;
    let mut when = Vec::new();
    for word in &words.value {
        let known = WHEN.iter().zip(GoOn::ALL);
        let found = known.clone().find(|(known, _)| **known == word.as_str());
        let message = match found {
            Some((_, go_on)) if !when.contains(&go_on) => {
                when.push(go_on);
                continue;
            }
            Some(_) => format!("{word:?} stands here twice: take one out"),
            None => format!("{word:?} is unknown: known are \"{}\"", WHEN.join("\", \"")),
        };
        table.wrong(words.line, "when", message);
    }
    Some(when)
}

/// Checks the name of an upstream, before it is read.
pub(super) fn check_name(upstream: &Reader<'_>, is_listed: bool) {
    match (is_listed, upstream.has("name")) {
        (true, false) => {
            let message = "this is missing: the route has a list, so write the name by which a [[target]] leads here";
            upstream.wrong(upstream.line, "name", message);
        }
        (false, true) => {
            let message = "this is for [[target]]: write one that leads here, or take this out";
            upstream.wrong(upstream.line_of("name"), "name", message);
        }
        (true, true) | (false, false) => {}
    }
}

/// Notes upstreams to which no target leads.
pub(super) fn check_reached(upstreams: &[Arc<Upstream>], draft: &TargetsDraft, table: &Reader<'_>) {
    for upstream in upstreams {
        let name = upstream.name.as_ref();
        if let Some(name) = name.filter(|name| !draft.names(name)) {
            let message = format!(
                "no target leads to {name:?}: write [[target]] with to = {name:?}, or take this upstream out"
            );
            let line = upstream.line.0;
            table.problems.add(line, "upstream.name", message);
        }
    }
}
