//! The first bytes of a connection: what protocol they are of.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::time::timeout;

/// Tells a client that speaks HTTP on a port of HTTPS what is wrong, and reads what it has
/// sent, so that it is not reset before it has read that.
pub(super) async fn refuse_plain(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(PLAIN_REFUSED).await?;
    socket.shutdown().await?;
    let mut piece = [0; 4096];
    while socket.read(&mut piece).await? > 0 {}
    Ok(())
}

/// The answer to a request without TLS on a port of TLS.
const PLAIN_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
content-length: 163\r\nconnection: close\r\n\r\n\
{\"error\":{\"message\":\"This port speaks HTTPS: write https:// instead of http:// in the address.\",\
\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"tls_required\"}}";

/// The first bytes of every HTTP/2 connection.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether the client speaks HTTP/2. Returns that, and
/// how many bytes were read. The first of them may take as long as the one limit says,
/// each further piece as the other.
pub(super) async fn peek_preface(
    socket: &mut (impl AsyncRead + Unpin),
    seen: &mut [u8; 24],
    (idle, pause): (Duration, Duration),
) -> io::Result<(bool, usize)> {
    let mut length = 0;
    while length < PREFACE.len() {
        let limit = if length == 0 { idle } else { pause };
        let free = seen.get_mut(length..).unwrap_or_default();
        let read = timeout(limit, socket.read(free)).await??;
        length += read;
        let same = PREFACE.get(..length) == seen.get(..length);
        if read == 0 || !same {
            return Ok((false, length));
        }
    }
    Ok((true, length))
}
