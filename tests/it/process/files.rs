//! Route files that change under a gateway.

use std::collections::BTreeSet;
use std::io::BufReader;

use super::*;

/// The workers that there are records of.
fn workers(place: &Place) -> BTreeSet<std::ffi::OsString> {
    let records = fs::read_dir(place.path().join(".tidegate/workers")).unwrap();
    let names = records.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "json"))
        .collect()
}

fn is_served(place: &Place) -> bool {
    let mut stream = BufReader::new(connect(place.address).unwrap());
    let request = place.post(1, false);
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    answer(&mut stream).unwrap().starts_with("http/1.1 200")
}

#[test]
fn a_file_that_is_deleted_and_written_again_is_an_edit() {
    let place = Place::new();
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    assert!(is_served(&place));
    let before = workers(&place);
    assert_eq!(before.len(), 1);
    let file = place.path().join("routes.d/demo.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    // It has been seen, and is there again soon after.
    running.says("a route file is gone");
    fs::write(
        &file,
        text.replace("[instance]", "[instance]\nidle.time_limit = \"3h\""),
    )
    .unwrap();
    running.says("routes are in effect");
    assert!(is_served(&place));
    assert_eq!(workers(&place), before, "its worker goes on");
    running.end();
}

#[test]
fn a_restart_does_not_turn_round_which_of_two_files_is_in_effect() {
    let place = Place::new();
    let mut running = place.start(&[]);
    running.says("\"message\":\"ready\"");
    let text = fs::read_to_string(place.path().join("routes.d/demo.toml")).unwrap();
    let other = text.replace("model = \"m\"", "model = \"other\"");
    fs::write(place.path().join("routes.d/a.toml"), other).unwrap();
    running.says("a.toml:2: route.name: the route");
    assert!(is_served(&place));
    running.end();
    let mut running = place.start(&[]);
    running.says("a.toml:2: route.name: the route");
    running.says("\"message\":\"ready\"");
    assert!(is_served(&place), "what was there first");
    running.end();
}
