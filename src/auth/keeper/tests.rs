//! Keys from files, and what a change of them does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::auth::foreign::{Terms, WorkspaceFrom};
use crate::auth::keys::rotate;
use crate::auth::{Denied, Role, TokenLimits, TokenSpec};
use crate::names::Workspace;

const NOW: u64 = 1_800_000_000;

fn sources(dir: &Path) -> KeySources {
    KeySources {
        issuer: "tidegate".to_owned(),
        audience: "here".to_owned(),
        signing_key: dir.join("tokens.key"),
        previous_keys: None,
        shared_secret: None,
        trusted: Vec::new(),
    }
}

fn load(sources: KeySources) -> Result<LoadedKeys, KeysError> {
    Keys::load(sources, Arc::default())
}

fn issue(keys: &Keys) -> String {
    let spec = TokenSpec {
        workspace: Workspace::new("acme").unwrap(),
        subject: None,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        label: None,
        ttl: Duration::from_hours(1),
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    };
    let now = Duration::from_secs(NOW);
    keys.issuer().issue(spec, now).unwrap().0
}

fn verify(keys: &Keys, token: &str) -> Option<Denied> {
    keys.verifier().verify(token, NOW).err()
}

fn terms() -> Terms {
    Terms {
        issuer: Arc::from("idp"),
        audience: Arc::from("here"),
        workspace: WorkspaceFrom::Fixed(Workspace::new("acme").unwrap()),
        projects: Vec::new(),
        projects_claim: None,
        label_claim: None,
    }
}

fn foreign_token(key: &SigningKey) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "EdDSA"}));
    let claims = part(json!({"iss": "idp", "aud": "here", "sub": "ana", "exp": NOW + 60}));
    let message = format!("{header}.{claims}");
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

#[test]
fn tokens_of_before_a_rotation_are_good_until_the_old_key_is_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let sources = sources(dir.path());
    let (signing, previous) = (
        sources.signing_key.clone(),
        previous_beside(&sources.signing_key),
    );
    let loaded = load(sources.clone()).unwrap();
    let keys = loaded.keys;
    assert!(loaded.made && loaded.notes.is_empty());
    let old = issue(&keys);
    assert!(!keys.reload().unwrap(), "nothing has changed");
    let rotated = rotate(&signing, &previous).unwrap();
    assert_eq!(keys.issuer().key().kid(), rotated.previous_kid);
    assert!(keys.reload().unwrap());
    assert_eq!(keys.issuer().key().kid(), rotated.kid);
    let new = issue(&keys);
    assert_eq!((verify(&keys, &old), verify(&keys, &new)), (None, None));
    let published = keys.verifier().keys().jwks_json();
    assert!(published.contains(&rotated.kid) && published.contains(&rotated.previous_kid));
    // The next start sees the same.
    let again = load(sources).unwrap().keys;
    assert_eq!((verify(&again, &old), verify(&again, &new)), (None, None));
    fs::remove_file(&previous).unwrap();
    assert!(keys.reload().unwrap());
    assert_eq!(verify(&keys, &old), Some(Denied::Invalid));
    assert_eq!(verify(&keys, &new), None);
}

#[test]
fn files_that_can_not_be_used_change_nothing_while_serving() {
    let dir = tempfile::tempdir().unwrap();
    let sources = sources(dir.path());
    let signing = sources.signing_key.clone();
    let keys = load(sources).unwrap().keys;
    let token = issue(&keys);
    let good = fs::read(&signing).unwrap();
    fs::write(&signing, &good[..good.len() / 2]).unwrap();
    assert!(matches!(
        keys.reload(),
        Err(KeysError::Own(KeyError::Invalid { .. }))
    ));
    fs::remove_file(&signing).unwrap();
    assert!(matches!(
        keys.reload(),
        Err(KeysError::Own(KeyError::Gone { .. }))
    ));
    assert!(!signing.exists(), "a reload makes no key");
    assert_eq!(verify(&keys, &token), None);
    assert_eq!(verify(&keys, &issue(&keys)), None);
    fs::write(&signing, good).unwrap();
    assert!(!keys.reload().unwrap());
}

#[test]
fn named_previous_keys_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let absent = KeySources {
        previous_keys: Some(vec![dir.path().join("absent")]),
        ..sources(dir.path())
    };
    let error = load(absent).unwrap_err();
    assert!(
        error.to_string().contains("tokens.previous_keys"),
        "{error}"
    );
}

#[test]
fn a_shared_secret_shorter_than_its_signatures_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hs256");
    let sources = KeySources {
        shared_secret: Some(SharedSecret {
            issuer: "portal".to_owned(),
            kid: "hs256".to_owned(),
            role_max: Role::User,
            source: SecretSource::File(file.clone()),
        }),
        ..sources(dir.path())
    };
    for (bytes, good) in [
        (0, false),
        (31, false),
        (32, true),
        (4096, true),
        (4097, false),
    ] {
        fs::write(&file, format!(" {}\n", "s".repeat(bytes))).unwrap();
        let loaded = load(sources.clone());
        assert_eq!(loaded.is_ok(), good, "{bytes}");
        if let Err(error) = loaded {
            assert!(error.to_string().contains("openssl rand"), "{error}");
            assert!(!error.to_string().contains("sss"), "{error}");
        }
    }
    fs::write(&file, "s".repeat(32)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let notes = load(sources.clone()).unwrap().notes;
    assert!(notes[0].contains("chmod 600"), "{notes:?}");
    fs::remove_file(&file).unwrap();
    assert!(load(sources).is_err());
}

#[test]
fn a_key_set_in_a_file_is_taken_when_it_changes_and_kept_when_it_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        SigningKey::ephemeral().unwrap(),
        SigningKey::ephemeral().unwrap(),
    );
    let file = dir.path().join("idp.json");
    let write = |key: &SigningKey| {
        fs::write(&file, Keyring::own(key, "idp", "here").jwks_json()).unwrap();
    };
    write(&one);
    let sources = KeySources {
        trusted: vec![TrustedIssuer {
            terms: terms(),
            keys: TrustedKeys::JwksFile(file.clone()),
        }],
        ..sources(dir.path())
    };
    let keys = load(sources.clone()).unwrap().keys;
    let (by_one, by_two) = (foreign_token(&one), foreign_token(&two));
    let both = || (verify(&keys, &by_one), verify(&keys, &by_two));
    assert_eq!(both(), (None, Some(Denied::Invalid)));
    write(&two);
    assert!(keys.reload().unwrap());
    assert_eq!(both(), (Some(Denied::Invalid), None));
    fs::write(&file, "{\"keys\":").unwrap();
    let error = keys.reload().unwrap_err();
    assert!(matches!(error, KeysError::Trusted { .. }), "{error:?}");
    assert_eq!(both(), (Some(Denied::Invalid), None));
    // At a start it is an error: nothing is known that could be kept.
    assert!(load(sources).is_err());
}

#[test]
fn an_issuer_that_can_not_be_reached_holds_up_no_start_and_keeps_its_keys_over_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let idp = SigningKey::ephemeral().unwrap();
    let sources = KeySources {
        trusted: vec![TrustedIssuer {
            terms: terms(),
            keys: TrustedKeys::JwksUrl {
                url: "http://127.0.0.1:1/jwks".parse().unwrap(),
                ca: None,
            },
        }],
        ..sources(dir.path())
    };
    let (signing, previous) = (
        sources.signing_key.clone(),
        previous_beside(&sources.signing_key),
    );
    let keys = load(sources).unwrap().keys;
    let token = foreign_token(&idp);
    assert_eq!(verify(&keys, &token), Some(Denied::Invalid));
    let status = keys.jwks_status();
    assert_eq!((status.len(), status[0].age), (1, None));
    // What the task does when the issuer answers.
    let set = Keyring::own(&idp, "idp", "here").jwks_json();
    let set = KeySet::parse(set.as_bytes()).unwrap();
    keys.verifier().set_issuer_keys("idp", &Arc::new(set));
    assert_eq!(verify(&keys, &token), None);
    rotate(&signing, &previous).unwrap();
    assert!(keys.reload().unwrap());
    assert_eq!(verify(&keys, &token), None);
}
