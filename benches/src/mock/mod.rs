//! The mock upstream: canned answers in vLLM's shapes, much cheaper than any proxy.
//!
//! Owns its listeners, connections and prepared answers; one thread serves all. Answers
//! are written from memory that was made once, and slow streams share one timer wheel
//! ([`wheel`]). Deliberately not a model: what it answers stands in the request
//! ([`crate::canned`]), and it checks of a request only what it needs to read it.

mod request;
mod socket;
mod wheel;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use self::request::{Request, RequestReader};
use self::socket::Socket;
use self::wheel::{SlowStream, Wheel};
use crate::canned::{self, Instructions};
use crate::error::{BenchError, During};

/// Prepared answers kept; a run uses a handful.
const ANSWERS_MAX: usize = 64;

/// A fast upstream with canned answers
#[derive(clap::Args)]
pub(crate) struct MockArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Unix socket to listen on as well.
    #[arg(long)]
    unix: Option<PathBuf>,
}

/// Line of JSON that a server of this package prints once it accepts.
#[derive(Serialize, Deserialize)]
pub(crate) struct Listening {
    /// Address of the listener.
    pub(crate) tcp: SocketAddr,
}

impl Listening {
    /// Prints the line.
    pub(crate) fn announce(&self) -> Result<(), BenchError> {
        let line = serde_json::to_string(self)?;
        writeln!(std::io::stdout(), "{line}").during(|| "write to stdout".to_owned())
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(args: &MockArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "start the runtime".to_owned())?;
    LocalSet::new().block_on(&runtime, run(args))
}

async fn run(args: &MockArgs) -> Result<(), BenchError> {
    let tcp = listen_tcp(args.listen)?;
    let unix = args.unix.as_ref().map(listen_unix).transpose()?;
    Listening {
        tcp: tcp
            .local_addr()
            .during(|| "read the address of a socket".to_owned())?,
    }
    .announce()?;

    let mock = Rc::new(Mock::default());
    let connections = TaskTracker::new();
    let wheel = mock.clone();
    let turning = async move { wheel.wheel.turn().await };
    let accepting = async {
        loop {
            let socket = tokio::select! {
                accepted = tcp.accept() => accepted.map(|(stream, _)| Socket::tcp(stream)),
                accepted = accept_unix(unix.as_ref()) => accepted.map(Socket::Unix),
            };
            match socket {
                Ok(socket) => {
                    let mock = mock.clone();
                    drop(connections.spawn_local(async move { mock.converse(socket).await }));
                }
                // Out of file descriptors: those that end make room.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    };
    tokio::join!(turning, accepting);
    Ok(())
}

/// A listener with a backlog for thousands of connections at once.
pub(crate) fn listen_tcp(address: SocketAddr) -> Result<TcpListener, BenchError> {
    let bind = || {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(16_384)
    };
    bind().during(|| format!("listen on {address}"))
}

fn listen_unix(path: &PathBuf) -> Result<UnixListener, BenchError> {
    UnixListener::bind(path).during(|| format!("listen on {}", path.display()))
}

async fn accept_unix(listener: Option<&UnixListener>) -> std::io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// The prepared answers and the wheel of slow streams.
#[derive(Default)]
struct Mock {
    wheel: Wheel,
    replies: RefCell<HashMap<usize, Rc<[u8]>>>,
    streams: RefCell<HashMap<(u32, bool), Rc<canned::Stream>>>,
}

impl Mock {
    /// Answers requests until the client closes or says something unreadable.
    async fn converse(&self, socket: Socket) {
        let socket = Rc::new(socket);
        let mut reader = RequestReader::default();
        while let Ok(Some(request)) = reader.next(&socket).await {
            let close = request.close;
            if self.answer(&socket, &request).await.is_err() || close {
                return;
            }
        }
    }

    async fn answer(&self, socket: &Rc<Socket>, request: &Request) -> std::io::Result<()> {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health") => socket.write_all(&plain(200, "OK", "")).await,
            ("GET", "/v1/models") => socket.write_all(&plain(200, "OK", &models())).await,
            ("POST", "/v1/chat/completions") => {
                match Instructions::find(request.head(), request.tail()) {
                    Some(ask) if ask.events == 0 => {
                        let reply = self.reply(ask.reply);
                        socket.write_all(&reply).await
                    }
                    Some(ask) => self.stream(socket, ask).await,
                    None => {
                        let message = "{\"error\":{\"message\":\"the request holds no instructions for the mock, or lost its end\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}";
                        socket.write_all(&plain(400, "Bad Request", message)).await
                    }
                }
            }
            _ => {
                let message = "{\"detail\":\"Not Found\"}";
                socket.write_all(&plain(404, "Not Found", message)).await
            }
        }
    }

    async fn stream(&self, socket: &Rc<Socket>, ask: Instructions) -> std::io::Result<()> {
        let script = self.script(ask);
        socket
            .write_all(
                b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                  transfer-encoding: chunked\r\n\r\n",
            )
            .await?;
        if ask.rate == 0 {
            let mut start = 0;
            for &end in &script.ends {
                // An event each write, and the streams in turns, as an engine decodes them: how
                // many events a proxy finds at once is then its own doing, not the mock's.
                let event = script.bytes.get(start..end).unwrap_or_default();
                socket.write_all(event).await?;
                tokio::task::yield_now().await;
                start = end;
            }
            return Ok(());
        }
        let stream = Rc::new(SlowStream::new(socket.clone(), script, ask.rate));
        self.wheel.add(stream.clone());
        stream.ended().await
    }

    fn reply(&self, bytes: usize) -> Rc<[u8]> {
        let mut replies = self.replies.borrow_mut();
        if replies.len() >= ANSWERS_MAX {
            replies.clear();
        }
        replies
            .entry(bytes)
            .or_insert_with(|| plain(200, "OK", &canned::chat_reply(bytes)).into())
            .clone()
    }

    fn script(&self, ask: Instructions) -> Rc<canned::Stream> {
        let mut streams = self.streams.borrow_mut();
        if streams.len() >= ANSWERS_MAX {
            streams.clear();
        }
        streams
            .entry((ask.events, ask.usage))
            .or_insert_with(|| Rc::new(canned::Stream::wire(ask.events, ask.usage)))
            .clone()
    }
}

fn models() -> String {
    let model = canned::MODEL;
    format!(
        "{{\"object\":\"list\",\"data\":[{{\"id\":\"{model}\",\"object\":\"model\",\"created\":1795443773,\"owned_by\":\"vllm\",\
         \"root\":\"{model}\",\"parent\":null,\"max_model_len\":1048576}}]}}"
    )
}

fn plain(status: u16, reason: &str, body: &str) -> Vec<u8> {
    let kind = if body.is_empty() {
        ""
    } else {
        "content-type: application/json\r\n"
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nserver: uvicorn\r\n{kind}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
