//! Key sets as issuers write them, and as an enemy would.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fuzz;

fn ed(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode([7; 32])})
}

fn ec(crv: &str, bytes: usize) -> Value {
    let coordinate = URL_SAFE_NO_PAD.encode(vec![7; bytes]);
    json!({"kty": "EC", "crv": crv, "kid": "k", "x": coordinate, "y": coordinate})
}

fn rsa(bytes: usize) -> Value {
    let n = URL_SAFE_NO_PAD.encode(vec![0xc7; bytes]);
    json!({"kty": "RSA", "kid": "k", "n": n, "e": "AQAB"})
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

fn parse(keys: &[Value]) -> Result<KeySet, JwksError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

/// The algorithm that one key is pinned to; `None` when it is passed over.
fn pinned(key: &Value) -> Option<Algorithm> {
    // Beside a good one, so that the set is never empty.
    let set = parse(&[key.clone(), ed("other")]).unwrap();
    set.choose(Some("k")).map(|key| key.algorithm)
}

#[test]
fn each_key_is_pinned_to_one_algorithm_or_passed_over() {
    use Algorithm::{EdDsa, Es256, Es384, Ps384, Rs256, Rs512};
    let odd_e = |e: &str| with(rsa(256), "e", json!(e));
    for (key, expected) in [
        (ed("k"), Some(EdDsa)),
        (with(ed("k"), "alg", json!("EdDSA")), Some(EdDsa)),
        (with(ed("k"), "use", json!("sig")), Some(EdDsa)),
        (with(ed("k"), "key_ops", json!(["verify"])), Some(EdDsa)),
        (with(ed("k"), "x5c", json!(["MIIB"])), Some(EdDsa)),
        (ec("P-256", 32), Some(Es256)),
        (ec("P-384", 48), Some(Es384)),
        (rsa(256), Some(Rs256)),
        (with(rsa(256), "alg", json!("RS512")), Some(Rs512)),
        (with(rsa(512), "alg", json!("PS384")), Some(Ps384)),
        // Not for signatures.
        (with(ed("k"), "use", json!("enc")), None),
        (with(ed("k"), "use", json!(7)), None),
        (with(ed("k"), "key_ops", json!(["sign"])), None),
        (with(ed("k"), "key_ops", json!([])), None),
        (with(rsa(256), "alg", json!("RSA-OAEP")), None),
        // Of another kind than it says.
        (with(rsa(256), "alg", json!("ES256")), None),
        (with(rsa(256), "alg", json!("HS256")), None),
        (with(rsa(256), "alg", json!("none")), None),
        (with(ed("k"), "alg", json!("RS256")), None),
        (with(ec("P-256", 32), "alg", json!("ES384")), None),
        // A shared secret is no public key.
        (
            json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}),
            None,
        ),
        (
            json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256"}),
            None,
        ),
        // A private key that was published.
        (with(ed("k"), "d", json!("AAAA")), None),
        // Unknown, incomplete or of a wrong size.
        (json!({"kty": "AKP", "kid": "k", "pub": "AAAA"}), None),
        (json!({"kty": 1, "kid": "k"}), None),
        (json!({"kid": "k"}), None),
        (json!("k"), None),
        (with(ed("k"), "crv", json!("X25519")), None),
        (with(ed("k"), "x", json!("AAAA")), None),
        (with(ed("k"), "x", json!("not base64!")), None),
        (ec("P-521", 66), None),
        (ec("P-256", 48), None),
        (ec("secp256k1", 32), None),
        (rsa(128), None),
        (rsa(255), None),
        (rsa(1025), None),
        (with(rsa(256), "n", json!("")), None),
        (odd_e("AQ"), None),
        (odd_e(""), None),
        (odd_e("AAAAAAAAAAAAAQAB"), None),
    ] {
        assert_eq!(pinned(&key), expected, "{key}");
    }
}

#[test]
fn a_key_id_that_stands_twice_belongs_to_neither() {
    let set = parse(&[ed("a"), ed("k"), rsa(256)]).unwrap();
    assert!(set.choose(Some("k")).is_none());
    assert!(set.choose(Some("a")).is_some());
    // Also where the first or the last of them is of no use, and for three.
    let encrypts = with(ed("k"), "use", json!("enc"));
    for twice in [
        vec![encrypts.clone(), ed("k")],
        vec![ed("k"), encrypts],
        vec![ed("k"), ed("k"), ed("k")],
    ] {
        assert_eq!(parse(&twice).unwrap_err(), JwksError::NoKey);
    }
}

#[test]
fn a_key_without_id_is_used_only_where_nothing_else_can_be_meant() {
    let unnamed = || {
        let mut key = ed("");
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    let found = |keys: &[Value], kid| parse(keys).unwrap().choose(kid).is_some();
    assert!(found(&[unnamed()], None) && found(&[unnamed()], Some("any")));
    assert!(!found(&[unnamed(), unnamed()], None));
    assert!(!found(&[unnamed(), ed("a")], None));
    assert!(!found(&[unnamed(), ed("a")], Some("b")));
    assert!(found(&[ed("a")], None) && !found(&[ed("a")], Some("b")));
    assert!(!found(&[ed("a"), ed("b")], None));
    let long = ed(&"k".repeat(KID_BYTES_MAX + 1));
    assert_eq!(parse(&[long]).unwrap_err(), JwksError::NoKey);
}

#[test]
fn a_document_out_of_bounds_is_refused_whole() {
    let keys = |count: usize| -> Vec<Value> { (0..count).map(|n| ed(&n.to_string())).collect() };
    assert_eq!(parse(&keys(JWKS_KEYS_MAX)).unwrap().len(), JWKS_KEYS_MAX);
    let many = parse(&keys(JWKS_KEYS_MAX + 1)).unwrap_err();
    assert_eq!(many, JwksError::TooMany(JWKS_KEYS_MAX + 1));
    assert_eq!(parse(&[]).unwrap_err(), JwksError::NoKey);
    let mut large = json!({ "keys": keys(1) }).to_string().into_bytes();
    large.resize(JWKS_BYTES_MAX, b' ');
    assert_eq!(KeySet::parse(&large).unwrap().len(), 1);
    large.push(b' ');
    assert_eq!(KeySet::parse(&large).unwrap_err(), JwksError::TooLarge);
    let deep = format!("{{\"keys\":[{}", "[".repeat(100_000));
    for text in ["", "[]", "{}", "{\"keys\":{}}", "<html>", &deep] {
        let error = KeySet::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, JwksError::NotJwks, "{text:.20}");
    }
}

#[test]
fn a_pem_file_holds_one_public_key_of_its_algorithm() {
    use Algorithm::{EdDsa, Es256, Es384, Hs256, Rs256};
    let key = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
    let ed = key(&rcgen::PKCS_ED25519);
    let p256 = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let p384 = key(&rcgen::PKCS_ECDSA_P384_SHA384);
    for (key, algorithm) in [(&ed, EdDsa), (&p256, Es256), (&p384, Es384)] {
        let public = key.public_key_pem();
        for tried in [EdDsa, Es256, Es384, Rs256, Hs256] {
            let set = KeySet::from_pem(public.as_bytes(), tried);
            assert_eq!(set.is_ok(), tried == algorithm, "{algorithm:?} {tried:?}");
        }
        let private = KeySet::from_pem(key.serialize_pem().as_bytes(), algorithm);
        assert_eq!(private.unwrap_err(), JwksError::Private);
    }
    for text in ["", "garbage", "-----BEGIN PUBLIC KEY-----"] {
        assert!(KeySet::from_pem(text.as_bytes(), EdDsa).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_key_set(
        text in fuzz::damaged(
            &[
                json!({"keys": [ed("a"), ec("P-256", 32)]}).to_string(),
                json!({"keys": [rsa(256), with(ed("k"), "alg", json!("EdDSA"))]}).to_string(),
            ],
            &[
                "{", "}", "[", "]", ",", ":", "\"", "\\u0041", "null", "\"kid\":\"k\",", "\"alg\":\"none\",", "\"alg\":\"HS256\",",
                "\"use\":\"enc\",", "\"kty\":\"oct\",", "\"d\":\"AQAB\",", "\"e\":\"AQ\",", "AAAA", "=", "\u{e9}", "\0",
            ],
        ),
    ) {
        let Ok(set) = KeySet::parse(&text) else { return Ok(()) };
        prop_assert!(!set.is_empty() && set.len() <= JWKS_KEYS_MAX);
        // Keys are only ever taken out of a document that is one for serde as well.
        let document: Value = match serde_json::from_slice(&text) {
            Ok(document) => document,
            // Of a member that we do not read.
            Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        prop_assert!(document["keys"].as_array().unwrap().len() >= set.len());
    }
}
