use std::os::unix::fs::PermissionsExt;

use super::*;

const HEAD: &str = r#"{\"event\":\"head\",\"file\":\"FILE\",\"size\":SIZE,\"text\":\"{\\\"w\\\":{\\\"dtype\\\":\\\"U8\\\",\\\"shape\\\":[8],\\\"data_offsets\\\":[0,8]}}\"}"#;
const CONFIG: &str = r#"{\"event\":\"config\",\"text\":\"{}\"}"#;
const LOOKED: &str = r#"{\"event\":\"looked\",\"total\":TOTAL}"#;

/// Outcome of a program that says these lines.
async fn look(lines: &[String]) -> Result<Checkpoint, HubError> {
    let dir = tempfile::tempdir().unwrap();
    let python = dir.path().join("python");
    let says: Vec<String> = lines
        .iter()
        .map(|line| format!("printf '%s\\n' \"{line}\"\n"))
        .collect();
    std::fs::write(&python, format!("#!/bin/sh\n{}", says.concat())).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let model = HubModel {
        python,
        name: "acme/tiny".to_owned(),
        revision: None,
        environment: None,
        before: None,
    };
    model.look().await
}

fn head(file: &str, size: u64) -> String {
    HEAD.replace("FILE", file)
        .replace("SIZE", &size.to_string())
}

/// Bytes of the file whose head that is: 8, the head, 8 of data.
fn size() -> u64 {
    let text = r#"{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#;
    16 + u64::try_from(text.len()).unwrap()
}

#[tokio::test]
async fn what_the_hub_says_becomes_a_model() {
    let looked = |total: &str| LOOKED.replace("TOTAL", total);
    let lines = |total| {
        [
            CONFIG.to_owned(),
            head("a.safetensors", size()),
            looked(total),
        ]
    };
    let found = look(&lines("8")).await.unwrap();
    assert_eq!(found.tensors.len(), 1);
    assert_eq!(found.tensors[0].bytes, 8);
    assert!(found.doubts.is_empty());
    assert!(look(&lines("null")).await.unwrap().doubts.is_empty());
    let doubts = look(&lines("99")).await.unwrap().doubts;
    assert!(doubts[0].contains("those count"), "{doubts:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let looked = LOOKED.replace("TOTAL", "8");
    for (lines, words) in [
        (vec![looked.clone()], "no config"),
        (vec![head("../a.safetensors", size())], "is no file"),
        (vec![head("a.safetensors", 9)], "shorter than its head"),
        (vec![head("a.safetensors", size() + 1)], "and it holds"),
        (vec![head("a.safetensors", u64::MAX)], "and it holds"),
        (vec!["hello".to_owned()], "no plan that makes sense"),
        (
            vec![r#"{\"event\":\"done\",\"snapshot\":\"/x\"}"#.to_owned()],
            "nobody asked for its files",
        ),
        (
            vec![
                r#"{\"event\":\"failed\",\"kind\":\"gated\",\"detail\":\"\",\"file\":\"\"}"#
                    .to_owned(),
            ],
            "is gated",
        ),
        (Vec::new(), "broke off"),
    ] {
        let error = look(&lines).await.unwrap_err().to_string();
        assert!(error.contains(words), "{lines:?}: {error}");
    }
}
