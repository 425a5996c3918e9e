//! Figures as people and programs read them: medians, spreads, ratios.
//!
//! Owns the samples of a run and their summary. A ratio is the median over rounds of the
//! ratio in each round, which is steadier than a ratio of medians when the machine's speed
//! drifts. Does no I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::load::LoadReport;
use crate::scenario::{Figure, Scenario};

/// Contestants that others are compared with, by name.
const COMPARED_WITH: [&str; 4] = ["floor", "nginx", "haproxy", "haproxy-jwt"];

/// One load through one contestant.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// CPU time of a request or an event, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// Latency beyond the same load's without the contestant, in microseconds.
    pub(crate) added_p50_us: Option<f64>,
    /// The same at the 99th percentile.
    pub(crate) added_p99_us: Option<f64>,
    /// Memory of one stream.
    pub(crate) kib_per_stream: Option<f64>,
    /// Memory of the contestant's process tree, in MiB.
    pub(crate) mib: Option<f64>,
    /// Time from its start to its first answer, in milliseconds.
    pub(crate) start_ms: Option<f64>,
    /// Latency of whole answers.
    pub(crate) p50_us: f64,
    /// The same at the 99th percentile.
    pub(crate) p99_us: f64,
    /// Time from one event to the next at the 99th percentile.
    pub(crate) event_gap_p99_us: Option<f64>,
    /// Requests, or events where those count, in a second.
    pub(crate) per_second: f64,
    /// Requests that were answered rightly.
    pub(crate) requests: u64,
    /// Requests that were not.
    pub(crate) failures: u64,
    /// Reasons, for some of those that were not.
    pub(crate) failed: Vec<String>,
}

impl Sample {
    /// The figures of one load.
    pub(crate) fn new(
        figure: Figure,
        cpu: Duration,
        kib_per_stream: Option<f64>,
        load: &LoadReport,
    ) -> Self {
        let units = match figure {
            Figure::CpuPerEvent => load.events,
            _ => load.requests,
        };
        let units = crate::histogram::to_f64(units);
        let counted = figure != Figure::ColdStart && units > 0.0;
        Self {
            cpu_us: counted.then(|| cpu.as_secs_f64() * 1e6 / units),
            added_p50_us: None,
            added_p99_us: None,
            kib_per_stream,
            mib: None,
            start_ms: None,
            p50_us: load.latency.p50_us,
            p99_us: load.latency.p99_us,
            event_gap_p99_us: (load.inter_event.count > 0).then_some(load.inter_event.p99_us),
            per_second: units / load.seconds.max(1e-9),
            requests: load.requests,
            failures: load.failures,
            failed: load.failed.clone(),
        }
    }

    /// Notes what was added to the latency of `direct`.
    pub(crate) fn compare(&mut self, direct: Option<&LoadReport>) {
        if let Some(direct) = direct {
            self.added_p50_us = Some(self.p50_us - direct.latency.p50_us);
            self.added_p99_us = Some(self.p99_us - direct.latency.p99_us);
        }
    }
}

/// All samples of a contestant in a scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Name of the contestant.
    pub(crate) name: &'static str,
    /// Samples, one each round.
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// None yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            samples: Vec::new(),
        }
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    fn values(&self, column: &Column) -> Vec<Option<f64>> {
        self.samples.iter().map(column.value).collect()
    }

    fn failures(&self) -> u64 {
        self.samples.iter().map(|sample| sample.failures).sum()
    }
}

/// Everything that was measured in a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    contestant_cpus: String,
    mock_cpus: String,
    load_cpus: String,
    upstream: String,
    scenarios: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: &'static str,
    shows: &'static str,
    rows: Vec<Row>,
    summary: Vec<Summary>,
}

/// A figure of a contestant.
#[derive(Debug, Serialize)]
struct Summary {
    contestant: &'static str,
    figure: &'static str,
    median: f64,
    min: f64,
    max: f64,
    /// Ratios by name of the contestant that it is compared with.
    ratios: BTreeMap<&'static str, f64>,
}

/// A column of the table.
struct Column {
    title: &'static str,
    /// True if ratios of it are shown.
    compared: bool,
    value: fn(&Sample) -> Option<f64>,
}

fn columns(figure: Figure) -> Vec<Column> {
    let column = |title, compared, value| Column {
        title,
        compared,
        value,
    };
    let mut columns = match figure {
        Figure::CpuPerRequest => vec![column("CPU us/request", true, |s| s.cpu_us)],
        Figure::CpuPerEvent => vec![column("CPU us/event", true, |s| s.cpu_us)],
        Figure::Latency => vec![
            column("added p50 us", true, |s| s.added_p50_us),
            column("added p99 us", true, |s| s.added_p99_us),
            column("CPU us/request", true, |s| s.cpu_us),
        ],
        Figure::Growth => {
            return vec![
                column("CPU us/request", false, |s| s.cpu_us),
                column("MiB", false, |s| s.mib),
                column("start ms", false, |s| s.start_ms),
            ];
        }
        Figure::ColdStart => {
            return vec![
                column("added us", false, |s| s.added_p50_us),
                column("whole us", false, |s| Some(s.p50_us)),
            ];
        }
    };
    columns.extend([
        column("KiB/stream", true, |s| s.kib_per_stream),
        column("gap p99 us", false, |s| s.event_gap_p99_us),
        column("p50 us", false, |s| Some(s.p50_us)),
        column("p99 us", false, |s| Some(s.p99_us)),
        column("per second", false, |s| Some(s.per_second)),
    ]);
    columns
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(contestants: &str, mock: &str, load: &str, upstream: String) -> Self {
        Self {
            contestant_cpus: contestants.to_owned(),
            mock_cpus: mock.to_owned(),
            load_cpus: load.to_owned(),
            upstream,
            scenarios: Vec::new(),
        }
    }

    /// Adds what a scenario gave.
    pub(crate) fn add(&mut self, scenario: &Scenario, rows: Vec<Row>) {
        let summary = summarize(&columns(scenario.figure), &rows);
        self.scenarios.push(Measured {
            name: scenario.name,
            shows: scenario.shows,
            rows,
            summary,
        });
    }

    /// Answers that were wrong or missing, in all scenarios.
    pub(crate) fn failures(&self) -> u64 {
        let rows = self.scenarios.iter().flat_map(|scenario| &scenario.rows);
        rows.map(Row::failures).sum()
    }

    /// The table of the scenario added last.
    pub(crate) fn last_table(&self) -> String {
        let Some(last) = self.scenarios.last() else {
            return String::new();
        };
        let mut titles: Vec<&str> = Vec::new();
        for figure in last.summary.iter().map(|summary| summary.figure) {
            if !titles.contains(&figure) {
                titles.push(figure);
            }
        }
        let mut lines = vec![heading(&titles, &last.summary)];
        for row in &last.rows {
            let mut cells = vec![row.name.to_owned()];
            for title in &titles {
                cells.extend(cells_of(row.name, title, &last.summary));
            }
            lines.push(cells);
        }
        let mut text = aligned(&lines);
        for row in last.rows.iter().filter(|row| row.failures() > 0) {
            let reasons = row.samples.iter().flat_map(|sample| &sample.failed);
            let reasons: Vec<&str> = reasons.map(String::as_str).take(3).collect();
            let (count, reasons) = (row.failures(), reasons.join("; "));
            let line = format!("{}: {count} FAILED: {reasons}\n", row.name);
            text.push_str(&line);
        }
        text
    }
}

fn summarize(columns: &[Column], rows: &[Row]) -> Vec<Summary> {
    let mut summary = Vec::new();
    for row in rows {
        for column in columns {
            let values = row.values(column);
            let present: Vec<f64> = values.iter().copied().flatten().collect();
            let Some(median) = median(&present) else {
                continue;
            };
            let compared_with = COMPARED_WITH.iter().filter(|_| column.compared);
            let ratios = compared_with.filter_map(|&name| {
                let other = rows.iter().find(|other| other.name == name)?;
                Some((name, ratio(&values, &other.values(column))?))
            });
            summary.push(Summary {
                contestant: row.name,
                figure: column.title,
                median,
                min: present.iter().copied().fold(f64::INFINITY, f64::min),
                max: present.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                ratios: ratios.collect(),
            });
        }
    }
    summary
}

/// The median of the ratios round by round.
fn ratio(values: &[Option<f64>], others: &[Option<f64>]) -> Option<f64> {
    let ratios: Vec<f64> = values
        .iter()
        .zip(others)
        .filter_map(|(value, other)| Some((*value)? / other.filter(|other| *other > 0.0)?))
        .collect();
    median(&ratios)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

fn heading(titles: &[&str], summary: &[Summary]) -> Vec<String> {
    let mut cells = vec![String::new()];
    for title in titles {
        cells.push((*title).to_owned());
        cells.extend(compared(title, summary).map(|name| format!("/{name}")));
    }
    cells
}

/// Contestants that this figure is compared with in any row.
fn compared<'a>(title: &'a str, summary: &'a [Summary]) -> impl Iterator<Item = &'static str> + 'a {
    let is_there = move |name: &&&'static str| {
        let of_figure = summary.iter().filter(|s| s.figure == title);
        of_figure.into_iter().any(|s| s.ratios.contains_key(**name))
    };
    COMPARED_WITH.iter().filter(is_there).copied()
}

/// A median with its spread, and the ratios that this figure has in any row.
fn cells_of(name: &str, title: &str, summary: &[Summary]) -> Vec<String> {
    let is_own = |s: &&Summary| s.figure == title && s.contestant == name;
    let found = summary.iter().find(is_own);
    let mut cells = vec![found.map_or_else(
        || "-".to_owned(),
        |s| format!("{} [{} {}]", digits(s.median), digits(s.min), digits(s.max)),
    )];
    cells.extend(compared(title, summary).map(|other| {
        let own = found.and_then(|s| s.ratios.get(other));
        own.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    }));
    cells
}

/// Three digits or so.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
