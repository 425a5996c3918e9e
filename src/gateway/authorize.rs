//! Who asks: from headers alone, before a byte of the body is read.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::error::Refusal;
use crate::auth::{Denied, Principal, Verifier};

/// Where a token may stand: OpenAI's way, Anthropic's, Azure's.
const KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];

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
    let presented = presented(headers).ok_or(Refusal::Token(Denied::Missing))?;
    verifier
        .verify_or_refetch(presented, verifier.now())
        .await
        .map_err(Refusal::Token)
}

/// The token as it was sent. A header that is not text counts as a token that
/// is not valid, not as none.
fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().unwrap_or("?");
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let token = token.trim();
            return (!token.is_empty()).then_some(token);
        }
        return Some("?");
    }
    KEY_HEADERS
        .iter()
        .find_map(|name| headers.get(*name))
        .map(|value| value.to_str().unwrap_or("?").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_is_found_where_each_sdk_puts_it() {
        for (name, value) in [
            ("authorization", "Bearer abc"),
            ("authorization", "bearer  abc "),
            ("x-api-key", "abc"),
            ("api-key", "abc"),
        ] {
            assert_eq!(
                presented(&with(name, value)),
                Some("abc"),
                "{name}: {value}"
            );
        }
        assert_eq!(presented(&HeaderMap::new()), None);
        assert_eq!(presented(&with("authorization", "Bearer")), None);
        assert_eq!(presented(&with("authorization", "Basic abc")), Some("?"));
    }
}
