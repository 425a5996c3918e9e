//! The pages: what a person sees in a browser.
//!
//! ```text
//!  GET /instances/NAME ─► shell.html, the same for every page
//!                           ├ style.css, theme.js
//!                           └ main.js ─► pages/instance.js ─► lib/*.js ─► /api/v1
//!                                            └ plotly.js, where there are plots
//! ```
//!
//! Owns html, css and scripts, in `assets/`; the build script packs them, with
//! plotly.js out of the `plotly` crate. Pages ask the API for everything that they
//! show, as any other client: nothing is rendered here, so no data can become
//! markup. [`super::door`] has let the caller in before a page is sent, and tells
//! the browser to run our own files alone.

mod assets;

use axum::Router;
use axum::http::HeaderValue;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_SECURITY_POLICY;

use super::Admin;
pub(super) use assets::takes_gzip;

const SHELL: &str = include_str!("dashboard/shell.html");

/// Policy of an embedded plot: its own files only, and any site may frame it.
const EMBED_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors *";

/// Pages behind the login: address, script, and whether it draws plots.
const PAGES: &[(&str, &str, bool)] = &[
    ("/", "instances", false),
    ("/instances", "instances", false),
    ("/instances/{name}", "instance", true),
    ("/launch", "launch", false),
    ("/endpoints", "endpoints", false),
    ("/gpus", "gpus", true),
    ("/routes", "routes", false),
    ("/tokens", "tokens", false),
    ("/activity", "activity", false),
    ("/sessions", "sessions", false),
];

/// Pages behind the login.
pub fn router() -> Router<Admin> {
    PAGES
        .iter()
        .fold(Router::new(), |router, (path, script, plots)| {
            let html = shell(script, *plots);
            router.route(path, get(move || std::future::ready(Html(html))))
        })
}

/// Router of all that needs no login: the login page itself, scripts and styles.
pub fn open() -> Router<Admin> {
    let login = shell("login", false);
    Router::new()
        .route("/login", get(move || std::future::ready(Html(login))))
        .route("/assets/{hash}/{*name}", get(assets::file))
}

/// The page of one embedded plot, which any site may show in a frame. `link` was
/// found to hold by the call that serves its data, so it is made of plain characters.
pub(super) fn embedded(link: &str) -> Response {
    let picture = format!("<img src=\"/embed/{link}/plot.svg\" alt=\"The plot as a picture\">");
    let policy = HeaderValue::from_static(EMBED_POLICY);
    let html = shell_with("embed", true, &picture);
    ([(CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

/// Text for people who run no scripts.
const FALLBACK: &str = "<p class=\"note warn\">The dashboard needs JavaScript. The same can be \
     done with the command line: see <code>tidegate --help</code>.</p>";

fn shell(script: &str, plots: bool) -> String {
    shell_with(script, plots, FALLBACK)
}

/// The shell with the addresses of what the page loads, so that all of it is on
/// its way before the first script has run.
fn shell_with(script: &str, plots: bool, fallback: &str) -> String {
    let (files, plotly) = (assets::files(), assets::plotly());
    let link = |rel: &str, href: &str| format!("<link rel=\"{rel}\" href=\"{href}\">\n");
    let page = format!("pages/{script}.js");
    let modules = assets::below("lib/").map(str::to_owned).chain([page]);
    let modules = modules.map(|name| link("modulepreload", &format!("{files}/{name}")));
    let library = plots.then(|| link("preload\" as=\"script", &plotly));
    let preload: String = modules.chain(library).collect();
    SHELL
        .replace("{fallback}", fallback)
        .replace("{preload}", &preload)
        .replace("{files}", &files)
        .replace("{plotly}", &plotly)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_script_and_main_knows_its_address() {
        let scripts: Vec<&str> = assets::below("pages/").collect();
        for (_, script, _) in PAGES {
            let file = format!("pages/{script}.js");
            assert!(scripts.contains(&file.as_str()), "{file}");
        }
        for script in ["login", "embed"] {
            assert!(scripts.contains(&format!("pages/{script}.js").as_str()));
        }
    }

    #[test]
    fn the_shell_holds_nothing_inline_and_nothing_from_elsewhere() {
        let html = shell("instance", true);
        assert!(!html.contains('{') && !html.contains('}'), "{html}");
        for bad in [
            "http:", "https:", "//", "style=", "onclick", "onload", "<style",
        ] {
            assert!(!html.contains(bad), "{bad}");
        }
        for tag in html.split("<script").skip(1) {
            assert!(
                tag.trim_start().starts_with("src=") || tag.contains(" src="),
                "{tag}"
            );
            let (_, inside) = tag.split_once('>').unwrap();
            assert!(inside.starts_with("</script>"), "{tag}");
        }
    }

    #[test]
    fn no_script_makes_markup_of_data() {
        for name in assets::below("") {
            let text =
                std::fs::read_to_string(format!("src/admin/dashboard/assets/{name}")).unwrap();
            for bad in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ] {
                assert!(!text.contains(bad), "{name}: {bad}");
            }
        }
    }
}
