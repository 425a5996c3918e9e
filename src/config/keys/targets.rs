//! The keys of lists: `[[target]]` and `[route.targets]`.

use super::{
    Default, Form, Key, KeyTable, Kind, LIMIT, NONE, choice, is, number, span, table, text, unset,
    whole,
};

const CALLED: Form = Form::new("a name without *", "cloud")
    .pattern("^[^\\s\"\\\\*]+$")
    .chars_max(256);

/// The words of `when`.
pub(in crate::config) const WHEN: [&str; 5] =
    ["unreachable", "502", "503", "model_failed", "too_long"];

pub(super) static TARGETS: KeyTable = KeyTable {
    help: "How one of [[target]] is chosen.",
    keys: &[
        choice(
            "prefer",
            &["order", "awake", "weight"],
            is("\"order\""),
            "Who is asked first: by their order; who serves already, as servers of others do, then by their order; or by weight.",
        ),
        choice(
            "sticky",
            &["token", "session"],
            unset("each request by itself"),
            "By weight: requests of one token, or with one value of load_balancing.session_header, stay with one target.",
        ),
        table("mirror", &MIRROR),
    ],
};

static MIRROR: KeyTable = KeyTable {
    help: "Copies of requests that a target began to answer; their answers are dropped, and their tokens are nobody's.",
    keys: &[
        text(
            "to",
            &CALLED,
            Default::Required,
            "A model behind the route, or the name of upstreams of this file, which need be no target. A model that sleeps or is full is not woken or waited for: that copy is left out and counted. Copies keep one awake, as all requests do.",
        ),
        number(
            "share",
            (0.0001, 1.0),
            is("1.0"),
            "How much of the requests is copied; none of those that it answers itself, nor responses that are stored.",
        ),
    ],
};

pub(super) static TARGET: KeyTable = KeyTable {
    help: "One of the list that the route's names lead to; in the order of the file.",
    keys: &[
        text(
            "to",
            &CALLED,
            Default::Required,
            "A model behind the route, or the name of upstreams of this file.",
        ),
        span(
            "can_in",
            LIMIT,
            unset("however long it takes"),
            "Time within which it has to be able to answer, as far as that is known; else it is asked after the others.",
        ),
        whole(
            "weight",
            (0, 1_000_000),
            is("1"),
            "Its share of the requests, with prefer = \"weight\"; 0 for only where the others fail.",
        ),
        Key::new(
            "when",
            Kind::Choices(&WHEN),
            is("[\"unreachable\", \"502\", \"503\", \"model_failed\", \"too_long\"]"),
            "After what of it the next one is asked, before a byte of an answer; \"503\": or it has no place.",
        ),
    ],
};

/// The name of upstreams.
pub(super) const UPSTREAMS: Key = text(
    "name",
    &CALLED,
    NONE,
    "Name of one or more upstreams, for [[target]].",
);
