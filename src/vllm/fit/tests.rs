//! Against what the makers publish of their models, and logs of vLLM that people posted.

mod known;

use serde_json::{Value, json};

use super::*;
use crate::vllm::versions::Version;
use known::{KNOWN, Known};

const GIB: u64 = 1 << 30;
const NEWEST: Version = Version::new(0, 32, 0);

fn terms(line: &str) -> FitTerms {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    FitTerms::read(&words, NEWEST).unwrap()
}

fn fit(known: &Known, line: &str) -> Fit {
    let (shape, weights) = known.read();
    Fit::of(shape, &weights, terms(line)).unwrap()
}

fn of(name: &str) -> &'static Known {
    KNOWN.iter().find(|known| known.name == name).unwrap()
}

/// Checks that a figure is so many in a hundred or less from another.
#[track_caller]
fn near(name: &str, found: u64, expected: u64, percent: u64) {
    let off = found.abs_diff(expected);
    let (found, expected) = (Bytes(found), Bytes(expected));
    assert!(
        off * 100 <= expected.0 * percent,
        "{name}: {found} ({}), not {expected} ({})",
        found.0,
        expected.0
    );
}

#[test]
fn weights_are_those_that_are_published() {
    for known in KNOWN {
        let fit = fit(known, "serve m");
        near(known.name, fit.weights, known.bytes, 5);
    }
}

#[test]
fn bytes_of_the_cache_for_each_token_are_those_that_are_published() {
    for known in KNOWN {
        let fit = fit(known, "serve m");
        assert_eq!(fit.per_token, known.per_token, "{}", known.name);
    }
}

#[test]
fn contexts_are_those_of_the_models() {
    for known in KNOWN {
        assert_eq!(
            fit(known, "serve m").length,
            Some(known.length),
            "{}",
            known.name
        );
    }
}

/// Lines of logs of each rank: "Model loading took 14.2474 GiB".
#[test]
fn weights_on_each_of_several_gpus_are_those_that_logs_tell_of() {
    for (name, line, mib) in [
        // vllm#17327.
        (
            "Qwen/Qwen3-30B-A3B",
            "serve m --tensor-parallel-size 4",
            14_589,
        ),
        // vllm#15676.
        ("google/gemma-3-27b-it", "serve m -tp 4", 13_482),
        // vllm#13061.
        (
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
            "serve m --tensor_parallel_size=2",
            14_282,
        ),
    ] {
        near(name, fit(of(name), line).weights, mib << 20, 5);
    }
}

/// A log of vLLM 0.24: "Available KV cache memory: 6.01 GiB", "GPU KV cache size: 569,878
/// tokens", with requests of 131,072.
#[test]
fn tokens_of_a_hybrid_model_are_those_that_a_log_tells_of() {
    let fit = fit(of("Qwen/Qwen3.6-35B-A3B"), "serve m --kv-cache-dtype fp8");
    let left = 6_154 << 20;
    let each = fit.cache(131_072, 8_192);
    near("tokens", left / (each / 131_072), 569_878, 10);
}

#[test]
fn more_gpus_than_heads_share_no_further() {
    let llama = of("meta-llama/Llama-3.1-70B");
    let cache = |line| fit(llama, line).per_token;
    assert_eq!(cache("serve m -tp 8"), llama.per_token / 8);
    assert_eq!(cache("serve m -tp 16"), llama.per_token / 8);
    assert_eq!(cache("serve m -pp 2"), llama.per_token / 2);
    assert_eq!(
        cache("serve m --kv-cache-dtype fp8_e5m2"),
        llama.per_token / 2
    );
    // A latent is whole on each.
    let latent = of("deepseek-ai/DeepSeek-V3");
    assert_eq!(fit(latent, "serve m -tp 8").per_token, latent.per_token);
}

#[test]
fn a_window_bounds_what_a_request_keeps() {
    let mistral = fit(of("mistralai/Mistral-7B-v0.1"), "serve m");
    let kept = mistral.cache(32_768, 2_048);
    assert_eq!(kept, 131_072 * (4_096 + 2_048 + BLOCK));
    let oss = fit(of("openai/gpt-oss-20b"), "serve m");
    let grows = oss.cache(131_072, 0) - oss.cache(65_536, 0);
    assert_eq!(grows, 65_536 * 24_576, "half of its layers see all");
}

#[test]
fn what_is_asked_changes_what_is_needed() {
    let llama = of("meta-llama/Llama-3.1-8B");
    let plain = fit(llama, "serve m");
    near(
        "float32",
        fit(llama, "serve m --dtype float32").weights,
        plain.weights * 2,
        1,
    );
    let fp8 = fit(llama, "serve m --quantization fp8");
    // But for what tokens are looked up in.
    near("fp8", fp8.weights, 9_081 * 1_000_000, 1);
    assert!(fp8.repacks && !plain.repacks);
    let kept = fit(llama, "serve m --cpu-offload-gb 10");
    assert_eq!(plain.weights - kept.weights, 10 * GIB);
    assert!(fit(of("mistralai/Mixtral-8x7B-v0.1"), "serve m").repacks);
    let given = |line| fit(llama, line).on(80 * GIB).given;
    assert_eq!(given("serve m --gpu-memory-utilization 0.5"), 40 * GIB);
    near("default", given("serve m"), share_of(80 * GIB, 0.92), 1);
}

#[test]
fn it_says_what_remains_and_what_does_not_fit() {
    let llama = of("meta-llama/Llama-3.1-8B");
    let words = fit(llama, "serve m").words(80 * GIB);
    assert!(words.starts_with("needs about 1"), "{words}");
    assert!(words.contains("on each of 1 GPU; 5"), "{words}");
    assert!(words.ends_with("0,000 tokens of cache"), "{words}");
    let long = fit(llama, "serve m").words(24 * GIB);
    assert!(long.contains("max_model_len = 131072"), "{long}");
    assert!(long.contains("set it to 4"), "{long}");
    let room = fit(llama, "serve m").on(24 * GIB);
    let tight = format!("serve m --max-model-len {}", room.longest);
    assert_eq!(fit(llama, &tight).misfit(24 * GIB), None);
    let beyond = format!("serve m --max-model-len {}", room.longest + 1);
    assert!(fit(llama, &beyond).misfit(24 * GIB).is_some());
    assert_eq!(
        fit(llama, "serve m --max-model-len auto").misfit(24 * GIB),
        None
    );
    let small = fit(llama, "serve m").misfit(12 * GIB).unwrap();
    assert!(small.contains("gives it 11.0GiB of 12GiB"), "{small}");
}

#[test]
fn what_is_not_known_has_no_estimate() {
    let config = |key: &str, value: Value| {
        let mut config = of("Qwen/Qwen3-8B").config();
        config[key] = value;
        Shape::read(&config)
    };
    for (key, value) in [
        ("layer_types", json!(vec!["a_new_attention"; 36])),
        ("layer_types", json!(["full_attention"])),
        ("hybrid_override_pattern", json!("M*")),
        ("num_hidden_layers", json!(-1)),
        ("num_hidden_layers", json!(1_u64 << 40)),
        ("num_hidden_layers", Value::Null),
        ("hidden_size", json!("4096")),
        ("vocab_size", json!(0)),
        ("compress_ratios", json!([4])),
        ("is_encoder_decoder", json!(true)),
        ("torch_dtype", json!("float8_e4m3fn")),
        ("max_position_embeddings", Value::Null),
    ] {
        let shown = value.to_string();
        assert!(config(key, value).is_err(), "{key} = {shown}");
    }
    assert!(config("hidden_act", json!("silu")).is_ok());
    assert!(Shape::read(&json!([])).is_err());
    for line in [
        "serve m --speculative-config {}",
        "serve m --max-model-len many",
        "serve m --gpu-memory-utilization=2",
        "serve m --kv-cache-dtype turbo",
        "serve m --load-format dummy",
    ] {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert!(FitTerms::read(&words, NEWEST).is_err(), "{line}");
    }
    let (shape, _) = of("Qwen/Qwen3-8B").read();
    assert!(Fit::of(shape, &Weights::default(), terms("serve m")).is_err());
}

#[test]
fn absurd_figures_end_in_no_overflow() {
    let config = json!({
        "num_hidden_layers": 1 << 20, "hidden_size": 1 << 20, "num_attention_heads": 1 << 20,
        "head_dim": 1 << 20, "vocab_size": 1 << 20, "intermediate_size": 1 << 20,
        "max_position_embeddings": 1_u64 << 32, "full_attention_interval": 4,
        "linear_num_key_heads": 1 << 20, "linear_key_head_dim": 1 << 20,
        "linear_num_value_heads": 1 << 20, "linear_value_head_dim": 1 << 20,
        "linear_conv_kernel_dim": 1 << 20, "mamba_ssm_dtype": "float32",
    });
    let shape = Shape::read(&config).unwrap();
    let mut weights = Weights::default();
    weights.add(&shape, "model.layers.0.x", "U8", &[u64::MAX, 2], u64::MAX);
    weights.add(
        &shape,
        "model.embed.weight",
        "BF16",
        &[u64::MAX, 2],
        u64::MAX,
    );
    let fit = Fit::of(
        shape,
        &weights,
        terms("serve m -tp 4294967296 -pp 4294967296"),
    )
    .unwrap();
    assert!(fit.misfit(80 * GIB).is_some());
    let none = Fit { weights: 0, ..fit };
    assert_eq!(none.on(0).tokens, 0);
}

#[test]
fn tokens_are_told_as_people_read_them() {
    for (tokens, words) in [
        (0, "0"),
        (7, "7"),
        (96, "96"),
        (987, "980"),
        (12_345, "12,000"),
        (412_345, "410,000"),
        (1_234_567, "1,200,000"),
    ] {
        assert_eq!(grouped(tokens), words);
    }
}
