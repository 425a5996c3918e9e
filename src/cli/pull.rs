//! `tidegate pull MODEL`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use super::common::{ConfigArg, Failure};
use super::out;
use crate::lifecycle::act::command::Engines;
use crate::models::directory::DirectoryModel;
use crate::models::fetch::{Provider, Unfetched};
use crate::models::hub::HubModel;
use crate::models::pace::{FetchProgress, Pace};
use crate::models::pull::{Hearer, Puller};
use crate::models::record::FetchRecord;
use crate::models::source::{FetchPlan, ModelSource, NoSource, check_revision};
use crate::time::{Clock, Uptime};
use crate::units::Bytes;

/// Pause between two lines of progress where nobody looks at a terminal.
const LINES_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// A name of the hub, as Qwen/Qwen3-8B, or a directory, which is looked at
    model: String,
    /// A branch, a tag or a commit of it [default: main]
    #[arg(long, value_name = "R")]
    revision: Option<String>,
    #[command(flatten)]
    config: ConfigArg,
}

impl Pull {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let found = ModelSource::parse(&self.model)?;
        if let Some(revision) = &self.revision {
            check_revision(revision)?;
        }
        let source: Box<dyn Provider> = match found {
            ModelSource::Directory(_) if self.revision.is_some() => {
                return Err(NoSource::Directory.into());
            }
            ModelSource::Directory(path) => Box::new(DirectoryModel(path)),
            ModelSource::Hub(name) => {
                let vllm = Engines::new(&settings).vllm;
                let python = vllm.python(settings.models.python.as_deref()).await;
                let python = python.map_err(|error| {
                    format!("no Python was found whose huggingface_hub could fetch it: install vLLM, or name one in [models] python ({error})")
                })?;
                Box::new(HubModel {
                    python,
                    name,
                    revision: self.revision.clone(),
                    environment: None,
                    before: None,
                })
            }
        };
        let puller = Puller {
            record: FetchRecord::at(&settings.gateway.state),
            limits: settings.models.limits,
        };
        let shown = Shown::new(&self.model);
        let fetched = puller.pull(&self.model, source.as_ref(), &shown).await;
        shown.end();
        let fetched = fetched.map_err(|error: Unfetched| Box::new(error) as Failure)?;
        let at = fetched
            .commit
            .map_or_else(String::new, |commit| format!(" at {commit}"));
        out::line(format_args!(
            "{}{at}: {}, whole, in {}",
            self.model,
            Bytes(fetched.bytes),
            fetched.path.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Progress as a line that is written over on a terminal, and line by line elsewhere.
struct Shown {
    model: String,
    clock: Clock,
    terminal: bool,
    /// Held for a look or a change, never over an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pace: Pace,
    total: u64,
    told: Option<Uptime>,
}

impl Shown {
    fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            clock: Clock::start(),
            terminal: io::stderr().is_terminal(),
            state: Mutex::default(),
        }
    }

    /// Ends the line that was written over.
    fn end(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.terminal && state.told.is_some() {
            drop(writeln!(io::stderr().lock()));
        }
    }
}

/// Words of progress: the part that is there, the rate, the time that the rest takes.
fn words(pace: &Pace, done: u64, total: u64) -> String {
    let progress = FetchProgress::of(pace, done, total);
    let text = format!("{}%, {progress}", progress.percent());
    match progress.left.filter(|_| done < total) {
        Some(left) => format!("{text}, {} left", out::ago(left.as_secs())),
        None => text,
    }
}

impl Hearer for Shown {
    fn begins(&self, plan: &FetchPlan) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total = plan.total();
        state.pace.note(self.clock.now(), plan.there());
        let missing = Bytes(plan.missing());
        if plan.missing() > 0 {
            let (model, total) = (&self.model, Bytes(plan.total()));
            out::note(&format!("{model}: {missing} of {total} to fetch"));
        }
    }

    fn came(&self, done: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        state.pace.note(now, done);
        let told = state.told.unwrap_or_default();
        if !self.terminal && now.saturating_sub(told) < LINES_EVERY {
            return;
        }
        state.told = Some(now);
        let line = format!("{}: {}", self.model, words(&state.pace, done, state.total));
        if self.terminal {
            let mut terminal = io::stderr().lock();
            drop(write!(terminal, "\r{line}\x1b[K"));
            drop(terminal.flush());
        } else {
            out::note(&line);
        }
    }

    fn says(&self, words: &str) {
        self.end();
        out::note(words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_the_rate_and_what_is_left() {
        let mut pace = Pace::default();
        pace.note(Duration::ZERO, 0);
        assert_eq!(words(&pace, 0, 4 << 30), "0%, 0B of 4GiB");
        pace.note(Duration::from_secs(10), 1000 << 20);
        let told = words(&pace, 1000 << 20, 4 << 30);
        assert_eq!(told, "24%, 1000MiB of 4GiB, 100MiB/s, 31s left");
        assert_eq!(
            words(&pace, 4 << 30, 4 << 30),
            "100%, 4GiB of 4GiB, 100MiB/s"
        );
    }
}
