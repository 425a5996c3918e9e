//! `[[tokens.trusted]]`: further issuers whose tokens are accepted.

use std::path::PathBuf;

use super::reader::Reader;

/// An issuer other than ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// The `iss` claim that its tokens carry.
    pub issuer: String,
    /// The `aud` claim that its tokens must carry.
    pub audience: String,
    /// Where its keys come from.
    pub keys: TrustedKeys,
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedKeys {
    /// A JWKS document at an https address.
    JwksUrl(String),
    /// A JWKS document in a file.
    JwksFile(PathBuf),
    /// One public key in a PEM file, for one algorithm.
    PublicKey {
        /// The file.
        file: PathBuf,
        /// The algorithm that its signatures are made with.
        algorithm: TokenAlgorithm,
    },
}

/// A way to sign a token with a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenAlgorithm {
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
}

const ALGORITHMS: [(&str, TokenAlgorithm); 9] = [
    ("EdDSA", TokenAlgorithm::EdDsa),
    ("ES256", TokenAlgorithm::Es256),
    ("ES384", TokenAlgorithm::Es384),
    ("RS256", TokenAlgorithm::Rs256),
    ("RS384", TokenAlgorithm::Rs384),
    ("RS512", TokenAlgorithm::Rs512),
    ("PS256", TokenAlgorithm::Ps256),
    ("PS384", TokenAlgorithm::Ps384),
    ("PS512", TokenAlgorithm::Ps512),
];

/// Reads one table; `None` when something was wrong and noted.
pub(super) fn read(mut table: Reader<'_>) -> Option<TrustedIssuer> {
    let issuer = table.required_words("issuer");
    let audience = table.required_words("audience");
    let jwks = table.words("jwks");
    let public_key = table.words("public_key");
    let algorithm = table.choice("algorithm", &ALGORITHMS);
    let line = table.line;
    let keys = match (jwks, public_key) {
        (Some(jwks), None) => {
            if let Some(algorithm) = algorithm {
                let message = "this goes with public_key only: the keys of a JWKS name theirs";
                table.wrong(algorithm.line, "algorithm", message);
            }
            if jwks.value.starts_with("https://") {
                Some(TrustedKeys::JwksUrl(jwks.value))
            } else if jwks.value.contains("://") {
                table.wrong(
                    jwks.line,
                    "jwks",
                    "write an https:// address or the path of a file",
                );
                None
            } else {
                Some(TrustedKeys::JwksFile(PathBuf::from(jwks.value)))
            }
        }
        (None, Some(file)) => {
            if algorithm.is_none() {
                let message = "this is missing: name the algorithm of the public key, as \"EdDSA\"";
                table.wrong(file.line, "algorithm", message);
            }
            algorithm.map(|algorithm| TrustedKeys::PublicKey {
                file: PathBuf::from(file.value),
                algorithm: algorithm.value,
            })
        }
        (Some(jwks), Some(_)) => {
            table.wrong(jwks.line, "jwks", "write jwks or public_key, not both");
            None
        }
        (None, None) => {
            table.wrong(line, "jwks", "this is missing: write jwks or public_key");
            None
        }
    };
    table.finish();
    Some(TrustedIssuer {
        issuer: issuer?.value,
        audience: audience?.value,
        keys: keys?,
    })
}
