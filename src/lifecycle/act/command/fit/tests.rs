use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::config::Catalog;
use crate::vllm::args::EnvValue;

const LAYERS: u64 = 4;
const CONFIG: &str = r#"{"hidden_size":1024,"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,"head_dim":128,"intermediate_size":4096,"vocab_size":32000,"max_position_embeddings":8192,"torch_dtype":"bfloat16","tie_word_embeddings":true}"#;

/// A small model: its head, and a hole where its weights would be.
fn model(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("config.json"), CONFIG).unwrap();
    let mut tensors = serde_json::Map::new();
    let mut end = 0;
    let mut add = |name: String, rows: u64| {
        let begin = end;
        end += rows * 1024 * 2;
        let tensor = serde_json::json!({"dtype": "BF16", "shape": [rows, 1024], "data_offsets": [begin, end]});
        tensors.insert(name, tensor);
    };
    add("model.embed_tokens.weight".to_owned(), 32_000);
    for layer in 0..LAYERS {
        add(format!("model.layers.{layer}.mlp.up_proj.weight"), 4_096);
    }
    let head = serde_json::Value::Object(tensors).to_string();
    let length = u64::try_from(head.len()).unwrap();
    let path = directory.join("model.safetensors");
    let mut text = length.to_le_bytes().to_vec();
    text.extend_from_slice(head.as_bytes());
    fs::write(&path, text).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 + length + end).unwrap();
}

/// Of 32,000 rows of an embedding, and 4,096 of each layer.
const WEIGHTS: u64 = (32_000 + LAYERS * 4_096) * 1024 * 2;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn spec(model: &str, more: &str) -> (Engines, Arc<config::Deployment>) {
    let state = tempfile::tempdir().unwrap();
    let text = format!(
        "[instance]\nname = \"one\"\nproject = \"research\"\n{more}\n[[deployment]]\nmodel = \"{model}\"\nendpoint_name = \"one\"\n"
    );
    let queues = ["local".parse().unwrap()];
    let file = Path::new("one.toml");
    let catalog = config::with_file(&Catalog::default(), &queues, file, text.as_bytes()).unwrap();
    let engines = Engines::at(
        state.path(),
        Path::new("/own"),
        &config::VllmEngine::default(),
    );
    let spec = Arc::clone(&catalog.instances[0].deployments[0]);
    (engines.within(&catalog), spec)
}

#[test]
fn what_lies_here_tells_what_will_be_needed() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    let (engines, spec) = spec(&dir.path().display().to_string(), "");
    let fitted = engines.foretell(&spec).unwrap().unwrap();
    assert_eq!(fitted.fit.weights_in_all(), WEIGHTS);
    assert_eq!(fitted.fit.per_token, LAYERS * 2 * 2 * 128 * 2);
    let device = Device {
        index: 0,
        memory: 80 << 30,
    };
    let said = engines.foretold(&spec, &[device]);
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("tokens of cache"), "{said:?}");
    let said = engines.foretold(&spec, &[]);
    assert!(said[0].contains("for each token of cache"), "{said:?}");
}

#[test]
fn the_stand_in_needs_no_estimate() {
    let (engines, spec) = spec("any", "engine = \"sim\"");
    assert_eq!(engines.foretold(&spec, &[]), [""; 0]);
}

#[test]
fn what_is_not_here_says_so() {
    let (engines, spec) = spec("/no/such/model", "");
    let said = engines.foretold(&spec, &[]);
    assert!(said[0].contains("no model at /no/such/model"), "{said:?}");
}

#[test]
fn a_model_of_the_hub_is_that_of_its_revision_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("models--org--name");
    model(&folder.join("snapshots/abc"));
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), "abc").unwrap();
    let line = |more: &str| CommandLine {
        argv: words(&format!(
            "serve org/name --download-dir {} {more}",
            dir.path().display()
        )),
        env: BTreeMap::new(),
        notes: Vec::new(),
        gpus: 1,
    };
    let found = |more: &str| directory("org/name", &line(more));
    assert_eq!(found(""), Ok(folder.join("snapshots/abc")));
    assert_eq!(found("--revision=abc"), Ok(folder.join("snapshots/abc")));
    assert_eq!(
        found("--revision other"),
        Err(NoEstimate::Away("org/name".to_owned()))
    );
    assert!(found("--revision ../abc").is_err());
    assert!(directory("s3://a/b", &line("")).is_err());
    let mut elsewhere = line("");
    let on = EnvValue::Plain("1".to_owned());
    elsewhere.env.insert(MODELSCOPE.to_owned(), on);
    assert!(directory("org/name", &elsewhere).is_err());
}
