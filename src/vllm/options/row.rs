//! Content of a row of the table.
//!
//! Owns the shape only: no option is named here. The constructors are `const`
//! and chain, so a row reads as a sentence and leaves out what is usual.

use crate::vllm::versions::Version;

/// Place where the form shows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Beside the groups: name, project, queue, route, version.
    Instance,
    /// "Model Configuration".
    Model,
    /// "Speculative decoding", inside Model Configuration.
    Speculative,
    /// "`LoRA` Configuration".
    Lora,
    /// "General".
    General,
    /// "Advanced".
    Advanced,
    /// "Idle options".
    Idle,
}

impl Group {
    /// Every group, in the order of the form.
    pub const ALL: [Self; 7] = [
        Self::Instance,
        Self::Model,
        Self::Speculative,
        Self::Lora,
        Self::General,
        Self::Advanced,
        Self::Idle,
    ];

    /// The heading over the group.
    pub fn title(self) -> &'static str {
        match self {
            Self::Instance => "Instance",
            Self::Model => "Model Configuration",
            Self::Speculative => "Speculative Decoding",
            Self::Lora => "LoRA Configuration",
            Self::General => "General",
            Self::Advanced => "Advanced",
            Self::Idle => "Idle Options",
        }
    }
}

/// Values that an option takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueKind {
    /// On or off; off is the same as unset.
    Switch,
    /// On, off, or unset, where vLLM decides.
    TriState,
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A number of tokens: whole, or as `"32k"` (thousands) or `"32K"` (1024s);
    /// `"auto"` lets vLLM find the largest that fits.
    Tokens,
    /// A number within bounds, both included.
    Float {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// A number of GiB, or a size as `"10GiB"`.
    Gibibytes,
    /// A text on one line that does not begin with `-`.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A word out of a list that vLLM or a plugin extends; these are usual.
    Open(&'static [&'static str]),
    /// A table, or a text that holds a JSON object.
    Json,
    /// Texts: an array, or one text separated by commas.
    List,
    /// Numbers: an array, or one text separated by commas.
    Numbers,
    /// Counts by name: a table, or a text as `image=16,video=2`.
    Counts,
    /// `LoRA` adapters: a list of `name=path`, a table of paths by name, or a list
    /// of tables with `name`, `path` and `base_model_name`.
    Adapters,
    /// A raw command line.
    CommandLine,
    /// A secret: a table with `env`, `file` or `secret`, or the secret itself.
    Secret,
    /// A span of time, as `"15m"`.
    Duration,
}

/// Party that acts on an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetBy {
    /// vLLM: it becomes an argument or an environment variable.
    Vllm,
    /// Tidegate's lifecycle manager.
    Lifecycle,
    /// Tidegate's gateway.
    Gateway,
}

/// Table of an instance file in which an option may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionScope {
    /// `[instance.options]`: for all deployments of the instance.
    Instance,
    /// `[deployment.options]`: for one.
    Deployment,
    /// Either; the deployment's value wins.
    Both,
}

impl OptionScope {
    /// True if an option of this scope may stand in the table of `place`.
    pub fn allows(self, place: Self) -> bool {
        self == Self::Both || place == Self::Both || self == place
    }
}

/// Place where an option is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In an options table, by its name.
    Options(OptionScope),
    /// At a key of its own, as `instance.name`.
    Key(&'static str),
    /// Nowhere in a file: it is this command.
    Command(&'static str),
}

/// Fate of an option over a range of vLLM versions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Versions {
    /// First version.
    pub since: Version,
    /// First version after it.
    pub until: Version,
    /// Form of it in these versions.
    pub form: Form,
}

/// Way in which a value becomes an argument or a variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// True is the flag, false is nothing.
    Switch(&'static str),
    /// True is `--flag`, false is `--no-flag`.
    NoSwitch(&'static str),
    /// `--flag=true` or `--flag=false`.
    BoolValue(&'static str),
    /// The flag and one value.
    Value(&'static str),
    /// The flag and one JSON text.
    Json(&'static str),
    /// The flag and `a=1,b=2`.
    Counts(&'static str),
    /// The flag once and all values after it.
    List(&'static str),
    /// The flag before each value.
    Append(&'static str),
    /// The flag and all values joined by commas.
    Commas(&'static str),
    /// A variable of the worker's environment.
    Env(&'static str),
    /// Said in another way that means exactly the same.
    Translated(Translation),
    /// vLLM no longer has it.
    Removed {
        /// Last known version that had it.
        after: Version,
        /// First known version without it.
        by: Version,
        /// Option to use instead; empty where nothing took its place.
        instead: &'static str,
        /// The value, as JSON, that asks for what later versions do anyway.
        neutral: Option<&'static str>,
    },
    /// Tidegate acts on it; vLLM does not see it. The text says how.
    Tidegate(&'static str),
}

impl Form {
    /// The flag that this form writes, if it is one.
    pub fn flag(&self) -> Option<&'static str> {
        match *self {
            Self::Switch(flag)
            | Self::NoSwitch(flag)
            | Self::BoolValue(flag)
            | Self::Value(flag)
            | Self::Json(flag)
            | Self::Counts(flag)
            | Self::List(flag)
            | Self::Append(flag)
            | Self::Commas(flag) => Some(flag),
            Self::Translated(translation) => translation.flag(),
            Self::Env(_) | Self::Removed { .. } | Self::Tidegate(_) => None,
        }
    }
}

/// Ways to say an old option to a newer vLLM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// The reasoning parser alone turns reasoning on.
    Reasoning,
    /// A key of `rope_parameters` in `--hf-overrides`.
    Rope,
    /// A key of `--speculative-config`.
    Speculative(&'static str),
    /// `--runner` and `--convert`.
    Runner,
    /// `backend` of `--structured-outputs-config`.
    StructuredOutputs,
    /// Requests are not logged unless asked for.
    LogRequests,
}

impl Translation {
    /// The flag that it writes.
    pub fn flag(self) -> Option<&'static str> {
        match self {
            Self::Reasoning => None,
            Self::Rope => Some("--hf-overrides"),
            Self::Speculative(_) => Some("--speculative-config"),
            Self::Runner => Some("--runner"),
            Self::StructuredOutputs => Some("--structured-outputs-config"),
            Self::LogRequests => Some("--enable-log-requests"),
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionRow {
    /// Its name in files.
    pub name: &'static str,
    /// Its label in the form.
    pub label: &'static str,
    /// Its places in the form of the app that Tidegate stands in for: number and
    /// label there. An option listed twice has two.
    pub form: &'static [(u8, &'static str)],
    /// Its group.
    pub group: Group,
    /// Sentence or two on what it does.
    pub help: &'static str,
    /// Values that it takes.
    pub kind: ValueKind,
    /// Unit of the value; empty for none.
    pub unit: &'static str,
    /// Default where it is unset, in words or as a value.
    pub default: &'static str,
    /// A legal value as JSON, for the reference and the proof against vLLM.
    pub example: &'static str,
    /// Other spellings of values, and what they mean.
    pub synonyms: &'static [(&'static str, &'static str)],
    /// Party that acts on it.
    pub owner: SetBy,
    /// Place where it is written.
    pub home: Home,
    /// Fate of it in each vLLM version, oldest first, without gaps.
    pub spans: &'static [Versions],
}

impl OptionRow {
    /// The span that holds for a version.
    pub fn span(&self, version: Version) -> Option<&'static Versions> {
        self.spans
            .iter()
            .find(|span| span.since <= version && version < span.until)
    }

    /// True if it becomes an argument of a version.
    pub fn becomes_argument(&self, version: Version) -> bool {
        let argument = |span: &Versions| !matches!(span.form, Form::Tidegate(_) | Form::Env(_));
        matches!(
            self.name,
            "config_overrides" | "model_overrides" | "max_cuda_memory"
        ) || self.span(version).is_some_and(argument)
    }

    /// The variable of a version's environment that it sets.
    pub fn variable(&self, version: Version) -> Option<&'static str> {
        match self.span(version)?.form {
            Form::Env(name) => Some(name),
            _ => None,
        }
    }

    /// Labels of the form that differ from [`Self::label`].
    pub fn aliases(&self) -> impl Iterator<Item = &'static str> {
        let label = self.label;
        let other = move |(_, l): &(u8, &'static str)| (*l != label).then_some(*l);
        self.form.iter().filter_map(other)
    }

    /// Place where it is written, for people: `deployment.options.dtype`.
    pub fn key(&self) -> String {
        match self.home {
            Home::Options(OptionScope::Instance) => format!("instance.options.{}", self.name),
            Home::Options(OptionScope::Deployment) => format!("deployment.options.{}", self.name),
            Home::Options(OptionScope::Both) => match self.group {
                Group::Model | Group::Speculative => format!("deployment.options.{}", self.name),
                _ => format!("instance.options.{}", self.name),
            },
            Home::Key(key) => key.to_owned(),
            Home::Command(command) => command.to_owned(),
        }
    }
}

/// A row that becomes a vLLM argument, in either options table.
pub(super) const fn row(
    group: Group,
    form: &'static [(u8, &'static str)],
    name: &'static str,
    kind: ValueKind,
    example: &'static str,
    help: &'static str,
) -> OptionRow {
    let label = match form {
        [(_, label), ..] => label,
        [] => "",
    };
    OptionRow {
        name,
        label,
        form,
        group,
        help,
        kind,
        unit: "",
        default: "",
        example,
        synonyms: &[],
        owner: SetBy::Vllm,
        home: Home::Options(OptionScope::Both),
        spans: &[],
    }
}

impl OptionRow {
    pub(super) const fn label(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    pub(super) const fn means(mut self, synonyms: &'static [(&'static str, &'static str)]) -> Self {
        self.synonyms = synonyms;
        self
    }

    pub(super) const fn owner(mut self, owner: SetBy) -> Self {
        self.owner = owner;
        self
    }

    pub(super) const fn home(mut self, home: Home) -> Self {
        self.home = home;
        self
    }

    pub(super) const fn spans(mut self, spans: &'static [Versions]) -> Self {
        self.spans = spans;
        self
    }
}

/// A form that holds for every version.
pub(super) const fn ever(form: Form) -> Versions {
    Versions {
        since: Version::MIN,
        until: Version::MAX,
        form,
    }
}

/// A form that holds up to a version, that one not included.
pub(super) const fn before(until: Version, form: Form) -> Versions {
    Versions {
        since: Version::MIN,
        until,
        form,
    }
}

/// A form that holds from a version on.
pub(super) const fn since(since: Version, form: Form) -> Versions {
    Versions {
        since,
        until: Version::MAX,
        form,
    }
}

/// The span of a removed option: last known with it, first known without it.
pub(super) const fn gone(after: Version, by: Version, instead: &'static str) -> Versions {
    Versions {
        since: by,
        until: Version::MAX,
        form: Form::Removed {
            after,
            by,
            instead,
            neutral: None,
        },
    }
}

/// As [`gone`], where one value asks for what later versions do anyway.
pub(super) const fn gone_but(
    after: Version,
    by: Version,
    instead: &'static str,
    neutral: &'static str,
) -> Versions {
    Versions {
        since: by,
        until: Version::MAX,
        form: Form::Removed {
            after,
            by,
            instead,
            neutral: Some(neutral),
        },
    }
}
