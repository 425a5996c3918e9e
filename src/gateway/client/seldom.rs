//! A wait that is looked at only when something was told to it.
//!
//! Timers and tokens of cancellation, for which a task waits beside its work, are polled
//! whenever the work goes on: several times for each request of a connection. Here that costs
//! a look at one flag.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled when it was woken, and not when its task was.
#[derive(Debug)]
pub struct Seldom<F> {
    inner: Pin<Box<F>>,
    told: Arc<Told>,
    /// The waker that `told` has.
    task: Option<Waker>,
}

/// Target of the future's wake-ups.
#[derive(Debug)]
struct Told {
    is_due: AtomicBool,
    /// Held for the length of an assignment.
    task: Mutex<Option<Waker>>,
}

impl<F> Seldom<F> {
    /// Waits for `inner`.
    pub fn new(inner: F) -> Self {
        Self {
            inner: Box::pin(inner),
            told: Arc::new(Told {
                is_due: AtomicBool::new(true),
                task: Mutex::default(),
            }),
            task: None,
        }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let is_known = |task: &Waker| task.will_wake(cx.waker());
        if !this.task.as_ref().is_some_and(is_known) {
            let task = Some(cx.waker().clone());
            this.task.clone_from(&task);
            *this
                .told
                .task
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = task;
        }
        // Looked at behind that, so that a wake-up that comes meanwhile wakes this task, or is
        // seen here.
        if !this.told.is_due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.told.is_due.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&this.told));
        this.inner.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let task = task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use tokio::sync::Notify;

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_when_it_is_told_and_by_whomever_it_is_awaited_then() {
        let (polls, notify) = (AtomicU32::new(0), Notify::new());
        let counted = async {
            let mut waits = std::pin::pin!(notify.notified());
            std::future::poll_fn(|cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                waits.as_mut().poll(cx)
            })
            .await;
        };
        let mut seldom = Seldom::new(counted);
        for _ in 0..5 {
            tokio::select! {
                biased;
                () = &mut seldom => unreachable!("nothing was told"),
                () = crate::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        let tells = async { notify.notify_one() };
        tokio::join!(&mut seldom, tells);
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn another_task_may_go_on_with_it() {
        let notify = Arc::new(Notify::new());
        let told = Arc::clone(&notify);
        let mut seldom = Seldom::new(async move { told.notified().await });
        tokio::select! {
            biased;
            () = &mut seldom => unreachable!("nothing was told"),
            () = std::future::ready(()) => {}
        }
        #[expect(clippy::disallowed_methods, reason = "another task is the point")]
        let task = tokio::spawn(seldom);
        tokio::task::yield_now().await;
        notify.notify_one();
        task.await.unwrap();
    }
}
