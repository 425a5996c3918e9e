//! The load generator: closed or open loop, and every answer verified.
//!
//! Owns when requests start and what is counted. In a closed loop each worker starts its
//! next request when its last has ended. In an open loop requests are due at a fixed rate
//! whatever the answers do, and latency counts from when a request was due, so that a
//! stall shows in every request that it delayed. One thread; it reads whole answers and
//! compares them ([`verify`]). Deliberately has no retries: a failure is a failure.

pub(crate) mod client;
mod pace;
mod template;
mod verify;

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::client::{Http, Link, Target, said};
use self::pace::Pace;
use self::template::{chat_uri, headers, in_the_form_of, target, tokens};
use self::verify::{Check, EventTimes, Expected, since};
use crate::canned::{self, Instructions};
use crate::error::{BenchError, During};
use crate::histogram::{Histogram, Quantiles, to_f64};

/// Line that a load that was told to hold prints once it has its connections.
pub(crate) const CONNECTED: &str = "connected";
/// Failures in a row after which a worker gives up.
const FAILURES_IN_A_ROW_MAX: u32 = 20;
/// Different failures that a report names.
const FAILURES_NAMED: usize = 4;

/// Drives requests at a server and verifies every answer
#[derive(clap::Args, Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of a command line, independent of each other"
)]
pub(crate) struct LoadArgs {
    /// `http://HOST:PORT` or `https://HOST:PORT`, with a path if it is not that of chat completions
    #[arg(long)]
    pub(crate) url: Uri,
    /// Trust certificates of this CA (PEM)
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// Bearer token of every request
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Bearer tokens, one a line, that requests take in turns
    #[arg(long, conflicts_with = "token")]
    pub(crate) tokens: Option<PathBuf>,
    /// Version of HTTP: 1 or 2
    #[arg(long, default_value = "1")]
    pub(crate) http: Http,
    /// Connections
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Requests at once on each connection (HTTP/2 only)
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// Seconds in which requests start
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Requests after which no more start
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// Open loop: requests due a second, over all connections
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Closed loop: seconds over which the first requests start, evenly
    #[arg(long, default_value_t = 0.0)]
    pub(crate) ramp: f64,
    /// Bytes of a request's body
    #[arg(long, default_value_t = 1024)]
    pub(crate) body: usize,
    /// Model of every request
    #[arg(long, default_value = canned::MODEL)]
    pub(crate) model: String,
    /// Bytes of an answer in one piece
    #[arg(long, default_value_t = 1024)]
    pub(crate) reply: usize,
    /// Tokens to stream; 0: an answer in one piece
    #[arg(long, default_value_t = 0)]
    pub(crate) events: u32,
    /// Tokens a second of each stream; 0: back to back
    #[arg(long, default_value_t = 0)]
    pub(crate) event_rate: u32,
    /// Ask for usage at the end of a stream
    #[arg(long)]
    pub(crate) include_usage: bool,
    /// A new connection, with a full handshake, for every request
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Accept any JSON answer that tells its usage: the upstream is not this mock
    #[arg(long, conflicts_with = "events")]
    pub(crate) any_reply: bool,
    /// When connected, say so on stdout and start at a line on stdin
    #[arg(long)]
    pub(crate) hold: bool,
    /// Seconds after which an unfinished load is an error
    #[arg(long, default_value_t = 120.0)]
    pub(crate) seconds_max: f64,
}

/// Findings of a load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// Requests whose whole answer was right.
    pub(crate) requests: u64,
    /// Requests that were not answered rightly.
    pub(crate) failures: u64,
    /// Some of the reasons.
    pub(crate) failed: Vec<String>,
    /// Events in right answers.
    pub(crate) events: u64,
    /// Time from the start to the last answer.
    pub(crate) seconds: f64,
    /// Right answers a second.
    pub(crate) requests_per_second: f64,
    /// Time from a request's start, or from when it was due, to the end of its answer.
    pub(crate) latency: Quantiles,
    /// Time to the first event of a stream.
    pub(crate) first_event: Quantiles,
    /// Time from one event to the next.
    pub(crate) inter_event: Quantiles,
}

/// Runs the load and prints its report.
pub(crate) fn serve(args: &LoadArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "start the runtime".to_owned())?;
    let report = LocalSet::new().block_on(&runtime, drive(args))?;
    let line = serde_json::to_string(&report)?;
    writeln!(std::io::stdout(), "{line}").during(|| "write to stdout".to_owned())
}

async fn drive(args: &LoadArgs) -> Result<LoadReport, BenchError> {
    let load = Rc::new(Load::new(args)?);
    let mut links = Vec::new();
    for _ in 0..if args.fresh { 0 } else { args.connections } {
        let first = load.target.connect().await.map_err(BenchError::Said)?;
        for _ in 1..args.streams {
            links.push(Some(first.share().ok_or_else(|| {
                BenchError::said("HTTP/1.1 carries one request at a time: use --http 2")
            })?));
        }
        links.push(Some(first));
    }
    if args.fresh {
        links.resize_with(args.connections, || None);
    }
    if args.hold {
        hold().await?;
    }

    let start = Instant::now();
    load.start.set(start);
    if let Some(pace) = &load.pace {
        pace.release(start, load.duration);
    }
    let workers = TaskTracker::new();
    let step = Duration::from_secs_f64(args.ramp.clamp(0.0, 60.0) / to_f64(links.len() as u64));
    let mut first = start;
    for link in links {
        drop(workers.spawn_local(load.clone().work(first, link)));
        first += step;
    }
    workers.close();
    let limit = Duration::from_secs_f64(args.seconds_max.clamp(1.0, 3600.0));
    let finished = tokio::select! {
        () = workers.wait() => true,
        () = tokio::time::sleep(limit) => false,
    };
    if !finished {
        return Err(BenchError::said(format!(
            "the load did not end within {} s; {} requests were answered",
            limit.as_secs(),
            load.tally.borrow().latency.quantiles().count
        )));
    }
    Ok(load.tally.borrow().report(start.elapsed()))
}

/// Says that the connections stand, and waits for the word to start.
async fn hold() -> Result<(), BenchError> {
    let waiting = tokio::task::spawn_blocking(|| {
        let mut out = std::io::stdout();
        writeln!(out, "{CONNECTED}")?;
        out.flush()?;
        std::io::stdin().read_line(&mut String::new())
    });
    match waiting.await {
        Ok(read) => read.map(drop).during(|| "wait on stdin".to_owned()),
        Err(error) => Err(BenchError::said(error.to_string())),
    }
}

/// State that the workers share; all on one thread.
struct Load {
    target: Target,
    uri: Uri,
    headers: HeaderMap,
    tokens: Vec<HeaderValue>,
    body: Bytes,
    expected: Expected,
    fresh: bool,
    requests_max: u64,
    duration: Duration,
    pace: Option<Pace>,
    start: Cell<Instant>,
    begun: Cell<u64>,
    tally: RefCell<Tally>,
}

/// Counts of a load.
struct Tally {
    failures: u64,
    failed: Vec<String>,
    events: u64,
    latency: Histogram,
    times: EventTimes,
}

impl Load {
    fn new(args: &LoadArgs) -> Result<Self, BenchError> {
        let ask = Instructions {
            events: args.events,
            rate: args.event_rate,
            reply: args.reply,
            usage: args.include_usage,
        };
        let uri = chat_uri(&args.url)?;
        let expected = if args.any_reply {
            Expected::AnyUsage
        } else {
            Expected::of(ask)
        };
        Ok(Self {
            target: target(args, &uri)?,
            headers: headers(args, &uri)?,
            tokens: tokens(args.tokens.as_deref())?,
            uri: in_the_form_of(args.http, uri)?,
            body: canned::chat_request(args.body, &args.model, ask).into(),
            expected,
            fresh: args.fresh,
            requests_max: args.requests.unwrap_or(u64::MAX),
            duration: Duration::from_secs_f64(args.seconds.clamp(0.0, 3600.0)),
            pace: args.rate.map(Pace::new).transpose()?,
            start: Cell::new(Instant::now()),
            begun: Cell::new(0),
            tally: RefCell::new(Tally {
                failures: 0,
                failed: Vec::new(),
                events: 0,
                latency: Histogram::new(),
                times: EventTimes::new(),
            }),
        })
    }

    /// One worker: a request after another, the first not before `first`.
    async fn work(self: Rc<Self>, first: Instant, mut link: Option<Link>) {
        tokio::time::sleep_until(first).await;
        let mut failures_in_a_row = 0;
        while let Some(due) = self.next_start().await {
            match self.request(&mut link, due).await {
                Ok(events) => {
                    let mut tally = self.tally.borrow_mut();
                    tally.latency.record(since(due, Instant::now()));
                    tally.events += events;
                    failures_in_a_row = 0;
                }
                Err(reason) => {
                    self.tally.borrow_mut().fail(reason);
                    link = None;
                    failures_in_a_row += 1;
                    if failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until the next request is due, and says when that was.
    async fn next_start(&self) -> Option<Instant> {
        let number = self.begun.get();
        if number >= self.requests_max {
            return None;
        }
        let Some(pace) = &self.pace else {
            let now = Instant::now();
            let over = since(self.start.get(), now) >= self.duration;
            self.begun.set(number + 1);
            return (!over).then_some(now);
        };
        let offset = pace.offset(number);
        if offset >= self.duration {
            return None;
        }
        self.begun.set(number + 1);
        pace.wait().await;
        Some(self.start.get() + offset)
    }

    async fn request(&self, link: &mut Option<Link>, due: Instant) -> Result<u64, String> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let turn = usize::try_from(self.begun.get()).unwrap_or_default();
        if let Some(token) = self.tokens.get(turn % self.tokens.len().max(1)) {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let link = match link {
            Some(link) if !self.fresh => link,
            _ => link.insert(self.target.connect().await?),
        };
        let mut response = link.send(request).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = response
                .collect()
                .await
                .map_err(|error| said(&error))?
                .to_bytes();
            let text = String::from_utf8_lossy(body.get(..200).unwrap_or(&body));
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(format!("status {status}: {text}"));
        }
        let mut check = Check::new(&self.expected);
        while let Some(frame) = response.frame().await {
            if let Ok(piece) = frame.map_err(|error| said(&error))?.into_data() {
                let times = &mut self.tally.borrow_mut().times;
                check.take(&piece, due, Instant::now(), times)?;
            }
        }
        check.end()
    }
}

impl Tally {
    fn fail(&mut self, reason: String) {
        self.failures += 1;
        if self.failed.len() < FAILURES_NAMED && !self.failed.contains(&reason) {
            self.failed.push(reason);
        }
    }

    fn report(&self, elapsed: Duration) -> LoadReport {
        let latency = self.latency.quantiles();
        let seconds = elapsed.as_secs_f64();
        LoadReport {
            requests: latency.count,
            failures: self.failures,
            failed: self.failed.clone(),
            events: self.events,
            seconds,
            requests_per_second: to_f64(latency.count) / seconds.max(1e-9),
            latency,
            first_event: self.times.first.quantiles(),
            inter_event: self.times.between.quantiles(),
        }
    }
}
