//! The shape of a workspace token: its header, its claims, and what they may say.
//!
//! One shape is written by [`super::issue`] and read by [`super::verify`]. It is
//! read strictly: a header field beside the three known ones, a repeated field, a
//! number that is a string, or a version other than ours make a token invalid.
//! Unknown claims are passed over, as RFC 7519 wants; what restricts a token more
//! than today's claims must therefore raise `VERSION`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::pattern::Pattern;
use crate::names::{Project, Workspace};

/// `typ` of our tokens: one kind of JWT can't pass for another (RFC 8725, 3.11).
pub(super) const TYPE: &str = "wst+jwt";

/// `ver` of the claims.
pub(super) const VERSION: u32 = 1;

/// Kind of holder that a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A person or service, with the projects that they may read.
    User,
    /// Any holder, for the endpoints that the token lists and nothing else.
    Endpoint,
}

/// Rights of a token's holder beside sending requests; each includes the former.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Use models.
    #[default]
    User,
    /// Launch, stop and watch the instances of their projects.
    Operator,
    /// The same for all that belongs to their workspace, and its tokens. A gateway
    /// that does not know this role yet refuses the token.
    #[serde(rename = "workspace-admin")]
    WorkspaceAdmin,
    /// Everything, of every workspace.
    Admin,
}

impl Role {
    /// The roles, the least first.
    pub const ALL: [Self; 4] = [
        Self::User,
        Self::Operator,
        Self::WorkspaceAdmin,
        Self::Admin,
    ];

    /// The role as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::WorkspaceAdmin => "workspace-admin",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| "write user, operator, workspace-admin or admin".to_owned())
    }
}

/// Limits that a token carries. They only lower those of its routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenLimits {
    /// Requests per minute; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    /// Tokens of prompts and completions per minute; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u32>,
    /// Requests at the same time; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conc: Option<u32>,
    /// Priority class in queues; 0 is served first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prio: Option<u8>,
}

impl TokenLimits {
    /// True if nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The header of a token: these three fields, in any order, and no others.
///
/// So `crit`, `b64`, `jku`, `jwk`, `x5u`, `x5c` and all that will be invented are
/// refused without being known here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    pub(super) alg: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) typ: Cow<'a, str>,
}

/// The claims of a token, as they stand in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) sub: String,
    pub(super) jti: String,
    #[serde(default, deserialize_with = "present")]
    pub(super) iat: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    pub(super) nbf: Option<u64>,
    pub(super) exp: u64,
    pub(super) ver: u32,
    pub(super) ws: Workspace,
    pub(super) knd: TokenKind,
    /// Absent means the least.
    #[serde(default)]
    pub(super) rol: Role,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) grp: Vec<Project>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ep: Vec<Pattern>,
    #[serde(default, skip_serializing_if = "TokenLimits::is_none")]
    pub(super) lim: TokenLimits,
    /// True if the token may load and unload models. Absent means no, and a gateway that does
    /// not know it gives no such right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) load: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lbl: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) md: Option<Map<String, Value>>,
}

impl Claims {
    /// True if kind, role and endpoints fit each other.
    ///
    /// An endpoint token lists endpoints, else it would open all of them, and has
    /// no more than the least role.
    pub(super) fn agree(&self) -> bool {
        match self.knd {
            TokenKind::User => self.ep.is_empty(),
            TokenKind::Endpoint => !self.ep.is_empty() && self.rol == Role::User,
        }
    }
}

/// Reads a claim that may be absent, but is not `null` where it stands.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
