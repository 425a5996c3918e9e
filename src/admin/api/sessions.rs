//! Sessions of people; one's own session; one-time links.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::access::{Caller, Via};
use crate::admin::error::{Answer, ApiError};
use crate::admin::session::Grant;
use crate::admin::view::{ErrorView, LoginLinkView, SessionEntry, SessionView};
use crate::admin::{Admin, login};

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(show, logout))
        .routes(routes!(list))
        .routes(routes!(close))
        .routes(routes!(link))
}

/// The caller, and the token that changes must be sent with.
#[utoipa::path(get, path = "/session", tag = "session", responses(
    (status = 200, body = SessionView), (status = 401, body = ErrorView)))]
async fn show(caller: Caller) -> Json<SessionView> {
    Json(login::session_view(&caller))
}

/// Log out.
#[utoipa::path(delete, path = "/session", tag = "session", responses(
    (status = 204, description = "The session has ended"), (status = 401, body = ErrorView)))]
async fn logout(State(admin): State<Admin>, caller: Caller) -> Result<Response, ApiError> {
    if let Via::Session { id, .. } = &caller.via {
        login::end(&admin, &caller, id).await?;
    }
    Ok((http::StatusCode::NO_CONTENT, admin.cookie.unset()).into_response())
}

/// True if a session is the caller's to see and end.
fn is_theirs(caller: &Caller, grant: &Grant) -> bool {
    let workspace = grant.token.as_ref().map(|token| &token.workspace);
    // Nor one of the same name that can do more.
    let own = caller.is(workspace, &grant.subject) && grant.role <= caller.role;
    own || caller.rules(workspace, grant.role)
}

/// Sessions that go on: one's own; an admin sees all, or all of their workspace.
#[utoipa::path(get, path = "/sessions", tag = "session", responses(
    (status = 200, body = Vec<SessionEntry>), (status = 401, body = ErrorView)))]
async fn list(State(admin): State<Admin>, caller: Caller) -> Json<Vec<SessionEntry>> {
    let own = match &caller.via {
        Via::Session { id, .. } => Some(id),
        Via::Socket | Via::Token => None,
    };
    let all = admin.sessions.list().into_iter();
    let seen = all.filter(|(_, s)| is_theirs(&caller, &s.grant));
    let entry =
        |(id, session): (std::sync::Arc<str>, crate::admin::session::Session)| SessionEntry {
            current: own == Some(&id),
            id: id.to_string(),
            label: session
                .grant
                .token
                .as_ref()
                .and_then(|token| token.label.clone()),
            workspace: session.grant.token.map(|token| token.workspace.to_string()),
            subject: session.grant.subject,
            link_by: session.grant.link_by,
            role: session.grant.role.as_str().to_owned(),
            created: session.created,
            last_used: session.last_used,
            expires: session.expires,
            agent: session.agent,
            address: session.address,
        };
    Json(seen.map(entry).collect())
}

/// End a session: one's own; an admin any, or any of their workspace.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "session",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "The session has ended"),
    (status = 404, description = "There is no such session of the caller", body = ErrorView)))]
async fn close(
    State(admin): State<Admin>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<http::StatusCode, ApiError> {
    let all = admin.sessions.list();
    let found = all.iter().find(|(known, _)| **known == *id);
    match found {
        Some((_, session)) if is_theirs(&caller, &session.grant) => {
            login::end(&admin, &caller, &id).await?;
            Ok(http::StatusCode::NO_CONTENT)
        }
        _ => Err(ApiError::not_found("there is no such session of yours")),
    }
}

/// Make a link that logs an admin in once, within half an hour.
#[utoipa::path(post, path = "/login-links", tag = "session", responses(
    (status = 200, body = LoginLinkView),
    (status = 403, description = "For admins", body = ErrorView),
    (status = 409, description = "The dashboard is switched off", body = ErrorView)))]
async fn link(State(admin): State<Admin>, caller: Caller) -> Answer<LoginLinkView> {
    if !caller.is_admin() {
        admin
            .audit
            .refused(&caller, "login-link", "session", "for admins")
            .await;
        return Err(ApiError::forbidden("links for a login are made by admins"));
    }
    let Some(base) = admin.url() else {
        let message = "the dashboard is off: set [admin] listen in tidegate.toml";
        return Err(ApiError::conflict(message.to_owned()));
    };
    let (code, expires) = admin
        .sessions
        .link(&caller.name)
        .map_err(|error| ApiError::internal(&error))?;
    admin.audit.done(&caller, "login-link", "session", "").await;
    Ok(Json(LoginLinkView {
        url: format!("{base}/login?code={code}"),
        expires,
    }))
}
