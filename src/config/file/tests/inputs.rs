//! Inputs that requests may bring along, by `media` and `chat_template`.

use super::*;
use crate::config::{Inputs, Media};

fn inputs(keys: &str) -> Inputs {
    let text = format!("[route]\nname = \"r\"\n{keys}\n");
    let route = parsed("a.toml", text.as_bytes()).unwrap().route.unwrap();
    route.inputs.value
}

#[test]
fn a_route_says_what_requests_bring_along() {
    let hosts =
        |hosts: &[&str]| Media::Hosts(hosts.iter().map(|host| host.parse().unwrap()).collect());
    for (keys, media) in [
        ("", Media::Public),
        ("media = \"public\"", Media::Public),
        ("media = \"any\"", Media::Any),
        ("media = \"data\"", Media::Data),
        ("media = \"none\"", Media::None),
        (
            "media = [\"Images.Example.org.\", \"10.0.0.1\", \"[fd00::7]\"]",
            hosts(&["images.example.org", "10.0.0.1", "[fd00::7]"]),
        ),
    ] {
        assert_eq!(inputs(keys).media, media, "{keys}");
    }
    assert!(inputs("chat_template = true").chat_template);
    assert!(!inputs("").chat_template);
}

#[test]
fn what_is_no_such_place_is_told_with_its_line() {
    for (keys, told) in [
        ("media = \"all\"", "3: route.media: \"all\" is unknown here"),
        ("media = true", "3: route.media: write a text in quotes"),
        ("media = []", "3: route.media: write 1 to 256 hosts"),
        ("media = [\"http://a\"]", "3: route.media: write the host"),
        (
            "media = [\"*.example.org\"]",
            "3: route.media: write the host",
        ),
        (
            "media = [\"127.1\"]",
            "3: route.media: this is an address in disguise",
        ),
        ("media = [\"a:80\"]", "3: route.media: write the host"),
        ("chat_template = \"{{ 1 }}\"", "3: route.chat_template: "),
        (
            "media = \"data\"\n[[upstream]]\nurl = \"http://a\"",
            "3: route.media: this has an effect on workers of ours only",
        ),
    ] {
        let errors = errors("a.toml", &format!("[route]\nname = \"r\"\n{keys}\n"));
        assert_eq!(errors.len(), 1, "{keys}: {errors:?}");
        assert!(errors[0].starts_with(told), "{keys}: {errors:?}");
    }
}

#[test]
fn an_operator_narrows_and_does_not_widen() {
    let file = |author: &str, keys: &str| {
        let text = format!(
            "[route]\nname = \"r\"\n{keys}\n[instance]\nname = \"i\"\nengine = \"sim\"\n{author}\n[[deployment]]\nmodel = \"m\"\n"
        );
        errors("a.toml", &text)
    };
    for keys in [
        "media = \"any\"",
        "media = [\"example.org\", \"10.0.0.1\"]",
        "chat_template = true",
    ] {
        assert!(file("", keys).is_empty(), "an admin's");
        let told = file("author = \"ana\"", keys);
        assert!(
            told.len() == 1 && told[0].starts_with("3: route.") && told[0].contains("for admins"),
            "{told:?}"
        );
    }
    for keys in [
        "media = \"none\"",
        "media = \"data\"",
        "media = [\"example.org\"]",
    ] {
        assert!(file("author = \"ana\"", keys).is_empty(), "{keys}");
    }
}
