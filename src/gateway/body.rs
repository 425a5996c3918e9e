//! The body of every response: our own few bytes, or an upstream's as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::meter::Metered;

/// A response body.
#[derive(Debug)]
pub enum Body {
    /// Bytes of ours; `None` once they are sent.
    Full(Option<Bytes>),
    /// An upstream's response, metered as it passes.
    Metered(Box<Metered>),
}

/// An upstream's response broke off: the connection to the client is cut, as
/// the only honest sign that is left.
#[derive(Debug, thiserror::Error)]
#[error("the upstream broke off within its response")]
pub struct Truncated;

impl From<Infallible> for Truncated {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Body {
    /// These bytes, whole.
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(
                bytes
                    .take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(|bytes| Ok(Frame::data(bytes))),
            ),
            Self::Metered(metered) => metered.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Metered(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Metered(_) => SizeHint::default(),
        }
    }
}
