//! `tidegate unit`: a systemd unit for these settings, and its socket unit.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::common::{ConfigArg, Failure, InvalidSettings};
use super::out;
use crate::config::{self, Settings, gateway};

/// Directory of the unit's files unless `--config` says another place.
const HOME: &str = "/var/lib/tidegate";

/// Directories that `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

#[derive(Debug, Args)]
pub(super) struct Unit {
    #[command(flatten)]
    config: ConfigArg,
    /// Print the socket unit: connections wait in it over a restart, and it may have
    /// ports below 1024
    #[arg(long)]
    socket: bool,
    /// The system's user that it runs as
    #[arg(long, value_name = "USER", default_value = "tidegate", value_parser = user)]
    user: String,
    /// The program [default: this one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

fn user(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && text.bytes().all(plain) && text.len() <= 31 {
        Ok(text.to_owned())
    } else {
        Err("write the name of a user, as tidegate".to_owned())
    }
}

impl Unit {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let text = if self.socket {
            socket(&self.settings()?)
        } else {
            self.service()?
        };
        out::raw_line(text.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Settings that the unit will read.
    fn settings(&self) -> Result<Settings, Failure> {
        let file = self.directory()?.join(gateway::FILE);
        let file = self.config.config.clone().unwrap_or(file);
        if self.config.config.is_none() && !file.exists() {
            return Ok(Settings::default());
        }
        config::load(Some(&file)).map_err(|errors| InvalidSettings(errors).into())
    }

    /// Directory that the unit works in.
    fn directory(&self) -> Result<PathBuf, Failure> {
        let Some(file) = &self.config.config else {
            return Ok(PathBuf::from(HOME));
        };
        let file = std::path::absolute(file)?;
        Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
    }

    fn service(&self) -> Result<String, Failure> {
        let directory = self.directory()?;
        let settings = self.settings()?;
        let binary = match &self.binary {
            Some(binary) => std::path::absolute(binary)?,
            None => std::env::current_exe()?,
        };
        let mut start = vec![word(&binary)?, "serve".to_owned()];
        if let Some(file) = &self.config.config {
            start.extend(["--config".to_owned(), word(&std::path::absolute(file)?)?]);
        }
        Ok(service(&Place {
            user: &self.user,
            start: &start.join(" "),
            directory: &word(&directory)?,
            writable: &writable(&settings, &directory)?,
            homes: if looks_home(&settings, &binary, &directory) {
                "read-only"
            } else {
                "yes"
            },
        }))
    }
}

/// A path as a unit has it.
fn word(path: &Path) -> Result<String, Failure> {
    let text = path.to_string_lossy();
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'\\%$;".contains(c);
    if text.contains(odd) || path.to_str().is_none() {
        let text =
            format!("{text:?} can't stand in a unit: use a path without spaces, quotes, % and $");
        return Err(text.into());
    }
    Ok(text.into_owned())
}

/// Paths elsewhere that the gateway and its workers write to.
fn writable(settings: &Settings, directory: &Path) -> Result<String, Failure> {
    let above = |path: &Path| path.parent().unwrap_or(path).to_owned();
    let mut paths = vec![
        settings.gateway.routes.clone(),
        settings.gateway.state.clone(),
        above(&settings.tokens.signing_key),
        above(&settings.admin.socket),
    ];
    paths.extend(settings.gateway.access_log.as_deref().map(above));
    paths.extend(settings.workers.sandbox.writable.iter().cloned());
    let base = Path::new(HOME);
    paths.retain(|path| {
        path.is_absolute() && !path.starts_with(directory) && !path.starts_with(base)
    });
    if directory != base {
        paths.push(directory.to_owned());
    }
    paths.sort();
    paths.dedup();
    let line = |path: &PathBuf| Ok(format!("ReadWritePaths=-{}\n", word(path)?));
    paths.iter().map(line).collect()
}

/// True if something that is needed lies in someone's home.
fn looks_home(settings: &Settings, binary: &Path, directory: &Path) -> bool {
    let vllm = &settings.vllm;
    let mut paths: Vec<&Path> = vec![binary, directory, &vllm.command, &vllm.python];
    paths.extend(vllm.versions.values().map(PathBuf::as_path));
    paths.push(&settings.gateway.routes);
    paths.push(&settings.gateway.state);
    paths.push(&settings.tls.private_key);
    let hidden = |path: &&Path| HOMES.iter().any(|home| path.starts_with(home));
    paths.iter().any(hidden)
}

/// Parts that differ between units.
struct Place<'a> {
    user: &'a str,
    start: &'a str,
    directory: &'a str,
    writable: &'a str,
    homes: &'a str,
}

/// Walls around the unit. Left out, as workers need it: `MemoryDenyWriteExecute` (torch
/// and Triton write code), `PrivateDevices` (GPUs), `ProtectControlGroups` (each worker has its own group),
/// `RemoveIPC` and `DynamicUser` (workers outlive a restart), `ProcSubset` (memory and
/// CPUs are read there), `PrivateTmp` (a stop would empty it under workers that go on).
const WALLS: &str = r"NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
# Write read-only here where vLLM or models lie in someone's home.
ProtectHome={homes}
# Not PrivateTmp: a stop would empty that under workers that go on.
TemporaryFileSystem=/tmp:mode=1777 /var/tmp:mode=1777
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
KeyringMode=private
SystemCallArchitectures=native
# Beside those of services: Landlock, and what CUDA and NCCL share memory with.
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallFilter=pidfd_getfd process_vm_readv process_vm_writev mbind set_mempolicy get_mempolicy
SystemCallErrorNumber=EPERM
# GPUs of NVIDIA and AMD, and InfiniBand. Their modules are loaded before.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
DeviceAllow=char-drm rw
DeviceAllow=/dev/kfd rw
DeviceAllow=char-infiniband* rw";

fn service(place: &Place<'_>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let walls = WALLS.replace("{homes}", place.homes);
    let Place {
        user,
        start,
        directory,
        writable,
        homes: _,
    } = place;
    let (state, description) = (
        if *directory == HOME {
            "StateDirectory=tidegate\nStateDirectoryMode=0700\n"
        } else {
            ""
        },
        env!("CARGO_PKG_DESCRIPTION"),
    );
    format!(
        r"# tidegate.service, by `tidegate unit` of Tidegate {version}.
#
#   useradd --system --home-dir {HOME} {user}      # and its groups for GPUs: render, video
#   tidegate unit > /etc/systemd/system/tidegate.service
#   tidegate unit --socket > /etc/systemd/system/tidegate.socket
#   systemctl daemon-reload && systemctl enable --now tidegate.socket tidegate.service
#
# tidegate.toml, routes.d and certs stand in {directory}. Models are kept below {HOME}.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target nss-lookup.target nvidia-persistenced.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={start}
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
WatchdogSec=30
Restart=on-failure
RestartSec=1
TimeoutStartSec=5min
# Streams finish within gateway.shutdown_timeout and unready_time: keep this above both.
TimeoutStopSec=3min
User={user}
WorkingDirectory={directory}
{state}{writable}Environment=HOME={HOME}
UMask=0077

# Workers go on over a restart, and are adopted; one that the kernel ends for want of
# memory is started again by the gateway, and ends nothing else. The group below needs
# systemd 254; before, workers have groups without a limit of memory.
KillMode=process
OOMPolicy=continue
Delegate=yes
DelegateSubgroup=gateway

LimitNOFILE=1048576
LimitMEMLOCK=infinity
LimitCORE=0
TasksMax=infinity

{walls}
[Install]
WantedBy=multi-user.target
"
    )
}

fn socket(settings: &Settings) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let gateway = &settings.gateway;
    let all = gateway.listen.iter().chain(&gateway.plain_listen);
    let all = all.chain(&settings.admin.listen);
    let lines: Vec<String> = all
        .map(|address| format!("ListenStream={address}\n"))
        .collect();
    let lines = lines.concat();
    format!(
        r"# tidegate.socket, by `tidegate unit --socket` of Tidegate {version}: each address stands in
# tidegate.toml as well, as that is how a socket is known.
[Unit]
Description=Sockets of Tidegate, which stay over a restart

[Socket]
{lines}BindIPv6Only=ipv6-only
Backlog=1024
NoDelay=yes

[Install]
WantedBy=sockets.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(config: Option<&Path>) -> Unit {
        Unit {
            config: ConfigArg {
                config: config.map(Path::to_owned),
            },
            socket: false,
            user: "tidegate".to_owned(),
            binary: Some("/usr/local/bin/tidegate".into()),
        }
    }

    #[test]
    fn what_lies_elsewhere_may_be_written_to() {
        let plain = unit(None).service().unwrap();
        assert!(plain.contains("\nStateDirectory=tidegate\n"));
        assert!(!plain.contains("ReadWritePaths"));
        assert!(plain.contains("\nProtectHome=yes\n"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.toml");
        let text = "[gateway]\nstate = \"/srv/state\"\naccess_log = \"/var/log/tg/a.log\"\n[engines.vllm]\ncommand = \"/home/ana/venv\"\n[workers]\nwritable = [\"/scratch\"]\n";
        std::fs::write(&file, text).unwrap();
        let own = unit(Some(&file)).service().unwrap();
        let here = dir.path().display().to_string();
        for line in [
            "ReadWritePaths=-/srv/state",
            "ReadWritePaths=-/scratch",
            "ReadWritePaths=-/var/log/tg",
            &format!("ReadWritePaths=-{here}"),
            &format!("WorkingDirectory={here}"),
            &format!("ExecStart=/usr/local/bin/tidegate serve --config {here}/tidegate.toml"),
            "ProtectHome=read-only",
        ] {
            assert!(own.lines().any(|known| known == line), "{line}: {own}");
        }
        assert!(!own.contains("StateDirectory"));
    }

    #[test]
    fn a_socket_stands_for_each_listener() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.toml");
        let text = "[gateway]\nlisten = [\"0.0.0.0:443\", \"[::]:443\"]\nplain_listen = [\"127.0.0.1:80\"]\n[admin]\nlisten = \"off\"\n";
        std::fs::write(&file, text).unwrap();
        let text = socket(&unit(Some(&file)).settings().unwrap());
        let found: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ListenStream="))
            .collect();
        assert_eq!(found, ["0.0.0.0:443", "[::]:443", "127.0.0.1:80"]);
    }

    #[test]
    fn what_would_be_another_line_is_refused() {
        for bad in ["/a b", "/a\nExecStartPre=x", "/a%h", "/a\"", "/$HOME"] {
            assert!(word(Path::new(bad)).is_err(), "{bad}");
        }
        assert!(user("a\nb").is_err() && user("").is_err() && user("tg-1").is_ok());
    }
}
