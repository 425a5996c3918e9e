//! Search for the end of a string.
//!
//! Most bytes of a request stand in strings, and many strings have escaped quotes every
//! other line. So quotes are found many bytes at a time, all of them at once: the search
//! for one after the other takes longer to begin than they are apart.

use wide::u8x16;

/// Position of the closing quote of the string whose text begins here, if it is here: the
/// first quote behind an even number of backslashes. Only quotes are searched for, as
/// most escapes are of line ends.
pub(in super::super) fn closing_quote(text: &[u8]) -> Option<usize> {
    // Most strings are short.
    if let Some(first) = text.first_chunk()
        && let found @ Some(_) = first_closing(text, 0, u64::from(bits_of_16(first, b'"')))
    {
        return found;
    }
    let (blocks, rest) = text.as_chunks();
    for (at, block) in blocks.iter().enumerate() {
        let found = first_closing(text, at * 64, quotes_of_64(block));
        if found.is_some() {
            return found;
        }
    }
    let begin = text.len() - rest.len();
    let (blocks, rest) = rest.as_chunks();
    for (at, block) in blocks.iter().enumerate() {
        let quotes = u64::from(bits_of_16(block, b'"'));
        let found = first_closing(text, begin + at * 16, quotes);
        if found.is_some() {
            return found;
        }
    }
    let begin = text.len() - rest.len();
    let is_quote = |(_, byte): &(usize, &u8)| **byte == b'"';
    let quotes = rest.iter().enumerate().filter(is_quote);
    let mut quotes = quotes.map(|(at, _)| begin + at);
    quotes.find(|quote| closes(text, *quote))
}

/// The first that closes of the quotes that stand behind `begin` as bits say.
#[inline]
fn first_closing(text: &[u8], begin: usize, mut quotes: u64) -> Option<usize> {
    while quotes != 0 {
        let quote = begin + quotes.trailing_zeros() as usize;
        if closes(text, quote) {
            return Some(quote);
        }
        quotes &= quotes - 1;
    }
    None
}

/// A bit for each quote, the lowest for the first byte.
#[inline]
fn quotes_of_64(block: &[u8; 64]) -> u64 {
    let (parts, _) = block.as_chunks();
    let add = |all, part| all << 16 | u64::from(bits_of_16(part, b'"'));
    parts.iter().rev().fold(0, add)
}

/// A bit for each byte that is `wanted`, the lowest for the first.
#[inline]
fn bits_of_16(block: &[u8; 16], wanted: u8) -> u16 {
    let bits = u8x16::new(*block)
        .simd_eq(u8x16::splat(wanted))
        .to_bitmask();
    // It has 16 bits.
    u16::try_from(bits).unwrap_or_default()
}

/// True if an escape stands within the first `length` bytes. What lies behind them is
/// there to be read as well, so that those of a short key are looked at in one go.
#[inline]
pub(in super::super) fn has_escape(text: &[u8], length: usize) -> bool {
    if length <= 16
        && let Some(first) = text.first_chunk()
    {
        return u32::from(bits_of_16(first, b'\\')) & ((1 << length) - 1) != 0;
    }
    let text = text.get(..length).unwrap_or(text);
    memchr::memchr(b'\\', text).is_some()
}

/// True if the quote that stands there ends its string.
#[inline]
fn closes(text: &[u8], quote: usize) -> bool {
    match text.get(..quote) {
        Some(before @ [.., b'\\']) => !ends_escaping(before),
        _ => true,
    }
}

/// True if the end of this part of a string escapes what follows.
pub(in super::super) fn ends_escaping(text: &[u8]) -> bool {
    let backslashes = text.iter().rev().take_while(|&&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The closing quote, found byte by byte.
    fn slowly(text: &[u8]) -> Option<usize> {
        let mut is_escaped = false;
        text.iter().position(|&byte| {
            let closes = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            closes
        })
    }

    proptest! {
        #[test]
        fn the_closing_quote_is_found_wherever_it_stands(
            text in proptest::collection::vec(
                prop_oneof![
                    20 => any::<u8>(),
                    // What a search by words could take for them.
                    20 => proptest::sample::select(&b"!#[]\xa2\xdc\x22\x23\x5d\x00\x80"[..]),
                    10 => Just(b'\\'),
                ],
                0..300,
            ),
            spared in 0..300_usize,
        ) {
            let mut text = text;
            for byte in text.iter_mut().take(spared) {
                if *byte == b'"' {
                    *byte += 1;
                }
            }
            prop_assert_eq!(closing_quote(&text), slowly(&text));
            let length = spared.min(text.len());
            prop_assert_eq!(has_escape(&text, length), text[..length].contains(&b'\\'));
            let length = length % 20;
            prop_assert_eq!(has_escape(&text, length), text.iter().take(length).any(|&b| b == b'\\'));
        }
    }

    #[test]
    fn an_escaped_quote_closes_nothing_and_an_escaped_backslash_escapes_nothing() {
        for (text, at) in [
            (&br#"a""#[..], Some(1)),
            (br#"a\"b""#, Some(4)),
            (br#"\\""#, Some(2)),
            (br#"\"\"""#, Some(4)),
            (br#"\""#, None),
            (b"", None),
        ] {
            assert_eq!(closing_quote(text), at, "{}", text.escape_ascii());
            assert_eq!(slowly(text), at, "{}", text.escape_ascii());
        }
    }
}
