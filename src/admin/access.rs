//! Callers of the admin API, and the things that they may see and change.
//!
//! A [`Caller`] is put on every request before it reaches a call: by the socket,
//! whose file permissions are the authentication, or by [`super::door`] from a
//! token or a session. A call without one answers 401, so a door that forgets to
//! ask lets no one in.
//!
//! A `user` has no business here; an `operator` sees and changes what belongs to
//! their projects, within their workspace and what all workspaces share; a
//! `workspace-admin` what belongs to their workspace too; an `admin` everything.
//!
//! A person is identified by workspace and subject together: two tenants may have a
//! person of the same name.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::error::ApiError;
use super::session::{Grant, GrantToken, Session};
use crate::auth::{Principal, Role};
use crate::config::{Access, Route};
use crate::names::{Belonging, Project, Workspace};

/// Way in which a caller came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The Unix socket.
    Socket,
    /// A token in the header.
    Token,
    /// A session of the dashboard.
    Session {
        /// Its id.
        id: Arc<str>,
        /// CSRF token that changes must be sent with.
        csrf: Arc<str>,
        /// End of the session, in seconds since 1970.
        expires: u64,
    },
}

impl Via {
    /// The word of the audit.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Token => "token",
            Self::Session { .. } => "session",
        }
    }
}

/// Caller of the admin API.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `user:ana`, `admin socket`.
    pub name: Arc<str>,
    /// Role of the caller; at least `operator`.
    pub role: Role,
    /// Projects that an operator works on.
    pub projects: Arc<[Project]>,
    /// Their token; none on the socket and of a one-time link.
    pub token: Option<Arc<GrantToken>>,
    /// Maker of the one-time link that they came by.
    pub link_by: Option<Arc<str>>,
    /// Way in which the caller came in.
    pub via: Via,
    /// Address of the caller; none on the socket.
    pub peer: Option<IpAddr>,
}

/// Address of the client of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

impl Caller {
    /// The caller on the socket.
    pub fn socket() -> Self {
        Self {
            name: Arc::from("admin socket"),
            role: Role::Admin,
            projects: Arc::from([]),
            token: None,
            link_by: None,
            via: Via::Socket,
            peer: None,
        }
    }

    /// The holder of a token; `None` for one whose role has no business here.
    pub fn of_token(principal: &Principal, peer: Option<IpAddr>) -> Option<Self> {
        principal.is_operator().then(|| Self {
            peer,
            ..Self::of_grant(&Grant::of(principal), Via::Token)
        })
    }

    /// The owner of a session.
    pub fn of_session(
        id: Arc<str>,
        session: &Session,
        csrf: Arc<str>,
        peer: Option<IpAddr>,
    ) -> Self {
        let via = Via::Session {
            id,
            csrf,
            expires: session.expires,
        };
        Self {
            peer,
            ..Self::of_grant(&session.grant, via)
        }
    }

    /// The holder of a grant.
    pub(super) fn of_grant(grant: &Grant, via: Via) -> Self {
        Self {
            name: grant.subject.as_str().into(),
            role: grant.role,
            projects: grant.projects.clone().into(),
            token: grant.token.clone().map(Arc::new),
            link_by: grant.link_by.as_deref().map(Arc::from),
            via,
            peer: None,
        }
    }

    /// Rights that the caller was granted.
    pub(super) fn grant(&self) -> Grant {
        Grant {
            subject: self.name.to_string(),
            role: self.role,
            projects: self.projects.to_vec(),
            token: self.token.as_deref().cloned(),
            link_by: self.link_by.as_deref().map(str::to_owned),
        }
    }

    /// Their tenant; none on the socket and of a one-time link.
    pub fn workspace(&self) -> Option<&Workspace> {
        self.token.as_ref().map(|token| &token.workspace)
    }

    /// Name that people gave their token.
    pub fn label(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.label.as_deref())
    }

    /// True if the caller may do everything, in every workspace.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// The workspace that they do not reach beyond; none of an admin.
    pub fn confined_to(&self) -> Option<&Workspace> {
        if self.is_admin() {
            None
        } else {
            self.workspace()
        }
    }

    /// True if the caller may change everything of this workspace that needs at most this
    /// role.
    pub fn rules(&self, workspace: Option<&Workspace>, role: Role) -> bool {
        let own = || workspace.is_some() && workspace == self.workspace();
        self.is_admin() || (self.role == Role::WorkspaceAdmin && own() && role <= self.role)
    }

    /// True if this is the caller: the subject of that workspace, or none of a workspace.
    pub fn is(&self, workspace: Option<&Workspace>, subject: &str) -> bool {
        workspace == self.workspace() && *self.name == *subject
    }

    /// True if the caller may see whatever of this workspace is open to all callers.
    pub fn is_of(&self, workspace: Option<&Workspace>) -> bool {
        self.is_admin() || workspace.is_none() || workspace == self.workspace()
    }

    /// True if the caller sees a route: one to work on, or one that is open to all.
    pub fn sees(&self, route: &Route) -> bool {
        let open = route.access == Access::Public && self.is_of(route.workspace.as_ref());
        open || self.works_on(route.belonging())
    }

    /// True if the caller may see and change things of this project; those of no
    /// project are for admins.
    pub fn works_on(&self, of: Belonging<'_>) -> bool {
        let own = |project: &Project| self.projects.contains(project);
        let operates = self.role >= Role::Operator && self.is_of(of.workspace);
        let rules = self.rules(of.workspace, Role::User);
        rules || (operates && of.project.is_some_and(own))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::unauthorized("log in, or send a token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, workspace: &str) -> Caller {
        let grant = Grant {
            subject: "user:ana".to_owned(),
            role,
            projects: vec![Project::new("research").unwrap()],
            token: Some(GrantToken {
                jti: "01A".to_owned(),
                workspace: Workspace::new(workspace).unwrap(),
                issued: 1,
                expires: 2,
                label: None,
            }),
            link_by: None,
        };
        Caller::of_grant(&grant, Via::Token)
    }

    #[test]
    fn each_role_works_on_its_own_only() {
        let [research, hidden] = ["research", "hidden"].map(|name| Project::new(name).unwrap());
        let [acme, other] = ["acme", "other"].map(|name| Workspace::new(name).unwrap());
        let (research, hidden) = (Some(&research), Some(&hidden));
        // Projects that a user, an operator, an admin of acme and an admin of all work on.
        for (workspace, project, expected) in [
            (None, research, [false, true, true, true]),
            (None, hidden, [false, false, false, true]),
            (None, None, [false, false, false, true]),
            (Some(&acme), research, [false, true, true, true]),
            (Some(&acme), hidden, [false, false, true, true]),
            (Some(&acme), None, [false, false, true, true]),
            (Some(&other), research, [false, false, false, true]),
            (Some(&other), hidden, [false, false, false, true]),
            (Some(&other), None, [false, false, false, true]),
        ] {
            let of = Belonging { workspace, project };
            for (role, may) in Role::ALL.into_iter().zip(expected) {
                assert_eq!(caller(role, "acme").works_on(of), may, "{role:?} {of:?}");
            }
            assert!(Caller::socket().works_on(of));
        }
    }

    #[test]
    fn someone_is_known_by_workspace_and_subject_together() {
        let ana = caller(Role::Operator, "acme");
        let [acme, other] = ["acme", "other"].map(|name| Workspace::new(name).unwrap());
        assert!(ana.is(Some(&acme), "user:ana"));
        assert!(!ana.is(Some(&other), "user:ana") && !ana.is(None, "user:ana"));
        assert!(!ana.is(Some(&acme), "user:bob"));
        let ruler = caller(Role::WorkspaceAdmin, "acme");
        assert!(ruler.rules(Some(&acme), Role::WorkspaceAdmin));
        assert!(!ruler.rules(Some(&acme), Role::Admin), "who is above them");
        assert!(!ruler.rules(Some(&other), Role::User) && !ruler.rules(None, Role::User));
        assert_eq!(ruler.confined_to(), Some(&acme));
        assert_eq!(caller(Role::Admin, "acme").confined_to(), None);
    }
}
