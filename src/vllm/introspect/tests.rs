//! Interpreters that answer, fail and say too much.

use std::io::Write;

use super::*;

#[test]
fn the_interpreter_is_found_in_every_form_of_script() {
    for (head, python) in [
        ("#!/v/bin/python\nimport sys", Some("/v/bin/python")),
        ("#!/v/bin/python3.12 -s\n", Some("/v/bin/python3.12")),
        (
            "#!/bin/sh\n'''exec' \"/long way/bin/python3\" \"$0\" \"$@\"\n' '''",
            Some("/long way/bin/python3"),
        ),
        (
            "#!/bin/sh\n'''exec' /v/bin/python \"$0\" \"$@\"\n",
            Some("/v/bin/python"),
        ),
        ("#!/bin/sh\nexec docker run vllm \"$@\"\n", None),
        ("#!/usr/bin/env python3\n", None),
        ("#!python\n", None),
        ("\u{7f}ELF", None),
        ("", None),
    ] {
        assert_eq!(
            named_interpreter(head),
            python.map(PathBuf::from),
            "{head:?}"
        );
    }
}

/// Writes a script from another process: a descriptor of ours that is open for
/// writing while another test forks would make the script "busy".
fn executable(path: &Path, text: &str) {
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// A stand-in for Python: a shell script that counts its runs.
fn fake(directory: &Path, body: &str) -> Installed {
    let python = directory.join("python3");
    let runs = directory.join("runs");
    let script = format!("#!/bin/sh\necho run >> '{}'\n{body}\n", runs.display());
    executable(&python, &script);
    Installed {
        python,
        text: "0.33.1".to_owned(),
        version: Version::new(0, 33, 1),
    }
}

const GOOD: &str = r#"echo '{"version": "0.33.1", "arguments": [
    {"names": ["--port"], "form": "int", "choices": []},
    {"names": ["--dtype", "-d"], "form": "value", "choices": ["auto", "half"]}]}'"#;
const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_answer_is_kept_and_not_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("state/args");
    let installed = fake(directory.path(), GOOD);
    let args = arguments(&installed, &cache, LIMIT).await.unwrap();
    assert!(args.has("-d") && args.has("--port") && !args.has("--host"));
    assert_eq!(arguments(&installed, &cache, LIMIT).await.unwrap(), args);
    let runs = std::fs::read_to_string(directory.path().join("runs")).unwrap();
    assert_eq!(runs.lines().count(), 1);
    // Another version is asked anew; a broken file too.
    let file = cache.join(file_name(&installed));
    std::fs::write(&file, "nonsense").unwrap();
    assert_eq!(arguments(&installed, &cache, LIMIT).await.unwrap(), args);
}

#[tokio::test]
async fn a_failure_says_what_the_interpreter_said() {
    let directory = tempfile::tempdir().unwrap();
    for (body, part) in [
        (
            "echo 'ModuleNotFoundError: No module named vllm' >&2; exit 1",
            "No module named vllm",
        ),
        ("exit 3", "it said nothing"),
        ("echo hello", "no argument list"),
        (
            "echo '{\"version\": \"0.1.0\", \"arguments\": []}'",
            "0.1.0",
        ),
        (
            "echo '{\"version\": \"0.33.1\", \"arguments\": []}'",
            "no --port",
        ),
        (
            "echo '{\"version\": \"0.33.1\", \"arguments\": [{\"names\": [\"--a\\nb\"], \"form\": \"int\", \"choices\": []}]}'",
            "no argument",
        ),
    ] {
        let installed = fake(directory.path(), body);
        let error = arguments(&installed, directory.path(), LIMIT)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{body}: {error}");
    }
}

#[tokio::test]
async fn a_run_ends_at_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let installed = fake(directory.path(), "exec sleep 1000");
    let limit = Duration::from_millis(50);
    let error = arguments(&installed, directory.path(), limit)
        .await
        .unwrap_err();
    assert!(matches!(error, IntrospectError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn commands_are_looked_up_on_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("vllm");
    std::fs::write(&script, "#!/v/bin/python\n").unwrap();
    let path = std::env::join_paths(["/nowhere".as_ref(), directory.path()]).unwrap();
    let found = find_command(Path::new("vllm"), &path).await.unwrap();
    assert_eq!(found, script);
    assert_eq!(
        interpreter(&found).await.unwrap(),
        Path::new("/v/bin/python")
    );
    assert!(find_command(Path::new("vllm2"), &path).await.is_err());
    assert!(
        find_command(&directory.path().join("none"), &path)
            .await
            .is_err()
    );
}

#[tokio::test]
#[ignore = "needs vLLM 0.32.0: set TIDEGATE_TEST_VLLM to its command"]
async fn an_installed_vllm_tells_what_is_built_in() {
    let command = PathBuf::from(std::env::var_os("TIDEGATE_TEST_VLLM").unwrap());
    let installed = installed(&interpreter(&command).await.unwrap())
        .await
        .unwrap();
    let cache = tempfile::tempdir().unwrap();
    let told = arguments(&installed, cache.path(), ARGUMENTS_TIMEOUT)
        .await
        .unwrap();
    let known = VersionArgs::built_in(installed.version);
    let lines = |args: &VersionArgs| {
        args.to_text()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&told), lines(&known));
    let again = arguments(&installed, cache.path(), Duration::from_millis(1))
        .await
        .unwrap();
    assert_eq!(again, told);
}

#[tokio::test]
async fn output_without_end_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let installed = fake(directory.path(), "head -c 9000000 /dev/zero");
    let error = arguments(&installed, directory.path(), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, IntrospectError::Answer { .. }), "{error}");
}
