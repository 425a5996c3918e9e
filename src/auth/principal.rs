//! The caller, after verification: what a request is judged by.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims::{Role, TokenKind, TokenLimits};
use super::pattern::Pattern;
use crate::names::{Belonging, Project, Workspace};

/// The holder of a verified token. Shared, never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The tenant it belongs to.
    pub workspace: Workspace,
    /// `user:ana`, `svc:ci`; `token:` and the token's id where none was named.
    pub subject: Arc<str>,
    /// `jti`: what logs show and revocations name.
    pub token_id: Arc<str>,
    /// Kind of holder that it stands for.
    pub kind: TokenKind,
    /// Rights beside sending requests.
    pub role: Role,
    /// Projects that it may read.
    pub projects: Vec<Project>,
    /// Endpoints that it is restricted to; empty for a user token.
    pub endpoints: Vec<Pattern>,
    /// Limits that lower those of the routes.
    pub limits: TokenLimits,
    /// True if it may load and unload the models that it may use.
    pub may_load: bool,
    /// A name for people.
    pub label: Option<Arc<str>>,
    /// For the access log.
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// Time of issue, in seconds since 1970; zero where the token doesn't say.
    pub issued_at: u64,
    /// End of the token's life, in seconds since 1970.
    pub expires_at: u64,
    /// Issuer that signed the token.
    pub issuer: Arc<str>,
    /// 8 hexadecimal digits of the token's SHA-256: recognises it in logs.
    pub hash8: [u8; 8],
}

impl Principal {
    /// True if things of this workspace are open to the principal at all: those that are
    /// shared by all, those of its own workspace, and for an admin everything.
    pub fn is_of(&self, workspace: Option<&Workspace>) -> bool {
        self.is_admin() || workspace.is_none_or(|workspace| *workspace == self.workspace)
    }

    /// True if all that belongs to this workspace is the principal's to rule. What is shared
    /// belongs to no workspace, and is for admins of the whole gateway.
    pub fn rules(&self, workspace: Option<&Workspace>) -> bool {
        let own = workspace == Some(&self.workspace);
        self.is_admin() || (self.role == Role::WorkspaceAdmin && own)
    }

    /// True if the principal may read what belongs to a project of a workspace.
    pub fn reads(&self, workspace: Option<&Workspace>, project: &Project) -> bool {
        let own = self.is_of(workspace) && self.projects.contains(project);
        self.rules(workspace) || own
    }

    /// True if its list of endpoints, where it has one, names the route or the model.
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

    /// True if the principal may use a model that a route leads to. The one rule of access:
    ///
    /// - what belongs to a workspace is for its own tokens, whatever they list;
    /// - an endpoint token must list the route or the model; if it names projects too,
    ///   it must also read the route's, and if it names none, its list is enough;
    /// - any other token must read the route's project;
    /// - a route without a project is open to every token, as far as its list goes.
    pub fn may_use(&self, of: Belonging<'_>, route: &str, model: &str) -> bool {
        let by_list_alone = self.kind == TokenKind::Endpoint && self.projects.is_empty();
        let reads = |project| by_list_alone || self.reads(of.workspace, project);
        let enters = self.is_of(of.workspace) && of.project.is_none_or(reads);
        enters && self.allows_endpoint(route, model)
    }

    /// True if the principal may do everything, whatever workspace it is of.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// True if the principal may use the admin API; true for an admin too.
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
            may_load: false,
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
                let shared = Belonging {
                    workspace: None,
                    project,
                };
                let may = who.may_use(shared, route, "qwen3-8b");
                assert_eq!(may, expected, "{name}, {route}, {project:?}");
                // Within its own workspace all is the same, and in another's nothing
                // is left but what an admin may do.
                for (name_of, left) in [("acme", expected), ("other", who.is_admin() && expected)] {
                    let workspace = Workspace::new(name_of).unwrap();
                    let of = Belonging {
                        workspace: Some(&workspace),
                        project,
                    };
                    let may = who.may_use(of, route, "qwen3-8b");
                    assert_eq!(may, left, "{name}, {route}, {project:?} of {name_of}");
                }
            }
        }
        assert!(!by_model.may_use(Belonging::default(), "chat", "llama"));
    }

    #[test]
    fn an_admin_of_a_workspace_rules_that_and_nothing_that_is_shared() {
        let ruler = holder(Role::WorkspaceAdmin, &["research"], &[]);
        let [acme, other] = ["acme", "other"].map(|name| Workspace::new(name).unwrap());
        let [research, hidden] = ["research", "hidden"].map(|name| Project::new(name).unwrap());
        for (workspace, project, may) in [
            (Some(&acme), Some(&hidden), true),
            (Some(&acme), Some(&research), true),
            (Some(&acme), None, true),
            (Some(&other), Some(&research), false),
            (Some(&other), None, false),
            (None, Some(&research), true),
            (None, Some(&hidden), false),
            (None, None, true),
        ] {
            let of = Belonging { workspace, project };
            assert_eq!(ruler.may_use(of, "chat", "m"), may, "{of:?}");
        }
        assert!(ruler.rules(Some(&acme)) && !ruler.rules(Some(&other)) && !ruler.rules(None));
        assert!(!ruler.is_admin() && ruler.is_operator());
    }
}
