//! Reasons why a caller is not let in.

/// Reason why a caller is not let in. The texts are constant: nothing of the token is echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// No token was sent.
    #[error("no token was sent: send one as 'Authorization: Bearer TOKEN'")]
    Missing,
    /// It is not a token that this gateway trusts.
    #[error("the token is not valid for this gateway")]
    Invalid,
    /// It was valid, and has ended.
    #[error("the token has expired: ask for a new one")]
    Expired,
    /// It was taken back.
    #[error("the token was revoked: ask for a new one")]
    Revoked,
    /// It may have been taken back: the store that would tell was lost.
    #[error(
        "this gateway lost its record of revoked tokens, so tokens issued before are refused: ask for a new one"
    )]
    Forgotten,
    /// It is not valid yet by our clock.
    #[error(
        "the token is not valid yet: the clock of this gateway, or of whoever issued the token, is wrong"
    )]
    Early,
}

impl Denied {
    /// The reason as a label of logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Forgotten => "store_lost",
            Self::Early => "not_yet_valid",
        }
    }
}
