use std::fs;

use super::*;
use crate::store::records::RecordKind;

/// A state directory and a key apart from it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("certs")).unwrap();
        Self { dir }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn store(&self) -> PathBuf {
        self.state().join(FILE)
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("certs/tokens.key")
    }

    /// Opens the store: whether it was lost, and whether that was said.
    fn open(&self) -> (Store, bool) {
        let opened = Store::open_beside(&self.state(), &self.key()).unwrap();
        let lost = opened.store.lost_at().unwrap() > 0;
        (opened.store, lost || !opened.notes.is_empty())
    }

    fn is_lost(&self) -> bool {
        self.open().1
    }
}

fn now(store: &Store) -> u64 {
    store.clock().seconds()
}

#[test]
fn a_store_that_goes_on_is_never_lost() {
    let place = Place::new();
    for n in 0..4 {
        let (store, lost) = place.open();
        assert!(!lost);
        store.revoke_token(&format!("01{n}"), now(&store)).unwrap();
        assert_eq!(store.revoked_tokens().unwrap().tokens.len(), n + 1);
    }
}

#[test]
fn a_store_of_before_is_taken_as_it_is() {
    let place = Place::new();
    let store = Store::open(&place.state()).unwrap();
    store.revoke_token("01A", 1).unwrap();
    drop(store);
    assert!(!place.is_lost());
    fs::remove_file(place.store()).unwrap();
    assert!(place.is_lost(), "from then on it is known");
}

#[test]
fn a_store_that_is_gone_empty_or_older_is_lost_and_says_when() {
    let place = Place::new();
    let (store, _) = place.open();
    store.put_record(RecordKind::Session, "a", &1).unwrap();
    drop(store);
    let older = fs::read(place.store()).unwrap();
    let (store, _) = place.open();
    store.revoke_token("01A", now(&store)).unwrap();
    store
        .remove_records(RecordKind::Session, &["a".to_owned()])
        .unwrap();
    drop(store);
    let good = fs::read(place.store()).unwrap();
    let faults: [(&str, &dyn Fn()); 4] = [
        ("zero length", &|| fs::write(place.store(), b"").unwrap()),
        ("deleted", &|| fs::remove_file(place.store()).unwrap()),
        ("directory deleted", &|| {
            fs::remove_dir_all(place.state()).unwrap();
        }),
        ("an older copy", &|| {
            fs::write(place.store(), &older).unwrap();
        }),
    ];
    for (fault, make) in faults {
        let mark = fs::read(beside(&place.key())).unwrap();
        make();
        let before = crate::time::unix_seconds();
        let (store, _) = place.open();
        let lost_at = store.lost_at().unwrap();
        assert!(lost_at > before && now(&store) >= lost_at, "{fault}");
        assert_eq!(
            store.records::<u32>(RecordKind::Session).unwrap(),
            [],
            "{fault}"
        );
        let warned = |accepts| store.warnings(accepts).join(" ");
        assert!(warned(false).contains("every token issued before is refused"));
        assert!(warned(true).contains("may be valid again"));
        drop(store);
        // It stays lost, and is not lost anew at every start.
        let (store, _) = place.open();
        assert_eq!(store.lost_at().unwrap(), lost_at, "{fault}");
        drop(store);
        fs::create_dir_all(place.state()).unwrap();
        fs::write(place.store(), &good).unwrap();
        // The right one again is not the one that was used last.
        assert!(place.is_lost(), "{fault}");
        fs::write(place.store(), &good).unwrap();
        fs::write(beside(&place.key()), mark).unwrap();
        assert!(!place.is_lost(), "{fault}");
    }
}

#[test]
fn another_directory_with_the_same_key_lacks_revocations_at_first_and_then_both_go_on() {
    let place = Place::new();
    assert!(!place.is_lost());
    let other = place.dir.path().join("other");
    let open = |state: &Path| Store::open_beside(state, &place.key()).unwrap();
    assert!(open(&other).store.lost_at().unwrap() > 0);
    let (first, second) = (open(&place.state()).store, open(&other));
    assert_eq!(first.lost_at().unwrap(), 0);
    assert!(second.notes.is_empty());
}

#[test]
fn a_directory_that_is_moved_with_its_store_is_known() {
    let place = Place::new();
    let (store, _) = place.open();
    store.revoke_token("01A", 1).unwrap();
    drop(store);
    let moved = place.dir.path().join("moved");
    fs::rename(place.state(), &moved).unwrap();
    let opened = Store::open_beside(&moved, &place.key()).unwrap();
    assert_eq!(opened.store.lost_at().unwrap(), 0);
}

#[test]
fn a_file_beside_the_key_that_is_damaged_stops_the_start_in_words() {
    let place = Place::new();
    drop(place.open());
    fs::write(beside(&place.key()), "{").unwrap();
    let error = Store::open_beside(&place.state(), &place.key()).unwrap_err();
    assert!(matches!(error, StoreError::Mark { .. }), "{error:?}");
    assert!(error.to_string().contains("tokens.key.stores"), "{error}");
}

#[test]
fn a_place_beside_the_key_that_can_not_be_read_stops_the_start() {
    let place = Place::new();
    // A file where its directory should be: also for root.
    let key = place.dir.path().join("file/tokens.key");
    fs::write(place.dir.path().join("file"), "").unwrap();
    let error = Store::open_beside(&place.state(), &key);
    // Reading it fails already with "not a directory".
    assert!(matches!(error, Err(StoreError::Mark { .. })), "{error:?}");
}

#[test]
fn the_newest_time_outlives_a_restart_and_a_loss() {
    let place = Place::new();
    let (store, _) = place.open();
    let ahead = now(&store) + 3_600;
    store.clock().learn(ahead);
    store.revoke_token("01A", ahead).unwrap();
    drop(store);
    let (store, _) = place.open();
    assert!(now(&store) >= ahead && store.clock().behind().is_some());
    assert!(
        store
            .warnings(false)
            .join(" ")
            .contains("The clock of this machine is 3")
    );
    drop(store);
    fs::remove_file(place.store()).unwrap();
    let (store, _) = place.open();
    assert!(store.lost_at().unwrap() > ahead);
}
