//! Hostile tokens, edges of time, revocation, and bounds of the cache.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::auth::{Issuer, Pattern, Role, SigningKey, TokenKind, TokenLimits, TokenSpec};
use crate::names::{Project, Workspace};

const NOW: u64 = 1_800_000_000;

fn issuer() -> Issuer {
    Issuer::new(SigningKey::ephemeral().unwrap(), "tidegate", "here")
}

fn verifier(issuer: &Issuer) -> Verifier {
    let keys = Keyring::own(issuer.key(), "tidegate", "here");
    Verifier::new(keys, Arc::default()).unwrap()
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
    assert!(who.reads(&Project::new("research").unwrap()));
    assert!(!who.reads(&Project::new("other").unwrap()));
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
fn headers_that_are_not_exactly_ours_are_invalid_though_well_signed() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let good = good_header(&issuer);
    let claims = good_claims().to_string();
    assert!(
        verifier
            .verify(&signed(&issuer, &good.to_string(), &claims), NOW)
            .is_ok()
    );
    let kid = issuer.key().kid().to_owned();
    let mut bad: Vec<String> = [
        with(good.clone(), "alg", json!("none")),
        with(good.clone(), "alg", json!("None")),
        with(good.clone(), "alg", json!("HS256")),
        with(good.clone(), "alg", json!("ES256")),
        with(good.clone(), "alg", json!(["EdDSA"])),
        with(good.clone(), "kid", json!("other")),
        with(good.clone(), "kid", json!("../../etc/passwd")),
        with(good.clone(), "kid", json!(null)),
        with(good.clone(), "typ", json!("JWT")),
        with(good.clone(), "typ", json!("at+jwt")),
        with(good.clone(), "crit", json!(["b64"])),
        with(good.clone(), "crit", json!(null)),
        with(good.clone(), "b64", json!(false)),
        with(good.clone(), "jku", json!("https://evil.example/jwks")),
        with(good.clone(), "jwk", json!({"kty": "OKP"})),
        with(good.clone(), "x5u", json!("https://evil.example/c")),
        with(good.clone(), "x5c", json!(["MIIB"])),
        with(good.clone(), "zip", json!("DEF")),
        without(good.clone(), "typ"),
        without(good.clone(), "kid"),
        without(good.clone(), "alg"),
        json!(["EdDSA", kid, "wst+jwt"]),
    ]
    .iter()
    .map(Value::to_string)
    .collect();
    bad.push(format!(
        r#"{{"alg":"none","alg":"EdDSA","kid":"{kid}","typ":"wst+jwt"}}"#
    ));
    bad.push(format!(" {good}"));
    bad.push(format!("{good}x"));
    for header in bad {
        let token = signed(&issuer, &header, &claims);
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(Denied::Invalid),
            "{header}"
        );
    }
}

#[test]
fn claims_that_are_missing_or_of_another_type_are_invalid_though_well_signed() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let good = good_claims;
    let mut bad: Vec<String> = ["iss", "aud", "sub", "jti", "exp", "ver", "ws", "knd"]
        .iter()
        .map(|key| without(good(), key).to_string())
        .collect();
    for (key, value) in [
        ("iss", json!("someone")),
        ("iss", json!(["tidegate"])),
        ("aud", json!("elsewhere")),
        ("aud", json!(["here"])),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("jti", json!("")),
        ("jti", json!(7)),
        ("jti", json!("x".repeat(801))),
        ("exp", json!("9999999999")),
        ("exp", json!(9_999_999_999.5)),
        ("exp", json!(1e10)),
        ("exp", json!(-1)),
        ("exp", json!(null)),
        ("exp", json!({})),
        ("nbf", json!("0")),
        ("nbf", json!(null)),
        ("nbf", json!(NOW + LEEWAY + 1)),
        ("iat", json!(NOW + LEEWAY + 1)),
        ("iat", json!(u64::MAX)),
        ("ver", json!(2)),
        ("ver", json!("1")),
        ("ws", json!("../acme")),
        ("knd", json!("root")),
        ("knd", json!("endpoint")),
        ("rol", json!("root")),
        ("rol", json!(null)),
        ("grp", json!("research")),
        ("grp", json!(["a b"])),
        ("ep", json!(["*"])),
        ("lim", json!({"rpm": -1})),
        ("lim", json!({"unknown": 1})),
        ("md", json!("text")),
    ] {
        bad.push(with(good(), key, value).to_string());
    }
    let admin = with(with(good(), "knd", json!("endpoint")), "ep", json!(["*"]));
    bad.push(with(admin, "rol", json!("admin")).to_string());
    let twice = good().to_string().replacen('{', r#"{"exp":9999999999,"#, 1);
    bad.push(twice);
    bad.push("[]".to_owned());
    bad.push(format!(
        r#"{{"md":{}1{}}}"#,
        "[".repeat(900),
        "]".repeat(900)
    ));
    for claims in bad {
        let token = signed(&issuer, &good_header(&issuer).to_string(), &claims);
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(Denied::Invalid),
            "{claims}"
        );
    }
}

#[test]
fn signatures_that_are_not_by_the_named_key_are_invalid() {
    let issuer = issuer();
    let stranger = self::issuer();
    let mut keys = Keyring::own(issuer.key(), "tidegate", "here");
    let other = Keyring::own(stranger.key(), "other", "here");
    let key = other.get(stranger.key().kid()).unwrap().clone();
    keys.insert(stranger.key().kid(), key).unwrap();
    let verifier = Verifier::new(keys, Arc::default()).unwrap();
    let header = good_header(&issuer).to_string();
    let claims = good_claims().to_string();
    let good = signed(&issuer, &header, &claims);
    let (message, _) = good.rsplit_once('.').unwrap();
    let none = with(good_header(&issuer), "alg", json!("none")).to_string();
    let hmac = {
        let header = with(good_header(&issuer), "alg", json!("HS256")).to_string();
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            message.split_once('.').unwrap().1
        );
        let secret = jsonwebtoken::EncodingKey::from_secret(issuer.key().public_key());
        let hs256 = jsonwebtoken::Algorithm::HS256;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, hs256).unwrap();
        format!("{message}.{signature}")
    };
    for bad in [
        format!("{message}."),
        message.to_owned(),
        format!("{good}A"),
        format!("{good}="),
        format!("{good}."),
        format!(".{good}"),
        format!(" {good}"),
        format!("tgw_tgw_{good}"),
        format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(none),
            message.split_once('.').unwrap().1
        ),
        hmac,
        // A trusted key, but named for another: by kid, and for another's issuer.
        signed(&stranger, &header, &claims),
        signed(&stranger, &good_header(&stranger).to_string(), &claims),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "tgw_".to_owned(),
        "\u{0}".to_owned(),
        "é.é.é".to_owned(),
        "[".repeat(4_000),
        "a".repeat(4 << 20),
        format!("{}{good}", "tgw_".repeat(1 << 20)),
    ] {
        let shown: String = bad.chars().take(80).collect();
        assert_eq!(verifier.verify(&bad, NOW), Err(Denied::Invalid), "{shown}");
    }
    assert_eq!(verifier.verify("", NOW), Err(Denied::Missing));
    assert!(verifier.verify(&good, NOW).is_ok());
}

#[test]
fn a_deeply_nested_header_or_claim_is_invalid_without_recursion() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let deep = format!("{}{}", "[".repeat(1_200), "]".repeat(1_200));
    let header = format!(r#"{{"x":{deep}}}"#);
    let token = signed(&issuer, &header, "{}");
    assert!(token.len() < TOKEN_BYTES_MAX, "looked at, not cut off");
    assert_eq!(verifier.verify(&token, NOW), Err(Denied::Invalid));
    let claims = good_claims()
        .to_string()
        .replacen('{', &format!(r#"{{"md":{{"x":{deep}}},"#), 1);
    let token = signed(&issuer, &good_header(&issuer).to_string(), &claims);
    assert!(token.len() < TOKEN_BYTES_MAX, "looked at, not cut off");
    assert_eq!(verifier.verify(&token, NOW), Err(Denied::Invalid));
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
    assert_eq!(
        cold().verify(&token, NOW - LEEWAY - 1),
        Err(Denied::Invalid)
    );
    let endless = with(good_claims(), "exp", json!(u64::MAX)).to_string();
    let endless = signed(&issuer, &good_header(&issuer).to_string(), &endless);
    assert!(cold().verify(&endless, NOW).is_ok());
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
    verifier
        .revocations()
        .replace(crate::auth::RevokedSet::default());
    assert!(verifier.verify(&one, NOW).is_ok());
    // Never seen before it was revoked.
    let cold = Verifier::new(
        Keyring::own(issuer.key(), "tidegate", "here"),
        Arc::clone(verifier.revocations()),
    )
    .unwrap();
    verifier.revocations().add(&who.token_id);
    assert_eq!(cold.verify(&one, NOW), Err(Denied::Revoked));
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
    let keys = Keyring::own(issuer.key(), "tidegate", "here");
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

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(text in "\\PC{0,200}") {
        let issuer = issuer();
        prop_assert!(verifier(&issuer).verify(&text, NOW).is_err());
    }

    #[test]
    fn three_parts_of_anything_are_refused(
        header in proptest::collection::vec(any::<u8>(), 0..80),
        claims in proptest::collection::vec(any::<u8>(), 0..80),
        signature in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let [h, c, s] = [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        let issuer = issuer();
        let denied = verifier(&issuer).verify(&format!("{h}.{c}.{s}"), NOW);
        prop_assert_eq!(denied, Err(Denied::Invalid));
    }

    #[test]
    fn one_changed_character_makes_a_token_invalid(
        place in any::<proptest::sample::Index>(),
        replacement in "[A-Za-z0-9._=+/ -]",
    ) {
        let issuer = issuer();
        let verifier = verifier(&issuer);
        let token = issue(&issuer, spec());
        let bare = token.strip_prefix(TOKEN_PREFIX).unwrap();
        let place = place.index(bare.len());
        let mut mutated = bare.to_owned();
        mutated.replace_range(place..=place, &replacement);
        prop_assume!(mutated != bare);
        // The original is remembered, and must not lend itself to its neighbours.
        verifier.verify(bare, NOW).unwrap();
        prop_assert_eq!(verifier.verify(&mutated, NOW), Err(Denied::Invalid));
    }
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
        verifier.afresh(key, bare, 0, NOW).unwrap();
    });
    let junk = format!("{}A", token.replacen("tgw_ey", "tgw_ez", 1));
    time("malformed", 100_000, &|| {
        verifier.verify(&junk, NOW).unwrap_err();
    });
}
