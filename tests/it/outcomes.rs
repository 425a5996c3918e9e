//! Ends of requests, as the access log tells them: one line each.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tidegate::auth::{
    Issuer, Keyring, Revocations, RevokedSet, Role, SigningKey, TokenLimits, TokenSpec, Verifier,
};
use tidegate::config::{Settings, load_catalog};
use tidegate::deployment::Registry;
use tidegate::gateway::Gateway;
use tidegate::gateway::listener::Listener;
use tidegate::names::Workspace;
use tidegate::tasks::Tasks;
use tidegate::telemetry::access::AccessLog;
use tidegate::time::{Clock, unix_time};
use tokio_util::sync::CancellationToken;

/// No read in these tests may be longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A gateway before one server, with its access log in a pipe.
struct Bench {
    address: SocketAddr,
    token: String,
    log: BufReader<PipeReader>,
    tasks: Tasks,
}

impl Bench {
    async fn new(upstream: SocketAddr) -> Self {
        Self::with(upstream, "").await
    }

    /// With further tables of the route.
    async fn with(upstream: SocketAddr, tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let route = format!(
            "[route]\nname = \"chat\"\npublic = true\n{tables}[[upstream]]\nurl = \"http://{upstream}\"\n"
        );
        fs::write(dir.path().join("chat.toml"), route).unwrap();
        let settings = Arc::new(Settings::default());
        let catalog = load_catalog(dir.path(), &settings.queues, None);
        assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);

        let key = SigningKey::ephemeral().unwrap();
        let keyring = Keyring::own(&key, "tidegate", "tidegate");
        let revocations = Arc::new(Revocations::new(RevokedSet::default()));
        let verifier = Arc::new(Verifier::new(keyring, revocations).unwrap());
        let issuer = Issuer::new(key, "tidegate", "tidegate");
        let (token, _) = issuer.issue(token_spec(), unix_time()).unwrap();

        let (log, line) = pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", line.as_raw_fd()));
        let log_to = AccessLog::open(Some(&path)).unwrap();
        let (registry, _demands) = Registry::new(Clock::start());
        let gateway = Gateway::new(Arc::clone(&settings), verifier, registry, log_to);
        gateway.install(&catalog);
        gateway.set_ready(true);

        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(any, None, "test").await.unwrap();
        let address = listener.address().unwrap();
        let tasks = Tasks::new();
        let cut = CancellationToken::new();
        let connections = tasks.child();
        let serving = listener.serve(gateway, connections, cut);
        tasks.spawn("listener", serving);
        Self {
            address,
            token,
            log: BufReader::new(log),
            tasks,
        }
    }

    /// Sends a chat request and reads the answer to its end.
    fn ask(&self) -> String {
        let mut answer = String::new();
        self.send().read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a chat request.
    fn send(&self) -> TcpStream {
        self.send_body(r#"{"model":"chat","messages":[]}"#)
    }

    /// Sends a chat request with this body.
    fn send_body(&self, body: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            client,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            body.len(),
        )
        .unwrap();
        client
    }

    /// The next line of the access log.
    fn logged(&mut self) -> Value {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

fn token_spec() -> TokenSpec {
    TokenSpec {
        workspace: Workspace::new("w1").unwrap(),
        subject: None,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        label: None,
        ttl: Duration::from_mins(1),
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    }
}

/// A server that gives one answer to its first request, and keeps the connection
/// open. It tells when it has read the request.
fn upstream(answer: &'static str) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, read) = channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut buffer = [0; 4096];
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let count = socket.read(&mut buffer).unwrap();
            request.extend_from_slice(buffer.get(..count).unwrap());
        }
        let _no_one_may_ask = tell.send(());
        socket.write_all(answer.as_bytes()).unwrap();
        // Until the gateway closes it.
        let _ends = socket.read(&mut buffer);
    });
    (address, read)
}

async fn outcome_of(answer: &'static str) -> Value {
    let mut bench = Bench::new(upstream(answer).0).await;
    tokio::task::spawn_blocking(move || {
        let read = bench.ask();
        assert!(read.starts_with("HTTP/1.1 200"), "{read}");
        bench.logged()
    })
    .await
    .unwrap()
}

/// hyper drops a body of known length with its last byte, without asking for its
/// end: such an answer was once taken for one that the client gave up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_known_length_that_was_read_whole_is_ok() {
    let line = outcome_of(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n\
         {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4},\"pad\":\"1234\"}",
    )
    .await;
    assert_eq!(line["outcome"], "ok", "{line}");
    assert_eq!(line["completion_tokens"], 4, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_chunks_that_was_read_whole_is_ok() {
    let line = outcome_of(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n{}\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(line["outcome"], "ok", "{line}");
}

/// An engine has read the prompt of whoever leaves, and made what has come of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_given_up_counts_what_was_read_and_made() {
    let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n";
    for (answer, phase, made) in [("", "first_byte", 0), (stream, "stream", 2)] {
        let (address, read) = upstream(answer);
        let mut bench = Bench::new(address).await;
        tokio::task::spawn_blocking(move || {
            let mut client = bench.send();
            read.recv_timeout(LIMIT).unwrap();
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while made > 0 && !seen.ends_with(b"\"b\"}}]}\n\n") {
                client.read_exact(&mut byte).unwrap();
                seen.extend(byte);
            }
            drop(client);
            let line = bench.logged();
            assert_eq!(line["outcome"], "client_gone", "{line}");
            assert_eq!(line["phase"], phase, "{line}");
            // 30 bytes, by four for want of experience.
            assert_eq!(line["prompt_tokens"], 8, "{line}");
            assert_eq!(line["completion_tokens"], made, "{line}");
            assert_eq!(line["usage_estimated"], true, "{line}");
        })
        .await
        .unwrap();
    }
}

/// Usage that vLLM tells in every event, where it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exact_stream_that_is_given_up_is_booked_as_its_server_counts_it() {
    const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":{\"prompt_tokens\":11,\"total_tokens\":11,\"completion_tokens\":0}}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":11,\"total_tokens\":14,\"completion_tokens\":3},\"x\":null}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"usage\":{\"prompt_tokens\":11,\"total_tokens\":16,\"completion_tokens\":5}}\n\n";
    let (address, read) = upstream(STREAM);
    let mut bench = Bench::with(address, "[route.stream]\nusage = \"exact\"\n").await;
    tokio::task::spawn_blocking(move || {
        let body = r#"{"model":"chat","messages":[],"stream":true}"#;
        let mut client = bench.send_body(body);
        read.recv_timeout(LIMIT).unwrap();
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.ends_with(b"\"b\"}}]}\n\n") {
            client.read_exact(&mut byte).unwrap();
            seen.extend(byte);
        }
        drop(client);
        let seen = String::from_utf8(seen).unwrap();
        assert!(!seen.contains("usage"), "{seen}");
        assert!(seen.contains("\"a\"}}],\"x\":null}"), "{seen}");
        let line = bench.logged();
        assert_eq!(line["outcome"], "client_gone", "{line}");
        assert_eq!(line["prompt_tokens"], 11, "{line}");
        assert_eq!(line["completion_tokens"], 5, "{line}");
        assert_eq!(line["usage_estimated"], Value::Null, "{line}");
    })
    .await
    .unwrap();
}
