use super::*;
use crate::auth::RevokedSet;

fn grant(expires: u64) -> Grant {
    Grant {
        subject: "user:ana".to_owned(),
        role: Role::Operator,
        projects: vec![Project::new("research").unwrap()],
        token: Some(GrantToken {
            jti: "01A".to_owned(),
            workspace: Workspace::new("acme").unwrap(),
            issued: 1,
            expires,
            label: Some("Ana's".to_owned()),
        }),
        link_by: None,
    }
}

fn open(dir: &std::path::Path) -> (Sessions, Arc<Revocations>) {
    let store = Store::open(dir).unwrap();
    let revocations = Arc::new(Revocations::new(RevokedSet::default()));
    let sessions = Sessions::open(store, Arc::clone(&revocations)).unwrap();
    (sessions, revocations)
}

fn is_found(sessions: &Sessions, cookie: &str) -> bool {
    matches!(sessions.find(cookie), SessionFound::Session(..))
}

#[test]
fn a_session_is_found_by_its_whole_cookie_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (sessions, _) = open(dir.path());
    let begun = sessions
        .begin(grant(u64::MAX), "Browser\n1", "::1")
        .unwrap();
    assert!(is_found(&sessions, &begun.cookie));
    for bad in [
        "",
        "x",
        &begun.id,
        &format!("{}.", begun.id),
        &format!("{}x", begun.cookie),
    ] {
        assert!(!is_found(&sessions, bad), "{bad}");
    }
    drop(sessions);
    let (sessions, _) = open(dir.path());
    let SessionFound::Session(id, session, _) = sessions.find(&begun.cookie) else {
        panic!("the session is gone");
    };
    assert_eq!((&*id, &*session.agent), (&*begun.id, "Browser1"));
    assert!(sessions.end(&begun.id).unwrap());
    assert!(!is_found(&sessions, &begun.cookie));
    drop(sessions);
    assert!(!is_found(&open(dir.path()).0, &begun.cookie));
}

#[test]
fn a_session_ends_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let (sessions, revocations) = open(dir.path());
    let ended = sessions
        .begin(grant(crate::time::unix_seconds()), "", "")
        .unwrap();
    assert!(!is_found(&sessions, &ended.cookie), "its token has ended");
    let begun = sessions.begin(grant(u64::MAX), "", "").unwrap();
    assert!(is_found(&sessions, &begun.cookie));
    revocations.add("01A");
    assert!(!is_found(&sessions, &begun.cookie), "its token is revoked");
}

#[test]
fn an_unused_session_is_over() {
    let session = Session {
        grant: Grant::link("ana".to_owned()),
        secret_hash: String::new(),
        created: 0,
        expires: LIFE_MAX,
        agent: String::new(),
        address: String::new(),
        last_used: 100,
    };
    assert!(!session.is_over(100 + IDLE_MAX - 1));
    assert!(session.is_over(100 + IDLE_MAX));
    assert!(session.is_over(LIFE_MAX));
}

#[test]
fn a_link_logs_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let (sessions, _) = open(dir.path());
    let (code, _) = sessions.link("ana").unwrap();
    assert_eq!(sessions.take_link("other"), None);
    assert_eq!(sessions.take_link(&code).as_deref(), Some("ana"));
    assert_eq!(sessions.take_link(&code), None);
    let first = sessions.link("ana").unwrap().0;
    for _ in 0..LINKS_MAX {
        sessions.link("ana").unwrap();
    }
    assert_eq!(
        sessions.take_link(&first),
        None,
        "too many: the oldest ended"
    );
}
