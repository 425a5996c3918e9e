//! Talks to the running gateway over its admin socket.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ConfigArg, Failure};
use crate::tasks::Tasks;
use crate::time::timeout;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Limit of a call that is not followed.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Why the running gateway could not be asked.
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
    /// The gateway refused.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("the gateway broke off its answer")]
    Broke,
}

/// The admin API of a running gateway.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    tasks: Tasks,
}

impl Client {
    /// The gateway whose settings these are.
    pub(super) fn new(config: &ConfigArg) -> Result<Self, Failure> {
        Ok(Self::at(&config.load()?.admin.socket))
    }

    /// The gateway that listens there.
    pub(super) fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            tasks: Tasks::new(),
        }
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
        let socket =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => ClientError::Forbidden(self.socket.clone()),
                    _ => ClientError::NotRunning(self.socket.clone()),
                })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        self.tasks
            .spawn("connection", async move { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header("host", "tidegate")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        Ok(sender.send_request(request).await?)
    }
}

/// What can't be.
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

/// Escapes a name for a path or a query.
pub(super) fn escaped(name: &str) -> String {
    name.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Runs a command's future on a small runtime.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
