//! Commands, venvs and wrappers, as shell scripts that stand for them.

use super::*;

use std::io::Write;
use std::process::Stdio;

/// Writes a script from another process: a descriptor of ours that is open for
/// writing while another test forks would make the script "busy".
fn script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// A venv whose interpreter says that it holds this version, and has one argument
/// beside the port.
fn venv(directory: &Path, version: &str) {
    let python = directory.join("bin/python");
    let answer = format!(
        r#"{{"version": "{version}", "arguments": [{{"names": ["--port"], "form": "int", "choices": []}}, {{"names": ["--own"], "form": "switch", "choices": []}}]}}"#
    );
    script(
        &python,
        &format!(
            "#!/bin/sh\ncase \"$2\" in '# Tells'*) echo '{answer}';; *) echo {version};; esac\n"
        ),
    );
    script(
        &directory.join("bin/vllm"),
        &format!("#!{}\n", python.display()),
    );
}

fn installations(root: &Path, command: &Path, versions: &[(&str, &Path)]) -> Installations {
    let versions = versions
        .iter()
        .map(|(v, p)| ((*v).to_owned(), (*p).to_owned()));
    Installations::new(
        Sources {
            command: command.to_owned(),
            versions: versions.collect(),
            venvs: root.join("venvs"),
            cache: root.join("cache"),
            arguments: root.join("arguments"),
            python: PathBuf::from("/no/python"),
            index_url: None,
            pip_arguments: Vec::new(),
            install_timeout: Duration::from_mins(1),
        },
        root.join("path").into_os_string(),
    )
}

const QUIET: Progress<'static> = &|_: &str| {};

#[tokio::test]
async fn without_a_version_the_command_serves_as_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    venv(&root.path().join("venv"), "0.32.0+cpu");
    for command in ["venv", "venv/bin/vllm"] {
        let all = installations(root.path(), &root.path().join(command), &[]);
        let found = all.get(None, QUIET).await.unwrap();
        assert_eq!(found.version, Version::new(0, 32, 0));
        assert_eq!(found.program, root.path().join("venv/bin/vllm"));
        assert_eq!(found.knowledge.source(), Source::BuiltIn);
        assert!(found.doubts.is_empty());
    }
}

#[tokio::test]
async fn a_version_that_is_not_built_in_tells_its_own_arguments() {
    let root = tempfile::tempdir().unwrap();
    venv(&root.path().join("venv"), "0.20.1");
    let all = installations(root.path(), &root.path().join("venv"), &[]);
    let found = all.get(None, QUIET).await.unwrap();
    assert_eq!(found.knowledge.source(), Source::Introspected);
    assert!(found.knowledge.has("--own"));
}

#[tokio::test]
async fn a_named_version_is_the_listed_one_or_the_command_that_is_it() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    venv(&old, "0.7.2");
    venv(&new, "0.32.0+cpu");
    let all = installations(root.path(), &new, &[("0.7.2", &old)]);
    let found = all.get(Some("0.7.2"), QUIET).await.unwrap();
    assert_eq!(found.program, old.join("bin/vllm"));
    let found = all.get(Some("0.32.0"), QUIET).await.unwrap();
    assert_eq!(found.program, new.join("bin/vllm"));
    // It would be installed; here with a Python that is not there.
    assert_eq!(all.look(Some("0.31.0"), QUIET).await.unwrap(), None);
    let error = all.get(Some("0.31.0"), QUIET).await.unwrap_err();
    assert!(error.to_string().contains("/no/python"), "{error}");
}

#[tokio::test]
async fn a_listed_version_that_is_another_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let old = root.path().join("old");
    venv(&old, "0.7.2");
    let all = installations(root.path(), &old, &[("0.9.2", &old)]);
    let error = all.get(Some("0.9.2"), QUIET).await.unwrap_err();
    assert!(
        error.to_string().contains("is vLLM 0.7.2, not 0.9.2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrapper_is_asked_for_its_version_once() {
    let root = tempfile::tempdir().unwrap();
    let (wrapper, runs) = (root.path().join("wrap"), root.path().join("runs"));
    let text = format!(
        "#!/bin/sh\necho run >> '{}'\necho 'INFO loading\n0.7.2'\n",
        runs.display()
    );
    script(&wrapper, &text);
    let all = installations(root.path(), &wrapper, &[]);
    for _ in 0..2 {
        let found = all.get(None, QUIET).await.unwrap();
        assert_eq!(found.version, Version::new(0, 7, 2));
        assert_eq!(found.program, wrapper);
    }
    assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn a_wrapper_that_does_not_tell_is_taken_for_the_newest_and_that_is_said() {
    let root = tempfile::tempdir().unwrap();
    let wrapper = root.path().join("wrap");
    script(&wrapper, "#!/bin/sh\nexit 3\n");
    let all = installations(root.path(), &wrapper, &[]);
    let found = all.get(None, QUIET).await.unwrap();
    assert_eq!(found.version, VERSION_ASSUMED);
    assert!(
        found.doubts[0].contains("instance.vllm_version"),
        "{:?}",
        found.doubts
    );
}

#[tokio::test]
async fn a_missing_command_says_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let all = installations(root.path(), Path::new("vllm"), &[]);
    let error = all.get(None, QUIET).await.unwrap_err().to_string();
    assert!(
        error.contains("not found on PATH") && error.contains("\"sim\""),
        "{error}"
    );
    let file = root.path().join("plain");
    std::fs::write(&file, "").unwrap();
    let all = installations(root.path(), &file, &[]);
    let error = all.get(None, QUIET).await.unwrap_err().to_string();
    assert!(error.contains("there is no vllm at"), "{error}");
    assert_eq!(all.assumed(None).unwrap().version, VERSION_ASSUMED);
    assert!(all.assumed(Some("latest")).is_err());
}

#[test]
fn relative_paths_are_made_whole_and_bare_names_stay() {
    let all = installations(
        Path::new("state"),
        Path::new("vllm"),
        &[("0.7.2", Path::new("a/b"))],
    );
    let sources = all.sources();
    assert_eq!(sources.command, Path::new("vllm"));
    let paths = [&sources.venvs, &sources.cache, &sources.arguments];
    let versions = sources.versions.values();
    assert!(
        paths
            .into_iter()
            .chain(versions)
            .all(|path| path.is_absolute())
    );
}
