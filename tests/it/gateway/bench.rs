//! A gateway in this process, servers that follow a script, and clients that
//! write bytes.

use std::fmt::Write;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tidegate::auth::certs::ensure_server_pair;
use tidegate::auth::{
    Issuer, Keyring, Pattern, Revocations, RevokedSet, Role, SigningKey, TokenLimits, TokenSpec,
    Verifier,
};
use tidegate::config::{Route, Settings, load_catalog};
use tidegate::deployment::{Demands, Registry};
use tidegate::gateway::client::tls::server_config;
use tidegate::gateway::listener::Listener;
use tidegate::gateway::{Gateway, lookout};
use tidegate::names::Workspace;
use tidegate::tasks::Tasks;
use tidegate::telemetry::access::AccessLog;
use tidegate::time::{Clock, unix_time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// No wait in these tests may be longer.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Life of tokens: longer than any test, also one that is run by hand.
const LIFE: Duration = Duration::from_hours(4);

/// A gateway on loopback, over TLS and plain.
pub(super) struct Bench {
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) revocations: Arc<Revocations>,
    issuer: Issuer,
    /// Signs with the same key, for another audience.
    elsewhere: Issuer,
    root: CertificateDer<'static>,
    /// Told to end, the listeners close; what is open may finish until the cut.
    pub(super) tasks: Tasks,
    pub(super) cut: CancellationToken,
    pub(super) gateway: Arc<Gateway>,
    pub(super) registry: Registry,
    /// Demands that a conductor would hear, where there is to be one.
    pub(super) demands: Option<Demands>,
}

impl Bench {
    /// One route, `chat`, to the servers; `extra` are further lines of `[route]`.
    pub(super) async fn new(servers: &[SocketAddr], extra: &str) -> Self {
        Self::with(servers, extra, Settings::default()).await
    }

    pub(super) async fn with(servers: &[SocketAddr], extra: &str, settings: Settings) -> Self {
        Self::with_tls(servers, extra, settings, None).await
    }

    /// As [`Self::with`], over TLS as `config` says.
    pub(super) async fn with_tls(
        servers: &[SocketAddr],
        extra: &str,
        settings: Settings,
        config: Option<Arc<ServerConfig>>,
    ) -> Self {
        Self::build(&bare(servers), extra, (settings, config), |_| {}).await
    }

    /// With a route that no file could describe, as one of very short times.
    pub(super) async fn tuned(
        servers: &[SocketAddr],
        extra: &str,
        tune: impl Fn(&mut Route),
    ) -> Self {
        let servers = bare(servers);
        Self::build(&servers, extra, (Settings::default(), None), tune).await
    }

    /// With further lines of each `[[upstream]]`.
    pub(super) async fn with_upstreams(servers: &[(SocketAddr, &str)], extra: &str) -> Self {
        Self::build(servers, extra, (Settings::default(), None), |_| {}).await
    }

    /// Takes the routes of a directory into effect instead of those before.
    pub(super) fn install(&self, routes: &Path) {
        let catalog = load_catalog(routes, &Settings::default().queues, None);
        assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
        self.gateway.install(&catalog);
    }

    async fn build(
        servers: &[(SocketAddr, &str)],
        extra: &str,
        (settings, config): (Settings, Option<Arc<ServerConfig>>),
        tune: impl Fn(&mut Route),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let routes = dir.path().join("routes.d");
        fs::create_dir(&routes).unwrap();
        fs::write(routes.join("chat.toml"), route("chat", servers, extra)).unwrap();
        let hidden = "project = \"other\"";
        fs::write(routes.join("hidden.toml"), route("hidden", servers, hidden)).unwrap();
        let settings = Arc::new(settings);
        let mut catalog = load_catalog(&routes, &settings.queues, None);
        assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
        for route in &mut catalog.routes {
            tune(Arc::make_mut(route));
        }

        let signing = dir.path().join("signing.pem");
        let key = SigningKey::load_or_create(&signing).unwrap().key;
        let same = SigningKey::load_or_create(&signing).unwrap().key;
        let keyring = Keyring::own(&key, "tidegate", "tidegate");
        let revocations = Arc::new(Revocations::new(RevokedSet::default()));
        let verifier = Arc::new(Verifier::new(keyring, Arc::clone(&revocations)).unwrap());
        let log = AccessLog::open(Some(Path::new("/dev/null"))).unwrap();
        let (registry, demands) = Registry::new(Clock::start());
        let gateway = Gateway::new(Arc::clone(&settings), verifier, registry.clone(), log);
        gateway.install(&catalog);
        gateway.set_ready(true);

        let (certificate, private) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        ensure_server_pair(&certificate, &private).unwrap();
        let own = server_config(&certificate, &private).unwrap();
        let config = config.unwrap_or(own);
        let root = CertificateDer::from_pem_file(dir.path().join("ca.pem")).unwrap();
        let tasks = Tasks::new();
        let looking = lookout::run(Arc::clone(&gateway), tasks.child());
        tasks.spawn("lookout", looking);
        let cut = CancellationToken::new();
        let mut addresses = Vec::new();
        for tls in [None, Some(config)] {
            let any = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::bind(any, tls, "test").await.unwrap();
            let listener = listener.proxied(!settings.gateway.proxies.protocol.is_empty());
            addresses.push(listener.address().unwrap());
            let gateway = Arc::clone(&gateway);
            let serving = listener.serve(gateway, tasks.child(), cut.clone());
            tasks.spawn("listener", serving);
        }
        Self {
            plain: addresses[0],
            tls: addresses[1],
            revocations,
            issuer: Issuer::new(key, "tidegate", "tidegate"),
            elsewhere: Issuer::new(same, "tidegate", "elsewhere"),
            root,
            tasks,
            cut,
            gateway,
            registry,
            demands: Some(demands),
        }
    }

    /// A token that may use every route of no project, and its id.
    pub(super) fn token(&self) -> (String, String) {
        let (token, record) = self.issuer.issue(spec(), unix_time()).unwrap();
        (token, record.jti)
    }

    /// A token that expired a while ago.
    pub(super) fn expired(&self) -> String {
        let then = unix_time().saturating_sub(2 * LIFE);
        self.issuer.issue(spec(), then).unwrap().0
    }

    /// A token that is good at another gateway of the same key.
    pub(super) fn token_of_elsewhere(&self) -> String {
        self.elsewhere.issue(spec(), unix_time()).unwrap().0
    }

    pub(super) fn token_for(&self, endpoint: &str) -> String {
        let endpoints = vec![Pattern::new(endpoint).unwrap()];
        let spec = TokenSpec {
            endpoints,
            ..spec()
        };
        self.issuer.issue(spec, unix_time()).unwrap().0
    }

    pub(super) fn token_by(&self, spec: TokenSpec) -> String {
        self.issuer.issue(spec, unix_time()).unwrap().0
    }

    pub(super) fn token_of(&self, workspace: &str) -> String {
        let spec = TokenSpec {
            workspace: Workspace::new(workspace).unwrap(),
            ..spec()
        };
        self.issuer.issue(spec, unix_time()).unwrap().0
    }

    pub(super) async fn connect(&self) -> Client<TcpStream> {
        Client(TcpStream::connect(self.plain).await.unwrap())
    }

    /// A TLS connection; `protocols` is what it offers by ALPN.
    pub(super) async fn connect_tls(
        &self,
        version: &'static SupportedProtocolVersion,
        protocols: &[&str],
    ) -> Client<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(self.tls).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Client(connector.connect(name, socket).await.unwrap())
    }

    /// A whole request for the chat API.
    pub(super) fn post(&self, body: &str) -> String {
        post_to(
            "/v1/chat/completions",
            &self.token().0,
            "application/json",
            body,
        )
    }

    /// Sends one request on a connection of its own; the whole answer.
    pub(super) async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// Runs a future beside the test.
    pub(super) fn beside(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_bare(future);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

/// Without further lines.
fn bare(servers: &[SocketAddr]) -> Vec<(SocketAddr, &'static str)> {
    servers.iter().map(|address| (*address, "")).collect()
}

fn route(name: &str, servers: &[(SocketAddr, &str)], extra: &str) -> String {
    let public = if extra.contains("project") {
        ""
    } else {
        "public = true\n"
    };
    let mut text = format!("[route]\nname = \"{name}\"\n{public}{extra}\n");
    for (server, lines) in servers {
        write!(text, "[[upstream]]\nurl = \"http://{server}\"\n{lines}\n").unwrap();
    }
    text
}

pub(super) fn spec() -> TokenSpec {
    TokenSpec {
        workspace: Workspace::new("w1").unwrap(),
        subject: None,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        label: None,
        ttl: LIFE,
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    }
}

/// A whole request with a token and a body.
pub(super) fn post_to(path: &str, token: &str, media: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {media}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// An answer of HTTP/1.1, read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One end of a connection that speaks HTTP/1.1 by hand.
pub(super) struct Client<S>(pub(super) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Reads a head, and the body as its headers frame it.
    pub(super) async fn answer(&mut self) -> Answer {
        tokio::time::timeout(LIMIT, self.read_answer())
            .await
            .unwrap()
    }

    async fn read_answer(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let body = if let Some(length) = answer.header("content-length") {
            let mut body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            body
        } else if answer.header("transfer-encoding").is_some() {
            self.chunks().await
        } else {
            Vec::new()
        };
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.0.read_exact(&mut chunk).await.unwrap();
            if size == 0 {
                return body;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    /// Reads up to and with `end`, or to the end of the connection.
    pub(super) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            match self.0.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
        read
    }

    /// True if the peer closes the connection without another byte.
    pub(super) async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(LIMIT, self.0.read_u8()).await;
        read.unwrap().is_err()
    }

    /// Reads a request with a body of declared length.
    pub(super) async fn request(&mut self) -> Option<(String, String)> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some((head, String::from_utf8(body).unwrap()))
    }
}

/// A server: `script` gets each connection with its number.
pub(super) async fn server<F, R>(script: F) -> SocketAddr
where
    F: Fn(usize, Client<TcpStream>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the runtime of its test.
    let tasks = Tasks::new();
    let connections = tasks.child();
    tasks.spawn_bare(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            connections.spawn_bare(script(number, Client(socket)));
        }
    });
    address
}

/// A server that answers every request alike, on as many connections as come.
pub(super) async fn answering(answer: &'static str) -> SocketAddr {
    server(move |_, mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(answer).await;
        }
    })
    .await
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"hello\": \"world\"}";
