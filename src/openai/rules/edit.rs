//! The walk over a body for the keys that rules want, and what is patched there.
//!
//! The body was scanned: it is one JSON object, and not too deep. Of each object with a
//! key that is wanted the members are passed over once, so that a body is walked at most
//! once more for each level of a dotted key.

use std::borrow::Cow;
use std::ops::Range;

use super::cursor::Cursor;
use super::plan::{Node, counts};
use super::{RULES_MAX, Rules};
use crate::openai::api::Api;
use crate::openai::request::{Scan, ScanError};
use crate::openai::splice::{Patches, joined, patched, quoted};
use crate::pieces::Pieces;

/// Patches for which there is room at once.
const PATCHES_USUAL: usize = 8;
/// Longest spelling of a number that is compared.
const NUMBER_BYTES_MAX: usize = 512;

impl Rules {
    /// The body of a request for a name with these rules, as a request for `of`, which
    /// the name stands for; and what a scan of it says. `scan` must be the scan of this
    /// very body.
    ///
    /// # Errors
    ///
    /// [`ScanError`] where a key with a rule is repeated, or its value is none that the
    /// rule can be kept with; or where the API has no place for parameters.
    pub fn apply(
        &self,
        api: Api,
        of: &str,
        body: &Pieces,
        scan: Scan<'_>,
    ) -> Result<(Pieces, Scan<'static>), ScanError> {
        if scan.layout.form.is_some() {
            let of = of.to_owned();
            return Err(ScanError::NoPlace { of });
        }
        let mut scan = Scan {
            model: None,
            ..scan
        }
        .into_owned();
        let mut edit = Edit::new(body, &mut scan);
        edit.follow(self.plan(api))?;
        if let Some(span) = &edit.scan.layout.model {
            edit.patches.push((span.clone(), quoted(of)));
        }
        let patches = edit.patches;
        let edited = made(body, &mut scan, patches);
        scan.model = Some(Cow::Owned(of.to_owned()));
        Ok((edited, scan))
    }

    /// The body without what these rules drop, what a scan of it says, and where in the old
    /// one the value stood that was dropped last. `scan` must be the scan of this very body.
    ///
    /// # Errors
    ///
    /// [`ScanError`] where a key with a rule is repeated.
    pub fn take_out(
        &self,
        api: Api,
        body: &Pieces,
        scan: Scan<'_>,
    ) -> Result<(Option<Range<usize>>, Pieces, Scan<'static>), ScanError> {
        let mut scan = scan.into_owned();
        if scan.layout.form.is_some() {
            return Ok((None, body.clone(), scan));
        }
        let mut edit = Edit::new(body, &mut scan);
        edit.follow(self.plan(api))?;
        let (patches, dropped) = (edit.patches, edit.dropped);
        let edited = made(body, &mut scan, patches);
        Ok((dropped, edited, scan))
    }
}

/// The body with these patches, of which `scan` is the scan then.
fn made(body: &Pieces, scan: &mut Scan<'_>, patches: Patches) -> Pieces {
    shift(scan, &patches);
    let edited = patched(body, patches);
    scan.layout.body_len = edited.len();
    edited
}

/// Moves what lies behind patches.
fn shift(scan: &mut Scan<'_>, patches: &Patches) {
    let moved = |at: &mut usize| {
        let (mut added, mut taken) = (0, 0);
        for (span, bytes) in patches {
            // What is put in at a place stands behind it.
            if span.end <= *at && span.start < *at {
                added += bytes.len();
                taken += span.len();
            }
        }
        *at = *at + added - taken;
    };
    let both = |span: &mut Range<usize>| {
        moved(&mut span.start);
        moved(&mut span.end);
    };
    let layout = &mut scan.layout;
    layout.model.iter_mut().for_each(both);
    layout.stream_options.iter_mut().for_each(both);
    if let Some(options) = &mut scan.stream_options {
        moved(&mut options.layout.inside);
        options.layout.include_usage.iter_mut().for_each(both);
        options
            .layout
            .continuous_usage_stats
            .iter_mut()
            .for_each(both);
    }
    if !scan.prompt.is_empty() {
        both(&mut scan.prompt);
    }
}

/// A body on its way through rules.
struct Edit<'a> {
    body: &'a Pieces,
    patches: Patches,
    /// Its counts follow.
    scan: &'a mut Scan<'static>,
    /// Place of the value that is dropped last.
    dropped: Option<Range<usize>>,
}

/// State of a wanted key in an object.
#[derive(Default)]
struct Seen {
    /// One bit for each of its names.
    names: u8,
    /// True once the key has a value, or is to have none.
    is_settled: bool,
    /// A null in place of a value, if it is not empty.
    null: Range<usize>,
    /// Number of its name.
    null_name: u8,
}

impl<'a> Edit<'a> {
    fn new(body: &'a Pieces, scan: &'a mut Scan<'static>) -> Self {
        Self {
            body,
            patches: Patches::with_capacity(PATCHES_USUAL),
            scan,
            dropped: None,
        }
    }

    /// Edits the whole body, as a plan says.
    fn follow(&mut self, plan: &[Node]) -> Result<(), ScanError> {
        if !plan.is_empty() {
            let inside = self.scan.layout.inside;
            self.scan.layout.is_empty = self.object(inside, plan, 1)?;
        }
        Ok(())
    }
}

impl Edit<'_> {
    /// Edits an object, behind whose brace `inside` is. True if it has no member then.
    fn object(&mut self, inside: usize, nodes: &[Node], level: u32) -> Result<bool, ScanError> {
        let mut cursor = Cursor::new(self.body, inside);
        let mut gone = Gone::default();
        // A rule has one node of an object at most.
        let mut seen: [Seen; RULES_MAX] = Default::default();
        let mut more = !cursor.eat(b'}');
        while more {
            let (key, wanted) = cursor.key(nodes, level)?;
            cursor.eat(b':');
            let value = self.value(&mut cursor, level)?;
            let mut drops = false;
            if let Some((at, name)) = wanted
                && let (Some(node), Some(seen)) = (nodes.get(at), seen.get_mut(at))
            {
                let bit = 1 << name;
                if seen.names & bit != 0 {
                    let key = node.place.clone().into();
                    return Err(ScanError::Duplicate { key });
                }
                seen.names |= bit;
                drops = self.member(node, (name, level), &value, seen)?;
            }
            gone.member(key.start..value.end, drops, &mut self.patches);
            more = cursor.eat(b',');
        }
        let members = self.missing(nodes, &seen, level);
        let is_empty = gone.end(&mut self.patches);
        if members.is_empty() {
            return Ok(is_empty);
        }
        let put_in = joined(&members, is_empty);
        self.patches.push((inside..inside, put_in));
        Ok(false)
    }

    /// Passes over a value: what the scan did not read, and what may be long, at once.
    fn value(&self, cursor: &mut Cursor<'_>, level: u32) -> Result<Range<usize>, ScanError> {
        if level == 1 {
            cursor.peek();
            let options = self.scan.layout.stream_options.as_ref();
            let known = [Some(&self.scan.prompt), options];
            for span in known.into_iter().flatten() {
                if span.start == cursor.at && !span.is_empty() {
                    cursor.go_to(span.end);
                    return Ok(span.clone());
                }
            }
        }
        cursor.value(level)
    }

    /// Edits a member. Whether it is to be taken out.
    fn member(
        &mut self,
        node: &Node,
        (name, level): (usize, u32),
        value: &Range<usize>,
        seen: &mut Seen,
    ) -> Result<bool, ScanError> {
        let begins = self.body.holding(value.start);
        let first = begins.0.get(value.start - begins.1).copied();
        let counted = node.names.get(name).filter(|_| level == 1);
        if node.acts.drop {
            self.dropped = Some(value.clone());
            seen.is_settled = true;
            self.count(counted, None);
            return Ok(true);
        }
        if let Some(put) = &node.acts.set {
            seen.is_settled = true;
            self.put(value, &put.text);
            self.count(counted, put.count);
            return Ok(false);
        }
        if first == Some(b'n') {
            if seen.null.is_empty() {
                seen.null = value.clone();
                seen.null_name = u8::try_from(name).unwrap_or_default();
            }
            return Ok(false);
        }
        seen.is_settled = true;
        if !node.inner.is_empty() {
            if first == Some(b'{') {
                self.object(value.start + 1, &node.inner, level + 1)?;
            } else if node.missing.is_some() {
                return Err(is_no(node, "an object or null"));
            }
            return Ok(false);
        }
        let Some(cap) = &node.acts.max else {
            return Ok(false);
        };
        let number = self.number(value, first);
        let number = number.ok_or_else(|| is_no(node, "a number or null"))?;
        // Some servers take a count below zero for no limit.
        if number > cap.value || number < 0.0 && counts(&node.place) {
            self.put(value, &cap.put.text);
            self.count(counted, cap.put.count);
        }
        Ok(false)
    }

    /// Puts in what is missing: in place of a null, or as members, which are returned.
    fn missing<'n>(&mut self, nodes: &'n [Node], seen: &[Seen], level: u32) -> Vec<&'n [u8]> {
        let mut members = Vec::new();
        let open = nodes.iter().zip(seen).filter(|(_, seen)| !seen.is_settled);
        for (node, seen) in open {
            let (Some(text), Some(member)) = (&node.missing, &node.member) else {
                continue;
            };
            let counted = if seen.null.is_empty() {
                members.push(member.as_bytes());
                node.names.first()
            } else {
                self.put(&seen.null, text);
                node.names.get(usize::from(seen.null_name))
            };
            self.count(counted.filter(|_| level == 1), node.count());
        }
        members
    }

    fn put(&mut self, span: &Range<usize>, text: &str) {
        self.patches.push((span.clone(), text.as_bytes().to_vec()));
    }

    /// A number, as it is written.
    fn number(&self, span: &Range<usize>, first: Option<u8>) -> Option<f64> {
        let is_number = matches!(first, Some(b'-' | b'0'..=b'9'));
        if !is_number || span.len() > NUMBER_BYTES_MAX {
            return None;
        }
        let (piece, begin) = self.body.holding(span.start);
        let here = piece.get(span.start - begin..span.end - begin);
        let text = match here {
            Some(here) => Cow::Borrowed(here),
            None => Cow::Owned(self.body.part(span.clone()).into_one().to_vec()),
        };
        std::str::from_utf8(&text).ok()?.parse().ok()
    }

    /// Keeps what the scan found of a count.
    fn count(&mut self, name: Option<&String>, count: Option<u64>) {
        let place = match name.map(String::as_str) {
            Some("max_tokens") => &mut self.scan.max_tokens,
            Some("max_completion_tokens") => &mut self.scan.max_completion_tokens,
            Some("max_output_tokens") => &mut self.scan.max_output_tokens,
            Some("n") => &mut self.scan.n,
            _ => return,
        };
        *place = count;
    }
}

fn is_no(node: &Node, expected: &'static str) -> ScanError {
    let key = node.place.clone().into();
    ScanError::Field { key, expected }
}

/// Members of one object that are taken out, each with one comma.
#[derive(Default)]
struct Gone {
    /// Begin of the last members that are taken out together.
    from: Option<usize>,
    /// End of the last member that stays.
    stays: Option<usize>,
    end: usize,
}

impl Gone {
    fn member(&mut self, span: Range<usize>, drops: bool, patches: &mut Patches) {
        self.end = span.end;
        if drops {
            self.from.get_or_insert(span.start);
            return;
        }
        if let Some(from) = self.from.take() {
            patches.push((from..span.start, Vec::new()));
        }
        self.stays = Some(span.end);
    }

    /// True if no member is left.
    fn end(self, patches: &mut Patches) -> bool {
        if let Some(from) = self.from {
            let from = self.stays.unwrap_or(from);
            patches.push((from..self.end, Vec::new()));
        }
        self.stays.is_none()
    }
}
