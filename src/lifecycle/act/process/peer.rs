//! Check if a worker, or what one started, is at the other end of a local socket.
//!
//! Workers run as our user, so the permissions of a socket's file let them in, and
//! Landlock before Linux 7.1 does not keep them from connecting. Code in a worker may
//! leave its session, forget its environment and orphan itself; it stays below us in
//! the tree of processes, or in a worker's control group, or unable to gain
//! privileges, which can't be undone.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UnixStream;

use super::cgroup;
use super::proc::NONCE_VARIABLE;
use crate::proc::Stat;

/// Most generations that are looked at.
const GENERATIONS_MAX: usize = 1_000;

/// The gateway that this one has started to follow it; zero for none. It stands below
/// us in the tree, as workers do.
static SUCCESSOR: AtomicU32 = AtomicU32::new(0);

/// Takes a child for a gateway of ours until the next call; `None` once it has ended,
/// as its number may be another's then.
pub fn trust(successor: Option<u32>) {
    SUCCESSOR.store(successor.unwrap_or(0), Ordering::Release);
}

/// True if the other end is a worker or its descendant. A process that can't be identified, as one
/// that has ended meanwhile, is taken for one.
pub fn is_worker(stream: &UnixStream) -> bool {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    // Zero stands for a process that we can't see, as outside of a container: not
    // one of our workers.
    pid.is_none_or(|pid| pid != 0 && pid != std::process::id() && of_worker(pid))
}

fn of_worker(pid: u32) -> bool {
    let (Some(own), Some(peer)) = (
        no_new_privileges("self"),
        no_new_privileges(&pid.to_string()),
    ) else {
        return true;
    };
    let is_successor = pid == SUCCESSOR.load(Ordering::Acquire);
    (peer && !own)
        || (is_below_us(pid) && !is_successor)
        || carries_nonce(pid)
        || cgroup::is_of_worker(pid)
}

/// True if a process can't gain privileges any more; `None` where there is none.
fn no_new_privileges(pid: &str) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NoNewPrivs:"));
    Some(line.is_some_and(|value| value.trim() == "1"))
}

fn is_below_us(pid: u32) -> bool {
    let own = std::process::id();
    let parent = |pid: &u32| Stat::of(*pid).map(|stat| stat.parent);
    std::iter::successors(Some(pid), parent)
        .take(GENERATIONS_MAX)
        .skip(1)
        .any(|ancestor| ancestor == own)
}

fn carries_nonce(pid: u32) -> bool {
    let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
    let start = format!("{NONCE_VARIABLE}=");
    environment.is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable.starts_with(start.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_we_started_is_told_from_who_started_us() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(of_worker(child.id()), "a child");
        let parent = Stat::of(std::process::id()).unwrap().parent;
        assert!(!of_worker(parent), "our parent");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(of_worker(child.id()), "one that has ended");
    }
}
