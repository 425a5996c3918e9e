//! Form of a token: its prefix, and the bounds of what stands in it.
//!
//! The ground of this room: whatever issues, reads or fetches agrees on it.

use aws_lc_rs::digest::{SHA256, digest};

/// Printed before every token of ours, so that scanners of leaked secrets find it.
pub const TOKEN_PREFIX: &str = "tgw_";

/// Longest token, prefix included, that is issued or looked at.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Longest label, in characters.
pub const LABEL_CHARS_MAX: usize = 200;
/// Longest subject, in characters.
pub const SUBJECT_CHARS_MAX: usize = 200;
/// Most projects in one token.
pub const PROJECTS_MAX: usize = 64;
/// Longest `jti` and `sub` that are accepted, in bytes.
const ID_BYTES_MAX: usize = 800;
/// Longest key id, in bytes.
pub(super) const KID_BYTES_MAX: usize = 256;

/// Recognises a token in logs: 8 hexadecimal digits of its SHA-256, prefix aside.
pub fn hash8(token: &str) -> [u8; 8] {
    let token = token.strip_prefix(TOKEN_PREFIX).unwrap_or(token);
    let hash = digest(&SHA256, token.as_bytes());
    let mut digits = [b'0'; 8];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash.as_ref()) {
        for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if half < 10 {
                b'0' + half
            } else {
                b'a' + half - 10
            };
        }
    }
    digits
}

/// True for a text that can be a token's id or subject.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// True for a text that can be a label.
pub(super) fn is_label(text: &str) -> bool {
    short(text, LABEL_CHARS_MAX, char::is_control)
}

/// True for a text of 1 to `chars_max` characters, none of them odd.
pub(super) fn short(text: &str, chars_max: usize, odd: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().count() <= chars_max && !text.chars().any(odd)
}
