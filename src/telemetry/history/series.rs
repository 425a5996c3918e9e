//! Names of the history: the scopes, the series that are kept, and the questions.
//!
//! A [`Series`] of a [`Scope`] is what is stored; a [`Metric`] is what a plot
//! asks for. The two differ where one series answers several questions, as the
//! quantiles of one distribution do, or several series one, as all errors do.
//! The names here stand in the store and in the admin API: none may change.

use std::fmt;
use std::str::FromStr;

use crate::names::{DeploymentId, InstanceName, RouteName};
use crate::telemetry::outcome::Outcome;

/// Scope of a series: the thing that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// This machine. Asked for traffic: all deployments and upstream routes together.
    Host,
    /// All deployments of an instance together. Only asked for, never stored.
    Instance(InstanceName),
    /// One deployment. Asked for CPU and the like: its worker.
    Deployment(DeploymentId),
    /// The process tree of the worker of a deployment, whichever generation it is.
    Worker(DeploymentId),
    /// The servers of a route that leads to upstreams.
    Route(RouteName),
    /// One GPU, by index.
    Gpu(u32),
}

impl Scope {
    /// True if a question about this scope is answered from `series` of `stored`.
    pub fn covers(&self, stored: &Self, series: Series) -> bool {
        match (self, stored) {
            (Self::Instance(name), Self::Deployment(id) | Self::Worker(id)) => id
                .as_str()
                .split_once('/')
                .is_some_and(|(instance, _)| instance == name.as_str()),
            (Self::Deployment(id), Self::Worker(worker)) => id == worker,
            (Self::Host, Self::Deployment(_) | Self::Route(_)) => series.is_of_traffic(),
            _ => self == stored,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Instance(name) => write!(f, "instance:{name}"),
            Self::Deployment(id) => write!(f, "deployment:{id}"),
            Self::Worker(id) => write!(f, "worker:{id}"),
            Self::Route(name) => write!(f, "route:{name}"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
        }
    }
}

/// Reason for which a text names no scope, series or metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownSeries {
    /// Not a scope.
    #[error(
        "{0:?} is not a scope: write host, instance:NAME, deployment:INSTANCE/MODEL, \
         worker:INSTANCE/MODEL, route:NAME or gpu:INDEX"
    )]
    Scope(String),
    /// Not a metric.
    #[error("{0:?} is not a metric: use one of {names}", names = metric_names())]
    Metric(String),
}

fn metric_names() -> String {
    let names: Vec<_> = Metric::all().map(|metric| metric.to_string()).collect();
    names.join(", ")
}

impl FromStr for Scope {
    type Err = UnknownSeries;

    fn from_str(text: &str) -> Result<Self, UnknownSeries> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let scope = match kind {
            "host" if text == kind => Some(Self::Host),
            "instance" => InstanceName::new(name).ok().map(Self::Instance),
            "deployment" => DeploymentId::parse(name).ok().map(Self::Deployment),
            "worker" => DeploymentId::parse(name).ok().map(Self::Worker),
            "route" => RouteName::new(name).ok().map(Self::Route),
            "gpu" => name.parse().ok().map(Self::Gpu),
            _ => None,
        };
        scope.ok_or_else(|| UnknownSeries::Scope(text.chars().take(80).collect()))
    }
}

/// Counts; merged by adding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Requests that ended, however they did.
    Requests,
    /// Prompt tokens of requests that ended.
    PromptTokens,
    /// Completion tokens of requests that ended.
    CompletionTokens,
    /// Starts and wakes of a worker.
    ColdStarts,
    /// Requests that ended so.
    Ended(Outcome),
}

/// Measures of a moment; merged over time by the mean, over deployments
/// by the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gauge {
    /// Requests with a worker.
    InFlight,
    /// Requests that wait.
    Queued,
    /// Processors in use: 1.0 is one core.
    Cpu,
    /// Bytes in use; of a process tree its proportional set size.
    Memory,
    /// Bytes resident, of a process tree, shared pages counted in each process.
    MemoryResident,
    /// Bytes read from disks, per second.
    DiskRead,
    /// Bytes written to disks, per second.
    DiskWritten,
    /// Bytes received from the network, per second.
    NetworkReceived,
    /// Bytes sent to the network, per second.
    NetworkSent,
    /// Percent of the time in which the GPU computed.
    GpuUtilisation,
    /// Bytes of GPU memory in use.
    GpuMemory,
    /// Degrees Celsius.
    GpuTemperature,
    /// Watts.
    GpuPower,
}

impl Gauge {
    /// Every gauge.
    pub const ALL: [Self; 13] = [
        Self::InFlight,
        Self::Queued,
        Self::Cpu,
        Self::Memory,
        Self::MemoryResident,
        Self::DiskRead,
        Self::DiskWritten,
        Self::NetworkReceived,
        Self::NetworkSent,
        Self::GpuUtilisation,
        Self::GpuMemory,
        Self::GpuTemperature,
        Self::GpuPower,
    ];

    /// The smallest difference that is kept; samples are rounded to a multiple.
    pub fn resolution(self) -> f64 {
        match self {
            Self::InFlight | Self::Queued => 0.01,
            Self::Cpu => 0.001,
            Self::Memory | Self::MemoryResident | Self::GpuMemory => 65_536.0,
            Self::DiskRead | Self::DiskWritten | Self::NetworkReceived | Self::NetworkSent => 64.0,
            Self::GpuUtilisation | Self::GpuTemperature | Self::GpuPower => 0.1,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Queued => "queued",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::MemoryResident => "memory_resident",
            Self::DiskRead => "disk_read",
            Self::DiskWritten => "disk_written",
            Self::NetworkReceived => "network_received",
            Self::NetworkSent => "network_sent",
            Self::GpuUtilisation => "gpu_utilisation",
            Self::GpuMemory => "gpu_memory",
            Self::GpuTemperature => "gpu_temperature",
            Self::GpuPower => "gpu_power",
        }
    }
}

/// Distributions of times; merged by adding their sketches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Times {
    /// From the head of the request to the last byte of an answer that was whole.
    Latency,
    /// From the head of the request to the first token.
    FirstToken,
}

impl Times {
    fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::FirstToken => "first_token",
        }
    }
}

/// Series that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Series {
    /// A count.
    Count(Count),
    /// A gauge.
    Gauge(Gauge),
    /// A distribution of times.
    Times(Times),
}

impl Series {
    /// True if it tells of requests, not of processes or devices.
    pub fn is_of_traffic(self) -> bool {
        !matches!(self, Self::Gauge(gauge) if !matches!(gauge, Gauge::InFlight | Gauge::Queued))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(Count::Requests) => f.write_str("requests"),
            Self::Count(Count::PromptTokens) => f.write_str("prompt_tokens"),
            Self::Count(Count::CompletionTokens) => f.write_str("completion_tokens"),
            Self::Count(Count::ColdStarts) => f.write_str("cold_starts"),
            Self::Count(Count::Ended(outcome)) => write!(f, "errors_{}", outcome.as_str()),
            Self::Gauge(gauge) => f.write_str(gauge.as_str()),
            Self::Times(times) => f.write_str(times.as_str()),
        }
    }
}

impl FromStr for Series {
    type Err = UnknownSeries;

    fn from_str(text: &str) -> Result<Self, UnknownSeries> {
        match text {
            "latency" => Ok(Self::Times(Times::Latency)),
            "first_token" => Ok(Self::Times(Times::FirstToken)),
            _ => match text.parse()? {
                Metric::Count(count) => Ok(Self::Count(count)),
                Metric::Gauge(gauge) => Ok(Self::Gauge(gauge)),
                Metric::Errors | Metric::Quantile(..) => {
                    Err(UnknownSeries::Metric(text.chars().take(80).collect()))
                }
            },
        }
    }
}

/// Quantile of the times that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantile {
    /// The median.
    P50,
    /// Of twenty, the slowest but one.
    P95,
    /// Of a hundred, the slowest but one.
    P99,
}

impl Quantile {
    /// In thousandths.
    pub fn permille(self) -> u16 {
        match self {
            Self::P50 => 500,
            Self::P95 => 950,
            Self::P99 => 990,
        }
    }
}

/// Metric that a plot asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Requests and tokens as a rate per second; starts and errors as their
    /// number in each step.
    Count(Count),
    /// The number of requests in each step that ended in any error.
    Errors,
    /// The mean in each step.
    Gauge(Gauge),
    /// Seconds, of all requests of each step together.
    Quantile(Times, Quantile),
}

impl Metric {
    /// Every metric that can be asked for.
    pub fn all() -> impl Iterator<Item = Self> {
        use Quantile::{P50, P95, P99};
        let counts = [
            Count::Requests,
            Count::PromptTokens,
            Count::CompletionTokens,
            Count::ColdStarts,
        ];
        let quantiles = [
            (Times::Latency, P50),
            (Times::Latency, P95),
            (Times::Latency, P99),
            (Times::FirstToken, P50),
            (Times::FirstToken, P95),
            (Times::FirstToken, P99),
        ];
        counts
            .into_iter()
            .map(Self::Count)
            .chain(quantiles.map(|(times, quantile)| Self::Quantile(times, quantile)))
            .chain(Gauge::ALL.map(Self::Gauge))
            .chain([Self::Errors])
            .chain(errors().map(|outcome| Self::Count(Count::Ended(outcome))))
    }

    /// True if the metric is answered from this series.
    pub fn reads(self, series: Series) -> bool {
        match (self, series) {
            (Self::Errors, Series::Count(Count::Ended(_))) => true,
            (Self::Count(wanted), Series::Count(count)) => wanted == count,
            (Self::Gauge(wanted), Series::Gauge(gauge)) => wanted == gauge,
            (Self::Quantile(wanted, _), Series::Times(times)) => wanted == times,
            _ => false,
        }
    }

    /// The unit of its values, for axes.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Count(Count::Requests) => "requests/s",
            Self::Count(Count::PromptTokens | Count::CompletionTokens) => "tokens/s",
            Self::Count(Count::ColdStarts) => "starts",
            Self::Count(Count::Ended(_)) | Self::Errors => "errors",
            Self::Quantile(..) => "s",
            Self::Gauge(gauge) => match gauge {
                Gauge::InFlight | Gauge::Queued => "requests",
                Gauge::Cpu => "cores",
                Gauge::Memory | Gauge::MemoryResident | Gauge::GpuMemory => "bytes",
                Gauge::DiskRead
                | Gauge::DiskWritten
                | Gauge::NetworkReceived
                | Gauge::NetworkSent => "bytes/s",
                Gauge::GpuUtilisation => "%",
                Gauge::GpuTemperature => "°C",
                Gauge::GpuPower => "W",
            },
        }
    }
}

/// The outcomes that are errors.
pub fn errors() -> impl Iterator<Item = Outcome> {
    Outcome::ALL
        .into_iter()
        .filter(|outcome| !matches!(outcome, Outcome::Ok | Outcome::Local))
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => Series::Count(*count).fmt(f),
            Self::Errors => f.write_str("errors"),
            Self::Gauge(gauge) => f.write_str(gauge.as_str()),
            Self::Quantile(times, quantile) => {
                write!(f, "{}_p{}", times.as_str(), quantile.permille() / 10)
            }
        }
    }
}

impl FromStr for Metric {
    type Err = UnknownSeries;

    fn from_str(text: &str) -> Result<Self, UnknownSeries> {
        Self::all()
            .find(|metric| metric.to_string() == text)
            .ok_or_else(|| UnknownSeries::Metric(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_and_scope_reads_back() {
        for metric in Metric::all() {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        for text in [
            "host",
            "instance:a",
            "deployment:a/b/c",
            "worker:a/b",
            "route:r",
            "gpu:3",
        ] {
            let scope: Scope = text.parse().unwrap();
            assert_eq!(scope.to_string(), text);
        }
        for bad in ["", "host:1", "gpu:x", "instance:", "deployment:a", "what:a"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
        assert!("latency".parse::<Metric>().is_err());
        assert!("errors_ok".parse::<Metric>().is_err());
    }

    #[test]
    fn every_series_reads_back() {
        let times = [Times::Latency, Times::FirstToken].map(Series::Times);
        let counts = errors().map(|outcome| Series::Count(Count::Ended(outcome)));
        let gauges = Gauge::ALL.into_iter().map(Series::Gauge);
        for series in times.into_iter().chain(counts).chain(gauges) {
            assert_eq!(series.to_string().parse(), Ok(series));
        }
        assert!("errors".parse::<Series>().is_err());
        assert!("latency_p50".parse::<Series>().is_err());
    }

    #[test]
    fn an_instance_covers_its_own_deployments_and_workers_only() {
        let requests = Series::Count(Count::Requests);
        let cpu = Series::Gauge(Gauge::Cpu);
        let covers = |asked: &str, stored: &str, series| {
            let (asked, stored): (Scope, Scope) = (asked.parse().unwrap(), stored.parse().unwrap());
            asked.covers(&stored, series)
        };
        assert!(covers("instance:a", "deployment:a/b", requests));
        assert!(covers("instance:a", "worker:a/b", cpu));
        assert!(!covers("instance:a", "deployment:ab/b", requests));
        assert!(covers("deployment:a/b", "worker:a/b", cpu));
        assert!(!covers("deployment:a/b", "worker:a/c", cpu));
        assert!(covers("host", "deployment:a/b", requests));
        assert!(
            !covers("host", "worker:a/b", cpu),
            "the host measures its own"
        );
        assert!(!covers("gpu:0", "gpu:1", Series::Gauge(Gauge::GpuPower)));
    }
}
