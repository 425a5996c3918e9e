//! The pages: what a person sees in a browser.
//!
//! Owns html, css and scripts. It asks the API for everything that it shows, as
//! any other client; [`super::door`] has let the caller in before a page is made.

use axum::Router;
use axum::extract::Query;
use axum::response::Html;
use axum::routing::get;
use serde::Deserialize;

use super::Admin;
use super::access::Caller;

/// Pages behind the login: each gets a [`Caller`] as an extractor.
pub fn router() -> Router<Admin> {
    Router::new().route("/", get(home))
}

/// What needs no login: the login page itself, scripts and styles.
pub fn open() -> Router<Admin> {
    Router::new().route("/login", get(login))
}

async fn home(caller: Caller) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><title>Tidegate</title><h1>Tidegate</h1>\
         <p>You are logged in as {}.<form method=post action=/logout><button>Log out</button></form>",
        caller.role.as_str()
    ))
}

/// `/login?code=…` of a one-time link, `?failed=token|role|link|origin` after a
/// login that failed, `?next=/path` where to go then.
#[derive(Debug, Default, Deserialize)]
struct LoginQuery {
    #[serde(default)]
    code: String,
    #[serde(default)]
    next: String,
}

async fn login(Query(query): Query<LoginQuery>) -> Html<String> {
    // A code is not used up by opening the link, which previews do: by the button.
    let field = if query.code.is_empty() {
        "<label>Token <input name=token type=password autocomplete=off></label>".to_owned()
    } else {
        format!(
            "<input type=hidden name=code value=\"{}\">",
            escaped(&query.code)
        )
    };
    Html(format!(
        "<!doctype html><html lang=en><title>Log in - Tidegate</title><h1>Tidegate</h1>\
         <form method=post action=/login>{field}<input type=hidden name=next value=\"{}\">\
         <button>Log in</button></form>",
        escaped(&query.next)
    ))
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}
