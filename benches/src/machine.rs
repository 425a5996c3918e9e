//! Needs of a run on the machine: open files, CPUs, the peers' packages.
//!
//! Owns the few settings that a run changes for itself and its children. Changes nothing
//! for others, but that `--install` installs packages.

use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{BenchError, During};

/// Raises this process's limit of open files, which its children inherit, to the most
/// that is allowed.
pub(crate) fn raise_descriptors() -> Result<u64, BenchError> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most)
        .map_err(std::io::Error::from)
        .during(|| "raise the limit of open files".to_owned())?;
    Ok(limit.maximum.unwrap_or(1 << 20).min(1 << 20))
}

/// CPUs of the contestants, the mock and the load: one each, mock and load on one where
/// there are only two; empty lists where there is only one.
pub(crate) fn cpus(no_pin: bool) -> Result<(String, String, String), BenchError> {
    let set = rustix::thread::sched_getaffinity(None)
        .map_err(std::io::Error::from)
        .during(|| "see which CPUs may be used".to_owned())?;
    let allowed: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect();
    let name = |at: usize| allowed.get(at).map(ToString::to_string).unwrap_or_default();
    Ok(match (no_pin, allowed.len()) {
        (true, _) | (false, 0 | 1) => Default::default(),
        (false, 2) => (name(0), name(1), name(1)),
        (false, _) => (name(0), name(1), name(2)),
    })
}

/// Installs nginx and HAProxy as Debian packages.
pub(crate) fn install() -> Result<(), BenchError> {
    let commands: [&[&str]; 2] = [
        &["update", "-qq"],
        &[
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "nginx",
            "haproxy",
        ],
    ];
    for arguments in commands {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .during(|| "run apt-get; install nginx and haproxy by other means".to_owned())?;
        if !status.success() {
            return Err(BenchError::said(
                "apt-get failed; run as root, or install nginx and haproxy by other means",
            ));
        }
    }
    Ok(())
}
