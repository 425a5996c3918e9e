//! The tokenizer: up to four bytes a token, cut between characters.
//!
//! Owns the one way in which tokens are counted, so that `usage`, `/tokenize`
//! and the events of a stream agree. It is reversible: ids turn back into the
//! text they came from. It resembles no real vocabulary.

/// Most bytes of one token.
pub(super) const TOKEN_BYTES_MAX: usize = 4;

/// The tokens of a text, as pieces of it.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(TOKEN_BYTES_MAX);
        // A character has at most four bytes, so this stops above zero.
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Number of tokens in a text.
pub(super) fn count(text: &str) -> u32 {
    let count = if text.is_ascii() {
        text.len().div_ceil(TOKEN_BYTES_MAX)
    } else {
        pieces(text).count()
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The ids of a text's tokens.
pub(super) fn encode(text: &str) -> Vec<u64> {
    pieces(text).map(id).collect()
}

/// The text of ids that [`encode`] made; others stand for no text.
pub(super) fn decode(ids: impl IntoIterator<Item = u64>) -> String {
    let mut bytes = Vec::new();
    for id in ids {
        let length = usize::try_from(id >> 32).unwrap_or(0).min(TOKEN_BYTES_MAX);
        let [_, _, _, _, word @ ..] = id.to_be_bytes();
        bytes.extend(word.into_iter().skip(TOKEN_BYTES_MAX - length));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Length and bytes of a piece in one number below 2^35.
fn id(piece: &str) -> u64 {
    let bytes = piece
        .bytes()
        .fold(0, |word, byte| word << 8 | u64::from(byte));
    u64::try_from(piece.len()).unwrap_or(0) << 32 | bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ascii_has_four_characters_a_token() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 3);
        assert_eq!(
            pieces("hello world").collect::<Vec<_>>(),
            ["hell", "o wo", "rld"]
        );
        assert_eq!(decode([300, u64::MAX]).len(), 12, "ids of nobody's making");
    }

    proptest! {
        #[test]
        fn ids_turn_back_into_their_text(text in ".{0,40}") {
            let ids = encode(&text);
            prop_assert_eq!(count(&text) as usize, ids.len());
            prop_assert_eq!(decode(ids), text);
        }
    }
}
