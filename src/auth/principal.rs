//! Who is calling, after verification: what a request is judged by.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims::{Role, TokenKind, TokenLimits};
use super::pattern::Pattern;
use crate::names::{Project, Workspace};

/// The holder of a verified token. Shared, never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The tenant it belongs to.
    pub workspace: Workspace,
    /// `user:ana`, `svc:ci`; `token:` and the token's id where none was named.
    pub subject: Arc<str>,
    /// `jti`: what logs show and revocations name.
    pub token_id: Arc<str>,
    /// Whom it stands for.
    pub kind: TokenKind,
    /// What it may do beside sending requests.
    pub role: Role,
    /// Projects that it may read.
    pub projects: Vec<Project>,
    /// Endpoints that it is restricted to; empty for a user token.
    pub endpoints: Vec<Pattern>,
    /// Limits that lower those of the routes.
    pub limits: TokenLimits,
    /// A name for people.
    pub label: Option<Arc<str>>,
    /// For the access log.
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// When it was issued, in seconds since 1970; zero where the token doesn't say.
    pub issued_at: u64,
    /// When it ends, in seconds since 1970.
    pub expires_at: u64,
    /// Who signed it.
    pub issuer: Arc<str>,
    /// 8 hexadecimal digits of the token's SHA-256: recognises it in logs.
    pub hash8: [u8; 8],
}

impl Principal {
    /// Whether it may read what belongs to a project. An admin reads every one.
    pub fn reads(&self, project: &Project) -> bool {
        self.role == Role::Admin || self.projects.contains(project)
    }

    /// Whether its list of endpoints, where it has one, names the route or the model.
    ///
    /// A user token has no list and is not restricted here; [`Self::reads`] still applies.
    pub fn allows_endpoint(&self, route: &str, model: &str) -> bool {
        match self.kind {
            TokenKind::User => true,
            TokenKind::Endpoint => self
                .endpoints
                .iter()
                .any(|pattern| pattern.matches(route) || pattern.matches(model)),
        }
    }

    /// Whether it may do everything.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether it may use the admin API; true for an admin too.
    pub fn is_operator(&self) -> bool {
        self.role >= Role::Operator
    }

    /// [`Self::hash8`] as text.
    pub fn hash8(&self) -> &str {
        std::str::from_utf8(&self.hash8).unwrap_or_default()
    }
}
