//! The store of tokens as a running process has it: lost, killed, asked in the wrong
//! place.

use std::process::Output;

use tidegate::time::Instant;

use super::*;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(directory).args(arguments);
    command.env_remove("TIDEGATE_CONFIG").output().unwrap()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

/// Requests that are in the store of a gateway that has ended, of all tokens.
pub(super) fn kept_requests(place: &Path) -> u64 {
    let output = run(place, &["token", "usage", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let uses = told.as_array().unwrap().iter();
    uses.map(|of| of.get("requests").unwrap().as_u64().unwrap())
        .sum()
}

/// Asks once with a token: the status and the whole answer.
fn ask(place: &Place, token: &str) -> String {
    let body = r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(place.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn token(place: &Place) -> String {
    let made = run(
        place.path(),
        &["token", "create", "--workspace", "w", "--project", "demo"],
    );
    assert!(made.status.success(), "{}", said(&made));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// The ids of tokens, the newest first.
fn ids(place: &Place) -> Vec<String> {
    let listed = run(place.path(), &["token", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let ids = listed.as_array().unwrap().iter();
    ids.map(|of| of.get("jti").unwrap().as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn commands_where_no_gateway_ever_was_do_nothing_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["token", "create", "--workspace", "w"][..],
        &["token", "revoke", "01A"],
        &["token", "cut-off", "--workspace", "w"],
        &["token", "rotate-key"],
        &["token", "list"],
        &["token", "usage"],
        &["token", "show", "x"],
        &["state", "export", "backup"],
        &["state", "set-back-clock"],
    ] {
        let output = run(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = said(&output);
        assert!(said.contains("nothing was done"), "{arguments:?}: {said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A client that keeps its connection.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn new(place: &Place) -> Self {
        Self(BufReader::new(connect(place.address).unwrap()))
    }

    /// Asks with a token: the head of the answer.
    fn ask(&mut self, token: &str) -> String {
        let body = r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        answer(&mut self.0).unwrap()
    }
}

#[test]
fn a_gateway_that_was_taken_over_from_serves_no_token_that_was_revoked_since() {
    let place = Place::new();
    let mut old = place.start(&[]);
    old.says("\"message\":\"ready\"");
    let (good, revoked) = (token(&place), token(&place));
    let id = ids(&place).swap_remove(0);
    let mut kept: Vec<Kept> = (0..3).map(|_| Kept::new(&place)).collect();
    for (client, token) in kept.iter_mut().zip([&revoked, &good, &good]) {
        assert!(client.ask(token).starts_with("http/1.1 200"));
    }
    let mut new = place.start(&["--take-over"]);
    new.says("\"message\":\"ready\"");
    old.says("the new gateway serves");
    let output = run(place.path(), &["token", "revoke", &id]);
    assert!(output.status.success(), "{}", said(&output));
    let news = place.path().join(".tidegate/refusals.recent");
    let mut last = |number: usize, token: &str| {
        let head = kept[number].ask(token);
        assert!(head.contains("connection: close"), "{head}");
        head
    };
    // All three are still with the old one, which answers each a last time.
    let head = last(0, &revoked);
    assert!(head.starts_with("http/1.1 401"), "{head}");
    let head = last(1, &good);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    fs::remove_file(news).unwrap();
    let head = last(2, &good);
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(ask(&place, &good).starts_with("HTTP/1.1 200"));
    assert!(ask(&place, &revoked).contains("token_revoked"));
    assert!(old.child.wait().unwrap().success());
    new.end();
}

#[test]
fn a_store_that_is_lost_lets_no_revoked_token_in_again() {
    let place = Place::new();
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    let revoked = token(&place);
    assert!(ask(&place, &revoked).starts_with("HTTP/1.1 200"));
    let id = ids(&place).swap_remove(0);
    let output = run(place.path(), &["token", "revoke", &id]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(ask(&place, &revoked).contains("token_revoked"));
    running.end();
    let store = place.path().join(".tidegate/store.redb");
    for lose in [&|| fs::write(&store, "").unwrap(), &|| {
        fs::remove_dir_all(place.path().join(".tidegate")).unwrap();
    }] as [&dyn Fn(); 2]
    {
        lose();
        if !store.exists() {
            let output = run(place.path(), &["token", "revoke", &id]);
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains("is gone"), "{}", said(&output));
        }
        let mut running = place.start(&[]);
        running.says("\"message\":\"ready\"");
        let answer = ask(&place, &revoked);
        assert!(answer.contains("token_store_lost"), "{answer}");
        let told = said(&run(place.path(), &["ps"]));
        assert!(told.contains("The store was lost"), "{told}");
        assert!(ask(&place, &token(&place)).starts_with("HTTP/1.1 200"));
        running.end();
    }
}

#[test]
fn a_kill_loses_no_usage_but_that_of_the_last_moment() {
    let place = Place::new();
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    let token = place.token();
    // A worker that comes up is tasted first.
    assert!(ask(&place, &token).starts_with("HTTP/1.1 200"));
    let begun = Instant::now();
    let mut answered = vec![begun];
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(ask(&place, &token).starts_with("HTTP/1.1 200"));
        answered.push(Instant::now());
    }
    running.child.kill().unwrap();
    let killed = Instant::now();
    running.child.wait().unwrap();
    // The store's own test holds half a second; a loaded machine may be late.
    let margin = Duration::from_secs(2);
    let old = answered
        .iter()
        .filter(|at| killed.duration_since(**at) > margin);
    let (old, kept) = (old.count() as u64, kept_requests(place.path()));
    assert!(old > 0 && kept >= old, "{kept} of {old}");
    assert!(kept <= answered.len() as u64, "some count twice");
}

#[test]
fn a_backup_makes_the_state_again_and_forgets_no_revocation() {
    let place = Place::new();
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    let (revoked, good) = (token(&place), token(&place));
    assert!(ask(&place, &good).starts_with("HTTP/1.1 200"));
    // The newest is the good one; the other is before it.
    let id = ids(&place).swap_remove(1);
    assert!(
        run(place.path(), &["token", "revoke", &id])
            .status
            .success()
    );
    let done = |arguments: &[&str]| {
        let output = run(place.path(), arguments);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let refused = |arguments: &[&str], why: &str| {
        let output = run(place.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why), "{}", said(&output));
    };
    done(&["state", "export", "backup"]);
    refused(&["state", "import", "backup"], "a gateway runs here");
    running.end();
    refused(&["state", "import", "backup"], "--replace");
    let whole = fs::read(place.path().join("backup")).unwrap();
    fs::write(place.path().join("half"), &whole[..whole.len() / 2]).unwrap();
    refused(&["state", "import", "half", "--replace"], "not whole");
    let lose = || {
        fs::remove_dir_all(place.path().join(".tidegate")).unwrap();
        fs::remove_dir_all(place.path().join("certs")).unwrap();
    };
    // Where nothing tells that nothing was revoked since, the backup is not trusted.
    for (arguments, expected) in [
        (&["state", "import", "backup"][..], "token_store_lost"),
        (&["state", "import", "backup", "--trust"], "HTTP/1.1 200"),
    ] {
        lose();
        done(arguments);
        let mut running = place.start(&[]);
        running.says("\"message\":\"ready\"");
        let answer = ask(&place, &good);
        assert!(answer.contains(expected), "{answer}");
        assert!(ask(&place, &revoked).contains("token_revoked"));
        running.end();
    }
    // Where the key knows that nothing was, it is.
    let store = place.path().join(".tidegate/store.redb");
    done(&["state", "export", "backup"]);
    fs::remove_file(&store).unwrap();
    done(&["state", "import", "backup"]);
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    assert!(ask(&place, &good).starts_with("HTTP/1.1 200"));
    assert!(ask(&place, &revoked).contains("token_revoked"));
    running.end();
}
