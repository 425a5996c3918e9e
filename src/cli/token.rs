//! `tidegate token create | list | usage | show | revoke | cut-off | rotate-key`

use std::io::Read;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;

use super::client::Client;
use super::common::{Failure, RemoteArg};
use super::out;
use crate::admin::view::{KeyRotated, TokenMade, TokenRequest, TokenView, TokensView};
use crate::auth::keys::rotate;
use crate::auth::{Issuer, Keys, Pattern, Role, SigningKey, TokenLimits};
use crate::config::Settings;
use crate::names::{Project, Workspace};
use crate::percent;
use crate::units::Span;

pub(super) mod offline;
mod refuse;
mod usage;

use offline::is_offline;
use refuse::CutOff;

#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: RemoteArg,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token; it is shown once
    Create(Create),
    /// List tokens, the newest first; then who showed tokens of other issuers
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was used, by the label of the tokens
    Usage {
        /// Only that of one tenant
        #[arg(long)]
        workspace: Option<Workspace>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a token says and whether it is valid here
    Show {
        /// The token, or `-` to read it from standard input
        token: String,
    },
    /// Revoke a token: it is refused from its next request on
    Revoke {
        /// Its id, from `list` or `show`; one that `list` has of another issuer stands for
        /// all tokens of its holder
        jti: String,
    },
    /// Refuse every token of a tenant, or of one subject, that was issued up to now
    CutOff(CutOff),
    /// Sign with a new key; tokens of the old one stay valid until they end
    RotateKey,
}

#[derive(Debug, Args)]
struct Create {
    /// The tenant that the token belongs to
    #[arg(long)]
    workspace: Workspace,
    /// A project that it may use; may be given more than once
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<Project>,
    /// A route or model that it is limited to, `*` matches any; may be given
    /// more than once
    #[arg(long = "endpoint", value_name = "ENDPOINT")]
    endpoints: Vec<Pattern>,
    /// What it may do: user; operator, for the instances of its projects;
    /// workspace-admin, for all of its workspace; admin, for everything
    #[arg(long, default_value = "user")]
    role: Role,
    /// Whom or what it is for
    #[arg(long)]
    label: Option<String>,
    /// The subject claim [default: made from the label]
    #[arg(long)]
    subject: Option<String>,
    /// How long it is valid
    #[arg(long, default_value = "30d")]
    ttl: Span,
    /// A JSON object that is kept with it
    // By itself, clap would take any text for a JSON string.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    metadata: Option<serde_json::Value>,
    /// Requests per minute, where that is less than the route's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Tokens per minute, where that is less than the route's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens_per_minute: Option<u32>,
    /// Requests at the same time, on all routes together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent_requests: Option<u32>,
    /// Class in queues: 0 is served first, then 1, then the rest
    #[arg(long, value_name = "CLASS")]
    priority: Option<u8>,
    /// Lets it load and unload the models that it may use, by POST to /v1/models/load and
    /// /v1/models/unload; an admin gives that
    #[arg(long)]
    may_load: bool,
    /// Print token and record as JSON
    #[arg(long)]
    json: bool,
}

fn json_object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) | Err(_) => Err("write a JSON object, as {\"team\": \"nlp\"}".to_owned()),
    }
}

impl Token {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.remote.config.load()?;
        let client = Client::new(&self.remote)?;
        match self.command {
            Command::Create(create) => create.run(&settings, &client).await?,
            Command::List { json } => list(&settings, &client, json).await?,
            Command::Usage { workspace, json } => {
                usage::run(&settings, &client, workspace, json).await?;
            }
            Command::Show { token } => return show(&settings, &token),
            Command::Revoke { jti } => refuse::revoke(&settings, &client, &jti).await?,
            Command::CutOff(whom) => whom.run(&settings, &client).await?,
            Command::RotateKey => rotate_key(&settings, &client).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, settings: &Settings, client: &Client) -> Result<(), Failure> {
        let json = self.json;
        let request = TokenRequest {
            workspace: self.workspace,
            subject: self.subject,
            role: self.role,
            projects: self.projects,
            endpoints: self.endpoints,
            label: self.label,
            ttl: self.ttl,
            metadata: self.metadata,
            limits: TokenLimits {
                rpm: self.requests_per_minute,
                tpm: self.tokens_per_minute,
                conc: self.max_concurrent_requests,
                prio: self.priority,
            },
            may_load: self.may_load,
        };
        let asked = client.call(Method::POST, "tokens", Some(&request)).await;
        let made: TokenMade = if is_offline(&asked) {
            offline(settings, request)?
        } else {
            asked?
        };
        if json {
            return out::json(&made);
        }
        out::line(&made.token)
    }
}

/// Makes a token without a running gateway.
fn offline(settings: &Settings, request: TokenRequest) -> Result<TokenMade, Failure> {
    let store = offline::open(settings)?;
    let key = SigningKey::load_or_create(&settings.tokens.signing_key)?.key;
    let issuer = Issuer::new(key, &settings.tokens.issuer, &settings.tokens.audience);
    let (token, mut record) = issuer.issue(request.spec(), store.clock().now())?;
    record.created_by = Some("command line".to_owned());
    store.put_token(&record)?;
    Ok(TokenMade { token, record })
}

async fn list(settings: &Settings, client: &Client, json: bool) -> Result<(), Failure> {
    let mut records: Vec<TokenView> = Vec::new();
    let mut before: Option<String> = None;
    let store = match client.get::<TokensView>("tokens").await {
        asked if is_offline(&asked) => Some(offline::open(settings)?),
        asked => {
            let page = asked?;
            before.clone_from(&page.next);
            records.extend(page.tokens);
            None
        }
    };
    if let Some(store) = store {
        loop {
            let page = store.tokens(None, before.as_deref(), 200)?;
            let ids: Vec<&str> = page.records.iter().map(|r| r.jti.as_str()).collect();
            let used = store.usage_of(&ids)?;
            let now = store.clock().seconds();
            let page_records = page.records.iter().cloned().zip(used);
            records.extend(page_records.map(|(record, used)| TokenView::new(record, used, now)));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
    }
    while let Some(next) = before.take() {
        let page: TokensView = client
            .get(&format!("tokens?before={}", percent::of_name(&next)))
            .await?;
        records.extend(page.tokens);
        before = page.next;
    }
    if json {
        return out::json(&records);
    }
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    let header = [
        "ID",
        "LABEL",
        "TYPE",
        "ROLE",
        "WORKSPACE",
        "SCOPE",
        "CREATED",
        "EXPIRES",
        "LAST USED",
        "REQUESTS",
        "TOKENS",
        "STATE",
        "ISSUER",
    ];
    out::table(&header, &rows)
}

fn row(view: &TokenView) -> Vec<String> {
    let record = &view.record;
    let projects = record.projects.iter().map(|p| format!("project {p}"));
    let endpoints = record
        .endpoints
        .iter()
        .map(|e| format!("endpoint {}", e.as_str()));
    let loads = record.may_load.then(|| "loads models".to_owned());
    let scope: Vec<String> = projects.chain(endpoints).chain(loads).collect();
    // A token without a label is known by its subject, unless we made that name up.
    let is_foreign = record.issuer.is_some();
    let name = || is_foreign.then(|| record.subject.clone());
    let label = record.label.clone().or_else(name);
    vec![
        record.jti.clone(),
        label.unwrap_or_else(|| "-".to_owned()),
        format!("{:?}", record.kind).to_lowercase(),
        record.role.as_str().to_owned(),
        record.workspace.to_string(),
        if scope.is_empty() {
            "-".to_owned()
        } else {
            scope.join(", ")
        },
        out::date(record.created),
        out::date(record.expires),
        view.last_used.map_or_else(|| "-".to_owned(), out::date),
        view.requests.to_string(),
        (view.prompt_tokens + view.completion_tokens).to_string(),
        view.state.clone(),
        record.issuer.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn show(settings: &Settings, token: &str) -> Result<ExitCode, Failure> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        std::io::stdin()
            .lock()
            .take(64 * 1024)
            .read_to_string(&mut text)?;
    }
    offline::has_key(settings)?;
    // Revocations need the store, which a running gateway holds: `list` shows them.
    let revocations = match offline::open(settings) {
        Ok(store) => crate::app::revocations(settings, &store)?,
        Err(_) => std::sync::Arc::default(),
    };
    // Keys that have to be fetched are not.
    let keys = Keys::load(settings.tokens.key_sources(), revocations)?.keys;
    let verdict = keys.verifier().verify(text.trim(), keys.verifier().now());
    if let Some(claims) = claims(text.trim()) {
        out::json(&claims)?;
    }
    match verdict {
        Ok(_) => {
            out::line("valid here")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(denied) => {
            out::line(format_args!("not valid here: {}", denied.as_str()))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The claims as they stand in the token, whoever signed it.
fn claims(token: &str) -> Option<serde_json::Value> {
    let bare = token
        .strip_prefix(crate::auth::TOKEN_PREFIX)
        .unwrap_or(token);
    let data = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(bare).ok()?;
    Some(data.claims)
}

async fn rotate_key(settings: &Settings, client: &Client) -> Result<(), Failure> {
    let asked = client
        .call::<KeyRotated>(Method::POST, "tokens/rotate-key", None::<&()>)
        .await;
    let rotated = if is_offline(&asked) {
        // The store's lock keeps a gateway from starting meanwhile.
        let _store = offline::open(settings)?;
        let tokens = &settings.tokens;
        KeyRotated::from(rotate(&tokens.signing_key, &tokens.kept_keys()?)?)
    } else {
        asked?
    };
    out::line(format_args!(
        "{} signs from now on; tokens of {} stay valid until they end (its public half stands in {})",
        rotated.kid, rotated.previous_kid, rotated.previous_file
    ))?;
    for kid in &rotated.dropped {
        out::line(format_args!(
            "{kid} fell out of that file: its tokens are refused"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn metadata(text: &str) -> Result<serde_json::Value, String> {
        let line = ["create", "--workspace", "w", "--metadata", text];
        let parsed = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        Ok(parsed.create.metadata.unwrap())
    }

    #[test]
    fn metadata_is_read_as_an_object_and_nothing_else() {
        assert_eq!(metadata(r#"{"team":"sea"}"#).unwrap()["team"], "sea");
        for bad in ["team", "\"team\"", "[1]", "{", "7"] {
            let told = metadata(bad).unwrap_err();
            assert!(told.contains("write a JSON object"), "{told}");
        }
    }
}
