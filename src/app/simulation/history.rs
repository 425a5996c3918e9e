//! A history: what happens, in what order, by its seed.

use std::time::Duration;

use super::clients::{self, BOUND};
use super::facts::{Facts, Stands, Token};
use super::life::{Life, Sums};
use super::stage::Stage;
use crate::auth::{Pattern, Role, TokenLimits, TokenSpec};
use crate::names::Workspace;
use crate::random::Dice;
use crate::store::disk::{Disk, Fault};
use crate::time::{Instant, sleep};

const HALF: Duration = Duration::from_millis(500);

/// Most steps of a history, before it comes to rest.
const STEPS: usize = 60;

/// A history as it is played.
pub(super) struct History {
    pub(super) dice: Dice,
    pub(super) facts: Facts,
    pub(super) stage: Stage,
    /// The gateway; none between two lives.
    life: Option<Life>,
    halves: u64,
    /// Next time at which half a second is over.
    due: Instant,
    /// True if the file beside the key can be written.
    is_marked: bool,
    /// A copy of the disk.
    copy: Option<Vec<u8>>,
    /// Moment up to which tokens of now are cut off, in seconds since 1970.
    cut_until: u64,
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        let facts = Facts::new();
        let stage = Stage::new(seed ^ 0x5eed, &facts);
        let life = Life::start(&stage, &facts, None).unwrap();
        Self {
            dice: Dice::new(seed),
            life: Some(life),
            facts,
            stage,
            halves: 0,
            due: Instant::now() + HALF,
            is_marked: true,
            copy: None,
            cut_until: 0,
        }
    }

    /// Plays it. Returns its steps, and what was broken.
    pub(super) async fn play(mut self) -> (Vec<String>, Vec<String>) {
        for _ in 0..3 {
            self.issue();
        }
        let steps = STEPS / 2 + self.dice.below(STEPS / 2);
        for _ in 0..steps {
            Box::pin(self.step()).await;
            self.life().check();
            if !self.facts.lock().wrong.is_empty() {
                break;
            }
        }
        if self.facts.lock().wrong.is_empty() {
            Box::pin(self.rest()).await;
        }
        self.stage.tasks.end();
        let known = self.facts.lock();
        (known.steps.clone(), known.wrong.clone())
    }

    async fn step(&mut self) {
        match self.dice.below(100) {
            0..35 => self.ask(),
            35..55 => {
                let span = [50, 300, 1_500, 6_000][self.dice.below(4)];
                let span = self.dice.below(span) as u64;
                self.pass(Duration::from_millis(span)).await;
            }
            55..60 => self.issue(),
            60..68 => self.revoke(),
            68..70 => self.cut_off(),
            70..78 => self.fail_disk(),
            78..81 => {
                self.facts.step("the disk works");
                self.stage.disk.heal();
            }
            81..83 => {
                self.is_marked = !self.is_marked;
                self.facts
                    .step(&format!("beside the key: {}", self.is_marked));
                self.stage.set_mark_writable(self.is_marked);
                // An earlier copy tells nothing any more.
                self.copy = None;
            }
            83..87 => {
                let (which, up) = (self.dice.below(2), self.dice.happens(0.6));
                self.facts.step(&format!("server {which} is up: {up}"));
                self.stage.set_server(which, up, &self.facts);
            }
            87..90 => {
                self.facts.step("the worker dies");
                self.life().conductor.kill_worker();
            }
            90..91 => {
                let back = Duration::from_secs(self.dice.below(7_200) as u64);
                self.facts.step(&format!("the clock goes back by {back:?}"));
                *self.stage.wall.lock().unwrap() -= back;
            }
            91..93 => {
                if self.is_marked {
                    self.facts.step("the disk is copied");
                    self.copy = Some(self.stage.disk.bytes());
                }
            }
            93..96 => self.stop().await,
            96..99 => self.crash().await,
            _ => self.lose_store().await,
        }
    }

    /// Lets time pass, and what is to be done meanwhile.
    async fn pass(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while self.due <= until {
            let wait = self.due.saturating_duration_since(Instant::now());
            sleep(wait).await;
            self.due += HALF;
            self.half();
        }
        sleep(until.saturating_duration_since(Instant::now())).await;
    }

    fn half(&mut self) {
        self.halves += 1;
        *self.stage.wall.lock().unwrap() += HALF;
        let Some(life) = &mut self.life else { return };
        life.tick(&self.stage);
        if self.halves.is_multiple_of(2) {
            life.tend();
        }
    }

    pub(super) fn life(&mut self) -> &mut Life {
        self.life.as_mut().unwrap()
    }

    fn issue(&mut self) {
        let workspace = ["acme", "acme", "other"][self.dice.below(3)];
        let number = self.facts.lock().tokens.len();
        let subject = format!("user:{}", number % 4);
        let endpoints: Vec<Pattern> = match self.dice.below(4) {
            0 => vec!["ext".parse().unwrap()],
            _ => Vec::new(),
        };
        let spec = TokenSpec {
            workspace: Workspace::new(workspace).unwrap(),
            subject: Some(subject.clone()),
            role: Role::User,
            projects: Vec::new(),
            endpoints,
            label: None,
            ttl: Duration::from_hours(10 * 24),
            metadata: None,
            may_load: false,
            limits: TokenLimits {
                conc: self.dice.happens(0.3).then_some(2),
                ..TokenLimits::default()
            },
        };
        let cut_until = self.cut_until;
        let life = self.life();
        let now = life.revocations.clock().now();
        if now.as_secs() < cut_until {
            return;
        }
        let (text, record) = life.issuer.issue(spec, now).unwrap();
        let kept = life.store.put_token(&record);
        self.facts.step(&format!(
            "token {number} for {subject} of {workspace}: {}",
            kept.is_ok()
        ));
        if kept.is_ok() {
            self.facts.lock().tokens.push(Token {
                id: record.jti.as_str().into(),
                text: text.into(),
                workspace,
                subject,
                stands: Stands::Good,
            });
        }
    }

    /// Some token, refused ones too.
    pub(super) fn any_token(&mut self) -> Option<usize> {
        let count = self.facts.lock().tokens.len();
        (count > 0).then(|| self.dice.below(count))
    }

    /// Revokes a token as the admin API does it.
    fn revoke(&mut self) {
        let Some(which) = self.any_token() else {
            return;
        };
        let id = self.facts.lock().tokens[which].id.clone();
        let life = self.life();
        let refused = life.store.revoke_token(&id, life.verifier.now());
        let Ok(refused) = refused else {
            self.facts
                .step(&format!("token {which} could not be revoked"));
            return;
        };
        life.revocations.add(&id);
        let mut known = self.facts.lock();
        known.step(&format!("token {which} is revoked, kept: {}", refused.kept));
        let kept = refused.kept || known.tokens[which].stands == Stands::Refused { kept: true };
        known.tokens[which].stands = Stands::Refused { kept };
    }

    fn cut_off(&mut self) {
        let Some(which) = self.any_token() else {
            return;
        };
        let token = self.facts.lock().tokens[which].clone();
        let workspace = Workspace::new(token.workspace).unwrap();
        let subject = self.dice.happens(0.7).then_some(token.subject);
        let life = self.life();
        let now = life.verifier.now();
        let refused = life.store.cut_off(&workspace, subject.as_deref(), now);
        let Ok(refused) = refused else {
            self.facts.step("no cut-off could be made");
            return;
        };
        let revocations = &life.revocations;
        match &subject {
            Some(subject) => revocations.cut_off_subject(&workspace, subject, refused.moment),
            None => revocations.cut_off_workspace(&workspace, refused.moment),
        }
        let mut known = self.facts.lock();
        known.step(&format!(
            "{} {subject:?} is cut off, kept: {}",
            token.workspace, refused.kept
        ));
        for other in &mut known.tokens {
            let of_subject = subject.as_ref().is_none_or(|s| *s == other.subject);
            if other.workspace == token.workspace && of_subject {
                let kept = refused.kept || other.stands == Stands::Refused { kept: true };
                other.stands = Stands::Refused { kept };
            }
        }
        drop(known);
        // Tokens of this second are refused too, also those that come.
        self.cut_until = refused.moment;
    }

    fn fail_disk(&mut self) {
        let fault = [Fault::Error, Fault::Half][self.dice.below(2)];
        match self.dice.below(5) {
            0 => {
                self.facts.step("the disk is full");
                self.stage.disk.set_full(true);
            }
            1 => {
                self.facts.step(&format!("the disk fails: {fault:?}"));
                self.stage.disk.set_broken(Some(fault));
            }
            _ => {
                let after = self.dice.below(30);
                self.facts
                    .step(&format!("the disk fails once, after {after}: {fault:?}"));
                self.stage
                    .disk
                    .fail_after(u32::try_from(after).unwrap(), fault);
            }
        }
    }

    /// The gateway ends in order, and another one starts.
    async fn stop(&mut self) {
        self.facts.step("the gateway is stopped");
        let mut halves = 0;
        while !self.life().ends(halves) {
            self.pass(HALF).await;
            self.life().check();
            halves += 1;
        }
        let used = self.replace(|life| Some(life.stop())).await;
        self.start(used).await;
    }

    /// The gateway is killed, or the machine loses its power.
    async fn crash(&mut self) {
        let used = self.die().await;
        self.start(used).await;
    }

    async fn die(&mut self) -> Option<Sums> {
        let power = self.dice.happens(0.5);
        self.facts
            .step(&format!("the gateway is killed, with the power: {power}"));
        let left = if power {
            let dice = &mut self.dice;
            self.stage.disk.after_power_loss(|| dice.happens(0.5))
        } else {
            self.stage.disk.bytes()
        };
        self.stage.disk = Disk::of(left);
        self.replace(Life::kill).await
    }

    /// The store is gone after a crash, or an old copy stands in its place. What is beside
    /// the key tells: where that could not be written either, no one can know.
    async fn lose_store(&mut self) {
        if !self.is_marked {
            return;
        }
        self.die().await;
        let copy = self.copy.take();
        let is_copy = copy.is_some();
        let what = if is_copy { "an old copy" } else { "nothing" };
        self.facts
            .step(&format!("{what} stands where the store was"));
        self.stage.disk = copy.map_or_else(Disk::new, Disk::of);
        for token in &mut self.facts.lock().tokens {
            token.stands = match token.stands {
                // It is refused where the copy lacks a refusal, of whomever.
                stands if is_copy && stands == Stands::Good => Stands::Unsure,
                stands if is_copy => stands,
                _ => Stands::Refused { kept: true },
            };
        }
        self.start(None).await;
    }

    /// Ends the process, and lets what it was doing notice.
    async fn replace(&mut self, end: impl FnOnce(Life) -> Option<Sums>) -> Option<Sums> {
        let used = self.life.take().and_then(end);
        sleep(Duration::from_millis(1)).await;
        used
    }

    /// Starts a gateway; again once the disk works, where it does not.
    async fn start(&mut self, used: Option<Sums>) {
        for tries in 0.. {
            if tries == 2 {
                self.facts.step("the disk works");
                self.stage.disk.heal();
            }
            match Life::start(&self.stage, &self.facts, used.as_ref()) {
                Ok(life) => {
                    self.facts.step("a gateway has started");
                    self.life = Some(life);
                    return;
                }
                Err(error) if tries < 4 => {
                    let error = self.stage.without_paths(&error.to_string());
                    self.facts.step(&format!("no gateway could start: {error}"));
                    self.pass(HALF).await;
                }
                Err(error) => panic!("no gateway could start: {error:?}"),
            }
        }
    }

    /// All is well from now on; then everything comes to rest, and works.
    async fn rest(&mut self) {
        self.facts.step("all is well from now on");
        self.stage.disk.heal();
        self.stage.set_mark_writable(true);
        self.is_marked = true;
        for which in 0..2 {
            self.stage.set_server(which, true, &self.facts);
        }
        self.pass(Duration::from_secs(35)).await;
        let (fault, held) = (self.life().store.fault(), self.life().store.held());
        if fault.is_some() || held > 0 {
            let what = format!("the store does not work again: {fault:?}, {held} held");
            self.facts.wrong(self.stage.without_paths(&what));
        }
        self.pass(BOUND).await;
        self.life().check();
        for held in self.life().gateway.held_while_idle() {
            self.facts.wrong(format!("at rest there are {held}"));
        }
        self.issue();
        let number = self.facts.lock().asks.len();
        let token = self.facts.lock().tokens.len() - 1;
        let text = self.facts.lock().tokens[token].text.clone();
        let call = self.send(number, "ext", Some(token), Some(&text));
        let stream = self.life().connect();
        clients::run(stream, vec![(call, 0)], self.facts.clone()).await;
        self.life().check();
        self.life().read_log();
        let asks = self.facts.lock().asks.clone();
        if asks[number].answer != Some(200) {
            let answer = asks[number].answer;
            self.facts
                .wrong(format!("a good request at rest got {answer:?}"));
        }
        for (number, ask) in asks.iter().enumerate() {
            if ask.answer.is_some() && ask.lines == 0 && !ask.lost {
                self.facts
                    .wrong(format!("request {number} was answered, and no line tells"));
            }
        }
        self.stop().await;
    }
}
