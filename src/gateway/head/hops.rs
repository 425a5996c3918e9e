//! Requests that come back: a gateway whose upstream is itself, or another gateway that
//! sends them here again.
//!
//! Requests that we send to a server that someone else runs carry, in [`HOPS`], a mark of
//! this process behind those that it came with. A request with our own mark is refused,
//! and so is one that went through [`HOPS_MAX`] gateways. Where `any_address` says that
//! coming back is meant, the mark says nothing but that there was a gateway.
//!
//! A client may write what it likes there: it can only have its own request refused.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::gateway::refusal::Refusal;

/// The gateways that a request went through.
pub const HOPS: HeaderName = HeaderName::from_static("x-tidegate-hops");

/// Gateways that a request may go through before this one.
const HOPS_MAX: usize = 4;

/// The mark of a gateway that does not say which.
const ANYONE: &str = "-";

/// The mark of this process: sixteen digits, and as what a server is told of a request
/// that came from no other gateway.
static OWN: LazyLock<(String, Option<HeaderValue>)> = LazyLock::new(|| {
    let random = RandomState::new().hash_one(std::process::id());
    let text = format!("{random:016x}");
    let value = text.parse().ok();
    (text, value)
});

/// The gateways that a request went through before this one.
#[derive(Clone, Debug, Default)]
pub struct Hops(Option<Box<str>>);

impl Hops {
    /// Reads them; what is no mark says nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::Loop`] where this one is among them, or there are too many.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        if !headers.contains_key(HOPS) {
            return Ok(Self(None));
        }
        let values = headers.get_all(HOPS).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let marks = texts.flat_map(|text| text.split(',')).map(str::trim);
        let marks: Vec<&str> = marks.filter(|mark| is_mark(mark)).collect();
        if marks.len() >= HOPS_MAX || marks.contains(&OWN.0.as_str()) {
            return Err(Refusal::Loop);
        }
        Ok(Self(Some(marks.join(", ").into())))
    }

    /// Mark for the next server. `may_return`: that server may send the request here again.
    pub fn onward(&self, may_return: bool) -> Option<HeaderValue> {
        let before = self.0.as_deref().filter(|before| !before.is_empty());
        match (before, may_return) {
            (None, true) => Some(HeaderValue::from_static(ANYONE)),
            (None, false) => OWN.1.clone(),
            (Some(before), _) => {
                let own = if may_return { ANYONE } else { &OWN.0 };
                format!("{before}, {own}").parse().ok()
            }
        }
    }
}

fn is_mark(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    text == ANYONE || text.len() == 16 && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Hops, Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HOPS, value.parse().unwrap());
        }
        Hops::read(&headers)
    }

    fn told(hops: &Hops, may_return: bool) -> String {
        hops.onward(may_return)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_request_that_comes_back_is_refused_and_no_other() {
        let first = told(&read(&[]).unwrap(), false);
        assert!(is_mark(&first), "{first}");
        assert!(matches!(read(&[&first]), Err(Refusal::Loop)));
        let other = "0123456789abcdef";
        assert!(matches!(
            read(&[other, &format!("-, {first}")]),
            Err(Refusal::Loop)
        ));
        let second = told(&read(&[other]).unwrap(), false);
        assert_eq!(second, format!("{other}, {first}"));
        assert_eq!(told(&read(&["forged; x", ""]).unwrap(), false), first);
    }

    #[test]
    fn however_it_goes_round_it_ends() {
        let mut value = told(&read(&[]).unwrap(), true);
        let mut rounds = 1;
        while let Ok(hops) = read(&[&value]) {
            value = told(&hops, true);
            rounds += 1;
            assert!(rounds <= HOPS_MAX, "{value}");
        }
        assert_eq!(rounds, HOPS_MAX);
    }
}
