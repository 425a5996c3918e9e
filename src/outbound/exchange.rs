//! One exchange over HTTP/1: a connection, a request, a bounded answer.
//!
//! Meant for what is asked now and then: key sets, workers, collectors, our own API. No pool,
//! no retry, no redirect; the caller bounds the time.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Most header bytes of an answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Reason why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The connection broke, or what came is not HTTP.
    #[error("the exchange broke off")]
    Http(#[source] hyper::Error),
    /// The body is too large or broke off.
    #[error("the answer is larger than {0} bytes, or broke off")]
    Body(usize, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Begins HTTP/1 on a connection, which answers only while its second part is polled.
///
/// # Errors
///
/// Fails if the connection is broken.
pub async fn handshake<S>(
    io: S,
) -> hyper::Result<(
    SendRequest<Full<Bytes>>,
    Connection<TokioIo<S>, Full<Bytes>>,
)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
}

/// Sends a request, and gives the head of its answer to `take`, which reads as much of
/// the body as it likes. Then the connection is closed.
///
/// # Errors
///
/// Fails if HTTP can't be begun; what comes later is told to `take`.
pub async fn exchange<S, T, F>(
    io: S,
    request: Request<Full<Bytes>>,
    take: impl FnOnce(hyper::Result<Response<Incoming>>) -> F,
) -> hyper::Result<T>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = T>,
{
    let (mut sender, connection) = handshake(io).await?;
    let conversation = async move { take(sender.send_request(request).await).await };
    tokio::pin!(conversation, connection);
    tokio::select! {
        // An answer that is complete counts, though its connection closed.
        biased;
        done = &mut conversation => return Ok(done),
        // It may end before its last bytes are taken: they wait in the body.
        _ = &mut connection => {}
    }
    Ok(conversation.await)
}

/// Sends a request and reads the whole answer, of at most `bytes_max`.
///
/// # Errors
///
/// [`Unanswered`].
pub async fn ask<S>(
    io: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let whole = |head: hyper::Result<Response<Incoming>>| async move {
        let response = head.map_err(Unanswered::Http)?;
        let status = response.status();
        let body = read(response, bytes_max).await?;
        Ok((status, body))
    };
    exchange(io, request, whole)
        .await
        .map_err(Unanswered::Http)?
}

/// Reads the body of an answer, of at most `bytes_max`.
///
/// # Errors
///
/// [`Unanswered::Body`].
pub async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, Unanswered> {
    let body = Limited::new(response.into_body(), bytes_max);
    let whole = body.collect().await;
    let whole = whole.map_err(|error| Unanswered::Body(bytes_max, error))?;
    Ok(whole.to_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Asks a server that answers these bytes and closes at once.
    async fn asked(answer: &[u8]) -> Result<(StatusCode, Bytes), Unanswered> {
        let (ours, mut theirs) = duplex(8 * HEAD_BYTES_MAX);
        let request = Request::get("/").header("host", "x");
        let request = request.body(Full::default()).unwrap();
        let served = async {
            let mut head = [0; 1024];
            assert!(theirs.read(&mut head).await.unwrap() > 0);
            theirs.write_all(answer).await.unwrap();
            drop(theirs);
        };
        tokio::join!(ask(ours, request, 8), served).0
    }

    #[tokio::test]
    async fn an_answer_counts_though_its_connection_is_gone() {
        let (status, body) = asked(b"HTTP/1.1 418 x\r\nconnection: close\r\n\r\n12345678")
            .await
            .unwrap();
        assert_eq!((status.as_u16(), &body[..]), (418, &b"12345678"[..]));
    }

    #[tokio::test]
    async fn what_is_too_large_or_breaks_off_is_an_error() {
        let head = "HTTP/1.1 200 OK\r\nx: ".to_owned();
        let long = head + &"y".repeat(4 * HEAD_BYTES_MAX) + "\r\n\r\n";
        for (answer, is_body) in [
            (
                &b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n123456789"[..],
                true,
            ),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n123", true),
            (b"HTTP/1.1 200", false),
            (b"", false),
            (long.as_bytes(), false),
        ] {
            let error = asked(answer).await.unwrap_err();
            assert_eq!(matches!(error, Unanswered::Body(..)), is_body, "{error:?}");
        }
    }
}
