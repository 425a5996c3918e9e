//! Names with parameters of their own, among the files.

use super::*;

fn name(name: &str, of: &str) -> String {
    format!("[[name]]\nname = \"{name}\"\nof = \"{of}\"\nset.temperature = 0\n")
}

/// Each name, what it stands for, and the route that it belongs to.
fn named(catalog: &Catalog) -> Vec<String> {
    let routes = catalog.routes.iter();
    let names = routes.flat_map(|route| {
        let line = |name: &Arc<crate::config::Name>| {
            format!("{} -> {} ({})", name.name, name.of, route.name)
        };
        route.names.iter().map(line).collect::<Vec<_>>()
    });
    names.collect()
}

const FOREIGN: &str =
    "[route]\nname = \"far\"\nmodels = [\"gpt\", \"qw-*\"]\n[[upstream]]\nurl = \"http://a\"\n";

#[test]
fn a_name_stands_for_a_model_of_its_files_route_or_instance() {
    let own = instance("own", "", "m") + &name("m-fast", "m");
    let shared = route("r", "public = true") + &name("r-fast", "r") + &name("j-fast", "j");
    let joins = instance("joins", "route = \"r\"", "j") + &name("j-slow", "j");
    let far = FOREIGN.to_owned() + &name("gpt-fast", "gpt") + &name("wise", "qw-3");
    let dir = Dir::new(&[
        ("a.toml", &own),
        ("b.toml", &shared),
        ("c.toml", &joins),
        ("d.toml", &far),
    ]);
    let catalog = dir.load(None);
    assert_eq!(dir.errors(&catalog), [""; 0]);
    assert_eq!(
        named(&catalog),
        [
            "gpt-fast -> gpt (far)",
            "wise -> qw-3 (far)",
            "m-fast -> m (own)",
            "j-fast -> j (r)",
            "j-slow -> j (r)",
            "r-fast -> r (r)",
        ]
    );
}

#[test]
fn a_name_that_leads_nowhere_or_is_taken_is_told() {
    let own = |names: &str| instance("own", "", "m") + names;
    for (text, told) in [
        (
            own(&name("fast", "n")),
            "a.toml:10: name.of: \"n\" is no one model of this file's route or instance: write \"m\"",
        ),
        (
            own(&name("fast", "gpt")),
            "a.toml:10: name.of: \"gpt\" is no one model of this file's route or instance: write \"m\"",
        ),
        (
            own(&name("m", "m")),
            "a.toml:10: name.of: \"m\" can't stand for itself: write a model",
        ),
        (
            FOREIGN
                .replace("far", "near")
                .replace("gpt", "x")
                .replace("qw-*", "y")
                + &name("y", "x"),
            "a.toml:7: name.name: the model name \"y\" is taken by a.toml:3: write another",
        ),
        (
            own(&name("gpt", "m")),
            "a.toml:9: name.name: the model name \"gpt\" is taken by z.toml:3",
        ),
        (
            own(&name("qw-fast", "m")),
            "a.toml:9: name.name: the name \"qw-fast\" and the pattern \"qw-*\" are in each other's way, see z.toml:3",
        ),
    ] {
        let dir = Dir::new(&[("z.toml", FOREIGN)]);
        let before = dir.load(None);
        dir.write("a.toml", &text);
        let catalog = dir.load(Some(&before));
        let errors = dir.errors(&catalog);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(told), "{errors:?}");
        assert!(named(&catalog).is_empty());
        assert_eq!(catalog.instances.len(), 0, "a file takes effect whole");
    }
}

#[test]
fn a_file_whose_model_is_taken_away_stays_without_the_name() {
    let shared = route("r", "public = true") + &name("j-fast", "j");
    let joins = instance("joins", "route = \"r\"", "j");
    let dir = Dir::new(&[("b.toml", &shared), ("c.toml", &joins)]);
    let before = dir.load(None);
    assert_eq!(named(&before), ["j-fast -> j (r)"]);
    dir.remove("c.toml");
    let after = dir.load(Some(&before));
    assert_eq!(named(&after), [""; 0]);
    assert_eq!(after.routes.len(), 1);
    assert!(dir.errors(&after)[0].starts_with("b.toml:6: name.of: \"j\" is no one model"));
    dir.write("c.toml", &joins);
    let again = dir.load(Some(&after));
    assert_eq!(named(&again), ["j-fast -> j (r)"]);
    assert_eq!(dir.errors(&again), [""; 0]);
}

#[test]
fn whoever_has_a_name_first_keeps_it() {
    let own = instance("own", "", "m") + &name("fast", "m");
    let dir = Dir::new(&[("b.toml", &own)]);
    let before = dir.load(None);
    dir.write("a.toml", &(FOREIGN.to_owned() + &name("fast", "gpt")));
    let after = dir.load(Some(&before));
    assert_eq!(named(&after), ["fast -> m (own)"]);
    assert!(dir.errors(&after)[0].starts_with("a.toml:"));
    // A pattern that would lead elsewhere comes too late as well.
    let pattern = FOREIGN.replace("qw-*", "f*");
    dir.write("a.toml", &pattern);
    let after = dir.load(Some(&after));
    assert_eq!(named(&after), ["fast -> m (own)"]);
    let errors = dir.errors(&after);
    assert!(
        errors[0].starts_with("a.toml:3: route.models: the name \"fast\""),
        "{errors:?}"
    );
    dir.write("a.toml", &pattern.replace("f*", "*"));
    let after = dir.load(Some(&after));
    assert_eq!(
        dir.errors(&after),
        [""; 0],
        "what has no letters is for the rest"
    );
}
