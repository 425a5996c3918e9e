//! The headers of a request on its way to a server: the client's that may go on, and ours.
//!
//! They are only ever written out, so they are not put together in a map: the client's
//! are passed over as they stand, and each one of ours takes the place of the client's
//! of its name.

use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::headers;

/// Headers of ours that most requests have.
const OURS: usize = 6;

/// Headers for a server.
#[derive(Clone, Debug)]
pub struct Onward {
    theirs: HeaderMap,
    /// Names of theirs that go on beside those of our list.
    more: Option<Arc<[HeaderName]>>,
    /// `None` for one that the client's must not be.
    ours: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl Onward {
    /// Begins with the client's head, but for what was for us or for one hop.
    pub fn new(mut theirs: HeaderMap) -> Self {
        headers::strip_named(&mut theirs);
        Self {
            theirs,
            more: None,
            ours: Vec::with_capacity(OURS),
        }
    }

    /// Lets go on, of the client's, what is named in `more` as well.
    #[must_use]
    pub fn with(mut self, more: Option<Arc<[HeaderName]>>) -> Self {
        self.more = more;
        self
    }

    /// Says `name` ourselves, once, whatever the client says.
    pub fn say(&mut self, name: HeaderName, value: HeaderValue) {
        self.ours.push((name, Some(value)));
    }

    /// Holds back what the client says as `name`.
    pub fn withhold(&mut self, name: HeaderName) {
        self.ours.push((name, None));
    }

    /// All of them, and `more` of ours, which stand first.
    pub fn iter<'a>(
        &'a self,
        more: &'a [(HeaderName, HeaderValue)],
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let more = more.iter().map(|(name, value)| (name, value));
        let ours = self.ours.iter();
        let ours = ours.filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
        let more_of_theirs = self.more.as_deref().unwrap_or_default();
        let theirs = self.theirs.iter().filter(move |(name, _)| {
            headers::goes_on(name, more_of_theirs) && !self.ours.iter().any(|(our, _)| our == *name)
        });
        more.chain(ours).chain(theirs)
    }

    /// All of them in a map.
    pub fn into_map(self) -> HeaderMap {
        let all = self.iter(&[]);
        all.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::tests::map;
    use super::*;

    #[test]
    fn credentials_and_hop_headers_do_not_reach_the_server() {
        let onward = Onward::new(map(&[
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("cookie", "a=b"),
            ("connection", "keep-alive, X-Private"),
            ("connection", "close"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-original-url", "/admin"),
            ("x-client-ip", "6.6.6.6"),
            ("cf-connecting-ip", "6.6.6.6"),
            ("via", "1.1 x"),
            ("content-type", "application/json"),
            ("x-stainless-lang", "python"),
            ("accept", "a"),
            ("accept", "b"),
        ]));
        let mut left: Vec<_> = onward.iter(&[]).map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["accept", "accept", "content-type", "x-stainless-lang"]
        );
    }

    #[test]
    fn what_is_between_the_client_and_us_does_not_go_on_even_where_it_is_named() {
        let named = ["authorization", "cookie", "transfer-encoding", "x-mine"];
        let pairs = named.map(|name| (name, "1"));
        let onward = Onward::new(map(&pairs)).with(Some(named.map(HeaderName::from_static).into()));
        let left: Vec<_> = onward.iter(&[]).map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["x-mine"]);
    }

    #[test]
    fn what_we_say_stands_once_and_what_we_withhold_never() {
        let mut onward = Onward::new(map(&[
            ("traceparent", "theirs"),
            ("traceparent", "theirs again"),
            ("tracestate", "theirs"),
            ("x-mine", "1"),
            ("x-other", "1"),
        ]))
        .with(Some([HeaderName::from_static("x-mine")].into()));
        let traceparent = HeaderName::from_static("traceparent");
        onward.say(traceparent, HeaderValue::from_static("ours"));
        onward.withhold(HeaderName::from_static("tracestate"));
        let more = [(
            HeaderName::from_static("host"),
            HeaderValue::from_static("h"),
        )];
        let all: Vec<_> = onward
            .iter(&more)
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            all,
            [("host", "h"), ("traceparent", "ours"), ("x-mine", "1")]
        );
        assert_eq!(onward.into_map().len(), 2);
    }
}
