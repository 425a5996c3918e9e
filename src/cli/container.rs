//! `tidegate container`: the text of a Containerfile, for podman and docker.

use std::process::ExitCode;

use clap::Args;

use super::common::Failure;
use super::out;

/// A base with a glibc that a release binary of the last years starts with.
const BASE: &str = "docker.io/library/debian:12.12-slim";

/// vLLM's own image, without its tag.
const VLLM: &str = "docker.io/vllm/vllm-openai";

#[derive(Debug, Args)]
pub(super) struct Container {
    /// With this version of vLLM in the image, as 0.32.0; else only servers elsewhere and
    /// the stand-in are served
    #[arg(long, value_name = "VERSION", value_parser = version)]
    vllm: Option<String>,
    /// The image to build on [default: Debian's, or vLLM's own]; pin it by its digest, as
    /// debian@sha256:…
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    base: Option<String>,
}

fn version(text: &str) -> Result<String, String> {
    let parts = || text.split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts().count() == 3 && parts().all(number) {
        Ok(text.to_owned())
    } else {
        Err("write a version of vLLM, as 0.32.0".to_owned())
    }
}

fn image(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"./:_-@".contains(&b);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write an image, as debian:12.12-slim or debian@sha256:…".to_owned())
    }
}

impl Container {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        out::raw_line(self.text().trim_end())?;
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let (base, packages, run) = match &self.vllm {
            // It has what TLS and Python need.
            Some(vllm) => (format!("{VLLM}:v{vllm}"), "", "--gpus all --shm-size 8g "),
            None => (BASE.to_owned(), PACKAGES, ""),
        };
        let base = self.base.as_ref().unwrap_or(&base);
        format!(
            r#"# Tidegate {version}, by `tidegate container`. The binary lies beside this file:
#
#   cp target/release/tidegate . && tidegate container > Containerfile
#   podman build --format docker -t tidegate .        # docker build -f Containerfile -t tidegate .
#   podman run --read-only --stop-timeout 60 {run}-p 8443:8443 -p 9443:9443 \
#     -v tidegate-config:/etc/tidegate -v tidegate-state:/var/lib/tidegate tidegate
#   podman exec CONTAINER tidegate token create --workspace acme
#
# /etc/tidegate holds tidegate.toml, routes.d and certs; /var/lib/tidegate what is kept:
# tokens, logs, models. Nothing else is written to. The variables below win over
# tidegate.toml: another address to listen on is given as -e TIDEGATE_GATEWAY_LISTEN=…
FROM {base}
USER root
{packages}RUN groupadd --gid 10001 tidegate && useradd --uid 10001 --gid 10001 --no-log-init \
      --home-dir /var/lib/tidegate --shell /usr/sbin/nologin tidegate && \
    install -d -o tidegate -g tidegate -m 0700 /etc/tidegate /etc/tidegate/routes.d /var/lib/tidegate
COPY tidegate /usr/local/bin/tidegate
ENV HOME=/var/lib/tidegate \
    TIDEGATE_GATEWAY_LISTEN=0.0.0.0:8443 \
    TIDEGATE_GATEWAY_STATE=/var/lib/tidegate/state \
    TIDEGATE_ADMIN_LISTEN=0.0.0.0:9443 \
    TIDEGATE_ADMIN_SOCKET=/var/lib/tidegate/state/admin.sock \
    TIDEGATE_METRICS_LISTEN=0.0.0.0:9464
WORKDIR /etc/tidegate
VOLUME ["/etc/tidegate", "/var/lib/tidegate"]
USER 10001:10001
EXPOSE 8443 9443 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["tidegate", "ready"]
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["serve", "--stop-workers"]
"#
        )
    }
}

/// The authorities that vouch for servers elsewhere.
const PACKAGES: &str =
    "RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && \\
    rm -rf /var/lib/apt/lists/*
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::environment;

    fn text(vllm: Option<&str>, base: Option<&str>) -> String {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (vllm, base) = (owned(vllm), owned(base));
        Container { vllm, base }.text()
    }

    #[test]
    fn the_base_is_pinned_and_what_is_set_is_a_setting() {
        let known = environment::variables();
        let is_known = |name: &str| known.iter().any(|known| known.name == name);
        for (text, base) in [
            (text(None, None), BASE),
            (
                text(Some("0.32.0"), None),
                "docker.io/vllm/vllm-openai:v0.32.0",
            ),
            (text(None, Some("debian@sha256:ab")), "debian@sha256:ab"),
        ] {
            let from: Vec<_> = text.lines().filter(|l| l.starts_with("FROM ")).collect();
            assert_eq!(from, [format!("FROM {base}")]);
            let set: Vec<_> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .flat_map(str::split_ascii_whitespace)
                .filter_map(|word| word.strip_prefix("TIDEGATE_")?.split_once('='))
                .map(|(name, _)| format!("TIDEGATE_{name}"))
                .collect();
            assert_eq!(set.len(), 5);
            for name in set {
                assert!(is_known(&name), "{name} is no setting");
            }
        }
    }

    #[test]
    fn what_would_be_another_line_is_refused() {
        for bad in ["", "0.32", "0.32.0\nRUN x", "latest", "v0.32.0"] {
            assert!(version(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a\nRUN x", "-x"] {
            assert!(image(bad).is_err(), "{bad:?}");
        }
        assert!(image("debian@sha256:0f").is_ok() && version("0.32.0").is_ok());
    }
}
