use bytes::Bytes;
use proptest::prelude::*;

use super::super::splice::{Edits, splice};
use super::*;

/// A form with the boundary `X` of these heads and values.
fn form(parts: &[(&str, &str)]) -> String {
    let parts = parts
        .iter()
        .map(|(head, value)| format!("--X\r\n{head}\r\n\r\n{value}\r\n"));
    parts.collect::<String>() + "--X--\r\n"
}

fn field(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"")
}

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a \\\"b;.wav\"\r\nContent-Type: audio/wav";

#[test]
fn the_model_is_found_wherever_it_stands() {
    let model = field("model");
    let sound = "RIFF\r\n--\r\n--Xy\r\n--X-\0\r\n\r\n";
    for parts in [
        [(model.as_str(), "whisper"), (FILE, sound)],
        [(FILE, sound), (model.as_str(), "whisper")],
    ] {
        let body = form(&parts);
        let found = scan(body.as_bytes(), "X").unwrap();
        assert_eq!(found.model.as_deref(), Some("whisper"));
        assert!(!found.stream);
        let place = found.layout.model.unwrap();
        assert_eq!(body.get(place), Some("whisper"));
    }
    let token = "content-disposition:form-data;name=model";
    let streaming = form(&[
        (token, "w"),
        (&field("stream"), "True"),
        (&field("user"), "ana"),
    ]);
    let found = scan(streaming.as_bytes(), "X").unwrap();
    assert!(found.stream && !found.usage_was_asked());
    assert_eq!(found.user.as_deref(), Some("ana"));
    assert_eq!(scan(b"--X--", "X").unwrap().model, None);
}

#[test]
fn only_the_value_of_the_model_changes() {
    let body = form(&[
        (FILE, "\0\r\n\r\n"),
        (&field("model"), "whisper"),
        (&field("stream"), "1"),
    ]);
    let edit = |model, include_usage| {
        let bytes = Bytes::from(body.clone());
        let found = scan(&bytes, "X").unwrap();
        let edits = Edits {
            model,
            include_usage,
            continuous_usage: false,
        };
        String::from_utf8(
            splice(&bytes.clone().into(), &found, edits)
                .into_one()
                .to_vec(),
        )
        .unwrap()
    };
    assert_eq!(edit(None, false), body);
    assert_eq!(edit(Some("whisper"), false), body);
    let renamed = body.replace("whisper", "openai/whisper-large");
    assert_eq!(edit(Some("openai/whisper-large"), false), renamed);
    let asked = format!(
        "--X\r\n{}\r\n\r\ntrue\r\n{body}",
        field("stream_include_usage")
    );
    assert_eq!(edit(None, true), asked);
    assert!(scan(asked.as_bytes(), "X").unwrap().usage_was_asked());
    // In every event, where that is wanted.
    let asked = Bytes::from(asked);
    let edits = Edits {
        continuous_usage: true,
        ..Edits::default()
    };
    let found = scan(&asked, "X").unwrap();
    let always = splice(&asked.clone().into(), &found, edits).into_one();
    let found = scan(&always, "X").unwrap();
    let options = found.stream_options.as_ref().unwrap();
    assert_eq!(options.continuous_usage_stats, Some(true));
    assert_eq!(
        splice(&always.clone().into(), &found, edits).into_one(),
        always
    );
    // Without a model, one is put first.
    let bare = Bytes::from(form(&[(FILE, "x")]));
    let edits = Edits {
        model: Some("w"),
        include_usage: false,
        continuous_usage: false,
    };
    let named = splice(&bare.clone().into(), &scan(&bare, "X").unwrap(), edits).into_one();
    assert_eq!(scan(&named, "X").unwrap().model.as_deref(), Some("w"));
}

#[test]
fn blank_lines_around_a_form_are_let_be() {
    let body = form(&[(&field("model"), "w"), (FILE, "x")]);
    let around = Bytes::from(format!("\r\n\r\n{body}\r\n\r\n"));
    let found = scan(&around, "X").unwrap();
    assert_eq!(found.model.as_deref(), Some("w"));
    let mut edits = Edits {
        model: None,
        include_usage: false,
        continuous_usage: false,
    };
    // Those before it are taken out: not every reader lets them be.
    let sent = splice(&around.clone().into(), &found, edits).into_one();
    assert_eq!(sent, format!("{body}\r\n\r\n"));
    let bare = Bytes::from(format!("\r\n{}", form(&[(FILE, "x")])));
    edits.model = Some("v");
    let named = splice(&bare.clone().into(), &scan(&bare, "X").unwrap(), edits).into_one();
    assert!(named.starts_with(b"--X\r\n"), "{named:?}");
    assert_eq!(scan(&named, "X").unwrap().model.as_deref(), Some("v"));
    for bad in ["\n--X--", " \r\n--X--", "--X--\r\nx", "--X--\n"] {
        assert!(scan(bad.as_bytes(), "X").is_err(), "{bad:?}");
    }
    assert!(scan(("\r\n".repeat(17) + "--X--").as_bytes(), "X").is_err());
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let model = field("model");
    let good = form(&[(&model, "m")]);
    for (bad, code) in [
        (String::new(), "invalid_form"),
        ("{}".to_owned(), "invalid_form"),
        (good.replace("\r\n", "\n"), "invalid_form"),
        (format!("preamble\r\n{good}"), "invalid_form"),
        (format!("{good}epilogue"), "invalid_form"),
        (good.replace("--X--", "--X"), "invalid_form"),
        (good.replace("--X--\r\n", ""), "invalid_form"),
        (good.replacen("--X\r\n", "--X \r\n", 1), "invalid_form"),
        (form(&[(&model, "m"), (&model, "n")]), "duplicate_key"),
        (
            form(&[(&format!("{model}; filename=\"m\""), "m")]),
            "invalid_value",
        ),
        (
            form(&[(&format!("{model}; name=\"file\""), "m")]),
            "invalid_form",
        ),
        (
            form(&[(&format!("{model}; name*=utf-8''file"), "m")]),
            "invalid_form",
        ),
        (
            form(&[(&format!("{model}\r\n{}", field("file")), "m")]),
            "invalid_form",
        ),
        (
            form(&[(&format!("{model}\r\n folded"), "m")]),
            "invalid_form",
        ),
        (
            form(&[(
                &format!("{model}\r\nContent-Transfer-Encoding: base64"),
                "bQ==",
            )]),
            "invalid_form",
        ),
        (
            form(&[("Content-Disposition: form-data; name=\"mo\\del\"", "m")]),
            "invalid_form",
        ),
        (
            form(&[("Content-Disposition: attachment; name=\"model\"", "m")]),
            "invalid_form",
        ),
        (
            form(&[("Content-Disposition: form-data; name=\"model", "m")]),
            "invalid_form",
        ),
        (form(&[("Content-Type: text/plain", "m")]), "invalid_form"),
        (form(&[("no colon", "m")]), "invalid_form"),
        (
            form(&[(&format!("X-A: {}", "a".repeat(9_000)), "m")]),
            "invalid_form",
        ),
        (form(&vec![(field("a").as_str(), "m"); 300]), "invalid_form"),
        (form(&[(&model, &"m".repeat(2_000))]), "invalid_value"),
        (form(&[(&field("stream"), "perhaps")]), "invalid_value"),
    ] {
        let refused = scan(bad.as_bytes(), "X").unwrap_err();
        assert_eq!(refused.code(), code, "{bad:.200}: {refused}");
    }
    assert!(scan(good.as_bytes(), "X").is_ok());
    assert!(scan(b"--X\r\n\xff: 1\r\n\r\n\r\n--X--", "X").is_err());
}

#[test]
fn a_content_type_names_one_boundary() {
    for (text, expected) in [
        ("multipart/form-data; boundary=abc", Some("abc")),
        (
            "multipart/form-data;boundary=\"a b\"; charset=utf-8",
            Some("a b"),
        ),
        ("multipart/form-data; Boundary=--9", Some("--9")),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=\"", None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        ("multipart/form-data; boundary=a\"b", None),
        ("multipart/form-data; boundary", None),
    ] {
        assert_eq!(boundary(text).ok().as_deref(), expected, "{text}");
    }
    let long = format!("multipart/form-data; boundary={}", "a".repeat(71));
    assert!(boundary(&long).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let body = [b"--X\r\n".as_slice(), &bytes, b"\r\n--X--\r\n"].concat();
        drop(scan(&body, "X"));
        drop(scan(&bytes, "X"));
        drop(boundary(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn values_come_out_as_they_went_in(value in "[ -~\r\n]{0,80}", name in "[a-z]{1,8}") {
        let body = form(&[(FILE, &value), (&field("model"), &name)]);
        // A value that holds a boundary ends there.
        prop_assume!(!value.contains("\r\n--X"));
        prop_assert_eq!(scan(body.as_bytes(), "X").unwrap().model.unwrap(), name);
    }
}
