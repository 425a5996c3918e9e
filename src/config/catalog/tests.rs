//! From files to catalogs.

use super::*;

fn queues() -> Vec<QueueName> {
    vec![super::super::gateway::local_queue()]
}

#[test]
fn a_route_and_its_instance_are_linked() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[route]\nname = \"chat\"\n[instance]\nname = \"team\"\nproject = \"p\"\nengine = \"sim\"\n[[deployment]]\nmodel = \"m\"\n";
    fs::write(dir.path().join("a.toml"), text).unwrap();
    let catalog = load_catalog(dir.path(), &queues(), None);
    assert_eq!(catalog.errors, []);
    let route = &catalog.routes[0];
    assert_eq!(route.access, Access::Project("p".parse().unwrap()));
    assert_eq!(route.deployments[0].id.as_str(), "team/m");
    let again = load_catalog(dir.path(), &queues(), Some(&catalog));
    assert!(Arc::ptr_eq(&again.routes[0], route));
}
