//! `tidegate simulate`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::common::Failure;
use super::out;
use crate::config::Prefer;
use crate::lifecycle::decide::policy::Params;
use crate::simulation::csv::{self, CsvError, FORMAT};
use crate::simulation::spec::{self, GRAMMAR};
use crate::simulation::trace::PlayedMachine;
use crate::simulation::{PlayedOutcome, Scheme, Workload, best_offline, default_params, run};
use crate::units::{Bytes, Span, counted};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Our own scheme, where lists are asked for who is awake first.
const AWAKE: &str = "tidegate, awake";
/// Most GPUs for the requests of a file.
const GPUS_MAX: u64 = 20_000;

#[derive(Debug, Args)]
#[command(after_long_help = after_help())]
pub(super) struct Simulate {
    /// A CSV file of arrivals
    #[arg(
        value_name = "FILE.csv",
        required_unless_present = "synthetic",
        conflicts_with = "synthetic"
    )]
    file: Option<PathBuf>,
    /// Make the requests up: see the grammar below
    #[arg(long, value_name = "SPEC")]
    synthetic: Option<String>,
    /// Of the made-up requests: the same seed makes the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// GPUs, for a file
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u64).range(1..=GPUS_MAX), conflicts_with = "synthetic")]
    gpus: u64,
    /// Memory of each GPU, for a file
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "80GiB",
        conflicts_with = "synthetic"
    )]
    gpu_memory: Bytes,
    /// Host memory for sleepers, for a file [default: 128GiB for each GPU]
    #[arg(long, value_name = "SIZE", conflicts_with = "synthetic")]
    host_memory: Option<Bytes>,
    /// placement.quantum: length of a busy window, in switch costs
    #[arg(long, value_name = "N")]
    quantum: Option<f64>,
    /// placement.patience: wait before a busy window is cut, in switch costs
    #[arg(long, value_name = "N")]
    patience: Option<f64>,
    #[arg(help = "placement.wait_bound: whoever waits longer goes first")]
    #[arg(long, value_name = "TIME")]
    wait_bound: Option<Span>,
    #[arg(help = "placement.switch_share_max: largest share of time spent switching")]
    #[arg(long, value_name = "SHARE")]
    switch_share_max: Option<f64>,
    /// placement.prefetch: wake who a client is expected to ask next
    #[arg(long)]
    prefetch: bool,
    /// A list, as [[target]] makes one: requests for the first deployment are also run with
    /// prefer = "awake", where one of the others that serves already takes them. Repeatable
    #[arg(long, value_name = "A,B")]
    targets: Vec<String>,
    /// Leave out the one who knows the future: it takes many runs
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn after_help() -> String {
    format!(
        "Synthetic requests (SPEC):\n{GRAMMAR}\n\nArrivals from a file:\n{FORMAT}\n\n\
         Every scheme runs the same requests on the same GPUs, with the same sleep levels but\n\
         for those called cold, which end a worker and start it anew. The best offline one\n\
         knows every request to come; it is the best of some tries, and no bound."
    )
}

/// Something in the file is wrong.
#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error("could not read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{0} is larger than {limit}", limit = Bytes(FILE_BYTES_MAX))]
    Large(PathBuf),
    #[error("{0}: {1}")]
    Csv(PathBuf, CsvError),
}

/// A parameter that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("--{name}: write a number from {least} to {most}, not {given}")]
struct OutOfRange {
    name: &'static str,
    least: f64,
    most: f64,
    given: f64,
}

/// A list that the trace does not have.
#[derive(Debug, thiserror::Error)]
#[error("--targets {list}: {why}")]
struct BadList {
    list: String,
    why: String,
}

/// Requests that would wait for ever.
#[derive(Debug, thiserror::Error)]
#[error(
    "{requests} of the trace would wait for ever: nothing moves any more for {names}. \
     They may be held back by what is kept, or this is a fault of ours"
)]
struct Stuck {
    requests: String,
    names: String,
}

impl Stuck {
    fn of(outcome: &PlayedOutcome) -> Self {
        Self {
            requests: counted(outcome.stuck, "request"),
            names: outcome.stuck_for.join(", "),
        }
    }
}

#[derive(Serialize)]
struct Row {
    scheme: String,
    #[serde(flatten)]
    outcome: PlayedOutcome,
    /// Our total wait, divided by that of this scheme.
    tidegate_over_this: Option<f64>,
}

#[derive(Serialize)]
struct Report<'a> {
    trace: &'a str,
    seed: u64,
    gpus: usize,
    deployments: usize,
    requests: usize,
    rows: Vec<Row>,
}

impl Simulate {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let params = self.params()?;
        let mut trace = self.trace()?;
        trace.lists = self.lists(&trace)?;
        let mut rows: Vec<(String, PlayedOutcome)> = Vec::new();
        for scheme in Scheme::ALL {
            rows.push((scheme.name().to_owned(), run(&trace, scheme, params)));
        }
        if !trace.lists.is_empty() {
            trace.prefer = Prefer::Awake;
            rows.push((AWAKE.to_owned(), run(&trace, Scheme::Ours, params)));
            trace.prefer = Prefer::Order;
        }
        if !self.quick {
            let best = best_offline(&trace, params);
            rows.push(("best offline (heuristic)".to_owned(), best));
        }
        let ours = rows.first().map_or(0.0, |(_, outcome)| outcome.total_wait);
        let ours_refused = rows.first().map_or(0, |(_, outcome)| outcome.refused);
        let rows = rows.into_iter().map(|(scheme, outcome)| Row {
            // A scheme that refuses requests does not make them wait: no comparison.
            tidegate_over_this: (outcome.refused == ours_refused
                && outcome.stuck == 0
                && outcome.total_wait > 0.0)
                .then(|| ours / outcome.total_wait),
            scheme,
            outcome,
        });
        let report = Report {
            trace: &trace.name,
            seed: self.seed,
            gpus: trace.gpus,
            deployments: trace.fleet.len(),
            requests: trace.arrivals.len(),
            rows: rows.collect(),
        };
        if self.json {
            out::json(&report)?;
        } else {
            show(&report)?;
        }
        match report.rows.first().map(|row| &row.outcome) {
            Some(ours) if ours.stuck > 0 => Err(Stuck::of(ours).into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn trace(&self) -> Result<Workload, Failure> {
        let Some(path) = &self.file else {
            let spec = self.synthetic.as_deref().unwrap_or_default();
            return Ok(spec::trace(spec, self.seed)?);
        };
        let unread = |error| FileFault::Read(path.clone(), error);
        if std::fs::metadata(path).map_err(unread)?.len() > FILE_BYTES_MAX {
            return Err(FileFault::Large(path.clone()).into());
        }
        let text = std::fs::read_to_string(path).map_err(unread)?;
        let gpus = usize::try_from(self.gpus).unwrap_or(usize::MAX);
        let of_gpus = PlayedMachine::of_gpus(gpus);
        let machine = PlayedMachine {
            gpu_memory: self.gpu_memory.0,
            host_memory: self
                .host_memory
                .map_or(of_gpus.host_memory, |bytes| bytes.0),
            ..of_gpus
        };
        let trace = csv::trace(&path.display().to_string(), &text, machine);
        Ok(trace.map_err(|error| FileFault::Csv(path.clone(), error))?)
    }

    /// The lists, by the places of their deployments in the fleet.
    fn lists(&self, trace: &Workload) -> Result<Vec<Vec<usize>>, BadList> {
        let mut lists: Vec<Vec<usize>> = Vec::new();
        for list in &self.targets {
            let bad = |why: String| BadList {
                list: list.clone(),
                why,
            };
            let mut places = Vec::new();
            for name in list.split(',') {
                let mut fleet = trace.fleet.iter();
                let place = fleet.position(|model| model.name == name);
                let unknown = || bad(format!("the trace has no deployment {name:?}"));
                places.push(place.ok_or_else(unknown)?);
            }
            if places.len() < 2 {
                return Err(bad("write two deployments or more, as A,B".to_owned()));
            }
            if lists.iter().any(|other| other.first() == places.first()) {
                let why = "another list begins with the same deployment: write one for both";
                return Err(bad(why.to_owned()));
            }
            lists.push(places);
        }
        Ok(lists)
    }

    fn params(&self) -> Result<Params, OutOfRange> {
        let default = default_params();
        Ok(Params {
            quantum: within("quantum", self.quantum, 1_000.0, default.quantum)?,
            patience: within("patience", self.patience, 1_000.0, default.patience)?,
            switch_share_max: within(
                "switch-share-max",
                self.switch_share_max,
                1.0,
                default.switch_share_max,
            )?,
            prefetch: self.prefetch || default.prefetch,
            wait_bound: self.wait_bound.map_or(default.wait_bound, |bound| bound.0),
            ..default
        })
    }
}

fn within(
    name: &'static str,
    given: Option<f64>,
    most: f64,
    default: f64,
) -> Result<f64, OutOfRange> {
    let given = given.unwrap_or(default);
    if (0.0..=most).contains(&given) {
        return Ok(given);
    }
    Err(OutOfRange {
        name,
        least: 0.0,
        most,
        given,
    })
}

fn show(report: &Report<'_>) -> Result<(), Failure> {
    out::line(format_args!(
        "{}, seed {}: {} requests for {} deployments on {}\n",
        report.trace,
        report.seed,
        report.requests,
        report.deployments,
        counted(report.gpus, "GPU")
    ))?;
    let header = [
        "POLICY",
        "MEAN S",
        "P95",
        "P99",
        "LONGEST",
        "HELD",
        "REFUSED",
        "GPU TIME LOST",
        "TIDEGATE / THIS",
    ];
    let rows: Vec<Vec<String>> = report.rows.iter().map(cells).collect();
    out::table(&header, &rows)?;
    out::line(
        "\nSeconds are waits for a deployment to be awake; the last column divides total waits.",
    )?;
    show_saved(report)?;
    if report
        .rows
        .iter()
        .any(|row| !row.outcome.workspaces.is_empty())
    {
        out::line("\nBy workspace, in the order of the trace:")?;
        let of = |row: &Row| {
            let waits = row.outcome.workspaces.iter();
            let each = waits.map(|w| format!("{:.2} / {:.1} / {:.1}", w.mean, w.p95, w.longest));
            vec![row.scheme.clone(), each.collect::<Vec<_>>().join("   ")]
        };
        let rows: Vec<_> = report.rows.iter().map(of).collect();
        out::table(&["POLICY", "MEAN / P95 / LONGEST S"], &rows)?;
    }
    for row in &report.rows {
        if row.outcome.stuck > 0 {
            let Stuck { requests, names } = Stuck::of(&row.outcome);
            out::line(format_args!(
                "\nWith {}: {requests} never served, as nothing moves any more for {names}.",
                row.scheme
            ))?;
        }
    }
    let beyond = report
        .rows
        .first()
        .map_or(0.0, |row| row.outcome.beyond_bound);
    if beyond > 0.0 {
        return out::line(format_args!(
            "With tidegate one waited {beyond:.1} s longer than the bound allows."
        ));
    }
    out::line(
        "With tidegate none waited longer than the bound: wait_bound, and a drain, a sleep and\na wake for itself and each older one that was overdue before it on its GPUs.",
    )
}

/// What lists save, asked for who is awake first.
fn show_saved(report: &Report<'_>) -> Result<(), Failure> {
    let awake = report.rows.iter().find(|row| row.scheme == AWAKE);
    let (Some(order), Some(awake)) = (report.rows.first(), awake) else {
        return Ok(());
    };
    let (order, awake) = (&order.outcome, &awake.outcome);
    out::line(format_args!(
        "\nWith prefer = \"awake\": {:.0} s of waiting instead of {:.0} s, and {} switches instead of {}.",
        awake.total_wait, order.total_wait, awake.switches, order.switches,
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a few million requests")]
fn cells(row: &Row) -> Vec<String> {
    let PlayedOutcome {
        served,
        refused,
        mean,
        p95,
        p99,
        longest,
        held,
        lost,
        ..
    } = &row.outcome;
    let asked = (served + refused).max(1) as f64;
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    vec![
        row.scheme.clone(),
        format!("{mean:.2}"),
        format!("{p95:.1}"),
        format!("{p99:.1}"),
        format!("{longest:.1}"),
        percent(*held),
        percent(*refused as f64 / asked),
        percent(*lost),
        row.tidegate_over_this
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
    ]
}
