//! Parts that commands share: the settings, the gateway that is asked, the failure, a plan.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use super::out;
use crate::admin::view::PlanView;
use crate::auth::Secret;
use crate::config::error::FileError;
use crate::config::{self, Settings};

/// Reason for which a command failed.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// Where the settings stand.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigArg {
    /// The configuration file [default: tidegate.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG", global = true)]
    pub(super) config: Option<PathBuf>,
}

/// Which gateway is asked: the one of these settings, over its socket, or another
/// over HTTPS.
#[derive(Clone, Debug, Args)]
pub(super) struct RemoteArg {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// Ask a gateway at this address of its admin listener, not the one here
    #[arg(long, value_name = "URL", env = "TIDEGATE_ADMIN_URL")]
    pub(super) admin_url: Option<String>,
    /// The token for it, with the role operator or admin
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TIDEGATE_ADMIN_TOKEN",
        hide_env_values = true
    )]
    pub(super) admin_token: Option<String>,
    /// The file that holds the token for it, alone
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEGATE_ADMIN_TOKEN_FILE",
        conflicts_with = "admin_token"
    )]
    pub(super) admin_token_file: Option<PathBuf>,
    /// PEM file of the authority of its certificate [default: what the system trusts]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_ADMIN_CA")]
    pub(super) admin_ca: Option<PathBuf>,
}

/// The settings have errors; each is a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub(super) struct InvalidSettings(pub(super) Vec<FileError>);

fn lines(errors: &[FileError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl ConfigArg {
    /// Reads the settings.
    pub(super) fn load(&self) -> Result<Settings, Failure> {
        config::gateway::load(self.config.as_deref())
            .map_err(|errors| InvalidSettings(errors).into())
    }
}

/// Largest file of a token, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

impl RemoteArg {
    /// The token, from wherever it stands; `None` where it stands nowhere.
    pub(super) fn token(&self) -> Result<Option<Secret<String>>, Failure> {
        if let Some(token) = &self.admin_token {
            return Ok(Some(Secret::new(token.clone())));
        }
        let Some(file) = &self.admin_token_file else {
            return Ok(None);
        };
        let unread = |why: String| format!("--admin-token-file: {} {why}", file.display());
        let data =
            std::fs::metadata(file).map_err(|error| unread(format!("can't be read: {error}")))?;
        let usable = data.is_file() && data.len() <= TOKEN_FILE_BYTES_MAX;
        let text = usable.then(|| std::fs::read_to_string(file)).transpose();
        let text = text.map_err(|error| unread(format!("can't be read: {error}")))?;
        let token = text.as_deref().unwrap_or_default().trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let why = "must hold the token alone, on one line".to_owned();
            return Err(unread(why).into());
        }
        Ok(Some(Secret::new(token.to_owned())))
    }
}

/// Prints what a change would do.
pub(super) fn show_plan(plan: &PlanView) -> Result<(), Failure> {
    for deployment in &plan.deployments {
        out::line(format_args!(
            "{}: {}",
            deployment.deployment, deployment.words
        ))?;
        for words in &deployment.memory {
            out::line(format_args!("  GPU memory: {words}"))?;
        }
    }
    for route in &plan.routes {
        out::line(route)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_in_a_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let remote = RemoteArg {
            config: ConfigArg { config: None },
            admin_url: None,
            admin_token: None,
            admin_token_file: Some(file.clone()),
            admin_ca: None,
        };
        let wrong = || remote.token().unwrap_err().to_string();
        assert!(wrong().contains("can't be read"), "{}", wrong());
        std::fs::write(&file, "tgw_a.b\n").unwrap();
        assert_eq!(remote.token().unwrap().unwrap().expose(), "tgw_a.b");
        for bad in ["", "\n", "two words", "a\nb"] {
            std::fs::write(&file, bad).unwrap();
            assert!(wrong().contains("the token alone"), "{bad:?}");
        }
    }
}
