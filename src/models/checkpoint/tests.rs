use std::os::unix::fs::symlink;

use super::*;

/// A file of weights with this head, and so many bytes behind it.
fn file(head: &str, data: usize) -> Vec<u8> {
    let mut file = u64::try_from(head.len()).unwrap().to_le_bytes().to_vec();
    file.extend_from_slice(head.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// One tensor of 16-bit elements.
fn weights(name: &str, elements: usize) -> Vec<u8> {
    let bytes = elements * 2;
    let head = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"{name}":{{"dtype":"BF16","shape":[{elements}],"data_offsets":[0,{bytes}]}}}}"#
    );
    file(&head, bytes)
}

struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Self {
        let model = Self(tempfile::tempdir().unwrap());
        model.put(CONFIG, b"{}");
        model
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn read(&self) -> Result<Checkpoint, String> {
        Checkpoint::read(self.0.path())
    }

    /// Checks that it is refused in such words.
    fn refuses(&self, words: &str) {
        let why = self.read().unwrap_err();
        assert!(why.contains(words), "{words:?}: {why}");
    }
}

#[test]
fn tensors_are_those_of_the_files_that_the_index_names() {
    let model = Model::new();
    let index =
        r#"{"metadata":{"total_size":60},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}"#;
    model.put(INDEX, index.as_bytes());
    model.put("a.safetensors", &weights("a", 10));
    model.put("b.safetensors", &weights("b", 20));
    model.put("consolidated.safetensors", &weights("again", 30));
    let found = model.read().unwrap();
    let found: Vec<_> = found
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.bytes))
        .collect();
    assert_eq!(found, [("a", 20), ("b", 40)]);
    assert_eq!(model.read().unwrap().doubts, [""; 0]);
}

#[test]
fn without_an_index_what_is_there_counts_once() {
    let model = Model::new();
    model.refuses("no weights in the form of safetensors");
    model.put("consolidated.safetensors", &weights("again", 30));
    assert_eq!(model.read().unwrap().tensors.len(), 1);
    model.put("model.safetensors", &weights("a", 10));
    let found = model.read().unwrap().tensors;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "a");
}

#[test]
fn an_index_that_lies_is_told_and_the_heads_count() {
    let model = Model::new();
    let index = r#"{"metadata":{"total_size":9000},"weight_map":{"a":"a.safetensors","gone":"a.safetensors"}}"#;
    model.put(INDEX, index.as_bytes());
    model.put("a.safetensors", &weights("a", 10));
    let found = model.read().unwrap();
    assert_eq!(found.tensors.len(), 1);
    let [size, gone] = &found.doubts[..] else {
        panic!("{:?}", found.doubts);
    };
    assert!(size.contains("those count"), "{size}");
    assert!(gone.contains("\"gone\""), "{gone}");
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    for name in [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/../../x.safetensors",
        "config.json",
    ] {
        let model = Model::new();
        let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
        model.put(INDEX, index.as_bytes());
        model.refuses("no file of weights below its directory");
    }
}

#[test]
fn a_head_that_lies_is_refused() {
    let head = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
    };
    let model = Model::new();
    for (content, words) in [
        (b"<html>".to_vec(), "ends within its head"),
        (u64::MAX.to_le_bytes().to_vec(), "more than any model has"),
        (1_000_u64.to_le_bytes().to_vec(), "longer than the file"),
        (file("{", 0), "not in the form of safetensors"),
        (file(r#"{"a":{"dtype":"U8"}}"#, 8), "does not say type"),
        (
            file(&head("U8", "[8]", 0, 16), 8),
            "a place that the file does not have",
        ),
        (
            file(&head("U8", "[8]", 8, 0), 8),
            "a place that the file does not have",
        ),
        (file(&head("U8", "[4]", 0, 8), 8), "8 bytes for 4 elements"),
        (
            file(&head("F32", "[4294967296,4294967296]", 0, 8), 8),
            "sizes that nothing has",
        ),
        (file(&head("U8", "[-1]", 0, 8), 8), "does not say type"),
        // A file that was cut, or is longer than it says.
        (
            file(&head("U8", "[8]", 0, 8), 7),
            "a place that the file does not have",
        ),
        (file(&head("U8", "[8]", 0, 8), 9), "and it holds"),
    ] {
        model.put("model.safetensors", &content);
        model.refuses(words);
    }
    model.put("model.safetensors", &file(&head("F4", "[16]", 0, 8), 8));
    assert!(model.read().is_ok(), "elements of less than a byte");
}

#[test]
fn only_files_are_opened() {
    let model = Model::new();
    symlink("/dev/zero", model.0.path().join("model.safetensors")).unwrap();
    model.refuses("it is no file");
    fs::remove_file(model.0.path().join("model.safetensors")).unwrap();
    symlink("gone", model.0.path().join("model.safetensors")).unwrap();
    model.refuses("not there: fetch the model again");
}
