//! The body of every response: our own few bytes, or an upstream's as they come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::held::{HeldBody, HeldNext};
use super::meter::{Metered, Truncated};

/// A response body.
#[derive(Debug)]
pub enum Body {
    /// Bytes of ours; `None` once they are sent.
    Full(Option<Bytes>),
    /// An upstream's response, metered as it passes.
    Metered(Box<Metered>),
    /// The same, before the upstream has answered.
    Held(Box<HeldBody>),
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
        let this = self.get_mut();
        if let Self::Held(held) = this {
            match ready!(held.poll(cx)) {
                HeldNext::Comment(comment) => return Poll::Ready(Some(Ok(Frame::data(comment)))),
                HeldNext::Body(body) => *this = body,
                HeldNext::Error(event) => *this = Self::full(event),
            }
        }
        match this {
            Self::Full(bytes) => Poll::Ready(
                bytes
                    .take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(|bytes| Ok(Frame::data(bytes))),
            ),
            Self::Metered(metered) => metered.poll_frame(cx),
            // It has just become another.
            Self::Held(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Metered(metered) => metered.has_ended(),
            Self::Held(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Metered(_) | Self::Held(_) => SizeHint::default(),
        }
    }
}
