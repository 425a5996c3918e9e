//! Every way in which a directory of files changes.

use std::os::unix::fs::symlink;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// A directory that is watched, and a place beside it on the same disk.
struct Fixture {
    home: tempfile::TempDir,
    dir: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("routes.d");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a.toml"), "one").unwrap();
        Self { home, dir }
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

/// Waits for a change to be told; fails after a minute.
async fn told(watcher: &mut Watcher) {
    tokio::time::timeout(Duration::from_mins(1), watcher.changed())
        .await
        .expect("the change should be told");
}

/// True if nothing is told any more: looks once more, as the next poll would.
fn is_settled(watcher: &Watcher) -> bool {
    let mut state = lock(&watcher.state);
    state.look();
    !state.changed
}

/// Makes a change, and expects it to be told by events alone, then by polls alone.
async fn check(change: impl Fn(&Fixture)) {
    for (poll, events) in [(HOUR, true), (Duration::from_millis(5), false)] {
        let fixture = Fixture::new();
        let mut watcher = Watcher::with(&fixture.dir, poll, events);
        assert!(is_settled(&watcher), "nothing has changed yet");
        change(&fixture);
        told(&mut watcher).await;
        // Once told, a further change is told too: the watch is still in place.
        fs::write(fixture.dir.join("later.toml"), "x").unwrap();
        told(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_file_written_in_place_is_told() {
    check(|f| fs::write(f.dir.join("a.toml"), "longer").unwrap()).await;
}

#[tokio::test]
async fn a_new_file_is_told() {
    check(|f| fs::write(f.dir.join("b.json"), "{}").unwrap()).await;
}

#[tokio::test]
async fn a_file_that_an_editor_renames_into_place_is_told() {
    check(|f| {
        fs::write(f.dir.join("4913"), "").unwrap();
        fs::remove_file(f.dir.join("4913")).unwrap();
        fs::rename(f.dir.join("a.toml"), f.dir.join("a.toml~")).unwrap();
        fs::write(f.dir.join(".a.toml.swp"), "two").unwrap();
        fs::rename(f.dir.join(".a.toml.swp"), f.dir.join("a.toml")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_moved_in_from_elsewhere_is_told() {
    check(|f| {
        fs::write(f.aside("new"), "two").unwrap();
        fs::rename(f.aside("new"), f.dir.join("a.toml")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_deleted_and_made_again_is_told() {
    check(|f| {
        fs::remove_file(f.dir.join("a.toml")).unwrap();
        fs::write(f.dir.join("a.toml"), "one").unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_deleted_file_is_told() {
    check(|f| fs::remove_file(f.dir.join("a.toml")).unwrap()).await;
}

#[tokio::test]
async fn a_directory_replaced_whole_is_told() {
    check(|f| {
        fs::create_dir(f.aside("next")).unwrap();
        fs::write(f.aside("next").join("a.toml"), "two").unwrap();
        fs::rename(&f.dir, f.aside("last")).unwrap();
        fs::rename(f.aside("next"), &f.dir).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_directory_deleted_and_made_again_is_told() {
    check(|f| {
        fs::remove_dir_all(&f.dir).unwrap();
        fs::create_dir(&f.dir).unwrap();
        fs::write(f.dir.join("a.toml"), "two").unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_comes_later_is_told() {
    for (poll, events) in [(HOUR, true), (Duration::from_millis(5), false)] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("routes.d");
        let mut watcher = Watcher::with(&dir, poll, events);
        fs::create_dir(&dir).unwrap();
        told(&mut watcher).await;
        fs::write(dir.join("a.toml"), "one").unwrap();
        told(&mut watcher).await;
    }
}

#[tokio::test]
async fn the_swap_of_a_kubernetes_volume_is_told() {
    for (poll, events) in [(HOUR, true), (Duration::from_millis(5), false)] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        for (version, text) in [("..2026_1", "one"), ("..2026_2", "two")] {
            fs::create_dir(dir.join(version)).unwrap();
            fs::write(dir.join(version).join("a.toml"), text).unwrap();
        }
        symlink("..2026_1", dir.join("..data")).unwrap();
        symlink("..data/a.toml", dir.join("a.toml")).unwrap();
        let mut watcher = Watcher::with(dir, poll, events);
        symlink("..2026_2", dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        fs::remove_dir_all(dir.join("..2026_1")).unwrap();
        told(&mut watcher).await;
        assert_eq!(fs::read_to_string(dir.join("a.toml")).unwrap(), "two");
    }
}

#[tokio::test]
async fn a_directory_behind_a_link_that_is_turned_is_told() {
    for (poll, events) in [(HOUR, true), (Duration::from_millis(5), false)] {
        let home = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(home.path().join(version)).unwrap();
            fs::write(home.path().join(version).join("a.toml"), version).unwrap();
        }
        let dir = home.path().join("routes.d");
        symlink("v1", &dir).unwrap();
        let mut watcher = Watcher::with(&dir, poll, events);
        symlink("v2", home.path().join("next")).unwrap();
        fs::rename(home.path().join("next"), &dir).unwrap();
        told(&mut watcher).await;
        fs::write(home.path().join("v2/b.toml"), "x").unwrap();
        told(&mut watcher).await;
    }
}

#[tokio::test]
async fn what_was_noticed_is_told_after_a_cancelled_wait() {
    let fixture = Fixture::new();
    let mut watcher = Watcher::with(&fixture.dir, HOUR, true);
    fs::write(fixture.dir.join("a.toml"), "two").unwrap();
    // Each wait is given up long before the quiet time has passed.
    let impatient = async {
        let brief = Duration::from_millis(1);
        while tokio::time::timeout(brief, watcher.changed())
            .await
            .is_err()
        {}
    };
    let told = tokio::time::timeout(Duration::from_mins(1), impatient).await;
    assert!(told.is_ok(), "the change should be told");
}

#[test]
fn files_of_editors_do_not_concern_it() {
    let dir = Path::new("/etc/routes.d");
    for name in ["a.toml", "a.json", "..data", "..2026_11_23"] {
        assert!(concerns(dir, &dir.join(name)), "{name}");
    }
    for name in [
        "4913",
        "a.toml~",
        ".a.toml.swp",
        ".#a.toml",
        "#a.toml#",
        "README.md",
        "sub/a.toml",
    ] {
        assert!(!concerns(dir, &dir.join(name)), "{name}");
    }
}
