//! One worker's start: the intent written, the process begun, its id written.
//!
//! A start that fails leaves nothing: no process, record, control group or file.
//! One that fails because what is ours can't be written, as on a full disk, says
//! so: it is no fault of the model.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::places::{self, Places};
use super::walls::Walls;
use super::worker::{self, Origin, Worker};
use super::{Bounds, Inner, chain, environment, log};
use crate::config::SandboxMode;
use crate::lifecycle::act::command::{Engine, WorkerCommand, WorkerPlace};
use crate::lifecycle::act::launcher::{LaunchError, Launched, Order, random_hex};
use crate::names::DeploymentId;
use crate::store::workers::{JournalError, WorkerRecord};

/// Bytes that a start writes, generously: a record twice, directories, a log.
const STARTS_BYTES: usize = 16 << 10;

/// Reason why a start failed.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// A file of ours.
    #[error("{what} can't be written at {path}", path = path.display())]
    Own {
        what: &'static str,
        path: Box<Path>,
        #[source]
        source: io::Error,
    },
    /// The rest.
    #[error(transparent)]
    Other(#[from] Box<dyn Error + Send + Sync>),
}

impl StartError {
    fn other(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    fn own(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = Box::from(path);
        move |source| Self::Own { what, path, source }
    }
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io { path, source } => Self::own("its record", &path)(source),
            newer @ JournalError::Newer { .. } => Self::other(newer),
        }
    }
}

impl From<StartError> for LaunchError {
    fn from(error: StartError) -> Self {
        match &error {
            StartError::Own { what, path, source } => Self::State(unwritten(what, path, source)),
            StartError::Other(_) => Self::Now(chain(&error)),
        }
    }
}

/// Says that a file of ours can't be written now, and why not.
fn unwritten(what: &str, path: &Path, error: &io::Error) -> String {
    let dir = path.parent().unwrap_or(path).display();
    let why = match error.kind() {
        io::ErrorKind::StorageFull => format!("no space left on {dir}"),
        io::ErrorKind::QuotaExceeded => format!("the quota of {dir} is used up"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{dir} is mounted read-only"),
        _ => format!("{dir}: {error}"),
    };
    format!("{what} can't be written: {why}")
}

/// Checks that what a start writes can be written: writes it, and removes it. Blocks.
pub(super) fn can_record(places: &Places) -> Result<(), String> {
    // Named so that the next start removes what a kill leaves of it.
    let name = random_hex::<6>();
    let record = places.journal.join(&name).with_extension("tmp");
    for trial in [record, places.temporary(&name)] {
        let written = fs::write(&trial, [0; STARTS_BYTES]);
        drop(fs::remove_file(&trial));
        if let Err(error) = written {
            return Err(unwritten("its record", &trial, &error));
        }
    }
    Ok(())
}

impl Inner {
    /// Writes the intent, starts the process, and writes its id.
    pub(super) fn launch(&self, order: &Order, engine: &Engine) -> Result<Launched, LaunchError> {
        if let Some(worker) = self.worker(&order.nonce) {
            return Ok(worker.launched());
        }
        let engines = &self.options.engines;
        let checked = engines.check(&order.spec, engine);
        checked.map_err(LaunchError::Spec)?;
        let mut record = WorkerRecord {
            nonce: order.nonce.as_str().to_owned(),
            deployment: order.spec.id.as_str().to_owned(),
            generation: order.generation,
            fingerprint: engines.fingerprint(&order.spec),
            boot_id: self.boot_id.clone(),
            process: None,
            keeper: None,
            pipe: None,
            state: Some(self.identity.clone()),
            socket: self.places.socket(order.nonce.as_str()),
            port: None,
            api_key: random_hex::<16>(),
            gpus: order.gpus.to_vec(),
            log: self.log_of(&order.spec.id),
            asleep: None,
            cgroup: None,
            shared: BTreeSet::new(),
        };
        let started = self.start(order, engine, &mut record);
        if started.is_err() {
            worker::clean_after(&record);
            self.forget(order.nonce.as_str());
        }
        Ok(started?)
    }

    /// Walls of a worker with this environment; `None` if it may reach all that we may.
    pub(super) fn walls(
        &self,
        line: &WorkerCommand,
        kept: &[(OsString, OsString)],
        (temporary, own): (Option<&Path>, &DeploymentId),
    ) -> Option<Walls> {
        let Bounds {
            sandbox, private, ..
        } = &self.options.bounds;
        if sandbox.mode == SandboxMode::Off {
            return None;
        }
        let of_line = line
            .env
            .iter()
            .map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
        let ours = kept
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        let variables: HashMap<&OsStr, &OsStr> = ours.chain(of_line).collect();
        let caches = Walls::caches(|name| variables.get(OsStr::new(name)).copied());
        let mut hidden = private.clone();
        hidden
            .extend([&self.places.run, &self.places.logs, &self.places.journal].map(Clone::clone));
        hidden.extend(self.options.engines.secret_files(own));
        let sources = self.options.engines.vllm.sources();
        let written = line.writes.iter().chain(&sandbox.writable).cloned();
        Some(Walls {
            hidden,
            shown: vec![sources.venvs.clone()],
            writable: temporary
                .map(Path::to_owned)
                .into_iter()
                .chain(written)
                .chain(caches)
                .collect(),
            required: sandbox.mode == SandboxMode::Required,
        })
    }

    fn start(
        &self,
        order: &Order,
        engine: &Engine,
        record: &mut WorkerRecord,
    ) -> Result<Launched, StartError> {
        if let Some(groups) = &self.groups {
            let memory_max = self.options.bounds.memory_max;
            let group = groups.make(places::short(&record.nonce), memory_max);
            record.cgroup = Some(group.map_err(StartError::other)?);
        }
        if let Engine::Vllm(installation) = engine
            && !installation.knows_sockets()
        {
            record.port = Some(places::free_port().map_err(StartError::other)?);
        }
        self.journal.write(record)?;
        let temporary = self.places.temporary(&record.nonce);
        let made = fs::create_dir_all(&temporary);
        made.map_err(StartError::own("its temporary directory", &temporary))?;
        let engines = &self.options.engines;
        let place = WorkerPlace {
            socket: &record.socket,
            port: record.port.unwrap_or_default(),
        };
        let line = engines.command_line(&order.spec, engine, place);
        let mut line = line.map_err(|why| StartError::Other(why.into()))?;
        for note in &line.notes {
            order.handle.console.push(&format!("tidegate: {note}"));
        }
        if !order.gpus.is_empty() {
            let visible = self.options.gpus.visible(&order.gpus);
            line.env.push(("CUDA_VISIBLE_DEVICES".to_owned(), visible));
            // Else CUDA numbers them by their speed, and not as NVML does.
            let by_bus = ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
            line.env.push(by_bus);
        }
        let handle = Arc::clone(&order.handle);
        let tail = log::Tail::new(record.log.clone(), handle, log::From::End);
        let opened = log::open(&record.log);
        let errors = opened.map_err(StartError::own("its log", &record.log))?;
        let sandbox = &self.options.bounds.sandbox;
        let author = &order.spec.author;
        let kept = environment::kept(std::env::vars_os(), &sandbox.environment, author);
        let origin = Origin {
            own: &self.options.own,
            bytes_max: self.options.log_bytes_max,
            temporary: &temporary,
            errors,
            walls: self.walls(&line, &kept, (Some(&temporary), &order.spec.id)),
            environment: kept,
        };
        let worker = Worker::spawn(origin, &line, record.clone());
        let worker = worker.map_err(StartError::other)?;
        if let Err(error) = self.journal.write(&worker.record()) {
            // The record of the intent is about to go, and with it every trace.
            worker.abandon();
            return Err(error.into());
        }
        worker.follow(tail, &self.followers);
        Ok(self.keep(order.nonce.clone(), worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_written_is_told_apart_from_other_faults_and_says_why() {
        let path = Path::new("/state/workers/a.json");
        let failed = |code: i32| {
            let source = io::Error::from_raw_os_error(code);
            let path = path.to_owned();
            LaunchError::from(StartError::from(JournalError::Io { path, source }))
        };
        for (code, words) in [
            (
                28,
                "its record can't be written: no space left on /state/workers",
            ),
            (
                122,
                "its record can't be written: the quota of /state/workers is used up",
            ),
            (
                30,
                "its record can't be written: /state/workers is mounted read-only",
            ),
            (
                13,
                "its record can't be written: /state/workers: Permission denied (os error 13)",
            ),
        ] {
            let error = failed(code);
            assert!(matches!(error, LaunchError::State(_)), "{error}");
            assert_eq!(error.to_string(), words);
        }
        let format = 3;
        let path = path.to_owned();
        let newer = StartError::from(JournalError::Newer { path, format });
        assert!(matches!(LaunchError::from(newer), LaunchError::Now(_)));
    }

    #[test]
    fn a_trial_leaves_nothing_and_says_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path()).unwrap();
        assert_eq!(can_record(&places), Ok(()));
        assert_eq!(fs::read_dir(&places.journal).unwrap().count(), 0);
        fs::remove_dir(&places.journal).unwrap();
        let why = can_record(&places).unwrap_err();
        assert!(why.contains("workers"), "{why}");
    }
}
