//! Tokens of other issuers: what they are worth, and what they are not.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use jsonwebtoken::DecodingKey;

use super::*;
use crate::auth::algorithm::Algorithm;
use crate::auth::foreign::{Terms, WorkspaceFrom};
use crate::auth::ring::{Foreign, TrustedKey};

const IDP: &str = "https://idp.example.org";

fn terms(issuer: &str) -> Terms {
    Terms {
        issuer: Arc::from(issuer),
        audience: Arc::from("here"),
        workspace: WorkspaceFrom::Fixed(Workspace::new("acme").unwrap()),
        projects: Vec::new(),
        projects_claim: Some("groups".to_owned()),
        label_claim: Some("email".to_owned()),
    }
}

/// A provider: an Ed25519 key that its key set names `k1`.
fn provider(terms: Terms, key: &SigningKey) -> Foreign {
    let x = URL_SAFE_NO_PAD.encode(key.public_key());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x}]});
    Foreign {
        terms: Arc::new(terms),
        keys: Arc::new(KeySet::parse(set.to_string().as_bytes()).unwrap()),
        refetch: None,
    }
}

fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn header() -> Value {
    json!({"alg": "EdDSA", "kid": "k1", "typ": "JWT"})
}

fn claims() -> Value {
    json!({
        "iss": IDP, "aud": ["other", "here"], "sub": "auth0|ana", "iat": NOW, "exp": NOW + 60,
        "groups": ["/research", "not a project!", "research", "nlp"], "nonce": "n", "rol": "admin",
    })
}

/// A gateway with a key of its own that trusts one provider by these terms.
fn gateway(terms: Terms) -> (Issuer, SigningKey, Verifier) {
    let (own, idp) = (issuer(), SigningKey::ephemeral().unwrap());
    let mut keys = Keyring::own(&own.key(), "tidegate", "here");
    keys.set_foreign(provider(terms, &idp));
    let verifier = Verifier::remembering(keys, Arc::default(), 64).unwrap();
    (own, idp, verifier)
}

#[test]
fn a_foreign_token_is_worth_what_the_terms_of_its_issuer_say() {
    let (_, idp, verifier) = gateway(terms(IDP));
    let who = verifier
        .verify(&sign(&idp, &header(), &claims()), NOW)
        .unwrap();
    assert_eq!(who.workspace.as_str(), "acme");
    assert_eq!((&*who.subject, &*who.issuer), ("auth0|ana", IDP));
    assert_eq!((who.kind, who.role), (TokenKind::User, Role::User));
    let projects: Vec<_> = who.projects.iter().map(Project::as_str).collect();
    assert_eq!(projects, ["research", "nlp"]);
    assert_eq!((who.issued_at, who.expires_at), (NOW, NOW + 60));
    // The next token of the same subject counts as the same; another's does not.
    let id = |claims: &Value| {
        let token = sign(&idp, &header(), claims);
        Arc::clone(&verifier.verify(&token, NOW).unwrap().token_id)
    };
    assert_eq!(id(&with(claims(), "jti", json!("x"))), who.token_id);
    assert_ne!(id(&with(claims(), "sub", json!("auth0|bob"))), who.token_id);
    assert!(who.token_id.starts_with("sub-"));
    // Its label is what the terms name, where that is a short text.
    let label = |email: Value| {
        let token = sign(&idp, &header(), &with(claims(), "email", email));
        verifier.verify(&token, NOW).unwrap().label.clone()
    };
    assert_eq!(
        label(json!("ana@example.org")).as_deref(),
        Some("ana@example.org")
    );
    for none in [json!(""), json!(7), json!("a\nb"), json!("x".repeat(201))] {
        assert_eq!(label(none), None);
    }
    // Everyone who was let in is noted, and no one twice.
    let seen = verifier.holders().take();
    assert_eq!(seen.len(), 2);
    verifier.holders().give_back(&seen);
    assert!(verifier.verify("x", NOW).is_err());
    assert_eq!(verifier.holders().take().len(), 2);
}

#[test]
fn claims_give_workspace_and_projects_or_the_token_is_refused() {
    let by_claim = Terms {
        workspace: WorkspaceFrom::Claim("org".to_owned()),
        projects: vec![Project::new("shared").unwrap()],
        ..terms(IDP)
    };
    let (_, idp, verifier) = gateway(by_claim);
    let verify = |claims: Value| verifier.verify(&sign(&idp, &header(), &claims), NOW);
    let org = |org: Value| with(claims(), "org", org);
    let who = verify(org(json!("blue"))).unwrap();
    assert_eq!(who.workspace.as_str(), "blue");
    assert_eq!(who.projects.len(), 3);
    // The same subject in another tenant is someone else: for limits, usage and
    // revocations, which go by this id.
    let other = verify(org(json!("green"))).unwrap();
    assert_eq!(other.subject, who.subject);
    assert_ne!(other.token_id, who.token_id);
    let who = verify(without(org(json!("blue")), "groups")).unwrap();
    assert_eq!(who.projects, [Project::new("shared").unwrap()]);
    let who = verify(with(org(json!("blue")), "groups", json!("nlp"))).unwrap();
    assert_eq!(who.projects.len(), 2);
    let many: Vec<_> = (0..70).map(|n| format!("p{n}")).collect();
    for bad in [
        claims(),
        org(json!("no workspace!")),
        org(json!(["blue"])),
        org(json!(null)),
        with(org(json!("blue")), "groups", json!({"nlp": true})),
        with(org(json!("blue")), "groups", json!(["nlp", 7])),
        with(org(json!("blue")), "groups", json!(many)),
    ] {
        assert_eq!(verify(bad.clone()), Err(Denied::Invalid), "{bad}");
    }
}

#[test]
fn foreign_times_and_audiences_are_held_to_the_same_rules() {
    let (_, idp, verifier) = gateway(terms(IDP));
    let verify = |claims: &Value| verifier.verify(&sign(&idp, &header(), claims), NOW).err();
    #[expect(clippy::cast_precision_loss, reason = "small enough")]
    let fraction = (NOW + 60) as f64 + 0.5;
    for (name, value, expected) in [
        ("aud", json!("here"), None),
        ("aud", json!("here "), Some(Denied::Invalid)),
        ("aud", json!(["elsewhere"]), Some(Denied::Invalid)),
        ("aud", json!(["here", 7]), Some(Denied::Invalid)),
        ("aud", json!([]), Some(Denied::Invalid)),
        (
            "iss",
            json!("https://idp.example.org/"),
            Some(Denied::Invalid),
        ),
        ("iss", json!([IDP]), Some(Denied::Invalid)),
        ("iss", json!("tidegate"), Some(Denied::Invalid)),
        ("sub", json!(""), Some(Denied::Invalid)),
        ("sub", json!("a b"), Some(Denied::Invalid)),
        ("sub", json!(7), Some(Denied::Invalid)),
        ("exp", json!(fraction), None),
        ("exp", json!("9999999999"), Some(Denied::Invalid)),
        ("exp", json!(-1), Some(Denied::Invalid)),
        ("exp", json!(1e300), Some(Denied::Invalid)),
        ("exp", json!(NOW - LEEWAY), Some(Denied::Expired)),
        ("nbf", json!(NOW + LEEWAY), None),
        ("nbf", json!(NOW + LEEWAY + 1), Some(Denied::Early)),
        ("nbf", json!("soon"), Some(Denied::Invalid)),
        ("iat", json!(NOW + LEEWAY + 1), Some(Denied::Early)),
        ("iat", json!(null), Some(Denied::Invalid)),
    ] {
        let changed = with(claims(), name, value.clone());
        assert_eq!(verify(&changed), expected, "{name}: {value}");
    }
    for required in ["iss", "aud", "sub", "exp"] {
        let lacking = without(claims(), required);
        assert_eq!(verify(&lacking), Some(Denied::Invalid), "{required}");
    }
    assert_eq!(verify(&without(claims(), "iat")), None);
}

#[test]
fn headers_that_bring_keys_or_change_the_rules_are_refused() {
    let (_, idp, verifier) = gateway(terms(IDP));
    let verify = |header: &Value| verifier.verify(&sign(&idp, header, &claims()), NOW).is_ok();
    for good in [
        header(),
        without(header(), "typ"),
        without(header(), "kid"),
        with(header(), "typ", json!("at+jwt")),
        with(header(), "x5t", json!("thumb")),
    ] {
        assert!(verify(&good), "{good}");
    }
    for (name, value) in [
        ("alg", json!("none")),
        ("alg", json!("ES256")),
        ("alg", json!("HS256")),
        ("alg", json!(["EdDSA"])),
        ("kid", json!("k2")),
        ("kid", json!(null)),
        ("kid", json!("k".repeat(300))),
        ("typ", json!("wst+jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!(null)),
        ("crit", json!(["exp"])),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("jku", json!("https://evil.example")),
        ("jwk", json!({})),
        ("x5u", json!("https://evil.example")),
        ("x5c", json!(["MIIB"])),
    ] {
        let bad = with(header(), name, value);
        assert!(!verify(&bad), "{bad}");
    }
    let twice = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encoded(&header().to_string()), encoded(&twice));
    let signature = encoded_signature(&idp, &message);
    let token = format!("{message}.{signature}");
    assert_eq!(verifier.verify(&token, NOW), Err(Denied::Invalid));
}

fn encoded_signature(key: &SigningKey, message: &str) -> String {
    URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).unwrap().as_ref())
}

#[test]
fn no_issuer_signs_for_another_nor_for_us_whatever_key_id_it_uses() {
    let own = issuer();
    let (idp, evil) = (
        SigningKey::ephemeral().unwrap(),
        SigningKey::ephemeral().unwrap(),
    );
    let mut keys = Keyring::own(&own.key(), "tidegate", "here");
    keys.set_foreign(provider(terms(IDP), &idp));
    // The evil provider's set claims the id of our key, and that of the other's.
    let x = URL_SAFE_NO_PAD.encode(evil.public_key());
    let jwk = |kid: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
    let set = json!({"keys": [jwk("k1"), jwk(own.key().kid())]}).to_string();
    keys.set_foreign(Foreign {
        terms: Arc::new(terms("https://evil.example")),
        keys: Arc::new(KeySet::parse(set.as_bytes()).unwrap()),
        refetch: None,
    });
    let verifier = Verifier::new(keys, Arc::default()).unwrap();
    let evil_claims = with(claims(), "iss", json!("https://evil.example"));
    assert!(
        verifier
            .verify(&sign(&evil, &header(), &evil_claims), NOW)
            .is_ok()
    );
    let ours = good_header(&own);
    let our_kid = json!({"alg": "EdDSA", "kid": own.key().kid()});
    let in_our_shape = with(good_claims(), "iss", json!("https://evil.example"));
    for (key, header, claims) in [
        // Signed by one, for the other.
        (&evil, header(), claims()),
        (&idp, header(), evil_claims),
        // In our shape, or in our name.
        (&evil, ours.clone(), good_claims()),
        (&evil, our_kid.clone(), good_claims()),
        (&evil, with(ours.clone(), "kid", json!("k1")), good_claims()),
        (&evil, ours, in_our_shape.clone()),
    ] {
        let token = sign(key, &header, &claims);
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(Denied::Invalid),
            "{header} {claims}"
        );
    }
    // It speaks for itself, by its terms, whatever else it claims.
    let itself = with(in_our_shape, "rol", json!("admin"));
    let who = verifier
        .verify(&sign(&evil, &our_kid, &itself), NOW)
        .unwrap();
    assert_eq!(
        (&*who.issuer, who.role),
        ("https://evil.example", Role::User)
    );
    // Our own key does not sign for a foreign issuer.
    let as_idp = sign(&own.key(), &header(), &claims());
    assert_eq!(verifier.verify(&as_idp, NOW), Err(Denied::Invalid));
}

#[test]
fn an_rsa_key_verifies_its_signatures_and_is_no_secret_of_hs256() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let components = pair.public_key();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let n = part(components.modulus().big_endian_without_leading_zero());
    let e = part(components.exponent().big_endian_without_leading_zero());
    let set = json!({"keys": [{"kty": "RSA", "kid": "r1", "use": "sig", "n": n, "e": e}]});
    let mut keys = Keyring::default();
    keys.set_foreign(Foreign {
        terms: Arc::new(terms(IDP)),
        keys: Arc::new(KeySet::parse(set.to_string().as_bytes()).unwrap()),
        refetch: None,
    });
    let verifier = Verifier::new(keys, Arc::default()).unwrap();
    let token = |alg: &str, sign: &dyn Fn(&[u8]) -> String| {
        let header = json!({"alg": alg, "kid": "r1", "typ": "JWT"});
        let message = message(&header, &claims());
        format!("{message}.{}", sign(message.as_bytes()))
    };
    let rs256 = |message: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        let random = SystemRandom::new();
        pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            .unwrap();
        part(&signature)
    };
    assert!(verifier.verify(&token("RS256", &rs256), NOW).is_ok());
    for other in ["RS512", "PS256", "HS256", "none"] {
        let swapped = token(other, &rs256);
        assert_eq!(
            verifier.verify(&swapped, NOW),
            Err(Denied::Invalid),
            "{other}"
        );
    }
    // The attack: the public key, in each form it is known in, as a shared secret.
    let der = pair.public_key().as_ref().to_vec();
    for secret in [n.as_bytes(), &der, set.to_string().as_bytes()] {
        let secret = jsonwebtoken::EncodingKey::from_secret(secret);
        let hs256 = |message: &[u8]| {
            let algorithm = jsonwebtoken::Algorithm::HS256;
            jsonwebtoken::crypto::sign(message, &secret, algorithm).unwrap()
        };
        for alg in ["HS256", "RS256"] {
            let forged = token(alg, &hs256);
            assert_eq!(verifier.verify(&forged, NOW), Err(Denied::Invalid));
        }
    }
}

#[test]
fn a_shared_secret_signs_for_its_own_issuer_and_id_up_to_its_role() {
    let own = issuer();
    let secret = [9_u8; 32];
    let hs256 = |secret: &[u8], header: &Value, claims: &Value| {
        let message = message(header, claims);
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let algorithm = jsonwebtoken::Algorithm::HS256;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm);
        format!("{message}.{}", signature.unwrap())
    };
    let mut keys = Keyring::own(&own.key(), "tidegate", "here");
    let key = DecodingKey::from_secret(&secret);
    let key = TrustedKey::new(Algorithm::Hs256, key, "portal", "here", Role::Operator);
    keys.insert("hs256", key.unwrap()).unwrap();
    let verifier = Verifier::new(keys, Arc::default()).unwrap();
    let good = json!({"alg": "HS256", "kid": "hs256", "typ": "wst+jwt"});
    let portal = || with(good_claims(), "iss", json!("portal"));
    let token = hs256(&secret, &good, &portal());
    assert_eq!(&*verifier.verify(&token, NOW).unwrap().issuer, "portal");
    let operator = with(portal(), "rol", json!("operator"));
    assert!(
        verifier
            .verify(&hs256(&secret, &good, &operator), NOW)
            .is_ok()
    );
    let loads = hs256(&secret, &good, &with(portal(), "load", json!(true)));
    let who = verifier.verify(&loads, NOW).unwrap();
    assert!(!who.may_load, "only a key that makes admins gives that");
    let kid = |kid: &str| with(good.clone(), "kid", json!(kid));
    let public = own.key().public_key().to_vec();
    for bad in [
        hs256(&secret, &good, &with(portal(), "rol", json!("admin"))),
        hs256(&secret, &good, &good_claims()),
        hs256(&secret, &kid(own.key().kid()), &good_claims()),
        hs256(&secret, &kid(own.key().kid()), &portal()),
        hs256(
            &secret,
            &with(good.clone(), "alg", json!("EdDSA")),
            &portal(),
        ),
        hs256(&secret, &with(good.clone(), "typ", json!("JWT")), &portal()),
        hs256(&secret[..31], &good, &portal()),
        hs256(&[], &good, &portal()),
        hs256(&public, &kid(own.key().kid()), &good_claims()),
        hs256(&public, &good, &portal()),
        sign(&own.key(), &good, &portal()),
        sign(
            &own.key(),
            &with(good_header(&own), "kid", json!("hs256")),
            &portal(),
        ),
    ] {
        assert_eq!(verifier.verify(&bad, NOW), Err(Denied::Invalid), "{bad}");
    }
}
