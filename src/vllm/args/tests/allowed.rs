//! Limits by the admin and by the machine.

use super::*;
use crate::vllm::options::Home;
use crate::vllm::rules::{self, Named, Operator};

#[test]
fn what_the_admin_does_not_allow_is_refused_from_every_side() {
    let strict: &'static Allowed = Box::leak(Box::default());
    for options in [
        json!({"trust_remote_code": true}),
        json!({"cli": "--trust-remote-code"}),
        json!({"cli": "--trust_remote_code"}),
        json!({"model_overrides": {"trust_remote_code": true}}),
        json!({"tool_call_parser": "x", "tool_parser_plugin": "/srv/p.py"}),
        json!({"cli": "--tool-parser-plugin /srv/p.py"}),
        json!({"model_overrides": {"reasoning_parser_plugin": "/srv/p.py"}}),
        json!({"tokenizer": "/etc"}),
        json!({"tokenizer": "../x"}),
        json!({"enable_lora": true, "lora_modules": "a=/etc"}),
        json!({"enable_lora": true, "lora_modules": [{"name": "a", "path": "/etc", "base_model_name": "b"}]}),
        json!({"cli": "--lora-modules a=/etc"}),
        json!({"cli": "--lora-modules [{\"path\":\"/etc\"}]"}),
        json!({"speculative_model": "/etc"}),
        json!({"cli": "--speculative-config.model /etc"}),
        json!({"cli": "-sc.model=/etc"}),
        json!({"cli": "--speculative-config '{\"\\u006dodel\": \"/etc\"}'"}),
        json!({"model_overrides": {"speculative_config": {"model": "/etc"}}}),
        json!({"model_overrides": {"worker_cls": "os.system"}}),
        json!({"model_overrides": {"kv_transfer_config": {"kv_connector_module_path": "x"}}}),
        json!({"cli": "--kv-transfer-config.kv_connector_module_path x"}),
        json!({"cli": "--distributed-executor-backend my.Executor"}),
        json!({"cli": "--allowed-local-media-path /"}),
        json!({"cli": "--chat-template /etc/passwd"}),
        json!({"model_overrides": {"download_dir": "/etc"}}),
        json!({"model_overrides": {"log_config_file": "/x"}}),
    ] {
        let result = launch("0.32.0", &options, |launch| launch.allowed = strict);
        assert!(result.is_err(), "{options}");
    }
    for (options, model) in [
        (json!({}), "/etc"),
        (json!({}), "--host"),
        (json!({}), "a\nb"),
    ] {
        let result = launch("0.32.0", &options, |launch| {
            launch.allowed = strict;
            launch.model = model;
        });
        assert!(result.is_err(), "{model}");
    }
    let template = json!({"cli": "--chat-template '{{ messages }}' --generation-config vllm"});
    launch("0.32.0", &template, |launch| launch.allowed = strict).unwrap();
}

#[test]
fn too_many_gpus_are_refused_also_from_raw_arguments() {
    for options in [
        json!({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}),
        json!({"cli": "-tp 4"}),
        json!({"model_overrides": {"tensor_parallel_size": 4}}),
    ] {
        assert!(
            error("0.32.0", &options).contains("queue has 2 GPUs"),
            "{options}"
        );
    }
}

/// An operator whose admins named one model, and raised nothing.
fn operator(more: Allowed) -> &'static Allowed {
    let named = Named {
        models: ["Qwen/Qwen3-8B".to_owned()].into(),
        ..Named::default()
    };
    let operator = Operator {
        named,
        ..Operator::default()
    };
    Box::leak(Box::new(Allowed {
        operator: Some(operator),
        ..more
    }))
}

/// Options that led to code, files and servers as an operator, each with the words in which
/// it may be refused.
fn sinks() -> Vec<Json> {
    vec![
        json!({"structured_outputs_config": {"reasoning_parser_plugin": "/x.py"}}),
        json!({"kv_transfer_config": {"kv_connector_extra_config": {"spec_module_path": "x"}}}),
        json!({"kv_transfer_config": {"kv_connector_extra_config": {"cache_policy_module_path": "x"}}}),
        json!({"kv_transfer_config": {"kv_connector_extra_config": {"secondary_tiers": [{"module_path": "x"}]}}}),
        json!({"kv_transfer_config": {"kv_connector": "P2pNcclConnector"}}),
        json!({"kv_transfer_config": {"kv_connector_extra_config": {"shared_storage_path": "/"}}}),
        json!({"ec_manager_config": {"encoder_cache_manager_cls": "x.Y"}}),
        json!({"compilation_config": {"inductor_compile_config": {"cpp.cxx": "/x"}}}),
        json!({"compilation_config": {"cache_dir": "/x"}}),
        json!({"kv_events_config": {"endpoint": "tcp://*:1"}}),
        json!({"model_loader_extra_config": {"tensorizer_uri": "s3://x"}}),
        json!({"additional_config": {"any": "thing"}}),
        json!({"speculative_config": {"method": "custom_class", "model": "x.Y"}}),
        json!({"quite_new_config": {"module_path": "x"}}),
        json!({"quite_new_path": "/x"}),
    ]
}

#[test]
fn an_operator_writes_no_raw_arguments_however_harmless() {
    let by_default = operator(Allowed::default());
    for options in [
        json!({"cli": "--enforce-eager"}),
        json!({"model_overrides": {"enforce_eager": true}}),
        json!({"config_overrides": {"otlp_traces_endpoint": "http://x"}}),
        json!({"hf_overrides": {"auto_map": {"AutoConfig": "x.Y"}}}),
        json!({"model_loader_extra_config": {"tensorizer_uri": "s3://x"}}),
        json!({"load_format": "tensorizer"}),
        json!({"reasoning_parser": "x.Y"}),
        json!({"revision": "refs/pr/7"}),
        json!({"huggingface_token": {"env": "HF_TOKEN"}}),
        json!({"tokenizer": "owner/repo"}),
        json!({"enable_lora": true, "lora_modules": ["ad=owner/repo"]}),
        json!({"speculative_model": "owner/repo", "num_speculative_tokens": 2}),
    ]
    .into_iter()
    .chain(
        sinks()
            .into_iter()
            .map(|sink| json!({"model_overrides": sink})),
    ) {
        for version in ["0.18.0", "0.32.0", "0.99.0"] {
            let result = launch(version, &options, |launch| launch.allowed = by_default);
            assert!(result.is_err(), "{version}: {options}");
        }
    }
    let model = launch("0.32.0", &json!({}), |launch| {
        launch.allowed = by_default;
        launch.model = "owner/repo";
    });
    assert!(model.unwrap_err().join(" ").contains("no admin named"));
}

#[test]
fn raw_arguments_of_an_operator_still_lead_nowhere() {
    let raw = operator(Allowed {
        raw: true,
        ..Allowed::default()
    });
    for sink in sinks() {
        for version in ["0.32.0", "0.99.0"] {
            for options in [
                json!({"model_overrides": sink}),
                json!({"config_overrides": sink}),
            ] {
                let result = launch(version, &options, |launch| launch.allowed = raw);
                assert!(result.is_err(), "{version}: {options}");
            }
        }
    }
    for line in [
        "--kv-transfer-config.kv_connector_extra_config.spec_module_path x",
        "--compilation-config.cache_dir /x",
        "-cc.cache_dir=/x",
        "--compilation-config '{\"cache_dir\": \"/x\"}'",
        "--structured-outputs-config.reasoning_parser_plugin+ /x.py",
        "--allowed-origins '[\"*\"]'",
    ] {
        let options = json!({ "cli": line });
        let result = launch("0.32.0", &options, |launch| launch.allowed = raw);
        assert!(result.is_err(), "{line}");
    }
    for line in [
        "--enforce-eager --max-model-len 4096",
        "--compilation-config.cudagraph_mode NONE",
        "-O3",
        "--compilation-config '{\"cudagraph_capture_sizes\": [1, 2]}'",
    ] {
        let options = json!({ "cli": line });
        launch("0.32.0", &options, |launch| launch.allowed = raw).expect(line);
    }
}

#[test]
fn an_operator_may_write_every_option_of_the_table_that_leads_nowhere() {
    let everything_named = operator(Allowed {
        sources: Some(vec!["*".to_owned()]),
        ..Allowed::default()
    });
    let mut refused = Vec::new();
    for row in OPTIONS
        .iter()
        .filter(|row| matches!(row.home, Home::Options(_)))
    {
        let example: Json = serde_json::from_str(row.example).unwrap();
        let mut table = serde_json::Map::from_iter([(row.name.to_owned(), example)]);
        let mut needs = vec![row.name];
        while let Some(name) = needs.pop().and_then(rules::needed_by) {
            let other = crate::vllm::options::find(name).unwrap();
            table.insert(
                name.to_owned(),
                serde_json::from_str(other.example).unwrap(),
            );
            needs.push(name);
        }
        let options = Json::Object(table);
        let as_admin = launch("0.32.0", &options, |_| ());
        let as_operator = launch("0.32.0", &options, |launch| {
            launch.allowed = everything_named;
        });
        if as_admin.is_ok() && as_operator.is_err() {
            refused.push(row.name);
        }
    }
    refused.sort_unstable();
    let for_admins = [
        "cli",
        "config_overrides",
        "huggingface_token",
        "lora_modules",
        "model_overrides",
        "tool_parser_plugin",
        "trust_remote_code",
    ];
    assert_eq!(refused, for_admins);
}
