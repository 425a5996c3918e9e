//! The body of `tidegate worker-exec`: becomes the engine, in its own session.
//!
//! Between fork and exec only a program of our own can call `setsid` without
//! unsafe code, so the launcher starts this executable first. The pid stays the
//! same, so the launcher's child is the engine. It gives up what a worker may not
//! reach (see [`super::walls`]), and changes nothing else: the environment and the
//! standard streams are as the launcher set them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::cgroup::{self, GROUP_VARIABLE};
use super::walls::{WALLS_VARIABLE, Walls};

/// The hidden subcommand that leads here.
pub const SUBCOMMAND: &str = "worker-exec";

/// Weight of the session against others, as `nice` counts: the gateway and its
/// health checks should not starve while an engine loads. At 10 an engine hardly
/// started beside a build on the same machine.
const AUTOGROUP_NICE: &str = "5";

/// Preference of the kernel to end an engine rather than the gateway, in thousandths.
const OOM_SCORE_ADJ: &str = "300";

/// Leads a new session and becomes the program named first, with the rest as
/// its arguments. Returns only if that failed.
pub fn exec(command: &[OsString]) -> io::Error {
    let Some((program, args)) = command.split_first() else {
        let text = format!("{SUBCOMMAND} needs the program to run");
        return io::Error::new(io::ErrorKind::InvalidInput, text);
    };
    if let Err(error) = rustix::process::setsid() {
        return error.into();
    }
    if let Some(group) = std::env::var_os(GROUP_VARIABLE)
        && let Err(error) = cgroup::enter(Path::new(&group))
    {
        let text = format!("can't enter {}: {error}", Path::new(&group).display());
        return io::Error::new(error.kind(), text);
    }
    // Both are a courtesy that a container may not allow.
    std::fs::write("/proc/self/autogroup", AUTOGROUP_NICE).unwrap_or_default();
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ).unwrap_or_default();
    // Last, as what stands above writes where a worker may not.
    if let Some(walls) = std::env::var_os(WALLS_VARIABLE)
        && let Err(error) = raise(&walls)
    {
        let text = format!("can't keep the worker to what is its own: {error}");
        return io::Error::new(error.kind(), text);
    }
    let error = Command::new(program)
        .args(args)
        .env_remove(GROUP_VARIABLE)
        .env_remove(WALLS_VARIABLE)
        .exec();
    let text = format!("can't run {}: {error}", program.display());
    io::Error::new(error.kind(), text)
}

fn raise(walls: &OsStr) -> io::Result<()> {
    let text = walls.to_str().ok_or(io::ErrorKind::InvalidData)?;
    serde_json::from_str::<Walls>(text)?.raise()
}
