//! Passing over a value whose bytes may come in pieces.
//!
//! Owns the structure of JSON, byte by byte, with a bound on its depth: what is passed
//! over is checked as strictly whether it came in one piece or in a thousand, and
//! nothing of it is kept.

use super::super::media::is_suspect;
use super::{DEPTH_MAX, Fault, closing_quote, ends_escaping, has_escape};

/// Progress of passing over a value.
#[derive(Clone, Debug)]
pub(in super::super) struct Skip {
    open: Nesting,
    /// Containers that it lies in.
    above: u32,
    state: State,
    is_suspect: bool,
}

/// Part of a document that comes next.
#[derive(Clone, Copy, Debug)]
enum State {
    Value,
    /// Behind the bracket of an array.
    ValueOrEnd,
    Key,
    /// Behind the brace of an object.
    KeyOrEnd,
    Colon,
    /// More of a string.
    Text {
        is_key: bool,
        /// True if its next byte is escaped by the last one.
        is_escaped: bool,
    },
    /// More of a word, of which so many bytes have come.
    Word(Word, u8),
    Number(Number),
    /// A value has ended.
    After,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    True,
    False,
    Null,
}

impl Word {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

/// Position in a number, as JSON spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Start,
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// With one byte more; `None` where it is no part of the number.
    fn with(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Start | Self::Minus, b'0') => Self::Zero,
            (Self::Start | Self::Minus | Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Start, b'-') => Self::Minus,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Self::ExponentDigits
            }
            _ => return None,
        })
    }

    /// Reads on; how many of the bytes belong to it.
    pub(super) fn read(mut self, bytes: &[u8]) -> (Self, usize) {
        for (count, byte) in bytes.iter().enumerate() {
            match self.with(*byte) {
                Some(next) => self = next,
                None => return (self, count),
            }
        }
        (self, bytes.len())
    }

    /// True if the number may end here.
    pub(super) fn is_whole(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits
        )
    }
}

impl Skip {
    /// Before a value, with its white space, in so many containers.
    pub(in super::super) fn new(above: u32) -> Self {
        Self {
            open: Nesting::default(),
            above,
            state: State::Value,
            is_suspect: false,
        }
    }

    /// True if the value has a key that may bring media or a template; also where a key lay in
    /// two pieces, of which only the end was seen.
    pub(in super::super) fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    /// Passes over `bytes`, which lie at `base` of the document. Returns how many of them
    /// belong to the value once it has ended; `None` where all do, and more may.
    pub(in super::super) fn feed(
        &mut self,
        bytes: &[u8],
        base: usize,
    ) -> Result<Option<usize>, Fault> {
        let (mut at, mut state) = (0, self.state);
        self.is_suspect |= matches!(state, State::Text { is_key: true, .. });
        loop {
            (at, state) = match state {
                State::Text { is_key, is_escaped } => {
                    let from = at + usize::from(is_escaped);
                    let rest = bytes.get(from..);
                    let end = rest.and_then(|rest| Some((rest, closing_quote(rest)?)));
                    let Some((rest, length)) = end else {
                        let is_escaped = rest.map_or(is_escaped, ends_escaping);
                        self.state = State::Text { is_key, is_escaped };
                        return Ok(None);
                    };
                    let behind = from + length + 1;
                    if is_key {
                        let key = rest.get(..length).unwrap_or_default();
                        self.is_suspect |= is_suspect(key, has_escape(rest, length));
                    }
                    match (is_key, bytes.get(behind)) {
                        // Mostly it stands right there.
                        (true, Some(b':')) => (behind + 1, State::Value),
                        (true, _) => (behind, State::Colon),
                        (false, _) => (behind, State::After),
                    }
                }
                State::Word(word, seen) => {
                    let expected = word.text().get(usize::from(seen));
                    match bytes.get(at) {
                        None => {
                            self.state = state;
                            return Ok(None);
                        }
                        found if found != expected => return self.fault(state, base + at),
                        _ if usize::from(seen) + 1 == word.text().len() => (at + 1, State::After),
                        _ => (at + 1, State::Word(word, seen + 1)),
                    }
                }
                State::Number(number) => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let (number, length) = number.read(rest);
                    if length == rest.len() {
                        self.state = State::Number(number);
                        return Ok(None);
                    } else if !number.is_whole() {
                        return self.fault(State::Number(number), base + at + length);
                    }
                    (at + length, State::After)
                }
                State::After if self.open.depth == 0 => {
                    self.state = state;
                    return Ok(Some(at));
                }
                _ => {
                    let Some(&byte) = bytes.get(at) else {
                        self.state = state;
                        return Ok(None);
                    };
                    let next = match byte {
                        b' ' | b'\n' | b'\r' | b'\t' => state,
                        _ => self.enter(state, byte, base + at)?,
                    };
                    (at + 1, next)
                }
            }
        }
    }

    /// Takes the byte that tells what comes, or that ends a container.
    #[inline]
    fn enter(&mut self, state: State, byte: u8, at: usize) -> Result<State, Fault> {
        Ok(match (state, byte) {
            (State::After, b',') if self.open.in_object() => State::Key,
            (State::After, b'}') if self.open.in_object() => self.leave(),
            (State::After, b']') if !self.open.in_object() => self.leave(),
            (State::Key | State::KeyOrEnd, b'"') => State::Text {
                is_key: true,
                is_escaped: false,
            },
            (State::KeyOrEnd, b'}') | (State::ValueOrEnd, b']') => self.leave(),
            (State::Colon, b':') | (State::After, b',') => State::Value,
            (State::Value | State::ValueOrEnd, b'"') => State::Text {
                is_key: false,
                is_escaped: false,
            },
            (State::Value | State::ValueOrEnd, b'{') => {
                self.open.push(true, self.above, at)?;
                State::KeyOrEnd
            }
            (State::Value | State::ValueOrEnd, b'[') => {
                self.open.push(false, self.above, at)?;
                State::ValueOrEnd
            }
            (State::Value | State::ValueOrEnd, b'-') => State::Number(Number::Minus),
            (State::Value | State::ValueOrEnd, b'0') => State::Number(Number::Zero),
            (State::Value | State::ValueOrEnd, b'1'..=b'9') => State::Number(Number::Whole),
            (State::Value | State::ValueOrEnd, b't') => State::Word(Word::True, 1),
            (State::Value | State::ValueOrEnd, b'f') => State::Word(Word::False, 1),
            (State::Value | State::ValueOrEnd, b'n') => State::Word(Word::Null, 1),
            _ => self.fault(state, at)?,
        })
    }

    fn leave(&mut self) -> State {
        self.open.pop();
        State::After
    }

    /// The document ends here, at `at`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] where the value does not.
    pub(in super::super) fn end(&self, at: usize) -> Result<(), Fault> {
        match self.state {
            State::Number(number) if number.is_whole() && self.open.depth == 0 => Ok(()),
            State::After if self.open.depth == 0 => Ok(()),
            _ => self.fault(self.state, at),
        }
    }

    /// Fault at `at`, with what should stand there instead.
    #[cold]
    fn fault<T>(&self, state: State, at: usize) -> Result<T, Fault> {
        let (at, expected) = match state {
            State::Value | State::ValueOrEnd => (at, "a value"),
            State::Key | State::KeyOrEnd => (at, "a key in double quotes"),
            State::Colon => (at, "':'"),
            State::Text { .. } => (at, "the end of a string"),
            State::Word(_, seen) => (at.saturating_sub(usize::from(seen)), "a value"),
            State::Number(number) if !number.is_whole() => (at, "a digit"),
            State::Number(_) | State::After if self.open.in_object() => (at, "',' or '}'"),
            State::Number(_) | State::After => (at, "',' or ']'"),
        };
        Err(Fault::Unexpected { at, expected })
    }
}

/// Containers that are open: one bit each, set for an object.
#[derive(Clone, Debug, Default)]
struct Nesting {
    objects: u128,
    depth: u32,
}

impl Nesting {
    fn push(&mut self, object: bool, above: u32, at: usize) -> Result<(), Fault> {
        if self.depth + above >= DEPTH_MAX {
            return Err(Fault::TooDeep { at });
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | u128::from(object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}
