//! One worker's processes: started, signalled, watched to the last.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    waitpid,
};
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::cgroup::{GROUP_VARIABLE, Group};
use super::log::Tail;
use super::proc::{self, Marks, NONCE_VARIABLE};
use super::{exec, places, shared};
use crate::config::{Address, OffloadTo};
use crate::lifecycle::command::{CommandLine, LOOPBACK};
use crate::lifecycle::launcher::{Activity, Exit, Launched, Nonce};
use crate::names::DeploymentId;
use crate::store::workers::{ProcessId, Record};
use crate::tasks::Tasks;
use crate::time::sleep;

/// First and longest pause between two looks at what is left of a worker.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long the last lines of a log are waited for.
const TAIL_LIMIT: Duration = Duration::from_secs(2);

/// A worker whose leader was started or found by us.
#[derive(Debug)]
pub(super) struct Worker {
    id: DeploymentId,
    process: ProcessId,
    /// Refers to the leader and to no later process with its pid.
    pidfd: Arc<OwnedFd>,
    /// Held for a look or a change, never over an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: Record,
    /// The leader, while it is ours to reap.
    child: Option<Child>,
    tail: Option<RunningTail>,
}

/// A task that follows the log.
#[derive(Debug)]
struct RunningTail {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Worker {
    /// Starts the engine in a session of its own, its output in this file.
    pub(super) fn spawn(
        own: &Path,
        line: &CommandLine,
        mut record: Record,
        temporary: &Path,
        output: File,
    ) -> io::Result<Self> {
        let mut command = Command::new(own);
        command
            .arg(exec::SUBCOMMAND)
            .arg(&line.program)
            .args(&line.args)
            .envs(line.env.iter().map(|(name, value)| (name, value)))
            .env(NONCE_VARIABLE, &record.nonce)
            .env("VLLM_API_KEY", &record.api_key)
            .env("TMPDIR", temporary)
            .env("VLLM_RPC_BASE_PATH", temporary)
            .envs(record.cgroup.iter().map(|group| (GROUP_VARIABLE, group)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let id = record.id().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = command.spawn()?;
        let pid = child.id();
        // Not reaped yet, so the pid is still its own even if it has ended.
        let identity = proc::stat(pid).ok_or(io::ErrorKind::NotFound);
        let opened = identity.map_err(io::Error::from).and_then(|stat| {
            let start_time = stat.start_time;
            Ok((ProcessId { pid, start_time }, open_pidfd(pid)?))
        });
        let (process, pidfd) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        record.process = Some(process.clone());
        Ok(Self::new(id, process, pidfd, record, Some(child)))
    }

    /// The worker of an earlier process, if its leader lives.
    pub(super) fn found(record: &Record) -> Option<Self> {
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
        record: Record,
        child: Option<Child>,
    ) -> Self {
        Self {
            id,
            process,
            pidfd: Arc::new(pidfd),
            state: Mutex::new(State {
                record,
                child,
                tail: None,
            }),
        }
    }

    /// What was launched, from its record.
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

    pub(super) fn record(&self) -> Record {
        self.locked().record.clone()
    }

    /// Whether a living process belongs to it.
    pub(super) fn owns(&self, pid: u32, stat: &proc::Stat) -> bool {
        let of_session =
            stat.session == self.process.pid && stat.start_time >= self.process.start_time;
        of_session || proc::has_nonce(pid, &self.locked().record.nonce)
    }

    /// What its processes have done so far.
    pub(super) fn activity(&self) -> Activity {
        let pids = self.pids().into_iter();
        pids.filter_map(proc::usage)
            .fold(Activity::default(), |sum, one| Activity {
                cpu: sum.cpu + one.cpu,
                bytes: sum.bytes + one.bytes,
            })
    }

    /// By what its processes are known.
    fn marks<'a>(&'a self, record: &'a Record, leader_held: bool) -> Marks<'a> {
        Marks {
            nonce: &record.nonce,
            log: &record.log,
            leader: Some(&self.process),
            leader_held,
        }
    }

    pub(super) fn set_asleep(&self, asleep: Option<OffloadTo>) {
        self.locked().record.asleep = asleep.map(Into::into);
    }

    /// Follows the log until [`Self::exited`] resolves.
    pub(super) fn follow(&self, tail: Tail, tasks: &Tasks) {
        let running = RunningTail {
            stop: tasks.ending().child_token(),
            ended: CancellationToken::new(),
        };
        let (stop, ended) = (running.stop.clone(), running.ended.clone());
        tasks.spawn("worker log", async move {
            tail.run(stop).await;
            ended.cancel();
        });
        self.locked().tail = Some(running);
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
        let (record, ours) = {
            let state = self.locked();
            (state.record.clone(), state.child.is_some())
        };
        let held = ours || proc::lives(&self.process);
        let members = self.marks(&record, held).members();
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
        self.reap();
        clean_after(&self.record());
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.pidfd.as_fd(), signal) {
            tracing::debug!(deployment.id = %self.id, pid = self.process.pid, %error, "not signalled");
        }
    }

    /// Resolves once no process of this worker is left.
    pub(super) async fn exited(&self) -> Exit {
        if let Err(error) = ended(Arc::clone(&self.pidfd)).await {
            tracing::debug!(%error, "a pidfd can't be watched; looking instead");
            while proc::lives(&self.process) {
                sleep(PAUSE_MAX).await;
            }
        }
        // The leader is gone, and others of it may live: what they hold is seen now.
        self.note_shared();
        let mut pause = PAUSE;
        while self.kill_members() {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let status = self.reap();
        let out_of_memory = clean_after(&self.record());
        let tail = self.locked().tail.take();
        if let Some(tail) = tail {
            tail.stop.cancel();
            let read = crate::time::timeout(TAIL_LIMIT, tail.ended.cancelled()).await;
            drop(read);
        }
        Exit {
            how: status.map_or_else(|| "ended".to_owned(), in_words),
            out_of_memory,
        }
    }

    /// Reaps the leader; only then may its pid be another's.
    fn reap(&self) -> Option<ExitStatus> {
        let child = self.locked().child.take();
        if let Some(mut child) = child {
            return child.wait().ok();
        }
        // An adopted worker may be ours all the same, as its parent has ended.
        let stat = proc::stat(self.process.pid);
        if stat.is_some_and(|stat| stat.start_time == self.process.start_time) {
            reap_orphan(&self.process);
        }
        None
    }

    /// Kills what the leader started. Returns whether anything was left.
    fn kill_members(&self) -> bool {
        let state = self.locked();
        let held = state.child.is_some() || proc::lives(&self.process);
        if state.child.is_some()
            && let Some(group) = Pid::from_raw(self.process.pid.cast_signed())
        {
            // The unreaped leader keeps the group's number ours. No such group
            // means that nobody is left to kill.
            kill_process_group(group, Signal::KILL).unwrap_or_default();
        }
        let in_group = kill_group(&state.record);
        kill_all(&self.marks(&state.record, held)) || in_group
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills what is left of a worker whose leader is gone or was never known, and
/// resolves once nothing is.
pub(super) async fn end_remains(record: &Record) {
    let marks = Marks {
        nonce: &record.nonce,
        log: &record.log,
        leader: record.process.as_ref(),
        leader_held: false,
    };
    let mut pause = PAUSE;
    loop {
        let in_group = kill_group(record);
        if !kill_all(&marks) && !in_group {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    clean_after(record);
}

fn group_of(record: &Record) -> Option<Group<'_>> {
    Group::of(record.cgroup.as_deref(), places::short(&record.nonce))
}

/// Kills whoever is in its control group. Returns whether anyone was.
fn kill_group(record: &Record) -> bool {
    let Some(group) = group_of(record).filter(|group| group.is_populated()) else {
        return false;
    };
    group.kill();
    true
}

/// Removes what a worker leaves of which nothing lives. Returns whether the
/// kernel had killed one of it for want of memory.
pub(super) fn clean_after(record: &Record) -> bool {
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
        let Some(pid) = Pid::from_raw(process.pid.cast_signed()) else {
            continue;
        };
        if stat.state == 'Z' {
            reap_orphan(&process);
            continue;
        }
        any = true;
        // Opened first, then checked: never a later process with this pid.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
            && proc::lives(&process)
        {
            pidfd_send_signal(&pidfd, Signal::KILL).unwrap_or_default();
        }
    }
    any
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
async fn ended(pidfd: Arc<OwnedFd>) -> io::Result<()> {
    // A pidfd becomes readable as a pipe does; no safe type of tokio's is nearer.
    let watched = Receiver::from_owned_fd_unchecked(pidfd.try_clone()?)?;
    watched.readable().await
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(9)) => "was killed (signal 9)".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
