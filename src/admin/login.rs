//! Logging in and out on the HTTPS listener.
//!
//! `POST /login` takes the form of the login page, `POST /api/v1/session` the
//! same as JSON; both answer with the cookie. Neither needs a session, so both
//! are held against the origin: another site must not log someone in.

use std::sync::Arc;

use axum::extract::{Form, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::header::USER_AGENT;
use http::{HeaderMap, Uri};
use serde::Deserialize;

use super::Admin;
use super::access::{Caller, ClientAddress, Via};
use super::audit::Stranger;
use super::door;
use super::error::{ApiError, Code};
use super::session::{Begun, Grant, SessionFound};
use super::view::{ErrorView, LoginRequest, SessionView};

/// The calls that need no session.
pub(super) fn router() -> Router<Admin> {
    Router::new()
        .route("/login", post(login_form))
        .route("/logout", post(logout_form))
}

/// The fields of the login page.
#[derive(Debug, Default, Deserialize)]
struct LoginForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    next: String,
}

async fn login_form(
    State(admin): State<Admin>,
    peer: Option<Extension<ClientAddress>>,
    uri: Uri,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Response {
    let given = |text: String| (!text.trim().is_empty()).then(|| text.trim().to_owned());
    let request = LoginRequest {
        token: given(form.token),
        code: given(form.code),
    };
    let peer = peer.map(|Extension(peer)| peer);
    match begin(&admin, peer, &uri, &headers, request).await {
        Ok((_, begun)) => {
            (admin.cookie.set(&begun), Redirect::to(own_path(&form.next))).into_response()
        }
        Err(error) if error.code.status().is_client_error() => {
            Redirect::to(&format!("/login?failed={}", error.code.login_word())).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// The caller's own session, for themselves.
pub(super) fn session_view(caller: &Caller) -> SessionView {
    let (id, csrf, expires) = match &caller.via {
        Via::Session { id, csrf, expires } => {
            (Some(id.to_string()), Some(csrf.to_string()), Some(*expires))
        }
        Via::Socket | Via::Token => (None, None, None),
    };
    SessionView {
        subject: caller.name.to_string(),
        label: caller.label().map(str::to_owned),
        link_by: caller.link_by.as_deref().map(str::to_owned),
        workspace: caller.workspace().map(ToString::to_string),
        role: caller.role.as_str().to_owned(),
        projects: caller.projects.iter().map(ToString::to_string).collect(),
        via: caller.via.as_str().to_owned(),
        id,
        expires,
        csrf,
    }
}

/// Ends a session, and tells the audit.
pub(super) async fn end(admin: &Admin, caller: &Caller, id: &str) -> Result<(), ApiError> {
    let (sessions, ended) = (Arc::clone(&admin.sessions), id.to_owned());
    super::error::on_disk(move || sessions.end(&ended)).await??;
    let target = format!("session:{id}");
    admin.audit.done(caller, "logout", &target, "").await;
    Ok(())
}

/// Path that a login leads to: one of ours, never another site.
fn own_path(next: &str) -> &str {
    let plain =
        next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n']);
    if plain { next } else { "/" }
}

/// Log in: a token, or the code of a one-time link, for a cookie. It stands before
/// the door, on the HTTPS listener only.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = LoginRequest,
    security(()), responses(
    (status = 200, body = SessionView, headers(("Set-Cookie" = String, description = "The session"))),
    (status = 400, body = ErrorView), (status = 401, body = ErrorView),
    (status = 403, description = "From another site, or a token of a user", body = ErrorView)))]
pub(super) async fn login_json(
    State(admin): State<Admin>,
    peer: Option<Extension<ClientAddress>>,
    uri: Uri,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<Response, ApiError> {
    let peer = peer.map(|Extension(peer)| peer);
    let (caller, begun) = begin(&admin, peer, &uri, &headers, request).await?;
    Ok((admin.cookie.set(&begun), Json(session_view(&caller))).into_response())
}

async fn begin(
    admin: &Admin,
    peer: Option<ClientAddress>,
    uri: &Uri,
    headers: &HeaderMap,
    request: LoginRequest,
) -> Result<(Caller, Begun), ApiError> {
    let begun = try_begin(admin, peer, uri, headers, request).await;
    match &begun {
        Ok((caller, _)) => admin.audit.done(caller, "login", "session", "").await,
        Err(error) => {
            let stranger = Stranger {
                via: "none",
                peer: peer.map(|peer| peer.0),
            };
            admin
                .audit
                .refused_stranger(stranger, "login", "session", &error.message)
                .await;
        }
    }
    begun
}

async fn try_begin(
    admin: &Admin,
    peer: Option<ClientAddress>,
    uri: &Uri,
    headers: &HeaderMap,
    request: LoginRequest,
) -> Result<(Caller, Begun), ApiError> {
    door::own_origin(uri, headers).map_err(|why| ApiError::new(Code::Origin, why))?;
    let grant = match (request.token, request.code) {
        (Some(token), None) => {
            let verified = admin
                .verifier
                .verify_or_refetch(&token, admin.verifier.now())
                .await;
            let principal =
                verified.map_err(|denied| ApiError::unauthorized(&denied.to_string()))?;
            if !principal.is_operator() {
                let message = "the dashboard needs a token with the role operator or admin";
                return Err(ApiError::new(Code::Role, message));
            }
            Grant::of(&principal)
        }
        (None, Some(code)) => {
            let message =
                "this link was used already or has ended: make another with `tidegate login`";
            let by = admin.sessions.take_link(&code);
            Grant::link(by.ok_or_else(|| ApiError::new(Code::Link, message))?)
        }
        _ => {
            return Err(ApiError::new(
                Code::Malformed,
                "send a token or a code".to_owned(),
            ));
        }
    };
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let agent = agent.unwrap_or_default().to_owned();
    let address = peer.map_or_else(String::new, |peer| peer.0.to_string());
    let sessions = Arc::clone(&admin.sessions);
    let begun = tokio::task::spawn_blocking(move || sessions.begin(grant, &agent, &address)).await;
    let begun = begun
        .map_err(|error| ApiError::internal(&error))?
        .map_err(|error| ApiError::internal(&error))?;
    let SessionFound::Session(id, session, csrf) = admin.sessions.find(&begun.cookie) else {
        return Err(ApiError::unauthorized(
            "the token has expired: ask for a new one",
        ));
    };
    let caller = Caller::of_session(id, &session, csrf, peer.map(|peer| peer.0));
    Ok((caller, begun))
}

/// `POST /logout`, for a page without scripts: the origin guards it.
async fn logout_form(State(admin): State<Admin>, request: Request) -> Response {
    if let Err(why) = door::own_origin(request.uri(), request.headers()) {
        return ApiError::new(Code::Origin, why).into_response();
    }
    let found = admin
        .cookie
        .find(request.headers())
        .map(|cookie| admin.sessions.find(cookie));
    if let Some(SessionFound::Session(id, session, csrf)) = found {
        let peer = door::peer(request.extensions());
        let caller = Caller::of_session(Arc::clone(&id), &session, csrf, peer);
        if let Err(error) = end(&admin, &caller, &id).await {
            return error.into_response();
        }
    }
    (admin.cookie.unset(), Redirect::to("/login")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_a_path_of_ours() {
        for (next, to) in [
            ("/instances/a?b=c", "/instances/a?b=c"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nset-cookie: x", "/"),
        ] {
            assert_eq!(own_path(next), to, "{next:?}");
        }
    }
}
