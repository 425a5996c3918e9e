//! A whole gateway as a process of its own, and a client of its admin listener.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// No wait in these tests may be longer.
const LIMIT: Duration = Duration::from_secs(30);

/// A gateway with the instances `ours` (project `research`) and `theirs` (project
/// `other`) of the stand-in.
pub(super) struct Gate {
    pub(super) dir: TempDir,
    process: Running,
    /// `127.0.0.1:PORT` of the admin listener.
    pub(super) admin: String,
    /// The same of the gateway's.
    pub(super) front: String,
    roots: Arc<ClientConfig>,
}

pub(super) fn instance(name: &str, project: &str) -> String {
    format!(
        "[instance]\nname = \"{name}\"\nproject = \"{project}\"\nengine = \"sim\"\n\
         [[deployment]]\nmodel = \"m\"\nendpoint_name = \"{name}-model\"\n\
         [deployment.sim]\nload = \"0s\"\nfirst_token = \"0s\"\ntokens_per_second = 1000\n\
         weights = \"4GiB\"\n"
    )
}

impl Gate {
    pub(super) async fn start() -> Self {
        Self::with_files(&[
            ("ours.toml", instance("ours", "research")),
            ("theirs.toml", instance("theirs", "other")),
        ])
        .await
    }

    /// A gateway with these route files.
    pub(super) async fn with_files(files: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let routes = dir.path().join("routes.d");
        fs::create_dir(&routes).unwrap();
        for (name, text) in files {
            fs::write(routes.join(name), text).unwrap();
        }
        let settings = "[gateway]\nlisten = [\"127.0.0.1:0\"]\naccess_log = \"access.log\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"off\"\n\
             [gpus]\nsource = \"simulated\"\nsimulated = [{ memory = \"16GiB\" }]\n\
             [workers]\nstop_on_exit = true\n";
        fs::write(dir.path().join("tidegate.toml"), settings).unwrap();
        let process = serve(dir.path());
        Self::ready(dir, process).await
    }

    /// Ends it with SIGTERM, and starts it again.
    pub(super) async fn restart(self) -> Self {
        let Self { dir, process, .. } = self;
        drop(process);
        let process = serve(dir.path());
        Self::ready(dir, process).await
    }

    async fn ready(dir: TempDir, process: Running) -> Self {
        let status = async {
            loop {
                if let Ok(socket) =
                    UnixStream::connect(dir.path().join(".tidegate/admin.sock")).await
                {
                    let request = request(Method::GET, "status", &[], String::new());
                    let answer = exchange(socket, request).await;
                    return serde_json::from_slice::<Value>(answer.body()).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let status = tokio::time::timeout(LIMIT, status).await.unwrap();
        let address = |url: &Value| {
            url.as_str()
                .unwrap()
                .trim_start_matches("https://")
                .to_owned()
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(dir.path().join("certs/ca.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            admin: address(&status["admin"]),
            front: address(&status["listen"][0]),
            dir,
            process,
            roots: Arc::new(config),
        }
    }

    /// A call over the socket, where everything is allowed.
    pub(super) async fn socket(&self, method: Method, path: &str, body: Value) -> Response<Bytes> {
        let path_of_socket = self.dir.path().join(".tidegate/admin.sock");
        let socket = UnixStream::connect(path_of_socket).await.unwrap();
        exchange(socket, request(method, path, &[], text(&body))).await
    }

    /// A token of the workspace `acme`.
    pub(super) async fn token(&self, role: &str, projects: &[&str]) -> String {
        self.token_of("acme", &format!("user:{role}"), role, projects)
            .await
    }

    /// A token of any workspace and subject.
    pub(super) async fn token_of(
        &self,
        workspace: &str,
        subject: &str,
        role: &str,
        projects: &[&str],
    ) -> String {
        let body = json!({"workspace": workspace, "role": role, "projects": projects,
            "ttl": "1h", "subject": subject});
        let made = self.socket(Method::POST, "tokens", body).await;
        json_of(&made)["token"].as_str().unwrap().to_owned()
    }

    /// A call over HTTPS, with these headers.
    pub(super) async fn https(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Response<Bytes> {
        let mut request = request(method, path, headers, body);
        let host = http::HeaderValue::from_str(&self.admin).unwrap();
        request.headers_mut().insert("host", host);
        exchange(self.connect(&self.admin).await, request).await
    }

    /// A call over HTTPS with a token.
    pub(super) async fn with(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: String,
    ) -> Response<Bytes> {
        let bearer = format!("Bearer {token}");
        self.https(method, path, &[("authorization", &bearer)], body)
            .await
    }

    /// A request of a client to a model.
    pub(super) async fn ask(&self, token: &str, model: &str) -> Response<Bytes> {
        let body = json!({"model": model, "max_tokens": 5,
            "messages": [{"role": "user", "content": "hi"}]});
        self.chat(token, &body).await
    }

    /// A chat of any kind.
    pub(super) async fn chat(&self, token: &str, body: &Value) -> Response<Bytes> {
        self.post(token, "/v1/chat/completions", body).await
    }

    /// A client's post to any path.
    pub(super) async fn post(&self, token: &str, path: &str, body: &Value) -> Response<Bytes> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let mut request = request(Method::POST, path, &headers, body.to_string());
        request
            .headers_mut()
            .insert("host", http::HeaderValue::from_static("localhost"));
        exchange(self.connect(&self.front).await, request).await
    }

    /// The models that a token may use.
    pub(super) async fn ask_models(&self, token: &str) -> Value {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let mut request = request(Method::GET, "/v1/models", &headers, String::new());
        request
            .headers_mut()
            .insert("host", http::HeaderValue::from_static("localhost"));
        json_of(&exchange(self.connect(&self.front).await, request).await)
    }

    async fn connect(&self, address: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.roots))
            .connect(name, tcp)
            .await
            .unwrap()
    }

    /// Logs in with a token. Returns the cookie and what changes are sent with.
    pub(super) async fn log_in(&self, token: &str) -> (String, String) {
        let body = json!({ "token": token }).to_string();
        let answer = self.https(Method::POST, "session", &[], body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        for part in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let csrf = json_of(&answer)["csrf"].as_str().unwrap().to_owned();
        (cookie, csrf)
    }

    /// Last lines of the audit, as `who action target outcome`.
    pub(super) async fn audited(&self) -> Vec<String> {
        let page = self.socket(Method::GET, "audit?tail=50", Value::Null).await;
        let page = json_of(&page);
        let events = page["events"].as_array().unwrap().iter();
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events
            .map(|event| {
                ["who", "action", "target", "outcome"]
                    .map(|key| word(event, key))
                    .join(" ")
            })
            .collect()
    }
}

/// The process, which is ended in order with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // It may have ended by itself.
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        drop(self.0.wait());
    }
}

fn serve(dir: &Path) -> Running {
    let log = fs::File::create(dir.join("serve.log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("serve")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Running(child)
}

fn text(body: &Value) -> String {
    if body.is_null() {
        String::new()
    } else {
        body.to_string()
    }
}

/// A path of the API, or a whole one.
fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Request<Full<Bytes>> {
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/api/v1/{path}")
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "tidegate");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body))).unwrap()
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<Full<Bytes>>,
) -> Response<Bytes> {
    let talk = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        let answer = async move {
            let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
            Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
        };
        let (answer, ()) = tokio::join!(answer, async { drop(connection.await) });
        answer
    };
    tokio::time::timeout(LIMIT, talk).await.unwrap()
}

pub(super) fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or(Value::Null)
}
