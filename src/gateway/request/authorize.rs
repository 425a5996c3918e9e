//! Authorization of a request: from headers alone, before a byte of the body is read.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL};

use crate::auth::{Denied, Principal, Verifier};
use crate::gateway::refusal::Refusal;
use crate::gateway::request::cors::Page;

/// Headers that may have a token beside `Authorization`: Anthropic's way, Azure's.
const X_API_KEY: &str = "x-api-key";
const API_KEY: &str = "api-key";
/// Text before a token in a subprotocol of a WebSocket, as OpenAI's clients for browsers
/// send it: a page can set no header there.
const PROTOCOL: &str = "openai-insecure-api-key.";
/// Text in place of a token that can't be one.
const NO_TOKEN: &str = "?";

/// Checks the token of a request. Waits, and not for long, only for a key of another
/// issuer that is not known yet. `opens_for`: the page, where a WebSocket is to be opened.
///
/// # Errors
///
/// [`Refusal::Token`] when there is none or it is not valid; [`Refusal::Origin`] where it
/// stands as only a page sends it, and the page may not call us; [`Refusal::ShuttingDown`]
/// when another gateway has taken over, and what is revoked there can't be known.
pub async fn authorize(
    headers: &HeaderMap,
    opens_for: Option<&Page>,
    verifier: &Verifier,
) -> Result<Arc<Principal>, Refusal> {
    let presented = match (presented(headers), opens_for) {
        (Err(Denied::Missing), Some(page)) => in_protocol(headers, page)?,
        (presented, _) => presented.map_err(Refusal::Token)?,
    };
    let revocations = verifier.revocations();
    // Boxed, as it is rare: the room for it would be made for every request.
    if revocations.is_elsewhere() && !Box::pin(revocations.are_known()).await {
        return Err(Refusal::ShuttingDown);
    }
    verifier
        .verify_or_refetch(presented, verifier.now())
        .await
        .map_err(Refusal::Token)
}

/// The token as it was sent. A good `Authorization` stands above the other headers, as
/// there are clients that send a stale key beside it; where it holds no token (some
/// clients send it empty, or a password for a proxy), another header may.
///
/// # Errors
///
/// [`Denied`] where there is none, or two readers could find two of them: the same
/// header twice, or a list in one.
fn presented(headers: &HeaderMap) -> Result<&str, Denied> {
    let [authorization, keys @ ..] = found(headers)?;
    let (scheme, token) = authorization
        .map(|text| text.split_once(' ').unwrap_or((text, "")))
        .unwrap_or_default();
    let bearer = scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim_ascii());
    let key = keys.into_iter().flatten().find(|text| !text.is_empty());
    let is_of_another_kind = bearer.is_none() && !scheme.is_empty();
    match bearer.filter(|token| !token.is_empty()).or(key) {
        Some(token) if is_list(token) => Err(Denied::Invalid),
        Some(token) => Ok(token),
        None if is_of_another_kind => Err(Denied::Invalid),
        None => Err(Denied::Missing),
    }
}

/// `Authorization` and the other two headers, each of which may stand there once: also
/// where it does not count, twice is wrong. Most are not there, so all names are looked
/// at as they stand. What is no text counts as a token that is not valid, not as none.
fn found(headers: &HeaderMap) -> Result<[Option<&str>; 3], Denied> {
    let mut all = [None; 3];
    let [authorization, x_api_key, api_key] = &mut all;
    for (name, value) in headers {
        let place = match name.as_str() {
            _ if *name == AUTHORIZATION => &mut *authorization,
            X_API_KEY => &mut *x_api_key,
            API_KEY => &mut *api_key,
            _ => continue,
        };
        let text = std::str::from_utf8(value.as_bytes()).unwrap_or(NO_TOKEN);
        let text = text.trim_ascii();
        if place.replace(text).is_some() {
            return Err(Denied::Invalid);
        }
    }
    Ok(all)
}

/// The token in one of the subprotocols that a page offers.
fn in_protocol<'a>(headers: &'a HeaderMap, page: &Page) -> Result<&'a str, Refusal> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    let mut keys = offered.filter_map(|part| part.trim().strip_prefix(PROTOCOL));
    let Some(key) = keys.next() else {
        return Err(Refusal::Token(Denied::Missing));
    };
    match page {
        Page::Allowed(_) if key.is_empty() || keys.next().is_some() => {
            Err(Refusal::Token(Denied::Invalid))
        }
        Page::Allowed(_) => Ok(key),
        Page::None if !headers.contains_key(ORIGIN) => Err(Refusal::Token(Denied::Missing)),
        Page::None | Page::Stranger => Err(Refusal::Origin),
    }
}

/// True if there may be two tokens in it.
fn is_list(token: &str) -> bool {
    memchr::memchr3(b',', b' ', b'\t', token.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::head::headers::tests::map;

    #[test]
    fn a_token_is_found_where_each_sdk_puts_it() {
        for pair in [
            ("authorization", "Bearer abc"),
            ("authorization", "bearer  abc "),
            ("x-api-key", "abc"),
            ("api-key", "abc"),
        ] {
            assert_eq!(presented(&map(&[pair])), Ok("abc"), "{pair:?}");
        }
        assert_eq!(presented(&HeaderMap::new()), Err(Denied::Missing));
        for (value, denied) in [
            ("Bearer", Denied::Missing),
            ("", Denied::Missing),
            ("Basic abc", Denied::Invalid),
        ] {
            assert_eq!(presented(&map(&[("authorization", value)])), Err(denied));
        }
    }

    #[test]
    fn only_a_page_that_may_call_has_its_token_in_a_subprotocol() {
        type Pairs = &'static [(&'static str, &'static str)];
        const OFFERED: (&str, &str) = (
            "sec-websocket-protocol",
            "realtime, openai-insecure-api-key.abc, openai-beta.realtime-v1",
        );
        const EMPTY: (&str, &str) = ("sec-websocket-protocol", "openai-insecure-api-key.");
        const NONE: (&str, &str) = ("sec-websocket-protocol", "realtime");
        const ORIGIN: (&str, &str) = ("origin", "https://a.example");
        let allowed = || Page::Allowed(http::HeaderValue::from_static("*"));
        let read = |page: &Page, pairs: Pairs| match in_protocol(&map(pairs), page) {
            Ok(token) => token.to_owned(),
            Err(Refusal::Token(denied)) => format!("{denied:?}"),
            Err(refusal) => refusal.code().to_owned(),
        };
        assert_eq!(read(&allowed(), &[OFFERED]), "abc");
        assert_eq!(read(&allowed(), &[OFFERED, OFFERED]), "Invalid");
        assert_eq!(read(&allowed(), &[EMPTY]), "Invalid");
        assert_eq!(read(&allowed(), &[NONE]), "Missing");
        assert_eq!(read(&Page::None, &[OFFERED]), "Missing");
        for page in [Page::None, Page::Stranger] {
            assert_eq!(read(&page, &[OFFERED, ORIGIN]), "origin_not_allowed");
        }
    }

    #[test]
    fn one_kind_of_header_stands_beside_another_and_never_twice() {
        const GOOD: (&str, &str) = ("authorization", "Bearer abc");
        const KEY: (&str, &str) = ("x-api-key", "abc");
        for (pairs, found) in [
            (&[GOOD, ("x-api-key", "stale")][..], Ok("abc")),
            (&[("x-api-key", "stale"), GOOD], Ok("abc")),
            (&[("authorization", ""), KEY], Ok("abc")),
            (&[("authorization", "Bearer "), KEY], Ok("abc")),
            (&[("authorization", "Basic dTpw"), KEY], Ok("abc")),
            (&[KEY, ("api-key", "stale")], Ok("abc")),
            (&[("x-api-key", ""), ("api-key", "abc")], Ok("abc")),
            (&[GOOD, GOOD], Err(Denied::Invalid)),
            (&[GOOD, ("authorization", "garbage")], Err(Denied::Invalid)),
            (&[("authorization", "garbage"), GOOD], Err(Denied::Invalid)),
            (&[GOOD, ("authorization", "")], Err(Denied::Invalid)),
            (&[KEY, KEY], Err(Denied::Invalid)),
            (&[KEY, ("x-api-key", "other")], Err(Denied::Invalid)),
            (&[GOOD, KEY, KEY], Err(Denied::Invalid)),
            (
                &[("authorization", "Bearer abc, Bearer d")],
                Err(Denied::Invalid),
            ),
            (&[("authorization", "Bearer d,abc")], Err(Denied::Invalid)),
            (&[("x-api-key", "abc,d")], Err(Denied::Invalid)),
        ] {
            assert_eq!(presented(&map(pairs)), found, "{pairs:?}");
        }
    }
}
