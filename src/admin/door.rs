//! The door of the HTTPS listener: who comes in, with what, and what browsers
//! are told.
//!
//! A token in the header or a session's cookie becomes a [`Caller`]; else the
//! API answers 401 and pages send to `/login`. What a session changes must come
//! from our own pages: `Origin` and `Sec-Fetch-Site` are held against the host,
//! and the header `x-csrf-token` against the session. A token in a header needs
//! neither, as no other site can send it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::Admin;
use super::access::{Caller, ClientAddress};
use super::audit::Stranger;
use super::error::{ApiError, Code};
use super::session::{self, SessionFound};
use crate::percent;

/// The header of changes from a page.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";

/// Policy of pages: they load their own scripts, styles and pictures, nothing else,
/// nothing inline. A response that sets its own policy keeps it.
pub(super) const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// Refusal of a caller, and the reason.
#[derive(Debug)]
struct Refused {
    error: ApiError,
    via: &'static str,
}

/// Lets callers of the API in, or answers 401 or 403.
pub(super) async fn api(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    match enter(
        &admin,
        request.method(),
        request.uri(),
        request.headers(),
        request.extensions(),
    )
    .await
    {
        Ok(caller) => {
            let method = request.method().clone();
            let target = request.uri().path().to_owned();
            request.extensions_mut().insert(caller.clone());
            let response = next.run(request).await;
            // A change that is refused is told of where it is refused, with its reason.
            if is_safe(&method) && response.status() == StatusCode::FORBIDDEN {
                let why = "not of a project that they work on";
                admin
                    .audit
                    .refused(&caller, method.as_str(), &target, why)
                    .await;
            }
            response
        }
        Err(refused) => {
            let peer = peer(request.extensions());
            let stranger = Stranger {
                via: refused.via,
                peer,
            };
            let target = request.uri().path().to_owned();
            let method = request.method().as_str().to_owned();
            admin
                .audit
                .refused_stranger(stranger, &method, &target, &refused.error.message)
                .await;
            refused.error.into_response()
        }
    }
}

/// Lets who has a session see pages; sends others to `/login`.
pub(super) async fn pages(
    State(admin): State<Admin>,
    mut request: Request,
    next: Next,
) -> Response {
    match enter(
        &admin,
        request.method(),
        request.uri(),
        request.headers(),
        request.extensions(),
    )
    .await
    {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(_) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let to = if path == "/" {
                "/login".to_owned()
            } else {
                format!("/login?next={}", percent::of_path(path))
            };
            Redirect::to(&to).into_response()
        }
        Err(refused) => refused.error.into_response(),
    }
}

async fn enter(
    admin: &Admin,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Caller, Refused> {
    if let Some(token) = bearer(headers) {
        let refused = |error| Refused {
            error,
            via: "token",
        };
        let principal = admin
            .verifier
            .verify_or_refetch(token, admin.verifier.now())
            .await;
        let principal =
            principal.map_err(|denied| refused(ApiError::unauthorized(&denied.to_string())))?;
        return Caller::of_token(&principal, peer(extensions)).ok_or_else(|| {
            refused(ApiError::forbidden(
                "the admin API needs a token with the role operator or admin",
            ))
        });
    }
    let Some(cookie) = admin.cookie.find(headers) else {
        let error =
            ApiError::unauthorized("log in, or send a token as 'Authorization: Bearer TOKEN'");
        return Err(Refused { error, via: "none" });
    };
    let refused = |error| Refused {
        error,
        via: "session",
    };
    let SessionFound::Session(id, session, csrf) = admin.sessions.find(cookie) else {
        return Err(refused(ApiError::unauthorized(
            "the session has ended: log in again",
        )));
    };
    if !is_safe(method) {
        own_origin(uri, headers).map_err(|why| refused(ApiError::new(Code::Origin, why)))?;
        let sent = headers
            .get(CSRF_HEADER)
            .and_then(|value| value.to_str().ok());
        if !sent.is_some_and(|sent| session::same(sent, &csrf)) {
            let why = "the header x-csrf-token is missing or wrong: load the page again";
            return Err(refused(ApiError::forbidden(why)));
        }
    }
    Ok(Caller::of_session(id, &session, csrf, peer(extensions)))
}

/// True for a method that changes nothing.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Address of the client of a request.
pub(super) fn peer(extensions: &Extensions) -> Option<std::net::IpAddr> {
    extensions.get::<ClientAddress>().map(|peer| peer.0)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Checks that a change comes from a page of ours; else says why not. A client that is no
/// browser sends neither header, and no cookie of a victim.
pub(super) fn own_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    const FOREIGN: &str = "this came from a page of another site, and was not done";
    if let Some(site) = headers.get("sec-fetch-site")
        && !matches!(site.as_bytes(), b"same-origin" | b"none")
    {
        return Err(FOREIGN);
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let host = uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| headers.get(HOST)?.to_str().ok());
    let own = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("https://"));
    match (own, host) {
        (Some(own), Some(host)) if own.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(FOREIGN),
    }
}

/// Tells browsers what they may do with a response. What a response says itself
/// stays.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let own_policy = headers.contains_key(CONTENT_SECURITY_POLICY);
    let mut set = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "same-origin");
    set(CACHE_CONTROL, "no-store");
    if !own_policy {
        set(X_FRAME_OPTIONS, "DENY");
    }
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    set(
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_comes_from_our_own_pages_or_from_no_browser() {
        for (origin, site, may) in [
            (None, None, true),
            (Some("https://gw:9443"), Some("same-origin"), true),
            (Some("https://GW:9443"), None, true),
            (None, Some("none"), true),
            (Some("https://gw:8443"), Some("same-site"), false),
            (Some("https://gw:8443"), None, false),
            (Some("http://gw:9443"), None, false),
            (Some("https://gw:9443.evil.example"), None, false),
            (Some("https://evil.example"), Some("cross-site"), false),
            (Some("null"), None, false),
            (None, Some("cross-site"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("gw:9443"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            if let Some(site) = site {
                headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            let uri = Uri::from_static("/api/v1/instances");
            assert_eq!(
                own_origin(&uri, &headers).is_ok(),
                may,
                "{origin:?} {site:?}"
            );
        }
    }
}
