//! There and back again, and what is turned away.

use proptest::prelude::*;

use super::*;
use crate::config::gateway::local_queue;
use crate::config::{Catalog, with_file};

const FILE: &str = r#"# A comment.
[route]
name = "team"
path = "/team"

[instance]
name = "team"
project = "p"

[instance.options]
huggingface_token = "hf_topsecret"
seed = 7

[[deployment]]
model = "/models/a"
endpoint_name = "a"

[deployment.options]
dtype = "float16"
"#;

/// The instance that a file describes, or the errors.
fn served(syntax: Syntax, text: &str) -> Result<Catalog, String> {
    let path = format!("routes.d/x.{}", syntax.extension());
    with_file(
        &Catalog::default(),
        &[local_queue()],
        Path::new(&path),
        text.as_bytes(),
    )
    .map_err(|errors| format!("{errors:?}"))
}

fn exported(text: &str) -> Json {
    let mut exchange = Exchange::read(text.as_bytes()).unwrap().instance_only();
    exchange.take_secrets();
    exchange.export()
}

#[test]
fn a_file_that_is_launched_unchanged_keeps_its_comments() {
    let text = FILE.replace("huggingface_token = \"hf_topsecret\"\n", "");
    let mut exchange = Exchange::read(text.as_bytes()).unwrap();
    assert!(exchange.take_secrets().is_empty());
    assert_eq!(exchange.file(), (Syntax::Toml, text));
}

#[test]
fn secrets_are_taken_out_and_leave_their_names() {
    let mut exchange = Exchange::read(FILE.as_bytes()).unwrap();
    let taken = exchange.take_secrets();
    let secret = SecretText::new("hf_topsecret".to_owned());
    assert_eq!(taken, [("team.huggingface_token".to_owned(), secret)]);
    assert_eq!(exchange.named_secrets(), ["team.huggingface_token"]);
    let (syntax, text) = exchange.file();
    assert!(!format!("{text}{:?}{}", exchange, exchange.export()).contains("topsecret"));
    assert!(text.starts_with("# A comment.\n[route]\n"), "{text}");
    assert!(
        text.contains("huggingface_token = { secret = \"team.huggingface_token\" }"),
        "{text}"
    );
    served(syntax, &text).unwrap();
}

#[test]
fn a_wrong_option_beside_it_lets_no_secret_through() {
    let text = FILE.replace("seed = 7", "seed = \"no\"\nno_such = 1");
    assert!(!exported(&text).to_string().contains("topsecret"));
    let text = FILE.replace("hf_topsecret", "hf_topsecret in words");
    assert!(!exported(&text).to_string().contains("topsecret"));
}

#[test]
fn a_clone_takes_its_own_route_along() {
    let mut exchange = Exchange::read(FILE.as_bytes()).unwrap();
    exchange.rename(&InstanceName::new("other").unwrap());
    assert!(exchange.rename_endpoint("a", "b"));
    assert!(!exchange.rename_endpoint("a", "c"));
    let (syntax, text) = exchange.file();
    let catalog = served(syntax, &text).unwrap();
    let route = catalog.routes.first().unwrap();
    assert_eq!(
        (route.name.as_str(), route.path.as_str()),
        ("other", "other")
    );
    let id = &route.deployments.first().unwrap().id;
    assert_eq!(id.as_str(), "other/b");
}

#[test]
fn a_route_that_is_not_its_own_stays_behind() {
    let text = FILE.replace("project = \"p\"", "route = \"elsewhere\"");
    let exchange = Exchange::read(text.as_bytes()).unwrap();
    assert!(!exchange.is_alone());
    let export = exchange.instance_only().export();
    assert!(export.get("route").is_none(), "{export}");
    assert!(Exchange::read(FILE.as_bytes()).unwrap().is_alone());
}

#[test]
fn what_is_not_ours_too_large_or_newer_is_refused_with_the_reason() {
    let refused = |text: &str| Exchange::import(text.as_bytes()).unwrap_err().to_string();
    for (text, part) in [
        (FILE, "not an export"),
        ("{}", "no [instance]"),
        ("{", "input.json:1: this is not JSON"),
        (r#"{"tidegate": {"export": 2}}"#, "version 2"),
        (r#"{"tidegate": {"export": -1}}"#, "not an export"),
        (
            r#"{"tidegate": 1, "instance": {"name": "a"}}"#,
            "not an export",
        ),
        (
            r#"{"tidegate": {"export": 1}, "instance": {}}"#,
            "instance.name",
        ),
        (
            r#"{"tidegate": {"export": 1}, "instance": {"name": "../a"}}"#,
            "instance.name",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    let large = " ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
    assert!(refused(&large).contains("larger than 1048576 bytes"));
}

/// Values of options as files write them.
fn option() -> impl Strategy<Value = (String, Json)> {
    prop_oneof![
        any::<u32>().prop_map(|seed| ("seed".to_owned(), json!(seed))),
        any::<bool>().prop_map(|on| ("enforce_eager".to_owned(), json!(on))),
        (10u16..999).prop_map(|n| (
            "gpu_memory_utilization".to_owned(),
            json!(f64::from(n) / 1e3)
        )),
        "[a-z \"\\\\é]{1,9}".prop_map(|text| ("hf_overrides".to_owned(), json!({ "k": text }))),
        "[a-zA-Z0-9_]{1,20}".prop_map(|text| ("huggingface_token".to_owned(), json!(text))),
        Just(("dtype".to_owned(), Json::Null)),
    ]
}

proptest! {
    #[test]
    fn the_round_trip_is_the_identity(
        name in "i-[a-z0-9.-]{0,8}[a-z]",
        with_route: bool,
        options in proptest::collection::vec(option(), 0..6),
        more in proptest::collection::vec(option(), 0..6),
    ) {
        let table = |options: Vec<(String, Json)>| options.into_iter().collect::<Map<_, _>>();
        let mut file = json!({
            "instance": {"name": name, "options": table(options)},
            "deployment": [{"model": "m/x", "options": table(more)}],
        });
        if with_route {
            file["route"] = json!({"name": "r", "path": "/r"});
        }
        let mut first = Exchange::read(file.to_string().as_bytes()).unwrap();
        let secrets = first.take_secrets();
        let export = first.export();
        for (_, secret) in &secrets {
            let quoted = json!(secret.expose()).to_string();
            // The name of an option or key may be the same word.
            prop_assert!(!export["instance"]["options"]["huggingface_token"].to_string().eq(&quoted));
        }
        let mut again = Exchange::import(format!("{export:#}").as_bytes()).unwrap();
        prop_assert!(again.take_secrets().is_empty());
        prop_assert_eq!(again.export(), export);
        prop_assert_eq!(again.name(), first.name());
        let (one, other) = (first.file(), again.file());
        prop_assert_eq!(&one, &other);
        let read = |(syntax, text): (Syntax, String)| served(syntax, &text).map(|c| c.instances);
        let served = read(one);
        prop_assert!(served.is_ok(), "{:?}", served);
        prop_assert_eq!(served, read(other));
    }
}
