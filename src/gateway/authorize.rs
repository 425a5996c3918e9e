//! Who asks: from headers alone, before a byte of the body is read.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::error::Refusal;
use crate::auth::{Denied, Principal, Verifier};

/// Where a token may stand beside `Authorization`: Anthropic's way, Azure's.
const KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];
/// What stands for a token that can't be one.
const NO_TOKEN: &str = "?";

/// Checks the token of a request. Waits, and not for long, only for a key of another
/// issuer that is not known yet.
///
/// # Errors
///
/// [`Refusal::Token`] when there is none or it is not valid.
pub async fn authorize(
    headers: &HeaderMap,
    verifier: &Verifier,
) -> Result<Arc<Principal>, Refusal> {
    let presented = presented(headers).map_err(Refusal::Token)?;
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
    let authorization = one(headers, AUTHORIZATION.as_str())?;
    let (scheme, token) = authorization
        .map(|text| text.split_once(' ').unwrap_or((text, "")))
        .unwrap_or_default();
    let bearer = scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim());
    let mut key = None;
    for name in KEY_HEADERS {
        // Looked at also where it does not count: twice is wrong.
        let found = one(headers, name)?.filter(|text| !text.is_empty());
        key = key.or(found);
    }
    let is_of_another_kind = bearer.is_none() && !scheme.is_empty();
    match bearer.filter(|token| !token.is_empty()).or(key) {
        Some(token) if token.contains([',', ' ', '\t']) => Err(Denied::Invalid),
        Some(token) => Ok(token),
        None if is_of_another_kind => Err(Denied::Invalid),
        None => Err(Denied::Missing),
    }
}

/// A header that may stand there once. What is no text counts as a token that is not
/// valid, not as none.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denied> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Denied::Invalid);
    }
    Ok(Some(first.to_str().unwrap_or(NO_TOKEN).trim()))
}

#[cfg(test)]
mod tests {
    use super::super::headers::tests::map;
    use super::*;

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
