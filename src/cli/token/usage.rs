//! `tidegate token usage`

use super::super::client::Client;
use super::super::common::Failure;
use super::super::out;
use super::offline::{self, is_offline};
use crate::admin::view::{LabelUse, TokenUsage};
use crate::config::Settings;
use crate::names::Workspace;
use crate::percent;

/// Asks the running gateway, or its store where none runs.
pub(super) async fn run(
    settings: &Settings,
    client: &Client,
    workspace: Option<Workspace>,
    json: bool,
) -> Result<(), Failure> {
    let mut path = format!("tokens/usage?limit={}", TokenUsage::LABELS_MAX);
    if let Some(workspace) = &workspace {
        path.push_str("&workspace=");
        path.push_str(&percent::of_name(workspace.as_str()));
    }
    let asked = client.get::<TokenUsage>(&path).await;
    let told = if is_offline(&asked) {
        here(settings, workspace.as_ref())?
    } else {
        asked?
    };
    if json {
        return out::json(&told.usage);
    }
    let rows: Vec<Vec<String>> = told.usage.iter().map(row).collect();
    let header = [
        "LABEL",
        "WORKSPACE",
        "ISSUER",
        "USED",
        "REQUESTS",
        "PROMPT TOKENS",
        "COMPLETION TOKENS",
        "LAST USED",
    ];
    out::table(&header, &rows)?;
    if told.left_out > 0 {
        out::note(&format!("{} more are left out", told.left_out));
    }
    Ok(())
}

fn here(settings: &Settings, workspace: Option<&Workspace>) -> Result<TokenUsage, Failure> {
    let store = offline::open(settings)?;
    let uses = store.usage_by_owner(&[], |record| match (record, workspace) {
        (_, None) => true,
        (Some(record), Some(asked)) => record.workspace == *asked,
        (None, Some(_)) => false,
    })?;
    Ok(TokenUsage {
        usage: uses.into_iter().map(LabelUse::from).collect(),
        left_out: 0,
    })
}

fn row(of: &LabelUse) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let name = of.label.clone().or_else(|| of.subject.clone());
    vec![
        name.unwrap_or_else(|| "(records are gone)".to_owned()),
        text(&of.workspace),
        text(&of.issuer),
        of.tokens.to_string(),
        of.requests.to_string(),
        of.prompt_tokens.to_string(),
        of.completion_tokens.to_string(),
        out::date(of.last_used),
    ]
}
