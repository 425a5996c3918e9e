//! The values of the fields that matter, as vLLM reads them.
//!
//! Pydantic, in vLLM, takes a number or a switch in more than one spelling. What it would
//! refuse other servers may take, so that is passed over and noted as odd.

use std::borrow::Cow;

use super::super::json::{Literal, Reader};
use super::fault::ScanError;
use super::field::Field;

/// Passes over a value that is not `expected`, and notes it.
pub(super) fn is_odd<T>(
    key: Field,
    expected: &'static str,
    reader: &mut Reader<'_>,
    odd: &mut Option<ScanError>,
) -> Result<Option<T>, ScanError> {
    reader.skip_value(2)?;
    let key = key.name().into();
    odd.get_or_insert(ScanError::Field { key, expected });
    Ok(None)
}

/// A switch, also where it was spelled `"false"` or `1`, which pydantic, in vLLM, reads so.
pub(super) fn flag(
    key: Field,
    reader: &mut Reader<'_>,
    odd: &mut Option<ScanError>,
) -> Result<Option<bool>, ScanError> {
    match reader.literal() {
        Some(Literal::Bool(value)) => return Ok(Some(value)),
        Some(Literal::Null) => return Ok(None),
        None => {}
    }
    let at = reader.at();
    let found = match reader.peek() {
        Some(b'"') => reader.string()?.decode().as_deref().and_then(switch),
        Some(b'0' | b'1') => match whole(reader.number()?) {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    reader.back_to(at);
    is_odd(key, "true, false or null", reader, odd)
}

/// Value of a word that pydantic reads as true or false, beside those.
fn switch(text: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["true", "1", "yes", "on", "t", "y"];
    const FALSE: [&str; 6] = ["false", "0", "no", "off", "f", "n"];
    let is_among = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    is_among(TRUE)
        .then_some(true)
        .or(is_among(FALSE).then_some(false))
}

pub(super) fn count(
    key: Field,
    reader: &mut Reader<'_>,
    odd: &mut Option<ScanError>,
) -> Result<Option<u64>, ScanError> {
    reader.peek();
    let at = reader.at();
    if reader.literal() == Some(Literal::Null) {
        return Ok(None);
    }
    reader.back_to(at);
    let found = match reader.peek() {
        Some(b'-' | b'0'..=b'9') => whole(reader.number()?),
        // As pydantic reads it.
        Some(b'"') => reader.string()?.decode().as_deref().and_then(spelled),
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    reader.back_to(at);
    is_odd(key, "a non-negative integer or null", reader, odd)
}

/// A count that was spelled out as text, with nothing but digits.
fn spelled(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

/// A count, also where it was spelled `16.0` or `1e3`, as Python clients may.
fn whole(number: &str) -> Option<u64> {
    /// Above this a float is no longer exact.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if let Ok(count) = number.parse() {
        return Some(count);
    }
    let float: f64 = number.parse().ok()?;
    if float.fract() != 0.0 || !(0.0..=EXACT_MAX).contains(&float) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and between 0 and 2^53, checked above"
    )]
    let count = float as u64;
    Some(count)
}

pub(super) fn words<'a>(
    key: Field,
    reader: &mut Reader<'a>,
    odd: &mut Option<ScanError>,
) -> Result<Option<Cow<'a, str>>, ScanError> {
    reader.peek();
    let at = reader.at();
    if reader.literal() == Some(Literal::Null) {
        return Ok(None);
    }
    reader.back_to(at);
    if reader.peek() == Some(b'"')
        && let Some(text) = reader.string()?.decode()
    {
        return Ok(Some(text));
    }
    reader.back_to(at);
    is_odd(key, "a string of valid Unicode text, or null", reader, odd)
}
