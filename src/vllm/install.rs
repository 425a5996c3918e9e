//! Installs a vLLM version into a virtual environment of its own.
//!
//! Environments stand in one directory, named by version. One counts only once
//! its marker is written, which is the last step: scripts in an environment name
//! its path, so it can't be built elsewhere and moved. What an interrupted or
//! failed run leaves is taken up by the next. A lock file lets one install run at
//! a time, over all processes; downloads go to one cache.
//!
//! uv is used where it is found, else pip. It does not choose the version, and
//! starts no worker.

mod run;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

pub use run::InstallFailure;

use crate::time::{Instant, sleep};
use crate::vllm::introspect::{self, IntrospectError};
use crate::vllm::versions::{InvalidVersion, Version};

/// The last file of an install: it holds the requirement.
const MARKER: &str = ".tidegate-complete";
/// Pause between two looks of a waiting install if another has ended.
const LOCK_POLL: Duration = Duration::from_millis(250);

/// A version to install, with place and way.
#[derive(Clone, Debug)]
pub struct Install {
    /// The package: `vllm`.
    pub package: String,
    /// Its version, as the package index knows it.
    pub version: String,
    /// The program that it brings; `None` for a package without.
    pub program: Option<String>,
    /// The directory of environments.
    pub venvs: PathBuf,
    /// The directory of downloads, shared by all.
    pub cache: PathBuf,
    /// uv; `None` to use pip.
    pub uv: Option<PathBuf>,
    /// The Python that environments are made with.
    pub python: PathBuf,
    /// The package index; `None` for the installer's own choice.
    pub index_url: Option<String>,
    /// Further arguments of `pip install`.
    pub arguments: Vec<String>,
    /// Longest install, with the wait for others.
    pub limit: Duration,
}

/// An environment that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its directory.
    pub directory: PathBuf,
    /// Its interpreter.
    pub python: PathBuf,
    /// The installed program.
    pub program: Option<PathBuf>,
}

/// Reason why a version could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The version is none.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// A file or directory is in the way.
    #[error("could not use {path}")]
    Files {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A command of the installer failed.
    #[error("could not install {requirement}: {failure}")]
    Failed {
        /// Requirement that was asked for.
        requirement: String,
        /// Failure of the installer.
        failure: InstallFailure,
    },
    /// The installer ended well, and what it installed is not there.
    #[error(
        "{requirement} was installed, and {missing} is not there: remove {directory} and try again"
    )]
    Incomplete {
        /// Requirement that was asked for.
        requirement: String,
        /// Part that is missing.
        missing: String,
        /// The environment.
        directory: PathBuf,
    },
    /// The environment can't be asked what it holds.
    #[error("the new environment does not work")]
    Broken(#[source] IntrospectError),
    /// It took too long.
    #[error("{requirement} was not installed within {} s; the next try goes on where this one stopped", .limit.as_secs())]
    Timeout {
        /// Requirement that was asked for.
        requirement: String,
        /// The limit.
        limit: Duration,
    },
}

/// Gets each line of progress.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

impl Install {
    /// Requirement that the installer is asked for: `vllm==0.32.0`.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// The environment, if it is ready.
    pub async fn ready(&self) -> Option<Environment> {
        let environment = self.environment();
        let marker = environment.directory.join(MARKER);
        let text = tokio::fs::read_to_string(marker).await.ok()?;
        (text.trim() == self.requirement()).then_some(environment)
    }

    fn environment(&self) -> Environment {
        let directory = self.venvs.join(&self.version);
        let bin = directory.join("bin");
        Environment {
            python: bin.join("python"),
            program: self.program.as_ref().map(|program| bin.join(program)),
            directory,
        }
    }

    /// Installs the version, if it is not there yet. Dropping the future ends the
    /// installer with all its processes; the next call goes on from there.
    ///
    /// # Errors
    ///
    /// The failure, with the installer's last lines.
    pub async fn install(&self, progress: Progress<'_>) -> Result<Environment, InstallError> {
        self.version.parse::<Version>()?;
        if let Some(environment) = self.ready().await {
            return Ok(environment);
        }
        let started = Instant::now();
        let installed = crate::time::timeout(self.limit, self.under_lock(progress));
        match installed.await {
            Ok(Ok(environment)) => {
                let seconds = started.elapsed().as_secs();
                progress(&format!(
                    "{} is ready after {seconds} s",
                    self.requirement()
                ));
                Ok(environment)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(InstallError::Timeout {
                requirement: self.requirement(),
                limit: self.limit,
            }),
        }
    }

    async fn under_lock(&self, progress: Progress<'_>) -> Result<Environment, InstallError> {
        for directory in [&self.venvs, &self.cache] {
            let made = tokio::fs::create_dir_all(directory).await;
            made.map_err(|source| files(directory, source))?;
        }
        // Released when dropped, and by the kernel when this process dies.
        let lock = self.lock(progress).await?;
        if let Some(environment) = self.ready().await {
            return Ok(environment);
        }
        let environment = self.environment();
        self.make(&environment, progress).await?;
        self.verify(&environment).await?;
        let marker = environment.directory.join(MARKER);
        let written = tokio::fs::write(&marker, self.requirement()).await;
        written.map_err(|source| files(&marker, source))?;
        drop(lock);
        Ok(environment)
    }

    async fn lock(&self, progress: Progress<'_>) -> Result<File, InstallError> {
        let path = self.venvs.join("install.lock");
        let open = File::options().create(true).append(true).open(&path);
        let file = open.map_err(|source| files(&path, source))?;
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(files(&path, errno.into())),
            }
            if !told {
                progress("waiting for another install to end");
                told = true;
            }
            sleep(LOCK_POLL).await;
        }
    }

    async fn make(
        &self,
        environment: &Environment,
        progress: Progress<'_>,
    ) -> Result<(), InstallError> {
        let directory = environment.directory.as_os_str();
        let found = tokio::fs::metadata(&environment.python).await;
        if found.is_err() {
            progress(&format!("making {}", environment.directory.display()));
            let words: Vec<OsString> = match &self.uv {
                Some(uv) => vec![
                    uv.into(),
                    "venv".into(),
                    "--clear".into(),
                    "--python".into(),
                    self.python.as_os_str().into(),
                    directory.into(),
                ],
                None => vec![
                    self.python.as_os_str().into(),
                    "-m".into(),
                    "venv".into(),
                    "--clear".into(),
                    directory.into(),
                ],
            };
            self.run(words, progress).await?;
        } else {
            progress("going on with an install that did not end");
        }
        progress(&format!("installing {}", self.requirement()));
        let python = environment.python.as_os_str();
        let mut words: Vec<OsString> = match &self.uv {
            Some(uv) => vec![
                uv.into(),
                "pip".into(),
                "install".into(),
                "--python".into(),
                python.into(),
            ],
            None => vec![python.into(), "-m".into(), "pip".into(), "install".into()],
        };
        if let Some(url) = &self.index_url {
            words.extend(["--index-url".into(), url.into()]);
        }
        words.extend(self.arguments.iter().map(OsString::from));
        words.push(self.requirement().into());
        self.run(words, progress).await
    }

    async fn run(&self, words: Vec<OsString>, progress: Progress<'_>) -> Result<(), InstallError> {
        run::run(&words, &self.cache, progress)
            .await
            .map_err(|failure| InstallError::Failed {
                requirement: self.requirement(),
                failure,
            })
    }

    /// Checks that the environment holds what was asked for.
    async fn verify(&self, environment: &Environment) -> Result<(), InstallError> {
        let incomplete = |missing: String| InstallError::Incomplete {
            requirement: self.requirement(),
            missing,
            directory: environment.directory.clone(),
        };
        if let Some(program) = &environment.program
            && tokio::fs::metadata(program).await.is_err()
        {
            return Err(incomplete(program.display().to_string()));
        }
        let version = introspect::package_version(&environment.python, &self.package)
            .await
            .map_err(InstallError::Broken)?;
        // An index may answer 0.32.0 with 0.32.0+cu129.
        let local = version.strip_prefix(self.version.as_str());
        if local.is_some_and(|local| local.is_empty() || local.starts_with('+')) {
            Ok(())
        } else {
            Err(incomplete(format!(
                "it says that it is {version}, so {}",
                self.version
            )))
        }
    }
}

fn files(path: &Path, source: io::Error) -> InstallError {
    InstallError::Files {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
