//! Lists of targets, among the files.

use super::*;
use crate::config::TargetRule;

const FAR: &str = "[[upstream]]\nurl = \"http://a\"\nname = \"far\"\n";

fn to(names: &[&str]) -> String {
    let each = names
        .iter()
        .map(|name| format!("[[target]]\nto = \"{name}\"\n"));
    each.collect()
}

/// The list of the first route that has one.
fn listed(catalog: &Catalog) -> Vec<String> {
    let mut lists = catalog
        .routes
        .iter()
        .filter_map(|route| route.targets.as_ref());
    let list = lists.next().map_or(&[][..], |list| &list.targets);
    let name = |rule: &TargetRule| rule.to.as_str().to_owned();
    list.iter().map(name).collect()
}

#[test]
fn a_list_has_models_of_several_files_and_upstreams_of_its_own() {
    let shared = route("r", "models = [\"chat\"]\npublic = true") + FAR + &to(&["j", "far", "k"]);
    let dir = Dir::new(&[
        ("a.toml", &shared),
        ("b.toml", &instance("one", "route = \"r\"", "j")),
        ("c.toml", &instance("two", "route = \"r\"", "k")),
    ]);
    let catalog = dir.load(None);
    assert_eq!(dir.errors(&catalog), [""; 0]);
    assert_eq!(served(&catalog), ["r [chat] -> [one/j two/k]"]);
    assert_eq!(listed(&catalog), ["j", "far", "k"]);
    let route = &catalog.routes[0];
    let behind = |name: &str| -> Vec<&str> {
        route
            .behind(name)
            .iter()
            .map(|spec| spec.id.as_str())
            .collect()
    };
    assert_eq!(behind("chat"), ["one/j", "two/k"]);
    assert_eq!(behind("k"), ["two/k"]);
}

#[test]
fn a_list_may_be_called_as_one_of_its_models_and_a_name_may_stand_for_it() {
    let text = instance("own", "", "m")
        + "[route]\nname = \"own\"\nmodels = [\"m\"]\n"
        + FAR
        + &to(&["m", "far"])
        + "[[name]]\nname = \"fast\"\nof = \"own\"\n";
    let dir = Dir::new(&[("a.toml", &text)]);
    let catalog = dir.load(None);
    assert_eq!(dir.errors(&catalog), [""; 0]);
    assert_eq!(catalog.routes[0].names[0].of.as_str(), "m");
}

#[test]
fn a_target_that_leads_nowhere_or_to_two_things_is_told() {
    for (names, told) in [
        (
            &["j", "far", "farr"][..],
            "a.toml:12: target.to: \"farr\" is neither a model behind the route \"r\" nor an upstream of it: did you mean \"far\"?",
        ),
        (
            &["j", "elsewhere", "far"],
            "a.toml:10: target.to: \"elsewhere\" is neither a model behind the route \"r\" nor an upstream of it: that model is behind another route: write route = \"r\" in its [instance]",
        ),
        (
            &["x", "far"],
            "a.toml:8: target.to: \"x\" is neither a model behind the route \"r\" nor an upstream of it: write a model of an instance that names this route, or the name of an [[upstream]] of this file",
        ),
    ] {
        let shared = route("r", "") + FAR + &to(names);
        let dir = Dir::new(&[
            ("a.toml", &shared),
            ("b.toml", &instance("one", "route = \"r\"", "j")),
            ("c.toml", &instance("two", "", "elsewhere")),
        ]);
        let catalog = dir.load(None);
        let errors = dir.errors(&catalog);
        assert!(errors.iter().any(|error| error == told), "{errors:#?}");
    }
    let twice = route("r", "") + FAR + &to(&["far"]);
    let dir = Dir::new(&[
        ("a.toml", &twice),
        ("b.toml", &instance("one", "route = \"r\"", "far")),
    ]);
    let catalog = dir.load(None);
    let errors = dir.errors(&catalog);
    assert!(
        errors[0].contains("could mean the upstream or the model"),
        "{errors:?}"
    );
}

#[test]
fn a_list_whose_model_is_taken_away_stays_without_it() {
    let shared = route("r", "") + FAR + &to(&["j", "far"]);
    let joins = instance("one", "route = \"r\"", "j");
    let dir = Dir::new(&[("a.toml", &shared), ("b.toml", &joins)]);
    let before = dir.load(None);
    assert_eq!(dir.errors(&before), [""; 0]);
    dir.remove("b.toml");
    let after = dir.load(Some(&before));
    assert_eq!(listed(&after), ["j", "far"]);
    let errors = dir.errors(&after);
    assert!(
        errors[0].starts_with("a.toml:8: target.to: \"j\" is neither"),
        "{errors:?}"
    );
    dir.write("b.toml", &joins);
    assert_eq!(dir.errors(&dir.load(Some(&after))), [""; 0]);
}

#[test]
fn a_target_that_serves_nothing_of_what_the_others_do_is_told() {
    const VECTORS: &str = "[[upstream]]\nurl = \"http://b\"\nname = \"vectors\"\napis = [\"embeddings\", \"rerank\"]\n";
    let told = |catalog: &Catalog, dir: &Dir| -> Vec<String> {
        let errors = dir.errors(catalog).into_iter();
        errors
            .filter(|error| error.contains("serves only"))
            .collect()
    };
    let of_two = route("r", "") + &FAR.replace("name", "apis = [\"chat\"]\nname") + VECTORS;
    let dir = Dir::new(&[("a.toml", &(of_two + &to(&["far", "vectors"])))]);
    assert_eq!(
        told(&dir.load(None), &dir),
        [
            "a.toml:15: target.to: \"vectors\" serves only embeddings, rerank, and none of the others does: no request can go on from one to the other: take it out, or write in `apis` of each [[upstream]] what it serves"
        ]
    );
    // What one serves is not known, so it may be this.
    let unknown = route("r", "") + FAR + VECTORS + &to(&["far", "vectors"]);
    let dir = Dir::new(&[("a.toml", &unknown)]);
    assert_eq!(dir.errors(&dir.load(None)), [""; 0]);
    // A model of ours that pools, by its options.
    let pools = instance("one", "route = \"r\"", "j").replace("engine = \"sim\"\n", "")
        + "[deployment.options]\ntask = \"embed\"\n";
    let chats =
        route("r", "") + &FAR.replace("name", "apis = [\"chat\"]\nname") + &to(&["far", "j"]);
    let dir = Dir::new(&[("a.toml", &chats), ("b.toml", &pools)]);
    let errors = told(&dir.load(None), &dir);
    assert!(
        errors.len() == 1
            && errors[0].starts_with("a.toml:11: target.to: \"j\" serves only embeddings, embed,"),
        "{errors:?}"
    );
}

#[test]
fn a_target_that_is_a_name_with_parameters_is_told_what_to_write() {
    let text =
        route("r", "") + FAR + "[[name]]\nname = \"fast\"\nof = \"r\"\n" + &to(&["far", "fast"]);
    let dir = Dir::new(&[("a.toml", &text)]);
    let errors = dir.errors(&dir.load(None));
    assert!(
        errors
            .iter()
            .any(|error| error.ends_with("it is a [[name]]: write what that stands for, \"r\"")),
        "{errors:?}"
    );
}

#[test]
fn a_mirror_leads_to_what_a_target_could_and_nowhere_else() {
    let mirror = |to: &str| format!("[route.targets]\nmirror = {{ to = \"{to}\" }}\n");
    for (to, told) in [
        ("j", None),
        (
            "farr",
            Some(
                "\"farr\" is neither a model behind the route \"r\" nor an upstream of it: did you mean \"far\"?",
            ),
        ),
        (
            "vectors",
            Some(
                "\"vectors\" serves nothing of what the targets do, so that nothing is copied: write another, or take mirror out",
            ),
        ),
    ] {
        let vectors =
            "[[upstream]]\nurl = \"http://b\"\nname = \"vectors\"\napis = [\"embeddings\"]\n";
        let vectors = if to == "vectors" { vectors } else { "" };
        let far = FAR.replace("name", "apis = [\"chat\"]\nname");
        let text = route("r", "") + &mirror(to) + &far + vectors + &self::to(&["far"]);
        let dir = Dir::new(&[
            ("a.toml", &text),
            ("b.toml", &instance("one", "route = \"r\"", "j")),
        ]);
        let errors = dir.errors(&dir.load(None));
        let expected = told.map(|told| format!("a.toml:5: route.targets.mirror.to: {told}"));
        assert_eq!(errors.first(), expected.as_ref(), "{errors:#?}");
    }
}
