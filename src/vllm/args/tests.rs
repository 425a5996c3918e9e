//! Golden lines, and what never reaches one.

mod allowed;
mod inputs;
mod raw;

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use serde_json::{Value as Json, json};

use super::{CommandLine, Launch, Listen, Sleep, command_line};
use crate::outbound::dial::media::Media;
use crate::vllm::options::{OPTIONS, OptionScope, OptionSet, SecretSource, SecretText};
use crate::vllm::rules::{Allowed, Hardware};
use crate::vllm::versions::VersionArgs;

fn resolve(source: &SecretSource) -> Result<SecretText, String> {
    match source {
        SecretSource::Literal(secret) => Ok(secret.clone()),
        SecretSource::Env(name) if name == "HF_TOKEN" => Ok(SecretText::new("hf_topsecret".into())),
        other => Err(format!("no such secret: {other:?}")),
    }
}

/// The version of most cases, read once.
static LATEST: LazyLock<VersionArgs> =
    LazyLock::new(|| VersionArgs::built_in("0.32.0".parse().unwrap()));

/// A launch of `Qwen/Qwen3-8B` with everything allowed, changed by `change`.
fn launch(
    version: &str,
    options: &Json,
    change: impl FnOnce(&mut Launch<'_>),
) -> Result<CommandLine, Vec<String>> {
    let version = version.parse().unwrap();
    let options = OptionSet::parse(OptionScope::Both, options.as_object().unwrap())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let allowed = Allowed::all();
    let other = (version != LATEST.version()).then(|| VersionArgs::built_in(version));
    let mut launch = Launch {
        model: "Qwen/Qwen3-8B",
        served_names: &["qwen3-8b"],
        options: &options,
        version: &version,
        knowledge: other.as_ref().unwrap_or(&LATEST),
        listen: Listen::Tcp("127.0.0.1", 8101),
        sleep: Sleep::No,
        allowed: &allowed,
        media: &Media::default(),
        chat_template: false,
        machine: Hardware {
            gpus: Some(2),
            gpu_memory: Some(80 << 30),
            amd64: true,
        },
        resolve: &resolve,
    };
    change(&mut launch);
    command_line(&launch).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn build(version: &str, options: &Json) -> Result<CommandLine, Vec<String>> {
    launch(version, options, |_| {})
}

/// The words after model, address and names.
fn words(version: &str, options: &Json) -> String {
    let line = build(version, options).unwrap();
    line.argv.get(8..).unwrap().join(" ")
}

/// The one error.
fn error(version: &str, options: &Json) -> String {
    let mut errors = build(version, options).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

#[test]
fn an_empty_set_gives_the_frame_alone() {
    let line = build("0.32.0", &json!({})).unwrap();
    assert_eq!(
        line.to_string(),
        "vllm serve Qwen/Qwen3-8B --host 127.0.0.1 --port 8101 --served-model-name qwen3-8b"
    );
    assert_eq!((line.gpus, line.notes.len(), line.env.len()), (1, 0, 0));
}

/// One form, filled in as a person would, for both golden lines.
fn full_form() -> Json {
    json!({
        "trust_remote_code": true,
        "enforce_eager": true,
        "enable_prefix_caching": false,
        "enable_reasoning": true,
        "reasoning_parser": "deepseek_r1",
        "enable_auto_tool_choice": true,
        "tool_call_parser": "hermes",
        "limit_mm_per_prompt": "image=16,video=2",
        "max_model_len": "32K",
        "max_num_seqs": 64,
        "gpu_memory_utilization": 0.45,
        "tensor_parallel_size": 2,
        "cpu_offload_gb": "512MiB",
        "dtype": "bfloat16",
        "kv_cache_dtype": "ffp8_e5m2",
        "seed": 7,
        "rope_theta": 10000,
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
        "speculative_model": "Qwen/Qwen3-0.6B",
        "num_speculative_tokens": 5,
        "speculative_draft_tensor_parallel_size": 1,
        "enable_lora": true,
        "lora_modules": ["sql=/srv/sql", "chat=/srv/my chat"],
        "max_cpu_loras": 64,
        "huggingface_token": {"env": "HF_TOKEN"},
        "disable_log_requests": true,
        "vllm_log_level": "DEBUG",
        "guided_decoding_backend": "xgrammar",
        "enable_chunked_prefill": false,
        "hf_overrides": {"max_position_embeddings": 65536},
        "ignore_patterns": ["original/**/*", "*.bin"],
        "override_pooler_config": {"pooling_type": "MEAN"},
        "task": "generate",
        "automatic_cpu_offloading": true,
    })
}

#[test]
fn golden_line_of_0_7_2() {
    let line = build("0.7.2", &full_form()).unwrap();
    assert_eq!(
        line.to_string(),
        "HF_TOKEN=*** VLLM_LOGGING_LEVEL=DEBUG vllm serve Qwen/Qwen3-8B --host 127.0.0.1 --port 8101 \
--served-model-name qwen3-8b --trust-remote-code --enforce-eager --no-enable-prefix-caching \
--enable-reasoning --enable-auto-tool-choice --limit-mm-per-prompt image=16,video=2 \
--max-model-len 32768 --max-num-seqs 64 --tool-call-parser hermes --reasoning-parser deepseek_r1 \
--gpu-memory-utilization 0.45 --tensor-parallel-size 2 --cpu-offload-gb 0.5 --dtype bfloat16 \
--kv-cache-dtype fp8_e5m2 --seed 7 --rope-theta 10000 --speculative-model Qwen/Qwen3-0.6B \
--num-speculative-tokens 5 --speculative-draft-tensor-parallel-size 1 --enable-lora \
--lora-modules sql=/srv/sql 'chat=/srv/my chat' --max-cpu-loras 64 --disable-log-requests \
--guided-decoding-backend xgrammar --enable-chunked-prefill=false --ignore-patterns 'original/**/*' \
--ignore-patterns '*.bin' --task generate --hf-overrides '{\"max_position_embeddings\":65536}' \
--override-pooler-config '{\"pooling_type\":\"MEAN\"}' \
--rope-scaling '{\"factor\":2.0,\"rope_type\":\"dynamic\"}'"
    );
    assert_eq!(line.notes, Vec::<String>::new());
    assert_eq!(line.gpus, 2);
}

#[test]
fn golden_line_of_0_32_0() {
    let line = build("0.32.0", &full_form()).unwrap();
    assert_eq!(
        line.to_string(),
        "HF_TOKEN=*** VLLM_LOGGING_LEVEL=DEBUG vllm serve Qwen/Qwen3-8B --host 127.0.0.1 --port 8101 \
--served-model-name qwen3-8b --trust-remote-code --enforce-eager --no-enable-prefix-caching \
--enable-auto-tool-choice --max-model-len 32768 --max-num-seqs 64 --tool-call-parser hermes \
--reasoning-parser deepseek_r1 --gpu-memory-utilization 0.45 --tensor-parallel-size 2 \
--cpu-offload-gb 0.5 --dtype bfloat16 --kv-cache-dtype fp8_e5m2 --seed 7 --enable-lora \
--lora-modules sql=/srv/sql 'chat=/srv/my chat' --max-cpu-loras 64 --no-enable-chunked-prefill \
--ignore-patterns 'original/**/*' '*.bin' --runner generate \
--hf-overrides '{\"max_position_embeddings\":65536,\"rope_parameters\":{\"factor\":2.0,\"rope_theta\":10000.0,\"rope_type\":\"dynamic\"}}' \
--limit-mm-per-prompt '{\"image\":16,\"video\":2}' --pooler-config '{\"pooling_type\":\"MEAN\"}' \
--speculative-config '{\"draft_tensor_parallel_size\":1,\"model\":\"Qwen/Qwen3-0.6B\",\"num_speculative_tokens\":5}' \
--structured-outputs-config '{\"backend\":\"xgrammar\"}'"
    );
    for part in [
        "enable_reasoning",
        "rope_parameters",
        "--speculative-config",
        "disable_log_requests",
        "--runner",
        "--structured-outputs-config",
    ] {
        assert!(
            line.notes.iter().any(|note| note.contains(part)),
            "{part}: {:#?}",
            line.notes
        );
    }
}

#[test]
fn the_same_launch_gives_the_same_line() {
    let line = build("0.32.0", &full_form()).unwrap();
    for _ in 0..10 {
        assert_eq!(build("0.32.0", &full_form()).unwrap(), line);
    }
}

#[test]
fn a_removed_option_names_the_version_and_the_replacement() {
    for (options, parts) in [
        (json!({"swap_space": 4}), ["0.18.0", "kv_offloading_size"]),
        (
            json!({"num_scheduler_steps": 8}),
            ["0.11.0", "async_scheduling"],
        ),
        (json!({"enable_prompt_adapter": true}), ["0.11.0", "LoRA"]),
        (json!({"use_v1_engine": false}), ["0.15.0", "only engine"]),
        (json!({"device": "cuda"}), ["0.11.0", "finds it"]),
        (
            json!({"max_seq_len_to_capture": 8192}),
            ["0.11.0", "max_cudagraph_capture_size"],
        ),
        (
            json!({"enable_lora": true, "enable_lora_bias": true}),
            ["0.15.0", "nothing took its place"],
        ),
        (
            json!({"rope_theta": 10000}),
            ["rope_theta", "set rope_scaling too"],
        ),
        (json!({"task": "reward"}), ["reward", "runner and convert"]),
    ] {
        let error = error("0.32.0", &options);
        for part in parts {
            assert!(error.contains(part), "{options}: {error}");
        }
        assert!(error.contains("vLLM 0.32.0"), "{error}");
        if !options.as_object().unwrap().contains_key("use_v1_engine") {
            build("0.7.2", &options).unwrap();
        }
    }
}

#[test]
fn a_removed_option_that_asks_for_what_happens_anyway_is_left_out() {
    for options in [
        json!({"swap_space": 0}),
        json!({"device": "auto"}),
        json!({"use_v1_engine": true}),
        json!({"num_scheduler_steps": 1}),
        json!({"speculative_model": "a/b", "spec_decoding_acceptance_method": "RejectionSampler"}),
        json!({"task": "auto"}),
        json!({"disable_log_requests": true}),
        json!({"enable_prompt_adapter": false}),
    ] {
        let line = build("0.32.0", &options).unwrap();
        let text = line.to_string();
        assert!(
            !text.contains("swap") && !text.contains("device") && !text.contains("steps"),
            "{text}"
        );
    }
    assert_eq!(
        words("0.32.0", &json!({"disable_log_requests": false})),
        "--enable-log-requests"
    );
}

#[test]
fn values_are_checked_against_the_versions_own_list() {
    assert!(build("0.32.0", &json!({"kv_cache_dtype": "nvfp4"})).is_ok());
    assert!(error("0.7.2", &json!({"kv_cache_dtype": "nvfp4"})).contains("auto, fp8"));
    assert!(error("0.7.2", &json!({"block_size": 7})).contains("8, 16, 32"));
    assert!(build("0.32.0", &json!({"block_size": 7})).is_ok());
    assert!(
        error("0.32.0", &json!({"enable_lora": true, "max_lora_rank": 7})).contains("1, 8, 16")
    );
    assert_eq!(
        words("0.32.0", &json!({"max_model_len": "auto"})),
        "--max-model-len=-1"
    );
    assert!(error("0.7.2", &json!({"max_model_len": "auto"})).contains("number of tokens"));
}

#[test]
fn reasoning_off_keeps_the_parser_out_where_it_would_turn_it_on() {
    let options = json!({"enable_reasoning": false, "reasoning_parser": "qwen3"});
    assert_eq!(words("0.32.0", &options), "");
    assert_eq!(
        words("0.32.0", &json!({"reasoning_parser": "qwen3"})),
        "--reasoning-parser qwen3"
    );
}

#[test]
fn speculative_options_off_or_by_ngram() {
    let off = json!({"speculative_decoding": false, "speculative_model": "a/b", "num_speculative_tokens": 5});
    assert_eq!(words("0.32.0", &off), "");
    let ngram = json!({"speculative_model": "[ngram]", "num_speculative_tokens": 5, "ngram_prompt_lookup_max": 4});
    assert_eq!(
        words("0.32.0", &ngram),
        r#"--speculative-config {"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":4}"#
    );
    assert_eq!(
        words("0.7.2", &ngram),
        "--speculative-model [ngram] --num-speculative-tokens 5 --ngram-prompt-lookup-max 4"
    );
}

#[test]
fn unknown_arguments_of_versions_that_are_not_installed_are_noted() {
    let line = build("0.40.0", &json!({"model_overrides": {"brand_new": 1}})).unwrap();
    assert!(line.argv.contains(&"--brand-new".to_owned()));
    assert!(line.notes[0].contains("not known before it is installed"));
    let line = build("0.20.0", &json!({"cli": "--stream-interval 2"})).unwrap();
    assert!(line.notes[0].contains("--stream-interval"));
}

#[test]
fn sleep_adds_the_flag_and_the_routes() {
    let options = json!({"automatic_cpu_offloading": true});
    for (sleep, flag, routes) in [
        (Sleep::No, false, false),
        (Sleep::RoutesOnly, false, true),
        (Sleep::Yes, true, true),
    ] {
        let line = launch("0.32.0", &options, |launch| launch.sleep = sleep).unwrap();
        assert_eq!(
            line.argv.iter().any(|word| word == "--enable-sleep-mode"),
            flag
        );
        assert_eq!(line.env.contains_key("VLLM_SERVER_DEV_MODE"), routes);
    }
}

#[test]
fn a_socket_is_refused_where_vllm_does_not_know_them() {
    let at = |launch: &mut Launch<'_>| launch.listen = Listen::Unix(Path::new("/run/w.sock"));
    let line = launch("0.32.0", &json!({}), at).unwrap();
    assert_eq!(line.argv.get(2..4).unwrap(), ["--uds", "/run/w.sock"]);
    assert!(launch("0.7.2", &json!({}), at).unwrap_err()[0].contains("Unix socket"));
}

#[test]
fn max_cuda_memory_offloads_what_exceeds_the_gpu() {
    let options = json!({"automatic_cpu_offloading": true, "max_cuda_memory": 100});
    assert_eq!(words("0.32.0", &options), "--cpu-offload-gb 20");
    let options = json!({"automatic_cpu_offloading": true, "max_cuda_memory": 40, "gpu_memory_utilization": 0.8});
    assert_eq!(words("0.32.0", &options), "--gpu-memory-utilization 0.4");
    let unnamed = json!({"automatic_cpu_offloading": true, "max_cuda_memory": 40});
    assert_eq!(words("0.32.0", &unnamed), "--gpu-memory-utilization 0.46");
    assert_eq!(words("0.7.2", &unnamed), "--gpu-memory-utilization 0.45");
    let errors = launch("0.32.0", &options, |launch| launch.machine.amd64 = false).unwrap_err();
    assert!(errors[0].contains("amd64"));
}

#[test]
fn secrets_are_in_the_environment_and_masked() {
    let line = build("0.32.0", &json!({"huggingface_token": "hf_topsecret"})).unwrap();
    assert_eq!(line.env["HF_TOKEN"].expose(), "hf_topsecret");
    let shown = format!("{line} {line:?}");
    assert!(!shown.contains("topsecret"), "{shown}");
    let errors = build("0.32.0", &json!({"huggingface_token": {"env": "OTHER"}})).unwrap_err();
    assert!(errors[0].contains("no such secret"));
}

#[test]
fn nothing_written_into_an_option_becomes_a_second_word() {
    let hostile = [
        "--host 0.0.0.0",
        "--foo",
        "-x",
        "a\n--host",
        "a\0b",
        "$(touch /tmp/x)",
        "`id`",
        "; rm -rf /",
        "a b",
        "' --host",
        "\" --host",
        "a --host=0.0.0.0",
        "\u{2028}--host",
    ];
    for text in hostile {
        for name in [
            "tokenizer",
            "quantization",
            "tool_call_parser",
            "load_format",
            "revision",
        ] {
            let Ok(line) = build("0.32.0", &json!({name: text})) else {
                continue;
            };
            assert_eq!(line.argv.len(), 10, "{name} = {text:?}");
            assert_eq!(line.argv[9], text);
        }
        for (name, value) in [
            ("ignore_patterns", json!([text])),
            ("hf_overrides", json!({"a": text})),
        ] {
            if let Ok(line) = build("0.32.0", &json!({name: value})) {
                assert_eq!(line.argv.len(), 10, "{name} = {text:?}");
            }
        }
        let served: &'static [&str] = vec![text].leak();
        let named = launch("0.32.0", &json!({}), |launch| launch.served_names = served);
        assert!(named.is_err() || !text.starts_with('-'), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_input_makes_an_owned_flag_or_a_control_character(
        name in prop::sample::select(OPTIONS).prop_map(|row| row.name),
        text in "(--?[a-z_=.-]{0,12}|[ -~\\n\\x00]{0,20}|--(host|port|api-key|uds|ser|config)[=. ]?[a-z]{0,3})",
    ) {
        for value in [json!(text), json!([text]), json!({"a": text}), json!({text.as_str(): 1})] {
            let Ok(line) = build("0.32.0", &json!({name: value})) else { continue };
            prop_assert_eq!(line.argv.get(..8).unwrap(), build("0.32.0", &json!({})).unwrap().argv);
            for word in line.argv.get(8..).unwrap() {
                prop_assert!(!word.chars().any(char::is_control), "{word:?}");
                let flag = word.split(['=', '.']).next().unwrap().replace('_', "-");
                for owned in ["--host", "--port", "--api-key", "--uds", "--served-model-name", "--config"] {
                    prop_assert!(!(flag.len() > 3 && owned.starts_with(&flag)), "{line}");
                }
            }
        }
    }
}
