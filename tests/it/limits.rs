//! Limits of tokens, as a client sees them: headers, refusals, and what is given
//! back.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

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

/// A gateway before one server, with a token for each of some limits.
struct Bench {
    address: SocketAddr,
    tokens: Vec<String>,
    tasks: Tasks,
}

impl Bench {
    async fn new(limits: &[TokenLimits]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let route = format!(
            "[route]\nname = \"chat\"\npublic = true\nrequests_per_minute = 100\n\
             [[upstream]]\nurl = \"http://{}\"\n",
            upstream()
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
        let issue = |limits| issuer.issue(spec(limits), unix_time()).unwrap().0;
        let tokens = limits.iter().copied().map(issue).collect();
        let (registry, _demands) = Registry::new(Clock::start());
        let log = AccessLog::open(Some(&dir.path().join("access.log"))).unwrap();
        let gateway = Gateway::new(settings, verifier, registry, log);
        gateway.install(&catalog);
        // What was used outlives a reload.
        gateway.install(&catalog);
        gateway.set_ready(true);
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(any, None, "test").await.unwrap();
        let address = listener.address().unwrap();
        let tasks = Tasks::new();
        let cut = CancellationToken::new();
        let connections = tasks.child();
        tasks.spawn("listener", listener.serve(gateway, connections, cut));
        Self {
            address,
            tokens,
            tasks,
        }
    }

    /// Sends a chat request with one of the tokens and reads the answer.
    fn ask(&self, token: usize, max_tokens: u32) -> String {
        let body = format!(r#"{{"model":"chat","max_tokens":{max_tokens},"messages":[]}}"#);
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            client,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.tokens.get(token).unwrap(),
            body.len(),
        )
        .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

fn spec(limits: TokenLimits) -> TokenSpec {
    TokenSpec {
        workspace: Workspace::new("w1").unwrap(),
        subject: None,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        label: None,
        ttl: Duration::from_mins(1),
        metadata: None,
        limits,
        may_load: false,
    }
}

/// A server whose every answer used 20 tokens; it serves eight connections.
fn upstream() -> SocketAddr {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
        Content-Length: 48\r\nConnection: close\r\n\r\n\
        {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":15}}";
    let (head, body) = ANSWER.split_once("\r\n\r\n").unwrap();
    let answer = format!(
        "{}\r\n\r\n{body}",
        head.replace("48", &body.len().to_string())
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().take(8) {
            let mut socket = socket.unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            let (mut buffer, mut request) = ([0; 4096], Vec::new());
            while !request.ends_with(b"}") {
                let count = socket.read(&mut buffer).unwrap();
                request.extend_from_slice(buffer.get(..count).unwrap());
            }
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_token_are_told_kept_and_settled_by_what_was_used() {
    let requests = TokenLimits {
        rpm: Some(2),
        ..TokenLimits::default()
    };
    let tokens = TokenLimits {
        tpm: Some(1000),
        ..TokenLimits::default()
    };
    let bench = Bench::new(&[requests, tokens, TokenLimits::default()]).await;
    tokio::task::spawn_blocking(move || {
        requests_run_out(&bench);
        tokens_are_settled(&bench);
        // The route's own limit, for a token that has none.
        let answer = bench.ask(2, 10);
        assert_eq!(header(&answer, "x-ratelimit-limit-requests"), Some("100"));
        assert_eq!(header(&answer, "x-ratelimit-limit-tokens"), None);
    })
    .await
    .unwrap();
}

fn requests_run_out(bench: &Bench) {
    for left in ["1", "0"] {
        let answer = bench.ask(0, 10);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(header(&answer, "x-ratelimit-limit-requests"), Some("2"));
        let remaining = header(&answer, "x-ratelimit-remaining-requests");
        assert_eq!(remaining, Some(left), "{answer}");
    }
    let denied = bench.ask(0, 10);
    assert!(denied.starts_with("HTTP/1.1 429"), "{denied}");
    assert!(denied.contains("rate_limit_exceeded"), "{denied}");
    assert_eq!(header(&denied, "x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(header(&denied, "x-should-retry"), Some("true"));
    let after: u32 = header(&denied, "retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{denied}");
}

/// Each request holds 900 and uses 20: only what was used is charged.
fn tokens_are_settled(bench: &Bench) {
    for _ in 0..3 {
        let answer = bench.ask(1, 900);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(header(&answer, "x-ratelimit-limit-tokens"), Some("1000"));
    }
    let never = bench.ask(1, 1001);
    assert!(never.starts_with("HTTP/1.1 429"), "{never}");
    assert!(never.contains("insufficient_quota"), "{never}");
    assert_eq!(header(&never, "x-ratelimit-limit-tokens"), Some("1000"));
    assert_eq!(header(&never, "x-should-retry"), Some("false"));
}
