//! The signature algorithms that keys are pinned to.

use jsonwebtoken::{AlgorithmFamily, DecodingKey};

/// The signature algorithms that a key can be pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA over P-256.
    Es256,
    /// ECDSA over P-384.
    Es384,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// RSA-PSS with SHA-384.
    Ps384,
    /// RSA-PSS with SHA-512.
    Ps512,
    /// A secret shared with the signer; of the settings only, never of a key set.
    Hs256,
}

impl Algorithm {
    /// Algorithms whose keys have a public half, by the names that `alg` gives them.
    pub const PUBLIC: [(&str, Self); 9] = [
        ("EdDSA", Self::EdDsa),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
    ];

    /// As `alg` names it.
    pub fn name(self) -> &'static str {
        let named = Self::PUBLIC.iter().find(|(_, known)| *known == self);
        named.map_or("HS256", |(name, _)| name)
    }

    pub(super) const fn of_jwt(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as Jwt;
        match self {
            Self::EdDsa => Jwt::EdDSA,
            Self::Es256 => Jwt::ES256,
            Self::Es384 => Jwt::ES384,
            Self::Rs256 => Jwt::RS256,
            Self::Rs384 => Jwt::RS384,
            Self::Rs512 => Jwt::RS512,
            Self::Ps256 => Jwt::PS256,
            Self::Ps384 => Jwt::PS384,
            Self::Ps512 => Jwt::PS512,
            Self::Hs256 => Jwt::HS256,
        }
    }

    pub(super) fn fits(self, family: AlgorithmFamily) -> bool {
        self.of_jwt().family() == family
    }
}

/// Checks a signature over a message with a key, by its algorithm.
pub(super) fn signed(
    algorithm: Algorithm,
    key: &DecodingKey,
    message: &str,
    signature: &str,
) -> bool {
    jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm.of_jwt())
        .unwrap_or(false)
}
