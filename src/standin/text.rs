//! Texts of the stand-in, which prompt and seed determine.
//!
//! Owns the vocabulary (one word and a space is one token), the length of an
//! answer, and where stop strings cut it. Pure: it knows no time and no HTTP.

use std::borrow::Cow;
use std::sync::Arc;

use super::tokens::{self, TOKEN_BYTES_MAX};
use crate::random::spread;

/// Words of three letters; with the space after it each is one whole token.
const WORDS: [&str; 64] = [
    "the ", "sea ", "was ", "low ", "and ", "all ", "ten ", "men ", "saw ", "sun ", "far ", "off ",
    "for ", "one ", "day ", "our ", "old ", "dog ", "ran ", "out ", "ice ", "hit ", "bay ", "ebb ",
    "tow ", "oar ", "rod ", "net ", "cod ", "eel ", "jar ", "jet ", "key ", "kit ", "lid ", "log ",
    "map ", "mud ", "new ", "nut ", "oak ", "oil ", "pan ", "pen ", "pie ", "pot ", "raw ", "red ",
    "rim ", "rob ", "row ", "rug ", "sad ", "set ", "six ", "sky ", "tan ", "tar ", "tea ", "tie ",
    "two ", "van ", "web ", "zoo ",
];

/// Output of weights that were never loaded again.
const GARBAGE: [&str; 8] = [
    "#%~!", "!!!!", "}{][", "????", ";;)(", "@@^^", "<|<|", "**&&",
];

/// Tokens of the shortest answer that ends by itself.
const NATURAL_TOKENS_MIN: u64 = 8;
/// Different lengths of answers that end by themselves.
const NATURAL_TOKENS_SPREAD: u64 = 17;

/// Reason for which a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// By itself, or at a stop string.
    Stop,
    /// At the number of tokens that was asked for.
    Length,
    /// By an abort from outside.
    Abort,
}

impl Finish {
    /// The word of vLLM.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
        }
    }
}

/// Bounds of a text.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Most tokens.
    pub(super) tokens_max: u32,
    /// Fewest tokens, where it would end by itself.
    pub(super) tokens_min: u32,
    /// True if it goes on to the most tokens.
    pub(super) ignore_eos: bool,
    /// Texts that end it, themselves left out.
    pub(super) stop: Vec<String>,
}

/// Source of the pieces.
#[derive(Clone, Debug)]
enum Source {
    /// Words chosen by this number.
    Words(u64),
    /// Garbage chosen by this number.
    Garbage(u64),
    /// A given text.
    Given(Arc<str>),
}

/// One text to be said, known in full before its first token is.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    source: Source,
    /// Bytes before the stop string, if one was met.
    cut: Option<usize>,
    /// Number of its tokens.
    pub(super) tokens: u32,
    /// Reason for which it ends.
    pub(super) finish: Finish,
    /// The stop string that ended it.
    pub(super) stopped_by: Option<String>,
}

impl Sequence {
    /// A text of words. `number` decides which.
    pub(super) fn words(number: u64, garbage: bool, bounds: &Bounds) -> Self {
        let natural = NATURAL_TOKENS_MIN + spread(number) % NATURAL_TOKENS_SPREAD;
        let natural = u32::try_from(natural).unwrap_or(0).max(bounds.tokens_min);
        let (tokens, finish) = if bounds.ignore_eos || natural > bounds.tokens_max {
            (bounds.tokens_max, Finish::Length)
        } else {
            (natural, Finish::Stop)
        };
        let source = if garbage {
            Source::Garbage(number)
        } else {
            Source::Words(number)
        };
        Self::bounded(source, tokens, finish, &bounds.stop)
    }

    /// A given text, cut at the most tokens.
    pub(super) fn given(text: &str, bounds: &Bounds) -> Self {
        let whole = tokens::count(text);
        let (tokens, finish) = if whole > bounds.tokens_max {
            (bounds.tokens_max, Finish::Length)
        } else {
            (whole, Finish::Stop)
        };
        Self::bounded(Source::Given(Arc::from(text)), tokens, finish, &[])
    }

    fn bounded(source: Source, tokens: u32, finish: Finish, stop: &[String]) -> Self {
        let mut sequence = Self {
            source,
            cut: None,
            tokens,
            finish,
            stopped_by: None,
        };
        if stop.iter().all(String::is_empty) {
            return sequence;
        }
        let text = sequence.text(tokens);
        let first = stop
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| text.find(stop).map(|at| (at, stop)))
            .min_by_key(|(at, _)| *at);
        if let Some((at, stop)) = first {
            let end = (at + stop.len()).div_ceil(TOKEN_BYTES_MAX);
            sequence.tokens = u32::try_from(end).unwrap_or(tokens).min(tokens);
            sequence.cut = Some(at);
            sequence.finish = Finish::Stop;
            sequence.stopped_by = Some(stop.clone());
        }
        sequence
    }

    /// The text of the token at `index`; empty past a stop string.
    pub(super) fn piece(&self, index: u32) -> Cow<'_, str> {
        let piece = match &self.source {
            Source::Words(number) => Cow::Borrowed(choose(&WORDS, *number, index)),
            Source::Garbage(number) => Cow::Borrowed(choose(&GARBAGE, *number, index)),
            Source::Given(text) => Cow::Owned(
                tokens::pieces(text)
                    .nth(usize::try_from(index).unwrap_or(usize::MAX))
                    .unwrap_or_default()
                    .to_owned(),
            ),
        };
        let Some(cut) = self.cut else {
            return piece;
        };
        // Only words are cut, and every word fills its token.
        let start = usize::try_from(index).unwrap_or(usize::MAX) * TOKEN_BYTES_MAX;
        let keep = cut.saturating_sub(start).min(piece.len());
        Cow::Owned(piece.get(..keep).unwrap_or_default().to_owned())
    }

    /// The text of the first `tokens` tokens.
    pub(super) fn text(&self, tokens: u32) -> String {
        if let Source::Given(text) = &self.source {
            let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
            return tokens::pieces(text).take(tokens).collect();
        }
        (0..tokens).map(|index| self.piece(index)).collect()
    }
}

fn choose(words: &'static [&'static str], number: u64, index: u32) -> &'static str {
    let at = spread(number.wrapping_add(u64::from(index) << 8)) % words.len() as u64;
    usize::try_from(at)
        .ok()
        .and_then(|at| words.get(at))
        .unwrap_or(&"")
}

/// A number for a text (FNV-1a), the same in every process.
pub(super) fn number_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(tokens_max: u32, ignore_eos: bool, stop: &[&str]) -> Bounds {
        Bounds {
            tokens_max,
            tokens_min: 0,
            ignore_eos,
            stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
        }
    }

    #[test]
    fn a_text_is_counted_as_it_was_made() {
        for number in 0..50 {
            for ignore_eos in [true, false] {
                let sequence = Sequence::words(number, false, &bounds(12, ignore_eos, &[]));
                let text = sequence.text(sequence.tokens);
                assert_eq!(tokens::count(&text), sequence.tokens, "{text:?}");
            }
        }
    }

    #[test]
    fn an_answer_ends_by_itself_unless_told_otherwise() {
        let natural = Sequence::words(1, false, &bounds(4000, false, &[]));
        assert_eq!(natural.finish, Finish::Stop);
        assert!((8..=24).contains(&natural.tokens));
        let long = Sequence::words(1, false, &bounds(4000, true, &[]));
        assert_eq!((long.tokens, long.finish), (4000, Finish::Length));
        let short = Sequence::words(1, false, &bounds(3, false, &[]));
        assert_eq!((short.tokens, short.finish), (3, Finish::Length));
    }

    #[test]
    fn a_stop_string_is_left_out_and_named() {
        let whole = Sequence::words(5, false, &bounds(20, true, &[]));
        let text = whole.text(20);
        let stop = text.get(10..13).unwrap();
        let at = text.find(stop).unwrap();
        let cut = Sequence::words(5, false, &bounds(20, true, &["absent", stop]));
        assert_eq!(cut.text(cut.tokens), text.get(..at).unwrap());
        assert_eq!(cut.finish, Finish::Stop);
        assert_eq!(cut.stopped_by.as_deref(), Some(stop));
        assert_eq!(cut.tokens as usize, (at + stop.len()).div_ceil(4));
    }

    #[test]
    fn pieces_add_up_to_the_text() {
        let given = Sequence::given(r#"{"größe":"klein"}"#, &bounds(100, false, &[]));
        let joined: String = (0..given.tokens).map(|i| given.piece(i)).collect();
        assert_eq!(joined, r#"{"größe":"klein"}"#);
    }
}
