use super::*;

fn model() -> HubModel {
    HubModel {
        python: "/venv/bin/python".into(),
        name: "acme/tiny".to_owned(),
        revision: None,
        environment: None,
        before: None,
    }
}

fn told(folder: &str, commit: &str, file: &str, size: u64) -> ToldPlan {
    let told = |name: &str| ToldFile {
        name: name.to_owned(),
        size,
        blob: Some("b".to_owned()),
        there: 3 * size.min(100),
        whole: false,
    };
    ToldPlan {
        commit: commit.to_owned(),
        revision: "main".to_owned(),
        folder: folder.into(),
        files: vec![told("config.json"), told(file)],
    }
}

#[test]
fn a_plan_stays_in_the_folder_of_its_model() {
    let commit = "a".repeat(40);
    let folder = "/hf/hub/models--acme--tiny";
    let plan = model()
        .checked(told(folder, &commit, "a/b.safetensors", 7))
        .unwrap();
    assert_eq!((plan.total(), plan.missing()), (14, 0));
    for (folder, commit, file, size) in [
        ("/hf/hub/models--acme--other", commit.as_str(), "a", 7),
        ("hub/models--acme--tiny", &commit, "a", 7),
        (folder, "main", "a", 7),
        (folder, &commit, "../../x", 7),
        (folder, &commit, "/etc/passwd", 7),
        (folder, &commit, "a//b", 7),
        (folder, &commit, "a\\b", 7),
        (folder, &commit, "a", u64::MAX),
    ] {
        let checked = model().checked(told(folder, commit, file, size));
        assert!(checked.is_err(), "{folder} {commit} {file} {size}");
    }
}

#[test]
fn every_refusal_says_what_to_do() {
    for (kind, words) in [
        ("missing", "spelling"),
        ("gated", "HF_TOKEN"),
        ("revision", "a branch, a tag or a commit"),
        ("busy", "try later"),
        ("no-answer", "HF_ENDPOINT"),
        ("offline", "HF_HUB_OFFLINE"),
        ("unreachable", "HTTPS_PROXY"),
        ("checksum", "pull again"),
        ("path", "choose another model"),
        ("disk", "make room"),
        ("no-hub", "[models] python"),
        ("something new", "could not be fetched: it says so"),
    ] {
        let refused = model().refused(kind.to_owned(), "it says\n\n so", "f".to_owned());
        let sentence = HubError::Refused(refused).to_string();
        assert!(sentence.contains(words), "{kind}: {sentence}");
    }
}

struct Deaf;

impl Watch for Deaf {
    fn planned<'a>(&'a self, _: &'a FetchPlan) -> super::super::fetch::Judged<'a> {
        Box::pin(async { Ok(()) })
    }

    fn came(&self, _: u64) -> Result<(), Unfetched> {
        Ok(())
    }

    fn says(&self, _: &str) {}
}

#[tokio::test]
async fn a_python_that_says_nothing_that_makes_sense_ends_the_fetch() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let python = dir.path().join("python");
    for (script, words) in [
        ("echo hello", "no plan that makes sense"),
        (
            "echo first >&2; echo 'no such module' >&2; exit 1",
            "no such module",
        ),
        (
            "echo '{\"event\":\"done\",\"snapshot\":\"/x\"}'",
            "done without a plan",
        ),
        (
            "echo '{\"event\":\"failed\",\"kind\":\"gated\",\"detail\":\"\",\"file\":\"\"}'",
            "is gated",
        ),
    ] {
        std::fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&python, mode).unwrap();
        let python = python.clone();
        let model = HubModel { python, ..model() };
        let error = model.fetch(&Deaf).await.unwrap_err().to_string();
        assert!(error.contains(words), "{script}: {error}");
    }
    let python = dir.path().join("none");
    let model = HubModel { python, ..model() };
    let error = model.fetch(&Deaf).await.unwrap_err().to_string();
    assert!(error.contains("can't be run"), "{error}");
}

#[tokio::test]
async fn what_comes_before_the_python_is_run_in_its_place() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("before");
    std::fs::write(&program, "#!/bin/sh\necho $WALLS $1 $2 >&2\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let before = Before {
        program,
        arguments: vec!["become".into()],
        environment: vec![("WALLS".into(), "walls".into())],
    };
    let model = HubModel {
        environment: Some(Vec::new()),
        before: Some(before),
        ..model()
    };
    let error = model.fetch(&Deaf).await.unwrap_err().to_string();
    assert!(error.ends_with("walls become /venv/bin/python"), "{error}");
}
