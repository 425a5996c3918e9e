//! One worker's processes: started, signalled, watched to the last.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use tokio::net::unix::pipe::Receiver;

use super::cgroup::{GROUP_VARIABLE, Group};
use super::log::{Followers, Following, Tail};
use super::proc::{self, Marks, NONCE_VARIABLE, STATE_VARIABLE};
use super::walls::{WALLS_VARIABLE, Walls};
use super::{keeper, places, shared};
use crate::config::OffloadTo;
use crate::lifecycle::act::command::{LOOPBACK, WorkerCommand};
use crate::lifecycle::act::launcher::{Exit, Launched, Nonce, WorkerActivity};
use crate::names::DeploymentId;
use crate::outbound::Address;
use crate::proc::Stat;
use crate::store::workers::{ProcessId, WorkerRecord};
use crate::time::sleep;
use crate::vllm::environment::{API_KEY, RPC_BASE_PATH};

/// First and longest pause between two looks at what is left of a worker.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Time that the last lines of a log are waited for.
const TAIL_LIMIT: Duration = Duration::from_secs(2);
/// Time that a keeper may go on once nothing is left that it keeps.
const KEEPER_LIMIT: Duration = Duration::from_secs(4);

/// A worker whose leader was started or found by us.
#[derive(Debug)]
pub(super) struct Worker {
    id: DeploymentId,
    process: ProcessId,
    /// Refers to the leader and to no later process with its pid.
    pidfd: Arc<OwnedFd>,
    /// The same of its keeper, where it has one that lives.
    keeper: Option<Arc<OwnedFd>>,
    /// Held for a look or a change, never over an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: WorkerRecord,
    /// The keeper, while it is ours to reap.
    child: Option<Child>,
    tail: Option<Following>,
}

/// Parts that a worker is spawned from, beside its command line.
pub(super) struct Origin<'a> {
    pub(super) own: &'a Path,
    /// Of its log, in bytes.
    pub(super) bytes_max: u64,
    pub(super) temporary: &'a Path,
    /// Its log, for why it could not begin.
    pub(super) errors: File,
    /// Variables of our environment; it gets no others.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Walls of the worker; `None` if it may reach all that we may.
    pub(super) walls: Option<Walls>,
}

impl Worker {
    /// Starts the engine in a session of its own, below a keeper.
    pub(super) fn spawn(
        origin: Origin<'_>,
        line: &WorkerCommand,
        mut record: WorkerRecord,
    ) -> io::Result<Self> {
        let walls = origin.walls.as_ref().map(serde_json::to_string);
        let walls = walls.transpose()?;
        let id = record.id().ok_or(io::ErrorKind::InvalidInput)?;
        let start = keeper::Start {
            own: origin.own,
            program: &line.program,
            args: &line.args,
            log: &record.log,
            bytes_max: origin.bytes_max,
            errors: origin.errors,
        };
        let begun = keeper::begin(start, |command| {
            command
                .env_clear()
                .envs(origin.environment)
                .envs(line.env.iter().map(|(name, value)| (name, value)))
                .env(NONCE_VARIABLE, &record.nonce)
                .envs(record.state.iter().map(|state| (STATE_VARIABLE, state)))
                .env(API_KEY, &record.api_key)
                .env("TMPDIR", origin.temporary)
                .env(RPC_BASE_PATH, origin.temporary)
                .envs(record.cgroup.iter().map(|group| (GROUP_VARIABLE, group)))
                .envs(walls.map(|walls| (WALLS_VARIABLE, walls)));
        });
        let opened = begun.and_then(|mut begun| {
            let held = open_pidfd(begun.engine.pid);
            // From here on the engine may be reaped.
            drop(begun.child.stdin.take());
            Ok((begun, held?))
        });
        let (begun, pidfd) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                kill_by_nonce(&record);
                return Err(error);
            }
        };
        record.process = Some(begun.engine.clone());
        record.keeper = Some(begun.keeper);
        record.pipe = Some(PathBuf::from(begun.pipe));
        Ok(Self::new(
            id,
            begun.engine,
            pidfd,
            record,
            Some(begun.child),
        ))
    }

    /// The worker of an earlier process, if its leader lives.
    pub(super) fn found(record: &WorkerRecord) -> Option<Self> {
        let process = record.process.clone()?;
        let id = record.id()?;
        // Opened first: what is checked is then what will be signalled.
        let pidfd = open_pidfd(process.pid).ok()?;
        proc::lives(&process).then(|| Self::new(id, process, pidfd, record.clone(), None))
    }

    fn new(
        id: DeploymentId,
        process: ProcessId,
        pidfd: OwnedFd,
        record: WorkerRecord,
        child: Option<Child>,
    ) -> Self {
        let keeper = record.keeper.as_ref().and_then(|keeper| {
            let held = open_pidfd(keeper.pid).ok()?;
            proc::is_there(keeper).then(|| Arc::new(held))
        });
        Self {
            id,
            process,
            pidfd: Arc::new(pidfd),
            keeper,
            state: Mutex::new(State {
                record,
                child,
                tail: None,
            }),
        }
    }

    /// Launched worker, from its record.
    pub(super) fn launched(&self) -> Launched {
        let record = self.record();
        Launched {
            nonce: Nonce::recorded(&record.nonce),
            deployment: self.id.clone(),
            generation: record.generation,
            address: match record.port {
                Some(port) => Address::Tcp {
                    host: LOOPBACK.into(),
                    port,
                },
                None => Address::Unix(record.socket),
            },
            api_key: Arc::from(record.api_key),
            pid: record.process.map(|process| process.pid),
            fingerprint: Arc::from(record.fingerprint),
            gpus: Arc::from(record.gpus),
            asleep: record.asleep.map(OffloadTo::from),
        }
    }

    pub(super) fn record(&self) -> WorkerRecord {
        self.locked().record.clone()
    }

    /// True if a living process belongs to the worker.
    pub(super) fn owns(&self, pid: u32, stat: &Stat) -> bool {
        let of_session =
            stat.session == self.process.pid && stat.start_time >= self.process.start_time;
        of_session || proc::has_nonce(pid, &self.locked().record.nonce)
    }

    /// Work of the worker's processes so far.
    pub(super) fn activity(&self) -> WorkerActivity {
        let pids = self.pids().into_iter();
        pids.filter_map(proc::usage)
            .fold(WorkerActivity::default(), |sum, one| WorkerActivity {
                cpu: sum.cpu + one.cpu,
                bytes: sum.bytes + one.bytes,
            })
    }

    /// Marks by which its processes are known.
    fn marks<'a>(&'a self, record: &'a WorkerRecord, leader_held: bool) -> Marks<'a> {
        Marks {
            leader: Some(&self.process),
            leader_held,
            ..marks_of(record)
        }
    }

    /// True if this process is the worker's keeper.
    pub(super) fn is_kept_by(&self, pid: u32) -> bool {
        let state = self.locked();
        let keeper = state.record.keeper.as_ref();
        keeper.is_some_and(|keeper| keeper.pid == pid)
    }

    /// True if the leader still has its number: it lives, or its keeper has not
    /// reaped it.
    fn is_held(&self) -> bool {
        proc::is_there(&self.process)
    }

    pub(super) fn set_asleep(&self, asleep: Option<OffloadTo>) {
        self.locked().record.asleep = asleep.map(Into::into);
    }

    /// Follows the log until [`Self::exited`] resolves.
    pub(super) fn follow(&self, tail: Tail, followers: &Followers) {
        self.locked().tail = Some(followers.follow(tail));
    }

    /// Notes what its processes have open in shared memory. Returns whether there is
    /// more than was known.
    pub(super) fn note_shared(&self) -> bool {
        let held = shared::of(self.pids());
        let mut state = self.locked();
        let known = state.record.shared.len();
        state.record.shared.extend(held);
        state.record.shared.len() > known
    }

    /// Its processes, the leader among them.
    fn pids(&self) -> Vec<u32> {
        let record = self.record();
        let members = self.marks(&record, self.is_held()).members();
        let mut pids: Vec<u32> = members.iter().map(|(process, _)| process.pid).collect();
        pids.push(self.process.pid);
        pids.extend(group_of(&record).into_iter().flat_map(Group::members));
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Asks the leader to end.
    pub(super) fn stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the leader and whatever it started.
    pub(super) fn kill(&self) {
        self.note_shared();
        self.signal(Signal::KILL);
        self.kill_members();
    }

    /// Ends one that was only just spawned and that nobody would find again.
    /// Blocks until no process of it is left.
    pub(super) fn abandon(&self) {
        self.kill();
        while self.kill_members() {
            std::thread::sleep(PAUSE);
        }
        self.signal_keeper(Signal::KILL);
        self.reap();
        clean_after(&self.record());
    }

    fn signal_keeper(&self, signal: Signal) {
        if let Some(keeper) = &self.keeper {
            // Gone already, if it fails.
            pidfd_send_signal(keeper.as_fd(), signal).unwrap_or_default();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.pidfd.as_fd(), signal) {
            tracing::debug!(deployment.id = %self.id, pid = self.process.pid, %error, "not signalled");
        }
    }

    /// Resolves once no process of this worker is left.
    pub(super) async fn exited(&self) -> Exit {
        tokio::select! {
            () = until_ended(&self.pidfd, &self.process) => {}
            () = self.until_kept_no_more() => {
                tracing::warn!(deployment.id = %self.id, pid = self.process.pid,
                    "a worker's keeper was killed, so the worker is ended: its output would be lost");
                self.signal(Signal::KILL);
                until_ended(&self.pidfd, &self.process).await;
            }
        }
        // The leader is gone, and others of it may live: what they hold is seen now.
        self.note_shared();
        let mut pause = PAUSE;
        while self.kill_members() {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        if crate::time::timeout(KEEPER_LIMIT, self.until_kept_no_more())
            .await
            .is_err()
        {
            self.signal_keeper(Signal::KILL);
        }
        let how = self.reap();
        let out_of_memory = clean_after(&self.record());
        let tail = self.locked().tail.take();
        if let Some(tail) = tail {
            drop(crate::time::timeout(TAIL_LIMIT, tail.finish()).await);
        }
        Exit {
            how: how.unwrap_or_else(|| "ended".to_owned()),
            out_of_memory,
        }
    }

    /// Resolves once its keeper has ended; never where it has none to begin with.
    async fn until_kept_no_more(&self) {
        let record = self.record();
        match (&self.keeper, &record.keeper) {
            (Some(pidfd), Some(keeper)) => until_ended(pidfd, keeper).await,
            (None, Some(_)) => {}
            _ if !proc::lives(&self.process) => {}
            _ => std::future::pending().await,
        }
    }

    /// Reaps the keeper, or the leader of a worker that has none. Says how the
    /// leader ended, where that is known.
    fn reap(&self) -> Option<String> {
        let (child, record) = {
            let mut state = self.locked();
            (state.child.take(), state.record.clone())
        };
        if let Some(child) = child {
            return keeper::last_words(child);
        }
        // An adopted worker may be ours all the same, as its parent has ended.
        for process in record.keeper.iter().chain([&self.process]) {
            if proc::is_there(process) {
                reap_orphan(process);
            }
        }
        None
    }

    /// Kills what the leader started. Returns whether anything was left.
    fn kill_members(&self) -> bool {
        let record = self.record();
        let in_group = kill_group(&record);
        kill_all(&self.marks(&record, self.is_held())) || in_group
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The marks of a recorded worker whose leader is gone.
fn marks_of(record: &WorkerRecord) -> Marks<'_> {
    Marks {
        nonce: &record.nonce,
        output: record.pipe.as_deref().unwrap_or(&record.log),
        keeper: record.keeper.as_ref(),
        leader: record.process.as_ref(),
        leader_held: false,
    }
}

/// Kills what is left of a worker whose leader is gone or was never known, and
/// resolves once nothing is.
pub(super) async fn end_remains(record: &WorkerRecord) {
    let marks = marks_of(record);
    let mut pause = PAUSE;
    loop {
        let in_group = kill_group(record);
        if !kill_all(&marks) && !in_group {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    // Nothing is left for it to keep.
    if let Some(keeper) = &record.keeper {
        kill_one(keeper);
    }
    clean_after(record);
}

/// Kills whatever carries the mark of a worker that could not be begun. Blocks.
fn kill_by_nonce(record: &WorkerRecord) {
    let marks = Marks {
        leader: None,
        keeper: None,
        ..marks_of(record)
    };
    while kill_all(&marks) {
        std::thread::sleep(PAUSE);
    }
}

fn group_of(record: &WorkerRecord) -> Option<Group<'_>> {
    Group::of(record.cgroup.as_deref(), places::short(&record.nonce))
}

/// Kills all processes in the worker's control group. Returns true if there were any.
fn kill_group(record: &WorkerRecord) -> bool {
    let Some(group) = group_of(record).filter(|group| group.is_populated()) else {
        return false;
    };
    group.kill();
    true
}

/// Removes what a worker leaves of which nothing lives. Returns whether the
/// kernel had killed one of it for want of memory.
pub(super) fn clean_after(record: &WorkerRecord) -> bool {
    shared::clean(&record.shared);
    let group = group_of(record);
    let out_of_memory = group.is_some_and(Group::was_out_of_memory);
    if let Some(group) = group {
        group.remove();
    }
    out_of_memory
}

/// Kills each member, and reaps those that are ours. Returns whether any lived.
fn kill_all(marks: &Marks<'_>) -> bool {
    let mut any = false;
    for (process, stat) in marks.members() {
        if stat.state == 'Z' {
            reap_orphan(&process);
            continue;
        }
        any = true;
        kill_one(&process);
    }
    any
}

fn kill_one(process: &ProcessId) {
    // Opened first, then checked: never a later process with this pid.
    if let Ok(pidfd) = open_pidfd(process.pid)
        && proc::lives(process)
    {
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap_or_default();
    }
}

/// Reaps an ended process if we are its parent; else its parent does.
fn reap_orphan(process: &ProcessId) {
    if let Some(pid) = Pid::from_raw(process.pid.cast_signed()) {
        waitpid(Some(pid), WaitOptions::NOHANG).unwrap_or_default();
    }
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Resolves once the process of this pidfd has ended.
async fn until_ended(pidfd: &OwnedFd, process: &ProcessId) {
    // A pidfd becomes readable as a pipe does; no safe type of tokio's is nearer.
    let watched = pidfd
        .try_clone()
        .and_then(Receiver::from_owned_fd_unchecked);
    let seen = match watched {
        Ok(watched) => watched.readable().await,
        Err(error) => Err(error),
    };
    if let Err(error) = seen {
        tracing::debug!(%error, "a pidfd can't be watched; looking instead");
        while proc::lives(process) {
            sleep(PAUSE_MAX).await;
        }
    }
}
