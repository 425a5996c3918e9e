//! Directories as they are: what is read in them, and what is not.

use super::*;
use crate::config::check;

#[test]
fn a_missing_directory_takes_nothing_away() {
    let dir = Dir::new(&[("a.toml", &instance("i", "", "x"))]);
    let first = dir.load(None);
    let gone = dir.0.path().join("absent");
    let second = load_catalog(&gone, &[local_queue()], Some(&first));
    assert_eq!(served(&second), served(&first));
    assert_eq!(second.errors[0].file, gone);
    assert!(
        load_catalog(&gone, &[local_queue()], None)
            .routes
            .is_empty()
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let dir = Dir::new(&[]);
    fs::create_dir(dir.0.path().join("dir.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.0.path().join("link.toml")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.0.path().join("socket.toml")).unwrap());
    let catalog = dir.load(None);
    assert_eq!(
        dir.errors(&catalog),
        [
            "dir.toml: this is not a regular file: put a text file here",
            "link.toml: this file does not exist: create it or name another",
            "socket.toml: this is not a regular file: put a text file here",
        ]
    );
}

#[test]
fn what_is_not_read_is_named() {
    let dir = Dir::new(&[
        ("a.toml", ""),
        ("b.tml", ""),
        (".c.toml", ""),
        ("d.toml.bak", ""),
    ]);
    fs::create_dir(dir.0.path().join("more")).unwrap();
    fs::create_dir(dir.0.path().join("..data")).unwrap();
    let named: Vec<_> = unread(dir.0.path())
        .into_iter()
        .map(|(path, why)| format!("{}: {why}", path.file_name().unwrap().display()))
        .collect();
    assert_eq!(
        named,
        [
            ".c.toml: its name begins like that of a hidden or an editor's file",
            "b.tml: its name ends in neither .toml nor .json",
            "d.toml.bak: its name ends in neither .toml nor .json",
            "more: a directory: only files directly in this one are read",
        ]
    );
}

#[test]
fn the_shipped_files_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("routes.d");
    let shipped = load_catalog(&root, &[local_queue()], None);
    assert_eq!(shipped.errors, []);
    assert_eq!(served(&shipped), ["demo [demo] -> [demo/tidegate-demo]"]);
    let examples = load_catalog(&root.join("examples"), &[local_queue()], None);
    assert_eq!(examples.errors, []);
    assert_eq!(
        served(&examples),
        [
            "assistant [assistant] -> [assistant/assistant-8b]",
            "chat [chat gpt-4o-mini] -> []",
            "lab [] -> [lab/large lab/small]",
            "qwen [qwen-large] -> []",
            "team-llms [] -> [team-llms/qwen3-8b]",
        ]
    );
}

#[test]
fn a_check_tells_all_errors_of_all_files() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("tidegate.toml");
    fs::create_dir(home.path().join("routes.d")).unwrap();
    let file = home.path().join("routes.d/a.toml");
    fs::write(&config, "").unwrap();
    fs::write(&file, instance("i", "", "x")).unwrap();
    let summary = check(Some(&config)).unwrap();
    assert_eq!(summary.deployments[0].as_str(), "i/x");
    fs::write(&config, "[gatway]").unwrap();
    fs::write(&file, "[route]").unwrap();
    let errors = check(Some(&config)).unwrap_err();
    let files: Vec<_> = errors.iter().map(|error| &error.file).collect();
    assert_eq!(files, [&config, &file]);
}
