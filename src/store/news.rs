//! The newest refusals, for a gateway that has given the store to another one.
//!
//! It serves what comes over the connections that it still has. What is revoked meanwhile,
//! at whichever process has the store now, it reads here before each such request.
//!
//! ```text
//!  refusals.recent in the state directory, one link after the other, each with a random mark:
//!    … ── 7a41 (given away) ── 90c2 cut-off w ── 13fe token 01B
//!          └ known when the store was given away: what stands behind it is applied
//! ```
//!
//! The file is written only while a process follows it, which shows by a shared lock on
//! `refusals.lock`. It fails closed: where the file can't be read, where the last link that
//! was known is not there any more, and where a link says no more than that something
//! changed, the follower does not know what is revoked, and must refuse. A process that
//! can't write the file removes it. Deliberately no record: the store is.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::refusals::Refusal;
use super::whole::write_whole;
use super::{Store, StoreError, mark};
use crate::auth::{Elsewhere, Revocations};

/// The files in the state directory.
const FILE: &str = "refusals.recent";
const LOCK: &str = "refusals.lock";
/// Most links that are kept: a take-over is over long before so many.
const LINKS_MAX: usize = 256;
/// Largest file that is read, in bytes: each link with two names as long as they may be.
const BYTES_MAX: u64 = 1 << 20;

/// One change that a follower must know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    /// A random number.
    mark: u64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// The store was given away; nothing changed.
    Given,
    Refused(Refusal),
    /// More than can be told.
    Unknown,
}

impl What {
    /// Brings it into effect. Returns whether that is all of it.
    fn apply(&self, revocations: &Revocations) -> bool {
        match self {
            Self::Refused(Refusal::Token { jti, .. }) => revocations.add(jti),
            Self::Refused(Refusal::CutOff {
                workspace,
                subject,
                at,
            }) => {
                let until = at.saturating_add(1);
                match subject {
                    Some(subject) => revocations.cut_off_subject(workspace, subject, until),
                    None => revocations.cut_off_workspace(workspace, until),
                }
            }
            // Sessions and embed links are looked up in the store itself.
            Self::Given | Self::Refused(Refusal::Records { .. }) => {}
            Self::Unknown => return false,
        }
        true
    }
}

/// The file, as the process that has the store writes it.
#[derive(Debug)]
pub(super) struct News {
    state: PathBuf,
    told: Mutex<Told>,
}

/// Contents of the file. Held over a change of the store and the link that tells of it,
/// so that the store is given away before both or after both.
#[derive(Debug)]
pub(super) struct Told {
    state: PathBuf,
    links: Vec<Link>,
    is_given_away: bool,
}

impl News {
    /// Goes on with what stands in a state directory. Nothing is written.
    pub(super) fn of(state: &Path) -> Self {
        let links = File::open(state.join(FILE)).and_then(read);
        let told = Told {
            state: state.to_owned(),
            // In a file that can't be read no follower finds its last link, and each refuses.
            links: links.unwrap_or_default(),
            is_given_away: false,
        };
        Self {
            state: state.to_owned(),
            told: Mutex::new(told),
        }
    }

    /// Links that were told so far, for as long as the store is ours.
    pub(super) fn ours(&self) -> Result<MutexGuard<'_, Told>, StoreError> {
        let told = self.lock();
        if told.is_given_away {
            return Err(StoreError::Closed);
        }
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Tells followers of a refusal. Returns whether each of them hears of it, or refuses
    /// everyone.
    pub(super) fn tell(&mut self, refusal: &Refusal) -> bool {
        let is_looked_up = matches!(refusal, Refusal::Records { .. });
        is_looked_up || self.tell_what(What::Refused(refusal.clone()))
    }

    /// Tells followers that they can't know what is revoked.
    pub(super) fn tell_unknown(&mut self) -> bool {
        self.tell_what(What::Unknown)
    }

    fn tell_what(&mut self, what: What) -> bool {
        if !is_followed(&self.state) {
            self.links.clear();
            return true;
        }
        let path = self.state.join(FILE);
        let Err(error) = self.append(what) else {
            return true;
        };
        match fs::remove_file(&path) {
            Err(kept) if kept.kind() != io::ErrorKind::NotFound => {
                tracing::error!(
                    %error,
                    "{} can be neither written nor removed ({kept}): a gateway that gave way to this one does not hear what is revoked; end it",
                    path.display()
                );
                false
            }
            _ => {
                tracing::warn!(
                    %error,
                    "{} can't be written: a gateway that gave way to this one refuses what still comes to it",
                    path.display()
                );
                true
            }
        }
    }

    /// Adds a link. Returns its mark.
    fn append(&mut self, what: What) -> io::Result<u64> {
        let mark = mark::random().map_err(io::Error::other)?;
        self.links.push(Link { mark, what });
        let beyond = self.links.len().saturating_sub(LINKS_MAX);
        self.links.drain(..beyond);
        write_whole(&self.state.join(FILE), &serde_json::to_vec(&self.links)?)?;
        Ok(mark)
    }
}

/// True if a process follows the file, or if that can't be told.
fn is_followed(state: &Path) -> bool {
    match File::open(state.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Reader of the file, in a process without the store.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    /// Held over a read of the file.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last link that is in effect here; none where something was missed.
    mark: Option<u64>,
    /// The file that it stands in last. Held open, so that no other can have its number.
    file: Option<File>,
    /// Shows that it is followed.
    _lock: Option<File>,
}

impl Follower {
    fn follow(&self, seen: &mut Seen, revocations: &Revocations) -> io::Result<()> {
        // An error is for ever: a file that is put back may lack something.
        let known = seen.mark.take().ok_or(io::ErrorKind::NotFound)?;
        if let Some(file) = &seen.file
            && is_same(&file.metadata()?, &fs::metadata(&self.path)?)
        {
            seen.mark = Some(known);
            return Ok(());
        }
        let file = File::open(&self.path)?;
        let links = read(file.try_clone()?)?;
        let at = links.iter().position(|link| link.mark == known);
        let at = at.ok_or(io::ErrorKind::NotFound)?;
        let new = links.get(at + 1..).unwrap_or_default();
        // Each is applied, also behind one that says too little.
        let told = new.iter().map(|link| link.what.apply(revocations));
        if !told.fold(true, |all, one| all & one) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        seen.mark = links.last().map(|link| link.mark);
        seen.file = Some(file);
        Ok(())
    }
}

impl Elsewhere for Follower {
    fn catch_up(&self, revocations: &Revocations) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let followed = self.follow(&mut seen, revocations);
        if let Err(error) = &followed {
            tracing::debug!(%error, "what was revoked meanwhile is not known here");
        }
        followed.is_ok()
    }
}

impl Store {
    /// Refuses no one any more, as another process is about to have this store. Returns
    /// where that tells what it refuses. Blocking; [`Self::close`] is to follow.
    pub fn give_away(&self) -> Arc<dyn Elsewhere> {
        let news = &self.0.news;
        let mut told = news.lock();
        told.is_given_away = true;
        let lock = follow(&news.state);
        let seen = lock.and_then(|lock| {
            Ok(Seen {
                mark: Some(told.append(What::Given)?),
                file: None,
                _lock: Some(lock),
            })
        });
        let seen = seen.inspect_err(|error| {
            tracing::warn!(
                %error, "{} can't be written: this gateway refuses what comes to it until it ends", news.state.display()
            );
        });
        Arc::new(Follower {
            path: news.state.join(FILE),
            seen: Mutex::new(seen.unwrap_or_default()),
        })
    }
}

/// Shows that the file is followed, for as long as what is returned is open.
fn follow(state: &Path) -> io::Result<File> {
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(state.join(LOCK))?;
    lock.lock_shared()?;
    Ok(lock)
}

fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn read(file: File) -> io::Result<Vec<Link>> {
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Workspace;

    struct Given {
        dir: tempfile::TempDir,
        elsewhere: Arc<dyn Elsewhere>,
        revocations: Revocations,
        before: Store,
        /// Store as the process that took over has it.
        store: Store,
    }

    impl Given {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let before = Store::open(dir.path()).unwrap();
            before.revoke_token("01A", 1).unwrap();
            let elsewhere = before.give_away();
            before.close();
            let store = Store::open(dir.path()).unwrap();
            Self {
                dir,
                elsewhere,
                revocations: Revocations::default(),
                before,
                store,
            }
        }

        fn catches_up(&self) -> bool {
            self.elsewhere.catch_up(&self.revocations)
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join(FILE)
        }
    }

    #[test]
    fn a_gateway_that_gave_the_store_away_hears_what_is_revoked() {
        let given = Given::new();
        assert!(given.catches_up());
        assert_eq!(given.revocations.generation(), 0, "01A is known");
        assert!(given.store.revoke_token("01B", 2).unwrap().told);
        let acme = Workspace::new("acme").unwrap();
        let refused = given.store.cut_off(&acme, Some("ana"), 7).unwrap();
        assert!(given.catches_up());
        let set = given.revocations.snapshot();
        assert!(set.tokens.contains("01B") && !set.tokens.contains("01A"));
        assert_eq!(set.workspaces[&acme].subjects["ana"], refused.moment);
        given.store.cut_off(&acme, None, 9).unwrap();
        assert!(given.catches_up());
        assert_eq!(given.revocations.snapshot().workspaces[&acme].all, 10);
    }

    #[test]
    fn two_that_gave_it_away_one_after_the_other_both_hear() {
        let given = Given::new();
        given.store.revoke_token("01B", 2).unwrap();
        let second = (given.store.give_away(), Revocations::default());
        given.store.close();
        let third = Store::open(given.dir.path()).unwrap();
        third.revoke_token("01C", 3).unwrap();
        assert!(given.catches_up() && second.0.catch_up(&second.1));
        let (first, second) = (given.revocations.snapshot(), second.1.snapshot());
        assert!(first.tokens.contains("01B") && first.tokens.contains("01C"));
        assert!(!second.tokens.contains("01B") && second.tokens.contains("01C"));
    }

    #[test]
    fn whoever_gave_it_away_refuses_no_one_and_writes_no_more() {
        let given = Given::new();
        given.store.revoke_token("01B", 2).unwrap();
        let before = fs::read(given.file()).unwrap();
        let refused = given.before.revoke_token("01C", 3);
        assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
        assert_eq!(fs::read(given.file()).unwrap(), before);
        assert!(given.catches_up());
        assert!(given.revocations.snapshot().tokens.contains("01B"));
    }

    #[test]
    fn where_nobody_follows_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.revoke_token("01A", 1).unwrap().told);
        let elsewhere = store.give_away();
        store.close();
        drop(elsewhere);
        let store = Store::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(store.revoke_token("01B", 1).unwrap().told);
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn a_gateway_that_can_not_know_what_is_revoked_says_so_for_ever() {
        let lose: [fn(&Given); 4] = [
            |given| fs::remove_file(given.file()).unwrap(),
            |given| fs::write(given.file(), "[{").unwrap(),
            // More than are kept.
            |given| {
                for n in 0..=LINKS_MAX {
                    given.store.revoke_token(&format!("01X{n}"), 3).unwrap();
                }
            },
            |given| assert!(given.store.0.news.lock().tell_unknown()),
        ];
        for (case, lose) in lose.into_iter().enumerate() {
            let given = Given::new();
            let before = fs::read(given.file()).unwrap();
            lose(&given);
            assert!(!given.catches_up(), "{case}");
            fs::write(given.file(), before).unwrap();
            assert!(!given.catches_up(), "{case}: still");
        }
    }

    #[test]
    fn a_process_that_can_not_write_the_file_removes_it_or_says_so() {
        let given = Given::new();
        assert!(given.catches_up());
        // Nothing can be written beside it.
        fs::create_dir(given.file().with_extension("tmp")).unwrap();
        let refused = given.store.revoke_token("01B", 2).unwrap();
        assert!(refused.kept && refused.told);
        assert!(!given.catches_up());
        fs::create_dir(given.file()).unwrap();
        let refused = given.store.revoke_token("01C", 2).unwrap();
        assert!(refused.kept && !refused.told);
    }
}
