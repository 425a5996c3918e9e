//! The pieces of a request's way through the gateway, each to be run alone.
//!
//! Owns the table of pieces and what each needs around it: tokens, bodies, a gateway on
//! loopback in this process. What is measured of them, time or instructions, is for
//! others to say.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::auth::{
    Issuer, Keyring, Revocations, RevokedSet, Role, SigningKey, TokenLimits, TokenSpec, Verifier,
};
use tidegate::config::{Settings, load_catalog};
use tidegate::deployment::Registry;
use tidegate::deployment::gate::Gate;
use tidegate::gateway::Gateway;
use tidegate::gateway::client::tls::server_config;
use tidegate::gateway::limits::slots::Slots;
use tidegate::gateway::listener::Listener;
use tidegate::gateway::route::table::Table;
use tidegate::gateway::route::table::kept::Kept;
use tidegate::names::Workspace;
use tidegate::openai::api::Api;
use tidegate::openai::request::scan;
use tidegate::openai::splice::{Edits, splice};
use tidegate::openai::sse::StreamTap;
use tidegate::openai::usage::JsonTap;
use tidegate::tasks::Tasks;
use tidegate::telemetry::access::AccessLog;
use tidegate::time::{Clock, unix_seconds, unix_time};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::canned::{self, Instructions};
use crate::error::{BenchError, During};
use crate::tls::{self, Certificate, Trust};

/// Runs a piece once.
pub type Run = Box<dyn FnMut()>;

/// A piece of a request's way.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name on the command line and in the file of figures.
    pub name: &'static str,
    /// Thing that is run.
    pub shows: &'static str,
    /// Runs that are enough for a count that does not vary.
    pub runs: u32,
    /// Prepares it.
    pub make: fn() -> Result<Run, BenchError>,
}

/// All of them.
pub const PARTS: &[Part] = &[
    Part {
        name: "token",
        shows: "check of a token that was verified before",
        runs: 2_000,
        make: token,
    },
    Part {
        name: "scan-1k",
        shows: "scan of a 1 KiB chat request",
        runs: 2_000,
        make: || Ok(scanned(1 << 10)),
    },
    Part {
        name: "scan-1m",
        shows: "scan of a 1 MiB chat request",
        runs: 20,
        make: || Ok(scanned(1 << 20)),
    },
    Part {
        name: "splice",
        shows: "another model's name put into a 1 KiB chat request",
        runs: 2_000,
        make: spliced,
    },
    Part {
        name: "usage",
        shows: "usage read in a 1 KiB answer",
        runs: 2_000,
        make: usage,
    },
    Part {
        name: "sse",
        shows: "a stream of 100 events, each a frame",
        runs: 200,
        make: events,
    },
    Part {
        name: "route",
        shows: "the names of 1,000 models looked up among their routes",
        runs: 20,
        make: route,
    },
    Part {
        name: "permit",
        shows: "a place in a route and in a deployment, and its gate passed",
        runs: 5_000,
        make: permit,
    },
    Part {
        name: "request",
        shows: "a 1 KiB chat over TLS: client, gateway and server in one process",
        runs: 300,
        make: || request(""),
    },
    Part {
        name: "listed",
        shows: "the same, where its name leads to a list of two targets",
        runs: 300,
        make: || request(TARGETS),
    },
];

/// A list of the server, by its name, and of one that is not asked.
const TARGETS: &str = "name = \"first\"\n\n[[upstream]]\nurl = \"http://127.0.0.1:9\"\nname = \"second\"\n\n\
     [[target]]\nto = \"first\"\n\n[[target]]\nto = \"second\"\n";

fn spec() -> Result<TokenSpec, BenchError> {
    Ok(TokenSpec {
        workspace: Workspace::new("bench").map_err(|error| BenchError::said(error.to_string()))?,
        subject: None,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        label: None,
        ttl: Duration::from_hours(24),
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    })
}

/// Makes tokens with the key at `path`, as the gateway of that key would.
pub(crate) struct Mint(Issuer);

impl Mint {
    pub(crate) fn open(path: &Path) -> Result<Self, BenchError> {
        let key = SigningKey::load_or_create(path).map_err(said)?.key;
        Ok(Self(Issuer::new(key, "tidegate", "tidegate")))
    }

    pub(crate) fn token(&self) -> Result<String, BenchError> {
        let (token, _) = self.0.issue(spec()?, unix_time()).map_err(said)?;
        Ok(token)
    }

    fn verifier(&self) -> Result<Arc<Verifier>, BenchError> {
        let keys = Keyring::own(&self.0.key(), "tidegate", "tidegate");
        let revocations = Arc::new(Revocations::new(RevokedSet::default()));
        Ok(Arc::new(Verifier::new(keys, revocations).map_err(said)?))
    }
}

fn said(error: impl std::error::Error) -> BenchError {
    BenchError::said(error.to_string())
}

fn directory() -> Result<tempfile::TempDir, BenchError> {
    tempfile::tempdir().during(|| "make a temporary directory".to_owned())
}

fn token() -> Result<Run, BenchError> {
    let dir = directory()?;
    let mint = Mint::open(&dir.path().join("key.pem"))?;
    let (token, verifier) = (mint.token()?, mint.verifier()?);
    let now = unix_seconds();
    verifier.verify(&token, now).map_err(said)?;
    Ok(Box::new(move || {
        drop(std::hint::black_box(verifier.verify(&token, now)));
    }))
}

fn body(bytes: usize) -> Bytes {
    let ask = Instructions {
        reply: 1024,
        ..Instructions::default()
    };
    canned::chat_request(bytes, canned::MODEL, ask).into()
}

fn scanned(bytes: usize) -> Run {
    let body = body(bytes);
    Box::new(move || drop(std::hint::black_box(scan(&body))))
}

fn spliced() -> Result<Run, BenchError> {
    let body = body(1024);
    let edits = Edits {
        model: Some("another-name"),
        include_usage: false,
        continuous_usage: false,
    };
    scan(&body).map_err(said)?;
    let pieces = body.clone().into();
    Ok(Box::new(move || {
        if let Ok(scan) = scan(&body) {
            drop(std::hint::black_box(splice(&pieces, &scan, edits)));
        }
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "as the other pieces")]
fn usage() -> Result<Run, BenchError> {
    let reply = Bytes::from(canned::chat_reply(1024));
    Ok(Box::new(move || {
        let mut tap = JsonTap::new(Api::Chat);
        tap.feed(&reply);
        std::hint::black_box(tap.usage());
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "as the other pieces")]
fn events() -> Result<Run, BenchError> {
    let stream = canned::Stream::body(100, true);
    let all = Bytes::from(stream.bytes);
    let mut start = 0;
    let frames: Vec<Bytes> = stream
        .ends
        .iter()
        .map(|&end| all.slice(std::mem::replace(&mut start, end)..end))
        .collect();
    Ok(Box::new(move || {
        let mut tap = StreamTap::new(Api::Chat, true);
        for frame in &frames {
            tap.feed(frame.clone(), &mut |part| drop(std::hint::black_box(part)));
        }
    }))
}

/// A table of `count` routes to nobody.
fn table(count: usize) -> Result<Table, BenchError> {
    let dir = directory()?;
    write_routes(dir.path(), count, "http://127.0.0.1:9")?;
    let catalog = load_catalog(dir.path(), &Settings::default().queues, None);
    let (registry, _demands) = Registry::new(Clock::start());
    Ok(Kept::default().compile(&catalog, &registry))
}

/// Writes route files `r0.toml` and so on, for models of the same names.
pub(crate) fn write_routes(dir: &Path, count: usize, url: &str) -> Result<(), BenchError> {
    for n in 0..count {
        let text = format!(
            "[route]\nname = \"r{n}\"\npublic = true\nmodels = [\"r{n}\"]\n\n[[upstream]]\nurl = \"{url}\"\n"
        );
        let path = dir.join(format!("r{n}.toml"));
        fs::write(&path, text).during(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn route() -> Result<Run, BenchError> {
    let table = table(1_000)?;
    // Each of them: where one lies among the others is a matter of luck.
    let names: Vec<String> = (0..1_000).map(|n| format!("r{n}")).collect();
    if names.iter().any(|name| table.by_model(name).is_none()) {
        return Err(BenchError::said("the routes are not there"));
    }
    Ok(Box::new(move || {
        for name in &names {
            std::hint::black_box(table.by_model(name));
        }
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "as the other pieces")]
fn permit() -> Result<Run, BenchError> {
    let (route, deployment) = (Slots::new(Some(64)), Slots::new(Some(64)));
    let gate = Gate::opened(Clock::start());
    Ok(Box::new(move || {
        let places = (route.take_free(), deployment.take_free());
        drop(std::hint::black_box((places, gate.enter())));
    }))
}

/// With these lines behind the upstream.
fn request(more: &str) -> Result<Run, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "start the runtime".to_owned())?;
    let mut world = runtime.block_on(World::new(more))?;
    Ok(Box::new(move || world.ask(&runtime)))
}

/// A client on a connection that stands, a gateway and a server.
struct World {
    client: TlsStream<TcpStream>,
    request: Vec<u8>,
    answer: Vec<u8>,
    _tasks: Tasks,
    _server: TaskTracker,
}

impl World {
    async fn new(more: &str) -> Result<Self, BenchError> {
        let dir = directory()?;
        let server = TcpListener::bind("127.0.0.1:0")
            .await
            .during(|| "listen on loopback".to_owned())?;
        let upstream = server
            .local_addr()
            .during(|| "read the address of a socket".to_owned())?;
        let tasks_of_server = TaskTracker::new();
        drop(tasks_of_server.spawn(answer_all(server)));
        let routes = dir.path().join("routes.d");
        fs::create_dir(&routes).during(|| "make a directory".to_owned())?;
        let text = format!(
            "[route]\nname = \"bench\"\npublic = true\nmodels = [\"bench\"]\n\n[[upstream]]\nurl = \"http://{upstream}\"\n{more}"
        );
        fs::write(routes.join("bench.toml"), text).during(|| "write a route".to_owned())?;
        let settings = Arc::new(Settings::default());
        let catalog = load_catalog(&routes, &settings.queues, None);
        let mint = Mint::open(&dir.path().join("key.pem"))?;
        let log = AccessLog::open(Some(Path::new("/dev/null"))).during(|| "log".to_owned())?;
        let (registry, _demands) = Registry::new(Clock::start());
        let gateway = Gateway::new(settings, mint.verifier()?, registry, log);
        gateway.install(&catalog);
        gateway.set_ready(true);

        let certificate = Certificate::make(dir.path())?;
        let config = server_config(&certificate.server, &certificate.key).map_err(said)?;
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any, Some(config), "bench")
            .await
            .map_err(said)?;
        let address = listener
            .address()
            .during(|| "read the address of a socket".to_owned())?;
        let tasks = Tasks::new();
        tasks.spawn_bare(listener.serve(gateway, tasks.child(), CancellationToken::new()));
        let trust = Trust::Ca(certificate.ca.clone());
        let connector = TlsConnector::from(tls::client(&trust, b"http/1.1")?);
        let name = "localhost".try_into().map_err(said)?;
        let socket = TcpStream::connect(address)
            .await
            .during(|| "connect".to_owned())?;
        let client = connector
            .connect(name, socket)
            .await
            .during(|| "shake hands".to_owned())?;
        let mut world = Self {
            client,
            request: whole_request(&mint.token()?),
            answer: vec![0; 64 << 10],
            _tasks: tasks,
            _server: tasks_of_server,
        };
        let first = world
            .exchange()
            .await
            .during(|| "ask the gateway".to_owned())?;
        if !first.starts_with(b"HTTP/1.1 200") {
            let text = String::from_utf8_lossy(&first).into_owned();
            return Err(BenchError::Said(text));
        }
        Ok(world)
    }

    fn ask(&mut self, runtime: &Runtime) {
        drop(std::hint::black_box(runtime.block_on(self.exchange())));
    }

    /// Sends the request, reads the answer, returns its head.
    async fn exchange(&mut self) -> std::io::Result<Vec<u8>> {
        self.client.write_all(&self.request).await?;
        self.client.flush().await?;
        let read = read_message(&mut self.client, &mut self.answer).await?;
        Ok(self
            .answer
            .get(..read.min(256))
            .unwrap_or_default()
            .to_vec())
    }
}

fn whole_request(token: &str) -> Vec<u8> {
    let body = body(1024);
    let mut request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n\
         content-type: application/json\r\nuser-agent: OpenAI/Python 2.8.1\r\n\
         x-stainless-lang: python\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

/// Answers every request on every connection alike.
async fn answer_all(listener: TcpListener) {
    let tasks = TaskTracker::new();
    let reply = canned::chat_reply(1024);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        reply.len()
    );
    let answer: Arc<[u8]> = (head + &reply).into_bytes().into();
    while let Ok((mut socket, _)) = listener.accept().await {
        let answer = Arc::clone(&answer);
        drop(tasks.spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while read_message(&mut socket, &mut buffer)
                .await
                .is_ok_and(|read| read > 0)
            {
                if socket.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }));
    }
}

/// Reads a head and a body of declared length; returns how many bytes, 0 at the end.
async fn read_message(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut [u8],
) -> std::io::Result<usize> {
    let mut filled = 0;
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let read = stream.read(free).await?;
        filled += read;
        let seen = buffer.get(..filled).unwrap_or_default();
        if read == 0 || whole_length(seen).is_some_and(|length| filled >= length) {
            return Ok(filled);
        }
    }
}

/// Length of the message whose beginning is there.
fn whole_length(seen: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(seen, b"\r\n\r\n")?;
    let text = seen.get(..head)?;
    let at = memchr::memmem::find(text, b"content-length: ")? + b"content-length: ".len();
    let digits = text.get(at..)?.split(|byte| *byte == b'\r').next()?;
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_can_be_made_and_run() {
        for part in PARTS {
            let mut run = (part.make)().unwrap();
            run();
            run();
        }
    }
}
