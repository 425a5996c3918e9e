//! Response bodies that are made while they are sent.
//!
//! Owns the body type: a future that puts events into a channel of one place,
//! polled by the connection itself. No task stands between: when the connection
//! drops the body, the future and all that it holds end with it. Carries out the
//! faults of streams. Does not know what the events say.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

use super::engine::Failure;
use super::error::ApiError;
use super::faults::{Misdeed, Plan};

/// Time for what was written to reach the client before a fault cuts it off.
const FLUSH: Duration = Duration::from_millis(5);

/// End of a response before its script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection is closed in the middle of the response.
    Cut,
    /// The response ends in good order.
    Clean,
}

/// Takes events from the future of a body.
#[derive(Debug)]
pub(super) struct Sink {
    events: mpsc::Sender<Bytes>,
    plan: Arc<Plan>,
    sent: u32,
}

impl Sink {
    /// Sends one event; resolves when the connection has taken it.
    ///
    /// # Errors
    ///
    /// [`End`] when a fault ends the response here.
    pub(super) async fn send(&mut self, event: impl Into<Bytes>) -> Result<(), End> {
        let mut event = event.into();
        if let Some(fault) = self.plan.instead_of_event(self.sent) {
            return self.fail(&fault.clone(), event).await;
        }
        self.sent += 1;
        let Some(Misdeed::Split(bytes)) = self
            .plan
            .find(|fault| matches!(fault, Misdeed::Split(_)).then(|| fault.clone()))
        else {
            return self.write(event).await;
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
        while !event.is_empty() {
            let piece = event.split_to(bytes.min(event.len()));
            self.write(piece).await?;
            // Lets the connection write this piece by itself.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), End> {
        self.events.send(bytes).await.map_err(|_| End::Cut)
    }

    async fn fail(&mut self, fault: &Misdeed, event: Bytes) -> Result<(), End> {
        match fault {
            Misdeed::HalfEvent(_) => self.write(event.slice(..event.len() / 2)).await?,
            Misdeed::HangMidStream(_) => std::future::pending().await,
            Misdeed::ErrorMidStream(_) => {
                self.write(ApiError::from(Failure::Dead).event()).await?;
                self.write(DONE).await?;
                return Err(End::Clean);
            }
            _ => {}
        }
        // The connection writes while the body makes it wait; the pause alone may be over
        // before it is first asked for, on a busy machine.
        tokio::task::yield_now().await;
        crate::time::sleep(FLUSH).await;
        if matches!(fault, Misdeed::DieMidStream(_)) {
            let own = rustix::process::getpid();
            let killed = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            debug_assert!(killed.is_ok(), "a process may signal itself");
        }
        Err(End::Cut)
    }
}

/// The end of a stream of chat or completions.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

type Script = Pin<Box<dyn Future<Output = Result<(), End>> + Send>>;

/// A body of events.
pub(super) struct Events {
    script: Option<Script>,
    events: mpsc::Receiver<Bytes>,
}

impl Events {
    /// A body that `write` fills.
    pub(super) fn new<F>(plan: Arc<Plan>, write: impl FnOnce(Sink) -> F) -> Self
    where
        F: Future<Output = Result<(), End>> + Send + 'static,
    {
        let (sender, events) = mpsc::channel(1);
        let sink = Sink {
            events: sender,
            plan,
            sent: 0,
        };
        Self {
            script: Some(Box::pin(write(sink))),
            events,
        }
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Poll::Ready(Some(event)) = self.events.poll_recv(context) {
                return Poll::Ready(Some(Ok(Frame::data(event))));
            }
            let Some(script) = self.script.as_mut() else {
                return Poll::Ready(None);
            };
            match script.as_mut().poll(context) {
                Poll::Ready(Ok(()) | Err(End::Clean)) => self.script = None,
                Poll::Ready(Err(End::Cut)) => {
                    self.script = None;
                    let error = io::Error::other("cut on command");
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => {
                    // It may have sent before it paused.
                    return match self.events.poll_recv(context) {
                        Poll::Ready(Some(event)) => Poll::Ready(Some(Ok(Frame::data(event)))),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }
}
