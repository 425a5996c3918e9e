//! `tidegate logs NAME`

use std::process::ExitCode;

use clap::Args;
use http_body_util::BodyExt;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::percent;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The instance, or one deployment of it as INSTANCE/MODEL
    name: String,
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// Print escape sequences as the engine wrote them
    #[arg(long)]
    raw: bool,
    /// Lines to begin with
    #[arg(long, value_name = "N", default_value_t = 200)]
    tail: usize,
    #[command(flatten)]
    remote: RemoteArg,
}

impl Logs {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.remote)?;
        let path = format!(
            "instances/{}/logs?tail={}",
            percent::of_name(&self.name),
            self.tail
        );
        if !self.follow {
            let lines: Vec<String> = client.get(&path).await?;
            for line in lines {
                self.print(&line)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut body = client.stream(&format!("{path}&follow=1")).await?;
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame?.into_data().unwrap_or_default());
            while let Some(end) = memchr::memchr(b'\n', &text) {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Some(json) = line.strip_prefix(b"data: ") {
                    self.print(&serde_json::from_slice::<String>(json)?)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, line: &str) -> Result<(), Failure> {
        if self.raw {
            return out::raw_line(line);
        }
        out::line(line)
    }
}
