//! Knowledge of versions, and how it agrees with the table.

use super::*;
use crate::vllm::options::{Form, OPTIONS};

fn at(text: &str) -> VersionArgs {
    VersionArgs::built_in(text.parse().unwrap())
}

#[test]
fn two_versions_are_known_whole() {
    assert_eq!(at("0.7.2").iter().count(), 130);
    // Of 318 arguments one is the model, which has no dashes.
    assert_eq!(at("0.32.0").iter().count(), 317);
    assert_eq!(at("0.32.0").source(), Source::BuiltIn);
    assert_eq!(at("0.7.2").find("--swap-spac"), Found::Absent);
    assert!(at("0.7.2").has("--swap-space") && !at("0.32.0").has("--swap-space"));
}

#[test]
fn arguments_are_found_by_every_name() {
    let args = at("0.32.0");
    for (name, flag, negated) in [
        ("-tp", "--tensor-parallel-size", false),
        ("--no-enforce-eager", "--enforce-eager", true),
        ("--dtype", "--dtype", false),
    ] {
        match args.find(name) {
            Found::Present { arg, negated: n } => assert_eq!((arg.flag(), n), (flag, negated)),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(args.find("--no-headless"), Found::Absent);
    assert_eq!(
        args.completions("--ser").collect::<Vec<_>>(),
        ["--served-model-name"]
    );
    assert_eq!(args.nearest("--max-modle-len"), Some("--max-model-len"));
}

#[test]
fn versions_between_say_what_they_do_not_know() {
    let args = at("0.12.0");
    assert_eq!(args.source(), Source::Concluded);
    assert!(args.has("--dtype"), "in all");
    assert_eq!(
        args.find("--enable-reasoning"),
        Found::Absent,
        "gone by 0.11.0"
    );
    let seen = |args: &VersionArgs, flag| matches!(args.find(flag), Found::Perhaps(Some(_)));
    assert!(seen(&args, "--rope-theta"), "in 0.11.0 and not in 0.15.0");
    assert!(
        seen(&args, "--stream-interval"),
        "only 0.32.0 is known to have it"
    );
    assert_eq!(args.find("--nothing-like-it"), Found::Absent);
    assert!(at("0.15.0").has("--swap-space"));
    assert_eq!(at("0.15.0").find("--rope-theta"), Found::Absent);
    let newer = at("0.40.0");
    assert!(newer.has("--dtype"));
    assert_eq!(newer.find("--new-in-0-40"), Found::Perhaps(None));
    assert_eq!(
        newer.find("--swap-space"),
        Found::Perhaps(Some(&at("0.12.0").present["--swap-space"]))
    );
}

#[test]
fn a_list_reads_back_from_its_text() {
    let args = at("0.32.0");
    let again = VersionArgs::from_text(args.version(), &args.to_text()).unwrap();
    assert_eq!(again.present, args.present);
    for bad in [
        "",
        "# only a comment\n",
        "no-dashes|value\n",
        "--a|sideways\n",
        "--a\n",
    ] {
        assert!(
            VersionArgs::from_text(args.version(), bad).is_none(),
            "{bad:?}"
        );
    }
}

#[test]
fn the_table_names_only_flags_that_its_versions_have() {
    for (version, _) in WHOLE {
        let args = VersionArgs::built_in(version);
        for row in OPTIONS {
            let form = row.span(version).unwrap().form;
            if let Some(flag) = form.flag() {
                assert!(args.has(flag), "{}: {version} has no {flag}", row.name);
            }
        }
    }
    for (version, _) in PARTIAL {
        for row in OPTIONS {
            let form = row.span(version).unwrap().form;
            if let Some(flag) = form.flag() {
                assert_ne!(
                    observed(version, flag),
                    Some(false),
                    "{}: {version}: {flag}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn the_table_calls_removed_only_what_is_gone() {
    for (version, _) in WHOLE.iter().chain(&PARTIAL) {
        for row in OPTIONS {
            let gone = matches!(row.span(*version).unwrap().form, Form::Removed { .. });
            let old = row.spans[0].form.flag();
            if let (true, Some(flag)) = (gone, old) {
                assert_eq!(
                    observed(*version, flag),
                    Some(false),
                    "{}: {version}",
                    row.name
                );
            }
        }
    }
}
