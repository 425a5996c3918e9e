//! Asks an installed vLLM for its argument list.
//!
//! A small program runs in that installation's own interpreter, builds the parser
//! of `vllm serve` and prints it. That imports all of vLLM and takes half a
//! minute, so the answer is kept in the state directory, by version and
//! interpreter. Time and size are bounded. Nothing of the answer is run; it only
//! tells what may be passed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::time::timeout;
use crate::vllm::versions::{Arg, ArgForm, InvalidVersion, Version, VersionArgs};

/// Longest run that asks for all arguments: an import of vLLM on a busy machine.
pub const ARGUMENTS_TIMEOUT: Duration = Duration::from_mins(2);
/// Longest run that asks for the version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer, in bytes; that of 0.32.0 has 30 KiB.
const ANSWER_BYTES_MAX: u64 = 2 << 20;
/// Bytes of standard error that are kept.
const COMPLAINT_BYTES_MAX: u64 = 64 << 10;

const ARGUMENTS: &str = include_str!("introspect.py");

/// Reason why an installed vLLM did not tell its arguments.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectError {
    /// There is no such command.
    #[error("there is no command {0}: install vLLM, or set [engines.vllm] command")]
    NoCommand(PathBuf),
    /// The command can't be read.
    #[error("could not read {path}")]
    Read {
        /// The command.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The command does not name a Python interpreter.
    #[error("{0} is not a Python script, so its vLLM can't be asked for its arguments")]
    NotPython(PathBuf),
    /// The interpreter did not start.
    #[error("could not run {python}")]
    Run {
        /// The interpreter.
        python: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{python} did not tell vLLM's arguments within {} s", .limit.as_secs())]
    Timeout {
        /// The interpreter.
        python: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// It failed.
    #[error("{python} could not tell vLLM's arguments: {complaint}")]
    Failed {
        /// The interpreter.
        python: PathBuf,
        /// The last line of its standard error.
        complaint: String,
    },
    /// Its answer makes no sense.
    #[error("{python} gave an answer that is no argument list: {what}")]
    Answer {
        /// The interpreter.
        python: PathBuf,
        /// The fault.
        what: String,
    },
    /// Its version is none.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
}

/// An installed vLLM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its interpreter.
    pub python: PathBuf,
    /// Its version as it says it, with suffixes.
    pub text: String,
    /// Its version.
    pub version: Version,
}

/// Finds a command: a path as it is, a name in the directories of `path`, which
/// has the form of `PATH`.
///
/// # Errors
///
/// [`IntrospectError::NoCommand`].
pub async fn find_command(
    command: &Path,
    path: &std::ffi::OsStr,
) -> Result<PathBuf, IntrospectError> {
    let named = command.components().count() == 1 && !command.is_absolute();
    let candidates: Vec<PathBuf> = if named {
        std::env::split_paths(path)
            .map(|directory| directory.join(command))
            .collect()
    } else {
        vec![command.to_owned()]
    };
    for candidate in candidates {
        let file = tokio::fs::metadata(&candidate).await;
        if file.is_ok_and(|metadata| metadata.is_file()) {
            return Ok(candidate);
        }
    }
    Err(IntrospectError::NoCommand(command.to_owned()))
}

/// The interpreter that a `vllm` script names in its first lines.
///
/// # Errors
///
/// The script can't be read, or is not a Python script.
pub async fn interpreter(script: &Path) -> Result<PathBuf, IntrospectError> {
    let read = |source| IntrospectError::Read {
        path: script.to_owned(),
        source,
    };
    let file = tokio::fs::File::open(script).await.map_err(read)?;
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head).await.map_err(read)?;
    named_interpreter(&String::from_utf8_lossy(&head))
        .ok_or_else(|| IntrospectError::NotPython(script.to_owned()))
}

/// Reads `#!/venv/bin/python`, and the form that installers write where that line
/// would be too long: `#!/bin/sh` and then `'''exec' '/venv/bin/python' "$0" "$@"`.
fn named_interpreter(head: &str) -> Option<PathBuf> {
    let mut lines = head.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    let path = if first == "/bin/sh" {
        let exec = lines.next()?.strip_prefix("'''exec'")?.trim();
        let quote = exec.chars().next()?;
        match quote {
            '"' | '\'' => exec.get(1..)?.split(quote).next()?,
            _ => exec.split(' ').next()?,
        }
    } else {
        first.split(' ').next()?
    };
    let path = PathBuf::from(path);
    let name = path.file_name()?.to_str()?;
    (path.is_absolute() && name.starts_with("python")).then_some(path)
}

/// The version of the vLLM that an interpreter has, without importing it.
///
/// # Errors
///
/// The interpreter does not run, or has no vLLM.
pub async fn installed(python: &Path) -> Result<Installed, IntrospectError> {
    let text = package_version(python, "vllm").await?;
    Ok(Installed {
        python: python.to_owned(),
        version: text.parse()?,
        text,
    })
}

/// The version of a package that an interpreter has. `package` is a name of ours.
///
/// # Errors
///
/// The interpreter does not run, or has no such package.
pub async fn package_version(python: &Path, package: &str) -> Result<String, IntrospectError> {
    let program = format!("import importlib.metadata as m; print(m.version({package:?}))");
    let answer = run(python, &["-c", &program], VERSION_TIMEOUT).await?;
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

/// Text that a command that is no Python script says when it is run with `--version`.
///
/// # Errors
///
/// It does not run, fails, or takes as long as an import of vLLM may not.
pub async fn version_of_command(command: &Path) -> Result<String, IntrospectError> {
    let answer = run(command, &["--version"], ARGUMENTS_TIMEOUT).await?;
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

/// The arguments of an installed vLLM: from the cache, or told by it.
///
/// `cache` is a directory; it is made if it is not there. That the answer could
/// not be kept there only costs the next call its time.
///
/// # Errors
///
/// The interpreter does not run, takes longer than `limit`, or makes no sense.
pub async fn arguments(
    installed: &Installed,
    cache: &Path,
    limit: Duration,
) -> Result<VersionArgs, IntrospectError> {
    let kept = cache.join(file_name(installed));
    if let Ok(text) = tokio::fs::read_to_string(&kept).await
        && let Some(args) = VersionArgs::from_text(installed.version, &text)
    {
        return Ok(args);
    }
    let answer = run(&installed.python, &["-c", ARGUMENTS], limit).await?;
    let args = parse(installed, &answer)?;
    if let Err(error) = keep(&kept, &args.to_text()).await {
        tracing::warn!(path = %kept.display(), %error, "could not keep vLLM's argument list");
    }
    Ok(args)
}

/// The name of the kept answer: version, and a hash of the interpreter's path.
fn file_name(installed: &Installed) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+');
    let version: String = installed.text.chars().filter(|c| plain(*c)).collect();
    // FNV-1a: the same in every build, unlike the standard library's.
    let bytes = installed.python.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("vllm-{version}-{hash:016x}.txt")
}

async fn keep(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        tokio::fs::create_dir_all(directory).await?;
    }
    let part = path.with_extension(format!("part-{}", std::process::id()));
    tokio::fs::write(&part, text).await?;
    tokio::fs::rename(&part, path).await
}

#[derive(Deserialize)]
struct Answer {
    version: String,
    arguments: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    names: Vec<String>,
    form: String,
    choices: Vec<String>,
}

fn parse(installed: &Installed, answer: &[u8]) -> Result<VersionArgs, IntrospectError> {
    let wrong = |what: String| IntrospectError::Answer {
        python: installed.python.clone(),
        what,
    };
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|error| wrong(error.to_string()))?;
    if answer.version != installed.text {
        return Err(wrong(format!("it says that it is {}", answer.version)));
    }
    let mut args = Vec::new();
    for told in answer.arguments {
        let form = ArgForm::from_word(&told.form);
        let named = told.names.iter().all(|name| is_flag(name));
        let long = told
            .names
            .first()
            .is_some_and(|name| name.starts_with("--"));
        let Some(form) = form.filter(|_| named && long) else {
            return Err(wrong(format!("{:?} is no argument", told.names)));
        };
        // A choice that the cache's text can't hold leaves the value unchecked.
        let plain =
            |choice: &String| !choice.is_empty() && !choice.contains([',', '|', '\n', '\r']);
        let choices = if told.choices.iter().all(plain) {
            told.choices
        } else {
            Vec::new()
        };
        args.push(Arg {
            names: told.names,
            form,
            choices,
        });
    }
    if !args.iter().any(|arg| arg.flag() == "--port") {
        return Err(wrong("it has no --port".to_owned()));
    }
    Ok(VersionArgs::introspected(installed.version, args))
}

fn is_flag(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.starts_with('-') && name.len() > 1 && name.len() < 100 && name.chars().all(plain)
}

/// Runs a program and returns what it printed.
async fn run(python: &Path, words: &[&str], limit: Duration) -> Result<Vec<u8>, IntrospectError> {
    let failed_to_run = |source| IntrospectError::Run {
        python: python.to_owned(),
        source,
    };
    let mut child = Command::new(python)
        .args(words)
        .env("VLLM_LOGGING_LEVEL", "ERROR")
        .env("VLLM_NO_USAGE_STATS", "1")
        // Nothing may be imported from where Tidegate happens to run.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed_to_run)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let (answer, complaint) =
            tokio::try_join!(read(out, ANSWER_BYTES_MAX), read(err, COMPLAINT_BYTES_MAX))?;
        Ok((child.wait().await?, answer, complaint))
    };
    let ended = timeout(limit, ended).await;
    let (status, answer, complaint) = ended
        .map_err(|_| IntrospectError::Timeout {
            python: python.to_owned(),
            limit,
        })?
        .map_err(failed_to_run)?;
    if status.success() {
        return Ok(answer);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let last = complaint.lines().rev().find(|line| !line.trim().is_empty());
    Err(IntrospectError::Failed {
        python: python.to_owned(),
        complaint: last
            .unwrap_or("it said nothing")
            .chars()
            .take(300)
            .collect(),
    })
}

/// Reads to the end and keeps the last `limit` bytes at most;
/// what exceeds is read and dropped, so that the program is not held up.
async fn read(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return Ok(kept);
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(kept);
        };
        kept.extend_from_slice(read);
        if kept.len() > limit {
            kept.drain(..kept.len() - limit);
        }
    }
}

#[cfg(test)]
mod tests;
