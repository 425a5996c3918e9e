//! `tidegate token revoke | cut-off`

use clap::Args;
use http::Method;

use super::super::client::Client;
use super::super::common::Failure;
use super::super::out;
use super::offline::{self, is_offline};
use crate::admin::view::{CutOff as CutOffView, CutOffRequest, TokenRevoked};
use crate::config::Settings;
use crate::names::Workspace;
use crate::percent;
use crate::store::refusals::Refused;

#[derive(Debug, Args)]
pub(super) struct CutOff {
    /// The tenant
    #[arg(long)]
    workspace: Workspace,
    /// Only the tokens of this subject
    #[arg(long)]
    subject: Option<String>,
}

pub(super) async fn revoke(settings: &Settings, client: &Client, jti: &str) -> Result<(), Failure> {
    let path = format!("tokens/{}", percent::of_name(jti));
    let asked = client
        .call::<TokenRevoked>(Method::DELETE, &path, None::<&()>)
        .await;
    let kept = if is_offline(&asked) {
        let store = offline::open(settings)?;
        kept_here(store.revoke_token(jti, store.clock().seconds())?)?
    } else {
        asked?.kept
    };
    out::line(format_args!("{jti} is revoked"))?;
    held(kept);
    Ok(())
}

impl CutOff {
    pub(super) async fn run(self, settings: &Settings, client: &Client) -> Result<(), Failure> {
        let request = CutOffRequest {
            workspace: self.workspace,
            subject: self.subject,
        };
        let path = "tokens/cut-off";
        let asked = client.call::<CutOffView>(Method::POST, path, Some(&request));
        let asked = asked.await;
        let kept = if is_offline(&asked) {
            let store = offline::open(settings)?;
            let (subject, now) = (request.subject.as_deref(), store.clock().seconds());
            kept_here(store.cut_off(&request.workspace, subject, now)?)?
        } else {
            asked?.kept
        };
        let whose = match &request.subject {
            Some(subject) => format!("{subject} in {}", request.workspace),
            None => request.workspace.to_string(),
        };
        out::line(format_args!(
            "every token of {whose} that was issued up to now is refused"
        ))?;
        held(kept);
        Ok(())
    }
}

/// The store can't be written, and no gateway is there to hold what is refused.
#[derive(Debug, thiserror::Error)]
#[error("nothing was done: the store can't be written, see to the disk of gateway.state")]
struct NotKept;

fn kept_here(refused: Refused) -> Result<bool, NotKept> {
    if refused.kept { Ok(true) } else { Err(NotKept) }
}

/// Tells of a change that is in effect, and that a restart would forget.
fn held(kept: bool) {
    if !kept {
        out::note(
            "the gateway's store can't be written now: this is in effect and held in memory until it can; \
             see `tidegate ps`, and do not restart the gateway before",
        );
    }
}
