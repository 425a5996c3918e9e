//! Models of the hub, through the library of an engine's own Python.
//!
//! A small program runs in that interpreter: so cache, mirrors, tokens, proxies and
//! Xet are those that the engine itself reads (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`,
//! `HF_HUB_OFFLINE` and the like). It tells a plan, waits until that is found good,
//! and ends with us, however we end. What it says is checked like anything foreign.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::fetch::{Fetching, Provider, Unfetched, Watch};
use super::refusal::{HubError, HubRefusal};
use super::source::{FetchPlan, Fetched, ModelFile};
use crate::units::Span;

mod look;

const PROGRAM: &str = include_str!("hub/fetch.py");

/// Most bytes of a line of it: a plan of ten thousand files.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Most bytes of its standard error that are kept.
const COMPLAINT_BYTES_MAX: usize = 16 << 10;
/// Variables that name directories, which it gets whole: it runs in another one.
const DIRECTORIES: [&str; 4] = [
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
];

/// A model of the hub.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HubModel {
    /// The interpreter whose library is asked.
    pub python: PathBuf,
    /// Its name, checked.
    pub name: String,
    /// Its revision, checked; `None` for the hub's own default.
    pub revision: Option<String>,
    /// All that the program gets of an environment; `None`: that of this process.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// Program that gives up what the interpreter may not reach, and becomes it; `None`:
    /// it may reach all that this process may.
    pub before: Option<Before>,
}

/// A program that ends by becoming the one that its arguments name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Before {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, before those that name the other.
    pub arguments: Vec<OsString>,
    /// Variables for it alone.
    pub environment: Vec<(OsString, OsString)>,
}

impl fmt::Debug for HubModel {
    // Its environment may hold a login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubModel")
            .field("name", &self.name)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Task of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// All files.
    Fetch,
    /// Its form, and no file.
    Look,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Plan(ToldPlan),
    Progress {
        done: u64,
    },
    Waits {
        seconds: u64,
        status: u16,
        file: String,
    },
    Failed {
        kind: String,
        detail: String,
        file: String,
    },
    Done {
        snapshot: PathBuf,
    },
    /// Its config, where only its form was asked for.
    Config {
        text: String,
    },
    /// The head of one of its files, and the bytes of that.
    Head {
        file: String,
        size: u64,
        text: String,
    },
    /// All was said of its form; what its index says of the size of all.
    Looked {
        total: Option<u64>,
    },
}

#[derive(Deserialize)]
struct ToldPlan {
    commit: String,
    revision: String,
    folder: PathBuf,
    files: Vec<ToldFile>,
}

#[derive(Deserialize)]
struct ToldFile {
    name: String,
    size: u64,
    blob: Option<String>,
    there: u64,
    whole: bool,
}

impl Provider for HubModel {
    fn fetch<'a>(&'a self, watch: &'a dyn Watch) -> Fetching<'a> {
        Box::pin(self.run(watch))
    }
}

impl HubModel {
    async fn run(&self, watch: &dyn Watch) -> Result<Fetched, Unfetched> {
        let mut child = self.spawn(Asks::Fetch)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(complaints)) = pipes else {
            return Err(self.broke("it has no standard streams").into());
        };
        let heard = async {
            let heard = self.hear(input, output, watch).await;
            if heard.is_err() {
                // It has ended by itself, or is to.
                child.start_kill().unwrap_or_default();
            }
            heard
        };
        let (heard, complaint) = tokio::join!(heard, last_line(complaints));
        // Waited for, so that it is no zombie; it can't hold us up once it is killed.
        drop(child.wait().await);
        match heard? {
            Some(fetched) => Ok(fetched),
            None => Err(self.broke(&complaint).into()),
        }
    }

    fn spawn(&self, asks: Asks) -> Result<Child, HubError> {
        let look = asks == Asks::Look;
        let asked = serde_json::json!({"name": self.name, "revision": self.revision, "look": look});
        let mut command = match &self.before {
            Some(before) => {
                let mut command = Command::new(&before.program);
                command.args(&before.arguments).arg(&self.python);
                command
            }
            None => Command::new(&self.python),
        };
        if let Some(environment) = &self.environment {
            command.env_clear().envs(environment.iter().cloned());
        }
        for name in DIRECTORIES {
            let value = match &self.environment {
                Some(own) => own
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, v)| v.clone()),
                None => std::env::var_os(name),
            };
            if let Some(whole) = value.as_deref().and_then(whole) {
                command.env(name, whole);
            }
        }
        if let Some(before) = &self.before {
            command.envs(before.environment.iter().cloned());
        }
        command
            .arg("-c")
            .arg(PROGRAM)
            .arg(asked.to_string())
            // Nothing may be imported from where Tidegate happens to run.
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| HubError::Run {
                python: self.python.clone(),
                source,
            })
    }

    /// Hears it to its end; `None` where that came without a word.
    async fn hear(
        &self,
        mut input: ChildStdin,
        output: ChildStdout,
        watch: &dyn Watch,
    ) -> Result<Option<Fetched>, Unfetched> {
        let mut output = BufReader::new(output);
        let mut plan = None;
        while let Some(line) = line_of(&mut output).await {
            let told = serde_json::from_slice(&line).map_err(|e| self.senseless(&e.to_string()))?;
            match told {
                Told::Plan(told) => {
                    let told = self.checked(told)?;
                    watch.planned(&told).await?;
                    if input.write_all(b"go\n").await.is_err() {
                        return Ok(None);
                    }
                    plan = Some(told);
                }
                Told::Progress { done } => watch.came(done)?,
                Told::Waits {
                    seconds,
                    status,
                    file,
                } => watch.says(&waiting(seconds, status, &file)),
                Told::Failed { kind, detail, file } => {
                    return Err(HubError::Refused(self.refused(kind, &detail, file)).into());
                }
                Told::Done { snapshot } => {
                    let plan = plan.ok_or_else(|| self.senseless("it is done without a plan"))?;
                    return Ok(Some(Fetched {
                        path: snapshot,
                        bytes: plan.total(),
                        commit: Some(plan.commit),
                    }));
                }
                Told::Config { .. } | Told::Head { .. } | Told::Looked { .. } => {
                    return Err(self.senseless("nobody asked for its form").into());
                }
            }
        }
        Ok(None)
    }

    /// A plan that stays below its folder and counts right.
    fn checked(&self, told: ToldPlan) -> Result<FetchPlan, HubError> {
        let folder = format!("models--{}", self.name.replace('/', "--"));
        if !told.folder.is_absolute() || !told.folder.ends_with(&folder) {
            let what = format!("it would write to {}", told.folder.display());
            return Err(self.senseless(&what));
        }
        let is_hash = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        if told.commit.len() != 40 || !is_hash(&told.commit) {
            return Err(self.senseless(&format!("{:?} is no commit", told.commit)));
        }
        let mut total = 0_u64;
        for file in &told.files {
            if !is_below(&file.name) || file.blob.as_ref().is_some_and(|blob| !is_below(blob)) {
                return Err(self.senseless(&format!("{:?} is no file", file.name)));
            }
            total = total
                .checked_add(file.size)
                .ok_or_else(|| self.senseless("its files have no sum"))?;
        }
        let files = told.files.into_iter().map(|file| ModelFile {
            name: file.name,
            size: file.size,
            blob: file.blob,
            there: file.there.min(file.size),
            whole: file.whole,
        });
        Ok(FetchPlan {
            folder: told.folder,
            revision: told.revision,
            commit: told.commit,
            files: files.collect(),
        })
    }

    fn refused(&self, kind: String, detail: &str, file: String) -> Box<HubRefusal> {
        let lines = detail
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let detail: String = lines.collect::<Vec<_>>().join(" ");
        Box::new(HubRefusal {
            model: self.name.clone(),
            revision: self.revision.clone().unwrap_or_else(|| "main".to_owned()),
            python: self.python.clone(),
            kind,
            detail: detail.chars().take(300).collect(),
            file,
        })
    }

    fn senseless(&self, what: &str) -> HubError {
        HubError::Answer {
            python: self.python.clone(),
            model: self.name.clone(),
            what: what.to_owned(),
        }
    }

    fn broke(&self, complaint: &str) -> HubError {
        HubError::Broke {
            python: self.python.clone(),
            model: self.name.clone(),
            complaint: complaint.to_owned(),
        }
    }
}

/// Reason for a wait, and its length.
fn waiting(seconds: u64, status: u16, file: &str) -> String {
    let of = if file.is_empty() {
        String::new()
    } else {
        format!(" for {file}")
    };
    let after = Span(std::time::Duration::from_secs(seconds));
    match status {
        0 => format!("the hub broke off{of}: it is asked again in {after}"),
        429 => format!("the hub wants fewer requests{of} (429): it is asked again in {after}"),
        status => format!("the hub answered {status}{of}: it is asked again in {after}"),
    }
}

/// True if a path stays below where it begins.
pub(super) fn is_below(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    !name.contains(['\\', '\0'])
        && !name.chars().any(char::is_control)
        && name.split('/').all(plain)
}

/// A directory of the environment as seen from anywhere; `None` where it is so already.
fn whole(value: &OsStr) -> Option<PathBuf> {
    let path = Path::new(value);
    let named = value.to_string_lossy().starts_with(['~', '$']);
    if value.is_empty() || path.is_absolute() || named {
        return None;
    }
    std::path::absolute(path).ok()
}

/// A line without its end; `None` at the end, and where it is too long to be ours.
async fn line_of(output: &mut BufReader<ChildStdout>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut limited = output.take(limit);
    let read = limited.read_until(b'\n', &mut line).await.unwrap_or(0);
    (read > 0 && line.pop() == Some(b'\n')).then_some(line)
}

/// Hears standard error to its end, for its last line.
async fn last_line(mut stream: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 4 << 10];
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        kept.extend_from_slice(read);
        if kept.len() > COMPLAINT_BYTES_MAX {
            kept.drain(..kept.len() - COMPLAINT_BYTES_MAX);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("it said nothing");
    last.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests;
