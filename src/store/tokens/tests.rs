use serde_json::json;

use super::*;
use crate::auth::{Pattern, Role, TokenKind, TokenLimits};
use crate::names::Project;

const NOW: u64 = 1_800_000_000;

fn record(jti: &str, workspace: &str) -> TokenRecord {
    TokenRecord {
        jti: jti.to_owned(),
        workspace: Workspace::new(workspace).unwrap(),
        subject: "user:ana".to_owned(),
        kind: TokenKind::Endpoint,
        role: Role::User,
        projects: vec![Project::new("research").unwrap()],
        endpoints: vec![Pattern::new("qwen3-*").unwrap()],
        label: Some("nightly".to_owned()),
        metadata: json!({"team": {"name": "nlp"}}).as_object().cloned(),
        may_load: false,
        limits: TokenLimits {
            rpm: Some(3),
            ..TokenLimits::default()
        },
        created: NOW,
        expires: NOW + 60,
        created_by: Some("admin.sock".to_owned()),
        created_by_workspace: None,
        revoked: None,
        issuer: None,
    }
}

fn ids(page: &TokenPage) -> Vec<&str> {
    page.records.iter().map(|r| r.jti.as_str()).collect()
}

#[test]
fn records_and_revocations_outlive_a_store_that_was_only_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put_token(&record("01A", "acme")).unwrap();
    assert_eq!(store.revoke_token("01A", NOW).unwrap().moment, NOW);
    assert_eq!(
        store.revoke_token("unknown", NOW + 1).unwrap().moment,
        NOW + 1
    );
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let expected = TokenRecord {
        revoked: Some(NOW),
        ..record("01A", "acme")
    };
    assert_eq!(store.token("01A").unwrap(), Some(expected));
    assert_eq!(store.token("unknown").unwrap(), None);
    let set = store.revoked_tokens().unwrap();
    assert!(set.tokens.contains("01A") && set.tokens.contains("unknown"));
    assert_eq!(set.tokens.len(), 2);
}

#[test]
fn a_revocation_keeps_its_first_time_and_survives_a_new_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.revoke_token("01A", NOW).unwrap();
    assert_eq!(store.revoke_token("01A", NOW + 9).unwrap().moment, NOW);
    store.put_token(&record("01A", "acme")).unwrap();
    assert_eq!(store.token("01A").unwrap().unwrap().revoked, Some(NOW));
}

#[test]
fn a_record_shows_that_its_workspace_or_subject_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let acme = Workspace::new("acme").unwrap();
    store.put_token(&record("01A", "acme")).unwrap();
    store.put_token(&record("01B", "other")).unwrap();
    let revoked = |jti: &str| store.token(jti).unwrap().unwrap().revoked;
    store.cut_off(&acme, Some("user:bob"), NOW).unwrap();
    assert_eq!(revoked("01A"), None);
    store.cut_off(&acme, Some("user:ana"), NOW).unwrap();
    assert_eq!((revoked("01A"), revoked("01B")), (Some(NOW + 1), None));
    let later = TokenRecord {
        created: NOW + 1,
        ..record("01C", "acme")
    };
    store.put_token(&later).unwrap();
    assert_eq!(revoked("01C"), None);
    store.cut_off(&acme, None, NOW + 9).unwrap();
    let page = store.tokens(Some(&acme), None, 9).unwrap();
    assert!(page.records.iter().all(|r| r.revoked == Some(NOW + 10)));
}

#[test]
fn pages_go_from_the_newest_to_the_oldest_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (jti, workspace) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "a"), ("5", "b")] {
        store.put_token(&record(jti, workspace)).unwrap();
    }
    let first = store.tokens(None, None, 2).unwrap();
    assert_eq!(
        (ids(&first), first.next.as_deref()),
        (vec!["5", "4"], Some("4"))
    );
    let second = store.tokens(None, first.next.as_deref(), 2).unwrap();
    assert_eq!(
        (ids(&second), second.next.as_deref()),
        (vec!["3", "2"], Some("2"))
    );
    let third = store.tokens(None, second.next.as_deref(), 2).unwrap();
    assert_eq!((ids(&third), third.next.as_deref()), (vec!["1"], None));
    let a = Workspace::new("a").unwrap();
    let own = store.tokens(Some(&a), None, 500).unwrap();
    assert_eq!(
        (ids(&own), own.next.as_deref()),
        (vec!["4", "3", "1"], None)
    );
}

#[test]
fn what_ended_is_forgotten_after_thirty_days_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put_token(&record("01A", "acme")).unwrap();
    store.revoke_token("01A", NOW).unwrap();
    store.revoke_token("unknown", NOW).unwrap();
    let end = NOW + 60 + KEPT_AFTER_END;
    assert_eq!(store.purge_expired_tokens(end - 1).unwrap(), 0);
    assert_eq!(store.revoked_tokens().unwrap().tokens.len(), 2);
    assert_eq!(store.purge_expired_tokens(end).unwrap(), 1);
    assert_eq!(store.token("01A").unwrap(), None);
    let set = store.revoked_tokens().unwrap();
    assert!(set.tokens.len() == 1 && set.tokens.contains("unknown"));
}

#[test]
fn a_text_that_is_no_token_id_is_not_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for bad in ["", "a b", "a\n", &"x".repeat(801)] {
        let error = store.revoke_token(bad, NOW).unwrap_err();
        assert!(matches!(error, StoreError::TokenId(_)), "{bad:?}");
    }
    assert_eq!(store.revoked_tokens().unwrap(), RevokedSet::default());
}

#[test]
fn a_record_that_can_not_be_read_is_named_and_can_be_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .write(|transaction| {
            transaction
                .open_table(TOKENS)?
                .insert("01A", b"{}".as_slice())?;
            Ok(())
        })
        .unwrap();
    let error = store.tokens(None, None, 9).unwrap_err().to_string();
    assert!(error.contains("token 01A"), "{error}");
    assert_eq!(store.revoke_token("01A", NOW).unwrap().moment, NOW);
}
