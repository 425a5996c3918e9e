//! The argument list of one version, whole or with gaps.

use std::collections::{BTreeMap, BTreeSet};

use super::Version;

/// Texts of versions that are known whole, oldest first.
const WHOLE: [(Version, &str); 2] = [
    (Version::new(0, 7, 2), include_str!("0.7.2.txt")),
    (Version::new(0, 32, 0), include_str!("0.32.0.txt")),
];

/// Texts of versions that are known in part, oldest first.
const PARTIAL: [(Version, &str); 3] = [
    (Version::new(0, 9, 2), include_str!("0.9.2.txt")),
    (Version::new(0, 11, 0), include_str!("0.11.0.txt")),
    (Version::new(0, 15, 0), include_str!("0.15.0.txt")),
];

/// Form of an argument's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgForm {
    /// No value.
    Switch,
    /// No value; `--no-` turns it off.
    NoSwitch,
    /// `true` or `false`, or no value.
    Bool,
    /// One value or none.
    Optional,
    /// One value.
    Value,
    /// One whole number.
    Integer,
    /// One number.
    Float,
    /// One number of tokens, as `4096` or `32k`.
    Tokens,
    /// One JSON text.
    Json,
    /// One value or more.
    List,
    /// One value; it may be given again.
    Append,
}

const FORMS: [(&str, ArgForm); 11] = [
    ("switch", ArgForm::Switch),
    ("no-switch", ArgForm::NoSwitch),
    ("bool", ArgForm::Bool),
    ("optional", ArgForm::Optional),
    ("value", ArgForm::Value),
    ("int", ArgForm::Integer),
    ("float", ArgForm::Float),
    ("tokens", ArgForm::Tokens),
    ("json", ArgForm::Json),
    ("list", ArgForm::List),
    ("append", ArgForm::Append),
];

impl ArgForm {
    /// The word for it in the texts.
    pub fn word(self) -> &'static str {
        FORMS
            .iter()
            .find(|(_, form)| *form == self)
            .map_or("value", |(word, _)| word)
    }

    /// The form that a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        FORMS
            .iter()
            .find(|(w, _)| *w == word)
            .map(|(_, form)| *form)
    }

    /// Fewest and most values.
    pub fn values(self) -> (usize, usize) {
        match self {
            Self::Switch | Self::NoSwitch => (0, 0),
            Self::Bool | Self::Optional => (0, 1),
            Self::List => (1, usize::MAX),
            _ => (1, 1),
        }
    }

    fn is_switch(self) -> bool {
        matches!(self, Self::Switch | Self::NoSwitch | Self::Bool)
    }
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its names; the first is the long one.
    pub names: Vec<String>,
    /// Form of its value.
    pub form: ArgForm,
    /// The only values that it takes; empty for any.
    pub choices: Vec<String>,
}

impl Arg {
    /// The long name, with its dashes.
    pub fn flag(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Reads `--quantization,-q|value|awq,gptq`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let names: Vec<String> = fields.next()?.split(',').map(str::to_owned).collect();
        let form = ArgForm::from_word(fields.next()?)?;
        let choices = fields.next().unwrap_or_default();
        let choices = choices.split(',').filter(|choice| !choice.is_empty());
        let choices = choices.map(str::to_owned).collect();
        let long = names.first()?.starts_with("--");
        long.then_some(Self {
            names,
            form,
            choices,
        })
    }

    /// The line that [`Self::parse`] reads.
    fn line(&self) -> String {
        let mut line = format!("{}|{}", self.names.join(","), self.form.word());
        if !self.choices.is_empty() {
            line.push('|');
            line.push_str(&self.choices.join(","));
        }
        line
    }
}

/// Source of the knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Built in, and whole.
    BuiltIn,
    /// Concluded from the versions around it, with gaps.
    Concluded,
    /// The installed version was asked.
    Introspected,
}

/// Knowledge of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The version has it.
    Present {
        /// The argument.
        arg: &'a Arg,
        /// True if it was asked for as `--no-…`.
        negated: bool,
    },
    /// Perhaps the version has it; if so it probably looks like this.
    Perhaps(Option<&'a Arg>),
    /// The version does not have it.
    Absent,
}

/// The arguments of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionArgs {
    version: Version,
    source: Source,
    /// By long name.
    present: BTreeMap<String, Arg>,
    /// By long name; those of versions around it.
    perhaps: BTreeMap<String, Arg>,
    /// True if an argument that is in neither may exist all the same.
    open: bool,
}

impl VersionArgs {
    /// Knowledge that is built in for a version, or concluded from the versions around it.
    pub fn built_in(version: Version) -> Self {
        for (known, text) in WHOLE {
            if known == version {
                return Self::whole(version, Source::BuiltIn, args(text));
            }
        }
        conclude(version)
    }

    /// The arguments that an installed version told.
    pub fn introspected(version: Version, args: Vec<Arg>) -> Self {
        let by_name = |arg: Arg| (arg.flag().to_owned(), arg);
        Self::whole(
            version,
            Source::Introspected,
            args.into_iter().map(by_name).collect(),
        )
    }

    fn whole(version: Version, source: Source, present: BTreeMap<String, Arg>) -> Self {
        Self {
            version,
            source,
            present,
            perhaps: BTreeMap::new(),
            open: false,
        }
    }

    /// True if a version that is built in whole has a flag of this long name, so that
    /// what it leads to was looked at.
    pub fn is_classified(flag: &str) -> bool {
        WHOLE
            .iter()
            .any(|(version, _)| observed(*version, flag) == Some(true))
    }

    /// Reads the lines of [`Self::to_text`]; `None` if one does not fit.
    pub fn from_text(version: Version, text: &str) -> Option<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let args: Option<Vec<Arg>> = lines.map(Arg::parse).collect();
        let args = args.filter(|args| !args.is_empty())?;
        Some(Self::introspected(version, args))
    }

    /// The arguments, one line each, for a cache.
    pub fn to_text(&self) -> String {
        let mut text = format!("# Arguments of `vllm serve` {}\n", self.version);
        for arg in self.present.values() {
            text.push_str(&arg.line());
            text.push('\n');
        }
        text
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Source of the knowledge.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Arguments that the version certainly has.
    pub fn iter(&self) -> impl Iterator<Item = &Arg> {
        self.present.values()
    }

    /// Knowledge of an argument by one of its names, with its dashes.
    pub fn find(&self, name: &str) -> Found<'_> {
        if let Some(arg) = by_name(&self.present, name) {
            return Found::Present {
                arg,
                negated: false,
            };
        }
        let positive = name.strip_prefix("--no-").map(|rest| format!("--{rest}"));
        if let Some(arg) = positive.as_deref().and_then(|name| self.present.get(name)) {
            if arg.form == ArgForm::NoSwitch {
                return Found::Present { arg, negated: true };
            }
            if self.source == Source::Concluded && arg.form.is_switch() {
                return Found::Perhaps(Some(arg));
            }
        }
        match by_name(&self.perhaps, name) {
            Some(arg) => Found::Perhaps(Some(arg)),
            None if self.open => Found::Perhaps(None),
            None => Found::Absent,
        }
    }

    /// True if the version certainly has the argument.
    pub fn has(&self, name: &str) -> bool {
        matches!(self.find(name), Found::Present { .. })
    }

    /// Long names that begin with `prefix`, for abbreviations.
    pub fn completions<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let both = self.present.keys().chain(self.perhaps.keys());
        both.map(String::as_str)
            .filter(move |name| name.starts_with(prefix))
    }

    /// The long name that is most like `name`.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let likeness = |flag: &&str| strsim::jaro_winkler(flag, name);
        self.present
            .keys()
            .map(String::as_str)
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .filter(|flag| likeness(flag) > 0.85)
    }
}

fn by_name<'a>(args: &'a BTreeMap<String, Arg>, name: &str) -> Option<&'a Arg> {
    args.get(name).or_else(|| {
        let named = |arg: &&Arg| arg.names.iter().any(|other| other == name);
        args.values().find(named)
    })
}

fn args(text: &str) -> BTreeMap<String, Arg> {
    text.lines()
        .filter_map(Arg::parse)
        .map(|arg| (arg.flag().to_owned(), arg))
        .collect()
}

/// True if a known version has a flag; `None` where it is not known.
fn observed(version: Version, flag: &str) -> Option<bool> {
    if let Some((_, text)) = WHOLE.iter().find(|(known, _)| *known == version) {
        return Some(text.lines().any(|line| line_flag(line) == Some(flag)));
    }
    let (_, text) = PARTIAL.iter().find(|(known, _)| *known == version)?;
    text.lines().find_map(|line| match line.strip_prefix('!') {
        Some(absent) => (absent == flag).then_some(false),
        None => (line == flag).then_some(true),
    })
}

fn line_flag(line: &str) -> Option<&str> {
    line.split(['|', ',']).next()
}

/// Concludes what a version has from the nearest versions that are known.
fn conclude(version: Version) -> VersionArgs {
    let mut known: Vec<Version> = WHOLE.iter().chain(&PARTIAL).map(|(v, _)| *v).collect();
    known.sort();
    let lists: Vec<_> = WHOLE.iter().map(|(_, text)| args(text)).collect();
    let flags: BTreeSet<&String> = lists.iter().flat_map(BTreeMap::keys).collect();
    let (mut present, mut perhaps) = (BTreeMap::new(), BTreeMap::new());
    for flag in flags {
        let seen = |v: &Version| observed(*v, flag);
        let below = known.iter().rev().filter(|v| **v <= version).find_map(seen);
        let above = known.iter().filter(|v| **v >= version).find_map(seen);
        let arg = common(lists.iter().filter_map(|list| list.get(flag)));
        let Some(arg) = arg else { continue };
        match (below, above) {
            (Some(true), Some(true) | None) | (None, Some(true)) => {
                present.insert(flag.clone(), arg);
            }
            (Some(false), Some(false)) => {}
            _ => {
                perhaps.insert(flag.clone(), arg);
            }
        }
    }
    let newest = known.last().copied().unwrap_or(Version::MIN);
    let oldest = known.first().copied().unwrap_or(Version::MAX);
    VersionArgs {
        version,
        source: Source::Concluded,
        present,
        perhaps,
        open: version > newest || version < oldest,
    }
}

/// Common ground of an argument in all versions that are known: their form if it is
/// the same, else the one that asks least; choices only if they are the same.
fn common<'a>(mut args: impl Iterator<Item = &'a Arg>) -> Option<Arg> {
    let mut all = args.next()?.clone();
    for arg in args {
        if all.form != arg.form {
            all.form = if all.form.is_switch() && arg.form.is_switch() {
                ArgForm::Switch
            } else {
                ArgForm::Value
            };
        }
        if all.choices != arg.choices {
            all.choices.clear();
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests;
