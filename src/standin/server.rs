//! The process: load, listen, accept, and end as vLLM ends.
//!
//! Owns connections and signals. SIGTERM before ready kills the process, as no
//! handler stands yet. After it, SIGTERM closes the listener and idle connections;
//! responses that are open get no further byte and no end, and the process waits
//! for their clients to go.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::app::App;
use super::args::Args;
use super::dev;
use super::end::SimError;
use super::faults::Misdeed;
use super::service;
use super::socket::{Listener, Socket};
use super::startup::{self, Log};
use crate::time::sleep;

/// Largest head of a request, in bytes; vLLM's parser has no limit.
const HEAD_BYTES_MAX: usize = 8 << 20;
/// Pause after an accept that failed, as with too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bound of the wait for clients to go; vLLM has none.
const FAREWELL_MAX: Duration = Duration::from_hours(24);

/// Signals that ask for an end.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn install() -> Result<Self, SimError> {
        let install = |kind| signal(kind).map_err(SimError::io("install a signal handler"));
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal or a fault ends it.
///
/// # Errors
///
/// [`SimError`] when it cannot start.
pub(super) async fn run(args: Args, log: &mut (dyn Write + Send)) -> Result<(), SimError> {
    let app = App::new(args);
    let mut log = Log(log);
    // A server that ignores SIGTERM ignores it from the first moment.
    let early = if app.faulty(&Misdeed::IgnoreSigterm) {
        Some(Ending::install()?)
    } else {
        None
    };
    let socket = Socket::bind(&app.args).await?;
    startup::load(&app, &mut log).await?;
    let ending = match early {
        Some(ending) => ending,
        None => Ending::install()?,
    };
    let place = socket.to_string();
    let listener = socket.listen()?;
    startup::ready(&app, &place, &mut log)?;
    if app.faulty(&Misdeed::EngineDead) {
        dev::die(&app);
    }
    if serve(&app, listener, ending).await == Why::Asked {
        log.uvicorn("Shutting down")?;
        app.tasks.join(FAREWELL_MAX).await;
        log.uvicorn("Application shutdown complete.")?;
    }
    app.report_memory(0).await
}

/// Reason for which the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// A signal.
    Asked,
    /// A fault.
    Fault,
}

async fn serve(app: &Arc<App>, listener: Listener, mut ending: Ending) -> Why {
    let exit_after = app.plan.load().find(|fault| match fault {
        Misdeed::ExitAfter(span) => Some(*span),
        _ => None,
    });
    let exit = async {
        match exit_after {
            Some(span) => sleep(span).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(exit);
    loop {
        tokio::select! {
            () = accept(app, &listener) => {}
            () = ending.asked() => {
                if !app.faulty(&Misdeed::IgnoreSigterm) {
                    app.engine.state.send_modify(|state| state.halted = true);
                    return Why::Asked;
                }
            }
            () = app.over.notified() => return Why::Fault,
            () = &mut exit => return Why::Fault,
        }
    }
}

/// Takes one connection; it is cancel-safe, as the accept is.
async fn accept(app: &Arc<App>, listener: &Listener) {
    let taken = match listener {
        Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
            // Only a delay is lost where this fails.
            drop(stream.set_nodelay(true));
            spawn(app, stream);
        }),
        Listener::Unix(listener) => listener
            .accept()
            .await
            .map(|(stream, _)| spawn(app, stream)),
    };
    if taken.is_err() {
        sleep(ACCEPT_PAUSE).await;
    }
}

fn spawn(app: &Arc<App>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    app.tasks.spawn_bare(connection(Arc::clone(app), stream));
}

fn connection(
    app: Arc<App>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> impl Future<Output = ()> + Send {
    let ending = app.tasks.ending();
    let idle = Duration::from_secs(app.args.keep_alive_seconds);
    let service = service_fn(move |request| service::handle(Arc::clone(&app), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    async move {
        tokio::pin!(connection);
        // A connection that breaks is its client's affair.
        tokio::select! {
            ended = connection.as_mut() => return drop(ended),
            () = ending.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }
}
