//! A gateway that has given way to one that never served: it serves on, and starts
//! another of its own kind until one serves.
//!
//! It can't take back by itself what it let go of: who had it meanwhile may have
//! changed it. A new process of the same program reads all of it from the disk.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::handover::{self, Asked};
use crate::admin::socket;
use crate::lifecycle::act::command::own_executable;
use crate::lifecycle::act::process::peer;
use crate::time::sleep;

/// First and longest pause between two starts.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Pause where the socket of the talk can't be made yet.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);

/// The argument that makes a start a take-over.
const TAKE_OVER: &str = "--take-over";

/// Returns once another gateway serves; always `true`. What was started is ended
/// where this is dropped.
pub(super) async fn find(end: &End, asks: &mut mpsc::Receiver<Asked>) -> bool {
    tracing::error!(
        "the gateway that wanted to take over ended before it served: this one serves on, but starts no worker, and starts another gateway"
    );
    let (mut pause, mut door) = (PAUSE, Door::new(end));
    loop {
        match attempt(&mut door, asks).await {
            Ok(()) => return true,
            Err(why) => tracing::error!(
                "{why}; the next one is started in {} s. Start one with {TAKE_OVER} by hand to be done sooner",
                pause.as_secs()
            ),
        }
        tokio::select! {
            () = sleep(pause) => {}
            // Someone started one by hand.
            Some(asked) = asks.recv() => if door.give(asked).await {
                return true;
            } else {
                door.open().await;
            }
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Starts one, and waits until it or another serves.
async fn attempt(door: &mut Door<'_>, asks: &mut mpsc::Receiver<Asked>) -> Result<(), String> {
    door.open().await;
    let mut child = start().map_err(|error| format!("no other gateway can be started: {error}"))?;
    peer::trust(child.id());
    loop {
        tokio::select! {
            biased;
            Some(asked) = asks.recv() => if door.give(asked).await {
                // If it is another, ours finds that one, and ends.
                std::mem::forget(child);
                return Ok(());
            } else {
                door.open().await;
            },
            ended = child.wait() => {
                peer::trust(None);
                let how = ended.map_or_else(|error| error.to_string(), |how| how.to_string());
                return Err(format!("the gateway that was started to take over ended ({how})"));
            }
        }
    }
}

/// The socket of the talk, which each gateway that takes over makes for itself.
struct Door<'a> {
    end: &'a End,
    path: PathBuf,
    /// Ends the answers on the socket that was made last.
    answering: CancellationToken,
    is_open: bool,
}

impl<'a> Door<'a> {
    fn new(end: &'a End) -> Self {
        Self {
            end,
            path: handover::socket(&end.admin.settings.gateway.state),
            answering: CancellationToken::new(),
            is_open: false,
        }
    }

    /// Answers again, if the gateway that asked last has left.
    async fn open(&mut self) {
        while !self.is_open {
            match socket::bind(&self.path).await {
                Ok(bound) => {
                    self.answering.cancel();
                    self.answering = self.end.talks.ending().child_token();
                    let (answers, until) = (self.end.answers.clone(), self.answering.clone());
                    let answering = handover::answer(bound, answers, until);
                    self.end.talks.spawn("handover", answering);
                    self.is_open = true;
                }
                Err(error) => {
                    tracing::debug!(%error, "the socket of the talk can't be made yet");
                    sleep(SOCKET_PAUSE).await;
                }
            }
        }
    }

    /// Makes room for the socket of who asked. Returns whether that one serves.
    async fn give(&mut self, asked: Asked) -> bool {
        drop(std::fs::remove_file(&self.path));
        self.is_open = false;
        asked.done().await
    }
}

fn start() -> std::io::Result<Child> {
    let mut command = Command::new(own_executable());
    command.args(arguments(std::env::args_os().skip(1)));
    command.stdin(Stdio::null()).kill_on_drop(true).spawn()
}

/// Ours, as a take-over.
fn arguments(own: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = own.filter(|argument| argument != TAKE_OVER).collect();
    all.push(TAKE_OVER.into());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_gets_our_arguments_and_takes_over() {
        for own in [
            vec!["serve", "--config", "a.toml"],
            vec!["serve", "--take-over", "--config", "a.toml"],
        ] {
            let own = own.into_iter().map(OsString::from);
            let wanted = ["serve", "--config", "a.toml", "--take-over"].map(OsString::from);
            assert_eq!(arguments(own), wanted);
        }
    }
}
