//! Choice of the installed vLLM that serves a version, and the arguments that it takes.
//!
//! ```text
//!  no version named ──────────────► the command of the settings
//!  named ── listed in the settings ► that venv or command
//!        ── the command has it ────► the command
//!        ── else ──────────────────► installed into a venv of its own
//! ```
//!
//! Arguments that a version accepts are built in where they are known whole; any other
//! installation is asked once and the answer kept. This module decides no option and
//! starts no worker.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::install::{Install, InstallError, Progress};
use super::introspect::{self, ARGUMENTS_TIMEOUT, Installed, IntrospectError};
use super::versions::{Found, InvalidVersion, Source, Version, VersionArgs};

/// The version that a vllm is taken for that can't be asked; the newest built in.
pub const VERSION_ASSUMED: Version = Version::new(0, 32, 0);

/// Sources of vLLM: `[engines.vllm]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Command that runs where no version is named: a name on PATH, a path, or the
    /// directory of a venv.
    pub command: PathBuf,
    /// Venvs or commands that serve a version instead of an install, by version.
    pub versions: BTreeMap<String, PathBuf>,
    /// Directory where versions are installed, a directory each.
    pub venvs: PathBuf,
    /// Downloads, shared by all installs.
    pub cache: PathBuf,
    /// Kept argument lists.
    pub arguments: PathBuf,
    /// The Python that venvs are made with.
    pub python: PathBuf,
    /// The package index; `None` for the installer's own choice.
    pub index_url: Option<String>,
    /// Further arguments of `pip install`.
    pub pip_arguments: Vec<String>,
    /// Longest install, the wait for others included.
    pub install_timeout: Duration,
}

/// A vLLM that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its program.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    /// The arguments that it takes.
    pub knowledge: Arc<VersionArgs>,
    /// Doubts that are left, in words; empty where all is sure.
    pub doubts: Vec<String>,
}

impl Installation {
    /// True if it can listen on a Unix socket, or if that is not sure.
    pub fn knows_sockets(&self) -> bool {
        self.knowledge.find("--uds") != Found::Absent
    }
}

/// Reason why no vLLM serves a version.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// There is no such program.
    #[error("{}", missing(.0))]
    Missing(PathBuf),
    /// The command that the settings name has another version.
    #[error(
        "{program} is vLLM {found}, not {wanted}: correct [engines.vllm.versions], or the instance's vllm_version"
    )]
    Mismatch {
        /// Command that the settings name.
        program: PathBuf,
        /// The version that it is to have.
        wanted: String,
        /// The version that it has.
        found: String,
    },
    /// The author of the file may not have it run.
    #[error("vllm_version: {0}")]
    Refused(String),
    /// The version is none.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// It could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// It can't be asked.
    #[error(transparent)]
    Introspect(#[from] IntrospectError),
}

fn missing(program: &Path) -> String {
    let shown = program.display();
    if program.components().count() > 1 {
        format!(
            "there is no vllm at {shown}: install vLLM there, or set [engines.vllm] command, \
             or instance.vllm_version, or instance.engine = \"sim\""
        )
    } else {
        format!(
            "{shown} was not found on PATH: install vLLM, or set [engines.vllm] command, \
             or instance.vllm_version, or instance.engine = \"sim\""
        )
    }
}

/// Finds and installs. Share one: it remembers what commands say of themselves.
#[derive(Debug)]
pub struct Installations {
    sources: Sources,
    path: OsString,
    /// Version that a command that is no Python script told, until its
    /// file changes. Held for a look or a change, never over an await.
    told: Mutex<HashMap<(PathBuf, SystemTime), String>>,
}

impl Installations {
    /// Of these sources, with names looked up on `path`, in the form of `PATH`.
    /// Relative paths are of the working directory, and made whole: interpreters
    /// are asked in another one.
    pub fn new(mut sources: Sources, path: OsString) -> Self {
        let Sources {
            command,
            versions,
            venvs,
            cache,
            arguments,
            python,
            ..
        } = &mut sources;
        let programs = versions.values_mut().chain([command, python]);
        let programs = programs.filter(|program| program.components().count() > 1);
        for path in programs.chain([venvs, cache, arguments]) {
            if let Ok(whole) = std::path::absolute(&*path) {
                *path = whole;
            }
        }
        Self {
            sources,
            path,
            told: Mutex::default(),
        }
    }

    /// Sources of vLLM.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The vLLM that serves a version, installed if it is missing. Dropping the
    /// future ends an install; the next goes on from there.
    ///
    /// # Errors
    ///
    /// [`InstallationError`], each in a sentence that says what to do.
    pub async fn get(
        &self,
        version: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<Installation, InstallationError> {
        if let Some(there) = self.look(version, progress).await? {
            return Ok(there);
        }
        // `look` finds something or says why not where no version is named.
        let version = version.unwrap_or_default();
        let environment = self.install(version).await.install(progress).await?;
        let program = environment.directory.join("bin").join("vllm");
        self.known(program, Some(version), progress).await
    }

    /// The vLLM that serves a version now; `None` where it would have to be
    /// installed first.
    ///
    /// # Errors
    ///
    /// [`InstallationError`], each in a sentence that says what to do.
    pub async fn look(
        &self,
        version: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<Option<Installation>, InstallationError> {
        let Some(version) = version else {
            let program = self.find(&self.sources.command).await?;
            return self.known(program, None, progress).await.map(Some);
        };
        let parsed: Version = version.parse()?;
        if let Some(named) = self.sources.versions.get(version) {
            let program = self.find(named).await?;
            let found = self.known(program, Some(version), progress).await?;
            if found.version == parsed {
                return Ok(Some(found));
            }
            return Err(InstallationError::Mismatch {
                program: named.clone(),
                wanted: version.to_owned(),
                found: found.version.to_string(),
            });
        }
        if let Some(environment) = self.install(version).await.ready().await {
            let program = environment.directory.join("bin").join("vllm");
            return self.known(program, Some(version), progress).await.map(Some);
        }
        // The command is as good as an install of what it is.
        let Ok(program) = self.find(&self.sources.command).await else {
            return Ok(None);
        };
        match self.asked(&program).await {
            Ok(Some(installed)) if is_of(&installed.text, version) => {
                self.known(program, Some(version), progress).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A Python with what an installed vLLM has beside it: `named` (a command, a path or
    /// a venv), else that of the vllm of the settings.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn python(&self, named: Option<&Path>) -> Result<PathBuf, InstallationError> {
        let Some(named) = named else {
            let program = self.find(&self.sources.command).await?;
            return Ok(introspect::interpreter(&program).await?);
        };
        let of_venv = named.join("bin").join("python");
        let command = match tokio::fs::metadata(&of_venv).await {
            Ok(_) => of_venv,
            Err(_) => named.to_owned(),
        };
        Ok(introspect::find_command(&command, &self.path).await?)
    }

    /// The Python that an installed vLLM runs in.
    ///
    /// # Errors
    ///
    /// It is a program of another kind.
    pub async fn python_of(&self, installed: &Installation) -> Result<PathBuf, InstallationError> {
        Ok(introspect::interpreter(&installed.program).await?)
    }

    /// Installation that is assumed for a version that is not installed.
    ///
    /// # Errors
    ///
    /// Fails when the text is no version.
    pub fn assumed(&self, version: Option<&str>) -> Result<Installation, InvalidVersion> {
        let (parsed, doubt) = match version {
            Some(version) => (
                version.parse()?,
                format!("vLLM {version} is not installed yet; the first start installs it"),
            ),
            None => (
                VERSION_ASSUMED,
                format!("no vllm was found; this is judged by vLLM {VERSION_ASSUMED}"),
            ),
        };
        Ok(Installation {
            program: self.sources.command.clone(),
            version: parsed,
            knowledge: Arc::new(VersionArgs::built_in(parsed)),
            doubts: vec![doubt],
        })
    }

    async fn install(&self, version: &str) -> Install {
        let sources = &self.sources;
        let uv = introspect::find_command(Path::new("uv"), &self.path).await;
        Install {
            package: "vllm".to_owned(),
            version: version.to_owned(),
            program: Some("vllm".to_owned()),
            venvs: sources.venvs.clone(),
            cache: sources.cache.clone(),
            uv: uv.ok(),
            python: sources.python.clone(),
            index_url: sources.index_url.clone(),
            arguments: sources.pip_arguments.clone(),
            limit: sources.install_timeout,
        }
    }

    /// The program of a name on PATH, a path, or a venv.
    async fn find(&self, command: &Path) -> Result<PathBuf, InstallationError> {
        let is_venv = tokio::fs::metadata(command.join("bin").join("python")).await;
        let command = match is_venv {
            Ok(_) => command.join("bin").join("vllm"),
            Err(_) => command.to_owned(),
        };
        let found = introspect::find_command(&command, &self.path).await;
        let found = found.map_err(|_| InstallationError::Missing(command.clone()))?;
        if is_executable(&found).await {
            Ok(found)
        } else {
            Err(InstallationError::Missing(command))
        }
    }

    /// Account of a program of itself; `None` where it is no Python script.
    async fn asked(&self, program: &Path) -> Result<Option<Installed>, IntrospectError> {
        match introspect::interpreter(program).await {
            Ok(python) => introspect::installed(&python).await.map(Some),
            Err(IntrospectError::NotPython(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Learns what a program takes.
    async fn known(
        &self,
        program: PathBuf,
        declared: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<Installation, InstallationError> {
        let mut doubts = Vec::new();
        let Some(installed) = self.asked(&program).await? else {
            // A wrapper of the admin's: what it wraps can't be asked for more.
            let version = match declared {
                Some(version) => version.parse()?,
                None => self.said(&program, &mut doubts, progress).await?,
            };
            let knowledge = VersionArgs::built_in(version);
            if knowledge.source() == Source::Concluded {
                doubts.push(format!(
                    "the arguments of vLLM {version} are concluded from the versions around it"
                ));
            }
            return Ok(Installation {
                program,
                version,
                knowledge: Arc::new(knowledge),
                doubts,
            });
        };
        let mut knowledge = VersionArgs::built_in(installed.version);
        if knowledge.source() == Source::Concluded {
            progress(&format!(
                "asking vLLM {} for its arguments, once (about half a minute)",
                installed.text
            ));
            let directory = &self.sources.arguments;
            match introspect::arguments(&installed, directory, ARGUMENTS_TIMEOUT).await {
                Ok(told) => knowledge = told,
                Err(error) => doubts.push(format!(
                    "vLLM {} did not tell its arguments ({error}); they are concluded from the versions around it",
                    installed.text
                )),
            }
        }
        Ok(Installation {
            program,
            version: installed.version,
            knowledge: Arc::new(knowledge),
            doubts,
        })
    }

    /// Version that a wrapper says when it is asked for its version; the newest that is
    /// built in where it says nothing that makes sense.
    async fn said(
        &self,
        program: &Path,
        doubts: &mut Vec<String>,
        progress: Progress<'_>,
    ) -> Result<Version, InstallationError> {
        let changed = tokio::fs::metadata(program).await;
        let changed = changed.and_then(|data| data.modified()).ok();
        let key = (
            program.to_owned(),
            changed.unwrap_or(SystemTime::UNIX_EPOCH),
        );
        let told = {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.get(&key).cloned()
        };
        let said = if let Some(said) = told {
            Ok(said)
        } else {
            progress(&format!("asking {} for its version", program.display()));
            introspect::version_of_command(program).await
        };
        let version = said.as_ref().ok().and_then(|said| version_in(said));
        let Some(version) = version else {
            let why = said.map_or_else(
                |error| error.to_string(),
                |said| format!("it said {said:?}"),
            );
            doubts.push(format!(
                "{} did not tell its version ({why}); it is taken for {VERSION_ASSUMED}: name it in instance.vllm_version and [engines.vllm.versions]",
                program.display()
            ));
            return Ok(VERSION_ASSUMED);
        };
        if let Ok(said) = said {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.retain(|(other, _), _| other != program);
            told.insert(key, said);
        }
        Ok(version)
    }
}

/// True if an installed version is the one that is wanted: an index may answer
/// 0.32.0 with 0.32.0+cu129.
fn is_of(installed: &str, wanted: &str) -> bool {
    let local = installed.strip_prefix(wanted);
    local.is_some_and(|local| local.is_empty() || local.starts_with('+'))
}

/// The last word of an answer that is a version.
fn version_in(said: &str) -> Option<Version> {
    let mut words = said.split_whitespace().rev();
    words.find_map(|word| word.parse().ok())
}

async fn is_executable(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let data = tokio::fs::metadata(program).await;
    data.is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
