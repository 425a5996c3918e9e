//! Does what the machine decided.
//!
//! What takes time runs as a task and comes back as a [`Report`]; everything
//! else is done at once. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::calls::{Callee, Calls};
use super::launcher::{Boxed, LaunchError, Launched, Launcher, Nonce, Order};
use super::machine::Event;
use super::member::{Member, Running, Wish};
use super::progress;
use crate::config::{self, OffloadTo};
use crate::deployment::{Gate, Handle};
use crate::names::{DeploymentId, Generation};
use crate::tasks::Tasks;

/// What a task found out.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) id: DeploymentId,
    pub(super) what: What,
}

/// The kinds of reports.
#[derive(Debug)]
pub(super) enum What {
    /// For the machine, with what is to be said about it.
    Event(Event, Option<String>),
    /// The worker runs, and this is where.
    Launched(Generation, Launched),
    /// How far its start is.
    Progress(Generation, &'static str, u8),
}

/// Runs tasks for the conductor. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub(super) struct Effects {
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) calls: Arc<dyn Calls>,
    pub(super) tasks: Tasks,
    /// Bounded; a task waits while it is full, the conductor never does.
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) call_timeout: Duration,
}

impl Effects {
    /// Launches a worker and watches over it until it is gone.
    pub(super) fn spawn(&self, member: &Member, generation: Generation) -> Running {
        let order = Order {
            nonce: Nonce::random(),
            handle: Arc::clone(&member.handle),
            spec: Arc::clone(&member.spec),
            generation,
            gpus: Arc::clone(&member.gpus),
        };
        let (wish, wishes) = watch::channel(Wish::Run);
        let calls = self.tasks.ending().child_token();
        let this = self.clone();
        let calls_of_task = calls.clone();
        self.tasks.spawn("worker", async move {
            this.launch(order, wishes, calls_of_task).await;
        });
        Running {
            launched: None,
            gate: Gate::opened(member.handle.gate.clock()),
            wish,
            calls,
        }
    }

    /// Gets what a spec runs before anyone asks for its worker, where that may
    /// take long. What goes wrong stands in its console, and shows when it starts.
    pub(super) fn prepare(&self, member: &Member) {
        let config::Engine::Vllm(vllm) = &member.spec.engine else {
            return;
        };
        if vllm.version.is_none() {
            return;
        }
        let (this, handle) = (self.clone(), Arc::clone(&member.handle));
        let spec = Arc::clone(&member.spec);
        let ending = self.tasks.ending();
        self.tasks.spawn("engine", async move {
            tokio::select! {
                prepared = this.launcher.prepare(&spec, &handle) => {
                    if let Err(error) = prepared {
                        tracing::warn!(deployment.id = %handle.id, "{error}");
                    }
                }
                () = ending.cancelled() => {}
            }
        });
    }

    /// Prepares a spec while its worker is wanted; `None` when it no longer is.
    async fn prepared(
        &self,
        order: &Order,
        wishes: &mut watch::Receiver<Wish>,
        lines_from: u64,
    ) -> Option<Result<(), LaunchError>> {
        let ending = self.tasks.ending();
        tokio::select! {
            prepared = self.launcher.prepare(&order.spec, &order.handle) => Some(prepared),
            // It never returns.
            () = self.follow_progress(&order.handle, order.generation, lines_from) => None,
            // Err: the conductor is gone.
            _ = wishes.wait_for(|wish| !matches!(wish, Wish::Run)) => None,
            () = ending.cancelled() => None,
        }
    }

    async fn launch(
        &self,
        order: Order,
        mut wishes: watch::Receiver<Wish>,
        calls: CancellationToken,
    ) {
        let (handle, generation) = (Arc::clone(&order.handle), order.generation);
        let (id, spec) = (handle.id.clone(), Arc::clone(&order.spec));
        let lines_from = handle.console.tail(0).1;
        let launched = match self.prepared(&order, &mut wishes, lines_from).await {
            Some(Ok(())) => self.launcher.submit(order).await,
            Some(Err(error)) => Err(error),
            None => Err(LaunchError::Now(
                "stopped before it was launched".to_owned(),
            )),
        };
        let launched = match launched {
            Ok(launched) => launched,
            Err(error) => {
                let event = match error {
                    LaunchError::Spec(_) => Event::Unlaunchable(generation),
                    LaunchError::Now(_) => Event::Exited(generation),
                };
                return self.event(&id, event, Some(error.to_string())).await;
            }
        };
        let nonce = launched.nonce.clone();
        let callee = self.callee(&launched, &spec);
        let what = What::Launched(generation, launched);
        self.report(&id, what).await;
        self.await_ready(&handle, callee, calls, lines_from);
        self.supervise(handle, (generation, nonce), wishes, lines_from)
            .await;
    }

    /// Watches over a worker that was adopted.
    pub(super) fn adopt(&self, member: &Member, launched: Launched) -> Running {
        let (wish, wishes) = watch::channel(Wish::Run);
        let (handle, generation) = (Arc::clone(&member.handle), launched.generation);
        let (this, nonce) = (self.clone(), launched.nonce.clone());
        self.launcher.adopt(&nonce, &handle);
        self.tasks.spawn("worker", async move {
            this.supervise(handle, (generation, nonce), wishes, 0).await;
        });
        Running {
            launched: Some(launched),
            gate: Gate::opened(member.handle.gate.clock()),
            wish,
            calls: self.tasks.ending().child_token(),
        }
    }

    /// Passes wishes on until the worker is gone. When the process ends first,
    /// the worker stays.
    async fn supervise(
        &self,
        handle: Arc<Handle>,
        (generation, nonce): (Generation, Nonce),
        mut wishes: watch::Receiver<Wish>,
        lines_from: u64,
    ) {
        let ending = self.tasks.ending();
        let mut exited = self.launcher.exited(&nonce);
        let exit = loop {
            tokio::select! {
                exit = &mut exited => break exit,
                () = ending.cancelled() => return,
                // Err: the conductor is gone, and the worker stays.
                wish = wishes.changed() => match wish.map(|()| *wishes.borrow_and_update()) {
                    Ok(Wish::Run) => {}
                    Ok(Wish::Stop) => self.launcher.stop(&nonce),
                    Ok(Wish::Kill(_)) => self.launcher.kill(&nonce),
                    Err(_) => return,
                },
            }
        };
        let how = exit_in_words(&handle, &exit.how, lines_from);
        self.event(&handle.id, Event::Exited(generation), Some(how))
            .await;
    }

    fn await_ready(
        &self,
        handle: &Arc<Handle>,
        callee: Callee,
        calls: CancellationToken,
        lines_from: u64,
    ) {
        let (this, handle) = (self.clone(), Arc::clone(handle));
        self.tasks.spawn("worker ready", async move {
            let generation = callee.launched.generation;
            let progress = this.follow_progress(&handle, generation, lines_from);
            tokio::select! {
                () = calls.cancelled() => {}
                () = this.calls.ready(callee) => {
                    let event = Event::WorkerReady(generation);
                    this.event(&handle.id, event, None).await;
                }
                () = progress => {}
            }
        });
    }

    /// Reads the log for marks of progress; never returns.
    async fn follow_progress(&self, handle: &Handle, generation: Generation, mut next: u64) {
        let mut lines_seen = handle.console.watch();
        let mut reported = 0;
        loop {
            let (lines, count) = handle.console.since(next);
            next = count;
            let marks = lines.iter().filter_map(|line| progress::of_line(line));
            if let Some((words, percent)) = marks.max_by_key(|mark| mark.1)
                && percent > reported
            {
                reported = percent;
                let what = What::Progress(generation, words, percent);
                self.report(&handle.id, what).await;
            }
            if lines_seen.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Puts the worker to sleep.
    pub(super) fn sleep(&self, member: &Member, generation: Generation, to: OffloadTo) {
        let done = Event::Slept(generation);
        self.call(member, done, "sleep", Some(to), move |calls, callee| {
            calls.sleep(callee, to)
        });
    }

    /// Wakes the worker.
    pub(super) fn wake(&self, member: &Member, generation: Generation, from: OffloadTo) {
        let done = Event::WorkerReady(generation);
        self.call(member, done, "wake up", None, move |calls, callee| {
            calls.wake(callee, from)
        });
    }

    /// Calls a worker; `asleep` is where its weights will be.
    fn call(
        &self,
        member: &Member,
        done: Event,
        verb: &'static str,
        asleep: Option<OffloadTo>,
        start: impl FnOnce(&dyn Calls, Callee) -> Boxed<'_, Result<(), String>> + Send + 'static,
    ) {
        let launched = member.running.as_ref().and_then(|r| {
            let launched = r.launched.clone()?;
            Some((launched, r.calls.clone()))
        });
        let Some((launched, cancelled)) = launched else {
            tracing::error!(deployment.id = %member.handle.id, "no worker to {verb}");
            return;
        };
        let callee = self.callee(&launched, &member.spec);
        let (this, id) = (self.clone(), member.handle.id.clone());
        self.tasks.spawn("worker call", async move {
            let nonce = launched.nonce;
            // Before the call: a process that dies now leaves a truthful note.
            if asleep.is_some() {
                this.launcher.note_asleep(&nonce, asleep);
            }
            let result = tokio::select! {
                () = cancelled.cancelled() => return,
                result = start(this.calls.as_ref(), callee) => result,
            };
            if result.is_ok() && asleep.is_none() {
                this.launcher.note_asleep(&nonce, None);
            }
            let failed = Event::CallFailed(launched.generation);
            match result {
                Ok(()) => this.event(&id, done, None).await,
                Err(error) => {
                    let why = format!("could not {verb}: {error}");
                    this.event(&id, failed, Some(why)).await;
                }
            }
        });
    }

    /// Reports once no request is inside the closed gate.
    pub(super) fn drain(&self, handle: &Arc<Handle>) {
        let (this, handle) = (self.clone(), Arc::clone(handle));
        let ending = self.tasks.ending();
        self.tasks.spawn("drain", async move {
            tokio::select! {
                () = handle.gate.drained() => {}
                () = ending.cancelled() => return,
            }
            let idle_since = handle.gate.last_activity();
            this.event(&handle.id, Event::Drained { idle_since }, None)
                .await;
        });
    }

    fn callee(&self, launched: &Launched, spec: &config::Deployment) -> Callee {
        Callee {
            launched: launched.clone(),
            model: spec.endpoint_name.clone(),
            limit: self.call_timeout,
        }
    }

    async fn event(&self, id: &DeploymentId, event: Event, why: Option<String>) {
        self.report(id, What::Event(event, why)).await;
    }

    async fn report(&self, id: &DeploymentId, what: What) {
        let id = id.clone();
        // No receiver: the conductor has ended, and no one asks any more.
        drop(self.reports.send(Report { id, what }).await);
    }
}

/// Lines of the log that a reason quotes.
const QUOTED_LINES: usize = 3;

/// How it ended, with what its log says about why.
fn exit_in_words(handle: &Handle, how: &str, lines_from: u64) -> String {
    let (lines, _) = handle.console.since(lines_from);
    let texts = lines.iter().map(AsRef::as_ref);
    let Some(telling) = progress::telling_line(texts) else {
        return how.to_owned();
    };
    let mut last: Vec<&str> = lines
        .iter()
        .rev()
        .map(AsRef::as_ref)
        .filter(|line: &&str| !line.trim().is_empty() && *line != telling)
        .take(QUOTED_LINES - 1)
        .collect();
    last.push(telling);
    last.reverse();
    format!("{how}: {}", last.join("\n"))
}
