//! Identity of callers: tokens signed, verified, revoked; and the pair of a first start.
//!
//! A token is a JWT of one shape ([`claims`]), signed with the gateway's Ed25519
//! key ([`keys`]). [`issue`] makes it, [`verify`] turns it into a [`Principal`]
//! and remembers that it did, [`revoked`] takes it back at once. [`certs`] makes
//! the TLS pair where there is none.
//!
//! Tokens of other issuers are read by [`foreign`], with keys that stand in a file or
//! are fetched ([`jwks`], [`fetch`], [`refetch`]); [`holders`] notes who shows one. All keys
//! together are a [`ring`], which [`keeper`] makes from files, and again when they change.
//!
//! This room decides who someone is and what their token says. It does not know
//! routes, HTTP, status codes or where records are kept: the gateway asks a
//! principal, `store` keeps the records.

pub mod algorithm;
pub mod certs;
pub mod claims;
pub mod denied;
pub mod fetch;
pub mod foreign;
pub mod holders;
pub mod issue;
pub mod jwks;
pub mod keeper;
pub mod keys;
pub mod pattern;
pub mod principal;
pub mod refetch;
pub mod revoked;
pub mod ring;
pub mod secret;
pub mod token;
pub mod verify;

mod cache;
mod files;
mod recent;
mod ulid;

pub use algorithm::Algorithm;
pub use claims::{Role, TokenKind, TokenLimits};
pub use denied::Denied;
pub use issue::{IssueError, Issuer, TokenRecord, TokenSpec};
pub use keeper::{KeySources, Keys, TrustedIssuer, TrustedKeys};
pub use keys::SigningKey;
pub use pattern::Pattern;
pub use principal::Principal;
pub use revoked::{Cutoffs, Elsewhere, Revocations, RevokedSet};
pub use ring::Keyring;
pub use secret::Secret;
pub use token::{TOKEN_BYTES_MAX, TOKEN_PREFIX};
pub use ulid::NoRandomBytes;
pub(crate) use ulid::ulid;
pub use verify::Verifier;
