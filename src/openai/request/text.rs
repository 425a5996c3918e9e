//! Check that a body is text: UTF-8 throughout, as a worker may read other bytes in another
//! way than we do.

/// Checks a part of the body, which lies at `base` of it. Returns how many bytes were
/// read: those behind it begin a character whose end is still to come.
///
/// # Errors
///
/// Offset in the body of the first byte that is no text.
pub(super) fn part(bytes: &[u8], base: usize) -> Result<usize, usize> {
    let length = bytes.len() - begun(bytes);
    let text = bytes.get(..length).unwrap_or_default();
    // simdutf8 says only whether all is well, and is the faster for that.
    if simdutf8::basic::from_utf8(text).is_ok() {
        return Ok(length);
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(error) => Err(base + error.valid_up_to()),
    }
}

/// Checks the end of the body, where every character must be whole.
///
/// # Errors
///
/// As [`part`].
pub(super) fn whole(bytes: &[u8], base: usize) -> Result<(), usize> {
    let read = part(bytes, base)?;
    if read == bytes.len() {
        return Ok(());
    }
    Err(base + read)
}

/// Number of the last bytes that begin a character that has more.
fn begun(bytes: &[u8]) -> usize {
    for (count, byte) in (1..).zip(bytes.iter().rev().take(3)) {
        let length = match byte {
            // It goes on with one that stands before it.
            0x80..0xc0 => continue,
            0xc2..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf5 => 4,
            _ => return 0,
        };
        return if length > count { count } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by the standard library alone.
    fn slowly(bytes: &[u8]) -> Result<usize, usize> {
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(bytes.len()),
            Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
            Err(error) => Err(error.valid_up_to()),
        }
    }

    proptest! {
        #[test]
        fn a_part_is_judged_as_by_the_standard_library_wherever_it_ends(
            words in proptest::collection::vec(
                prop_oneof![
                    8 => "[a-z ]{0,90}".prop_map(String::into_bytes),
                    8 => any::<char>().prop_map(|one| one.to_string().into_bytes()),
                    1 => proptest::sample::select(vec![
                        &b"\xff"[..], b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
                        b"\xe0\x80", b"\xf5", b"\xc3", b"\xf0\x9f\x8c",
                    ]).prop_map(<[u8]>::to_vec),
                ],
                0..9,
            ),
            cut in 0..4_usize,
        ) {
            let bytes = words.concat();
            let bytes = &bytes[..bytes.len().saturating_sub(cut)];
            match (part(bytes, 7), slowly(bytes)) {
                (Ok(read), Ok(expected)) => prop_assert_eq!(read, expected),
                (Err(at), Err(expected)) => {
                    prop_assert_eq!(at, 7 + expected);
                }
                // A character that is begun and can't go on is found with its next byte.
                (Ok(read), Err(expected)) => {
                    prop_assert_eq!(read, expected);
                    prop_assert!(bytes.len() - read < 4);
                    prop_assert!(whole(bytes, 0).is_err());
                }
                (Err(at), Ok(expected)) => prop_assert!(false, "{at} {expected}"),
            }
        }
    }
}
