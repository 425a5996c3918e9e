//! The one command: every contestant under every scenario, in turns.
//!
//! Owns the order of things: the mock, the contestants of a scenario, a warm-up each, then
//! rounds in which each contestant gets the same load once (A, B, C, then B, C, A), so that
//! what changes on the machine changes for all. CPU time is read right before and after a
//! load, when its connections already stand. Does not judge figures: see
//! [`crate::report`]. Wrong answers make the command fail at the end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::driver::{Load, finish, shape};
use crate::error::{BenchError, During, chain};
use crate::floor::Upstream;
use crate::histogram::to_f64;
use crate::jwt::Rs256;
use crate::load::LoadReport;
use crate::peers::{self, Contestant, Site};
use crate::process::{self, Running};
use crate::report::{Report, Row, Sample};
use crate::scenario::{Amount, Figure, SCENARIOS, Scenario};
use crate::tls::Certificate;
use crate::{cold, growth, machine, measure};

/// Runs scenarios against Tidegate, the floor, nginx and HAProxy, and prints ratios
#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of a command line, independent of each other"
)]
pub(crate) struct RunArgs {
    /// Scenarios to run; all if none is given
    #[arg(value_parser = scenario)]
    scenarios: Vec<&'static Scenario>,
    /// Contestants; all that are there if none is given
    #[arg(long = "contestant", value_enum)]
    contestants: Vec<Contestant>,
    /// Tidegate's binary; by default the one beside this program
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Rounds of each scenario
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a load, where a scenario does not fix its number of requests
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Reach the mock over its Unix socket instead of TCP
    #[arg(long)]
    unix: bool,
    /// Let the scheduler choose CPUs
    #[arg(long)]
    no_pin: bool,
    /// Install nginx and HAProxy with apt-get first
    #[arg(long)]
    install: bool,
    /// Write all samples to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep the run's directory: configurations, logs, certificates
    #[arg(long)]
    keep: bool,
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    let known = SCENARIOS.iter().find(|scenario| scenario.name == name);
    known.ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("no scenario of that name; there are {}", names.join(", "))
    })
}

/// Runs what was asked for and prints it.
pub(crate) fn run(args: &RunArgs) -> Result<(), BenchError> {
    if args.install {
        machine::install()?;
    }
    let dir = tempfile::Builder::new()
        .prefix("tidegate-bench-")
        .disable_cleanup(args.keep)
        .tempdir()
        .during(|| "make a temporary directory".to_owned())?;
    let mut run = Run::new(args, dir.path().to_owned())?;
    let chosen: Vec<&Scenario> = if args.scenarios.is_empty() {
        SCENARIOS.iter().collect()
    } else {
        args.scenarios.clone()
    };
    let mut failed = Vec::new();
    for scenario in chosen {
        say(&format!("{}: {}", scenario.name, scenario.shows))?;
        match run.scenario(scenario) {
            Ok(rows) => {
                run.report.add(scenario, rows);
                say(&run.report.last_table())?;
            }
            // The others may still tell something; the command fails at the end.
            Err(error) => {
                say(&format!("failed: {}\n", chain(&error)))?;
                failed.push(scenario.name);
            }
        }
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&run.report)?;
        std::fs::write(path, json).during(|| format!("write {}", path.display()))?;
    }
    if !failed.is_empty() {
        let names = failed.join(", ");
        return Err(BenchError::said(format!("not all could be run: {names}")));
    }
    let failures = run.report.failures();
    if failures > 0 {
        return Err(BenchError::said(format!(
            "{failures} answers were wrong or missing; the tables above say whose"
        )));
    }
    Ok(())
}

/// A run under way.
struct Run<'a> {
    args: &'a RunArgs,
    site: Site,
    contestants: Vec<Contestant>,
    load_cpus: String,
    /// The mock's own address, for figures without a proxy.
    mock: Running,
    report: Report,
}

impl<'a> Run<'a> {
    fn new(args: &'a RunArgs, dir: PathBuf) -> Result<Self, BenchError> {
        let descriptors = machine::raise_descriptors()?;
        let (contestant_cpus, mock_cpus, load_cpus) = machine::cpus(args.no_pin)?;
        let socket = dir.join("mock.sock");
        let mut command = process::pinned(&mock_cpus, process::own_binary()?);
        command.arg("mock").arg("--unix").arg(&socket);
        let mock = process::start_own(command)?;
        let tidegate = match &args.tidegate {
            Some(path) => path.clone(),
            None => process::own_binary()?.with_file_name("tidegate"),
        };
        // It is started in another directory.
        let tidegate = std::path::absolute(&tidegate).during(|| "find tidegate".to_owned())?;
        let mut site = Site {
            certificate: Certificate::make(&dir)?,
            rs256: Rs256::make(&dir)?,
            dir,
            token: peers::made_up_token(),
            upstream: if args.unix {
                Upstream::Unix(socket)
            } else {
                Upstream::Tcp(mock.address)
            },
            cpus: contestant_cpus,
            descriptors,
            tidegate,
        };
        let contestants = present(args, &site)?;
        if contestants.contains(&Contestant::Tidegate) {
            site.token = site.tidegate_token()?;
        }
        let report = Report::new(
            &site.cpus,
            &mock_cpus,
            &load_cpus,
            site.upstream.to_string(),
        );
        Ok(Self {
            args,
            site,
            contestants,
            load_cpus,
            mock,
            report,
        })
    }

    fn scenario(&self, scenario: &Scenario) -> Result<Vec<Row>, BenchError> {
        match scenario.figure {
            Figure::ColdStart => return self.cold(scenario),
            Figure::Growth => return self.growth(scenario),
            _ => {}
        }
        if scenario.descriptors() > self.site.descriptors {
            say(&format!(
                "skipped: needs {} open files, and the limit is {}; raise it with ulimit -Hn",
                scenario.descriptors(),
                self.site.descriptors
            ))?;
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        let mut running = Vec::new();
        for &contestant in &self.contestants {
            let process = self.site.start(contestant)?;
            self.warm_up(scenario, contestant, &process)?;
            let baseline = measure::memory_kib(process.pid())?;
            rows.push(Row::new(contestant.name()));
            running.push((contestant, process, baseline));
        }
        let direct = scenario.figure == Figure::Latency;
        for round in 0..self.args.rounds as usize {
            let direct = direct.then(|| self.direct(scenario)).transpose()?;
            for turn in 0..running.len() {
                let at = (turn + round) % running.len();
                let (Some(row), Some(one)) = (rows.get_mut(at), running.get(at)) else {
                    continue;
                };
                let (contestant, process, baseline) = one;
                let mut sample = self.sample(scenario, *contestant, process, *baseline)?;
                sample.compare(direct.as_ref());
                row.push(sample);
            }
        }
        Ok(rows)
    }

    /// More routes, tokens and time; of Tidegate only.
    fn growth(&self, scenario: &Scenario) -> Result<Vec<Row>, BenchError> {
        if !self.contestants.contains(&Contestant::Tidegate) {
            say("skipped: it is about Tidegate, and its binary is not there")?;
            return Ok(Vec::new());
        }
        growth::measure(
            &self.site,
            self.args.rounds,
            &Growing {
                run: self,
                scenario,
            },
        )
    }

    /// First requests to a worker that is not running; of Tidegate only.
    fn cold(&self, scenario: &Scenario) -> Result<Vec<Row>, BenchError> {
        if !self.contestants.contains(&Contestant::Tidegate) {
            say("skipped: only Tidegate starts workers, and its binary is not there")?;
            return Ok(Vec::new());
        }
        let process = self.site.start(Contestant::Tidegate)?;
        let request = || {
            let mut command = self.load_command(&format!(
                "https://{}/cold/v1/chat/completions",
                process.address
            ));
            command.args([
                "--model",
                "cold",
                "--any-reply",
                "--requests",
                "1",
                "--seconds-max",
                "20",
            ]);
            self.trust(&mut command, Contestant::Tidegate);
            finish(command.stdout(Stdio::piped()).spawn())
        };
        cold::measure(&self.site, self.args.rounds, scenario, request)
    }

    /// A short load, so that connections, code and buffers are there.
    fn warm_up(
        &self,
        scenario: &Scenario,
        contestant: Contestant,
        process: &Running,
    ) -> Result<(), BenchError> {
        let mut command = self.load_command(&format!("https://{}", process.address));
        self.trust(&mut command, contestant);
        if scenario.slow_streams().is_some() {
            // Memory counts from before the streams: a few plain requests must do.
            command.args(["--seconds", "0.3", "--connections", "2"]);
        } else {
            shape(&mut command, scenario);
            command.args(["--seconds", "0.5"]);
            if let Amount::Requests(requests) = scenario.amount {
                command.arg("--requests").arg((requests / 10).to_string());
            }
        }
        let report = finish(command.stdout(Stdio::piped()).spawn())?;
        if report.requests == 0 {
            return Err(BenchError::said(format!(
                "no request of the warm-up was answered: {}",
                report.failed.join("; ")
            )));
        }
        Ok(())
    }

    /// The same load without a proxy and without TLS.
    fn direct(&self, scenario: &Scenario) -> Result<LoadReport, BenchError> {
        let mut command = self.load_command(&format!("http://{}", self.mock.address));
        shape(&mut command, scenario);
        self.amount(&mut command, scenario);
        finish(command.stdout(Stdio::piped()).spawn())
    }

    /// One load through one contestant.
    fn sample(
        &self,
        scenario: &Scenario,
        contestant: Contestant,
        process: &Running,
        baseline_kib: u64,
    ) -> Result<Sample, BenchError> {
        let mut command = self.load_command(&format!("https://{}", process.address));
        self.trust(&mut command, contestant);
        shape(&mut command, scenario);
        self.amount(&mut command, scenario);
        held(command, scenario, process, baseline_kib)
    }

    fn load_command(&self, url: &str) -> Command {
        let program = process::own_binary().unwrap_or_else(|_| "tidegate-bench".into());
        let mut command = process::pinned(&self.load_cpus, program);
        command.args(["load", "--url", url]);
        command
    }

    fn trust(&self, command: &mut Command, contestant: Contestant) {
        command
            .arg("--ca")
            .arg(&self.site.certificate.ca)
            .arg("--token")
            .arg(self.site.token_of(contestant));
    }

    fn amount(&self, command: &mut Command, scenario: &Scenario) {
        let seconds = match scenario.amount {
            Amount::Seconds => self.args.seconds,
            Amount::Requests(requests) => {
                command.arg("--requests").arg(requests.to_string());
                60.0
            }
            Amount::Rate(rate) => {
                command.arg("--rate").arg(rate.to_string());
                self.args.seconds
            }
            Amount::StreamSeconds(seconds) => {
                let streams = scenario.connections * scenario.streams;
                let ramp = f64::from(seconds) / 2.0;
                command.arg("--ramp").arg(ramp.to_string());
                command.arg("--requests").arg(streams.to_string());
                60.0
            }
        };
        command.arg("--seconds").arg(seconds.to_string());
    }
}

/// A load that is told when to start, so that connecting is not counted.
fn held(
    mut command: Command,
    scenario: &Scenario,
    process: &Running,
    baseline_kib: u64,
) -> Result<Sample, BenchError> {
    command
        .arg("--hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut load = Load::start(command)?;
    let before = measure::cpu_time(process.pid())?;
    load.go()?;
    let mut peak_kib = 0;
    if scenario.slow_streams().is_some() {
        while !load.ended()? {
            peak_kib = peak_kib.max(measure::memory_kib(process.pid())?);
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    let report = load.report()?;
    let cpu = measure::cpu_time(process.pid())?.saturating_sub(before);
    let per_stream = scenario
        .slow_streams()
        .map(|streams| to_f64(peak_kib.saturating_sub(baseline_kib)) / to_f64(streams.max(1)));
    Ok(Sample::new(scenario.figure, cpu, per_stream, &report))
}

/// The loads of the growth scenario.
struct Growing<'a, 'b> {
    run: &'a Run<'b>,
    scenario: &'a Scenario,
}

impl growth::Drive for Growing<'_, '_> {
    fn load(&self, process: &Running, tokens: &Path, longer: bool) -> Result<Sample, BenchError> {
        let run = self.run;
        let mut command = run.load_command(&format!("https://{}", process.address));
        command.arg("--ca").arg(&run.site.certificate.ca);
        command.arg("--tokens").arg(tokens);
        shape(&mut command, self.scenario);
        let times = if longer { 10.0 } else { 1.0 };
        let seconds = run.args.seconds * times;
        command.arg("--seconds").arg(seconds.to_string());
        held(command, self.scenario, process, 0)
    }
}

fn say(text: &str) -> Result<(), BenchError> {
    writeln!(std::io::stdout(), "{text}").during(|| "write to stdout".to_owned())
}

/// The contestants asked for, or those that are installed.
fn present(args: &RunArgs, site: &Site) -> Result<Vec<Contestant>, BenchError> {
    if !args.contestants.is_empty() {
        return Ok(args.contestants.clone());
    }
    let there = |contestant: &Contestant| match contestant {
        Contestant::Floor => true,
        Contestant::Tidegate => site.tidegate.exists(),
        peer => Command::new(peer.program()).arg("-v").output().is_ok(),
    };
    let all = [
        Contestant::Floor,
        Contestant::Tidegate,
        Contestant::Nginx,
        Contestant::Haproxy,
        Contestant::HaproxyJwt,
    ];
    let (present, absent): (Vec<_>, Vec<_>) = all.into_iter().partition(there);
    for contestant in absent {
        let name = contestant.name();
        writeln!(std::io::stdout(), "{name} is not there and takes no part")
            .during(|| "write to stdout".to_owned())?;
    }
    Ok(present)
}
