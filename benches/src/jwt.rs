//! A token that HAProxy can check: RS256, which is the cheapest that it knows to check
//! of those that need no secret.
//!
//! Owns the key of a run. Tidegate's own tokens are Tidegate's to make.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize, SigningKey as _};

use crate::error::{BenchError, During};

/// A token, and the key that it is checked with.
#[derive(Clone, Debug)]
pub(crate) struct Rs256 {
    /// The token.
    pub(crate) token: String,
    /// PEM of the public key.
    pub(crate) public_key: PathBuf,
}

impl Rs256 {
    /// Makes a key of 2,048 bits in `dir`, and a token for a day.
    pub(crate) fn make(dir: &Path) -> Result<Self, BenchError> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let public_key = dir.join("rs256.pem");
        std::fs::write(&public_key, key.public_key_pem())
            .during(|| format!("write {}", public_key.display()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let expiry = now.map_or(0, |now| now.as_secs()) + 86_400;
        let header = base64url(br#"{"alg":"RS256","typ":"JWT"}"#);
        let claims = format!(
            r#"{{"iss":"bench","aud":"bench","sub":"user:bench","ws":"bench","exp":{expiry}}}"#
        );
        let signed = format!("{header}.{}", base64url(claims.as_bytes()));
        let signature = key.sign(signed.as_bytes())?;
        Ok(Self {
            token: format!("{signed}.{}", base64url(&signature)),
            public_key,
        })
    }
}

/// Text without padding, as tokens have it.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(three.get(at).copied().unwrap_or(0))
        });
        for at in 0..=three.len() {
            let digit = DIGITS.get(bits >> (18 - 6 * at) & 63);
            text.extend(digit.map(|digit| char::from(*digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_rfc_4648_has_them() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff\xfe", "-__-"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }
}
