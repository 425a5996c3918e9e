//! Making tokens.
//!
//! Owns the bounds of what a token may hold. The token itself is returned once and
//! kept nowhere; what is kept is its [`TokenRecord`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::claims::{Claims, Header, Role, TYPE, TokenKind, TokenLimits, VERSION};
use super::keys::SigningKey;
use super::pattern::Pattern;
use super::principal::Principal;
use super::token::{
    LABEL_CHARS_MAX, PROJECTS_MAX, SUBJECT_CHARS_MAX, TOKEN_BYTES_MAX, TOKEN_PREFIX, is_label,
    short,
};
use super::ulid::ulid;
use crate::names::{Project, Workspace};

/// Longest life of a token.
pub const TTL_MAX: Duration = Duration::from_hours(3_650 * 24);
/// Most metadata, as JSON.
pub const METADATA_BYTES_MAX: usize = 1024;
/// Most endpoints in one token.
pub const ENDPOINTS_MAX: usize = 256;

/// Content of a token to be issued. One that lists endpoints becomes an endpoint token.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// The tenant.
    pub workspace: Workspace,
    /// `user:ana`, `svc:ci`; `None`: `token:` and the id.
    pub subject: Option<String>,
    /// Rights of the holder beside sending requests.
    pub role: Role,
    /// Projects that the holder may read.
    pub projects: Vec<Project>,
    /// Restricts the token to these routes and models; empty: a user token.
    pub endpoints: Vec<Pattern>,
    /// A name for people.
    pub label: Option<String>,
    /// Life of the token, at least a second.
    pub ttl: Duration,
    /// A JSON object for the access log.
    pub metadata: Option<Value>,
    /// Limits that lower those of the routes.
    pub limits: TokenLimits,
    /// True if the token may load and unload the models that it may use.
    pub may_load: bool,
}

/// Facts about a token after it was handed out; never the token itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its id; sorts by the time of issue.
    pub jti: String,
    /// The tenant.
    pub workspace: Workspace,
    /// Subject that it names.
    pub subject: String,
    /// Kind of holder that it stands for.
    pub kind: TokenKind,
    /// Rights of its holder.
    pub role: Role,
    /// Projects that it may read.
    pub projects: Vec<Project>,
    /// Endpoints that it is restricted to.
    pub endpoints: Vec<Pattern>,
    /// A name for people.
    pub label: Option<String>,
    /// For the access log.
    pub metadata: Option<Map<String, Value>>,
    /// Limits that it carries.
    #[serde(default)]
    pub limits: TokenLimits,
    /// True if the token may load and unload the models that it may use.
    #[serde(default)]
    pub may_load: bool,
    /// Time of issue, in seconds since 1970.
    pub created: u64,
    /// End of its life, in seconds since 1970.
    pub expires: u64,
    /// Person or service who asked for it; set by the caller of [`Issuer::issue`].
    pub created_by: Option<String>,
    /// The workspace of the one who asked for it; none of the command line, the socket, and
    /// where it was not kept. It is part of their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by_workspace: Option<Workspace>,
    /// Time of its revocation, in seconds since 1970.
    pub revoked: Option<u64>,
    /// Issuer of the token, where that is not this gateway. All else is then what the newest
    /// token of its holder said.
    #[serde(default)]
    pub issuer: Option<String>,
}

impl TokenRecord {
    /// Record of a token that was issued elsewhere and shown here at `now`, in seconds
    /// since 1970.
    pub fn seen(holder: &Principal, now: u64) -> Self {
        let created = match holder.issued_at {
            0 => now,
            issued_at => issued_at,
        };
        Self {
            jti: holder.token_id.to_string(),
            workspace: holder.workspace.clone(),
            subject: holder.subject.to_string(),
            kind: holder.kind,
            role: holder.role,
            projects: holder.projects.clone(),
            endpoints: holder.endpoints.clone(),
            label: holder.label.as_deref().map(str::to_owned),
            metadata: holder.metadata.as_deref().cloned(),
            limits: holder.limits,
            may_load: holder.may_load,
            created,
            expires: holder.expires_at,
            created_by: None,
            created_by_workspace: None,
            revoked: None,
            issuer: Some(holder.issuer.to_string()),
        }
    }
}

/// Reason why a token is not issued.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The life is out of bounds.
    #[error("a token lives from 1s to 3650d: choose another ttl")]
    Ttl,
    /// Metadata is not an object.
    #[error("metadata is a JSON object, as {{\"team\": \"nlp\"}}")]
    MetadataShape,
    /// Metadata is too large.
    #[error("metadata takes {0} bytes as JSON: shorten it to {METADATA_BYTES_MAX}")]
    MetadataSize(usize),
    /// The label is too long or not printable.
    #[error("a label has 1 to {LABEL_CHARS_MAX} characters and no control characters: shorten it")]
    Label,
    /// The subject is too long or not printable.
    #[error(
        "a subject has 1 to {SUBJECT_CHARS_MAX} printable characters without spaces, \
         as \"user:ana\""
    )]
    Subject,
    /// Too many projects.
    #[error("{0} projects are too many for one token: name at most {PROJECTS_MAX}")]
    Projects(usize),
    /// Too many endpoints.
    #[error(
        "{0} endpoints are too many for one token: name at most {ENDPOINTS_MAX}, \
         or use patterns with '*'"
    )]
    Endpoints(usize),
    /// An endpoint token with more than the least role.
    #[error("a token for endpoints has the role user: leave out the endpoints, or the role")]
    EndpointRole,
    /// A limit of zero.
    #[error("the limit {0} is at least 1: leave it out for no limit")]
    ZeroLimit(&'static str),
    /// All of it together is too large for a header.
    #[error(
        "the token would take {0} bytes, and {TOKEN_BYTES_MAX} is the most: name fewer \
         projects and endpoints, or shorten the metadata"
    )]
    TokenSize(usize),
    /// The system gives no random bytes, or the key does not sign.
    #[error("the cryptographic library could not make the token")]
    Crypto,
}

/// Issues tokens in one issuer's name, for one audience.
#[derive(Debug)]
pub struct Issuer {
    /// Swapped by a rotation; a token that is being made keeps the one it began with.
    key: ArcSwap<SigningKey>,
    name: String,
    audience: String,
}

impl Issuer {
    /// Issues with this key as `issuer`, for `audience`.
    pub fn new(key: SigningKey, issuer: &str, audience: &str) -> Self {
        Self {
            key: ArcSwap::from_pointee(key),
            name: issuer.to_owned(),
            audience: audience.to_owned(),
        }
    }

    /// The key that signs.
    pub fn key(&self) -> Arc<SigningKey> {
        self.key.load_full()
    }

    /// Signs with another key from now on.
    pub(super) fn replace_key(&self, key: SigningKey) {
        self.key.store(Arc::new(key));
    }

    /// Makes a token: its text with prefix, to be shown once, and its record.
    ///
    /// `now` is the time since 1970, as [`crate::time::unix_time`] gives it.
    ///
    /// # Errors
    ///
    /// [`IssueError`] when the spec is out of bounds, and nothing was made.
    pub fn issue(
        &self,
        spec: TokenSpec,
        now: Duration,
    ) -> Result<(String, TokenRecord), IssueError> {
        let claims = self.claims(spec, now)?;
        let token = self.signed(&claims)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(IssueError::TokenSize(token.len()));
        }
        let record = TokenRecord {
            jti: claims.jti,
            workspace: claims.ws,
            subject: claims.sub,
            kind: claims.knd,
            role: claims.rol,
            projects: claims.grp,
            endpoints: claims.ep,
            label: claims.lbl,
            metadata: claims.md,
            limits: claims.lim,
            may_load: claims.load,
            created: now.as_secs(),
            expires: claims.exp,
            created_by: None,
            created_by_workspace: None,
            revoked: None,
            issuer: None,
        };
        Ok((token, record))
    }

    fn claims(&self, spec: TokenSpec, now: Duration) -> Result<Claims, IssueError> {
        check(&spec)?;
        let md = match spec.metadata {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => return Err(IssueError::MetadataShape),
        };
        let jti = ulid(now).map_err(|_| IssueError::Crypto)?;
        let knd = if spec.endpoints.is_empty() {
            TokenKind::User
        } else {
            TokenKind::Endpoint
        };
        let seconds = now.as_secs();
        Ok(Claims {
            iss: self.name.clone(),
            aud: self.audience.clone(),
            sub: spec.subject.unwrap_or_else(|| format!("token:{jti}")),
            jti,
            iat: Some(seconds),
            nbf: Some(seconds),
            exp: seconds.saturating_add(spec.ttl.as_secs()),
            ver: VERSION,
            ws: spec.workspace,
            knd,
            rol: spec.role,
            grp: spec.projects,
            ep: spec.endpoints,
            lim: spec.limits,
            load: spec.may_load,
            lbl: spec.label,
            md,
        })
    }

    fn signed(&self, claims: &Claims) -> Result<String, IssueError> {
        let key = self.key.load();
        let header = Header {
            alg: Algorithm::EdDsa.name().into(),
            kid: key.kid().into(),
            typ: TYPE.into(),
        };
        let mut token = TOKEN_PREFIX.to_owned();
        let header = serde_json::to_vec(&header).map_err(|_| IssueError::Crypto)?;
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        let claims = serde_json::to_vec(claims).map_err(|_| IssueError::Crypto)?;
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let message = token.strip_prefix(TOKEN_PREFIX).unwrap_or_default();
        let signature = key.sign(message.as_bytes()).ok_or(IssueError::Crypto)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

fn check(spec: &TokenSpec) -> Result<(), IssueError> {
    if !(Duration::from_secs(1)..=TTL_MAX).contains(&spec.ttl) {
        return Err(IssueError::Ttl);
    }
    if let Some(metadata) = &spec.metadata {
        let bytes = metadata.to_string().len();
        if bytes > METADATA_BYTES_MAX {
            return Err(IssueError::MetadataSize(bytes));
        }
    }
    if let Some(label) = &spec.label
        && !is_label(label)
    {
        return Err(IssueError::Label);
    }
    if let Some(subject) = &spec.subject
        && !short(subject, SUBJECT_CHARS_MAX, |c| {
            c.is_control() || c.is_whitespace()
        })
    {
        return Err(IssueError::Subject);
    }
    if spec.projects.len() > PROJECTS_MAX {
        return Err(IssueError::Projects(spec.projects.len()));
    }
    if spec.endpoints.len() > ENDPOINTS_MAX {
        return Err(IssueError::Endpoints(spec.endpoints.len()));
    }
    if !spec.endpoints.is_empty() && spec.role != Role::User {
        return Err(IssueError::EndpointRole);
    }
    let limits = &spec.limits;
    for (name, limit) in [
        ("rpm", limits.rpm),
        ("tpm", limits.tpm),
        ("conc", limits.conc),
    ] {
        if limit == Some(0) {
            return Err(IssueError::ZeroLimit(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
