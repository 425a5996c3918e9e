//! Does what the machine decided.
//!
//! Work that takes time runs as a task and comes back as a [`Report`]; everything
//! else is done at once. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::calls::{Callee, Calls, Taste};
use super::exit;
use super::health::{self, Care, Quiet};
use super::launcher::{Boxed, FetchFailure, LaunchError, Launched, Launcher, Nonce, Order};
use super::learner::Learner;
use super::observe;
use super::running::{Running, Target, Wish};
use crate::config::{self, OffloadTo};
use crate::deployment::{Gate, Handle};
use crate::gpu::Readings;
use crate::lifecycle::decide::machine::Event;
use crate::lifecycle::decide::why::Why;
use crate::models::pace::FetchProgress;
use crate::names::{DeploymentId, Generation};
use crate::tasks::Tasks;
use crate::vllm::fit::Fit;
use crate::vllm::log::progress;

/// Finding of a task.
#[derive(Debug)]
pub(in crate::lifecycle) struct Report {
    pub(in crate::lifecycle) id: DeploymentId,
    pub(in crate::lifecycle) what: What,
}

/// The kinds of reports.
#[derive(Debug)]
pub(in crate::lifecycle) enum What {
    /// For the machine, with what is known of its cause.
    Event(Event, Option<Why>),
    /// The worker runs, and this is where.
    Launched(Generation, Launched),
    /// Progress of a worker's start.
    Progress(Generation, &'static str, u8),
    /// News of the fetch with that number, of its model.
    Fetch(u64, FetchNews),
    /// Memory that a worker of the spec with this digest will need.
    Foretold(Arc<str>, Arc<Fit>),
}

/// News of a fetch.
#[derive(Debug)]
pub(in crate::lifecycle) enum FetchNews {
    /// Progress of the fetch.
    Progress(FetchProgress),
    /// It is over.
    Ended(Result<(), FetchFailure>),
}

/// Parts of a worker that its tasks hold.
#[derive(Clone, Debug)]
struct Door {
    gate: Arc<Gate>,
    quiet: Quiet,
    taste: Taste,
    calls: CancellationToken,
}

impl Door {
    fn of(running: &Running) -> Self {
        Self {
            gate: Arc::clone(&running.gate),
            quiet: Arc::clone(&running.quiet),
            taste: Arc::clone(&running.taste),
            calls: running.calls.clone(),
        }
    }
}

/// A worker that is watched over.
struct Watched {
    handle: Arc<Handle>,
    generation: Generation,
    nonce: Nonce,
    callee: Callee,
    /// Number of the worker's first line in the console.
    lines_from: u64,
    /// True once the worker was ready.
    served: Arc<AtomicBool>,
}

/// Runs tasks for the conductor. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub(in crate::lifecycle) struct Effects {
    pub(in crate::lifecycle) launcher: Arc<dyn Launcher>,
    pub(in crate::lifecycle) calls: Arc<dyn Calls>,
    pub(in crate::lifecycle) tasks: Tasks,
    /// Bounded; a task waits while it is full, the conductor never does.
    pub(in crate::lifecycle) reports: mpsc::Sender<Report>,
    pub(in crate::lifecycle) call_timeout: Duration,
    pub(in crate::lifecycle) care: Care,
    /// Readings of the GPUs' sensors.
    pub(in crate::lifecycle) readings: Readings,
}

impl Effects {
    /// Launches a worker and watches over it until it is gone.
    pub(in crate::lifecycle) fn spawn(
        &self,
        target: Target<'_>,
        generation: Generation,
    ) -> Running {
        let order = Order {
            nonce: Nonce::random(),
            handle: Arc::clone(target.handle),
            spec: Arc::clone(target.spec),
            generation,
            gpus: Arc::clone(target.gpus),
        };
        let (wish, wishes) = watch::channel(Wish::Run);
        let calls = self.tasks.ending().child_token();
        let this = self.clone();
        let running = Running {
            launched: None,
            gate: Gate::opened(target.handle.gate.clock()),
            quiet: Quiet::default(),
            taste: Taste::default(),
            wish,
            calls,
        };
        let door = Door::of(&running);
        self.tasks.spawn("worker", async move {
            this.launch(order, wishes, door).await;
        });
        running
    }

    /// Gets what a spec runs before anyone asks for its worker, where that may
    /// take long. What goes wrong stands in its console, and shows when it starts.
    pub(in crate::lifecycle) fn prepare(&self, target: Target<'_>) {
        let config::Engine::Vllm(vllm) = &target.spec.engine else {
            return;
        };
        if vllm.version.is_none() {
            return;
        }
        let (this, handle) = (self.clone(), Arc::clone(target.handle));
        let spec = Arc::clone(target.spec);
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

    /// Sees whether what is written of a worker can be.
    pub(in crate::lifecycle) fn try_state(&self, id: &DeploymentId, generation: Generation) {
        let (this, id) = (self.clone(), id.clone());
        self.tasks
            .spawn("trial of the state directory", async move {
                let launcher = Arc::clone(&this.launcher);
                let tried = tokio::task::spawn_blocking(move || launcher.can_record()).await;
                let (event, why) = match tried.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(()) => (Event::Writable(generation), None),
                    Err(why) => (Event::Unwritten(generation), Some(Why::Fault(why))),
                };
                this.event(&id, event, why).await;
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

    async fn launch(&self, order: Order, mut wishes: watch::Receiver<Wish>, door: Door) {
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
                    LaunchError::State(_) => Event::Unwritten(generation),
                };
                return self.event(&id, event, Some(error.why())).await;
            }
        };
        let nonce = launched.nonce.clone();
        let callee = self.callee(&launched, &spec, &door.taste);
        let what = What::Launched(generation, launched);
        self.report(&id, what).await;
        let served = Arc::new(AtomicBool::new(false));
        let learner = Learner {
            handle: Arc::clone(&handle),
            spec,
            lines_from,
        };
        self.await_ready(learner, callee.clone(), door.calls.clone(), &served);
        let watched = Watched {
            handle,
            generation,
            nonce,
            callee,
            lines_from,
            served,
        };
        self.supervise(watched, wishes, door).await;
    }

    /// Watches over a worker that was adopted.
    pub(in crate::lifecycle) fn adopt(&self, target: Target<'_>, launched: Launched) -> Running {
        let (wish, wishes) = watch::channel(Wish::Run);
        let (this, handle) = (self.clone(), Arc::clone(target.handle));
        self.launcher.adopt(&launched.nonce, &handle);
        let watched = Watched {
            handle,
            generation: launched.generation,
            nonce: launched.nonce.clone(),
            // It sends no prompt that is kept.
            callee: self.callee(&launched, target.spec, &Taste::default()),
            lines_from: 0,
            served: Arc::new(AtomicBool::new(true)),
        };
        let running = Running {
            launched: Some(launched),
            gate: Gate::opened(target.handle.gate.clock()),
            quiet: Quiet::default(),
            taste: Taste::default(),
            wish,
            calls: self.tasks.ending().child_token(),
        };
        let door = Door::of(&running);
        let learner = Learner {
            handle: Arc::clone(&watched.handle),
            spec: Arc::clone(target.spec),
            lines_from: 0,
        };
        let (calls, callee) = (running.calls.clone(), watched.callee.clone());
        self.tasks.spawn("worker", async move {
            let learning = learner.learn(&this.calls, callee, &calls);
            tokio::join!(this.supervise(watched, wishes, door), learning);
        });
        running
    }

    /// Passes wishes on until the worker is gone. When the process ends first,
    /// the worker stays.
    async fn supervise(&self, watched: Watched, mut wishes: watch::Receiver<Wish>, door: Door) {
        let ending = self.tasks.ending();
        let Watched {
            handle,
            generation,
            nonce,
            callee,
            lines_from,
            served,
        } = watched;
        let mut exited = self.launcher.exited(&nonce);
        let unwell = health::unwell(
            self.care,
            Arc::clone(&self.calls),
            callee,
            door.gate,
            door.quiet,
            Arc::clone(&served),
        );
        tokio::pin!(unwell);
        let mut is_well = true;
        let exit = loop {
            tokio::select! {
                exit = &mut exited => break exit,
                why = &mut unwell, if is_well => {
                    is_well = false;
                    self.event(&handle.id, Event::Stuck(generation), Some(Why::Fault(why))).await;
                }
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
        let (why, permanent) = exit::why(&handle, &exit, lines_from);
        // What has served once may do so again.
        let event = if permanent && !served.load(Ordering::Acquire) {
            Event::Unlaunchable(generation)
        } else {
            Event::Exited(generation)
        };
        self.event(&handle.id, event, Some(why)).await;
    }

    fn await_ready(
        &self,
        learner: Learner,
        callee: Callee,
        calls: CancellationToken,
        served: &Arc<AtomicBool>,
    ) {
        let (this, served) = (self.clone(), Arc::clone(served));
        let (handle, lines_from) = (Arc::clone(&learner.handle), learner.lines_from);
        self.tasks.spawn("worker ready", async move {
            let generation = callee.launched.generation;
            let nonce = callee.launched.nonce.clone();
            let progress = this.follow_progress(&handle, generation, lines_from);
            let launcher = Arc::clone(&this.launcher);
            tokio::select! {
                () = calls.cancelled() => {}
                () = this.calls.ready(callee.clone()) => {
                    served.store(true, Ordering::Release);
                    let name = nonce.clone();
                    let settled = tokio::task::spawn_blocking(move || launcher.settled(&name));
                    let event = Event::WorkerReady(generation);
                    this.event(&handle.id, event, None).await;
                    drop(settled.await);
                    learner.learn(&this.calls, callee, &calls).await;
                }
                why = health::stalled(this.care, Arc::clone(&launcher), &nonce, &handle) => {
                    this.event(&handle.id, Event::Stuck(generation), Some(Why::Fault(why))).await;
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
    pub(in crate::lifecycle) fn sleep(
        &self,
        target: Target<'_>,
        generation: Generation,
        to: OffloadTo,
    ) {
        let done = Event::Slept(generation);
        self.call(target, done, "sleep", Some(to), move |calls, callee| {
            calls.sleep(callee, to)
        });
    }

    /// Wakes the worker.
    pub(in crate::lifecycle) fn wake(
        &self,
        target: Target<'_>,
        generation: Generation,
        from: OffloadTo,
    ) {
        let done = Event::WorkerReady(generation);
        self.call(target, done, "wake up", None, move |calls, callee| {
            calls.wake(callee, from)
        });
    }

    /// Calls a worker; `asleep` is where its weights will be.
    fn call(
        &self,
        target: Target<'_>,
        done: Event,
        verb: &'static str,
        asleep: Option<OffloadTo>,
        start: impl FnOnce(&dyn Calls, Callee) -> Boxed<'_, Result<(), String>> + Send + 'static,
    ) {
        let launched = target.running.and_then(|r| {
            let launched = r.launched.clone()?;
            Some((launched, Door::of(r)))
        });
        let Some((launched, door)) = launched else {
            tracing::error!(deployment.id = %target.handle.id, "no worker to {verb}");
            return;
        };
        let callee = self.callee(&launched, target.spec, &door.taste);
        let (this, id) = (self.clone(), target.handle.id.clone());
        self.tasks.spawn("worker call", async move {
            let nonce = launched.nonce;
            // Before the call: a process that dies now leaves a truthful note.
            if asleep.is_some() {
                this.launcher.note_asleep(&nonce, asleep);
            }
            // A probe of ours may be inside; it has a limit, and none begins now.
            let whose = (&id, launched.generation);
            let asking = async {
                let _held = door.quiet.lock().await;
                let held = observe::held(this.readings.latest(), &this.launcher, whose).await;
                start(this.calls.as_ref(), callee).await?;
                match held.filter(|_| asleep.is_some()) {
                    Some((_, bytes)) => this.released(whose, bytes).await,
                    None => Ok(()),
                }
            };
            let result = tokio::select! {
                () = door.calls.cancelled() => return,
                result = asking => result,
            };
            if result.is_ok() && asleep.is_none() {
                this.launcher.note_asleep(&nonce, None);
            }
            let failed = Event::CallFailed(launched.generation);
            match result {
                Ok(()) => this.event(&id, done, None).await,
                Err(error) => {
                    let why = Why::Fault(format!("could not {verb}: {error}"));
                    this.event(&id, failed, Some(why)).await;
                }
            }
        });
    }

    async fn released(&self, whose: (&DeploymentId, Generation), bytes: u64) -> Result<(), String> {
        observe::released(self.readings.clone(), &self.launcher, whose, bytes).await
    }

    /// Reports once no request is inside the closed gate of a worker.
    pub(in crate::lifecycle) fn drain(&self, id: &DeploymentId, gate: &Arc<Gate>) {
        let (this, id, gate) = (self.clone(), id.clone(), Arc::clone(gate));
        let ending = self.tasks.ending();
        self.tasks.spawn("drain", async move {
            tokio::select! {
                () = gate.drained() => {}
                () = ending.cancelled() => return,
            }
            let idle_since = gate.last_activity();
            this.event(&id, Event::Drained { idle_since }, None).await;
        });
    }

    fn callee(&self, launched: &Launched, spec: &config::Deployment, taste: &Taste) -> Callee {
        Callee {
            taste: Arc::clone(taste),
            launched: launched.clone(),
            model: spec.endpoint_name.clone(),
            adapters: spec.adapters().into(),
            sleeps: spec.idle.offload.is_some(),
            limit: self.call_timeout,
        }
    }

    async fn event(&self, id: &DeploymentId, event: Event, why: Option<Why>) {
        self.report(id, What::Event(event, why)).await;
    }

    pub(super) async fn report(&self, id: &DeploymentId, what: What) {
        let id = id.clone();
        // No receiver: the conductor has ended, and no one asks any more.
        drop(self.reports.send(Report { id, what }).await);
    }
}
