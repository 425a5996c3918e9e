//! Sends traces to the collector, a batch at a time.
//!
//! A batch goes out when it is full or a second old. A collector that is away is
//! tried again a few times; then the batch is dropped and counted, and requests
//! never hear of it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use crate::auth::keeper::SecretSource;
use crate::config::Telemetry;
use crate::config::edge::Collector;
use crate::outbound::Address;
use crate::outbound::exchange::{self, exchange};
use crate::outbound::roots::client_config;
use crate::outbound::socket::{Limits, Proof, Socket};
use crate::tasks::Tasks;
use crate::telemetry::metrics;
use crate::telemetry::traces::{Span, Traces, export_request};
use crate::time::{Instant, sleep, sleep_until, timeout};

/// Spans of one batch.
const BATCH_MAX: usize = 512;
/// Time that the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Limit of one call.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Limit of the last call, at the end.
const LAST_CALL_MAX: Duration = Duration::from_secs(2);
/// Tries of one batch, and the pause before the second; it doubles.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The way to a collector.
struct Exporter {
    collector: Collector,
    proof: Option<Proof>,
    headers: HeaderMap,
    service: String,
}

/// Largest file of headers, in bytes.
const HEADERS_BYTES_MAX: u64 = 64 * 1024;

/// There are no headers where the settings say.
#[derive(Debug, thiserror::Error)]
enum HeadersError {
    /// The variable can't be used.
    #[error(
        "the environment variable {0} must hold headers as \"key=value,key=value\": see telemetry.otlp_headers_env"
    )]
    Variable(String),
    /// The file can't be used.
    #[error(
        "the file {} must hold headers as \"key=value,key=value\", at most 64 KiB: see telemetry.otlp_headers_file",
        .0.display()
    )]
    File(PathBuf),
    /// The file can't be read.
    #[error("telemetry.otlp_headers_file: {} can't be read", .path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

/// Reads the headers. Blocks on the disk, once at the start.
fn headers_of(source: &SecretSource) -> Result<HeaderMap, HeadersError> {
    match source {
        SecretSource::Env(name) => {
            let text = std::env::var(name).unwrap_or_default();
            headers(&text).ok_or_else(|| HeadersError::Variable(name.clone()))
        }
        SecretSource::File(path) => {
            let unread = |source| HeadersError::Unread {
                path: path.clone(),
                source,
            };
            // Before it is opened: opening a pipe would wait for its writer.
            let file = std::fs::metadata(path).map_err(unread)?;
            let usable = file.is_file() && file.len() <= HEADERS_BYTES_MAX;
            let text = usable.then(|| std::fs::read_to_string(path)).transpose();
            let text = text.map_err(unread)?;
            let found = text.and_then(|text| headers(&text));
            found.ok_or_else(|| HeadersError::File(path.clone()))
        }
    }
}

/// Sends what is put in the queue that comes back, in a task; `None` where no
/// collector is named.
pub(super) fn start(settings: &Telemetry, tasks: &Tasks) -> Result<Option<Traces>, Failure> {
    let Some(exporter) = Exporter::new(settings)? else {
        return Ok(None);
    };
    let (traces, spans) = Traces::queue();
    tasks.spawn("traces", exporter.run(spans, tasks.ending()));
    Ok(Some(traces))
}

impl Exporter {
    /// `None` where no collector is named.
    fn new(settings: &Telemetry) -> Result<Option<Self>, Failure> {
        let Some(collector) = settings.otlp.clone() else {
            return Ok(None);
        };
        let ca = settings.ca.as_deref();
        let proof = if collector.tls {
            Some(Proof {
                client: client_config(ca)?,
                name: ServerName::try_from(collector.host.clone())?,
            })
        } else {
            None
        };
        let headers = settings.headers.as_ref().map(headers_of).transpose()?;
        let headers = headers.unwrap_or_default();
        Ok(Some(Self {
            collector,
            proof,
            headers,
            service: settings.service_name.clone(),
        }))
    }

    /// Sends what comes, until `ending`; then what is left, once.
    async fn run(self, mut spans: Receiver<Vec<Span>>, ending: CancellationToken) {
        let mut is_away = false;
        loop {
            let (batch, is_last) = gather(&mut spans, &ending).await;
            if !batch.is_empty() {
                let body = Bytes::from(export_request(&self.service, &batch));
                let sent = if is_last {
                    timeout(LAST_CALL_MAX, self.call(&body))
                        .await
                        .unwrap_or(Err(away()))
                } else {
                    self.send(&body, &ending).await
                };
                match &sent {
                    Ok(()) if is_away => tracing::info!("the collector of traces takes them again"),
                    Ok(()) => {}
                    Err(_) if is_away => metrics::spans_lost(batch.len()),
                    Err(error) => {
                        metrics::spans_lost(batch.len());
                        tracing::warn!(error = %error, "the collector of traces can't be told; spans are dropped and counted");
                    }
                }
                is_away = sent.is_err();
            }
            if is_last {
                return;
            }
        }
    }

    /// Sends a batch, more than once where that may help.
    async fn send(&self, body: &Bytes, ending: &CancellationToken) -> io::Result<()> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match timeout(CALL_MAX, self.call(body)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::select! {
                () = sleep(pause) => pause *= 2,
                () = ending.cancelled() => break,
            }
        }
        timeout(CALL_MAX, self.call(body))
            .await
            .unwrap_or(Err(away()))
    }

    async fn call(&self, body: &Bytes) -> io::Result<()> {
        let limits = Limits {
            connect: CALL_MAX,
            tls_handshake: CALL_MAX,
        };
        let Collector { host, port, .. } = &self.collector;
        let address = Address::Tcp {
            host: host.clone(),
            port: *port,
        };
        let socket = Socket::connect(&address, self.proof.as_ref(), limits).await;
        let socket = socket.map_err(io::Error::other)?;
        let mut request = Request::post(self.collector.path.as_str())
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body.clone()))
            .map_err(io::Error::other)?;
        request.headers_mut().extend(self.headers.clone());
        let status = exchange(socket, request, |head| async {
            let response = head?;
            let status = response.status();
            // It says how many spans it refused; that is its log's to tell.
            drop(exchange::read(response, ANSWER_BYTES_MAX).await);
            Ok::<_, hyper::Error>(status)
        });
        judged(status.await.flatten().map_err(io::Error::other)?)
    }
}

/// OTLP names the statuses after which a batch may be sent again.
fn judged(status: StatusCode) -> io::Result<()> {
    match status.as_u16() {
        200..300 => Ok(()),
        429 | 502..=504 => Err(io::Error::other(format!("it answered {status}"))),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it answered {status}"),
        )),
    }
}

fn away() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// The next batch, and whether it is the last.
async fn gather(spans: &mut Receiver<Vec<Span>>, ending: &CancellationToken) -> (Vec<Span>, bool) {
    let mut batch = Vec::new();
    let mut due = None;
    loop {
        let wait = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel-safe: `recv` loses nothing.
            more = spans.recv() => match more {
                Some(more) => batch.extend(more),
                None => return (batch, true),
            },
            () = wait => return (batch, false),
            () = ending.cancelled() => {
                while let Ok(more) = spans.try_recv() {
                    batch.extend(more);
                }
                return (batch, true);
            }
        }
        due.get_or_insert(Instant::now() + GATHER);
        if batch.len() >= BATCH_MAX {
            return (batch, false);
        }
    }
}

/// `key=value,key=value`, as `OTEL_EXPORTER_OTLP_HEADERS` has it.
fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::telemetry::traces::SpanKind;

    fn exporter(port: u16) -> Exporter {
        Exporter {
            collector: format!("http://127.0.0.1:{port}").parse().unwrap(),
            proof: None,
            headers: headers("x-key=secret").unwrap(),
            service: "tidegate".to_owned(),
        }
    }

    fn span() -> Span {
        Span {
            trace: 1,
            id: 2,
            parent: None,
            name: "chat".into(),
            side: SpanKind::Server,
            start: Duration::ZERO,
            end: Duration::ZERO,
            attributes: Vec::new(),
            failure: None,
        }
    }

    #[tokio::test]
    async fn spans_go_out_in_one_batch_and_the_rest_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (traces, spans) = Traces::queue();
        let ending = CancellationToken::new();
        for _ in 0..3 {
            traces.give(vec![span()]);
        }
        ending.cancel();
        let collector = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            while !text.ends_with(b"]}]}]}") {
                text.push(socket.read_u8().await.unwrap());
            }
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                .await
                .unwrap();
            String::from_utf8(text).unwrap()
        };
        let (text, ()) = tokio::join!(collector, exporter(port).run(spans, ending));
        assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("x-key: secret"), "{text}");
        assert_eq!(text.matches("\"spanId\"").count(), 3);
    }

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        assert_eq!(headers("").unwrap().len(), 0);
        let two = headers("a=b, authorization=Basic YWJj").unwrap();
        assert_eq!(two["authorization"], "Basic YWJj");
        assert!(headers("a").is_none() && headers("a b=c").is_none());
    }

    #[test]
    fn headers_stand_in_a_file_too_and_what_is_wrong_with_it_names_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        let read = || headers_of(&SecretSource::File(path.clone()));
        let wrong = || read().unwrap_err().to_string();
        assert!(wrong().contains("otlp_headers_file") && wrong().contains("can't be read"));
        std::fs::write(&path, "authorization=Basic YWJj\n").unwrap();
        assert_eq!(read().unwrap()["authorization"], "Basic YWJj");
        for bad in ["-----BEGIN", &"a=b,".repeat(20_000)] {
            std::fs::write(&path, bad).unwrap();
            assert!(wrong().contains("otlp_headers_file"), "{}", wrong());
        }
    }
}
