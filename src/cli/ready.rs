//! `tidegate ready`: whether the gateway here accepts work, for health checks of
//! containers, whose image need not have anything else to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::common::{ConfigArg, Failure};
use super::out;
use crate::time::timeout;

/// Limit of the whole question.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct Ready {
    #[command(flatten)]
    config: ConfigArg,
}

impl Ready {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let listen = settings.metrics.listen.ok_or(
            "metrics.listen is \"off\", and that is where a gateway is asked: write an address there, as \"127.0.0.1:9464\"",
        )?;
        let answer = timeout(ANSWER_MAX, ask(own(listen))).await;
        let answer = answer.map_err(|_| format!("{listen} does not answer within 5 s"))?;
        let answer = answer.map_err(|error| format!("{listen} can't be asked: {error}"))?;
        let (ready, text) = judged(&answer);
        out::line(text)?;
        Ok(if ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// The address by which this machine itself is reached that listens there.
fn own(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// True if an answer says yes, and its words.
fn judged(answer: &str) -> (bool, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let ready = head.starts_with("HTTP/1.1 200 ");
    let words = body.trim();
    match (ready, words.is_empty()) {
        (_, false) => (ready, words),
        (true, true) => (true, "ok"),
        (false, true) => (false, "this is no gateway, or it broke off its answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_is_ready() {
        let ok = "HTTP/1.1 200 OK\r\na: b\r\n\r\nready\n";
        assert_eq!(judged(ok), (true, "ready"));
        let no = "HTTP/1.1 503 Service Unavailable\r\n\r\nshutting down\n";
        assert_eq!(judged(no), (false, "shutting down"));
        assert!(!judged("").0 && !judged("SSH-2.0\r\n").0);
        let own = |text: &str| own(text.parse().unwrap()).to_string();
        assert_eq!(own("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(own("[::]:1"), "[::1]:1");
        assert_eq!(own("10.0.0.1:1"), "10.0.0.1:1");
    }
}
