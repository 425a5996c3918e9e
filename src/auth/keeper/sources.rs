//! Sources of all keys, as the settings say them.

use std::path::PathBuf;

use super::super::algorithm::Algorithm;
use super::super::claims::Role;
use super::super::fetch::JwksUrl;
use super::super::foreign::Terms;

/// Sources of all keys.
#[derive(Clone, Debug)]
pub struct KeySources {
    /// The `iss` of our tokens.
    pub issuer: String,
    /// The `aud` of our tokens.
    pub audience: String,
    /// Our signing key.
    pub signing_key: PathBuf,
    /// Keys that signed before; `None`: the file that a rotation keeps, if there is one.
    pub previous_keys: Option<Vec<PathBuf>>,
    /// A secret that others sign tokens of our shape with.
    pub shared_secret: Option<SharedSecret>,
    /// Other issuers.
    pub trusted: Vec<TrustedIssuer>,
}

/// A secret for HS256, and what tokens signed with it are trusted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecret {
    /// The `iss` of such tokens; not ours.
    pub issuer: String,
    /// The `kid` of such tokens.
    pub kid: String,
    /// The most that they may claim.
    pub role_max: Role,
    /// Place of the secret.
    pub source: SecretSource,
}

/// Place of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; white space around it is cut.
    File(PathBuf),
}

/// An issuer other than ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// Terms for its tokens: what they must say, and what they are worth here.
    pub terms: Terms,
    /// Source of its keys.
    pub keys: TrustedKeys,
}

/// Source of the keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedKeys {
    /// A JWKS document at an address.
    JwksUrl {
        /// The address.
        url: JwksUrl,
        /// Authorities that its server is verified with; `None`: the system's.
        ca: Option<PathBuf>,
    },
    /// A JWKS document in a file.
    JwksFile(PathBuf),
    /// One public key in a PEM file, for one algorithm.
    PublicKey {
        /// The file.
        file: PathBuf,
        /// The algorithm that its signatures are made with.
        algorithm: Algorithm,
    },
}
