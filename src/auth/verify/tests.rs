//! Edges of time, revocation, and bounds of the cache; hostile tokens in [`hostile`],
//! those of other issuers in [`foreign`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::auth::{
    Issuer, Pattern, RevokedSet, Role, SigningKey, TokenKind, TokenLimits, TokenSpec,
};
use crate::names::{Project, Workspace};
use crate::time::NewestTime;

mod foreign;
mod hostile;

const NOW: u64 = 1_800_000_000;

fn issuer() -> Issuer {
    Issuer::new(SigningKey::ephemeral().unwrap(), "tidegate", "here")
}

fn verifier(issuer: &Issuer) -> Verifier {
    let keys = Keyring::own(&issuer.key(), "tidegate", "here");
    Verifier::remembering(keys, Arc::default(), 64).unwrap()
}

fn spec() -> TokenSpec {
    TokenSpec {
        workspace: Workspace::new("acme").unwrap(),
        subject: Some("user:ana".to_owned()),
        role: Role::Operator,
        projects: vec![Project::new("research").unwrap()],
        endpoints: Vec::new(),
        label: Some("nightly eval".to_owned()),
        ttl: Duration::from_hours(1),
        metadata: Some(json!({"team": "nlp"})),
        may_load: false,
        limits: TokenLimits {
            rpm: Some(60),
            ..TokenLimits::default()
        },
    }
}

fn issue(issuer: &Issuer, spec: TokenSpec) -> String {
    issuer.issue(spec, Duration::from_secs(NOW)).unwrap().0
}

fn good_header(issuer: &Issuer) -> Value {
    json!({"alg": "EdDSA", "kid": issuer.key().kid(), "typ": "wst+jwt"})
}

fn good_claims() -> Value {
    json!({
        "iss": "tidegate", "aud": "here", "sub": "user:ana", "jti": "01J", "iat": NOW,
        "nbf": NOW, "exp": NOW + 60, "ver": 1, "ws": "acme", "knd": "user", "grp": ["research"],
    })
}

/// Signs any two texts as header and claims, with the right key.
fn signed(issuer: &Issuer, header: &str, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = issuer.key().sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

fn without(mut object: Value, key: &str) -> Value {
    object.as_object_mut().unwrap().remove(key).unwrap();
    object
}

#[test]
fn an_issued_token_says_what_it_was_issued_for_with_and_without_prefix() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let (token, record) = issuer.issue(spec(), Duration::from_secs(NOW)).unwrap();
    let who = verifier.verify(&token, NOW).unwrap();
    assert_eq!(who.workspace.as_str(), "acme");
    assert_eq!(&*who.subject, "user:ana");
    assert_eq!(*who.token_id, *record.jti);
    assert_eq!((who.kind, who.role), (TokenKind::User, Role::Operator));
    assert_eq!(who.limits, spec().limits);
    assert_eq!(who.label.as_deref(), Some("nightly eval"));
    assert_eq!(who.metadata.as_deref().unwrap()["team"], "nlp");
    assert_eq!((who.issued_at, who.expires_at), (NOW, NOW + 3_600));
    assert_eq!((record.created, record.expires), (NOW, NOW + 3_600));
    assert!(who.reads(None, &Project::new("research").unwrap()));
    assert!(!who.reads(None, &Project::new("other").unwrap()));
    assert!(who.is_operator() && !who.is_admin());
    let bare = token.strip_prefix("tgw_").unwrap();
    let same = verifier.verify(bare, NOW).unwrap();
    assert!(Arc::ptr_eq(&who, &same));
    assert_eq!(who.hash8(), std::str::from_utf8(&hash8(bare)).unwrap());
}

#[test]
fn a_token_that_lists_endpoints_opens_those_and_no_others() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let endpoints = vec![Pattern::new("qwen3-*").unwrap()];
    let restricted = TokenSpec {
        role: Role::User,
        endpoints,
        ..spec()
    };
    let who = verifier.verify(&issue(&issuer, restricted), NOW).unwrap();
    assert_eq!(who.kind, TokenKind::Endpoint);
    assert!(who.allows_endpoint("chat", "qwen3-8b") && who.allows_endpoint("qwen3-8b", "x"));
    assert!(!who.allows_endpoint("chat", "llama"));
    let free = verifier.verify(&issue(&issuer, spec()), NOW).unwrap();
    assert!(free.allows_endpoint("chat", "llama"));
}

#[test]
fn only_a_token_that_says_so_by_a_key_of_admins_may_load() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let says = |may_load| {
        let spec = TokenSpec { may_load, ..spec() };
        verifier.verify(&issue(&issuer, spec), NOW).unwrap()
    };
    assert!(!says(false).may_load && says(true).may_load);
    for (claim, may) in [
        (json!(true), Some(true)),
        (json!(false), Some(false)),
        (json!(null), None),
        (json!("true"), None),
        (json!(1), None),
    ] {
        let claims = with(good_claims(), "load", claim.clone()).to_string();
        let token = signed(&issuer, &good_header(&issuer).to_string(), &claims);
        let found = verifier.verify(&token, NOW).ok();
        assert_eq!(found.map(|who| who.may_load), may, "{claim}");
    }
}

#[test]
fn a_token_ends_after_the_leeway_whether_remembered_or_not() {
    let issuer = issuer();
    let (warm, cold) = (verifier(&issuer), || verifier(&issuer));
    let token = issue(&issuer, spec());
    let end = NOW + 3_600 + LEEWAY;
    assert!(warm.verify(&token, NOW).is_ok());
    for (at, expected) in [
        (NOW - LEEWAY, None),
        (end - 1, None),
        (end, Some(Denied::Expired)),
        (u64::MAX, Some(Denied::Expired)),
    ] {
        assert_eq!(cold().verify(&token, at).err(), expected, "cold, {at}");
        assert_eq!(warm.verify(&token, at).err(), expected, "warm, {at}");
    }
    assert_eq!(cold().verify(&token, NOW - LEEWAY - 1), Err(Denied::Early));
    let endless = with(good_claims(), "exp", json!(u64::MAX)).to_string();
    let endless = signed(&issuer, &good_header(&issuer).to_string(), &endless);
    assert!(cold().verify(&endless, NOW).is_ok());
}

#[test]
fn a_token_of_the_future_is_refused_and_the_clock_is_named() {
    let issuer = issuer();
    for (key, moment) in [
        ("nbf", NOW + LEEWAY + 1),
        ("iat", NOW + LEEWAY + 1),
        ("iat", u64::MAX),
    ] {
        let claims = with(good_claims(), key, json!(moment)).to_string();
        let token = signed(&issuer, &good_header(&issuer).to_string(), &claims);
        let denied = verifier(&issuer).verify(&token, NOW).unwrap_err();
        assert_eq!(denied, Denied::Early, "{key} {moment}");
        assert!(denied.to_string().contains("clock"), "{denied}");
    }
}

#[test]
fn a_revocation_is_effective_for_the_next_request() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let (one, other) = (issue(&issuer, spec()), issue(&issuer, spec()));
    let who = verifier.verify(&one, NOW).unwrap();
    verifier.verify(&other, NOW).unwrap();
    verifier.revocations().add(&who.token_id);
    assert_eq!(verifier.verify(&one, NOW), Err(Denied::Revoked));
    assert_eq!(verifier.verify(&one, NOW), Err(Denied::Revoked));
    assert!(verifier.verify(&other, NOW).is_ok());
    // Taken back by mistake: the token is good again.
    verifier.revocations().replace(RevokedSet::default());
    assert!(verifier.verify(&one, NOW).is_ok());
    // Never seen before it was revoked.
    let cold = Verifier::new(
        Keyring::own(&issuer.key(), "tidegate", "here"),
        Arc::clone(verifier.revocations()),
    )
    .unwrap();
    verifier.revocations().add(&who.token_id);
    assert_eq!(cold.verify(&one, NOW), Err(Denied::Revoked));
}

#[tokio::test(start_paused = true)]
async fn an_hour_back_refuses_no_token_and_opens_no_cutoff() {
    let wall = Arc::new(AtomicU64::new(NOW));
    let read = Arc::clone(&wall);
    let clock = Arc::new(NewestTime::of(move || {
        Duration::from_secs(read.load(Ordering::Relaxed))
    }));
    let issuer = issuer();
    let keys = Keyring::own(&issuer.key(), "tidegate", "here");
    let revocations = Arc::new(Revocations::by(RevokedSet::default(), Arc::clone(&clock)));
    let verifier = Verifier::new(keys, revocations).unwrap();
    let ask = |token: &str| verifier.verify(token, verifier.now()).err();
    let issue = || issuer.issue(spec(), clock.now()).unwrap().0;
    tokio::time::advance(Duration::from_mins(30)).await;
    wall.fetch_add(1_800, Ordering::Relaxed);
    clock.tick();
    let before = issue();
    assert_eq!(ask(&before), None);
    wall.fetch_sub(3_600, Ordering::Relaxed);
    assert_eq!(ask(&before), None, "issued within the hour");
    let acme = Workspace::new("acme").unwrap();
    let revocations = verifier.revocations();
    revocations.cut_off_workspace(&acme, verifier.now() + 1);
    assert_eq!(ask(&before), Some(Denied::Revoked));
    tokio::time::advance(Duration::from_secs(2)).await;
    clock.tick();
    assert_eq!(ask(&issue()), None, "issued after the cutoff");
    // Of a clock that is ahead: the clock is named.
    let (early, _) = issuer
        .issue(spec(), clock.now() + Duration::from_mins(5))
        .unwrap();
    let denied = ask(&early).unwrap();
    assert!(denied.to_string().contains("clock"), "{denied}");
}

#[test]
fn tokens_of_before_a_loss_are_refused_in_words_and_later_ones_are_not() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let old = issue(&issuer, spec());
    verifier.verify(&old, NOW).unwrap();
    verifier.revocations().replace(RevokedSet {
        lost_before: NOW + 1,
        ..RevokedSet::default()
    });
    assert_eq!(verifier.verify(&old, NOW), Err(Denied::Forgotten));
    let (new, _) = issuer.issue(spec(), Duration::from_secs(NOW + 1)).unwrap();
    assert!(verifier.verify(&new, NOW + 1).is_ok());
}

#[test]
fn a_cutoff_revokes_what_was_issued_before_it() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let acme = Workspace::new("acme").unwrap();
    let old = issue(&issuer, spec());
    let ci = issue(
        &issuer,
        TokenSpec {
            subject: Some("svc:ci".to_owned()),
            ..spec()
        },
    );
    verifier.verify(&old, NOW).unwrap();
    verifier
        .revocations()
        .cut_off_subject(&acme, "user:ana", NOW + 1);
    assert_eq!(verifier.verify(&old, NOW), Err(Denied::Revoked));
    assert!(verifier.verify(&ci, NOW).is_ok());
    verifier.revocations().cut_off_workspace(&acme, NOW + 1);
    assert_eq!(verifier.verify(&ci, NOW), Err(Denied::Revoked));
    let (new, _) = issuer.issue(spec(), Duration::from_secs(NOW + 1)).unwrap();
    assert!(verifier.verify(&new, NOW + 1).is_ok());
}

#[test]
fn keys_that_are_replaced_end_what_they_had_verified() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let token = issue(&issuer, spec());
    verifier.verify(&token, NOW).unwrap();
    verifier.replace_keys(Keyring::default());
    assert_eq!(verifier.verify(&token, NOW), Err(Denied::Invalid));
}

#[test]
fn more_tokens_than_places_stay_within_bounds_and_still_hit() {
    let issuer = issuer();
    let keys = Keyring::own(&issuer.key(), "tidegate", "here");
    let verifier = Verifier::remembering(keys, Arc::default(), 64).unwrap();
    let tokens: Vec<String> = (0..100).map(|_| issue(&issuer, spec())).collect();
    for _ in 0..3 {
        for token in &tokens {
            verifier.verify(token, NOW).unwrap();
        }
    }
    assert!(verifier.cache.len() <= 64, "{}", verifier.cache.len());
    let remembered = tokens
        .iter()
        .map(|token| token.strip_prefix(TOKEN_PREFIX).unwrap())
        .filter(|token| {
            verifier
                .cache
                .get(verifier.cache.key(token.as_bytes()))
                .is_some()
        })
        .count();
    // 64 of 100 fit; a round in order would find none of them in an LRU cache.
    assert!(remembered >= 40, "{remembered}");
    // The expired ones give their places first.
    let late = NOW + 3_600 + LEEWAY;
    let (new, _) = issuer.issue(spec(), Duration::from_secs(late)).unwrap();
    verifier.verify(&new, late).unwrap();
    assert!(verifier.cache.len() <= 64);
}

#[test]
fn a_token_that_ends_like_another_is_not_taken_for_it() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let token = issue(&issuer, spec());
    for _ in 0..2 {
        verifier.verify(&token, NOW).unwrap();
    }
    let bare = token.strip_prefix(TOKEN_PREFIX).unwrap();
    let other = if bare.starts_with("eyJ0") {
        "eyJ1"
    } else {
        "eyJ0"
    };
    let forged = format!("{other}{}", &bare[4..]);
    assert_eq!(verifier.verify(&forged, NOW), Err(Denied::Invalid));
}

#[test]
fn a_refused_token_takes_no_place() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let token = issue(&issuer, spec());
    for junk in ["a.b.c".to_owned(), format!("{token}A")] {
        verifier.verify(&junk, NOW).unwrap_err();
    }
    verifier.verify(&token, 0).unwrap_err();
    assert_eq!(verifier.cache.len(), 0);
}

#[test]
#[ignore = "a measurement: cargo test --release --lib auth:: -- --ignored --nocapture timing"]
fn timing_of_a_remembered_token() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let token = issue(&issuer, spec());
    let time = |what: &str, rounds: u32, call: &dyn Fn()| {
        let start = crate::time::Instant::now();
        (0..rounds).for_each(|_| call());
        println!("{what}: {:?} each", start.elapsed() / rounds);
    };
    println!("token of {} bytes", token.len());
    time("remembered", 200_000, &|| {
        verifier.verify(&token, NOW).unwrap();
    });
    time("key alone", 200_000, &|| {
        std::hint::black_box(verifier.cache.key(token.as_bytes()));
    });
    let sips = [std::hash::RandomState::new(), std::hash::RandomState::new()];
    time("two SipHashes", 200_000, &|| {
        use std::hash::BuildHasher;
        std::hint::black_box([sips[0].hash_one(&token), sips[1].hash_one(&token)]);
    });
    time("afresh", 2_000, &|| {
        let key = verifier.cache.key(b"");
        let bare = token.strip_prefix(TOKEN_PREFIX).unwrap();
        drop(verifier.afresh(key, bare, 0, NOW).unwrap());
    });
    let junk = format!("{}A", token.replacen("tgw_ey", "tgw_ez", 1));
    time("malformed", 100_000, &|| {
        verifier.verify(&junk, NOW).unwrap_err();
    });
}
