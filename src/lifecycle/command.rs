//! What a spec runs: program, arguments, environment.
//!
//! The command line of vLLM proper is `vllm`'s to build; this adds what every
//! worker of ours gets: its socket, its key, its own directories. Looks at the
//! file system only to refuse what can't start.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::{self, Engine, GpuSource};
use crate::gpu;
use crate::store::secrets::Secrets;
use crate::vllm::args::{self, Launch, Listen, Sleep};
use crate::vllm::options::{Secret, SecretSource};
use crate::vllm::rules::{Allowed, Machine};
use crate::vllm::versions::{Version, VersionArgs};
use aws_lc_rs::digest;

/// How long an idle connection to a worker stays open, in seconds; the
/// gateway's pool closes its own sooner. vLLM's default is 5 s.
pub const KEEP_ALIVE_SECONDS: u64 = 300;

/// The version that a vllm without a word about its own is taken for.
const VERSION_ASSUMED: &str = "0.32.0";

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
    /// What options name as `{ secret = "NAME" }`.
    pub secrets: Secrets,
}

impl Engines {
    /// The engines of these settings on this machine.
    pub fn new(settings: &config::Settings) -> Self {
        // On simulated devices and on a CPU vLLM 0.32 refuses to free memory.
        let gpus = matches!(settings.gpus.source, GpuSource::Auto | GpuSource::Nvml);
        Self {
            own: super::process::own_executable().to_owned(),
            vllm: settings.vllm.command.clone(),
            gpus: gpus && gpu::has_any(Path::new(gpu::DRIVER_LIST)),
            secrets: Secrets::at(&settings.gateway.state),
        }
    }

    /// The command of this spec, serving on `socket`.
    ///
    /// # Errors
    ///
    /// Everything about the options that the engine would refuse, as sentences.
    pub fn command_line(
        &self,
        spec: &config::Deployment,
        socket: &Path,
    ) -> Result<CommandLine, String> {
        let mut line = match &spec.engine {
            Engine::Sim(sim) => self.sim(spec, sim, socket),
            Engine::Vllm(vllm) => self.vllm(spec, vllm, socket)?,
        };
        let keep_alive = KEEP_ALIVE_SECONDS.to_string();
        line.env
            .push(("VLLM_HTTP_TIMEOUT_KEEP_ALIVE".to_owned(), keep_alive));
        Ok(line)
    }

    /// Digest of what this spec launches, whatever its socket.
    pub fn fingerprint(&self, spec: &config::Deployment) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let line = match self.command_line(spec, Path::new("socket")) {
            Ok(line) => line,
            // What can't run is told from what can, and by what is wrong with it.
            Err(error) => CommandLine {
                program: PathBuf::new(),
                args: vec![error],
                env: Vec::new(),
            },
        };
        let program = line.program.display().to_string();
        let env = line.env.iter().flat_map(|(name, value)| [name, value]);
        for part in [&program].into_iter().chain(&line.args).chain(env) {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        super::launcher::hex(context.finish().as_ref())
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
            return self.command_line(spec, Path::new("socket")).map(drop);
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

    fn sim(&self, spec: &config::Deployment, sim: &config::Sim, socket: &Path) -> CommandLine {
        let span = |duration| crate::units::Span(duration).to_string();
        let size = |bytes: u64| format!("{bytes}B");
        let mut args = vec!["sim".to_owned(), spec.model.clone()];
        let mut set = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        set("--served-model-name", spec.endpoint_name.to_string());
        set("--uds", socket.display().to_string());
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
        // As vLLM 0.32: /sleep and /wake_up are served only in this mode.
        let offloads = spec.idle.offload.is_some();
        let dev_mode = offloads.then(|| ("VLLM_SERVER_DEV_MODE".to_owned(), "1".to_owned()));
        CommandLine {
            program: self.own.clone(),
            args,
            env: dev_mode.into_iter().collect(),
        }
    }

    fn vllm(
        &self,
        spec: &config::Deployment,
        vllm: &config::Vllm,
        socket: &Path,
    ) -> Result<CommandLine, String> {
        let line = self.vllm_line(spec, vllm, socket)?;
        let env = line.env.iter();
        Ok(CommandLine {
            program: self.vllm_program(spec),
            env: env
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
            args: line.argv,
        })
    }

    /// vLLM's own part of the command, which prints with its secrets masked.
    ///
    /// # Errors
    ///
    /// Everything about the options that vLLM would refuse, as sentences.
    pub fn vllm_line(
        &self,
        spec: &config::Deployment,
        vllm: &config::Vllm,
        socket: &Path,
    ) -> Result<args::CommandLine, String> {
        let version = vllm.version.as_deref().unwrap_or(VERSION_ASSUMED);
        let version: Version = version.parse().map_err(|error| format!("{error}"))?;
        let knowledge = VersionArgs::built_in(version);
        let launch = Launch {
            model: &spec.model,
            served_names: &[spec.endpoint_name.as_str()],
            options: &vllm.options,
            version: &version,
            knowledge: &knowledge,
            listen: Listen::Unix(socket),
            sleep: match (spec.idle.offload, self.gpus) {
                (None, _) => Sleep::No,
                (Some(_), true) => Sleep::Yes,
                (Some(_), false) => Sleep::RoutesOnly,
            },
            // Route files are the admin's own, who may run any program here.
            allowed: &Allowed::all(),
            machine: Machine {
                amd64: cfg!(target_arch = "x86_64"),
                ..Machine::default()
            },
            resolve: &|source: &SecretSource| secret(source, &self.secrets),
        };
        args::command_line(&launch).map_err(|errors| {
            let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
            sentences.join("; ")
        })
    }
}

/// The text of a secret, from where the file says.
fn secret(source: &SecretSource, secrets: &Secrets) -> Result<Secret, String> {
    match source {
        SecretSource::Literal(secret) => Ok(secret.clone()),
        SecretSource::Env(name) => std::env::var(name)
            .map(Secret::new)
            .map_err(|_| format!("the environment of tidegate has no variable {name}")),
        SecretSource::File(path) => std::fs::read_to_string(path)
            .map(|text| Secret::new(text.trim().to_owned()))
            .map_err(|error| format!("the file {path} can't be read: {error}")),
        SecretSource::Named(name) => match secrets.get(name) {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => Err(format!(
                "there is no secret {name} in the store: write the secret itself, env or file"
            )),
            Err(error) => Err(error.to_string()),
        },
    }
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
    fn a_named_secret_comes_from_the_store_or_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let secrets = Secrets::at(state.path());
        let source = SecretSource::Named("team.token".to_owned());
        let error = secret(&source, &secrets).unwrap_err();
        assert!(error.contains("no secret team.token"), "{error}");
        let kept = Secret::new("hidden".to_owned());
        secrets
            .put(&[("team.token".to_owned(), kept.clone())])
            .unwrap();
        assert_eq!(secret(&source, &secrets), Ok(kept));
    }

    #[test]
    fn a_missing_program_is_found_before_it_is_run() {
        assert!(is_runnable(Path::new("sh")));
        assert!(is_runnable(Path::new("/bin/sh")));
        assert!(!is_runnable(Path::new("no-such-program-here")));
        assert!(!is_runnable(Path::new("/etc/passwd")));
    }
}
