//! Cost of a request to its token's budgets: the expected one, and what it came to.
//!
//! A request holds an estimate of its tokens before it waits for anything; its
//! [`Charge`] is closed with its record, however it ends. A refused request pays
//! nothing.

use std::sync::Arc;

use super::rate::{Budget, Hold, RateLimits, Rates, Standings};
use crate::auth::Principal;
use crate::config::RouteLimits;
use crate::gateway::refusal::Refusal;
use crate::openai::api::Api;
use crate::openai::request::Scan;

/// Bytes of a request's body that are taken for one token.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens that an answer is taken for where the request does not limit them.
const ANSWER_TOKENS: u64 = 256;

/// Part of its token's budgets that a request holds until it ends.
#[derive(Debug)]
pub struct Charge {
    hold: Hold,
    /// Tokens of the prompt, estimated.
    prompt: u64,
}

/// Cost of a request, when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Nothing: it was refused.
    Refused,
    /// So many tokens in all, as its server told.
    Told(u64),
    /// Its prompt, and so many tokens that came before it was cut off.
    Came(u64),
    /// No tokens: it did not come that far, or its server answered with an error.
    NoTokens,
}

/// Tokens that a request may use, estimated from its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Estimate {
    prompt: u64,
    answer: u64,
    /// True if `answer` follows from the client's own limit.
    asked: bool,
}

impl Estimate {
    fn of(api: Api, scan: &Scan<'_>, body_bytes: u64) -> Self {
        let prompt = body_bytes.div_ceil(BYTES_PER_TOKEN);
        match api {
            Api::Chat | Api::Completions | Api::Responses | Api::Messages => {
                let asked = scan.output_tokens_max();
                let each = asked.unwrap_or(ANSWER_TOKENS);
                Self {
                    prompt,
                    answer: each.saturating_mul(scan.n.unwrap_or(1).max(1)),
                    asked: asked.is_some(),
                }
            }
            Api::Embeddings
            | Api::Embed
            | Api::Rerank
            | Api::Score
            | Api::Pooling
            | Api::Classify => Self {
                prompt,
                ..Self::default()
            },
            // These report no tokens.
            Api::CountTokens
            | Api::Tokenize
            | Api::Detokenize
            | Api::Transcriptions
            | Api::Translations
            | Api::Speech
            | Api::Images
            | Api::ImageEdits
            | Api::Realtime => Self::default(),
        }
    }
}

/// Holds what a request with a body of so many bytes is expected to cost, and says in
/// `standings` what is left. Does nothing where neither the route nor the token has a limit.
///
/// # Errors
///
/// A [`Refusal`] when it does not fit now, or never will.
pub fn reserve(
    (route, rates): (&RouteLimits, &Arc<Rates>),
    principal: &Principal,
    (api, scan, body_bytes): (Api, &Scan<'_>, u64),
    standings: &mut Standings,
) -> Result<Option<Charge>, Refusal> {
    let limits = limits_of(route, principal);
    if limits == RateLimits::default() {
        return Ok(None);
    }
    let estimate = Estimate::of(api, scan, body_bytes);
    hold((limits, rates), principal, estimate, standings)
}

/// Holds one request that takes no tokens, as [`reserve`] does.
///
/// # Errors
///
/// A [`Refusal`] when it does not fit now.
pub fn reserve_bare(
    (route, rates): (&RouteLimits, &Arc<Rates>),
    principal: &Principal,
    standings: &mut Standings,
) -> Result<Option<Charge>, Refusal> {
    let limits = limits_of(route, principal);
    if limits == RateLimits::default() {
        return Ok(None);
    }
    hold((limits, rates), principal, Estimate::default(), standings)
}

fn limits_of(route: &RouteLimits, principal: &Principal) -> RateLimits {
    RateLimits {
        requests: lower(route.requests_per_minute, principal.limits.rpm),
        tokens: lower(route.tokens_per_minute, principal.limits.tpm),
    }
}

fn hold(
    (limits, rates): (RateLimits, &Arc<Rates>),
    principal: &Principal,
    estimate: Estimate,
    standings: &mut Standings,
) -> Result<Option<Charge>, Refusal> {
    if let Some(limit) = limits.tokens
        && estimate.asked
        && estimate.answer > u64::from(limit)
    {
        *standings = rates.standings(&principal.token_id, limits);
        return Err(Refusal::NeverFits { limit });
    }
    let tokens = estimate.prompt.saturating_add(estimate.answer);
    match rates.hold(&principal.token_id, limits, tokens) {
        Ok((hold, left)) => {
            *standings = left;
            Ok(Some(Charge {
                hold,
                prompt: estimate.prompt,
            }))
        }
        Err(denied) => {
            *standings = denied.standings;
            Err(Refusal::Rate {
                what: match denied.budget {
                    Budget::Requests => "requests",
                    Budget::Tokens => "tokens",
                },
                limit: denied.limit,
                after: denied.after,
            })
        }
    }
}

/// The lower of two limits.
pub fn lower(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    one.into_iter().chain(other).min()
}

impl Charge {
    /// The request goes to a server: it counts from now on.
    pub fn sent(&mut self) {
        self.hold.sent();
    }

    /// Charges what the request came to.
    pub fn close(self, spent: Spent) {
        match spent {
            Spent::Refused => self.hold.refund(),
            Spent::Told(tokens) => self.hold.settle(tokens),
            Spent::Came(tokens) => self.hold.settle(self.prompt.saturating_add(tokens)),
            Spent::NoTokens => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::request::scan;

    #[test]
    fn an_estimate_is_of_the_prompt_and_of_the_most_that_the_answers_may_have() {
        let of = |api, body: &str| {
            let estimate = Estimate::of(api, &scan(body.as_bytes()).unwrap(), 100);
            (estimate.prompt, estimate.answer, estimate.asked)
        };
        assert_eq!(of(Api::Chat, "{}"), (25, ANSWER_TOKENS, false));
        assert_eq!(of(Api::Chat, r#"{"max_tokens":10,"n":3}"#), (25, 30, true));
        assert_eq!(of(Api::Embeddings, r#"{"max_tokens":10}"#), (25, 0, false));
        assert_eq!(of(Api::Tokenize, "{}"), (0, 0, false));
        let huge = r#"{"max_tokens":18446744073709551615,"n":2}"#;
        assert_eq!(of(Api::Messages, huge), (25, u64::MAX, true));
    }

    #[test]
    fn the_lower_limit_holds() {
        assert_eq!(lower(None, None), None);
        assert_eq!(lower(Some(2), None), Some(2));
        assert_eq!(lower(Some(2), Some(1)), Some(1));
    }
}
