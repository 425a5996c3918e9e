//! A process of the gateway: from its start to its end, however that comes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

use super::facts::{Facts, Stands};
use super::servers::Server;
use super::stage::Stage;
use crate::app::revocations;
use crate::auth::{Issuer, Keyring, Revocations, SigningKey, Verifier};
use crate::deployment::{Demands, Gate, Handle, Refusal, Registry, Snapshot, Worker};
use crate::gateway::Gateway;
use crate::names::Generation;
use crate::outbound::Address;
use crate::outbound::socket::in_memory;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::access::AccessLog;
use crate::telemetry::usage::Tally;
use crate::time::{Clock, NewestTime};

/// Bytes that wait between a client and the gateway.
const BUFFER: usize = 4 << 10;

/// Sums by token id: requests, prompt and completion tokens.
pub(super) type Sums = BTreeMap<String, (u64, u64, u64)>;

/// A gateway that runs.
pub(super) struct Life {
    pub(super) gateway: Arc<Gateway>,
    pub(super) store: Store,
    pub(super) revocations: Arc<Revocations>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) issuer: Issuer,
    pub(super) conductor: Conductor,
    log: AccessLog,
    /// Connections of clients.
    tasks: Tasks,
    cut: CancellationToken,
    killed: CancellationToken,
    /// Use before this life.
    base: Sums,
    /// True if some of that is in journals that could not be added yet.
    owed: bool,
    /// Use that the log has told since.
    logged: Sums,
    /// Part of that use that is in the store.
    kept: Sums,
    facts: Facts,
    clients: u8,
}

/// Player of the lifecycle of the one deployment.
pub(super) struct Conductor {
    handle: Arc<Handle>,
    demands: Demands,
    worker: Option<Server>,
    generation: u32,
    /// Half seconds until it serves.
    starts_in: Option<u32>,
    /// True if its worker died, and that was not noticed yet.
    dead: bool,
}

impl Life {
    /// Starts on what an earlier one left, in which so much was used; `None` for whatever
    /// the store says.
    pub(super) fn start(
        stage: &Stage,
        facts: &Facts,
        used: Option<&Sums>,
    ) -> Result<Self, StoreError> {
        let wall = Arc::clone(&stage.wall);
        let clock = NewestTime::of(move || *wall.lock().unwrap());
        let opened = Store::open_on(&stage.disk, &stage.state, &stage.key, Arc::new(clock))?;
        for note in &opened.notes {
            facts.step(&format!("note: {}", stage.without_paths(note)));
        }
        let store = opened.store;
        let settings = stage.settings();
        let revocations = revocations(&settings, &store)?;
        let added = store.add_left();
        facts.step(&format!("journals added: {:?}", added.as_ref().ok()));
        let key = SigningKey::load_or_create(&stage.key).unwrap().key;
        let keyring = Keyring::own(&key, "tidegate", "tidegate");
        let verifier = Arc::new(Verifier::new(keyring, Arc::clone(&revocations)).unwrap());
        let log = AccessLog::in_memory();
        let (registry, demands) = Registry::new(Clock::start());
        let conductor = Conductor::new(stage, &registry, demands);
        let gateway = Gateway::new(
            Arc::new(settings),
            Arc::clone(&verifier),
            registry,
            log.clone(),
        );
        gateway.install(&stage.catalog);
        gateway.set_ready(true);
        let mut life = Self {
            gateway,
            issuer: Issuer::new(key, "tidegate", "tidegate"),
            store,
            revocations,
            verifier,
            conductor,
            log,
            tasks: Tasks::new(),
            cut: CancellationToken::new(),
            killed: CancellationToken::new(),
            base: Sums::new(),
            owed: added.is_err(),
            logged: Sums::new(),
            kept: Sums::new(),
            facts: facts.clone(),
            clients: 0,
        };
        life.base = match used {
            Some(used) => used.clone(),
            None => life.stored()?,
        };
        life.tend();
        Ok(life)
    }

    /// Connects a client.
    pub(super) fn connect(&mut self) -> DuplexStream {
        let (ours, theirs) = duplex(BUFFER);
        self.clients = self.clients.wrapping_add(1);
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.clients % 4));
        let gateway = Arc::clone(&self.gateway);
        let (ending, cut) = (self.tasks.ending(), self.cut.child_token());
        let killed = self.killed.clone();
        self.tasks.spawn_bare(async move {
            tokio::select! {
                biased;
                () = killed.cancelled() => {}
                () = gateway.serve_stream(ours, address, (ending, cut)) => {}
            }
        });
        theirs
    }

    /// Every half second: as the tasks of a process do.
    pub(super) fn tick(&mut self, stage: &Stage) {
        self.read_log();
        let kept = self
            .store
            .keep_usage(self.gateway.ledger(), self.verifier.holders());
        match kept {
            Ok(()) => self.kept = self.logged.clone(),
            Err(error) => {
                let error = stage.without_paths(&error.to_string());
                self.facts.step(&format!("usage was not kept: {error}"));
            }
        }
        if self.owed {
            self.owed = self.store.add_left().is_err();
        }
        self.conductor.tick(stage, &self.facts);
        self.gateway.sweep();
    }

    /// Every second: as `health::keep` does.
    pub(super) fn tend(&self) {
        self.store.tend();
        let fault = self.store.fault();
        if fault.is_none() && self.store.held() == 0 {
            for token in &mut self.facts.lock().tokens {
                if let Stands::Refused { kept } = &mut token.stands {
                    *kept = true;
                }
            }
        }
        self.gateway.set_degraded(fault.map(Arc::from));
        let told = self.gateway.ready_text();
        if self.store.held() > 0 && !told.contains("not durable") {
            self.facts
                .wrong(format!("refusals are held, and /readyz says {told:?}"));
        }
    }

    /// Looks at all that must hold at any moment.
    pub(super) fn check(&mut self) {
        self.read_log();
        let wrong = |what: String| self.facts.wrong(what);
        let tokens = self.facts.lock().tokens.clone();
        for token in &tokens {
            let verified = self.verifier.verify(&token.text, self.verifier.now());
            let is_refused = matches!(token.stands, Stands::Refused { .. });
            if is_refused && verified.is_ok() {
                wrong(format!(
                    "{} is accepted after it was refused",
                    token.subject
                ));
            }
            if token.stands == Stands::Good
                && let Err(error) = verified
            {
                wrong(format!("{} is not accepted: {error}", token.subject));
            }
        }
        if self.store.held() > 0 && self.store.fault().is_none() {
            wrong("refusals are held, and nothing is told of it".to_owned());
        }
        self.check_usage();
    }

    /// Checks that the use is what the log tells, once each.
    fn check_usage(&self) {
        if self.owed || self.store.has_unsure_usage() {
            return;
        }
        let Ok(mut sum) = self.stored() else { return };
        for (id, tally) in self.gateway.ledger().all_pending() {
            add(&mut sum, &id, counts(tally));
        }
        let mut expected = self.base.clone();
        for (id, used) in &self.logged {
            add(&mut expected, id, *used);
        }
        if sum != expected {
            let name = |sums: &Sums| -> Vec<String> {
                let known = self.facts.lock();
                let tokens = known.tokens.iter().enumerate();
                let all = tokens.filter_map(|(n, token)| {
                    Some(format!("token {n}: {:?}", sums.get(&*token.id)?))
                });
                all.collect()
            };
            self.facts.wrong(format!(
                "usage is {:?}, and was {:?}",
                name(&sum),
                name(&expected)
            ));
        }
    }

    /// Use by each token, as the store says.
    fn stored(&self) -> Result<Sums, StoreError> {
        let known = self.facts.lock();
        let mut sums = Sums::new();
        for token in &known.tokens {
            if let Some(tally) = self.store.usage(&token.id)? {
                sums.insert(token.id.to_string(), counts(tally));
            }
        }
        Ok(sums)
    }

    /// Reads what requests left of them.
    pub(super) fn read_log(&mut self) {
        let lines = self.log.held();
        for line in lines.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            self.read_line(&line);
        }
    }

    fn read_line(&mut self, line: &serde_json::Value) {
        let text = |key: &str| line.get(key).and_then(serde_json::Value::as_str);
        let whole = |key: &str| line.get(key).and_then(serde_json::Value::as_u64);
        let used = (
            whole("prompt_tokens").unwrap_or_default(),
            whole("completion_tokens").unwrap_or_default(),
        );
        if let (Some(id), Some(_)) = (text("token_id"), text("deployment")) {
            add(&mut self.logged, id, (1, used.0, used.1));
        }
        let outcome = text("outcome").unwrap_or("none").to_owned();
        let number = text("request_id").and_then(|id| id.strip_prefix("sim-")?.parse().ok());
        let Some(number) = number.filter(|n: &usize| *n < self.facts.lock().asks.len()) else {
            return;
        };
        let mut known = self.facts.lock();
        known.step(&format!("line of request {number}: {outcome}, {used:?}"));
        let Some(ask) = known.asks.get_mut(number) else {
            return;
        };
        ask.lines += 1;
        let ask = ask.clone();
        drop(known);
        if ask.lines > 1 {
            self.facts.wrong(format!("request {number} ended twice"));
        }
        if outcome == "ok" && ask.told.is_some_and(|told| told != used) {
            let told = ask.told;
            self.facts.wrong(format!(
                "request {number} used {told:?}, and {used:?} counts"
            ));
        }
        if used != (0, 0) && ask.served == 0 {
            self.facts.wrong(format!(
                "request {number} was not served, and {used:?} counts"
            ));
        }
    }

    /// Lets what is open finish, as far as it does; then cuts it. To be called again
    /// every half second until it says that all has ended.
    pub(super) fn ends(&self, halves: u32) -> bool {
        if halves == 0 {
            self.gateway.set_ready(false);
            self.tasks.end();
        }
        if halves == 60 {
            self.cut.cancel();
        }
        if halves == 70 && !self.tasks.is_empty() {
            self.facts
                .wrong("connections are there 5 s after the cut".to_owned());
        }
        self.tasks.is_empty() || halves >= 70
    }

    /// The end in order, once connections have ended. Returns what the store has then.
    pub(super) fn stop(mut self) -> Sums {
        self.read_log();
        let last = self
            .store
            .keep_last(self.gateway.ledger(), self.verifier.holders());
        self.facts.step(&format!("last usage: {last:?}"));
        if last.is_err() {
            self.facts.wrong("the last usage is lost".to_owned());
        }
        let added = self.store.add_left();
        self.facts
            .step(&format!("journals added: {:?}", added.ok()));
        self.lose_held();
        self.conductor.end();
        self.store.close();
        self.total(&self.logged)
    }

    /// The end of the process at any moment. Returns what the store has then, where that
    /// can be known.
    pub(super) fn kill(mut self) -> Option<Sums> {
        self.read_log();
        self.killed.cancel();
        for ask in &mut self.facts.lock().asks {
            ask.lost |= ask.lines == 0;
        }
        self.lose_held();
        self.conductor.end();
        let is_sure = !self.store.has_unsure_usage();
        is_sure.then(|| self.total(&self.kept))
    }

    /// Makes refusals that were only in memory unsure.
    fn lose_held(&self) {
        for token in &mut self.facts.lock().tokens {
            if token.stands == (Stands::Refused { kept: false }) {
                token.stands = Stands::Unsure;
            }
        }
    }

    fn total(&self, since: &Sums) -> Sums {
        let mut all = self.base.clone();
        for (id, used) in since {
            add(&mut all, id, *used);
        }
        all
    }
}

impl Conductor {
    fn new(stage: &Stage, registry: &Registry, demands: Demands) -> Self {
        let instance = stage.catalog.instances.first().unwrap();
        let spec = Arc::clone(instance.deployments.first().unwrap());
        Self {
            handle: registry.insert(spec),
            demands,
            worker: None,
            generation: 0,
            starts_in: None,
            dead: false,
        }
    }

    fn tick(&mut self, stage: &Stage, facts: &Facts) {
        if self.dead {
            // First the gate, then all who are inside, then the news.
            self.handle.gate.close();
            if self.handle.gate.in_flight() == 0 {
                self.dead = false;
                self.publish("stopped", Vec::new());
            }
            return;
        }
        if self.demands.try_recv().is_ok() {
            self.handle.take_demand();
            if self.worker.is_none() && self.starts_in.is_none() {
                facts.step("a worker is asked for");
                self.starts_in = Some(stage.dice(8));
                self.publish("starting", Vec::new());
            }
        }
        match self.starts_in {
            Some(0) if stage.dice(5) == 0 => {
                facts.step("the worker failed to start");
                self.starts_in = None;
                let before = self.handle.snapshot();
                self.handle.publish(Snapshot {
                    phase: "failed",
                    refusals: before.refusals + 1,
                    refusal: Some(Refusal::Failed),
                    ..Snapshot::clone(&before)
                });
            }
            Some(0) => self.serve(stage, facts),
            Some(halves) => self.starts_in = Some(halves - 1),
            None => {}
        }
    }

    fn serve(&mut self, stage: &Stage, facts: &Facts) {
        facts.step("the worker serves");
        self.starts_in = None;
        self.generation += 1;
        let number = stage.next_worker();
        let path = PathBuf::from(format!("{}/own-{number}", in_memory::PLACE));
        self.worker = Some(Server::start(path.clone(), facts, &stage.tasks));
        let worker = Worker {
            generation: Generation(self.generation),
            address: Address::Unix(path),
            api_key: Arc::from("k"),
            gate: Gate::opened(self.handle.gate.clock()),
        };
        self.publish("ready", vec![Arc::new(worker)]);
        self.handle.gate.open();
    }

    /// The worker dies, and nobody notices yet.
    pub(super) fn kill_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill();
            self.dead = true;
        }
    }

    fn end(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill();
        }
    }

    fn publish(&self, phase: &'static str, workers: Vec<Arc<Worker>>) {
        let before = self.handle.snapshot();
        self.handle.publish(Snapshot {
            phase,
            generation: Generation(self.generation),
            workers: workers.into(),
            ..Snapshot::clone(&before)
        });
    }
}

pub(super) fn add(sums: &mut Sums, id: &str, (requests, prompt, completion): (u64, u64, u64)) {
    let sum = sums.entry(id.to_owned()).or_default();
    sum.0 += requests;
    sum.1 += prompt;
    sum.2 += completion;
}

fn counts(tally: Tally) -> (u64, u64, u64) {
    (tally.requests, tally.prompt_tokens, tally.completion_tokens)
}
