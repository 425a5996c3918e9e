//! Growth: what more routes, more tokens and more time cost.
//!
//! Owns the cases, the tokens and route files they need, and the order: start, memory at
//! rest, load, memory. `/metrics` is never scraped meanwhile. Flat figures are the aim:
//! 10,000 routes and 100,000 tokens should cost a request what ten of them cost it, and a
//! load that goes on for ten times as long should leave no more memory.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use crate::canned::{self, Instructions};
use crate::error::{BenchError, During};
use crate::histogram::to_f64;
use crate::load::client::{Http, Target};
use crate::measure;
use crate::parts::{Mint, write_routes};
use crate::peers::{Contestant, Site};
use crate::process::Running;
use crate::report::{Row, Sample};
use crate::tls::{self, Trust};

/// Longest that the first answer may take.
const START_MAX: Duration = Duration::from_mins(1);

/// Thing that grows.
struct Case {
    name: &'static str,
    /// The name of its row before any load.
    idle: &'static str,
    routes: usize,
    tokens: usize,
}

const CASES: [Case; 4] = [
    Case {
        name: "10 routes, 10 tokens",
        idle: "10 routes, 10 tokens, idle",
        routes: 10,
        tokens: 10,
    },
    Case {
        name: "1,000 routes",
        idle: "1,000 routes, idle",
        routes: 1_000,
        tokens: 10,
    },
    Case {
        name: "10,000 routes",
        idle: "10,000 routes, idle",
        routes: 10_000,
        tokens: 10,
    },
    Case {
        name: "100,000 tokens",
        idle: "100,000 tokens, idle",
        routes: 10,
        tokens: 100_000,
    },
];

/// Load that is driven through a running gateway.
pub(crate) trait Drive {
    /// A load with these tokens: its sample. `longer`: for ten times as long.
    fn load(&self, process: &Running, tokens: &Path, longer: bool) -> Result<Sample, BenchError>;
}

/// Measures every case, `rounds` loads each.
pub(crate) fn measure(
    site: &Site,
    rounds: u32,
    drive: &impl Drive,
) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for (at, case) in CASES.iter().enumerate() {
        let tokens = make_tokens(site, case.tokens)?;
        let routes = site.dir.join("routes.d");
        std::fs::create_dir_all(&routes).during(|| "make the routes".to_owned())?;
        write_routes(&routes, case.routes, &site.upstream.to_string())?;
        let began = Instant::now();
        let process = site.start_unseen(Contestant::Tidegate)?;
        first_answer(site, &process, began + START_MAX)?;
        let start = began.elapsed();
        let mut row = Row::new(case.name);
        let mut idle = Row::new(case.idle);
        idle.push(Sample {
            mib: Some(mib(&process)?),
            start_ms: Some(start.as_secs_f64() * 1e3),
            ..Sample::default()
        });
        drive.load(&process, &tokens, case.tokens > 10)?;
        for _ in 0..rounds {
            row.push(with_memory(
                drive.load(&process, &tokens, false)?,
                &process,
            )?);
        }
        rows.extend([row, idle]);
        if at == 0 {
            let mut later = Row::new("10 routes, 10 tokens, after long");
            drive.load(&process, &tokens, true)?;
            later.push(with_memory(
                drive.load(&process, &tokens, false)?,
                &process,
            )?);
            rows.push(later);
        }
        drop(process);
        for n in 0..case.routes {
            // Left behind, it would be one route more in the next case.
            std::fs::remove_file(routes.join(format!("r{n}.toml")))
                .during(|| "remove a route".to_owned())?;
        }
    }
    Ok(rows)
}

fn with_memory(mut sample: Sample, process: &Running) -> Result<Sample, BenchError> {
    sample.mib = Some(mib(process)?);
    Ok(sample)
}

fn mib(process: &Running) -> Result<f64, BenchError> {
    Ok(to_f64(measure::memory_kib(process.pid())?) / 1024.0)
}

/// A file of tokens that the gateway's key has signed.
fn make_tokens(site: &Site, count: usize) -> Result<PathBuf, BenchError> {
    let mint = Mint::open(&site.dir.join("tokens.key"))?;
    let path = site.dir.join(format!("tokens-{count}"));
    let failed = || format!("write {}", path.display());
    let file = std::fs::File::create(&path).during(failed)?;
    let mut file = std::io::BufWriter::new(file);
    for _ in 0..count {
        writeln!(file, "{}", mint.token()?).during(failed)?;
    }
    file.flush().during(failed)?;
    Ok(path)
}

/// Asks until the gateway answers.
fn first_answer(site: &Site, process: &Running, until: Instant) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "start the runtime".to_owned())?;
    let trust = Trust::Ca(site.certificate.ca.clone());
    let connector = TlsConnector::from(tls::client(&trust, Http::One.alpn())?);
    let name = "localhost"
        .try_into()
        .map_err(|_| BenchError::said("localhost is no name for TLS"))?;
    let target = Target {
        address: process.address,
        tls: Some((connector, name)),
        http: Http::One,
        tasks: TaskTracker::new(),
    };
    runtime.block_on(async {
        loop {
            match ask(site, &target).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(BenchError::Said(error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
}

async fn ask(site: &Site, target: &Target) -> Result<(), String> {
    let mut link = target.connect().await?;
    let ask = Instructions {
        reply: 1024,
        ..Instructions::default()
    };
    let body = canned::chat_request(1024, canned::MODEL, ask);
    let request = Request::post("/v1/chat/completions")
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {}", site.token))
        .body(Full::new(body.into()))
        .map_err(|error| error.to_string())?;
    let response = link.send(request).await?;
    let status = response.status();
    response
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("status {status}"))
    }
}
