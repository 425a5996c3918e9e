//! Frames of the `WebSocket` protocol (RFC 6455), as far as a gateway reads them.
//!
//! Owns the cutting of bytes into frames and the joining of frames into messages,
//! within bounds, and the few frames that the gateway writes itself. Pure: bytes
//! in, pieces out. Knows no extensions: none is ever agreed on.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};

/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// Heads of the frames of one message, all together.
const HEADS_BYTES_MAX: usize = 64 * 1024;

/// Side whose frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client's: masked.
    Client,
    /// A server's: not masked.
    Server,
}

/// Cuts what one side sends into pieces.
#[derive(Debug)]
pub struct Reader {
    side: Side,
    max: usize,
    /// Bytes that have arrived and were not read.
    pub input: BytesMut,
    /// The frames of the message at hand, as they came.
    raw: BytesMut,
    payload: Vec<u8>,
    is_text: Option<bool>,
}

/// One thing that a side said.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A ping, as it came, and what it says.
    Ping(Bytes, Vec<u8>),
    /// A pong, as it came.
    Pong(Bytes),
    /// The end, as it came, with its code.
    Close(Bytes, Option<u16>),
    /// A whole message.
    Message {
        /// Its frames, as they came.
        raw: Bytes,
        /// Their payload, unmasked.
        payload: Vec<u8>,
        /// True if it is text.
        is_text: bool,
    },
}

/// Reason for which a side is not listened to any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The side does not keep to the protocol.
    Protocol,
    /// Its message is too long.
    TooLong,
}

impl Piece {
    /// Number of bytes that the piece takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Ping(raw, _) | Self::Pong(raw) | Self::Close(raw, _) => raw.len(),
            Self::Message { raw, payload, .. } => raw.len() + payload.len(),
        }
    }
}

impl Broken {
    /// The code that closes the connection.
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::TooLong => 1009,
        }
    }
}

/// The head of a frame.
struct Head {
    bytes: usize,
    fin: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    length: usize,
}

impl Reader {
    /// Reader for messages of at most `max` bytes.
    pub fn new(side: Side, max: usize) -> Self {
        Self {
            side,
            max,
            input: BytesMut::new(),
            raw: BytesMut::new(),
            payload: Vec::new(),
            is_text: None,
        }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.input.len() + self.raw.len() + self.payload.len()
    }

    /// Takes longer messages from now on.
    pub fn allow(&mut self, max: usize) {
        self.max = max;
    }

    /// The next piece that is there whole.
    ///
    /// # Errors
    ///
    /// [`Broken`] where nothing more can be read.
    pub fn piece(&mut self) -> Result<Option<Piece>, Broken> {
        loop {
            let Some(head) = self.head()? else {
                return Ok(None);
            };
            if self.input.len() < head.bytes + head.length {
                return Ok(None);
            }
            let frame = self.input.split_to(head.bytes + head.length);
            let mut payload = frame.get(head.bytes..).unwrap_or_default().to_vec();
            if let Some(key) = head.mask {
                mask(&mut payload, key);
            }
            if head.opcode >= 8 {
                return control(&head, frame.freeze(), &payload).map(Some);
            }
            if let Some(whole) = self.add(&head, &frame, payload)? {
                return Ok(Some(whole));
            }
        }
    }

    /// Reads the head of the next frame, without taking it.
    fn head(&self) -> Result<Option<Head>, Broken> {
        let mut rest = &self.input[..];
        let (Some(first), Some(second)) = (rest.first().copied(), rest.get(1).copied()) else {
            return Ok(None);
        };
        rest.advance(2);
        let (fin, opcode, is_masked) = (first & 0x80 != 0, first & 0x0F, second & 0x80 != 0);
        let length = match second & 0x7F {
            126 if rest.len() >= 2 => u64::from(rest.get_u16()),
            127 if rest.len() >= 8 => rest.get_u64(),
            126 | 127 => return Ok(None),
            short => u64::from(short),
        };
        let is_control = opcode >= 8;
        let is_known = matches!(opcode, 0..=2 | 8..=10);
        let is_odd_control = is_control && (!fin || length > CONTROL_BYTES_MAX as u64);
        let continues = opcode == 0 && self.is_text.is_none();
        let interrupts = matches!(opcode, 1 | 2) && self.is_text.is_some();
        let is_wrong_mask = is_masked != (self.side == Side::Client);
        if first & 0x70 != 0
            || !is_known
            || is_odd_control
            || continues
            || interrupts
            || is_wrong_mask
        {
            return Err(Broken::Protocol);
        }
        let length = usize::try_from(length).map_err(|_| Broken::TooLong)?;
        if !is_control && self.payload.len().saturating_add(length) > self.max {
            return Err(Broken::TooLong);
        }
        let mut key = None;
        if is_masked {
            if rest.len() < 4 {
                return Ok(None);
            }
            key = Some(rest.get_u32().to_be_bytes());
        }
        Ok(Some(Head {
            bytes: self.input.len() - rest.len(),
            fin,
            opcode,
            mask: key,
            length,
        }))
    }

    /// Adds a frame to the message at hand; returns it once it is whole.
    fn add(
        &mut self,
        head: &Head,
        frame: &[u8],
        payload: Vec<u8>,
    ) -> Result<Option<Piece>, Broken> {
        if self.raw.len() + frame.len() > self.max + HEADS_BYTES_MAX {
            return Err(Broken::TooLong);
        }
        self.raw.extend_from_slice(frame);
        if self.payload.is_empty() {
            self.payload = payload;
        } else {
            self.payload.extend_from_slice(&payload);
        }
        let is_text = *self.is_text.get_or_insert(head.opcode == 1);
        if !head.fin {
            return Ok(None);
        }
        self.is_text = None;
        Ok(Some(Piece::Message {
            raw: self.raw.split().freeze(),
            payload: std::mem::take(&mut self.payload),
            is_text,
        }))
    }
}

fn control(head: &Head, raw: Bytes, payload: &[u8]) -> Result<Piece, Broken> {
    match head.opcode {
        9 => return Ok(Piece::Ping(raw, payload.to_vec())),
        10 => return Ok(Piece::Pong(raw)),
        _ => {}
    }
    match payload {
        [] => Ok(Piece::Close(raw, None)),
        [_] => Err(Broken::Protocol),
        [high, low, ..] => Ok(Piece::Close(raw, Some(u16::from_be_bytes([*high, *low])))),
    }
}

fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A text message in one frame, as `side` sends it.
pub fn text(side: Side, payload: &[u8]) -> Bytes {
    frame(side, 1, payload)
}

/// The answer to a ping, as a server sends it.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(Side::Server, 10, payload)
}

/// A closing frame, as `side` sends it.
pub fn close(side: Side, code: u16, reason: &str) -> Bytes {
    let mut payload = code.to_be_bytes().to_vec();
    let room = CONTROL_BYTES_MAX - payload.len();
    let cut = (0..=room.min(reason.len()))
        .rev()
        .find(|&at| reason.is_char_boundary(at));
    payload.extend_from_slice(
        reason
            .get(..cut.unwrap_or(0))
            .unwrap_or_default()
            .as_bytes(),
    );
    frame(side, 8, &payload)
}

fn frame(side: Side, opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(0x80 | opcode);
    let bit = if side == Side::Client { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => out.push(bit | short),
        (_, Ok(length)) => {
            out.push(bit | 0x7E);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(bit | 0x7F);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    if side == Side::Server {
        out.extend_from_slice(payload);
        return out.into();
    }
    let [a, b, c, d, ..] = RandomState::new().hash_one(payload.len()).to_be_bytes();
    let key = [a, b, c, d];
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(payload) = out.get_mut(start..) {
        mask(payload, key);
    }
    out.into()
}

/// A new key for the opening of a connection.
pub fn new_key() -> String {
    let half = |n: u8| RandomState::new().hash_one(n).to_be_bytes();
    STANDARD.encode([half(0), half(1)].concat())
}

/// True if a key is one: 16 bytes in base64.
pub fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Answer of the server to a key.
pub fn accept(key: &str) -> String {
    const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let both = [key, MAGIC].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, both.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz;

    fn all(side: Side, max: usize, bytes: &[u8]) -> Result<Vec<Piece>, Broken> {
        let mut reader = Reader::new(side, max);
        reader.input.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(piece) = reader.piece()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    #[test]
    fn the_example_of_the_standard_is_answered_as_it_says() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ==") && is_key(&new_key()));
        assert!(!is_key("") && !is_key("abc") && !is_key("dGhlIHNhbXBsZSBub25j"));
        assert_ne!(new_key(), new_key());
    }

    #[test]
    fn frames_of_the_standard_are_read() {
        // RFC 6455, section 5.7.
        let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        let message = |raw: &[u8]| Piece::Message {
            raw: Bytes::copy_from_slice(raw),
            payload: b"Hello".to_vec(),
            is_text: true,
        };
        assert_eq!(all(Side::Client, 99, hello), Ok(vec![message(hello)]));
        let parts = b"\x01\x03Hel\x89\x00\x80\x02lo\x88\x02\x03\xe8";
        let ping = Piece::Ping(Bytes::from_static(b"\x89\x00"), Vec::new());
        let close = Piece::Close(Bytes::from_static(b"\x88\x02\x03\xe8"), Some(1000));
        let whole = message(b"\x01\x03Hel\x80\x02lo");
        assert_eq!(all(Side::Server, 99, parts), Ok(vec![ping, whole, close]));
    }

    #[test]
    fn what_breaks_the_protocol_or_a_bound_is_refused() {
        for (side, bytes, why) in [
            (
                Side::Server,
                &b"\x81\x85\0\0\0\0Hello"[..],
                Broken::Protocol,
            ),
            (Side::Client, b"\x81\x05Hello", Broken::Protocol),
            (Side::Server, b"\xc1\x05Hello", Broken::Protocol),
            (Side::Server, b"\x83\x00", Broken::Protocol),
            (Side::Server, b"\x80\x00", Broken::Protocol),
            (Side::Server, b"\x01\x00\x01\x00", Broken::Protocol),
            (Side::Server, b"\x09\x00", Broken::Protocol),
            (Side::Server, b"\x89\x7e\x00\x80", Broken::Protocol),
            (Side::Server, b"\x88\x01x", Broken::Protocol),
            (Side::Server, b"\x81\x0b", Broken::TooLong),
            (
                Side::Server,
                b"\x01\x08abcdefgh\x80\x03abc",
                Broken::TooLong,
            ),
            (
                Side::Server,
                b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
                Broken::TooLong,
            ),
        ] {
            assert_eq!(all(side, 10, bytes), Err(why), "{bytes:x?}");
        }
        let mut empty = b"\x01\x00".to_vec();
        empty.extend(b"\x00\x00".repeat(100_000));
        assert_eq!(all(Side::Server, 10, &empty), Err(Broken::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_arrives(
            text_of in proptest::collection::vec(any::<u8>(), 0..70_000),
            from_client in any::<bool>(),
            cut in 1_usize..40_000,
        ) {
            let side = if from_client { Side::Client } else { Side::Server };
            let written = text(side, &text_of);
            let mut reader = Reader::new(side, 70_000);
            let mut found = Vec::new();
            for piece in written.chunks(cut) {
                reader.input.extend_from_slice(piece);
                while let Some(piece) = reader.piece().unwrap() {
                    found.push(piece);
                }
            }
            prop_assert_eq!(found, vec![Piece::Message { raw: written, payload: text_of, is_text: true }]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(all(Side::Client, 100, &bytes));
            drop(all(Side::Server, 100, &bytes));
            drop(close(Side::Client, 1011, &"ä".repeat(bytes.len())));
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_web_socket(
            bytes in fuzz::damaged(
                &[
                    &b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x88\x80\0\0\0\0"[..],
                    b"\x01\x03Hel\x89\x00\x80\x02lo\x88\x02\x03\xe8",
                    b"\x82\x7e\x01\x00",
                    &[&b"\x82\x7e\x01\x00"[..], &[7; 256], b"\x8a\x01x"].concat(),
                ],
                &["\0", "~\0~", "\u{7f}\0\0\0\0\0\u{1}\0\0", "\u{1}\u{1}a", "\0\u{1}b", "\u{8}\u{0}"],
            ),
            cuts in fuzz::cuts(),
            from_client: bool,
        ) {
            let side = if from_client { Side::Client } else { Side::Server };
            let mut reader = Reader::new(side, 200);
            let mut found = Ok(Vec::new());
            for piece in fuzz::pieces(&bytes, &cuts) {
                reader.input.extend_from_slice(piece);
                while let Ok(pieces) = &mut found {
                    match reader.piece() {
                        Ok(Some(piece)) => pieces.push(piece),
                        Ok(None) => break,
                        Err(broken) => found = Err(broken),
                    }
                }
            }
            let whole = all(side, 200, &bytes);
            prop_assert_eq!(&found, &whole);
            for piece in whole.into_iter().flatten() {
                let bytes = piece.bytes();
                prop_assert!(bytes <= 2 * 200 + HEADS_BYTES_MAX + CONTROL_BYTES_MAX, "{}", bytes);
                if let Piece::Message { payload, .. } = piece {
                    prop_assert!(payload.len() <= 200);
                }
            }
        }
    }
}
