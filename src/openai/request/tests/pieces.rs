//! Bodies that come in pieces.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Scan, ScanError, Scanner, scan};
use super::{SDK_BODY, any_body};

/// Scan of a body that comes in pieces, cut at these places.
pub(in crate::openai) fn in_pieces(
    body: &[u8],
    cuts: &[usize],
) -> Result<Scan<'static>, ScanError> {
    let mut scanner = Scanner::default();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        scanner.feed(&body[from..cut]);
        from = cut;
    }
    let mut found = scanner.end();
    // A key in two pieces may be any.
    if let Ok(found) = &mut found {
        let brings = scan(body).is_ok_and(|whole| whole.brings);
        assert!(found.brings || !brings);
        found.brings = brings;
    }
    found
}

#[test]
fn a_body_cut_anywhere_says_the_same() {
    let bodies = [
        SDK_BODY,
        "{}",
        " { } ",
        r#"{"n":12,"a\u0062":[1,-0.5e+3,true,"\\",{"\"":null}],"model":"m\"\u00e9","stream":true} "#,
        r#"{"stream_options":{"x":[{}],"include_usage":true},"stream":true,"user":null}"#,
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","x":[01]}"#,
        r#"{"model":"a","x":tru}"#,
        r#"{"model":"a"}}"#,
        r#"["model"]"#,
        "\u{feff}{\"user\":\"é🌊\",\"ü\":\"日本\"}",
        r#"{"max_tokens":-12,"n":"3","stream":"false","store":1,"user":0.5e1,"model":"m"}"#,
        "{\"model\":\"m\", \"messages\" : \r\n\t [ { \"role\" : \"user\" } ] , \"x\": ",
        "{\"prompt\":  \"p\" , \"model\":\"m\"}",
        r#"{"n":1"#,
        r#"{"n":-"#,
        r#"{"x":1"#,
        r#"{"x":"a\"#,
        r#"{"x":{"#,
        "",
    ];
    for body in bodies {
        let body = body.as_bytes();
        let whole = scan(body);
        for first in 0..=body.len() {
            assert_eq!(in_pieces(body, &[first]), whole, "cut at {first}");
            for second in first..=body.len() {
                assert_eq!(in_pieces(body, &[first, second]), whole);
            }
        }
        let each: Vec<usize> = (0..body.len()).collect();
        assert_eq!(in_pieces(body, &each), whole, "byte by byte");
    }
}

#[test]
fn what_is_no_utf_8_is_refused_however_it_is_cut() {
    for body in [
        &b"{\"x\":\"a\xc3\xa9\xff\"}"[..],
        b"{\"x\":\"\xf0\x9f\x8c\"}",
        b"{}\xe2\x82",
    ] {
        let whole = scan(body);
        assert!(
            matches!(
                whole,
                Err(ScanError::Malformed {
                    expected: "UTF-8",
                    ..
                })
            ),
            "{whole:?}"
        );
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let cut = in_pieces(body, &[first, second]);
                assert_eq!(
                    cut.map_err(|error| error.code()).err(),
                    Some("invalid_json")
                );
            }
        }
    }
}

#[test]
fn a_long_field_in_many_pieces_is_not_read_over_and_over() {
    let body = format!("{{\"user\":\"{}\"}}", "u".repeat(4 << 20));
    let cuts: Vec<usize> = (0..body.len()).step_by(64).collect();
    assert_eq!(
        in_pieces(body.as_bytes(), &cuts)
            .unwrap()
            .user
            .unwrap()
            .len(),
        4 << 20
    );
}

proptest! {
    #[test]
    fn any_body_in_any_pieces_says_the_same(
        body in any_body(),
        damage in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        is_pretty: bool,
    ) {
        let mut bytes = if is_pretty {
            serde_json::to_vec_pretty(&body).unwrap()
        } else {
            serde_json::to_vec(&body).unwrap()
        };
        for (at, what) in damage {
            let what = b"{}[]\",:\\tn0-. "[what.index(14)];
            bytes.insert(at.index(bytes.len()), what);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(in_pieces(&bytes, &cuts), scan(&bytes));
    }
}
