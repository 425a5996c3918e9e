//! What a spec runs: program, arguments, environment.
//!
//! The command line of vLLM proper is `vllm`'s to build; this adds what every
//! worker of ours gets: its socket, its key, its own directories. Looks at the
//! file system only to refuse what can't start.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde_json::Value;

use crate::config::{self, Engine};

/// How long an idle connection to a worker stays open, in seconds; the
/// gateway's pool closes its own sooner. vLLM's default is 5 s.
pub const KEEP_ALIVE_SECONDS: u64 = 300;

/// A command as it will be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Path, or a name that is looked up on PATH.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment, beside what this process has.
    pub env: Vec<(String, String)>,
}

/// Where engines come from.
#[derive(Clone, Debug)]
pub struct Engines {
    /// Our own executable, for the stand-in.
    pub own: PathBuf,
    /// `[engines.vllm] command`.
    pub vllm: PathBuf,
    /// Whether workers run on GPUs.
    pub gpus: bool,
}

impl Engines {
    /// The command of this spec, serving on `socket`.
    pub fn command_line(&self, spec: &config::Deployment, socket: &Path) -> CommandLine {
        let offloads = spec.idle.offload.is_some();
        let mut line = match &spec.engine {
            Engine::Sim(sim) => self.sim(spec, sim),
            Engine::Vllm(vllm) => self.vllm(spec, vllm, offloads),
        };
        line.args.extend([
            "--served-model-name".to_owned(),
            spec.endpoint_name.to_string(),
            "--uds".to_owned(),
            socket.display().to_string(),
        ]);
        let keep_alive = KEEP_ALIVE_SECONDS.to_string();
        line.env
            .push(("VLLM_HTTP_TIMEOUT_KEEP_ALIVE".to_owned(), keep_alive));
        if offloads {
            // vLLM 0.32 serves /sleep and /wake_up only in this mode.
            line.env
                .push(("VLLM_SERVER_DEV_MODE".to_owned(), "1".to_owned()));
        }
        line
    }

    /// Digest of what this spec launches, whatever its socket.
    pub fn fingerprint(&self, spec: &config::Deployment) -> String {
        let line = self.command_line(spec, Path::new("socket"));
        let mut context = digest::Context::new(&digest::SHA256);
        let program = line.program.display().to_string();
        let env = line.env.iter().flat_map(|(name, value)| [name, value]);
        for part in [&program].into_iter().chain(&line.args).chain(env) {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let digest = context.finish();
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Finds what would fail for sure, in a sentence.
    ///
    /// # Errors
    ///
    /// The sentence.
    pub fn check(&self, spec: &config::Deployment) -> Result<(), String> {
        let Engine::Vllm(_) = &spec.engine else {
            return Ok(());
        };
        let model = &spec.model;
        let is_path = model.starts_with('/') || model.starts_with("./");
        if is_path && !Path::new(model).exists() {
            return Err(format!(
                "there is no model at {model}: put it there, or name another one in deployment.model"
            ));
        }
        let program = self.vllm_program(spec);
        if is_runnable(&program) {
            return Ok(());
        }
        Err(if program.components().count() > 1 {
            format!(
                "there is no vllm at {}: install vLLM there, or set [engines.vllm] command, \
                 or instance.engine = \"sim\"",
                program.display()
            )
        } else {
            format!(
                "{} was not found on PATH: install vLLM, or set [engines.vllm] command, \
                 or instance.engine = \"sim\"",
                program.display()
            )
        })
    }

    fn vllm_program(&self, _spec: &config::Deployment) -> PathBuf {
        self.vllm.clone()
    }

    fn sim(&self, spec: &config::Deployment, sim: &config::Sim) -> CommandLine {
        let span = |duration| crate::units::Span(duration).to_string();
        let size = |bytes: u64| format!("{bytes}B");
        let mut args = vec!["sim".to_owned(), spec.model.clone()];
        let mut set = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        set("--load", span(sim.load));
        set("--wake", span(sim.wake));
        set("--sleep", span(sim.sleep));
        set("--first-token", span(sim.first_token));
        set("--tokens-per-second", sim.tokens_per_second.to_string());
        set("--weights", size(sim.weights));
        set("--context", size(sim.context));
        for fault in &sim.faults {
            set("--fault", fault.clone());
        }
        CommandLine {
            program: self.own.clone(),
            args,
            env: Vec::new(),
        }
    }

    fn vllm(&self, spec: &config::Deployment, vllm: &config::Vllm, offloads: bool) -> CommandLine {
        let mut args = vec!["serve".to_owned(), spec.model.clone()];
        args.extend(option_args(&vllm.options.0));
        // Without GPUs vLLM 0.32 refuses the flag, and sleeps without it.
        if offloads && self.gpus {
            args.push("--enable-sleep-mode".to_owned());
        }
        CommandLine {
            program: self.vllm_program(spec),
            args,
            env: Vec::new(),
        }
    }
}

/// The options that have a flag of the same meaning.
fn option_args(options: &std::collections::BTreeMap<String, Value>) -> Vec<String> {
    let mut args = Vec::new();
    for (name, flag) in [
        ("dtype", "--dtype"),
        ("max_model_len", "--max-model-len"),
        ("gpu_memory_utilization", "--gpu-memory-utilization"),
        ("tensor_parallel_size", "--tensor-parallel-size"),
    ] {
        match options.get(name) {
            Some(Value::String(text)) => args.extend([flag.to_owned(), text.clone()]),
            Some(Value::Number(number)) => args.extend([flag.to_owned(), number.to_string()]),
            _ => {}
        }
    }
    if options.get("enforce_eager") == Some(&Value::Bool(true)) {
        args.push("--enforce-eager".to_owned());
    }
    if let Some(Value::String(cli)) = options.get("cli") {
        args.extend(split_words(cli));
    }
    args
}

/// Splits as a shell would, with quotes and backslashes, without expanding.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn is_runnable(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return runs(program);
    }
    let path = std::env::var_os("PATH");
    let path = path.as_deref().unwrap_or(OsStr::new(""));
    std::env::split_paths(path).any(|dir| runs(&dir.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_as_in_a_shell() {
        for (text, words) in [
            ("", vec![]),
            (" a  b ", vec!["a", "b"]),
            (
                "--x 'a b' --y \"c \\\" d\"",
                vec!["--x", "a b", "--y", "c \" d"],
            ),
            ("a\\ b ''", vec!["a b", ""]),
            (
                r#"--hf-overrides '{"a": 1}'"#,
                vec!["--hf-overrides", r#"{"a": 1}"#],
            ),
        ] {
            assert_eq!(split_words(text), words, "{text}");
        }
    }

    #[test]
    fn a_missing_program_is_found_before_it_is_run() {
        assert!(is_runnable(Path::new("sh")));
        assert!(is_runnable(Path::new("/bin/sh")));
        assert!(!is_runnable(Path::new("no-such-program-here")));
        assert!(!is_runnable(Path::new("/etc/passwd")));
    }
}
