//! Lists of targets, by themselves.

use std::time::Duration;

use super::*;
use crate::config::{GoOn, Prefer, Sticky};

/// A route with two upstreams and, from line 10 on, this.
fn file(lines: &str) -> String {
    format!(
        "[route]\nname = \"r\"\nmodels = [\"m\"]\n[[upstream]]\nurl = \"http://a\"\nname = \"far\"\n\
         [[upstream]]\nurl = \"http://b\"\nname = \"far\"\n{lines}"
    )
}

#[test]
fn a_list_is_read_with_what_is_said_of_each_target() {
    let text = file(
        "[[target]]\nto = \"own\"\ncan_in = \"5s\"\nweight = 9\nwhen = [\"502\", \"too_long\"]\n\
         [[target]]\nto = \"far\"\n[route.targets]\nprefer = \"weight\"\nsticky = \"token\"\n",
    );
    let route = parsed("a.toml", text.as_bytes()).unwrap().route.unwrap();
    let draft = route.targets.unwrap();
    assert_eq!(draft.lines, [11, 16]);
    let list = draft.list;
    assert_eq!(list.prefer, Prefer::Weight);
    assert_eq!(list.sticky, Some(Sticky::Token));
    let [own, far] = list.targets.as_slice() else {
        panic!("{list:?}");
    };
    assert_eq!((own.to.as_str(), far.to.as_str()), ("own", "far"));
    assert_eq!(own.can_in, Some(Duration::from_secs(5)));
    assert_eq!((own.weight, far.weight), (9, 1));
    assert_eq!(own.when, [GoOn::Status(502), GoOn::TooLong]);
    assert_eq!((far.can_in, far.when.len()), (None, 5));
}

#[test]
fn a_file_may_have_a_route_an_instance_and_upstreams_where_a_list_says_who_is_asked() {
    let instance = "[instance]\nname = \"i\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\n";
    let text = file("") + instance + "[[target]]\nto = \"m\"\n[[target]]\nto = \"far\"\n";
    check("a.toml", &text, &[]);
    let media = text.replace("[route]\n", "[route]\nmedia = \"none\"\n");
    check("a.toml", &media, &[]);
    let without = text.split("[[target]]").next().unwrap();
    let errors = errors("a.toml", without);
    assert!(
        errors.iter().any(|error| error.starts_with(
            "11: instance: a route leads to upstreams or to an instance, and to both only by a list"
        )),
        "{errors:?}"
    );
}

#[test]
fn what_a_list_can_not_mean_is_told_with_its_line() {
    const FAR: &str = "[[target]]\nto = \"far\"\n";
    for (lines, told) in [
        (
            "",
            "6: upstream.name: this is for [[target]]: write one that leads here, or take this out",
        ),
        (
            "[[target]]\nto = \"far\"\n[[target]]\nto = \"far\"",
            "13: target.to: \"far\" stands in the list twice: take one out",
        ),
        (
            "[[target]]\nto = \"own\"",
            "5: upstream.name: no target leads to \"far\": write [[target]] with to = \"far\", or take this upstream out",
        ),
        (
            "[[target]]\nto = \"fa*\"",
            "11: target.to: write one name here, without a *",
        ),
        (
            "[[target]]\nto = \"far\"\nweight = 2",
            "12: target.weight: this is for prefer = \"weight\" in [route.targets]: write that, or take this out",
        ),
        (
            "[[target]]\nto = \"far\"\nweight = 0\n[route.targets]\nprefer = \"weight\"",
            "11: target.weight: the weights come to nothing: write 1 or more for those that are asked",
        ),
        (
            "[[target]]\nto = \"far\"\nwhen = [\"502\", \"502\"]",
            "12: target.when: \"502\" stands here twice: take one out",
        ),
        (
            "[[target]]\nto = \"far\"\nwhen = [\"500\"]",
            "12: target.when: \"500\" is unknown: known are \"unreachable\", \"502\", \"503\", \"model_failed\", \"too_long\"",
        ),
        (
            "[[target]]\nto = \"far\"\n[route.targets]\nsticky = \"token\"",
            "13: route.targets.sticky: this is for prefer = \"weight\": write that, or take this out",
        ),
        (
            "[[target]]\nto = \"far\"\n[route.targets]\nprefer = \"weight\"\nsticky = \"session\"",
            "14: route.targets.sticky: no header tells a session: write session_header in [route.load_balancing]",
        ),
        (
            "[[target]]\nto = \"far\"\n[route.targets]\nmirror = { to = \"far\" }",
            "13: route.targets.mirror.to: \"far\" answers all requests itself: write another here, or take mirror out",
        ),
        (
            "[[target]]\nto = \"far\"\n[route.targets]\nmirror = { share = 0.5 }",
            "13: route.targets.mirror.to: this is missing: write a model behind the route, or the name of an [[upstream]]",
        ),
        (
            "[[target]]\nto = \"far\"\n[route.targets]\nmirror = { to = \"own\", share = 0 }",
            "13: route.targets.mirror.share: 0 is out of bounds: write 0.0001 to 1",
        ),
    ] {
        let errors = errors("a.toml", &file(lines));
        assert!(errors.iter().any(|error| error == told), "{errors:#?}");
    }
    let nameless = file(FAR).replacen("name = \"far\"\n", "", 1);
    let errors = errors("a.toml", &nameless);
    assert!(
        errors[0].starts_with("4: upstream.name: this is missing: the route has a list"),
        "{errors:?}"
    );
    let listless = "[route]\nname = \"r\"\n[route.targets]\nprefer = \"awake\"\n";
    check(
        "a.toml",
        listless,
        &["3: route.targets: there is no list: write [[target]], or take this out"],
    );
}
