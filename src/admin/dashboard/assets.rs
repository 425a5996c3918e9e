//! Scripts, styles and pictures, as the build script packed them.
//!
//! Addresses hold a hash of the content, so browsers keep them for ever and an
//! upgrade is seen at once. Everything is kept and sent packed with gzip, which
//! every browser takes.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Kept for a year, which is the longest that caches know.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const PLOTLY_NAME: &str = "plotly.min.js";

/// Path of our own files: names of files follow it.
pub(super) fn files() -> String {
    format!("/assets/{FILES_HASH}")
}

/// Path of plotly.js.
pub(super) fn plotly() -> String {
    format!("/assets/{PLOTLY_HASH}/{PLOTLY_NAME}")
}

/// Names of own files below a directory, as `lib/`.
pub(super) fn below(directory: &str) -> impl Iterator<Item = &'static str> {
    let names = FILES.iter().map(|(name, _)| *name);
    names.filter(move |name| name.starts_with(directory))
}

/// `GET /assets/{hash}/{name}`
pub(super) async fn file(
    Path((hash, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some((name, packed)) = find(&hash, &name) else {
        let message = "there is no such file in this version: load the page again";
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    if !takes_gzip(&headers) {
        let message = "this is kept packed: send Accept-Encoding: gzip";
        return (StatusCode::NOT_ACCEPTABLE, message).into_response();
    }
    let headers = [
        (CONTENT_TYPE, content_type(name)),
        (CONTENT_ENCODING, "gzip"),
        (CACHE_CONTROL, FOR_EVER),
        (VARY, "accept-encoding"),
    ];
    (headers, packed).into_response()
}

fn find(hash: &str, name: &str) -> Option<(&'static str, &'static [u8])> {
    if hash == PLOTLY_HASH && name == PLOTLY_NAME {
        return Some((PLOTLY_NAME, PLOTLY));
    }
    let own = FILES.iter().find(|(own, _)| *own == name);
    own.copied().filter(|_| hash == FILES_HASH)
}

/// True if the client takes gzip. Without the header, every coding is welcome.
pub(in crate::admin) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut named = codings.map(|coding| coding.split_once(';').unwrap_or((coding, "")));
    named.any(|(coding, quality)| {
        let zero = quality
            .trim()
            .trim_start_matches("q=")
            .trim_end_matches(['0', '.']);
        matches!(coding.trim(), "gzip" | "*") && (quality.is_empty() || !zero.is_empty())
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn files_are_found_by_their_hash_and_name_alone() {
        assert!(find(FILES_HASH, "main.js").is_some());
        assert!(find(PLOTLY_HASH, PLOTLY_NAME).is_some());
        for (hash, name) in [
            ("0", "main.js"),
            (PLOTLY_HASH, "main.js"),
            (FILES_HASH, PLOTLY_NAME),
            (FILES_HASH, "../shell.html"),
            (FILES_HASH, ""),
        ] {
            assert!(find(hash, name).is_none(), "{hash} {name}");
        }
    }

    #[test]
    fn every_file_is_of_a_known_kind() {
        for (name, packed) in FILES {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
            assert!(packed.starts_with(&[0x1f, 0x8b]), "{name} is packed");
        }
    }

    #[test]
    fn what_a_page_loads_at_first_stays_below_two_megabytes() {
        let own: usize = FILES.iter().map(|(_, packed)| packed.len()).sum();
        assert!(own < 100_000, "{own} bytes of own files");
        assert!(
            PLOTLY.len() < 1_500_000,
            "{} bytes of plotly.js",
            PLOTLY.len()
        );
    }

    #[test]
    fn gzip_is_sent_unless_it_is_refused() {
        for (sent, takes) in [
            (None, true),
            (Some("gzip, deflate, br"), true),
            (Some("br;q=1.0, gzip;q=0.5"), true),
            (Some("*"), true),
            (Some("identity"), false),
            (Some("gzip;q=0"), false),
            (Some("gzip; q=0.0"), false),
            (Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(sent));
            }
            assert_eq!(takes_gzip(&headers), takes, "{sent:?}");
        }
    }
}
