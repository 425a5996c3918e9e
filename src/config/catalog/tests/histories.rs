//! Random histories of files: whatever is written, the catalog is whole.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// One step: what becomes of one of the files.
#[derive(Clone, Debug)]
enum Step {
    Delete,
    Break,
    Write {
        route: Option<(usize, bool)>,
        instance: Option<(usize, Option<usize>, usize)>,
    },
}

const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let instance = (name.clone(), prop::option::of(name.clone()), name.clone());
    prop_oneof![
        1 => Just(Step::Delete),
        1 => Just(Step::Break),
        6 => (prop::option::of((name, any::<bool>())), prop::option::of(instance))
            .prop_map(|(route, instance)| Step::Write { route, instance }),
    ]
}

/// The text of a step; `None` to delete the file.
fn text(step: &Step) -> Option<String> {
    let (route_part, instance_part) = match step {
        Step::Delete => return None,
        Step::Break => return Some("[route]\nname = \n".to_owned()),
        Step::Write { route, instance } => (route, instance),
    };
    let mut text = String::new();
    if let Some((name, explicit)) = route_part {
        let more = if *explicit {
            "models = [\"n0\", \"n9\"]"
        } else {
            ""
        };
        text.push_str(&route(NAMES[*name], more));
    }
    if let Some((name, to, endpoint)) = instance_part {
        let more = to
            .map(|to| format!("route = \"{}\"", NAMES[to]))
            .unwrap_or_default();
        text.push_str(&instance(NAMES[*name], &more, NAMES[*endpoint]));
    }
    Some(text)
}

/// Checks what must hold of every catalog.
fn is_whole(catalog: &Catalog) -> Result<(), TestCaseError> {
    let mut names = HashSet::new();
    let mut paths = HashSet::new();
    let mut models = HashSet::new();
    let mut reached = HashSet::new();
    for route in &catalog.routes {
        prop_assert!(names.insert(route.name.as_str()), "a route stands twice");
        prop_assert!(paths.insert(route.path.as_str()), "a path stands twice");
        let own: HashSet<&str> = route
            .deployments
            .iter()
            .map(|deployment| deployment.endpoint_name.as_str())
            .chain(route.models.iter().map(ModelName::as_str))
            .collect();
        for model in own {
            prop_assert!(models.insert(model), "{model} leads to two routes");
        }
        for deployment in &route.deployments {
            prop_assert!(
                reached.insert(deployment.id.as_str()),
                "one way in is enough"
            );
        }
    }
    let mut instances = HashSet::new();
    for instance in &catalog.instances {
        prop_assert!(
            instances.insert(instance.name.as_str()),
            "an instance stands twice"
        );
        let entered = instance
            .deployments
            .iter()
            .all(|d| reached.contains(d.id.as_str()));
        prop_assert!(
            entered || names.is_empty() || !names.contains(instance.route.as_str()),
            "its route leads to it"
        );
    }
    Ok(())
}

/// A file that was not touched keeps its instance, and its route.
fn keeps(before: &Catalog, after: &Catalog, touched: &Path) -> Result<(), TestCaseError> {
    for instance in before
        .instances
        .iter()
        .filter(|instance| instance.file != touched)
    {
        let kept = after
            .instances
            .iter()
            .any(|after| Arc::ptr_eq(after, instance));
        prop_assert!(
            kept,
            "{} lost the instance {}",
            touched.display(),
            instance.name
        );
    }
    for route in before.routes.iter().filter(|route| route.file != touched) {
        let kept = after.routes.iter().any(|after| after.name == route.name);
        prop_assert!(kept, "{} lost the route {}", touched.display(), route.name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_history_of_files_breaks_the_catalog(
        steps in prop::collection::vec((0..4_usize, step()), 1..12)
    ) {
        let dir = Dir::new(&[]);
        let mut catalog = dir.load(None);
        for (file, step) in steps {
            let path = dir.0.path().join(format!("{file}.toml"));
            match text(&step) {
                Some(text) => fs::write(&path, text).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
            let next = dir.load(Some(&catalog));
            is_whole(&next)?;
            // What was refused before may come in now, so only a catalog
            // without errors must keep all that was not touched.
            if catalog.errors.is_empty() {
                keeps(&catalog, &next, &path)?;
            }
            let again = dir.load(Some(&next));
            prop_assert_eq!(&again.errors, &next.errors, "a second look says the same");
            prop_assert_eq!(served(&again), served(&next));
            is_whole(&dir.load(None))?;
            catalog = next;
        }
    }
}

#[test]
fn a_thousand_files_load_at_once() {
    let dir = Dir::new(&[]);
    for number in 0..1000 {
        let name = format!("i{number}");
        dir.write(
            &format!("{name}.toml"),
            &instance(&name, "", &format!("m{number}")),
        );
    }
    let first = dir.load(None);
    assert_eq!(first.errors, []);
    assert_eq!(first.routes.len(), 1000);
    let second = dir.load(Some(&first));
    assert!(
        first
            .routes
            .iter()
            .zip(&second.routes)
            .all(|(a, b)| Arc::ptr_eq(a, b))
    );
}
