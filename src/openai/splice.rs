//! The few edits that a request's body may need before a worker gets it.
//!
//! Owns the renaming of the model and the asking for stream usage. All other
//! bytes stay as the client wrote them: unknown fields, order, white space and
//! the spelling of numbers survive. A body that needs no edit is not copied.

use std::borrow::Borrow;
use std::ops::Range;

use bytes::Bytes;

use super::request::{Scan, StreamOptions};
use crate::pieces::Pieces;

/// A body in one piece up to this size is copied where it is edited.
const COPY_MAX: usize = 16 * 1024;

/// Spans of a body, each with the bytes to stand there instead. None overlaps another.
pub(super) type Patches = Vec<(Range<usize>, Vec<u8>)>;

/// Changes to a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'a> {
    /// The name under which the worker knows the model; none: as it came.
    pub model: Option<&'a str>,
    /// Ask for usage at the end of the stream. Has an effect only on requests
    /// that stream and have not asked already; see [`Scan::usage_was_asked`].
    ///
    /// vLLM 0.32 then sends one more event, which carries the usage and also
    /// the `system_fingerprint` that would stand in the last chunk otherwise;
    /// [`StreamTap`](super::sse::StreamTap) can cut that event out again.
    pub include_usage: bool,
    /// Ask for usage in every event too, as vLLM has it, whatever the client asked for.
    /// Has an effect only on requests that stream.
    pub continuous_usage: bool,
}

impl Edits<'_> {
    /// True if anything is to be asked of the stream of a request.
    fn asks(&self, scan: &Scan<'_>) -> bool {
        scan.stream && (self.continuous_usage || self.include_usage && !scan.usage_was_asked())
    }

    fn usage_asked(&self) -> &'static [u8] {
        if self.continuous_usage {
            br#"{"include_usage":true,"continuous_usage_stats":true}"#
        } else {
            br#"{"include_usage":true}"#
        }
    }
}

/// The body with `edits` made. `scan` must be the scan of this very body.
///
/// # Panics
///
/// Panics if `scan` was made of a body of another length.
pub fn splice(body: &Pieces, scan: &Scan<'_>, edits: Edits<'_>) -> Pieces {
    assert_eq!(body.len(), scan.layout.body_len, "scan of another body");
    let mut patches = Patches::new();
    if scan.layout.begin > 0 {
        patches.push((0..scan.layout.begin, Vec::new()));
    }
    if let Some(boundary) = &scan.layout.form {
        patch_form(boundary, scan, edits, &mut patches);
        return patched(body, patches);
    }
    let mut members: Vec<Vec<u8>> = Vec::new();
    if let Some(model) = edits.model
        && scan.model.as_deref() != Some(model)
    {
        let name = quoted(model);
        match &scan.layout.model {
            Some(old) => patches.push((old.clone(), name)),
            None => members.push([b"\"model\":", name.as_slice()].concat()),
        }
    }
    if edits.asks(scan) {
        let asked = edits.usage_asked();
        match (&scan.stream_options, &scan.layout.stream_options) {
            (Some(options), _) => patch_options(options, edits, &mut patches),
            (None, Some(null)) => patches.push((null.clone(), asked.to_vec())),
            (None, None) => members.push([b"\"stream_options\":", asked].concat()),
        }
    }
    if !members.is_empty() {
        let inside = scan.layout.inside;
        patches.push((inside..inside, joined(&members, scan.layout.is_empty)));
    }
    patched(body, patches)
}

/// The same edits in a form: values are replaced where they stand, and fields
/// that are missing come first.
fn patch_form(boundary: &str, scan: &Scan<'_>, edits: Edits<'_>, patches: &mut Patches) {
    let begin = scan.layout.begin;
    let mut set = |name: &str, place: Option<&Range<usize>>, value: &str| {
        patches.push(match place {
            Some(place) => (place.clone(), value.as_bytes().to_vec()),
            None => (
                begin..begin,
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                    .into_bytes(),
            ),
        });
    };
    if let Some(model) = edits.model
        && scan.model.as_deref() != Some(model)
    {
        set("model", scan.layout.model.as_ref(), model);
    }
    if edits.asks(scan)
        && let Some(options) = &scan.stream_options
    {
        let layout = &options.layout;
        if options.include_usage != Some(true) {
            set(
                "stream_include_usage",
                layout.include_usage.as_ref(),
                "true",
            );
        }
        if let Some(value) = options.continuous_to_say(edits) {
            let place = layout.continuous_usage_stats.as_ref();
            set("stream_continuous_usage_stats", place, value);
        }
    }
}

impl StreamOptions {
    /// Value that `continuous_usage_stats` must get; `None` where it may stay as it is.
    fn continuous_to_say(&self, edits: Edits<'_>) -> Option<&'static str> {
        match (edits.continuous_usage, self.continuous_usage_stats) {
            (true, Some(true)) | (false, Some(false) | None) => None,
            (true, Some(false) | None) => Some("true"),
            // Without include_usage this option does nothing in vLLM 0.32. It would come
            // alive now, and put usage into every event of a client who has none today.
            (false, Some(true)) => Some("false"),
        }
    }
}

fn patch_options(options: &StreamOptions, edits: Edits<'_>, patches: &mut Patches) {
    let layout = &options.layout;
    let include = (options.include_usage != Some(true)).then_some("true");
    let continuous = options.continuous_to_say(edits);
    let mut members: Vec<Vec<u8>> = Vec::new();
    for (name, span, value) in [
        ("include_usage", &layout.include_usage, include),
        (
            "continuous_usage_stats",
            &layout.continuous_usage_stats,
            continuous,
        ),
    ] {
        match (span, value) {
            (Some(span), Some(value)) => patches.push((span.clone(), value.as_bytes().to_vec())),
            (None, Some(value)) => members.push(format!("\"{name}\":{value}").into_bytes()),
            (_, None) => {}
        }
    }
    if !members.is_empty() {
        let inside = layout.inside;
        patches.push((inside..inside, joined(&members, layout.is_empty)));
    }
}

/// Members to stand first in an object, with the commas that they need.
pub(super) fn joined<M: Borrow<[u8]>>(members: &[M], into_empty: bool) -> Vec<u8> {
    let mut bytes = members.join(&b',');
    if !into_empty {
        bytes.push(b',');
    }
    bytes
}

/// A text as a JSON string, with its quotes.
pub(super) fn quoted(text: &str) -> Vec<u8> {
    // A string cannot fail to serialise into memory.
    serde_json::to_vec(text).unwrap_or_default()
}

/// The body with these patches.
pub(super) fn patched(body: &Pieces, mut patches: Patches) -> Pieces {
    if patches.is_empty() {
        return body.clone();
    }
    // What is put in stands before what is taken out at the same place.
    patches.sort_by_key(|(span, _)| (span.start, span.end));
    if let Some(whole) = body.as_one().filter(|whole| whole.len() <= COPY_MAX) {
        return copied(whole, &patches).into();
    }
    let mut out = Pieces::default();
    let mut from = 0;
    for (span, bytes) in patches {
        out.push_part(body, from..span.start);
        out.push(bytes.into());
        from = span.end;
    }
    out.push_part(body, from..body.len());
    out
}

/// A small body is one piece afterwards as well: a copy is less than what more pieces
/// cost on their way.
fn copied(body: &[u8], patches: &[(Range<usize>, Vec<u8>)]) -> Bytes {
    let added: usize = patches.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut from = 0;
    for (span, bytes) in patches {
        out.extend_from_slice(body.get(from..span.start).unwrap_or_default());
        out.extend_from_slice(bytes);
        from = span.end;
    }
    out.extend_from_slice(body.get(from..).unwrap_or_default());
    out.into()
}

#[cfg(test)]
pub(super) mod tests;
