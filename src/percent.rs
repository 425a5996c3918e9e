//! Percent-coding of names in paths and queries (RFC 3986).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Characters that are coded in a name: all but the unreserved ones.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The same in a path, whose slashes stand for themselves.
const PATH: &AsciiSet = &NAME.remove(b'/');

/// Codes a name for a segment of a path, or for a query.
pub fn of_name(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}

/// Codes a whole path.
pub fn of_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// Decodes `%2F` and the like; `None` where a percent sign stands alone, and for what is
/// not UTF-8 afterwards. For names that we look up ourselves, never for what is forwarded.
pub fn decoded(text: &str) -> Option<String> {
    let is_coded = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let text = Some(text).filter(|text| text.split('%').skip(1).all(is_coded))?;
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went() {
        for name in ["", "a-b_c.d~e", "a/b c", "%2F", "é\u{1f30a}", "?&=#+\"<>"] {
            assert_eq!(decoded(&of_name(name)).as_deref(), Some(name));
            assert_eq!(decoded(&of_path(name)).as_deref(), Some(name));
        }
        assert_eq!(of_name("a/b c"), "a%2Fb%20c");
        assert_eq!(of_path("a/b c"), "a/b%20c");
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for bad in ["%", "a%2", "%zz", "%+f", "%f", "%ff", "%c3%28", "%é"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
        assert_eq!(decoded("%2f%C3%A9").as_deref(), Some("/é"));
    }
}
