//! From options and a version to argv and environment.
//!
//! [`command_line`] is a pure function: the same launch gives the same line. It
//! finds all that vLLM would refuse before a process is started, and names the
//! option. No shell is ever involved: what leaves here is a list of words.
//!
//! ```text
//! options ─ forms ─┐
//! cli, overrides ──┴─ items ─ check (version, admin, GPUs) ─ words
//! ```

mod check;
mod forms;
mod inputs;
mod item;
mod operator;
mod owned;
mod raw;
mod split;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

pub use inputs::fetching;
use item::Item;
pub use split::split;

use crate::outbound::dial::media::Media;
use crate::vllm::environment;
use crate::vllm::options::{OptionError, OptionSet, SecretSource, SecretText, Value, one_line};
use crate::vllm::rules::{self, Allowed, Hardware};
use crate::vllm::versions::{Found, Version, VersionArgs};

/// Place where the worker listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen<'a> {
    /// Host and port.
    Tcp(&'a str, u16),
    /// A Unix socket; vLLM 0.7.2 does not know these.
    Unix(&'a Path),
}

/// Ability of the worker to be put to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// It cannot.
    No,
    /// Its routes are served and nothing is freed. On a CPU vLLM refuses
    /// `--enable-sleep-mode`, and serves the routes without it.
    RoutesOnly,
    /// Its memory can be freed.
    Yes,
}

/// Finds a secret's text, or says why it can't.
pub type Resolve<'a> = &'a dyn Fn(&SecretSource) -> Result<SecretText, String>;

/// All that a worker's command line depends on.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// Path or hub name of the weights.
    pub model: &'a str,
    /// Names that it is served as; the first is the one that answers name.
    pub served_names: &'a [&'a str],
    /// The instance's options with the deployment's over them.
    pub options: &'a OptionSet,
    /// The vLLM that will run.
    pub version: &'a Version,
    /// Knowledge of its arguments.
    pub knowledge: &'a VersionArgs,
    /// Place where it listens.
    pub listen: Listen<'a>,
    /// Ability of it to be put to sleep.
    pub sleep: Sleep,
    /// Allowance by the admin.
    pub allowed: &'a Allowed,
    /// Places from which it may fetch what requests name.
    pub media: &'a Media,
    /// True if requests may bring a chat template of their own.
    pub chat_template: bool,
    /// Machine where it will run.
    pub machine: Hardware,
    /// Finds secrets.
    pub resolve: Resolve<'a>,
}

/// A variable of the worker's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// May be shown.
    Plain(String),
    /// Prints as `***`.
    Secret(SecretText),
}

impl EnvValue {
    /// The value, for the environment of a process and for nothing else.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

impl fmt::Display for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(value) => f.write_str(&quoted(value)),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

/// The flags of a command line, each with its value: what stands behind `=`, or the next word.
pub fn flags(argv: &[String]) -> impl Iterator<Item = (&str, Option<&str>)> {
    let words = argv.iter().enumerate();
    words.map(|(place, word)| match word.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (word.as_str(), argv.get(place + 1).map(String::as_str)),
    })
}

/// True if an argument is Tidegate's own to give.
pub fn is_owned(flag: &str) -> bool {
    owned::owner(flag).is_some()
}

/// A worker's command line. Prints as a shell would read it, secrets as `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Words after the program's name, the first `serve`.
    pub argv: Vec<String>,
    /// Variables to set beside those of the launcher.
    pub env: BTreeMap<String, EnvValue>,
    /// Notes on options that were left out or said in another way.
    pub notes: Vec<String>,
    /// GPUs that the worker needs.
    pub gpus: u64,
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={value} ")?;
        }
        f.write_str("vllm")?;
        for word in &self.argv {
            write!(f, " {}", quoted(word))?;
        }
        Ok(())
    }
}

/// Prints a command line and its notes, for people.
///
/// # Errors
///
/// Errors of the writer.
pub fn print(out: &mut dyn std::io::Write, line: &CommandLine) -> std::io::Result<()> {
    writeln!(out, "{line}")?;
    for note in &line.notes {
        writeln!(out, "# {note}")?;
    }
    Ok(())
}

/// A word as a shell would read it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Builds a worker's command line.
///
/// # Errors
///
/// Everything that vLLM, the admin or the machine would refuse.
pub fn command_line(launch: &Launch<'_>) -> Result<CommandLine, Vec<OptionError>> {
    let mut build = Build {
        launch,
        items: Vec::new(),
        notes: Vec::new(),
        errors: rules::across(launch.options),
    };
    build.errors.extend(launch.machine.platform(launch.options));
    build.errors.extend(operator::options(launch));
    if let Some(line) = launch.options.get_text("cli") {
        build.raw_line(line);
    } else {
        build.options();
        build.cuda_memory();
        build.overrides("config_overrides");
        build.overrides("model_overrides");
    }
    build.inputs();
    build.check();
    let env = build.environment();
    let mut argv = vec!["serve".to_owned()];
    argv.extend(build.frame());
    argv.extend(build.items.iter().flat_map(|item| item.words.clone()));
    if build.errors.is_empty() {
        Ok(CommandLine {
            argv,
            env,
            gpus: build.gpus(),
            notes: build.notes,
        })
    } else {
        Err(build.errors)
    }
}

/// A command line in the making.
struct Build<'a> {
    launch: &'a Launch<'a>,
    items: Vec<Item>,
    notes: Vec<String>,
    errors: Vec<OptionError>,
}

impl Build<'_> {
    /// With `cli`, only the model, what stands before it in the form, and what is
    /// Tidegate's own go beside it.
    fn raw_line(&mut self, line: &str) {
        if self.launch.options.is_on("trust_remote_code") {
            self.items
                .push(Item::switch("trust_remote_code", "--trust-remote-code"));
        }
        self.cli(line);
        let kept = ["cli", "trust_remote_code"];
        let ignored: Vec<&str> = self
            .launch
            .options
            .rows()
            .filter(|(row, _)| {
                !kept.contains(&row.name) && row.becomes_argument(*self.launch.version)
            })
            .map(|(row, _)| row.name)
            .collect();
        if !ignored.is_empty() {
            self.note(format!(
                "cli is set, so these are left out: {}",
                ignored.join(", ")
            ));
        }
    }

    /// Words that are Tidegate's own: model, address, names, sleep.
    fn frame(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        let model = self.launch.model;
        if let Err(message) = one_line(model).and_then(|_| self.launch.allowed.model(model)) {
            self.fail("model", message);
        }
        words.push(model.to_owned());
        match self.launch.listen {
            Listen::Tcp(host, port) => {
                words.extend(["--host".to_owned(), host.to_owned()]);
                words.extend(["--port".to_owned(), port.to_string()]);
            }
            Listen::Unix(path) => {
                if self.launch.knowledge.find("--uds") == Found::Absent {
                    let message = format!("{} can't listen on a Unix socket", self.version());
                    self.fail("vllm_version", message);
                }
                words.extend(["--uds".to_owned(), path.display().to_string()]);
            }
        }
        if !self.launch.served_names.is_empty() {
            words.push("--served-model-name".to_owned());
        }
        for name in self.launch.served_names {
            if let Err(message) = one_line(name) {
                self.fail("endpoint_name", message);
            }
            words.push((*name).to_owned());
        }
        if self.launch.sleep == Sleep::Yes {
            words.push("--enable-sleep-mode".to_owned());
        }
        words
    }

    /// GPU memory that the worker may count on, beyond the real or below it.
    fn cuda_memory(&mut self) {
        let options = self.launch.options;
        let Some(wanted) = options.get_float("max_cuda_memory") else {
            return;
        };
        let Some(real) = self.launch.machine.gpu_gib() else {
            self.note("max_cuda_memory takes effect where the size of the GPU is known");
            return;
        };
        if wanted > real {
            let surplus = ((wanted - real) * 100.0).ceil() / 100.0;
            let item = Item::value("max_cuda_memory", "--cpu-offload-gb", surplus.to_string());
            self.items.push(item);
            self.note(format!(
                "max_cuda_memory exceeds the GPU by {surplus} GiB, which stay in host memory"
            ));
        } else {
            let share = options.get_float("gpu_memory_utilization");
            let share = share.unwrap_or(self.launch.version.memory_share());
            let share = ((share * wanted / real) * 10_000.0).floor() / 10_000.0;
            self.items
                .retain(|item| item.flag != "--gpu-memory-utilization");
            let share = share.max(0.01).to_string();
            let item = Item::value(
                "max_cuda_memory",
                "--gpu-memory-utilization",
                share.as_str(),
            );
            self.items.push(item);
            self.note(format!(
                "max_cuda_memory is below the GPU's {real:.1} GiB, so the worker takes the share {share} of it"
            ));
        }
    }

    /// Variables for the worker.
    fn environment(&mut self) -> BTreeMap<String, EnvValue> {
        let mut env = BTreeMap::new();
        let mut plain = |name: &str, value: &str| {
            env.insert(name.to_owned(), EnvValue::Plain(value.to_owned()));
        };
        let options = self.launch.options;
        if self.launch.sleep != Sleep::No {
            // vLLM serves /sleep and /wake_up only in development mode.
            plain(environment::DEV_MODE, "1");
        }
        if options.is_on("debug") {
            plain("VLLM_LOGGING_LEVEL", "DEBUG");
        }
        for (row, value) in options.rows() {
            let Some(name) = row.variable(*self.launch.version) else {
                continue;
            };
            match value {
                Value::Bool(on) => plain(name, if *on { "1" } else { "0" }),
                Value::Text(text) => plain(name, text),
                _ => {}
            }
        }
        for (row, value) in options.rows() {
            let (Some(name), Value::Secret(source)) = (row.variable(*self.launch.version), value)
            else {
                continue;
            };
            match (self.launch.resolve)(source) {
                Ok(secret) => {
                    env.insert(name.to_owned(), EnvValue::Secret(secret));
                }
                Err(message) => self.errors.push(OptionError::new(row.name, message)),
            }
        }
        env
    }
}
