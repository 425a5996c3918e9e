//! Environment and files of this process that a worker gets: `workers.sandbox`,
//! `workers.environment`, `workers.writable`.

use std::path::{Path, PathBuf};

use super::Settings;
use super::reader::Reader;
use crate::auth::keeper::{SecretSource, TrustedKeys};
use crate::auth::keys::previous_beside;

/// Most entries of a list.
const ENTRIES_MAX: usize = 256;

/// Walls of a worker, and what it gets through them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Need for walls by the kernel.
    pub mode: SandboxMode,
    /// Names of further variables that workers get; one that ends with `*` stands for
    /// all that begin so.
    pub environment: Vec<String>,
    /// Further directories that workers may write to.
    pub writable: Vec<PathBuf>,
}

/// Need for the kernel to keep workers from what is the gateway's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// Kept where the kernel can; else `ps` says that it can't.
    #[default]
    Auto,
    /// Or no worker starts.
    Required,
    /// Never.
    Off,
}

/// Reads the keys out of `[workers]`.
pub(super) fn read(table: &mut Reader<'_>, to: &mut Sandbox) {
    let words = [
        ("auto", SandboxMode::Auto),
        ("required", SandboxMode::Required),
        ("off", SandboxMode::Off),
    ];
    if let Some(mode) = table.choice("sandbox", &words) {
        to.mode = mode.value;
    }
    if let Some(names) = table.parsed_list::<String>("environment") {
        let plain = |name: &String| {
            let name = name.strip_suffix('*').unwrap_or(name);
            let mut bytes = name.bytes();
            !name.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if names.value.len() <= ENTRIES_MAX && names.value.iter().all(plain) {
            to.environment = names.value;
        } else {
            let message = "write at most 256 names of variables, as \"AWS_PROFILE\" or \"AWS_*\"";
            table.wrong(names.line, "environment", message);
        }
    }
    if let Some(paths) = table.parsed_list::<PathBuf>("writable") {
        let whole = |path: &PathBuf| path.is_absolute() && path.as_path() != Path::new("/");
        if paths.value.len() <= ENTRIES_MAX && paths.value.iter().all(whole) {
            to.writable = paths.value;
        } else {
            let message = "write at most 256 whole paths, which begin with \"/\"";
            table.wrong(paths.line, "writable", message);
        }
    }
}

impl Settings {
    /// Files and directories that are the gateway's alone: its state, keys, settings and
    /// route files.
    pub fn private_paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![
            self.gateway.state.clone(),
            self.gateway.routes.clone(),
            self.tls.private_key.clone(),
            self.tokens.signing_key.clone(),
            previous_beside(&self.tokens.signing_key),
            self.admin.socket.clone(),
        ];
        // The directory that a first start makes; one of the system holds the
        // authorities of the hub as well.
        let certs = self.tls.private_key.parent();
        paths.extend(
            certs
                .filter(|dir| dir.ends_with("certs") && !dir.starts_with("/etc/ssl"))
                .map(Path::to_owned),
        );
        paths.extend(self.tls.more.iter().map(|pair| pair.private_key.clone()));
        paths.extend(self.tokens.previous_keys.iter().flatten().cloned());
        paths.extend(self.gateway.access_log.clone());
        paths.extend(self.file.clone());
        if let Some(hs256) = &self.tokens.hs256
            && let SecretSource::File(file) = &hs256.source
        {
            paths.push(file.clone());
        }
        if let Some(SecretSource::File(file)) = &self.telemetry.headers {
            paths.push(file.clone());
        }
        for trusted in &self.tokens.trusted {
            if let TrustedKeys::PublicKey { file, .. } = &trusted.keys {
                paths.push(file.clone());
            }
        }
        paths
    }
}
