//! Shapes of tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Pattern, Role, TokenLimits, TokenRecord, TokenSpec};
use crate::names::{Project, Workspace};
use crate::store::owners::OwnerUse;
use crate::telemetry::usage::Tally;
use crate::units::Span;

/// One page of `GET tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokensView {
    /// Tokens that were issued here, the newest first; then holders of others.
    pub tokens: Vec<TokenView>,
    /// Start of the next page: `tokens?before=` this.
    pub next: Option<String>,
}

/// Facts of a token after it was handed out; never the token itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Record that it was issued with.
    #[serde(flatten)]
    #[schema(value_type = TokenRecordSchema)]
    pub record: TokenRecord,
    /// `valid`, `expired` or `revoked`.
    pub state: String,
    /// Last use, in seconds since 1970.
    pub last_used: Option<u64>,
    /// Requests that reached a server.
    pub requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
}

impl TokenView {
    /// A record, with what the token was used for.
    pub fn new(record: TokenRecord, used: Option<Tally>, now: u64) -> Self {
        let state = if record.revoked.is_some() {
            "revoked"
        } else if record.expires <= now {
            "expired"
        } else {
            "valid"
        };
        let tally = used.unwrap_or_default();
        Self {
            record,
            state: state.to_owned(),
            last_used: used.map(|used| used.last_used),
            requests: tally.requests,
            prompt_tokens: tally.prompt_tokens,
            completion_tokens: tally.completion_tokens,
        }
    }
}

/// `GET tokens/usage`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenUsage {
    /// Use by label, the largest first.
    pub usage: Vec<LabelUse>,
    /// Further ones that are left out here.
    pub left_out: usize,
}

impl TokenUsage {
    /// Most labels of one answer.
    pub const LABELS_MAX: usize = 10_000;
}

/// Use by the tokens of one label; where they have none, by those of one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LabelUse {
    /// The label.
    pub label: Option<String>,
    /// Subject of the tokens, where they have no label. Neither: their records are gone.
    pub subject: Option<String>,
    /// The tenant.
    pub workspace: Option<String>,
    /// Issuer of the tokens, where this gateway did not issue them.
    pub issuer: Option<String>,
    /// Number of tokens that were used; of another issuer, of subjects.
    pub tokens: u64,
    /// Requests that reached a server.
    pub requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
    /// Last use of any, in seconds since 1970.
    pub last_used: u64,
}

impl From<OwnerUse> for LabelUse {
    fn from(of: OwnerUse) -> Self {
        let OwnerUse {
            owner,
            tokens,
            used,
        } = of;
        Self {
            label: owner.label,
            subject: owner.subject,
            workspace: owner.workspace,
            issuer: owner.issuer,
            tokens,
            requests: used.requests,
            prompt_tokens: used.prompt_tokens,
            completion_tokens: used.completion_tokens,
            last_used: used.last_used,
        }
    }
}

/// `POST tokens`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The tenant.
    #[schema(value_type = String)]
    pub workspace: Workspace,
    /// Person whom the token is for; default: a name from the label.
    #[serde(default)]
    pub subject: Option<String>,
    /// Role of the token: `user`, `operator`, `workspace-admin` or `admin`. An operator
    /// gives out `user` only, and only for projects of their own; an admin of a
    /// workspace all but `admin`, for that workspace.
    #[serde(default)]
    #[schema(value_type = String)]
    pub role: Role,
    /// Projects that it may read.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub projects: Vec<Project>,
    /// Routes or models that it is limited to; makes it an endpoint token.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub endpoints: Vec<Pattern>,
    /// A name for people.
    #[serde(default)]
    pub label: Option<String>,
    /// Time that the token is valid for: `"30d"`.
    #[schema(value_type = String)]
    pub ttl: Span,
    /// Anything that belongs to it, as an object.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
    /// Limits that lower those of the routes.
    #[serde(default)]
    #[schema(value_type = TokenLimitsSchema)]
    pub limits: TokenLimits,
    /// True if it may load and unload the models that it may use; an admin gives that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_load: bool,
}

impl TokenRequest {
    /// The order that the issuer takes.
    pub fn spec(self) -> TokenSpec {
        TokenSpec {
            workspace: self.workspace,
            subject: self.subject,
            role: self.role,
            projects: self.projects,
            endpoints: self.endpoints,
            label: self.label,
            ttl: self.ttl.0,
            metadata: self.metadata,
            limits: self.limits,
            may_load: self.may_load,
        }
    }
}

/// The answer to `POST tokens`: the only time that the token is shown.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    /// The token.
    pub token: String,
    /// Record of the token.
    #[schema(value_type = TokenRecordSchema)]
    pub record: TokenRecord,
}

/// The answer to `DELETE tokens/{jti}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenRevoked {
    /// Its id.
    pub revoked: String,
    /// Moment of the revocation, in seconds since 1970.
    pub since: u64,
    /// True if a restart keeps it; if not, the store can't be written now.
    #[serde(default = "yes")]
    pub kept: bool,
}

/// A gateway of before kept all that it answered.
const fn yes() -> bool {
    true
}

/// `POST tokens/cut-off`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CutOffRequest {
    /// The tenant.
    #[schema(value_type = String)]
    pub workspace: Workspace,
    /// Subject of the tokens; all of the tenant where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// The answer to `POST tokens/cut-off`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CutOff {
    /// Tokens that were issued before this second are refused from now on, whoever
    /// issued them; seconds since 1970.
    pub before: u64,
    /// True if a restart keeps it; if not, the store can't be written now.
    #[serde(default = "yes")]
    pub kept: bool,
}

/// The answer to `POST tokens/rotate-key`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyRotated {
    /// Id of the key that signs from now on.
    pub kid: String,
    /// Id of the key that signed before; its tokens stay valid until they end.
    pub previous_kid: String,
    /// File of the public halves of previous keys.
    pub previous_file: String,
    /// Ids of keys that were dropped, as only so many are kept: their tokens are
    /// refused now.
    pub dropped: Vec<String>,
}

/// [`TokenRecord`], which knows nothing of this API, for its description.
#[derive(ToSchema)]
#[schema(as = TokenRecord)]
#[expect(
    dead_code,
    reason = "only described; a test holds it against the real one"
)]
pub(crate) struct TokenRecordSchema {
    /// Its id; sorts by the time of issue.
    jti: String,
    /// The tenant.
    workspace: String,
    /// Person whom the token names.
    subject: String,
    /// `user` or `endpoint`.
    kind: String,
    /// `user`, `operator`, `workspace-admin` or `admin`.
    role: String,
    /// Projects that it may read.
    projects: Vec<String>,
    /// Endpoints that it is restricted to.
    endpoints: Vec<String>,
    /// A name for people.
    label: Option<String>,
    /// Fields for the access log.
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// Limits that it carries.
    limits: TokenLimitsSchema,
    /// True if it may load and unload the models that it may use.
    may_load: bool,
    /// Issue, in seconds since 1970.
    created: u64,
    /// End, in seconds since 1970.
    expires: u64,
    /// Person who asked for the token.
    created_by: Option<String>,
    /// The workspace of that person; left out where there is none.
    created_by_workspace: Option<String>,
    /// Revocation, in seconds since 1970.
    revoked: Option<u64>,
    /// Issuer, where this gateway did not issue it. All else is then what the newest
    /// token of its holder said, and the id stands for all of them.
    issuer: Option<String>,
}

/// [`TokenLimits`], for the description.
#[derive(ToSchema)]
#[schema(as = TokenLimits)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct TokenLimitsSchema {
    /// Requests per minute.
    rpm: Option<u32>,
    /// Tokens per minute.
    tpm: Option<u32>,
    /// Requests at the same time.
    conc: Option<u32>,
    /// Priority class in queues; 0 is served first.
    prio: Option<u8>,
}
