//! Ids that sort by the time they were made.

use std::time::Duration;

/// Crockford's base 32: no I, L, O or U, and in the order of ASCII.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The system gives no random bytes, without which nothing here is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomBytes;

/// A ULID: 48 bits of milliseconds since 1970, then 80 random bits, in 26 characters.
///
/// # Errors
///
/// [`NoRandomBytes`] when the system gives no random bytes.
pub(crate) fn ulid(since_1970: Duration) -> Result<String, NoRandomBytes> {
    let mut random = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| NoRandomBytes)?;
    let random = u128::from_be_bytes(random) & ((1 << 80) - 1);
    let millis = since_1970.as_millis() & ((1 << 48) - 1);
    let bits = (millis << 80) | random;
    let digit = |place: u32| {
        let index = usize::try_from((bits >> (place * 5)) & 31).unwrap_or_default();
        ALPHABET.get(index).copied().map_or('0', char::from)
    };
    Ok((0..26).rev().map(digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_differ_within_one() {
        let at = |ms| ulid(Duration::from_millis(ms)).unwrap();
        let (early, late) = (at(1_000), at(1_001));
        assert!(early < late, "{early} {late}");
        assert_eq!(early.len(), 26);
        assert_ne!(at(5), at(5));
        // The example of the ULID specification: 01ARYZ6S41 is 1469918176385 ms.
        assert!(at(1_469_918_176_385).starts_with("01ARYZ6S41"));
    }
}
