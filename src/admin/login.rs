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
use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;

use super::Admin;
use super::access::{Caller, Peer};
use super::api::ApiError;
use super::api::sessions::session_view;
use super::audit::Stranger;
use super::door;
use super::session::{Begun, COOKIE, Found, Grant};
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
    peer: Option<Extension<Peer>>,
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
        Ok((_, begun)) => (cookie(&begun), Redirect::to(own_path(&form.next))).into_response(),
        Err(ApiError(status, message)) if status.is_client_error() => {
            Redirect::to(&format!("/login?failed={}", reason(&message))).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Which of the texts of the login page says why; the page knows these words.
fn reason(message: &str) -> &'static str {
    if message.contains("link") {
        "link"
    } else if message.contains("role") {
        "role"
    } else if message.contains("site") {
        "origin"
    } else {
        "token"
    }
}

/// Where a login leads: a path of ours, never another site.
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
    peer: Option<Extension<Peer>>,
    uri: Uri,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<Response, ApiError> {
    let peer = peer.map(|Extension(peer)| peer);
    let (caller, begun) = begin(&admin, peer, &uri, &headers, request).await?;
    Ok((cookie(&begun), Json(session_view(&caller))).into_response())
}

async fn begin(
    admin: &Admin,
    peer: Option<Peer>,
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
                .refused_stranger(stranger, "login", "session", &error.1)
                .await;
        }
    }
    begun
}

async fn try_begin(
    admin: &Admin,
    peer: Option<Peer>,
    uri: &Uri,
    headers: &HeaderMap,
    request: LoginRequest,
) -> Result<(Caller, Begun), ApiError> {
    door::own_origin(uri, headers).map_err(ApiError::forbidden)?;
    let grant = match (request.token, request.code) {
        (Some(token), None) => {
            let verified = admin
                .verifier
                .verify_or_refetch(&token, admin.verifier.now())
                .await;
            let principal =
                verified.map_err(|denied| ApiError::unauthorized(&denied.to_string()))?;
            if !principal.is_operator() {
                return Err(ApiError::forbidden(
                    "the dashboard needs a token with the role operator or admin",
                ));
            }
            Grant::of(&principal)
        }
        (None, Some(code)) if admin.sessions.take_link(&code) => Grant::link(),
        (None, Some(_)) => {
            return Err(ApiError::unauthorized(
                "this link was used already or has ended: make another with `tidegate login`",
            ));
        }
        _ => {
            return Err(ApiError(
                StatusCode::BAD_REQUEST,
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
    let Found::Session(id, session, csrf) = admin.sessions.find(&begun.cookie) else {
        return Err(ApiError::unauthorized(
            "the token has expired: ask for a new one",
        ));
    };
    let caller = Caller::of_session(id, &session, csrf, peer.map(|peer| peer.0));
    Ok((caller, begun))
}

fn cookie(begun: &Begun) -> [(http::HeaderName, HeaderValue); 1] {
    let text = format!(
        "{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}",
        begun.cookie, begun.max_age
    );
    // Both parts are of URL-safe characters.
    [(
        SET_COOKIE,
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("")),
    )]
}

/// What takes the cookie off a browser.
pub(super) fn no_cookie() -> [(http::HeaderName, HeaderValue); 1] {
    let text = "__Host-tidegate=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0";
    [(SET_COOKIE, HeaderValue::from_static(text))]
}

/// `POST /logout`, for a page without scripts: the origin guards it.
async fn logout_form(State(admin): State<Admin>, request: Request) -> Response {
    if let Err(why) = door::own_origin(request.uri(), request.headers()) {
        return ApiError::forbidden(why).into_response();
    }
    let found = door::cookie(request.headers()).map(|cookie| admin.sessions.find(cookie));
    if let Some(Found::Session(id, session, csrf)) = found {
        let peer = door::peer(request.extensions());
        let caller = Caller::of_session(Arc::clone(&id), &session, csrf, peer);
        if let Err(error) = super::api::sessions::end(&admin, &caller, &id).await {
            return error.into_response();
        }
    }
    (no_cookie(), Redirect::to("/login")).into_response()
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
