//! Tokens that someone made to get in.

use proptest::prelude::*;

use super::*;
use crate::fuzz;

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
    let mut keys = Keyring::own(&issuer.key(), "tidegate", "here");
    let other = Keyring::own(&stranger.key(), "other", "here");
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
fn a_clock_that_jumps_opens_no_door_and_closes_none_for_good() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let token = issue(&issuer, spec());
    let (hour, year) = (3_600, 365 * 86_400);
    // Forth and back, with the token remembered or not.
    for (now, valid) in [
        (NOW, true),
        (NOW + hour - 1, true),
        (NOW + year, false),
        (NOW, true),
        (NOW - year, false),
        (0, false),
        (u64::MAX, false),
        (NOW + hour / 2, true),
    ] {
        assert_eq!(verifier.verify(&token, now).is_ok(), valid, "{now}");
    }
}

const JSON: [&str; 22] = [
    "{",
    "}",
    "\"",
    ":",
    ",",
    "\\u0041",
    "null",
    "[]",
    "1",
    "-1",
    "1e3",
    "9999999999",
    " ",
    "\0",
    "\"alg\":\"none\",",
    "\"alg\":\"EdDSA\",",
    "\"crit\":[],",
    "\"exp\":9999999999,",
    "\"ws\":\"other\",",
    "\"rol\":\"admin\",",
    "\"knd\":\"endpoint\",",
    "\u{e9}",
];

/// One issuer for all executions: making a key costs more than one of them.
fn fixed() -> &'static (Issuer, Verifier) {
    static FIXED: std::sync::OnceLock<(Issuer, Verifier)> = std::sync::OnceLock::new();
    FIXED.get_or_init(|| {
        let issuer = issuer();
        let verifier = verifier(&issuer);
        (issuer, verifier)
    })
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_token(text in {
        let (issuer, _) = fixed();
        let token = issue(issuer, spec());
        let signed = signed(issuer, &good_header(issuer).to_string(), &good_claims().to_string());
        fuzz::damaged(&[token, signed], &[".", "..", "=", "-", "_", "+", "/", "A", "tgw_", " ", "\u{e9}", "\0"])
            .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }) {
        let (issuer, verifier) = fixed();
        if verifier.verify(&text, NOW).is_ok() {
            // Nothing but what was signed, in the one spelling of its bytes.
            let bare = text.strip_prefix(TOKEN_PREFIX).unwrap_or(&text);
            let (message, signature) = bare.rsplit_once('.').unwrap();
            let right = issuer.key().sign(message.as_bytes()).unwrap();
            prop_assert_eq!(signature, URL_SAFE_NO_PAD.encode(right.as_ref()));
        }
    }

    #[test]
    fn fuzz_signed_claims(
        header in fuzz::damaged(&[good_header(&fixed().0).to_string()], &JSON),
        claims in fuzz::damaged(&[good_claims().to_string(), with(good_claims(), "lim", json!({"rpm": 6})).to_string()], &JSON),
    ) {
        let (issuer, verifier) = fixed();
        let [header, claims] = [header, claims].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if let Ok(principal) = verifier.verify(&signed(issuer, &header, &claims), NOW) {
            let header: Value = serde_json::from_str(&header).unwrap();
            let claims: Value = match serde_json::from_str(&claims) {
                Ok(claims) => claims,
                // Of a claim that we do not read.
                Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
                Err(error) => panic!("{error}: {claims}"),
            };
            prop_assert_eq!(&header["alg"], "EdDSA");
            prop_assert_eq!(&header["typ"], "wst+jwt");
            prop_assert_eq!(&claims["iss"], "tidegate");
            prop_assert_eq!(&claims["aud"], "here");
            prop_assert!(claims["exp"].as_u64().unwrap() + LEEWAY > NOW);
            prop_assert_eq!(&claims["ws"], principal.workspace.as_str());
        }
    }
}
