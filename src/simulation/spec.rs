//! The grammar of synthetic traces, and what they are made of.
//!
//! Owns [`GRAMMAR`], the text of the help. The traces are those of the study.

use std::f64::consts::PI;
use std::fmt;

use super::trace::{ARRIVALS_MAX, Model, Workload, bytes};
use crate::lifecycle::decide::policy::Seconds;
use crate::lifecycle::decide::policy::costs::Costs;
use crate::random::Dice;

/// Forms of a SPEC.
pub const GRAMMAR: &str = "\
  zipf:D:G:RATE:ALPHA            D deployments on G GPUs, RATE requests/s over all,
                                 popularity by Zipf's law with ALPHA; 2 h
  bursty:D:G:ON:OFF:GAP          each by itself: bursts of ON s, pauses of OFF s,
                                 GAP s between requests; 4 h
  daily:D:G:PEAK                 at most PEAK requests/s, three time zones; 24 h
  heavy:SMALL:RATE_H:RATE_S      one of 140 GiB on four GPUs, and SMALL small ones; 2 h
  agents:D:G:CHAINS              CHAINS/s of 12 steps between two deployments; 2 h
  flood:D:G:RATE:FLOOD           two workspaces with D deployments each on the same G GPUs:
                                 one asks RATE requests/s, the other FLOOD requests/s
                                 in the second and third half hour; 2 h
  rivals:SA:WA:SB:WB:RA:RB       two of 72 GiB on one GPU: seconds of sleep and wake,
                                 requests/s of each; 2 h. CPU/DISK gives a cost of each
                                 level, as 35.9/0.3";

const HOUR: Seconds = 3_600.0;
/// Largest fleet and number of GPUs.
const COUNT_MAX: usize = 20_000;

/// Error of a SPEC, and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    text: String,
    /// Characters before the field that is wrong.
    at: usize,
    why: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, at, why } = self;
        write!(
            f,
            "column {}: {why}\n  {text}\n  {:>width$}",
            at + 1,
            "^",
            width = at + 1
        )
    }
}

/// The fields of a SPEC, as they are read.
struct Fields<'a> {
    text: &'a str,
    rest: std::iter::Enumerate<std::str::Split<'a, char>>,
    /// Place where the last field begins.
    at: usize,
    next: usize,
}

impl<'a> Fields<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            rest: text.split(':').enumerate(),
            at: 0,
            next: 0,
        }
    }

    fn wrong<T>(&self, why: impl Into<String>) -> Result<T, SpecError> {
        Err(SpecError {
            text: self.text.to_owned(),
            at: self.at,
            why: why.into(),
        })
    }

    fn field(&mut self, what: &str) -> Result<&'a str, SpecError> {
        if let Some((_, field)) = self.rest.next() {
            self.at = self.next;
            self.next += field.chars().count() + 1;
            Ok(field)
        } else {
            self.at = self.text.chars().count();
            self.wrong(format!("{what} is missing"))
        }
    }

    fn count(&mut self, what: &str) -> Result<usize, SpecError> {
        let field = self.field(what)?;
        match field.parse() {
            Ok(count @ 1..=COUNT_MAX) => Ok(count),
            _ => self.wrong(format!(
                "{what}: write a whole number from 1 to {COUNT_MAX}, not {field:?}"
            )),
        }
    }

    fn positive(&mut self, what: &str) -> Result<f64, SpecError> {
        let field = self.field(what)?;
        self.number(what, field)
    }

    fn number(&self, what: &str, field: &str) -> Result<f64, SpecError> {
        match field.parse() {
            Ok(number) if (1e-9..1e9).contains(&number) => Ok(number),
            _ => self.wrong(format!("{what}: write a number above 0, not {field:?}")),
        }
    }

    /// A cost, or those of both levels.
    fn levels(&mut self, what: &str) -> Result<(f64, f64), SpecError> {
        let field = self.field(what)?;
        let (cpu, disk) = field.split_once('/').unwrap_or((field, field));
        Ok((self.number(what, cpu)?, self.number(what, disk)?))
    }

    fn end(&mut self) -> Result<(), SpecError> {
        if self.rest.next().is_none() {
            return Ok(());
        }
        self.at = self.next;
        self.wrong("there is more here than this trace takes")
    }
}

/// Makes the trace that a SPEC describes.
///
/// # Errors
///
/// [`SpecError`] that says where the text is wrong.
pub fn trace(text: &str, seed: u64) -> Result<Workload, SpecError> {
    let mut fields = Fields::of(text);
    // The kind takes part, so that traces of one seed have little in common.
    let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let kind = fields.field("the kind of trace")?;
    let mut trace = match kind {
        "zipf" => zipf(&mut fields, &mut dice)?,
        "bursty" => bursty(&mut fields, &mut dice)?,
        "daily" => daily(&mut fields, &mut dice)?,
        "heavy" => heavy(&mut fields, &mut dice)?,
        "agents" => agents(&mut fields, &mut dice)?,
        "flood" => flood(&mut fields, &mut dice)?,
        "rivals" => rivals(&mut fields, &mut dice)?,
        other => {
            return fields.wrong(format!(
                "{other:?} is no kind of trace: write zipf, bursty, daily, heavy, agents, flood or rivals"
            ));
        }
    };
    fields.end()?;
    text.clone_into(&mut trace.name);
    trace.sort();
    Ok(trace)
}

fn within(fields: &Fields<'_>, expected: f64) -> Result<(), SpecError> {
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    if expected > ARRIVALS_MAX as f64 {
        return fields.wrong(format!(
            "this makes about {expected:.0} requests, and {ARRIVALS_MAX} is the most"
        ));
    }
    Ok(())
}

/// A fleet whose popularity follows Zipf's law, in any order of sizes.
fn popular_fleet(count: usize, gpus: usize, alpha: f64, dice: &mut Dice) -> Vec<Model> {
    let mut ranks: Vec<usize> = (1..=count).collect();
    dice.shuffle(&mut ranks);
    let mut fleet: Vec<Model> = (0..count)
        .map(|number| Model::any(number, gpus < 4, dice))
        .collect();
    for (model, rank) in fleet.iter_mut().zip(ranks) {
        #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
        let rank = rank as f64;
        model.popularity = rank.powf(-alpha);
    }
    fleet
}

fn sums(fleet: &[Model]) -> Vec<f64> {
    let mut sum = 0.0;
    let add = |model: &Model| {
        sum += model.popularity;
        sum
    };
    fleet.iter().map(add).collect()
}

/// Poisson arrivals at this rate over the horizon; each is for one of the fleet
/// if `takes` says so.
fn poisson(
    trace: &mut Workload,
    rate: f64,
    dice: &mut Dice,
    takes: impl Fn(usize, Seconds, &mut Dice) -> bool,
) {
    let sums = sums(&trace.fleet);
    let mut now = dice.exponential(1.0 / rate);
    while now < trace.horizon {
        let model = dice.weighted(&sums);
        if takes(model, now, dice) {
            let work = trace.fleet.get(model).map_or(1.0, |m| m.work(dice));
            trace.push(now, model, work, None);
        }
        now += dice.exponential(1.0 / rate);
    }
}

fn zipf(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    let (count, gpus) = (fields.count("D")?, fields.count("G")?);
    let rate = fields.positive("RATE")?;
    within(fields, rate * 2.0 * HOUR)?;
    let alpha = fields.positive("ALPHA")?;
    let fleet = popular_fleet(count, gpus, alpha, dice);
    let mut trace = Workload::new("zipf", gpus, fleet, 2.0 * HOUR);
    poisson(&mut trace, rate, dice, |_, _, _| true);
    Ok(trace)
}

fn daily(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    let (count, gpus) = (fields.count("D")?, fields.count("G")?);
    let peak = fields.positive("PEAK")?;
    within(fields, peak * 24.0 * HOUR)?;
    let fleet = popular_fleet(count, gpus, 0.9, dice);
    let zones: Vec<f64> = (0..count)
        .map(|_| {
            [0.0, 8.0, 16.0]
                .get(dice.below(3))
                .copied()
                .unwrap_or_default()
                * HOUR
        })
        .collect();
    let mut trace = Workload::new("daily", gpus, fleet, 24.0 * HOUR);
    poisson(&mut trace, peak, dice, |model, now, dice| {
        let zone = zones.get(model).copied().unwrap_or_default();
        let wave = (PI * (now - zone) / (24.0 * HOUR)).cos();
        dice.happens(wave * wave)
    });
    Ok(trace)
}

fn bursty(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    let (count, gpus) = (fields.count("D")?, fields.count("G")?);
    let (on, off) = (fields.positive("ON")?, fields.positive("OFF")?);
    let gap = fields.positive("GAP")?;
    let horizon = 4.0 * HOUR;
    #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
    within(fields, horizon * count as f64 * on / (on + off) / gap)?;
    let fleet = popular_fleet(count, gpus, 1e-9, dice);
    let mut trace = Workload::new("bursty", gpus, fleet, horizon);
    for number in 0..count {
        let mut now = 0.0;
        let mut burst = dice.happens(on / (on + off));
        while now < horizon {
            let end = now + dice.exponential(if burst { on } else { off });
            while burst && now < end.min(horizon) {
                let work = trace.fleet.get(number).map_or(1.0, |m| m.work(dice));
                trace.push(now, number, work, None);
                now += dice.exponential(gap);
            }
            (now, burst) = (end, !burst);
        }
    }
    Ok(trace)
}

fn heavy(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    let small = fields.count("SMALL")?;
    let (rate_heavy, rate_small) = (fields.positive("RATE_H")?, fields.positive("RATE_S")?);
    within(fields, (rate_heavy + rate_small) * 2.0 * HOUR)?;
    let mut fleet = popular_fleet(small, 1, 1.0, dice);
    let total: f64 = fleet.iter().map(|model| model.popularity).sum();
    let mut large = Model::of_class(small, 4);
    large.awake = bytes(66.0);
    large.popularity = total * rate_heavy / rate_small;
    fleet.push(large);
    let mut trace = Workload::new("heavy", 4, fleet, 2.0 * HOUR);
    poisson(&mut trace, rate_heavy + rate_small, dice, |_, _, _| true);
    Ok(trace)
}

fn agents(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    const STEPS: usize = 12;
    const WORK_MAX: Seconds = 20.0;
    let (count, gpus) = (fields.count("D")?, fields.count("G")?);
    let chains = fields.positive("CHAINS")?;
    let horizon = 2.0 * HOUR;
    within(fields, chains * horizon * 12.0)?;
    let fleet = popular_fleet(count, gpus, 1e-9, dice);
    let mut trace = Workload::new("agents", gpus, fleet, horizon);
    let mut begins = dice.exponential(1.0 / chains);
    let mut key = 0;
    while begins < horizon {
        let first = dice.below(count);
        let second = (first + 1 + dice.below(count.saturating_sub(1))) % count.max(1);
        let mut now = begins;
        for step in 0..STEPS {
            let model = if step % 2 == 0 { first } else { second };
            let work = trace.fleet.get(model).map_or(1.0, |m| m.work(dice));
            let work = work.min(WORK_MAX);
            trace.push(now, model, work, Some(key));
            now += work + 0.2 + dice.exponential(2.0);
        }
        key += 1;
        begins += dice.exponential(1.0 / chains);
    }
    Ok(trace)
}

fn flood(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    let (count, gpus) = (fields.count("D")?, fields.count("G")?);
    let (rate, flood) = (fields.positive("RATE")?, fields.positive("FLOOD")?);
    within(fields, (rate * 2.0 + flood) * HOUR)?;
    let mut fleet = popular_fleet(count, gpus, 1.0, dice);
    fleet.extend(popular_fleet(count, gpus, 1.0, dice));
    let mut trace = Workload::new("flood", gpus, fleet, 2.0 * HOUR);
    for (number, model) in trace.fleet.iter_mut().enumerate() {
        model.workspace = u32::from(number >= count);
        model.name = format!("{}-{number}", if number < count { "calm" } else { "flood" });
    }
    // Each draws among all; what is not its own is passed over.
    let flooding = 0.5 * HOUR..1.5 * HOUR;
    poisson(&mut trace, rate * 2.0, dice, |model, _, _| model < count);
    poisson(&mut trace, flood * 2.0, dice, |model, now, _| {
        model >= count && flooding.contains(&now)
    });
    Ok(trace)
}

fn rivals(fields: &mut Fields<'_>, dice: &mut Dice) -> Result<Workload, SpecError> {
    let mut fleet = Vec::new();
    for name in ["A", "B"] {
        let sleep = fields.levels(&format!("S{name}"))?;
        let wake = fields.levels(&format!("W{name}"))?;
        let mut model = Model::of_class(fleet.len(), 3);
        name.clone_into(&mut model.name);
        (model.gpus, model.awake, model.asleep) = (1, bytes(72.0), bytes(1.2));
        model.weights = bytes((72.0 - 3.0) / 1.25);
        model.costs = Costs {
            sleep_cpu: sleep.0,
            wake_cpu: wake.0,
            sleep_disk: sleep.1,
            wake_disk: wake.1,
            ..Costs::expected(model.weights, 1)
        };
        fleet.push(model);
    }
    let rates = [fields.positive("RA")?, fields.positive("RB")?];
    within(fields, (rates[0] + rates[1]) * 2.0 * HOUR)?;
    for (model, rate) in fleet.iter_mut().zip(rates) {
        model.popularity = rate;
    }
    let mut trace = Workload::new("rivals", 1, fleet, 2.0 * HOUR);
    poisson(&mut trace, rates[0] + rates[1], dice, |_, _, _| true);
    Ok(trace)
}
