use std::os::unix::fs::symlink;

use super::super::record::KeptFile;
use super::*;

/// A cache with one model of two commits that share a content.
fn laid_out(dir: &Path) -> (PathBuf, FetchRecord) {
    let folder = dir.join("hub/models--acme--tiny");
    for (commit, blob) in [("1111", "one"), ("2222", "two")] {
        let snapshot = folder.join("snapshots").join(commit);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(folder.join("blobs")).unwrap();
        fs::write(folder.join("blobs").join(blob), blob).unwrap();
        fs::write(folder.join("blobs/shared"), "{}").unwrap();
        symlink(format!("../../blobs/{blob}"), snapshot.join("weights.bin")).unwrap();
        symlink("../../blobs/shared", snapshot.join("config.json")).unwrap();
    }
    fs::create_dir_all(folder.join("refs/pr")).unwrap();
    fs::write(folder.join("refs/main"), "2222").unwrap();
    fs::write(folder.join("refs/pr/7"), "1111").unwrap();
    (folder, FetchRecord::at(&dir.join("state")))
}

fn kept(folder: &Path, commit: &str, files: &[(&str, &str, u64, bool)]) -> KeptModel {
    let file = |(name, blob, size, ours): &(&str, &str, u64, bool)| KeptFile {
        name: (*name).to_owned(),
        size: *size,
        blob: Some((*blob).to_owned()),
        ours: *ours,
    };
    KeptModel {
        name: "acme/tiny".to_owned(),
        revision: if commit == "1111" { "pr/7" } else { "main" }.to_owned(),
        commit: commit.to_owned(),
        folder: folder.to_owned(),
        files: files.iter().map(file).collect(),
        fetched: 5,
    }
}

#[test]
fn the_cache_stands_where_the_library_looks() {
    let place = |variables: &[(&str, &str)]| {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
        place(|name| found(name).map(|(_, value)| OsString::from(value)))
    };
    for (variables, path) in [
        (vec![("HOME", "/h")], "/h/.cache/huggingface/hub"),
        (
            vec![("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
            "/x/huggingface/hub",
        ),
        (vec![("HOME", "/h"), ("HF_HOME", "~/hf")], "/h/hf/hub"),
        (vec![("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")], "/c"),
        (vec![("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")], "/hf/hub"),
    ] {
        assert_eq!(place(&variables), Some(path.into()), "{variables:?}");
    }
    assert_eq!(place(&[]), None);
}

#[test]
fn a_scan_tells_what_is_whole_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = laid_out(dir.path());
    let ours = kept(&folder, "1111", &[("weights.bin", "one", 30, true)]);
    let gone = kept(
        &dir.path().join("other/models--acme--tiny"),
        "3333",
        &[("a", "b", 9, true)],
    );
    let found = scan(&dir.path().join("hub"), &[ours, gone]);
    let told: Vec<_> = found
        .iter()
        .map(|model| {
            (
                model.commit.as_str(),
                model.revisions.join(" "),
                model.wholeness.clone(),
            )
        })
        .collect();
    let part = |there, total| Wholeness::Part {
        there,
        total: Some(total),
    };
    assert_eq!(
        told,
        [
            ("1111", "pr/7".to_owned(), part(0, 30)),
            ("2222", "main".to_owned(), Wholeness::Whole),
            ("3333", String::new(), part(0, 9)),
        ]
    );
    fs::remove_file(folder.join("blobs/two")).unwrap();
    let found = scan(&dir.path().join("hub"), &[]);
    assert!(matches!(&found[1].wholeness, Wholeness::Broken(why) if why.contains("link")));
    fs::write(folder.join("blobs/two.abc.incomplete"), "t").unwrap();
    let found = scan(&dir.path().join("hub"), &[]);
    assert!(matches!(
        found[1].wholeness,
        Wholeness::Part { total: None, .. }
    ));
}

#[test]
fn what_an_engine_finds_is_known_by_files_and_record() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = laid_out(dir.path());
    let cache = dir.path().join("hub");
    let found = |revision, record: &[KeptModel]| presence(&cache, "acme/tiny", revision, record);
    assert_eq!(found(None, &[]), Presence::Whole);
    assert_eq!(found(Some("pr/7"), &[]), Presence::Whole);
    assert_eq!(found(Some("1111"), &[]), Presence::Whole);
    assert_eq!(found(Some("v9"), &[]), Presence::Nothing);
    assert_eq!(presence(&cache, "acme/none", None, &[]), Presence::Nothing);
    // By its record another file is still to come.
    let ours = kept(&folder, "2222", &[("more.bin", "three", 3, true)]);
    assert_eq!(found(None, &[ours]), Presence::Begun);
    fs::remove_file(folder.join("blobs/two")).unwrap();
    assert_eq!(found(None, &[]), Presence::Part);
}

#[test]
fn only_what_we_brought_is_removed_and_only_what_no_other_commit_has() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, record) = laid_out(dir.path());
    let files = [
        ("weights.bin", "one", 3, true),
        ("config.json", "shared", 2, true),
    ];
    let freed = remove(&kept(&folder, "1111", &files), &record).unwrap();
    assert_eq!(freed, 3);
    assert!(!folder.join("snapshots/1111").exists());
    assert!(!folder.join("refs/pr").exists());
    assert!(folder.join("snapshots/2222/config.json").exists());
    // Somebody else's weights stay, with what leads to them.
    let files = [
        ("weights.bin", "two", 3, false),
        ("config.json", "shared", 2, true),
    ];
    let freed = remove(&kept(&folder, "2222", &files), &record).unwrap();
    assert_eq!(freed, 2);
    assert!(folder.join("snapshots/2222/weights.bin").exists());
    assert!(folder.join("refs/main").exists());
    let files = [("weights.bin", "two", 3, true)];
    remove(&kept(&folder, "2222", &files), &record).unwrap();
    assert!(!folder.exists());
}
