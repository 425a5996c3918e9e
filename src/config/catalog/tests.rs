//! From files to catalogs, and from one catalog to the next.

mod directories;
mod histories;
mod names;
mod targets;

use super::*;
use crate::config::gateway::local_queue;
use crate::config::{Access, Route};
use crate::names::{ModelName, Workspace};

/// A directory of route files.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            dir.write(name, text);
        }
        dir
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join(name)).unwrap();
    }

    fn load(&self, previous: Option<&Catalog>) -> Catalog {
        load_catalog(self.0.path(), &[local_queue()], previous)
    }

    /// The errors, with the directory cut out.
    fn errors(&self, catalog: &Catalog) -> Vec<String> {
        let prefix = format!("{}/", self.0.path().display());
        let lines = catalog.errors.iter().map(ToString::to_string);
        lines.map(|line| line.replace(&prefix, "")).collect()
    }
}

/// An instance with one model, of the stand-in.
fn instance(name: &str, more: &str, endpoint: &str) -> String {
    format!(
        "[instance]\nname = \"{name}\"\nengine = \"sim\"\n{more}\n[[deployment]]\nmodel = \"m\"\nendpoint_name = \"{endpoint}\"\n"
    )
}

fn route(name: &str, more: &str) -> String {
    format!("[route]\nname = \"{name}\"\n{more}\n")
}

/// Routes that are served, each with its names and deployments.
fn served(catalog: &Catalog) -> Vec<String> {
    let line = |route: &Arc<Route>| {
        let models: Vec<_> = route.models.iter().map(ModelName::as_str).collect();
        let behind: Vec<_> = route.deployments.iter().map(|d| d.id.as_str()).collect();
        format!(
            "{} [{}] -> [{}]",
            route.name,
            models.join(" "),
            behind.join(" ")
        )
    };
    catalog.routes.iter().map(line).collect()
}

#[test]
fn routes_and_instances_find_each_other() {
    let dir = Dir::new(&[
        (
            "a.toml",
            &instance("one", "route = \"chat\"\nproject = \"p\"", "x"),
        ),
        ("b.toml", &route("chat", "")),
        (
            "c.toml",
            &instance("two", "route = \"chat\"\nproject = \"p\"", "x"),
        ),
        (
            "d.toml",
            &format!(
                "{}{}",
                route("own", "public = true"),
                instance("three", "", "y")
            ),
        ),
        ("e.toml", &instance("four", "", "z")),
        ("README.md", "not read"),
        (".hidden.toml", "not read"),
        ("f.toml~", "not read"),
    ]);
    let catalog = dir.load(None);
    assert_eq!(dir.errors(&catalog), [""; 0]);
    assert_eq!(
        served(&catalog),
        [
            "chat [chat] -> [one/x two/x]",
            "four [] -> [four/z]",
            "own [own] -> [three/y]",
        ]
    );
    let access: Vec<_> = catalog
        .routes
        .iter()
        .map(|route| route.access.clone())
        .collect();
    let project = Access::Project("p".parse().unwrap());
    assert_eq!(access, [project, Access::Admins, Access::Public]);
    assert!(catalog.routes[1].ephemeral);
}

#[test]
fn the_default_name_of_a_route_with_several_models_leads_nowhere() {
    let two = format!("{}[[deployment]]\nmodel = \"n\"\n", instance("i", "", "m"));
    let dir = Dir::new(&[("a.toml", &format!("{}{two}", route("r", "")))]);
    assert_eq!(served(&dir.load(None)), ["r [] -> [i/m i/n]"]);
    dir.write(
        "a.toml",
        &format!("{}{two}", route("r", "models = [\"r\"]")),
    );
    let errors = dir.load(None);
    assert!(dir.errors(&errors)[0].starts_with(
        "a.toml:3: route.models: the name \"r\" in models of route \"r\" could mean \"m\" or \"n\": take it out"
    ));
}

#[test]
fn an_instance_of_another_workspace_does_not_take_a_route_over() {
    for (of_route, named) in [
        ("workspace = \"v\"", "\"v\""),
        ("project = \"p\"", "(none)"),
    ] {
        let instance = instance("j", "route = \"chat\"\nworkspace = \"w\"", "x");
        let (route, shared) = (route("chat", of_route), route("chat", ""));
        let dir = Dir::new(&[("a.toml", &route), ("b.toml", &instance)]);
        let catalog = dir.load(None);
        let expected = format!(
            "b.toml:2: instance.workspace: the route \"chat\" is for the workspace {named} and an instance of it for \"w\": write the same workspace here and in a.toml:2"
        );
        assert_eq!(dir.errors(&catalog), [expected]);
        assert_eq!(catalog.routes.len(), 1);
        // In one file the route is its instance's.
        let dir = Dir::new(&[("a.toml", &format!("{shared}\n{instance}"))]);
        let catalog = dir.load(None);
        assert_eq!(dir.errors(&catalog), [""; 0]);
        let workspace = catalog.routes[0].workspace.as_ref();
        assert_eq!(workspace.map(Workspace::as_str), Some("w"));
    }
}

type Named = (&'static str, String);

/// Two files that clash, and what is said of them.
fn clashing() -> Vec<(Named, Named, &'static [&'static str])> {
    let named = |name, more| (name, more);
    vec![
        (
            named("a.toml", route("r", "")),
            named("b.toml", route("r", "")),
            &[
                "a.toml:2: route.name: the route \"r\" stands in b.toml:2 too: write another name",
                "b.toml:2: route.name: the route \"r\" stands in a.toml:2 too: write another name",
            ],
        ),
        (
            named("a.toml", route("r", "path = \"/x\"")),
            named("b.toml", route("s", "path = \"/x\"")),
            &[
                "a.toml:3: route.path: the path \"/x\" is taken by b.toml:3: write another",
                "b.toml:3: route.path: the path \"/x\" is taken by a.toml:3: write another",
            ],
        ),
        (
            named("a.toml", instance("i", "", "x")),
            named("b.toml", instance("i", "", "y")),
            &[
                "a.toml:2: instance.name: the instance \"i\" stands in b.toml:2 too: write another name",
                "b.toml:2: instance.name: the instance \"i\" stands in a.toml:2 too: write another name",
            ],
        ),
        (
            named("a.toml", instance("i", "", "x")),
            named("b.toml", instance("j", "", "x")),
            &[
                "a.toml:5: deployment.endpoint_name: the model name \"x\" is taken by b.toml:5: write another in models or endpoint_name",
                "b.toml:5: deployment.endpoint_name: the model name \"x\" is taken by a.toml:5: write another in models or endpoint_name",
            ],
        ),
        (
            named("a.toml", route("chat", "")),
            named("b.toml", instance("j", "route = \"chta\"", "x")),
            &[
                "b.toml:4: instance.route: the route \"chta\" does not exist: did you mean \"chat\"?",
            ],
        ),
        (
            named("a.toml", route("chat", "project = \"p\"")),
            named(
                "b.toml",
                instance("j", "route = \"chat\"\nproject = \"q\"", "x"),
            ),
            &[
                "b.toml:2: instance.project: route \"chat\" and its instances belong to different projects (\"p\", \"q\"): write the same project here and in a.toml:2",
            ],
        ),
        (
            named("a.toml", route("chat", "[[upstream]]\nurl = \"http://a\"")),
            named("b.toml", instance("j", "route = \"chat\"", "x")),
            &[
                "b.toml:2: instance.route: the route \"chat\" has upstreams of its own in a.toml:2: a route leads to upstreams or to instances, and to both only by a list of [[target]]",
            ],
        ),
    ]
}

#[test]
fn of_files_that_clash_at_a_first_start_none_is_served_and_later_the_first_stays() {
    for ((name_a, text_a), (name_b, text_b), expected) in clashing() {
        let dir = Dir::new(&[(name_a, &text_a), (name_b, &text_b)]);
        let catalog = dir.load(None);
        assert_eq!(dir.errors(&catalog), expected);
        assert_eq!(catalog.routes.len(), 2 - expected.len());
        // Which file sorts first does not matter.
        let turned = Dir::new(&[("z.toml", &text_a), (name_b, &text_b)]);
        assert_eq!(served(&turned.load(None)), served(&catalog));
        // The file that was there first stays, even if its name comes later.
        dir.remove(name_a);
        let first = Dir::new(&[(name_b, &text_b)]);
        let before = first.load(None);
        if before.errors.is_empty() {
            first.write(name_a, &text_a);
            let after = first.load(Some(&before));
            assert_eq!(served(&after), served(&before));
            assert!(
                first.errors(&after)[0].starts_with(name_a),
                "{:?}",
                after.errors
            );
        }
    }
}

#[test]
fn a_file_that_becomes_wrong_keeps_its_last_good_state() {
    let dir = Dir::new(&[
        ("a.toml", &instance("i", "", "x")),
        ("b.toml", &instance("j", "", "y")),
    ]);
    let good = dir.load(None);
    dir.write("a.toml", "[instance]\nname = 3");
    let wrong = dir.load(Some(&good));
    assert_eq!(served(&wrong), served(&good));
    assert_eq!(wrong.errors.len(), 2, "{:?}", wrong.errors);
    assert!(Arc::ptr_eq(&wrong.routes[0], &good.routes[0]));
    assert_eq!(
        dir.load(Some(&wrong)).errors,
        wrong.errors,
        "it stays wrong"
    );
    assert_eq!(
        served(&dir.load(None)),
        ["j [] -> [j/y]"],
        "at a first start it has no state"
    );
    dir.write("a.toml", &instance("i", "", "z"));
    let mended = dir.load(Some(&wrong));
    assert_eq!(mended.errors, []);
    assert_eq!(served(&mended), ["i [] -> [i/z]", "j [] -> [j/y]"]);
    dir.remove("b.toml");
    assert_eq!(served(&dir.load(Some(&mended))), ["i [] -> [i/z]"]);
}

#[test]
fn what_did_not_change_stays_the_same_arc() {
    let two = format!("{}[[deployment]]\nmodel = \"n\"\n", instance("i", "", "m"));
    let dir = Dir::new(&[("a.toml", &two), ("b.toml", &instance("j", "", "y"))]);
    let first = dir.load(None);
    dir.write(
        "a.toml",
        &two.replace("model = \"n\"", "model = \"n\"\nkeep = true"),
    );
    let second = dir.load(Some(&first));
    assert_eq!(second.errors, []);
    assert!(Arc::ptr_eq(&first.routes[1], &second.routes[1]));
    assert!(Arc::ptr_eq(&first.instances[1], &second.instances[1]));
    let (before, after) = (&first.instances[0], &second.instances[0]);
    assert!(Arc::ptr_eq(&before.deployments[0], &after.deployments[0]));
    assert!(!Arc::ptr_eq(&before.deployments[1], &after.deployments[1]));
    assert!(after.deployments[1].keep);
}

#[test]
fn files_may_swap_what_they_claim_in_one_step() {
    let dir = Dir::new(&[
        ("a.toml", &instance("i", "", "x")),
        ("b.toml", &instance("j", "", "y")),
    ]);
    let first = dir.load(None);
    dir.write("a.toml", &instance("j", "", "x"));
    dir.write("b.toml", &instance("i", "", "y"));
    let second = dir.load(Some(&first));
    assert_eq!(second.errors, []);
    assert_eq!(served(&second), ["i [] -> [i/y]", "j [] -> [j/x]"]);
}

#[test]
fn a_change_that_takes_a_route_from_its_instance_is_refused() {
    let team = instance("team", "route = \"chat\"", "x");
    let dir = Dir::new(&[("a.toml", &route("chat", "")), ("b.toml", &team)]);
    let first = dir.load(None);
    dir.write("a.toml", &route("talk", ""));
    let second = dir.load(Some(&first));
    assert_eq!(served(&second), served(&first));
    assert_eq!(
        dir.errors(&second),
        [
            "a.toml: this change takes away the route \"chat\", to which b.toml:4 leads: change that first"
        ]
    );
    dir.write("b.toml", &team.replace("chat", "talk"));
    let third = dir.load(Some(&second));
    assert_eq!(third.errors, []);
    assert_eq!(served(&third), ["talk [talk] -> [team/x]"]);
}

#[test]
fn an_instance_outlives_its_deleted_route_without_an_entrance() {
    let team = instance("team", "route = \"chat\"", "x");
    let dir = Dir::new(&[("a.toml", &route("chat", "")), ("b.toml", &team)]);
    let first = dir.load(None);
    dir.remove("a.toml");
    let second = dir.load(Some(&first));
    assert_eq!(served(&second), [""; 0]);
    assert!(Arc::ptr_eq(&first.instances[0], &second.instances[0]));
    assert_eq!(second.errors.len(), 1);
    dir.write("a.toml", &route("chat", ""));
    let third = dir.load(Some(&second));
    assert_eq!(third.errors, []);
    assert_eq!(served(&third), served(&first));
}

#[test]
fn a_file_can_be_tried_before_it_is_written() {
    let dir = Dir::new(&[("b.toml", &instance("i", "", "x"))]);
    let catalog = dir.load(None);
    let path = dir.0.path().join("a.toml");
    let tried = |text: &str| with_file(&catalog, &[local_queue()], &path, text.as_bytes());
    let good = tried(&instance("j", "", "y")).unwrap();
    assert_eq!(served(&good), ["i [] -> [i/x]", "j [] -> [j/y]"]);
    assert!(Arc::ptr_eq(&good.instances[0], &catalog.instances[0]));
    for bad in [&instance("i", "", "y"), &instance("j", "", "x"), "", "["] {
        let errors = tried(bad).unwrap_err();
        assert!(!errors.is_empty() && errors.iter().all(|error| error.file == path));
    }
    assert!(!path.exists());
}

#[test]
fn many_files_that_all_clash_are_settled_in_one_round() {
    let dir = Dir::new(&[]);
    for number in 0..300 {
        dir.write(&format!("{number:04}.toml"), &instance("same", "", "x"));
    }
    let catalog = dir.load(None);
    assert_eq!(catalog.instances.len(), 0);
    assert_eq!(catalog.errors.len(), 300);
}

#[test]
fn a_restart_serves_what_was_served_whichever_file_sorts_first() {
    let dir = Dir::new(&[("m.toml", &instance("i", "", "x"))]);
    let first = dir.load(None);
    dir.write("a.toml", &instance("i", "", "y"));
    dir.write("z.toml", &instance("j", "", "x"));
    let second = dir.load(Some(&first));
    assert_eq!(served(&second), ["i [] -> [i/x]"]);
    let path = dir.0.path().join("memory");
    fs::write(&path, second.memory().to_json()).unwrap();
    let memory = Memory::read(&path);
    assert_eq!(memory, second.memory());
    let again = load_first(dir.0.path(), &[local_queue()], &memory);
    assert_eq!(served(&again), served(&second));
    assert_eq!(again.errors, second.errors);
    // A file that changed meanwhile holds nothing.
    dir.write("m.toml", &instance("i", "", "z"));
    let changed = load_first(dir.0.path(), &[local_queue()], &memory);
    assert_eq!(served(&changed), ["j [] -> [j/x]"]);
    assert_eq!(Memory::read(Path::new("/nowhere")), Memory::default());
}

#[test]
fn names_of_adapters_are_claimed_like_those_of_models() {
    let text = |name: &str, endpoint: &str, adapter: &str| {
        format!(
            "[instance]\nname = \"{name}\"\n[instance.options]\nenable_lora = true\n[[deployment]]\nmodel = \"m\"\nendpoint_name = \"{endpoint}\"\n[deployment.options]\nlora_modules = [\"{adapter}=/x\"]\n"
        )
    };
    let dir = Dir::new(&[
        ("a.toml", &text("a", "ma", "sql")),
        ("b.toml", &text("b", "mb", "sql")),
        ("c.toml", &text("c", "mc", "mc")),
        ("d.toml", &text("d", "md", "poems")),
    ]);
    let catalog = dir.load(None);
    let names: Vec<_> = catalog.instances.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["d"]);
    let errors = dir.errors(&catalog);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(
        errors
            .iter()
            .any(|e| e.contains("b.toml") && e.contains("\"sql\" is taken by a.toml"))
    );
    assert!(
        errors
            .iter()
            .any(|e| e.contains("c.toml") && e.contains("\"mc\" is taken"))
    );
}
