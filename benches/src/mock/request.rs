//! Requests as the mock needs them: method, path, and the edges of the body.
//!
//! Owns the reading of HTTP/1.1 requests with a length or in chunks. Keeps of a body its
//! first and last KiB and drops the rest as it comes, so a MiB costs little more than the
//! system calls that fetch it. Deliberately lenient: proxies are tested, not clients.

use std::cell::RefCell;
use std::io;

use memchr::memmem;

use super::socket::Socket;

/// Bytes kept of either end of a body.
const EDGE: usize = 1024;
/// Most bytes of a request's head.
const HEAD_MAX: usize = 64 << 10;

thread_local! {
    /// Buffer that bytes land in; shared by all connections, never held over an await.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

/// One request, read to its end.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// True if the client wants the connection closed after the answer.
    pub(super) close: bool,
    edges: Edges,
}

impl Request {
    /// The body's first bytes.
    pub(super) fn head(&self) -> &[u8] {
        &self.edges.head
    }

    /// The body's last bytes.
    pub(super) fn tail(&self) -> &[u8] {
        &self.edges.tail
    }
}

/// Reads one request after another from a connection.
#[derive(Default)]
pub(super) struct RequestReader {
    /// Bytes read and not yet understood.
    pending: Vec<u8>,
}

impl RequestReader {
    /// The next request; `None` when the client closed between requests.
    pub(super) async fn next(&mut self, socket: &Socket) -> io::Result<Option<Request>> {
        let head_end = loop {
            if let Some(at) = memmem::find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            if self.pending.len() > HEAD_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let pending = &mut self.pending;
            if !read(socket, |bytes| pending.extend_from_slice(bytes)).await? {
                return Ok(None);
            }
        };
        let (mut request, mut body) = parse_head(self.pending.get(..head_end).unwrap_or_default())
            .ok_or(io::ErrorKind::InvalidData)?;
        let here = self.pending.get(head_end..).unwrap_or_default();
        let mut used = body.feed(here, &mut request.edges)?;
        self.pending.drain(..head_end + used);
        while !body.ended() {
            let (edges, pending) = (&mut request.edges, &mut self.pending);
            let mut fed = Ok(());
            let open = read(socket, |bytes| match body.feed(bytes, edges) {
                Ok(count) => {
                    used = count;
                    pending.extend_from_slice(bytes.get(count..).unwrap_or_default());
                }
                Err(error) => fed = Err(error),
            })
            .await?;
            fed?;
            if !open {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(request))
    }
}

/// Waits for bytes and hands them over; `false` at the end.
async fn read(socket: &Socket, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    loop {
        let got = LANDING.with_borrow_mut(|buffer| {
            let got = socket.try_read(buffer);
            if let Ok(count) = got {
                take(buffer.get(..count).unwrap_or_default());
            }
            got
        });
        match got {
            Ok(count) => return Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
            Err(error) => return Err(error),
        }
    }
}

fn parse_head(head: &[u8]) -> Option<(Request, Body)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let mut request = Request {
        method: start.next()?.to_owned(),
        path: start.next()?.to_owned(),
        close: false,
        edges: Edges::default(),
    };
    let mut body = Body::Length(0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body = Body::Length(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunked(Chunked::Size(0));
        } else if name.eq_ignore_ascii_case("connection") {
            request.close = value.eq_ignore_ascii_case("close");
        }
    }
    Some((request, body))
}

/// The first and last bytes of a body.
#[derive(Default)]
struct Edges {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Edges {
    fn push(&mut self, bytes: &[u8]) {
        let room = EDGE.saturating_sub(self.head.len()).min(bytes.len());
        self.head
            .extend_from_slice(bytes.get(..room).unwrap_or_default());
        if bytes.len() >= EDGE {
            self.tail.clear();
            self.tail
                .extend_from_slice(bytes.get(bytes.len() - EDGE..).unwrap_or_default());
        } else {
            self.tail.extend_from_slice(bytes);
            let over = self.tail.len().saturating_sub(EDGE);
            self.tail.drain(..over);
        }
    }
}

/// Rest of a body.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked(Chunked),
}

#[derive(Debug, PartialEq, Eq)]
enum Chunked {
    /// In a size line, of which so much is read.
    Size(usize),
    /// In the rest of a size line that follows the digits.
    Extension(usize),
    /// In a chunk: bytes left, with the line end after it.
    Data(usize),
    /// In the trailer; how many bytes of its current line are read.
    Trailer(usize),
    End,
}

impl Body {
    fn ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::End))
    }

    /// Takes what belongs to the body; returns how much that was.
    fn feed(&mut self, bytes: &[u8], edges: &mut Edges) -> io::Result<usize> {
        match self {
            Self::Length(left) => {
                let count = bytes.len().min(*left);
                edges.push(bytes.get(..count).unwrap_or_default());
                *left -= count;
                Ok(count)
            }
            Self::Chunked(state) => state.feed(bytes, edges),
        }
    }
}

impl Chunked {
    fn feed(&mut self, bytes: &[u8], edges: &mut Edges) -> io::Result<usize> {
        let mut at = 0;
        while let (Some(&byte), false) = (bytes.get(at), *self == Self::End) {
            at += 1;
            *self = match *self {
                Self::Size(size) => match (byte as char).to_digit(16) {
                    Some(_) if size > (1 << 40) => return Err(io::ErrorKind::InvalidData.into()),
                    Some(digit) => Self::Size(size * 16 + digit as usize),
                    None if byte == b'\n' => Self::after_size(size),
                    None => Self::Extension(size),
                },
                Self::Extension(size) if byte == b'\n' => Self::after_size(size),
                Self::Extension(size) => Self::Extension(size),
                Self::Data(left) => {
                    let rest = bytes.get(at - 1..).unwrap_or_default();
                    let count = rest.len().min(left);
                    let data = count.min(left.saturating_sub(2));
                    edges.push(rest.get(..data).unwrap_or_default());
                    at += count - 1;
                    if count == left {
                        Self::Size(0)
                    } else {
                        Self::Data(left - count)
                    }
                }
                Self::Trailer(1) if byte == b'\n' => Self::End,
                Self::Trailer(_) if byte == b'\n' => Self::Trailer(0),
                Self::Trailer(read) => Self::Trailer(read + 1),
                Self::End => Self::End,
            };
        }
        Ok(at)
    }

    fn after_size(size: usize) -> Self {
        if size == 0 {
            Self::Trailer(0)
        } else {
            Self::Data(size + 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_keep_both_ends_however_a_body_is_cut() {
        let body: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
        for cut in [1, 7, 1000, 1024, 1500, 5000] {
            let mut edges = Edges::default();
            for part in body.chunks(cut) {
                edges.push(part);
            }
            assert_eq!(edges.head, body[..EDGE]);
            assert_eq!(edges.tail, body[body.len() - EDGE..]);
        }
    }

    #[test]
    fn a_chunked_body_reads_alike_however_it_is_cut() {
        let wire = b"5;a=b\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for cut in 1..wire.len() {
            let mut edges = Edges::default();
            let mut body = Body::Chunked(Chunked::Size(0));
            let mut used = 0;
            for part in wire.chunks(cut) {
                used += body.feed(part, &mut edges).unwrap();
            }
            assert!(body.ended(), "cut by {cut}");
            assert_eq!(used, wire.len() - 3, "cut by {cut}");
            assert_eq!(edges.head, b"hello 0123456789");
            assert_eq!(edges.tail, b"hello 0123456789");
        }
    }

    #[test]
    fn a_head_tells_method_path_length_and_close() {
        let head = b"POST /v1/x HTTP/1.1\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        let (request, body) = parse_head(head).unwrap();
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, "/v1/x");
        assert!(request.close);
        assert_eq!(body, Body::Length(12));
        assert!(parse_head(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n").is_none());
    }
}
