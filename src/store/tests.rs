use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::StorageBackend;

use super::*;
use crate::names::Workspace;
use crate::telemetry::usage::{Ledger, Tally};

#[test]
fn store_and_directory_are_made_for_this_user_only() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/.tidegate");
    let _store = Store::open(&state).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
}

#[test]
fn a_store_that_is_open_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).unwrap();
    let second = Store::open(dir.path()).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second:?}");
    drop(first);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .write(|transaction| {
            transaction.open_table(META)?.insert("schema", SCHEMA + 1)?;
            Ok(())
        })
        .unwrap();
    drop(store);
    for _ in 0..2 {
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found, .. } if found == SCHEMA + 1));
    }
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    for content in [vec![b'x'; 100], vec![0; 100_000]] {
        fs::write(&path, &content).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(fs::read(&path).unwrap() == content);
    }
}

#[test]
fn a_store_that_was_damaged_is_refused_or_whole_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let store = Store::open(dir.path()).unwrap();
    store.revoke_token("01A", 1).unwrap();
    drop(store);
    let good = fs::read(&path).unwrap();
    let cut = [1, 100, 4096, good.len() / 2, good.len() - 1].map(|at| good[..at].to_vec());
    let flipped = (0..good.len()).step_by(good.len() / 31).map(|at| {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        bad
    });
    for bad in cut.into_iter().chain(flipped) {
        fs::write(&path, &bad).unwrap();
        match Store::open(dir.path()) {
            Ok(store) => {
                let set = store.revoked_tokens().unwrap();
                assert!(set.tokens.contains("01A"), "a revocation was lost unseen");
            }
            Err(StoreError::Damaged { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let failed = store.write(|transaction| {
        transaction.open_table(META)?.insert("half", 1)?;
        Err::<(), _>(StoreError::TokenId(String::new()))
    });
    assert!(failed.is_err());
    let half = store.read(|transaction| {
        let meta = transaction.open_table(META)?;
        Ok(meta.get("half")?.map(|value| value.value()))
    });
    assert_eq!(half.unwrap(), None);
}

/// A disk that can be full, or fail at its next write or flush.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<RwLock<Vec<u8>>>,
    is_full: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
}

impl Disk {
    fn write_or_fail(&self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
        write(&mut self.bytes.write().unwrap());
        Ok(())
    }

    fn store(&self, mark: Option<mark::Mark>) -> Store {
        let disk = self.clone();
        let path = PathBuf::from("/nowhere/store.redb");
        let open = {
            let path = path.clone();
            Box::new(move || file::on(disk.clone(), &path))
        };
        Store::with_opener(path, open, mark).unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.read().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        self.write_or_fail(|bytes| bytes.resize(len, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_or_fail(|_| ())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.write_or_fail(|bytes| bytes[offset..offset + data.len()].copy_from_slice(data))
    }
}

fn acme() -> Workspace {
    Workspace::new("acme").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_single_error_of_the_disk_is_over_within_seconds_and_loses_no_revocation() {
    let disk = Disk::default();
    let store = disk.store(None);
    store.revoke_token("01A", 1).unwrap();
    disk.fails.store(true, Ordering::Relaxed);
    let refused = store.revoke_token("01B", 2).unwrap();
    assert_eq!((refused.moment, refused.kept), (2, false));
    assert_eq!(store.held(), 1);
    let fault = store.fault().unwrap();
    assert!(fault.contains("1 revocation is in effect"), "{fault}");
    // It can be read at once.
    assert!(store.revoked_tokens().unwrap().tokens.contains("01A"));
    tokio::time::advance(Duration::from_secs(2)).await;
    store.tend();
    assert_eq!((store.fault(), store.held()), (None, 0));
    drop(store);
    let set = disk.store(None).revoked_tokens().unwrap();
    assert_eq!(set.tokens.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_holds_what_is_refused_and_used_until_there_is_room() {
    let disk = Disk::default();
    let store = disk.store(None);
    let ledger = Ledger::new();
    disk.is_full.store(true, Ordering::Relaxed);
    for n in 0..3_u64 {
        assert!(!store.revoke_token(&format!("01{n}"), n).unwrap().kept);
        assert!(!store.cut_off(&acme(), Some("ana"), 100 + n).unwrap().kept);
        ledger.add(&Arc::from("01A"), 1, 1, 1);
        let taken = ledger.take();
        assert!(store.add_usage(&taken).is_err());
        ledger.give_back(taken);
        for _ in 0..40 {
            tokio::time::advance(health::TEND).await;
            store.tend();
        }
    }
    let fault = store.fault().unwrap();
    assert!(fault.contains("the disk is full: make room"), "{fault}");
    assert!(fault.contains("6 revocations"), "{fault}");
    disk.is_full.store(false, Ordering::Relaxed);
    for _ in 0..31 {
        tokio::time::advance(health::TEND).await;
        store.tend();
    }
    assert_eq!((store.fault(), store.held()), (None, 0));
    store.add_usage(&ledger.take()).unwrap();
    drop(store);
    let store = disk.store(None);
    let set = store.revoked_tokens().unwrap();
    assert_eq!(set.tokens.len(), 3);
    assert_eq!(set.workspaces[&acme()].subjects["ana"], 103);
    let used = Tally {
        requests: 3,
        prompt_tokens: 3,
        completion_tokens: 3,
        last_used: 1,
    };
    assert_eq!(store.usage("01A").unwrap(), Some(used));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stands_beside_the_key_and_outlives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("tokens.key");
    let disk = Disk::default();
    let open = || {
        let mark = mark::Mark::of(&key, Path::new("/nowhere"));
        let store = disk.store(Some(mark));
        store.settle_beside(&key).unwrap();
        assert!(store.remark());
        store
    };
    let store = open();
    disk.is_full.store(true, Ordering::Relaxed);
    let refused = store.revoke_token("01A", 1).unwrap();
    assert!(refused.kept, "it stands beside the key");
    // A crash: nothing more is written.
    let left = Disk {
        bytes: Arc::new(RwLock::new(disk.bytes.read().unwrap().clone())),
        ..Disk::default()
    };
    drop(store);
    let mark = mark::Mark::of(&key, Path::new("/nowhere"));
    let store = left.store(Some(mark));
    assert_eq!(store.settle_beside(&key).unwrap(), None);
    assert!(store.revoked_tokens().unwrap().tokens.contains("01A"));
    assert_eq!(store.lost_at().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_deleted_while_open_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let store = Store::open(&state).unwrap();
    store.revoke_token("01A", 1).unwrap();
    fs::remove_dir_all(&state).unwrap();
    store.tend();
    assert_eq!(store.fault(), None);
    store.revoke_token("01B", 2).unwrap();
    drop(store);
    let mode = fs::metadata(state.join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let set = Store::open(&state).unwrap().revoked_tokens().unwrap();
    assert_eq!(set.tokens.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_file_in_the_place_of_an_open_store_is_told_of_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let path = dir.path().join(FILE);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another").unwrap();
    store.tend();
    let fault = store.fault().unwrap();
    assert!(fault.contains("another file"), "{fault}");
    assert_eq!(fs::read(&path).unwrap(), b"another");
    assert!(!store.revoke_token("01A", 1).unwrap().kept);
}

#[test]
fn a_closed_store_holds_nothing_and_says_who_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.close();
    store.tend();
    let error = store.revoke_token("01A", 1).unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error:?}");
    assert_eq!((store.held(), store.fault()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_forgotten_an_hour_after_the_start_by_a_time_that_is_sure() {
    let wall = Arc::new(std::sync::atomic::AtomicU64::new(1_000_000_000));
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let (read, path) = (Arc::clone(&wall), dir.path().join(FILE));
        let clock = NewestTime::of(move || Duration::from_secs(read.load(Ordering::Relaxed)));
        let file = path.clone();
        Store::at_time(
            path,
            Box::new(move || file::open(&file)),
            None,
            Arc::new(clock),
        )
        .unwrap()
    };
    let decades = 20 * 365 * 86_400;
    let store = open();
    store.revoke_token("01A", store.clock().seconds()).unwrap();
    drop(store);
    // A clock that is wrong at the start, and set right within minutes.
    wall.fetch_add(decades, Ordering::Relaxed);
    let store = open();
    store.tend();
    tokio::time::advance(Duration::from_mins(4)).await;
    wall.fetch_add(240, Ordering::Relaxed);
    store.tend();
    wall.fetch_sub(decades, Ordering::Relaxed);
    let is_known = |store: &Store| store.revoked_tokens().unwrap().tokens.contains("01A");
    for _ in 0..70 {
        tokio::time::advance(Duration::from_mins(1)).await;
        wall.fetch_add(60, Ordering::Relaxed);
        store.tend();
    }
    assert!(is_known(&store));
    assert_eq!(store.clock().behind(), None);
    // One that stays is believed.
    wall.fetch_add(decades, Ordering::Relaxed);
    for _ in 0..25 {
        tokio::time::advance(Duration::from_hours(1)).await;
        wall.fetch_add(3_600, Ordering::Relaxed);
        store.tend();
    }
    assert!(!is_known(&store));
    drop(store);
    // And known after a restart, with a clock that went back meanwhile.
    wall.fetch_sub(decades, Ordering::Relaxed);
    assert_eq!(
        open().clock().behind().unwrap().as_secs() / 86_400,
        decades / 86_400
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_not_of_a_time_to_come_once_the_clock_went_back() {
    let wall = Arc::new(std::sync::atomic::AtomicU64::new(1_000_000_000));
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let (read, path) = (Arc::clone(&wall), dir.path().join(FILE));
        let clock = NewestTime::of(move || Duration::from_secs(read.load(Ordering::Relaxed)));
        let file = path.clone();
        let open = Box::new(move || file::open(&file));
        Store::at_time(path, open, None, Arc::new(clock)).unwrap()
    };
    let store = open();
    // Less than a second after the clock was looked at last.
    wall.fetch_add(1, Ordering::Relaxed);
    let issued = store.clock().seconds();
    store.revoke_token("01A", issued).unwrap();
    wall.fetch_sub(3_600, Ordering::Relaxed);
    assert!(store.clock().seconds() >= issued);
    drop(store);
    assert!(open().clock().seconds() >= issued);
}
