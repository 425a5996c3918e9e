//! Who a caller is: tokens signed, verified, revoked; and the pair of a first start.
//!
//! A token is a JWT of one shape ([`claims`]), signed with the gateway's Ed25519
//! key ([`keys`]). [`issue`] makes it, [`verify`] turns it into a [`Principal`]
//! and remembers that it did, [`revoked`] takes it back at once. [`certs`] makes
//! the TLS pair where there is none.
//!
//! Tokens of other issuers are read by [`foreign`], with keys that stand in a file or
//! are fetched ([`jwks`], [`fetch`], [`refetch`]); [`holders`] notes who shows one. All keys together are a [`ring`],
//! which [`keeper`] makes from files, and again when they change.
//!
//! This room decides who someone is and what their token says. It does not know
//! routes, HTTP, status codes or where records are kept: the gateway asks a
//! principal, `store` keeps the records.

pub mod certs;
pub mod claims;
pub mod fetch;
pub mod foreign;
pub mod holders;
pub mod issue;
pub mod jwks;
pub mod keeper;
pub mod keys;
pub mod pattern;
pub mod pem;
pub mod principal;
pub mod refetch;
pub mod revoked;
pub mod ring;
pub mod roots;
pub mod secret;
pub mod verify;

mod cache;
mod files;
mod recent;
mod ulid;

pub use claims::{Role, TokenKind, TokenLimits};
pub use issue::{IssueError, Issuer, TokenRecord, TokenSpec};
pub use keeper::{KeySources, Keys, TrustedIssuer, TrustedKeys};
pub use keys::SigningKey;
pub use pattern::Pattern;
pub use principal::Principal;
pub use revoked::{Cutoffs, Revocations, RevokedSet};
pub use ring::{Algorithm, Keyring};
pub use secret::Secret;
pub(crate) use ulid::ulid;
pub use verify::{Denied, Verifier};

/// Printed before every token of ours, so that scanners of leaked secrets find it.
pub const TOKEN_PREFIX: &str = "tgw_";

/// Longest token, prefix included, that is issued or looked at.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The system gives no random bytes, without which nothing here is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomBytes;
