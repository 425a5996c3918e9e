//! The contestants: how each is configured, started and ended.
//!
//! Owns their processes and configuration files. All get the same certificate, token and
//! upstream, one worker thread and, where there are two CPUs, one CPU (`taskset`; `setpriv` ends them with the run). What
//! each does beyond passing bytes: the floor nothing, nginx and HAProxy compare one
//! header, HAProxy once more checks a token, Tidegate all that its default configuration does. Does not measure.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{BenchError, During};
use crate::floor::Upstream;
use crate::jwt::Rs256;
use crate::process::{Running, own_binary, pinned, start_own};
use crate::tls::Certificate;

const NGINX: &str = include_str!("../peers/nginx.conf.in");
const HAPROXY: &str = include_str!("../peers/haproxy.cfg.in");
const HAPROXY_JWT: &str = include_str!("../peers/haproxy-jwt.cfg.in");
const TIDEGATE_TOML: &str = "tidegate.toml";
/// Longest that a contestant may take to accept connections.
const START_MAX: Duration = Duration::from_secs(15);

/// Contestant of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// The bare hyper proxy of this package.
    Floor,
    /// Tidegate.
    Tidegate,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// HAProxy that checks the signature and the claims of a token.
    HaproxyJwt,
}

impl Contestant {
    /// Its name in reports and as a program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Tidegate => "tidegate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::HaproxyJwt => "haproxy-jwt",
        }
    }

    /// The program that it is.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::HaproxyJwt => "haproxy",
            other => other.name(),
        }
    }
}

/// Parts that all contestants are given.
pub(crate) struct Site {
    /// The run's directory.
    pub(crate) dir: PathBuf,
    /// Everyone's certificate.
    pub(crate) certificate: Certificate,
    /// The one token that is let in.
    pub(crate) token: String,
    /// A token as HAProxy can check it.
    pub(crate) rs256: Rs256,
    /// The mock.
    pub(crate) upstream: Upstream,
    /// CPUs of the contestants; empty: any.
    pub(crate) cpus: String,
    /// Open files that each process may have.
    pub(crate) descriptors: u64,
    /// The binary of Tidegate.
    pub(crate) tidegate: PathBuf,
}

impl Site {
    /// The token that a contestant lets in.
    pub(crate) fn token_of(&self, contestant: Contestant) -> &str {
        match contestant {
            Contestant::HaproxyJwt => &self.rs256.token,
            _ => &self.token,
        }
    }

    /// Starts a contestant and waits until it accepts connections.
    pub(crate) fn start(&self, contestant: Contestant) -> Result<Running, BenchError> {
        let mut running = self.start_unseen(contestant)?;
        self.wait_for(contestant, &mut running)?;
        Ok(running)
    }

    /// Starts a contestant; it may not accept connections yet.
    pub(crate) fn start_unseen(&self, contestant: Contestant) -> Result<Running, BenchError> {
        let address = free_address()?;
        match contestant {
            Contestant::Floor => {
                let mut command = pinned(&self.cpus, own_binary()?);
                command
                    .arg("floor")
                    .arg("--upstream")
                    .arg(self.upstream.to_string())
                    .arg("--cert")
                    .arg(&self.certificate.server)
                    .arg("--key")
                    .arg(&self.certificate.key);
                start_own(command)
            }
            Contestant::Nginx => {
                let config = self.write("nginx.conf", &self.nginx_conf(address))?;
                let mut command = pinned(&self.cpus, "nginx");
                command.arg("-p").arg(&self.dir).arg("-c").arg(config);
                self.spawn(command, contestant, address)
            }
            Contestant::Haproxy | Contestant::HaproxyJwt => {
                let template = match contestant {
                    Contestant::HaproxyJwt => HAPROXY_JWT,
                    _ => HAPROXY,
                };
                let name = format!("{}.cfg", contestant.name());
                let config = self.write(&name, &self.haproxy_cfg(template, address))?;
                let mut command = pinned(&self.cpus, "haproxy");
                command.arg("-db").arg("-f").arg(config);
                self.spawn(command, contestant, address)
            }
            Contestant::Tidegate => {
                let config = self.write_tidegate(address)?;
                let mut command = pinned(&self.cpus, &self.tidegate);
                command
                    .args(["serve", "--config"])
                    .arg(config)
                    .current_dir(&self.dir)
                    .env("TIDEGATE_WORKER_THREADS", "1");
                self.spawn(command, contestant, address)
            }
        }
    }

    /// Starts a process whose words go to a file.
    fn spawn(
        &self,
        mut command: Command,
        contestant: Contestant,
        address: SocketAddr,
    ) -> Result<Running, BenchError> {
        let name = contestant.name();
        let log = self.dir.join(format!("{name}.out"));
        let out = std::fs::File::create(&log).during(|| format!("write {}", log.display()))?;
        let errors = out.try_clone().during(|| "share a file".to_owned())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .during(|| format!("start {name}; is it installed?"))?;
        Ok(Running { child, address })
    }

    fn wait_for(&self, contestant: Contestant, running: &mut Running) -> Result<(), BenchError> {
        let begun = Instant::now();
        while TcpStream::connect_timeout(&running.address, Duration::from_secs(1)).is_err() {
            let ended = matches!(running.child.try_wait(), Ok(Some(_)));
            if ended || begun.elapsed() > START_MAX {
                let name = contestant.name();
                return Err(BenchError::said(format!(
                    "{name} did not start: {}",
                    last_words(&self.dir.join(format!("{name}.out")))
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, BenchError> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).during(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn nginx_conf(&self, address: SocketAddr) -> String {
        let upstream = match &self.upstream {
            Upstream::Tcp(address) => address.to_string(),
            Upstream::Unix(path) => format!("unix:{}", path.display()),
        };
        self.render(NGINX, address, &upstream)
    }

    fn haproxy_cfg(&self, template: &str, address: SocketAddr) -> String {
        let upstream = match &self.upstream {
            Upstream::Tcp(address) => address.to_string(),
            Upstream::Unix(path) => format!("unix@{}", path.display()),
        };
        self.render(template, address, &upstream)
    }

    fn render(&self, template: &str, address: SocketAddr, upstream: &str) -> String {
        let connections = self.descriptors.saturating_sub(200);
        let values = [
            ("USER", nginx_user().to_owned()),
            ("PORT", address.port().to_string()),
            ("UPSTREAM", upstream.to_owned()),
            ("DIR", self.dir.display().to_string()),
            ("CERT", self.certificate.server.display().to_string()),
            ("KEY", self.certificate.key.display().to_string()),
            ("BOTH", self.certificate.both.display().to_string()),
            ("TOKEN", self.token.clone()),
            ("PUBLIC", self.rs256.public_key.display().to_string()),
            ("NOFILE", self.descriptors.to_string()),
            ("CONNECTIONS", connections.to_string()),
        ];
        values
            .iter()
            .fold(template.to_owned(), |text, (key, value)| {
                text.replace(&format!("@{key}@"), value)
            })
    }

    /// Writes Tidegate's configuration and its one route.
    pub(crate) fn write_tidegate(&self, address: SocketAddr) -> Result<PathBuf, BenchError> {
        let routes = self.dir.join("routes.d");
        std::fs::create_dir_all(&routes).during(|| format!("make {}", routes.display()))?;
        self.write("routes.d/bench.toml", &self.tidegate_route())?;
        self.write("routes.d/cold.toml", TIDEGATE_COLD)?;
        let (metrics, admin) = (free_address()?, free_address()?);
        self.write(
            "tidegate.toml",
            &self.tidegate_toml(address, metrics, admin),
        )
    }

    fn tidegate_toml(&self, address: SocketAddr, metrics: SocketAddr, admin: SocketAddr) -> String {
        let dir = self.dir.display();
        format!(
            "[gateway]\nlisten = [\"{address}\"]\nroutes = \"{dir}/routes.d\"\nstate = \".tidegate\"\n\
             access_log = \".tidegate/access.log\"\n\n\
             [tls]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n\n\
             [tokens]\nsigning_key = \"{dir}/tokens.key\"\n\n\
             [admin]\nlisten = \"{admin}\"\nsocket = \".tidegate/admin.sock\"\n\n\
             [metrics]\nlisten = \"{metrics}\"\n\n\
             [gpus]\nsource = \"simulated\"\nsimulated = [{{ memory = \"80GiB\" }}]\n",
            self.certificate.server.display(),
            self.certificate.key.display(),
        )
    }

    fn tidegate_route(&self) -> String {
        format!(
            "[route]\nname = \"bench\"\npublic = true\nmodels = [\"bench\"]\n\n[[upstream]]\nurl = \"{}\"\n",
            self.upstream
        )
    }

    /// The token that Tidegate makes for the run.
    pub(crate) fn tidegate_token(&self) -> Result<String, BenchError> {
        self.write_tidegate(free_address()?)?;
        let printed = self.tidegate_here(&["token", "create", "--workspace", "bench"])?;
        let token = printed.split_whitespace().find(|word| is_token(word));
        token
            .map(str::to_owned)
            .ok_or_else(|| BenchError::said("tidegate token create printed no token"))
    }

    /// Runs a command of Tidegate in the run's directory; returns what it prints.
    pub(crate) fn tidegate_here(&self, arguments: &[&str]) -> Result<String, BenchError> {
        let what = format!("tidegate {}", arguments.join(" "));
        let output = Command::new(&self.tidegate)
            .args(arguments)
            .current_dir(&self.dir)
            .env("TIDEGATE_CONFIG", self.dir.join(TIDEGATE_TOML))
            .output()
            .during(|| format!("run {what}"))?;
        if !output.status.success() {
            return Err(BenchError::said(format!(
                "{what} failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// An instance on the stand-in engine that loads in no time, for cold starts.
const TIDEGATE_COLD: &str = "[route]\nname = \"cold\"\npublic = true\n\n\
    [instance]\nname = \"cold\"\nproject = \"bench\"\nengine = \"sim\"\n\n\
    [instance.idle]\noffload_after = \"900ms\"\ntime_limit = \"1s\"\n\n\
    [[deployment]]\nmodel = \"bench/cold\"\nendpoint_name = \"cold\"\nstart = \"on-demand\"\n\n\
    [deployment.sim]\nload = \"0s\"\nwake = \"0s\"\nsleep = \"0s\"\nfirst_token = \"0s\"\n\
    tokens_per_second = 100000\nweights = \"1GiB\"\ncontext = \"1GiB\"\n";

/// Workers of nginx under root would be nobody, who may not enter the run's directory.
fn nginx_user() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    }
}

/// Three parts of base64 between dots.
fn is_token(word: &str) -> bool {
    word.len() > 60 && word.split('.').filter(|part| !part.is_empty()).count() == 3
}

/// A token for runs without Tidegate, as long as one of its own.
pub(crate) fn made_up_token() -> String {
    format!("{}.{}.{}", "h".repeat(36), "p".repeat(200), "s".repeat(86))
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr, BenchError> {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .during(|| "find a free port".to_owned())
}

/// The end of a log, on one line.
fn last_words(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(log) {
        drop(file.take(1 << 20).read_to_string(&mut text));
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(8)..)
        .unwrap_or_default();
    last.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(upstream: Upstream) -> Site {
        Site {
            dir: "/run/bench".into(),
            certificate: Certificate {
                ca: "/run/bench/ca.pem".into(),
                server: "/run/bench/server.pem".into(),
                key: "/run/bench/server.key".into(),
                both: "/run/bench/both.pem".into(),
            },
            token: made_up_token(),
            rs256: Rs256 {
                token: made_up_token(),
                public_key: "/run/bench/rs256.pem".into(),
            },
            upstream,
            cpus: String::new(),
            descriptors: 20_000,
            tidegate: "tidegate".into(),
        }
    }

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8443))
    }

    #[test]
    fn no_placeholder_is_left_in_a_configuration() {
        let unix = Upstream::Unix("/run/mock.sock".into());
        for upstream in [Upstream::Tcp(SocketAddr::from(([127, 0, 0, 1], 80))), unix] {
            let site = site(upstream);
            for (text, secret) in [
                (site.nginx_conf(address()), site.token.as_str()),
                (site.haproxy_cfg(HAPROXY, address()), &site.token),
                (site.haproxy_cfg(HAPROXY_JWT, address()), "rs256.pem"),
            ] {
                let placeholder = |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase());
                assert!(!text.split('@').any(placeholder), "{text}");
                assert!(text.contains(secret) && text.contains("8443"));
            }
        }
    }

    #[test]
    fn each_peer_gets_a_unix_upstream_in_its_own_words() {
        let site = site(Upstream::Unix("/run/mock.sock".into()));
        assert!(
            site.nginx_conf(address())
                .contains("server unix:/run/mock.sock;")
        );
        assert!(
            site.haproxy_cfg(HAPROXY, address())
                .contains("server mock unix@/run/mock.sock")
        );
        assert!(
            site.tidegate_route()
                .contains("url = \"unix:/run/mock.sock\"")
        );
    }

    #[test]
    fn a_token_is_found_among_the_words_printed() {
        assert!(is_token(&made_up_token()));
        assert!(!is_token("created"));
        assert!(!is_token("a.b.c"));
    }
}
