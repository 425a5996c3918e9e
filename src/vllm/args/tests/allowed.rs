//! What the admin and the machine allow.

use super::*;

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
