//! Who calls the admin API, and what they may see and change.
//!
//! A [`Caller`] is put on every request before it reaches a call: by the socket,
//! whose file permissions are the authentication, or by [`super::door`] from a
//! token or a session. A call without one answers 401, so a door that forgets to
//! ask lets no one in.
//!
//! A `user` has no business here; an `operator` sees and changes what belongs to
//! their projects; an `admin` everything.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::api::ApiError;
use super::session::Session;
use crate::auth::{Principal, Role};
use crate::names::{Project, Workspace};

/// How a caller came in.
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
        /// What changes must be sent with.
        csrf: Arc<str>,
        /// When it ends, seconds since 1970.
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

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `user:ana`, `admin socket`.
    pub name: Arc<str>,
    /// What they may do; at least `operator`.
    pub role: Role,
    /// Projects that an operator works on.
    pub projects: Arc<[Project]>,
    /// The tenant of their token; none on the socket and of a one-time link.
    pub workspace: Option<Workspace>,
    /// How they came in.
    pub via: Via,
    /// Where they are; none on the socket.
    pub peer: Option<IpAddr>,
}

/// Where the client of a connection is.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Caller {
    /// Whoever may open the socket.
    pub fn socket() -> Self {
        Self {
            name: Arc::from("admin socket"),
            role: Role::Admin,
            projects: Arc::from([]),
            workspace: None,
            via: Via::Socket,
            peer: None,
        }
    }

    /// The holder of a token; `None` for one whose role has no business here.
    pub fn of_token(principal: &Principal, peer: Option<IpAddr>) -> Option<Self> {
        principal.is_operator().then(|| Self {
            name: Arc::clone(&principal.subject),
            role: principal.role,
            projects: principal.projects.clone().into(),
            workspace: Some(principal.workspace.clone()),
            via: Via::Token,
            peer,
        })
    }

    /// Whoever a session belongs to.
    pub fn of_session(
        id: Arc<str>,
        session: &Session,
        csrf: Arc<str>,
        peer: Option<IpAddr>,
    ) -> Self {
        let grant = &session.grant;
        Self {
            name: grant.subject.as_str().into(),
            role: grant.role,
            projects: grant.projects.clone().into(),
            workspace: grant.token.as_ref().map(|token| token.workspace.clone()),
            via: Via::Session {
                id,
                csrf,
                expires: session.expires,
            },
            peer,
        }
    }

    /// Whether they may do everything.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether they may see and change what belongs to this project; what
    /// belongs to none is for admins.
    pub fn works_on(&self, project: Option<&Project>) -> bool {
        let own = |project: &Project| self.projects.contains(project);
        self.is_admin() || (self.role >= Role::Operator && project.is_some_and(own))
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

    #[test]
    fn an_operator_works_on_own_projects_only() {
        let research = Project::new("research").unwrap();
        let other = Project::new("other").unwrap();
        let operator = Caller {
            role: Role::Operator,
            projects: Arc::from([research.clone()]),
            ..Caller::socket()
        };
        let user = Caller {
            role: Role::User,
            ..operator.clone()
        };
        for (who, project, may) in [
            (&operator, Some(&research), true),
            (&operator, Some(&other), false),
            (&operator, None, false),
            (&user, Some(&research), false),
            (&Caller::socket(), Some(&other), true),
            (&Caller::socket(), None, true),
        ] {
            assert_eq!(who.works_on(project), may, "{:?} {project:?}", who.role);
        }
    }
}
