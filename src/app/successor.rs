//! A gateway that has given way to one that never served: it serves on, and starts
//! another of its own kind until one serves.
//!
//! It can't take back by itself what it let go of: who had it meanwhile may have
//! changed it. A new process of the same program reads all of it from the disk.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::end::End;
use super::handover::{self, Asked};
use super::signals::Signals;
use crate::admin::socket;
use crate::lifecycle::process::own_executable;
use crate::time::sleep;

/// First and longest pause between two starts.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Pause where the socket of the talk can't be made yet.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);

/// The argument that makes a start a take-over.
const TAKE_OVER: &str = "--take-over";

/// Waits until another gateway serves. `false`: a signal came first.
pub(super) async fn find(
    end: &End,
    asks: &mut mpsc::Receiver<Asked>,
    signals: &mut Signals,
) -> bool {
    tracing::error!(
        "the gateway that wanted to take over ended before it served: this one serves on, but starts no worker, and starts another gateway"
    );
    let mut pause = PAUSE;
    loop {
        let attempt = tokio::select! {
            attempt = attempt(end, asks) => attempt,
            () = signals.stop() => return false,
        };
        match attempt {
            Ok(()) => return true,
            Err(why) => tracing::error!(
                "{why}; the next one is started in {} s. Start one with {TAKE_OVER} by hand to be done sooner",
                pause.as_secs()
            ),
        }
        tokio::select! {
            () = sleep(pause) => {}
            // Someone started one by hand.
            Some(asked) = asks.recv() => if asked.done().await {
                return true;
            },
            () = signals.stop() => return false,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Starts one, and waits until it or another serves.
async fn attempt(end: &End, asks: &mut mpsc::Receiver<Asked>) -> Result<(), String> {
    listen(end).await;
    let mut child = start().map_err(|error| format!("no other gateway can be started: {error}"))?;
    loop {
        tokio::select! {
            biased;
            Some(asked) = asks.recv() => if asked.done().await {
                return Ok(());
            } else {
                // Whoever it was took the socket's path with it.
                listen(end).await;
            },
            ended = child.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), |how| how.to_string());
                return Err(format!("the gateway that was started to take over ended ({how})"));
            }
        }
    }
}

/// Answers on the socket of the talk again, which the last one had taken.
async fn listen(end: &End) {
    let path = handover::socket(&end.admin.settings.gateway.state);
    loop {
        match socket::bind(&path).await {
            Ok(bound) => {
                let answers = end.answers.clone();
                let answering = handover::answer(bound, answers, end.talks.ending());
                end.talks.spawn("handover", answering);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the socket of the talk can't be made yet");
                sleep(SOCKET_PAUSE).await;
            }
        }
    }
}

fn start() -> std::io::Result<Child> {
    let mut command = Command::new(own_executable());
    command.args(arguments(std::env::args_os().skip(1)));
    command.stdin(Stdio::null()).kill_on_drop(false).spawn()
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
