//! Lines of an HTTP/1.1 head end with CR LF, and with nothing else.
//!
//! hyper takes a bare LF for the end of a line too. A proxy before us may not:
//! what it passed on as one header would be two here, and the second could frame
//! the body anew. This follows heads and bodies as they pass, and turns a bare LF
//! within a head into a byte that hyper refuses with 400. So it does with `#` in a
//! target, from which on hyper would leave it out, and with control characters in the
//! lines of chunks, which hyper passes over. It judges nothing else.
//!
//! hyper does not look at a head that came in pieces before it sees its end, which
//! may never come where a line end was spoiled: so the head ends there, and with it
//! what is read of the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::through::writes_through;

/// Bytes of a line that are kept to recognise it: more than the longest length.
const LINE_BYTES_MAX: usize = 64;
/// Bytes that follow a spoiled line end: the end of its head.
const END: &[u8] = b"\r\n\r\n";

/// A stream of requests whose heads are strict.
#[derive(Debug)]
pub struct Lines<S> {
    inner: S,
    walk: Walk,
    /// Once a line was spoiled: what is still to be read.
    end: Option<&'static [u8]>,
}

impl<S> Lines<S> {
    /// `inner` begins with a request.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            walk: Walk::default(),
            end: None,
        }
    }
}

/// Position of a connection in its requests.
#[derive(Debug, Default)]
struct Walk {
    /// Bytes of a body that are still to come.
    body: u64,
    /// Extent to which the requests are followed.
    follow: Follow,
    /// The begin of the line at hand.
    line: Vec<u8>,
    /// True if the byte before was CR.
    after_cr: bool,
    /// True once a line of this head has been read.
    within: bool,
    /// Length of the body, as the head says it.
    length: u64,
    /// True while the lines at hand are those of chunks.
    in_chunks: bool,
}

/// Extent to which the requests of a connection are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Follow {
    #[default]
    All,
    /// The request of this head is the last.
    ThisHead,
    /// The same, and its body comes in chunks.
    ThisBody,
    Nothing,
}

impl Walk {
    /// Goes over bytes that came, and spoils a bare LF in a head. Returns how many
    /// bytes end with it, if there was one; those after it belong to no request.
    fn go(&mut self, mut bytes: &mut [u8]) -> Option<usize> {
        let length = bytes.len();
        while self.follow != Follow::Nothing && !bytes.is_empty() {
            if self.body > 0 {
                let step = bytes
                    .len()
                    .min(usize::try_from(self.body).unwrap_or(usize::MAX));
                self.body -= step as u64;
                bytes = bytes.get_mut(step..).unwrap_or_default();
                continue;
            }
            let (end, before) = (memchr::memchr(b'\n', bytes), length - bytes.len());
            let (line, rest) = bytes.split_at_mut(end.map_or(bytes.len(), |end| end + 1));
            if let Some(kept) = self.take(line, end.is_some()) {
                return Some(before + kept);
            }
            bytes = rest;
        }
        None
    }

    /// Takes a piece of a line; `ends`: its last byte is LF. Where it was spoiled, how
    /// many of its bytes end with that one.
    fn take(&mut self, piece: &mut [u8], ends: bool) -> Option<usize> {
        let text = piece.len() - usize::from(ends);
        let (before, feed) = piece.split_at_mut(text);
        if let Some((at, bad)) = self.bad(before) {
            // As a line feed it is refused in the line of a chunk, and as NUL elsewhere.
            *bad = if self.in_chunks { b'\n' } else { 0 };
            self.follow = Follow::Nothing;
            return Some(at + 1);
        }
        if let Some(last) = before.last() {
            self.after_cr = *last == b'\r';
        }
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line
            .extend_from_slice(before.get(..room.min(text)).unwrap_or_default());
        let [feed] = feed else { return None };
        if !self.after_cr {
            // hyper refuses a bare LF there by itself.
            *feed = if self.in_chunks { b'\n' } else { 0 };
            self.follow = Follow::Nothing;
            return (!self.in_chunks).then_some(text + 1);
        }
        self.after_cr = false;
        self.end_line();
        None
    }

    /// Position of a byte that must not stand in the piece of a line, and that byte.
    fn bad<'a>(&self, piece: &'a mut [u8]) -> Option<(usize, &'a mut u8)> {
        let at = if self.in_chunks {
            let is_control = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r');
            piece.iter().position(is_control)
        } else if self.within {
            None
        } else {
            memchr::memchr(b'#', piece)
        };
        let at = at?;
        piece.get_mut(at).map(|byte| (at, byte))
    }

    /// Behind the line of a chunk. Trailers are not followed.
    fn end_chunk_line(&mut self) {
        let digits = self.line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let digits = self.line.get(..digits.count()).unwrap_or_default();
        let size = std::str::from_utf8(digits).unwrap_or_default();
        match u64::from_str_radix(size, 16) {
            // With the line break behind it.
            Ok(size) if size > 0 => self.body = size.saturating_add(2),
            // What is no size is refused.
            _ => self.follow = Follow::Nothing,
        }
    }

    fn end_line(&mut self) {
        if self.in_chunks {
            self.end_chunk_line();
            self.line.clear();
            return;
        }
        let is_empty = self.line == b"\r" || self.line.is_empty();
        if is_empty && self.within {
            self.body = std::mem::take(&mut self.length);
            self.within = false;
            match self.follow {
                Follow::ThisHead => self.follow = Follow::Nothing,
                Follow::ThisBody => (self.in_chunks, self.body) = (true, 0),
                Follow::All | Follow::Nothing => {}
            }
        } else if !is_empty {
            self.within = true;
            let value = |name: &str| {
                let (head, value) = self.line.split_at_checked(name.len())?;
                head.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
            };
            if let Some(value) = value("content-length:") {
                let text = std::str::from_utf8(value).unwrap_or_default();
                // What is no length is refused, and ends the connection.
                self.length = text.trim().parse().unwrap_or(0);
            } else if value("upgrade:").is_some() {
                // It ends the connection's HTTP.
                self.follow = Follow::ThisHead;
            } else if value("transfer-encoding:").is_some() && self.follow == Follow::All {
                // It ends the connection.
                self.follow = Follow::ThisBody;
            }
        }
        self.line.clear();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lines<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(end) = &mut this.end {
            let (now, later) = end.split_at(end.len().min(buf.remaining()));
            buf.put_slice(now);
            *end = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let came = buf.filled_mut().get_mut(before..).unwrap_or_default();
        if let Some(length) = this.walk.go(came) {
            buf.set_filled(before + length);
            this.end = Some(END);
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Lines);

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::fuzz;
    use proptest::prelude::*;

    /// Text that is read of `text` in pieces of such lengths.
    fn through(text: &str, cuts: &[usize]) -> String {
        String::from_utf8(bytes_through(text.as_bytes(), cuts)).unwrap()
    }

    fn bytes_through(text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut lines = Lines::new(text);
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        for cut in cuts.iter().cycle() {
            let mut piece = vec![0; *cut];
            let mut piece = ReadBuf::new(&mut piece);
            let read = Pin::new(&mut lines).poll_read(&mut cx, &mut piece);
            assert!(matches!(read, Poll::Ready(Ok(()))));
            if piece.filled().is_empty() {
                break;
            }
            all.extend_from_slice(piece.filled());
        }
        all
    }

    const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  5 \r\n\r\na\nb\n\n";

    proptest! {
        #[test]
        fn lines_are_judged_alike_however_they_are_cut(
            cuts in prop::collection::vec(1..30_usize, 1..10),
            good in 0..4_usize,
        ) {
            let text = POST.repeat(good) + "\r\nGET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n";
            let spoiled = POST.repeat(good) + "\r\nGET / HTTP/1.1\r\nHost: x\0\r\n\r\n";
            prop_assert_eq!(through(&text, &cuts), spoiled);
        }
    }

    /// Number of requests that hyper's own reader of heads finds in front, up to 32.
    fn heads(mut bytes: &[u8]) -> usize {
        let mut count = 0;
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            match httparse::Request::new(&mut fields).parse(bytes) {
                Ok(httparse::Status::Complete(length)) if count < 32 => bytes = &bytes[length..],
                _ => return count,
            }
            count += 1;
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn fuzz_request_lines(
            text in fuzz::damaged(
                &[
                    POST,
                    "\r\nGET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
                    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
                ],
                &["\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\r\r\n", ":", " ", "0", "content-length: 3\r\n", "transfer-encoding: chunked\r\n", "upgrade: websocket\r\n", "\0", "GET / HTTP/1.1\r\nHost: x\n\n"],
            ),
            cuts in fuzz::cuts(),
        ) {
            let strict = bytes_through(&text, &[4096]);
            prop_assert_eq!(&bytes_through(&text, &cuts), &strict);
            // No bare LF is left in a head that a reader would take.
            let first = memchr::memmem::find(&strict, b"\r\n\r\n").map_or(0, |end| end + 4);
            let head = &strict[..first];
            if heads(head) > 0 {
                let bare = (0..head.len()).any(|at| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r'));
                prop_assert!(!bare);
            }
        }
    }

    #[test]
    fn a_control_character_in_the_line_of_a_chunk_is_spoiled() {
        const HEAD: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (lines, spoiled) in [
            ("1;a=\0\r\nx\r\n0\r\n\r\n", "1;a=\n"),
            ("1\r\nx\r\n1;\u{7f}\r\nx\r\n", "1\r\nx\r\n1;\n"),
        ] {
            let all = through(&[HEAD, lines].concat(), &[1]);
            assert_eq!(all, [HEAD, spoiled, "\r\n\r\n"].concat(), "{lines:?}");
        }
    }

    #[test]
    fn a_bare_lf_is_spoiled_and_ends_heads_and_is_let_be_elsewhere() {
        for text in [
            POST,
            "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\tb\r\n\0\n#\r\n0\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nX: #\r\n\r\n",
        ] {
            assert_eq!(through(text, &[7]), text);
        }
        for (text, spoiled) in [
            ("GET / HTTP/1.1\n\n", "GET / HTTP/1.1\0"),
            (
                "GET / HTTP/1.1\r\nHost: x\r\n\nbody",
                "GET / HTTP/1.1\r\nHost: x\r\n\0",
            ),
            ("\n\n", "\0"),
            (
                "GET /\r\nTransfer-Encoding: chunked\r\nX: y\n",
                "GET /\r\nTransfer-Encoding: chunked\r\nX: y\0",
            ),
            ("GET /a#b HTTP/1.1\r\n\r\n", "GET /a\0"),
        ] {
            assert_eq!(through(text, &[3]), format!("{spoiled}\r\n\r\n"));
        }
    }
}
