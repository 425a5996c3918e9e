//! Installs with stand-ins for uv and pip.

use std::io::Write;
use std::process::Stdio;
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

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

/// A uv that notes its arguments. `venv` makes a Python that knows its package's
/// version; `pip` does what `pip` says.
fn fake_uv(directory: &Path, pip: &str) -> Install {
    let uv = directory.join("uv");
    let log = directory.join("log");
    let script = format!(
        r#"#!/bin/sh
echo "$@" >> '{log}'
for last; do :; done
case "$1" in
venv)
  mkdir -p "$last/bin"
  printf '#!/bin/sh\necho 0.32.0\n' > "$last/bin/python"
  chmod 755 "$last/bin/python" ;;
pip)
  bin=$(dirname "$4")
  {pip} ;;
esac
"#,
        log = log.display()
    );
    executable(&uv, &script);
    Install {
        package: "vllm".to_owned(),
        version: "0.32.0".to_owned(),
        program: Some("vllm".to_owned()),
        venvs: directory.join("venvs"),
        cache: directory.join("cache"),
        uv: Some(uv),
        python: PathBuf::from("python3"),
        index_url: Some("https://index.example/simple".to_owned()),
        arguments: vec!["--no-deps".to_owned()],
        limit: Duration::from_mins(1),
    }
}

const GOOD: &str = r#"echo "Resolved 1 package"; echo "cache $UV_CACHE_DIR" >&2; : > "$bin/vllm""#;

fn calls(directory: &Path, what: &str) -> usize {
    let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    log.lines().filter(|line| line.starts_with(what)).count()
}

#[tokio::test]
async fn a_version_is_installed_once_and_then_found() {
    let directory = tempfile::tempdir().unwrap();
    let install = fake_uv(directory.path(), GOOD);
    let heard = Mutex::new(Vec::new());
    let progress = |line: &str| heard.lock().unwrap().push(line.to_owned());
    let environment = install.install(&progress).await.unwrap();
    assert_eq!(environment.directory, directory.path().join("venvs/0.32.0"));
    assert!(environment.program.clone().unwrap().exists());
    let heard = heard.lock().unwrap().join("\n");
    for part in [
        "installing vllm==0.32.0",
        "Resolved 1 package",
        "cache/uv",
        "is ready",
    ] {
        assert!(heard.contains(part), "{part}: {heard}");
    }
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(
        log.contains("--index-url https://index.example/simple --no-deps vllm==0.32.0"),
        "{log}"
    );
    assert_eq!(install.install(&|_| {}).await.unwrap(), environment);
    assert_eq!(install.ready().await, Some(environment));
    assert_eq!(
        (
            calls(directory.path(), "venv"),
            calls(directory.path(), "pip")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_failure_is_explained_and_the_next_try_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    for (said, meaning) in [
        (
            "No solution found when resolving dependencies",
            "no such version",
        ),
        ("dns error: failed to lookup", "can't be reached"),
        ("No space left on device (os error 28)", "disk is full"),
        ("something else", "ended with"),
    ] {
        let install = fake_uv(directory.path(), &format!("echo '{said}' >&2; exit 1"));
        let error = install.install(&|_| {}).await.unwrap_err().to_string();
        assert!(error.contains(meaning) && error.contains(said), "{error}");
        assert_eq!(install.ready().await, None);
    }
    let install = fake_uv(directory.path(), GOOD);
    install.install(&|_| {}).await.unwrap();
    // The environment was made by the first try.
    assert_eq!(
        (
            calls(directory.path(), "venv"),
            calls(directory.path(), "pip")
        ),
        (1, 5)
    );
}

#[tokio::test]
async fn two_at_once_install_once() {
    let directory = tempfile::tempdir().unwrap();
    let install = fake_uv(directory.path(), GOOD);
    let (a, b) = tokio::join!(install.install(&|_| {}), install.install(&|_| {}));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(calls(directory.path(), "pip"), 1);
}

#[tokio::test]
async fn an_install_that_brings_the_wrong_thing_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let install = fake_uv(directory.path(), ":");
    let error = install.install(&|_| {}).await.unwrap_err();
    assert!(matches!(error, InstallError::Incomplete { .. }), "{error}");
    let mut install = fake_uv(directory.path(), GOOD);
    install.version = "0.31.0".to_owned();
    let error = install.install(&|_| {}).await.unwrap_err();
    assert!(
        error.to_string().contains("it says that it is 0.32.0"),
        "{error}"
    );
    assert_eq!(install.ready().await, None);
}

#[tokio::test]
async fn a_limit_ends_the_installer_with_its_processes() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    // A process of the installer's own, as a compiler would be.
    let body = format!("sleep 1000 & echo $! > '{}'; wait", pid.display());
    let install = fake_uv(directory.path(), &body);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let progress = |_: &str| {};
    let child = {
        let running = install.install(&progress);
        tokio::pin!(running);
        let started = async {
            while !std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')) {
                tokio::task::yield_now().await;
            }
            drop(sender);
        };
        tokio::select! {
            _ = &mut running => panic!("it ended"),
            () = started => {}
        }
        assert!(receiver.await.is_err());
        let text = std::fs::read_to_string(&pid).unwrap();
        let pid = rustix::process::Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
    };
    // The install was dropped, so its group is killed; a pidfd is readable once its
    // process has ended.
    let ended = tokio::task::spawn_blocking(move || {
        let mut fds = [PollFd::new(&child, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&limit))
    });
    assert_eq!(ended.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_version_that_is_none_never_reaches_a_path_or_a_command() {
    let directory = tempfile::tempdir().unwrap();
    let mut install = fake_uv(directory.path(), GOOD);
    for bad in ["../x", "latest", "0.32.0; id", "--help", "0.32.0/..", ""] {
        install.version = bad.to_owned();
        let error = install.install(&|_| {}).await.unwrap_err();
        assert!(matches!(error, InstallError::Version(_)), "{bad}: {error}");
    }
    assert!(!install.venvs.exists());
}

#[tokio::test]
async fn pip_is_used_where_uv_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let python = directory.path().join("python3");
    let script = format!(
        r#"#!/bin/sh
echo "$@" >> '{log}'
for last; do :; done
case "$2" in
venv) mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
pip) : > "$(dirname "$0")/vllm" ;;
*) echo 0.32.0 ;;
esac
"#,
        log = log.display()
    );
    executable(&python, &script);
    let mut install = fake_uv(directory.path(), GOOD);
    install.uv = None;
    install.python = python;
    install.install(&|_| {}).await.unwrap();
    assert_eq!(calls(directory.path(), "-m venv --clear"), 1);
    assert_eq!(calls(directory.path(), "-m pip install --index-url"), 1);
}

#[tokio::test]
#[ignore = "needs the network: installs a small package with pip, and with uv if it is found"]
async fn a_real_package_is_installed() {
    let path = std::env::var_os("PATH").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let uv = introspect::find_command(Path::new("uv"), &path).await.ok();
    for uv in [None, uv] {
        let mut install = fake_uv(directory.path(), GOOD);
        install.venvs = directory.path().join(format!("venvs-{}", uv.is_some()));
        install.package = "six".to_owned();
        install.version = "1.17.0".to_owned();
        install.program = None;
        install.uv = uv;
        install.index_url = None;
        install.arguments = Vec::new();
        install.install(&|_| {}).await.unwrap();
        install.version = "99.0.0".to_owned();
        let error = install.install(&|_| {}).await.unwrap_err().to_string();
        assert!(error.contains("no such version"), "{error}");
    }
}
