//! Command of a spec: program, arguments, environment.
//!
//! The command line of vLLM proper is `vllm`'s to build; this adds what every
//! worker of ours gets: its socket, its key, its own directories. Looks at the
//! file system only to refuse what can't start.

pub mod fit;
mod named;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{self, ApiKeySource, Author, Catalog, GpuSource};
use crate::gpu;
use crate::names::DeploymentId;
use crate::store::secrets::Secrets;
use crate::vllm::args::{self, Launch, Listen, Sleep};
use crate::vllm::client::SleepLevel;
use crate::vllm::environment;
use crate::vllm::install::Progress;
use crate::vllm::installation::{Installation, InstallationError, Installations, Sources};
use crate::vllm::options::{OptionError, SecretSource, SecretText};
use crate::vllm::rules::{self, Allowed, Hardware, Operator};
use aws_lc_rs::digest;

/// Seconds for which an idle connection to a worker stays open; the
/// gateway's pool closes its own sooner. vLLM's default is 5 s.
pub const KEEP_ALIVE_SECONDS: u64 = 300;

/// Host on which a worker listens that can't listen on a socket.
pub const LOOPBACK: &str = "127.0.0.1";

/// A command as it will be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// Path, or a name that is looked up on PATH.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment, beside what this process has.
    pub env: Vec<(String, String)>,
    /// Notes for people: options that were left out or said in another way.
    pub notes: Vec<String>,
    /// Directories that its arguments have it write to.
    pub writes: Vec<PathBuf>,
}

/// Sources of engines.
#[derive(Clone, Debug)]
pub struct Engines {
    /// Our own executable, for the stand-in.
    pub own: PathBuf,
    /// `[engines.vllm]`: finds and installs vLLM.
    pub vllm: Arc<Installations>,
    /// True if workers run on GPUs.
    pub gpus: bool,
    /// Secrets that options name as `{ secret = "NAME" }`.
    pub secrets: Secrets,
    /// Allowance of instances whose files are an admin's.
    pub allowed: Allowed,
    /// Allowance that the settings give instances of operators; [`Self::allowed_to`] adds what
    /// admins named.
    pub operators: Allowed,
    /// The catalog in effect: what admins named in it, operators may name too.
    pub catalog: Arc<ArcSwap<Catalog>>,
}

/// Place where a worker listens: on its socket, or, where its version of vLLM knows no
/// sockets, on this port of the loopback.
#[derive(Clone, Copy, Debug)]
pub struct WorkerPlace<'a> {
    /// Path of the socket.
    pub socket: &'a Path,
    /// The port; without meaning for a worker that uses the socket.
    pub port: u16,
}

impl WorkerPlace<'_> {
    /// For a command that is shown and not run.
    pub fn shown() -> Self {
        Self {
            socket: Path::new("WORKER.sock"),
            port: 8000,
        }
    }
}

/// Program that runs a spec.
#[derive(Clone, Debug)]
pub enum Engine {
    /// Our own executable.
    StandIn,
    /// An installed vLLM.
    Vllm(Installation),
}

impl Engines {
    /// The engines of these settings on this machine.
    pub fn new(settings: &config::Settings) -> Self {
        // On simulated devices and on a CPU vLLM 0.32 refuses to free memory.
        let gpus = matches!(settings.gpus.source, GpuSource::Auto | GpuSource::Nvml);
        let state = &settings.gateway.state;
        Self {
            gpus: gpus && gpu::has_any(Path::new(gpu::DRIVER_LIST)),
            // Route files are the admin's own, who may run any program here.
            allowed: settings.vllm.allowed.clone().unwrap_or_else(Allowed::all),
            operators: settings.vllm.allowed.clone().unwrap_or_default(),
            ..Self::at(state, own_executable(), &settings.vllm)
        }
    }

    /// The engines of a state directory, without GPUs; everything is allowed.
    pub fn at(state: &Path, own: &Path, vllm: &config::VllmEngine) -> Self {
        let sources = Sources {
            command: vllm.command.clone(),
            versions: vllm.versions.clone(),
            venvs: state.join("venvs"),
            cache: state.join("cache"),
            arguments: state.join("vllm-arguments"),
            python: vllm.python.clone(),
            index_url: vllm.index_url.clone(),
            pip_arguments: vllm.pip_arguments.clone(),
            install_timeout: vllm.install_timeout,
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            own: own.to_owned(),
            vllm: Arc::new(Installations::new(sources, path)),
            gpus: false,
            secrets: Secrets::at(state),
            allowed: Allowed::all(),
            operators: Allowed::default(),
            catalog: Arc::default(),
        }
    }

    /// The same, by what is or would be in effect.
    #[must_use]
    pub fn within(self, catalog: &Catalog) -> Self {
        let catalog = Arc::new(ArcSwap::from_pointee(catalog.clone()));
        Self { catalog, ..self }
    }

    /// Files with secrets that what is in effect names: what upstreams are told, and what the
    /// options of others than `own` read. A worker has its own secrets in its environment,
    /// and their file may be one that its engine writes beside, as the hub's token is.
    pub fn secret_files(&self, own: &DeploymentId) -> Vec<PathBuf> {
        let catalog = self.catalog.load();
        let upstreams = catalog.routes.iter().flat_map(|route| &route.upstreams);
        let secrets = upstreams.flat_map(|upstream| upstream.secrets());
        let keys = secrets.filter_map(|(source, _)| match source {
            ApiKeySource::File(path) => Some(path.clone()),
            ApiKeySource::Env(_) => None,
        });
        let mut files: Vec<PathBuf> = keys.collect();
        let specs = catalog.instances.iter().flat_map(|i| &i.deployments);
        let mut spared = Vec::new();
        for spec in specs {
            let config::Engine::Vllm(vllm) = &spec.engine else {
                continue;
            };
            let sources = vllm.options.iter();
            let sources = sources.filter_map(|(name, _)| vllm.options.get_secret(name));
            let of_files = sources.filter_map(|source| match source {
                SecretSource::File(path) => Some(PathBuf::from(path)),
                _ => None,
            });
            if spec.id == *own || spec.id.has_replica(own) {
                spared.extend(of_files);
            } else {
                files.extend(of_files);
            }
        }
        files.retain(|file| !spared.contains(file));
        let whole = files.iter().map(std::path::absolute);
        whole.filter_map(Result::ok).collect()
    }

    /// Allowance of a spec, by the author of its file.
    pub fn allowed_to(&self, spec: &config::Deployment) -> Cow<'_, Allowed> {
        match &spec.author {
            Author::Admin => Cow::Borrowed(&self.allowed),
            Author::Operator(_) => {
                let versions = self.vllm.sources().versions.keys().cloned().collect();
                let named = named::of(&self.catalog.load(), spec);
                Cow::Owned(Allowed {
                    operator: Some(Operator { named, versions }),
                    ..self.operators.clone()
                })
            }
        }
    }

    /// Gets what runs this spec; a version of vLLM that is missing is installed.
    /// Dropping the future ends an install, and the next call goes on from there.
    ///
    /// # Errors
    ///
    /// [`InstallationError`], in a sentence that says what to do.
    pub async fn get(
        &self,
        spec: &config::Deployment,
        progress: Progress<'_>,
    ) -> Result<Engine, InstallationError> {
        match &spec.engine {
            config::Engine::Sim(_) => Ok(Engine::StandIn),
            config::Engine::Vllm(vllm) => {
                let version = vllm.version.as_deref();
                // Before it is installed: an install runs what comes with it.
                let may = self.allowed_to(spec).version(version);
                may.map_err(InstallationError::Refused)?;
                self.vllm.get(version, progress).await.map(Engine::Vllm)
            }
        }
    }

    /// The command of this spec, serving there.
    ///
    /// # Errors
    ///
    /// Everything about the options that the engine would refuse, as sentences.
    pub fn command_line(
        &self,
        spec: &config::Deployment,
        engine: &Engine,
        place: WorkerPlace<'_>,
    ) -> Result<WorkerCommand, String> {
        let mut line = match (&spec.engine, engine) {
            (config::Engine::Sim(sim), _) => self.sim(spec, sim, place.socket),
            (config::Engine::Vllm(vllm), Engine::Vllm(installation)) => {
                self.vllm(spec, vllm, installation, place)?
            }
            (config::Engine::Vllm(_), Engine::StandIn) => {
                return Err("no vLLM was found for it".to_owned());
            }
        };
        let keep_alive = KEEP_ALIVE_SECONDS.to_string();
        line.env
            .push((environment::KEEP_ALIVE.to_owned(), keep_alive));
        Ok(line)
    }

    /// Digest of what a worker of this spec depends on. It does not depend on
    /// how this Tidegate words a command line, so that workers outlive upgrades.
    pub fn fingerprint(&self, spec: &config::Deployment) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |part: &str| {
            context.update(part.as_bytes());
            context.update(&[0]);
        };
        add(&spec.model);
        add(spec.endpoint_name.as_str());
        add(match spec.idle.offload {
            Some(_) if self.gpus => "sleeps",
            Some(_) => "sleep routes",
            None => "",
        });
        match &spec.engine {
            config::Engine::Sim(sim) => add(&format!("{sim:?}")),
            config::Engine::Vllm(vllm) => {
                // Where nothing is said, workers outlive that it can be said.
                if spec.inputs != config::Inputs::default() {
                    add(&format!("{:?}", spec.inputs));
                }
                let sources = self.vllm.sources();
                let version = vllm.version.as_deref();
                add(version.unwrap_or_default());
                let named = version.and_then(|version| sources.versions.get(version));
                add(&named.unwrap_or(&sources.command).to_string_lossy());
                for (name, value) in vllm.options.iter() {
                    add(name);
                    add(&value.to_json().to_string());
                    if let Some(source) = vllm.options.get_secret(name) {
                        // One that is missing is told from one that is there.
                        match secret(source, &self.secrets) {
                            Ok(secret) => add(secret.expose()),
                            Err(error) => add(&error),
                        }
                    }
                }
            }
        }
        super::launcher::hex(context.finish().as_ref())
    }

    /// Finds what would fail for sure, in a sentence.
    ///
    /// # Errors
    ///
    /// The sentence.
    pub fn check(&self, spec: &config::Deployment, engine: &Engine) -> Result<(), String> {
        let config::Engine::Vllm(_) = &spec.engine else {
            return Ok(());
        };
        // First whether it may be named: what is there is told to no one else.
        drop(self.command_line(spec, engine, WorkerPlace::shown())?);
        let model = &spec.model;
        let is_path = model.starts_with('/') || model.starts_with("./");
        if is_path && !Path::new(model).exists() {
            return Err(format!(
                "there is no model at {model}: put it there, or name another one in deployment.model"
            ));
        }
        Ok(())
    }

    fn sim(&self, spec: &config::Deployment, sim: &config::Sim, socket: &Path) -> WorkerCommand {
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
        if sim.max_model_len != config::Sim::default().max_model_len {
            set("--max-model-len", sim.max_model_len.to_string());
        }
        for fault in &sim.faults {
            set("--fault", fault.clone());
        }
        // As vLLM 0.32: /sleep and /wake_up are served only in this mode.
        let offloads = spec.idle.offload.is_some();
        let dev_mode = offloads.then(|| (environment::DEV_MODE.to_owned(), "1".to_owned()));
        WorkerCommand {
            program: self.own.clone(),
            args,
            env: dev_mode.into_iter().collect(),
            notes: Vec::new(),
            writes: Vec::new(),
        }
    }

    fn vllm(
        &self,
        spec: &config::Deployment,
        vllm: &config::Vllm,
        installation: &Installation,
        place: WorkerPlace<'_>,
    ) -> Result<WorkerCommand, String> {
        let line = self.vllm_line(spec, vllm, installation, place)?;
        let env = line.env.iter();
        let fetching = args::fetching(&spec.inputs.media, installation.version);
        let fetching = fetching.into_iter();
        let fetching = fetching.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let writes = written(&line.argv);
        Ok(WorkerCommand {
            writes,
            program: installation.program.clone(),
            env: env
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .chain(fetching)
                .collect(),
            args: line.argv,
            notes: line.notes,
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
        installation: &Installation,
        place: WorkerPlace<'_>,
    ) -> Result<args::CommandLine, String> {
        let line = self.vllm_arguments(spec, vllm, installation, place);
        line.map_err(|errors| {
            let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
            sentences.join("; ")
        })
    }

    /// As [`Self::vllm_line`], with what is wrong by option.
    ///
    /// # Errors
    ///
    /// Everything about the options that vLLM would refuse.
    pub fn vllm_arguments(
        &self,
        spec: &config::Deployment,
        vllm: &config::Vllm,
        installation: &Installation,
        place: WorkerPlace<'_>,
    ) -> Result<args::CommandLine, Vec<OptionError>> {
        let allowed = self.allowed_to(spec);
        let of_version = allowed.version(vllm.version.as_deref());
        let of_version = of_version.map_err(|why| OptionError::new("vllm_version", why));
        let launch = Launch {
            model: &spec.model,
            served_names: &[spec.endpoint_name.as_str()],
            options: &vllm.options,
            version: &installation.version,
            knowledge: &installation.knowledge,
            listen: if installation.knows_sockets() {
                Listen::Unix(place.socket)
            } else {
                Listen::Tcp(LOOPBACK, place.port)
            },
            sleep: match (spec.idle.offload, self.gpus) {
                (None, _) => Sleep::No,
                (Some(_), true) => Sleep::Yes,
                (Some(_), false) => Sleep::RoutesOnly,
            },
            allowed: &allowed,
            media: &spec.inputs.media,
            chat_template: spec.inputs.chat_template,
            machine: Hardware {
                amd64: cfg!(target_arch = "x86_64"),
                ..Hardware::default()
            },
            resolve: &|source: &SecretSource| secret(source, &self.secrets),
        };
        let mut line = args::command_line(&launch);
        if let Ok(line) = &mut line {
            let known = rules::warnings(&rules::Sleeper {
                model: &spec.model,
                flags: args::flags(&line.argv).collect(),
                version: installation.version,
                levels: levels(spec),
            });
            line.notes.extend(known);
        }
        match (line, of_version) {
            (line, Ok(())) => line,
            (Ok(_), Err(error)) => Err(vec![error]),
            (Err(mut errors), Err(error)) => {
                errors.insert(0, error);
                Err(errors)
            }
        }
    }
}

/// Depths to which a worker of this spec may sleep.
fn levels(spec: &config::Deployment) -> Vec<SleepLevel> {
    let levels = spec.idle.offload.map(|offload| offload.levels);
    let of = |is: fn(&config::Levels) -> bool, level| levels.filter(is).map(|_| level);
    let cpu = of(|levels| levels.cpu, SleepLevel::One);
    let disk = of(|levels| levels.disk, SleepLevel::Two);
    cpu.into_iter().chain(disk).collect()
}

/// The directories that vLLM's arguments have it write to.
fn written(argv: &[String]) -> Vec<PathBuf> {
    const FLAGS: [&str; 2] = ["--download-dir", "--mm-encoder-fp8-scale-save-path"];
    let values = args::flags(argv).filter(|(flag, _)| FLAGS.contains(flag));
    let paths = values.filter_map(|(_, value)| value.map(PathBuf::from));
    paths.filter(|path| path.is_absolute()).collect()
}

/// The text of a secret, from where the file says.
fn secret(source: &SecretSource, secrets: &Secrets) -> Result<SecretText, String> {
    match source {
        SecretSource::Literal(secret) => Ok(secret.clone()),
        SecretSource::Env(name) => std::env::var(name)
            .map(SecretText::new)
            .map_err(|_| format!("the environment of tidegate has no variable {name}")),
        SecretSource::File(path) => std::fs::read_to_string(path)
            .map(|text| SecretText::new(text.trim().to_owned()))
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

/// The executable that runs now, also after its file was replaced.
pub fn own_executable() -> &'static Path {
    Path::new("/proc/self/exe")
}

#[cfg(test)]
mod tests;
