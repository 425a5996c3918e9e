//! The demo token: so that the first curl line works when it is pasted.
//!
//! It reads the project `demo` and nothing else. Made when it is absent, has
//! ended or no longer verifies; removing the project from the routes disarms it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::failure::Failure;
use crate::auth::{Denied, Issuer, Role, TokenLimits, TokenSpec, Verifier};
use crate::config::Settings;
use crate::names::{Project, Workspace};
use crate::store::Store;

/// Time that a demo token is valid for: 30 days.
const TTL: Duration = Duration::from_hours(30 * 24);

/// Place of the demo token.
#[derive(Debug)]
pub(super) struct Demo {
    /// Its file, mode 0600.
    pub path: PathBuf,
}

/// Makes sure that there is a demo token. One that was revoked stays revoked.
pub(super) fn token(
    settings: &Settings,
    issuer: &Issuer,
    verifier: &Verifier,
    store: &Store,
) -> Result<Demo, Failure> {
    let path = settings.gateway.state.join("demo.token");
    let now = verifier.now();
    let present = fs::read_to_string(&path).ok();
    let verdict = present.map(|token| verifier.verify(token.trim(), now));
    if matches!(verdict, Some(Ok(_) | Err(Denied::Revoked))) {
        return Ok(Demo { path });
    }
    let spec = TokenSpec {
        workspace: Workspace::new("demo")?,
        subject: None,
        role: Role::User,
        projects: vec![Project::new("demo")?],
        endpoints: Vec::new(),
        label: Some("demo".to_owned()),
        ttl: TTL,
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    };
    let (token, mut record) = issuer.issue(spec, verifier.revocations().clock().now())?;
    record.created_by = Some("first start".to_owned());
    store.put_token(&record)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    writeln!(file, "{token}")?;
    Ok(Demo { path })
}
