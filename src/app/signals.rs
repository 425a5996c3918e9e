//! Meaning of signals: SIGTERM and SIGINT end, SIGHUP reads files again, SIGUSR1
//! opens logs anew. No other ends us that can be caught.
//!
//! SIGABRT and those of faults in the program itself are left alone: a watchdog,
//! or the kernel, ends us with them because we can't go on.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that mean nothing to us, and would end a process that does not listen.
const MEANINGLESS: [(Number, &str); 9] = [
    (Number::QUIT, "SIGQUIT"),
    (Number::USR2, "SIGUSR2"),
    (Number::ALARM, "SIGALRM"),
    (Number::VTALARM, "SIGVTALRM"),
    (Number::PROF, "SIGPROF"),
    (Number::IO, "SIGIO"),
    (Number::POWER, "SIGPWR"),
    (Number::XCPU, "SIGXCPU"),
    // A file that grew too large is an error of that write.
    (Number::XFSZ, "SIGXFSZ"),
];
/// Signals that have no names, as Linux numbers them: one of old, and those of
/// applications.
const NAMELESS: [std::ops::RangeInclusive<i32>; 2] = [16..=16, 34..=64];

/// Every signal that is listened for.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    reopen: Signal,
    meaningless: Vec<(String, Signal)>,
}

/// Meaning of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// End in order.
    End,
    /// Read files again, and open logs anew.
    Reload,
    /// Open logs anew.
    Reopen,
    /// Nothing; its name.
    Nothing(String),
}

impl Signals {
    /// Begins to listen, within the runtime.
    ///
    /// # Errors
    ///
    /// Signals can't be listened for.
    pub fn listen() -> io::Result<Self> {
        let named = MEANINGLESS.map(|(number, name)| (number.as_raw(), name.to_owned()));
        let nameless = NAMELESS.into_iter().flatten();
        let nameless = nameless.map(|number| (number, format!("signal {number}")));
        let meaningless = named.into_iter().chain(nameless).map(|(number, name)| {
            let listened = signal(SignalKind::from_raw(number))?;
            Ok((name, listened))
        });
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            meaningless: meaningless.collect::<io::Result<_>>()?,
        })
    }

    /// Resolves with the next that ends. Cancel-safe, as `recv` is.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Resolves with what the next says. Cancel-safe, as `recv` is.
    pub(super) async fn next(&mut self) -> Told {
        let meaningless = &mut self.meaningless;
        tokio::select! {
            _ = self.term.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
            _ = self.reopen.recv() => Told::Reopen,
            name = poll_fn(|context| first(meaningless, context)) => Told::Nothing(name),
        }
    }
}

/// The name of the first that came.
fn first(signals: &mut [(String, Signal)], context: &mut Context<'_>) -> Poll<String> {
    for (name, signal) in signals {
        if signal.poll_recv(context).is_ready() {
            return Poll::Ready(name.clone());
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_signal_says_what_it_should_and_none_ends_this_test() {
        let mut signals = Signals::listen().unwrap();
        let own = rustix::process::getpid();
        let mut cases = vec![
            (Number::TERM, Told::End),
            (Number::INT, Told::End),
            (Number::HUP, Told::Reload),
            (Number::USR1, Told::Reopen),
        ];
        let nothing = |(number, name): (_, &str)| (number, Told::Nothing(name.to_owned()));
        cases.extend(MEANINGLESS.map(nothing));
        for (number, told) in cases {
            rustix::process::kill_process(own, number).unwrap();
            assert_eq!(signals.next().await, told, "{number:?}");
        }
    }
}
