//! Talks to a running gateway: over its admin socket, or from afar over HTTPS.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::common::{Failure, RemoteArg};
use crate::auth::Secret;
use crate::outbound::Address;
use crate::outbound::dial::Failure as Dialled;
use crate::outbound::exchange;
use crate::outbound::roots::client_config;
use crate::outbound::socket::{Limits, Proof, Socket};
use crate::tasks::Tasks;
use crate::time::timeout;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Limits of a connection and of its handshake.
const CONNECT: Limits = Limits {
    connect: Duration::from_secs(10),
    tls_handshake: Duration::from_secs(10),
};
/// Limit of a call that is not followed.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Reason for which the running gateway could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// No one listens.
    #[error(
        "no gateway runs here ({0} does not answer): start one with `tidegate serve`, or name its configuration with --config"
    )]
    NotRunning(PathBuf),
    /// The socket may not be opened.
    #[error(
        "the admin socket {0} may not be opened by this user: use the user that runs the gateway"
    )]
    Forbidden(PathBuf),
    /// The text is not an address that a token may be sent to.
    #[error(
        "{0:?} is not an address of an admin listener: write it as https://gateway.example.org:9443"
    )]
    Url(String),
    /// The address is given, and no token.
    #[error(
        "a gateway that is asked by --admin-url wants a token: give one with the role operator or admin as --admin-token or --admin-token-file, or in TIDEGATE_ADMIN_TOKEN or TIDEGATE_ADMIN_TOKEN_FILE"
    )]
    NoToken,
    /// There is nothing to verify the server with.
    #[error(
        "the certificate authorities in {0} can't be used: name a PEM file with that of the gateway with --admin-ca, for one that Tidegate made: its certs/ca.pem"
    )]
    Roots(String),
    /// No connection.
    #[error(
        "{0} can't be reached: see whether the gateway runs and its [admin] listen is that address"
    )]
    Unreachable(String, #[source] Dialled),
    /// The server is not who it should be.
    #[error(
        "TLS with {0} failed: where the gateway has a certificate of its own making, name its certs/ca.pem with --admin-ca"
    )]
    Tls(String, #[source] io::Error),
    /// The gateway refused.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("the gateway broke off its answer")]
    Broke,
}

/// Place of the API.
#[derive(Debug)]
enum Target {
    /// The Unix socket, whose file's permissions are the authentication.
    Socket(PathBuf),
    /// The HTTPS listener, with a token.
    Https(Box<Https>),
}

struct Https {
    authority: String,
    address: Address,
    proof: Proof,
    token: Secret<String>,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Https")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// The admin API of a running gateway.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    tasks: Tasks,
}

impl Client {
    /// The gateway that the arguments name: by its address, else by its settings.
    pub(super) fn new(remote: &RemoteArg) -> Result<Self, Failure> {
        match &remote.admin_url {
            Some(url) => Self::https(url, remote),
            None => Ok(Self::at(&remote.config.load()?.admin.socket)),
        }
    }

    /// The gateway that listens there.
    pub(super) fn at(socket: &Path) -> Self {
        Self {
            target: Target::Socket(socket.to_owned()),
            tasks: Tasks::new(),
        }
    }

    fn https(url: &str, remote: &RemoteArg) -> Result<Self, Failure> {
        let odd = || ClientError::Url(url.chars().take(80).collect());
        let uri: Uri = url.parse().map_err(|_| odd())?;
        let authority = uri.authority().ok_or_else(odd)?;
        if uri.scheme_str() != Some("https") || url.contains('@') || uri.path().len() > 1 {
            return Err(odd().into());
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let token = remote.token()?.ok_or(ClientError::NoToken)?;
        let ca = remote.admin_ca.as_deref();
        let client = client_config(ca).map_err(|_| {
            let named = ca.map(|ca| ca.display().to_string());
            ClientError::Roots(named.unwrap_or_else(|| "the system's list".to_owned()))
        })?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| odd())?;
        let https = Https {
            address: Address::Tcp {
                host: host.to_owned(),
                port: authority.port_u16().unwrap_or(443),
            },
            authority: authority.to_string(),
            proof: Proof { client, name },
            token,
        };
        Ok(Self {
            target: Target::Https(Box::new(https)),
            tasks: Tasks::new(),
        })
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Asks with a body.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let bytes = body.map(serde_json::to_vec).transpose()?;
        self.call_bytes(method, path, bytes.unwrap_or_default().into())
            .await
    }

    /// Asks with a body as it is.
    pub(super) async fn call_bytes<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let call = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let limited = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let bytes = limited
                .collect()
                .await
                .map_err(|_| ClientError::Broke)?
                .to_bytes();
            answer(status, &bytes)
        };
        timeout(CALL_MAX, call)
            .await
            .map_err(|_| ClientError::Broke)?
    }

    /// Asks, and returns the body to be read as it comes.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|_| ClientError::Broke)?;
        answer::<Never>(status, &bytes.to_bytes()).map(|never| match never {})
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header("content-type", "application/json");
        match &self.target {
            Target::Socket(path) => {
                let address = Address::Unix(path.clone());
                let socket = Socket::connect(&address, None, CONNECT).await;
                let socket = socket.map_err(|failure| match failure {
                    Dialled::Other(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        ClientError::Forbidden(path.clone())
                    }
                    _ => ClientError::NotRunning(path.clone()),
                })?;
                let request = request.header("host", "tidegate").body(Full::new(body))?;
                self.exchange(socket, request).await
            }
            Target::Https(https) => {
                let socket = https.connect().await?;
                let token = format!("Bearer {}", https.token.expose());
                let request = request
                    .header("host", &https.authority)
                    .header("authorization", token)
                    .body(Full::new(body))?;
                self.exchange(socket, request).await
            }
        }
    }

    async fn exchange(
        &self,
        socket: Socket,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, Failure> {
        let (mut sender, connection) = exchange::handshake(socket).await?;
        self.tasks
            .spawn("connection", async move { drop(connection.await) });
        Ok(sender.send_request(request).await?)
    }
}

impl Https {
    async fn connect(&self) -> Result<Socket, ClientError> {
        let socket = Socket::connect(&self.address, Some(&self.proof), CONNECT).await;
        let authority = || self.authority.clone();
        socket.map_err(|failure| match failure {
            Dialled::Tls(error) => ClientError::Tls(authority(), error),
            failure => ClientError::Unreachable(authority(), failure),
        })
    }
}

/// Type without a value.
#[derive(serde::Deserialize)]
enum Never {}

fn answer<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, Failure> {
    if status.is_success() {
        return Ok(serde_json::from_slice(bytes)?);
    }
    let message = serde_json::from_slice::<serde_json::Value>(bytes)
        .ok()
        .and_then(|value| {
            value
                .get("error")?
                .get("message")?
                .as_str()
                .map(str::to_owned)
        })
        .unwrap_or_else(|| String::from_utf8_lossy(bytes).trim().to_owned());
    Err(ClientError::Refused(message).into())
}

/// Runs a command's future on a small runtime.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
