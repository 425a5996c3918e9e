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

    /// Whether it may use a model that a route leads to. The one rule of access:
    ///
    /// - an endpoint token must list the route or the model; if it names projects too,
    ///   it must also read the route's, and if it names none, its list is enough;
    /// - any other token must read the route's project;
    /// - a route without a project is open to every token, as far as its list goes.
    pub fn may_use(&self, project: Option<&Project>, route: &str, model: &str) -> bool {
        let by_list_alone = self.kind == TokenKind::Endpoint && self.projects.is_empty();
        let enters = project.is_none_or(|project| by_list_alone || self.reads(project));
        enters && self.allows_endpoint(route, model)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(role: Role, projects: &[&str], endpoints: &[&str]) -> Principal {
        Principal {
            workspace: Workspace::new("acme").unwrap(),
            subject: Arc::from("user:ana"),
            token_id: Arc::from("01J"),
            kind: if endpoints.is_empty() {
                TokenKind::User
            } else {
                TokenKind::Endpoint
            },
            role,
            projects: projects.iter().map(|p| Project::new(p).unwrap()).collect(),
            endpoints: endpoints.iter().map(|e| Pattern::new(e).unwrap()).collect(),
            limits: TokenLimits::default(),
            label: None,
            metadata: None,
            issued_at: 0,
            expires_at: 0,
            issuer: Arc::from("tidegate"),
            hash8: *b"00000000",
        }
    }

    #[test]
    fn a_token_enters_by_its_projects_and_its_list() {
        let user = holder(Role::User, &["research"], &[]);
        let bare = holder(Role::User, &[], &[]);
        let operator = holder(Role::Operator, &["other"], &[]);
        let admin = holder(Role::Admin, &[], &[]);
        let listed = holder(Role::User, &[], &["chat"]);
        let by_model = holder(Role::User, &[], &["qwen3-*"]);
        let both = holder(Role::User, &["research"], &["chat"]);
        let elsewhere = holder(Role::User, &["other"], &["chat"]);
        // Whether it may use model qwen3-8b of the route `chat`, and of the route
        // `code` that has the same model, in the project `research` and in none.
        for (name, who, [chat, code], [chat_public, code_public]) in [
            ("user", &user, [true, true], [true, true]),
            ("user without projects", &bare, [false, false], [true, true]),
            ("operator", &operator, [false, false], [true, true]),
            ("admin", &admin, [true, true], [true, true]),
            ("list alone", &listed, [true, false], [true, false]),
            ("list by model", &by_model, [true, true], [true, true]),
            ("list and project", &both, [true, false], [true, false]),
            (
                "list and other project",
                &elsewhere,
                [false, false],
                [true, false],
            ),
        ] {
            let research = Project::new("research").unwrap();
            for (route, project, expected) in [
                ("chat", Some(&research), chat),
                ("code", Some(&research), code),
                ("chat", None, chat_public),
                ("code", None, code_public),
            ] {
                let may = who.may_use(project, route, "qwen3-8b");
                assert_eq!(may, expected, "{name}, {route}, {project:?}");
            }
        }
        assert!(!by_model.may_use(None, "chat", "llama"));
    }
}
