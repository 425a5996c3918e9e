//! Every rule, broken and kept.

use super::*;
use crate::vllm::options::{OptionScope, find};
use serde_json::json;

fn keys(raw: &serde_json::Value) -> Vec<String> {
    let set = OptionSet::parse(OptionScope::Both, raw.as_object().unwrap()).unwrap();
    across(&set).into_iter().map(|error| error.key).collect()
}

#[test]
fn options_that_need_another_name_both() {
    for rule in NEEDS {
        assert!(find(rule.option).is_some(), "{}", rule.option);
        assert!(find(rule.other).is_some(), "{}", rule.other);
        let example = serde_json::from_str(find(rule.option).unwrap().example).unwrap();
        let table: serde_json::Map<_, _> =
            [(rule.option.to_owned(), example)].into_iter().collect();
        let set = OptionSet::parse(OptionScope::Both, &table).unwrap();
        let errors = across(&set);
        let error = errors
            .iter()
            .find(|error| error.message.contains(rule.other))
            .unwrap();
        assert!(error.message.contains(rule.option), "{error}");
    }
}

#[test]
fn what_belongs_together_passes() {
    for good in [
        json!({}),
        json!({"enable_auto_tool_choice": true, "tool_call_parser": "hermes"}),
        json!({"enable_auto_tool_choice": false}),
        json!({"enable_lora": true, "max_cpu_loras": 8, "max_num_seqs": 8, "max_loras": 2}),
        json!({"automatic_cpu_offloading": true, "disk_swapping": false, "max_cuda_memory": 80}),
        json!({"speculative_model": "[ngram]", "ngram_prompt_lookup_max": 4, "ngram_prompt_lookup_min": 4}),
        json!({"speculative_decoding": false, "num_speculative_tokens": 5}),
        json!({"cli": "--enable-lora", "max_loras": 2}),
    ] {
        assert_eq!(keys(&good), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn what_contradicts_is_refused() {
    for (bad, key) in [
        (
            json!({"automatic_cpu_offloading": true, "disk_swapping": true}),
            "disk_swapping",
        ),
        (
            json!({"enable_lora": true, "max_cpu_loras": 4, "max_num_seqs": 8}),
            "max_cpu_loras",
        ),
        (
            json!({"enable_lora": true, "max_cpu_loras": 1, "max_loras": 2}),
            "max_cpu_loras",
        ),
        (json!({"enable_lora": false, "max_loras": 2}), "max_loras"),
        (
            json!({"speculative_model": "[ngram]", "ngram_prompt_lookup_max": 2, "ngram_prompt_lookup_min": 4}),
            "ngram_prompt_lookup_max",
        ),
        (
            json!({"speculative_model": "a/b", "ngram_prompt_lookup_max": 2}),
            "ngram_prompt_lookup_max",
        ),
        (
            json!({"automatic_cpu_offloading": true, "max_cuda_memory": 80, "cpu_offload_gb": 4}),
            "cpu_offload_gb",
        ),
        (json!({"cli": "", "max_cuda_memory": 80}), "max_cuda_memory"),
    ] {
        assert_eq!(keys(&bad), [key], "{bad}");
    }
}

#[test]
fn only_allowed_sources_and_directories_pass() {
    let allowed = Allowed {
        directories: vec!["/srv/models".into()],
        sources: Some(vec!["Qwen/*".into(), "gpt2".into()]),
        ..Allowed::default()
    };
    for good in ["Qwen/Qwen3-8B", "gpt2", "/srv/models/llama", "/srv/models"] {
        assert_eq!(allowed.model(good), Ok(()), "{good}");
    }
    for bad in [
        "meta/llama",
        "gpt2-x",
        "/srv/modelsx",
        "/srv/models/../secret",
        "/etc",
        "./models",
        "../x",
        "~/x",
        "a/b/c",
        "s3://bucket/x",
        "Qwen/../..",
        "Qwen/..",
    ] {
        assert!(allowed.model(bad).is_err(), "{bad}");
    }
    assert!(Allowed::default().model("/srv/models/x").is_err());
    assert!(Allowed::default().plugin("/srv/p.py").is_err());
    assert!(Allowed::default().remote_code().is_err() && Allowed::default().code("x").is_err());
    assert!(Allowed::all().model("/anything").is_ok() && Allowed::all().code("x").is_ok());
}

#[test]
fn parallel_sizes_fit_the_queue() {
    let machine = |gpus| Hardware {
        gpus,
        gpu_memory: None,
        amd64: true,
    };
    assert!(machine(Some(4)).fits(4).is_ok() && machine(None).fits(8).is_ok());
    let error = machine(Some(2)).fits(4).unwrap_err();
    assert!(error.message.contains("pipeline_parallel_size") && error.message.contains("2 GPUs"));
}
