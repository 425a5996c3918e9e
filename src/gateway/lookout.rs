//! Looks after the servers beside the requests: asks whether they are well and how
//! busy they are, and reads their keys again.
//!
//! Each question is one bounded exchange in a task of its own, and none is asked
//! while the one before is open. Figures are asked for only where there is a
//! choice, and rarely of a server that has none. What is made of the answers is
//! [`super::upstream::health`]'s and [`super::upstream::figures`]'s.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Gateway;
use super::route::table::Table;
use super::upstream::pool::{Awaited, Conn, Exchange};
use super::upstream::server::Server;
use super::upstream::wire::Sending;
use crate::outbound::socket::Limits;
use crate::pieces::Pieces;
use crate::tasks::Tasks;
use crate::time::{sleep, timeout};
use crate::vllm::figures;

/// Between two looks at what is due; the shortest interval of a health check.
const TICK: Duration = Duration::from_millis(100);
/// Between two questions for figures, and the limit of one.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);
/// Until a server that has no figures is asked again.
const FIGURES_AGAIN: Duration = Duration::from_mins(1);
/// Largest page of figures that is read, in bytes. vLLM's is about 100 KB.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Largest answer to a health check that is read, in bytes.
const HEALTH_BYTES_MAX: usize = 64 << 10;
/// Questions open at once; further ones wait for the next look.
const OPEN_MAX: usize = 64;
/// Between two looks at key files.
const KEYS_INTERVAL: Duration = Duration::from_secs(1);

/// Looks after the servers of whatever table is in effect, until the tasks end.
pub async fn run(gateway: Arc<Gateway>, tasks: Tasks) {
    let (ending, questions) = (tasks.ending(), tasks.child());
    let mut keys_due = gateway.registry.clock.now();
    loop {
        tokio::select! {
            () = sleep(TICK) => {}
            () = ending.cancelled() => return,
        }
        let table = gateway.table.load_full();
        let now = gateway.registry.clock.millis();
        for (server, is_alone) in table.looked_after() {
            if questions.len() < OPEN_MAX {
                ask_health(&server, now, &questions);
                ask_figures(&server, is_alone, now, &questions);
            }
        }
        if gateway.registry.clock.now() >= keys_due {
            keys_due = gateway.registry.clock.now() + KEYS_INTERVAL;
            refresh_keys(&table).await;
        }
    }
}

impl Table {
    /// The servers that anything is asked of, and whether each is alone.
    fn looked_after(&self) -> Vec<(Arc<Server>, bool)> {
        let mut all = Vec::new();
        for group in self.groups() {
            let is_alone = group.len() < 2;
            let asked = group.into_iter().filter(|server| !server.lookout.is_idle());
            all.extend(asked.map(|server| (server, is_alone)));
        }
        all
    }
}

fn ask_health(server: &Arc<Server>, now: u64, questions: &Tasks) {
    let lookout = &server.lookout;
    let Some(check) = &lookout.check else {
        server.health.unchecked();
        return;
    };
    if lookout.check_due.load(Ordering::Relaxed) > now
        || lookout.asking_health.swap(true, Ordering::AcqRel)
    {
        return;
    }
    lookout
        .check_due
        .store(now + millis(check.interval), Ordering::Relaxed);
    let (server, check) = (Arc::clone(server), check.clone());
    questions.spawn("health check", async move {
        let _asking = Asking(&server.lookout.asking_health);
        let answer = ask(&server, &check.path, check.timeout, HEALTH_BYTES_MAX).await;
        match answer {
            Ok((status, _)) if status.is_success() => {
                server.health.checked(true, check.successes, "");
            }
            Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => {
                let why = "it refuses the gateway's key";
                server.health.checked(false, check.failures, why);
            }
            Ok(_) => server
                .health
                .checked(false, check.failures, "its answer was no 2xx"),
            Err(why) => server.health.checked(false, check.failures, why),
        }
    });
}

fn ask_figures(server: &Arc<Server>, is_alone: bool, now: u64, questions: &Tasks) {
    let lookout = &server.lookout;
    if is_alone
        || !lookout.figures
        || lookout.figures_due.load(Ordering::Relaxed) > now
        || lookout.asking_figures.swap(true, Ordering::AcqRel)
    {
        return;
    }
    lookout
        .figures_due
        .store(now + millis(FIGURES_INTERVAL), Ordering::Relaxed);
    let server = Arc::clone(server);
    questions.spawn("engine figures", async move {
        let _asking = Asking(&server.lookout.asking_figures);
        let answer = ask(&server, "/metrics", FIGURES_INTERVAL, PAGE_BYTES_MAX).await;
        let Ok((status, page)) = answer else {
            // Not reached: that may be over in a second.
            return;
        };
        let look = std::str::from_utf8(&page).ok().and_then(figures::read);
        match look.filter(|_| status.is_success()) {
            Some(look) => server.figures.set(look),
            None => server
                .lookout
                .figures_due
                .store(now + millis(FIGURES_AGAIN), Ordering::Relaxed),
        }
    });
}

/// One question is open until this is dropped.
struct Asking<'a>(&'a AtomicBool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Asks a server for a path; at most `bytes_max` of the answer are read.
async fn ask(
    server: &Server,
    path: &str,
    limit: Duration,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), &'static str> {
    let answer = timeout(limit, get(server, path, limit, bytes_max)).await;
    answer.map_err(|_| "it did not answer in time")?
}

async fn get(
    server: &Server,
    path: &str,
    limit: Duration,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), &'static str> {
    const BROKE: &str = "it broke off";
    let whole = format!("{}{path}", server.lookout.base_path);
    let path = whole.parse().map_err(|_| "its path is no path")?;
    let agent = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(HOST, server.pool.host().clone());
    headers.insert(USER_AGENT, agent);
    server.tell(&mut headers);
    let request = Sending::new(&Method::GET, &path, headers.iter(), Pieces::default());
    let limits = Limits {
        connect: limit,
        tls_handshake: limit,
    };
    // A kept connection may turn out stale: the question goes again, over a fresh one.
    if let Some(mut conn) = server.pool.kept().await
        && let Ok(response) = conn.send(&request).await
    {
        return read(server, response, conn, bytes_max).await.ok_or(BROKE);
    }
    let dialled = server.pool.dial(limits).await;
    let mut conn = dialled.map_err(|failure| failure.words())?;
    let response = conn.send(&request).await.map_err(|_| BROKE)?;
    read(server, response, conn, bytes_max).await.ok_or(BROKE)
}

async fn read(
    server: &Server,
    response: http::Response<Awaited>,
    conn: Conn,
    bytes_max: usize,
) -> Option<(StatusCode, Bytes)> {
    let status = response.status();
    let occupied = server.pool.occupy();
    let mut exchange = Exchange::new(response.into_body(), conn, occupied);
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| exchange.poll_frame(cx)).await {
        let bytes = frame.ok()?.into_data().unwrap_or_default();
        all.extend_from_slice(&bytes);
        if all.len() > bytes_max {
            return None;
        }
    }
    Some((status, all.freeze()))
}

/// Reads key files that have changed.
async fn refresh_keys(table: &Arc<Table>) {
    let table = Arc::clone(table);
    let read = tokio::task::spawn_blocking(move || {
        for server in table.groups().into_iter().flatten() {
            if let Some(told) = server.told() {
                told.refresh();
            }
        }
    });
    // It fails only when the runtime ends.
    drop(read.await);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
