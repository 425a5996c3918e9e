//! One gateway takes over from another, and no connection is refused.
//!
//! ```text
//!  new                                   old
//!   | -- take over ----------------------> |
//!   | <-- its listening sockets ---------- |   both hold them from here on
//!   |  (reads and checks all it can)       |   still serves
//!   | -- give way ------------------------> |   lets waiting requests have their
//!   | <-- done --------------------------- |   workers, frees store, workers and
//!   |  (opens the store, adopts workers)   |   admin socket; serves on
//!   | -- serving ------------------------> |   stops accepting
//!   |                                      |   ends, open requests first
//! ```
//!
//! Either may be killed at any point of this. Where the old one goes, the new one
//! has the sockets, and the rest is free. Where the new one goes before it serves,
//! the old one serves on and starts one of its own kind, until one serves. What
//! nobody can do meanwhile is to start a worker: requests that need one are told to
//! come again.
//!
//! The socket of this talk lies in the state directory, which is closed to others.
//! As soon as the sockets pass, usage is written down there at once, by either
//! ([`crate::store::left`]); a gateway of an earlier build says it here. Budgets of tokens and
//! places of requests are not handed over: the new one counts from the start.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::lifecycle::act::process::peer;
use crate::store::Store;
use crate::store::left::AtOnce;
use crate::telemetry::usage::{Ledger, Tally};
use crate::time::timeout;

/// The socket's file in the state directory.
const FILE: &str = "handover.sock";
/// Limit of one message from the other side.
const TALK_MAX: Duration = Duration::from_secs(10);
/// Limit for the other side to get ready, or to give way.
const WORK_MAX: Duration = Duration::from_mins(10);
/// Most bytes of a message: the usage of some ten thousand tokens.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Gateways that end while they are asked, before that is an error.
const TRIES_MAX: u32 = 20;
/// Most sockets that are passed.
const SOCKETS_MAX: usize = 64;

/// Message of either side. One line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// The new one asks for the sockets.
    TakeOver { version: String },
    /// The sockets come with this message.
    Sockets { version: String, count: usize },
    /// The new one has all it needs but what the old one holds.
    GiveWay,
    /// The old one has let go of it.
    Done,
    /// The new one serves.
    Serving,
    /// Use by tokens at the old one since.
    Usage(Vec<(Arc<str>, Tally)>),
    /// The usage is in the store.
    Kept,
}

/// Reason for which a gateway could not be taken over from.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    /// The gateway does not answer.
    #[error(
        "the running gateway does not answer who wants to take over: it may be taken over from by another already, or be the first process of a container; see its log"
    )]
    Talk(#[source] io::Error),
    /// The gateway says something else.
    #[error(
        "the running gateway does not know how to be taken over from: stop it, and start without --take-over"
    )]
    Word,
}

/// The socket that a gateway after us asks on.
pub(super) fn socket(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// Request to the old gateway to give way.
pub(super) struct Asked {
    done: oneshot::Sender<()>,
    serves: oneshot::Receiver<()>,
    /// Usage, written down at once since the sockets passed.
    at_once: Option<AtOnce>,
}

impl Asked {
    /// Usage as it is written down already, for the code that goes on with that.
    pub(super) fn usage(&mut self) -> Option<AtOnce> {
        self.at_once.take()
    }

    /// Tells the new one that everything is free, and waits until it serves. Returns
    /// whether it ever did.
    pub(super) async fn done(self) -> bool {
        // It may have given up meanwhile; then there is no one to tell.
        self.done.send(()).is_ok() && self.serves.await.is_ok()
    }
}

/// Parts that every talk needs. A clone is another handle.
#[derive(Clone)]
pub(super) struct Answers {
    /// The sockets to pass.
    pub(super) handles: Arc<Vec<OwnedFd>>,
    /// Hears of the one that is ready to take over.
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) store: Store,
    pub(super) usage: Arc<Ledger>,
}

impl Answers {
    /// Writes usage down at once: from here on either gateway may be killed for the other.
    pub(super) async fn write_usage_at_once(&self) -> Option<AtOnce> {
        let (store, usage) = (self.store.clone(), Arc::clone(&self.usage));
        let begun = tokio::task::spawn_blocking(move || store.write_usage_at_once(&usage));
        let begun = begun
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        let told = begun.inspect_err(|error| {
            tracing::warn!(%error, "usage can't be written down at once: a kill within this take-over loses some");
        });
        told.ok()
    }
}

/// Answers gateways that want to take over, until `ending`.
pub(super) async fn answer(socket: UnixListener, answers: Answers, ending: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ending.cancelled() => return,
        };
        // Out of descriptors: the other side gives up or tries again.
        let Ok((stream, _)) = accepted else {
            crate::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // They run as our user, and get neither sockets nor an end of us.
        if peer::is_worker(&stream) {
            tracing::warn!("a worker, or what one started, was refused a take-over");
            continue;
        }
        let talk = talk(stream, &answers);
        tokio::select! {
            done = talk => if let Err(error) = done {
                tracing::warn!(error = %error, "a gateway that wanted to take over broke off");
            },
            () = ending.cancelled() => return,
        }
    }
}

async fn talk(stream: UnixStream, answers: &Answers) -> io::Result<()> {
    let (handles, store) = (&answers.handles, &answers.store);
    match listen(&stream, TALK_MAX).await?.0 {
        Word::TakeOver { version } => {
            if let Some(why) = stays(std::process::id()) {
                return Err(io::Error::other(why));
            }
            tracing::info!("tidegate {version} is about to take over");
        }
        // From the one before us.
        Word::Usage(used) => {
            let store = store.clone();
            let added = tokio::task::spawn_blocking(move || store.add_usage(&used)).await;
            return match added {
                Ok(Ok(())) => say(&stream, &Word::Kept, &[]).await,
                _ => Err(io::Error::other("the usage could not be kept")),
            };
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    let at_once = answers.write_usage_at_once().await;
    let word = Word::Sockets {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        count: handles.len(),
    };
    let passed: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
    say(&stream, &word, &passed).await?;
    let Word::GiveWay = listen(&stream, WORK_MAX).await?.0 else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (done, is_done) = oneshot::channel();
    let (serves, is_served) = oneshot::channel();
    let asking = Asked {
        done,
        serves: is_served,
        at_once,
    };
    if answers.asked.send(asking).await.is_err() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    is_done.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    // Whatever breaks from here on drops `serves`, which tells.
    say(&stream, &Word::Done, &[]).await?;
    let Word::Serving = listen(&stream, WORK_MAX).await?.0 else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    tracing::info!("the new gateway serves");
    serves.send(()).unwrap_or_default();
    Ok(())
}

/// Reason for which a process with this number can't give way to another.
fn stays(pid: u32) -> Option<&'static str> {
    (pid == 1).then_some(
        "this gateway is the first process of its container, which would end with it: start a container anew instead",
    )
}

/// A gateway that is being taken over from.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Asks the gateway that runs with this state directory for its sockets.
    /// `None` when none runs, or it ends while it is asked.
    pub(super) async fn find(state: &Path) -> Result<Option<(Self, Vec<OwnedFd>)>, HandoverError> {
        let mut tries = 0;
        // One that has just ended may have been followed by another.
        while let Ok(stream) = UnixStream::connect(socket(state)).await {
            match ask(&stream).await {
                Ok((Word::Sockets { count, .. }, sockets)) if count == sockets.len() => {
                    return Ok(Some((Self(stream), sockets)));
                }
                Ok(_) => return Err(HandoverError::Word),
                Err(error) if is_over(&error) && tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(HandoverError::Talk(error)),
            }
        }
        Ok(None)
    }

    /// Asks it to let go of everything, and waits until it has, or has ended.
    pub(super) async fn give_way(&self) -> Result<(), HandoverError> {
        let word = async {
            say(&self.0, &Word::GiveWay, &[]).await?;
            listen(&self.0, WORK_MAX).await
        };
        match word.await {
            Ok((Word::Done, _)) => Ok(()),
            Ok(_) => Err(HandoverError::Word),
            Err(error) if is_over(&error) => {
                tracing::warn!(
                    "the gateway before us ended before it had given way: what it held is free"
                );
                Ok(())
            }
            Err(error) => Err(HandoverError::Talk(error)),
        }
    }

    /// Tells it that we serve.
    pub(super) async fn serving(self) {
        if let Err(error) = say(&self.0, &Word::Serving, &[]).await {
            tracing::debug!(error = %error, "the gateway before us is gone already");
        }
    }
}

async fn ask(stream: &UnixStream) -> io::Result<(Word, Vec<OwnedFd>)> {
    let word = Word::TakeOver {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    say(stream, &word, &[]).await?;
    listen(stream, TALK_MAX).await
}

/// True if the other side has ended.
fn is_over(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Sends one message, with descriptors at its begin.
async fn say(stream: &UnixStream, word: &Word, passed: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    let sending = async {
        let mut passed = passed;
        while !rest.is_empty() {
            let sent = stream
                .async_io(Interest::WRITABLE, || {
                    let mut space =
                        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
                    let mut with = SendAncillaryBuffer::new(&mut space);
                    if !passed.is_empty() && !with.push(SendAncillaryMessage::ScmRights(passed)) {
                        return Err(io::ErrorKind::InvalidInput.into());
                    }
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    Ok(sendmsg(stream, &[IoSlice::new(rest)], &mut with, flags)?)
                })
                .await?;
            passed = &[];
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    };
    within(TALK_MAX, sending).await
}

/// Reads one message, and the descriptors that came with it.
async fn listen<T: DeserializeOwned>(
    stream: &UnixStream,
    limit: Duration,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut line = Vec::new();
    let mut passed = Vec::new();
    let reading = async {
        let mut piece = vec![0; 64 << 10];
        while line.last() != Some(&b'\n') {
            let read = stream
                .async_io(Interest::READABLE, || {
                    let mut space =
                        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
                    let mut with = RecvAncillaryBuffer::new(&mut space);
                    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
                    let read =
                        recvmsg(stream, &mut [IoSliceMut::new(&mut piece)], &mut with, flags)?;
                    for message in with.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = message {
                            passed.extend(fds);
                        }
                    }
                    Ok(read.bytes)
                })
                .await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.extend_from_slice(piece.get(..read).unwrap_or_default());
            if line.len() > MESSAGE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    };
    within(limit, reading).await?;
    Ok((serde_json::from_slice(&line)?, passed))
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_pass_usage_is_kept_and_strange_words_end_the_talk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Predecessor::find(dir.path()).await.unwrap().is_none());
        let store = Store::open(dir.path()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handles = Arc::new(vec![listener.into()]);
        let (asked, mut asks) = mpsc::channel(1);
        let ending = CancellationToken::new();
        let bound = UnixListener::bind(socket(dir.path())).unwrap();
        let answers = Answers {
            handles,
            asked,
            store: store.clone(),
            usage: Arc::default(),
        };
        let answering = answer(bound, answers, ending.clone());
        let old = async {
            for serves in [false, true] {
                let Some(asked) = asks.recv().await else {
                    panic!("never asked")
                };
                assert_eq!(asked.done().await, serves);
            }
        };
        let new = async {
            let stranger = UnixStream::connect(socket(dir.path())).await.unwrap();
            say(&stranger, &Word::Serving, &[]).await.unwrap();
            assert!(listen::<Word>(&stranger, TALK_MAX).await.is_err());
            // One that is killed before it serves.
            let (before, _) = Predecessor::find(dir.path()).await.unwrap().unwrap();
            before.give_way().await.unwrap();
            drop(before);
            let (before, sockets) = Predecessor::find(dir.path()).await.unwrap().unwrap();
            let passed = std::net::TcpListener::from(sockets.into_iter().next().unwrap());
            assert_eq!(passed.local_addr().unwrap(), address);
            before.give_way().await.unwrap();
            before.serving().await;
            let tally = Tally {
                requests: 2,
                prompt_tokens: 3,
                completion_tokens: 4,
                last_used: 5,
            };
            let stream = UnixStream::connect(socket(dir.path())).await.unwrap();
            let used = Word::Usage(vec![(Arc::from("01A"), tally)]);
            say(&stream, &used, &[]).await.unwrap();
            let (word, _) = listen(&stream, TALK_MAX).await.unwrap();
            assert!(matches!(word, Word::Kept));
            assert_eq!(store.usage("01A").unwrap(), Some(tally));
            ending.cancel();
        };
        tokio::join!(answering, old, new);
    }

    #[test]
    fn the_first_process_of_a_container_stays() {
        assert!(stays(1).is_some());
        assert!(stays(std::process::id()).is_none());
    }

    #[tokio::test]
    async fn one_that_ends_while_it_is_asked_is_none_and_one_that_is_mute_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket(dir.path());
        let bound = UnixListener::bind(&path).unwrap();
        let dies = async {
            let (stream, _) = bound.accept().await.unwrap();
            std::fs::remove_file(&path).unwrap();
            drop(stream);
        };
        let (found, ()) = tokio::join!(Predecessor::find(dir.path()), dies);
        assert!(found.unwrap().is_none());
        let bound = UnixListener::bind(&path).unwrap();
        let gives = async {
            let (stream, _) = bound.accept().await.unwrap();
            listen::<Word>(&stream, TALK_MAX).await.unwrap();
            let (count, version) = (0, String::new());
            say(&stream, &Word::Sockets { version, count }, &[])
                .await
                .unwrap();
            listen::<Word>(&stream, TALK_MAX).await.unwrap();
        };
        let takes = async {
            let (before, _) = Predecessor::find(dir.path()).await.unwrap().unwrap();
            before.give_way().await.unwrap();
        };
        tokio::join!(takes, gives);
    }
}
