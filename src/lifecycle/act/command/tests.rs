use super::*;
use crate::config::Vllm;
use crate::vllm::options::{OptionScope, OptionSet};
use crate::vllm::versions::{Version, VersionArgs};
use serde_json::json;

#[test]
fn a_named_secret_comes_from_the_store_or_is_an_error() {
    let state = tempfile::tempdir().unwrap();
    let secrets = Secrets::at(state.path());
    let source = SecretSource::Named("team.token".to_owned());
    let error = secret(&source, &secrets).unwrap_err();
    assert!(error.contains("no secret team.token"), "{error}");
    let kept = SecretText::new("hidden".to_owned());
    secrets
        .put(&[("team.token".to_owned(), kept.clone())])
        .unwrap();
    assert_eq!(secret(&source, &secrets), Ok(kept));
}

const QUEUE: &str = "local";

/// Catalog of two files, one of an admin and one of an operator.
fn catalog(admins: &str, operators: &str) -> Catalog {
    let queues = [QUEUE.parse().unwrap()];
    let mut catalog = Catalog::default();
    for (name, text) in [("a.toml", admins), ("b.toml", operators)] {
        catalog = config::with_file(&catalog, &queues, Path::new(name), text.as_bytes()).unwrap();
    }
    catalog
}

fn file(name: &str, more: &str, model: &str) -> String {
    format!(
        "[instance]\nname = \"{name}\"\nproject = \"research\"\n{more}\n[[deployment]]\nmodel = \"{model}\"\nendpoint_name = \"{name}\"\n"
    )
}

const BY_OPERATOR: &str = "author = \"user:ana of acme\"";

fn of_operator(catalog: &Catalog) -> config::Deployment {
    let mut all = catalog.instances.iter().flat_map(|i| &i.deployments);
    let found = all.find(|spec| spec.author != Author::Admin).unwrap();
    config::Deployment::clone(found)
}

fn engines(catalog: &Catalog) -> Engines {
    let state = tempfile::tempdir().unwrap();
    let vllm = config::VllmEngine::default();
    Engines::at(state.path(), Path::new("/own"), &vllm).within(catalog)
}

fn installed(version: &str) -> Engine {
    let version: Version = version.parse().unwrap();
    Engine::Vllm(Installation {
        program: "/venv/bin/vllm".into(),
        version,
        knowledge: Arc::new(VersionArgs::built_in(version)),
        doubts: Vec::new(),
    })
}

#[test]
fn a_start_judges_by_the_author_of_the_file_in_every_version() {
    let good = catalog(
        &file("a", "", "Qwen/Qwen3-8B"),
        &file("b", BY_OPERATOR, "Qwen/Qwen3-8B"),
    );
    let spec = of_operator(&good);
    let with = |options: serde_json::Value| {
        let mut spec = spec.clone();
        let options = OptionSet::parse(OptionScope::Both, options.as_object().unwrap()).unwrap();
        spec.engine = config::Engine::Vllm(Vllm {
            version: None,
            options,
        });
        spec
    };
    let engines = engines(&good);
    for version in ["0.32.0", "0.99.0"] {
        let engine = installed(version);
        engines
            .check(&with(json!({"max_model_len": 4096})), &engine)
            .unwrap();
        for bad in [
            json!({"cli": "--enforce-eager"}),
            json!({"model_overrides": {"structured_outputs_config": {"reasoning_parser_plugin": "/x.py"}}}),
            json!({"tokenizer": "owner/repo"}),
        ] {
            let mut spec = with(bad.clone());
            assert!(engines.check(&spec, &engine).is_err(), "{version}: {bad}");
            spec.author = Author::Admin;
            engines.check(&spec, &engine).unwrap();
        }
    }
}

#[tokio::test]
async fn an_operators_old_version_is_refused_before_it_is_installed() {
    let old = format!("{BY_OPERATOR}\nvllm_version = \"0.9.2\"");
    let catalog = catalog(&file("a", "", "m/m"), &file("b", &old, "m/m"));
    let spec = of_operator(&catalog);
    let got = engines(&catalog).get(&spec, &|line| panic!("{line}")).await;
    let error = got.unwrap_err().to_string();
    assert!(error.contains("CVE-2026-27893"), "{error}");
}

#[test]
fn what_an_operator_named_is_named_by_no_admin_and_directories_stay_with_their_project() {
    let own = file("b", BY_OPERATOR, "owner/repo");
    let named = |admins: &str, operators: &str| {
        let catalog = catalog(admins, operators);
        let spec = of_operator(&catalog);
        engines(&catalog).allowed_to(&spec).into_owned()
    };
    let allowed = named(&file("a", "", "/srv/models/a"), &own);
    assert!(allowed.model("owner/repo").is_err() && allowed.model("/srv/models/a").is_ok());
    let other = file("a", "", "/srv/models/a").replace("research", "other");
    assert!(named(&other, &own).model("/srv/models/a").is_err());
    let hub = file("a", "", "owner/repo").replace("research", "other");
    assert!(named(&hub, &own).model("owner/repo").is_ok());
}

#[test]
fn a_worker_is_kept_from_the_secrets_of_all_but_itself() {
    let with = |name: &str, token: &str| {
        let options = format!("[instance.options]\nhuggingface_token = {{ file = \"{token}\" }}\n");
        file(name, &options, "Qwen/Qwen3-8B")
    };
    let queues = [QUEUE.parse().unwrap()];
    let upstream = "[route]\nname = \"other\"\n[[upstream]]\nurl = \"https://a.example.org\"\napi_key_file = \"/keys/upstream\"\n";
    let mut catalog = catalog(&with("one", "/keys/one"), &with("two", "/keys/two"));
    let path = Path::new("c.toml");
    catalog = config::with_file(&catalog, &queues, path, upstream.as_bytes()).unwrap();
    let engines = engines(&catalog);
    let of = |name: &str| {
        let mut all = catalog.instances.iter().flat_map(|i| &i.deployments);
        let spec = all.find(|spec| spec.instance.as_str() == name).unwrap();
        let mut files = engines.secret_files(&spec.id);
        files.sort();
        // A replica has what the first has.
        assert_eq!(engines.secret_files(&spec.id.replica(2)).len(), files.len());
        files
    };
    let paths = |paths: [&str; 2]| paths.map(PathBuf::from).to_vec();
    assert_eq!(of("one"), paths(["/keys/two", "/keys/upstream"]));
    assert_eq!(of("two"), paths(["/keys/one", "/keys/upstream"]));
}
