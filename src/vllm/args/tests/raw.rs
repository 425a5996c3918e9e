//! Words in `cli` and the overrides: held to the parser, never around us.

use super::*;

#[test]
fn cli_takes_the_place_of_options_and_says_which() {
    let options = json!({
        "cli": "--max_model_len 4096 -tp 2 --hf-overrides '{\"a\": \"b c\"}' --no-enforce-eager --limit-mm-per-prompt.image 3 --seed=-1 --max-num-seqs=4",
        "dtype": "float16",
        "trust_remote_code": true,
        "huggingface_token": {"env": "HF_TOKEN"},
        "automatic_cpu_offloading": true,
    });
    let line = build("0.32.0", &options).unwrap();
    assert_eq!(
        line.argv.get(8..).unwrap(),
        [
            "--trust-remote-code",
            "--max_model_len",
            "4096",
            "-tp",
            "2",
            "--hf-overrides",
            "{\"a\": \"b c\"}",
            "--no-enforce-eager",
            "--limit-mm-per-prompt.image",
            "3",
            "--seed=-1",
            "--max-num-seqs=4",
        ]
    );
    assert_eq!(line.notes, ["cli is set, so these are left out: dtype"]);
    assert_eq!(line.gpus, 2);
    assert!(line.env.contains_key("HF_TOKEN"));
}

#[test]
fn owned_flags_are_refused_in_every_spelling() {
    for flag in [
        "--host 0.0.0.0",
        "--host=0.0.0.0",
        "--hos 0.0.0.0",
        "--port 1",
        "--por=1",
        "--uds /x",
        "--ud /x",
        "--api-key k",
        "--api_key k",
        "--api-k k",
        "--ssl-keyfile /k",
        "--ssl_keyfile=/k",
        "--ssl-keyf /k",
        "--root-path /x",
        "--root /x",
        "--middleware m",
        "--midd m",
        "--served-model-name a",
        "--served_model_name a",
        "--ser a",
        "--model x",
        "--mode x",
        "--config f.yaml",
        "--config=f.yaml",
        "--config.a 1",
        "--headless",
        "--headl",
        "--grpc",
        "--hf-token t",
        "--hf-tok t",
        "--enable-sleep-mode",
        "--no-enable-sleep-mode",
        "--data-parallel-size 2",
        "-dp 2",
        "-dp=2",
        "--nnodes 2",
        "-n 2",
        "--help",
        "-h",
        "--he",
        "--help=all",
        "--host.a 1",
        "--shutdown-timeout 5",
        "--device-ids 1",
    ] {
        for version in ["0.32.0", "0.40.0"] {
            let errors = build(version, &json!({"cli": flag})).unwrap_err();
            assert!(!errors.is_empty(), "{flag}");
        }
    }
}

#[test]
fn owned_flags_are_refused_as_overrides() {
    for name in [
        "host",
        "port",
        "api_key",
        "api-key",
        "ssl_keyfile",
        "served_model_name",
        "model",
        "uds",
        "hf_token",
        "no_enable_sleep_mode",
        "root_path",
        "ser",
        "hos",
    ] {
        let errors = build("0.32.0", &json!({"model_overrides": {name: "x"}})).unwrap_err();
        assert!(!errors.is_empty(), "{name}");
        let errors = build("0.40.0", &json!({"config_overrides": {name: true}})).unwrap_err();
        assert!(!errors.is_empty(), "{name}");
    }
}

#[test]
fn cli_is_held_to_what_the_parser_takes() {
    for (line, part) in [
        ("Qwen/Qwen3-8B", "belongs to no flag"),
        ("--enforce-eager yes", "takes no value"),
        ("--max-num-seqs", "needs a value"),
        ("--max-num-seqs 4 5", "takes one value"),
        ("--max-num-seqs=4 5", "has its value"),
        ("--max-num-seqs four", "a whole number"),
        ("--dtype float7", "one of auto"),
        ("--hf-overrides {bad", "JSON"),
        ("--max-num-seq 7", "write it out, as --max-num-seqs"),
        ("--gpu-mem .5", "write it out"),
        ("--no-such-flag", "has no --no-such-flag"),
        ("--swap-space 4", "no longer has --swap-space"),
        ("--", "has no --"),
        ("-", "has no -"),
        ("--max-modle-len 5", "did you mean --max-model-len"),
        ("--limit-mm-per-prompt.image", "takes one value"),
    ] {
        let errors = build("0.32.0", &json!({"cli": line})).unwrap_err();
        assert!(
            errors.iter().any(|error| error.contains(part)),
            "{line}: {errors:#?}"
        );
    }
    assert_eq!(
        words(
            "0.32.0",
            &json!({"cli": "-O3 --max-logprobs -1 -cc.mode=3"})
        ),
        "-O3 --max-logprobs -1 -cc.mode=3"
    );
}

#[test]
fn overrides_win_and_are_checked_by_name() {
    let options = json!({
        "max_num_seqs": 8,
        "config_overrides": {"max_num_seqs": 16, "stream_interval": 2},
        "model_overrides": {
            "max_num_seqs": 32, "enforce_eager": true, "enable-prefix-caching": false, "headers": 1
        },
    });
    assert!(error("0.32.0", &options).contains("has no --headers"));
    let options = json!({
        "max_num_seqs": 8,
        "config_overrides": {"max_num_seqs": 16, "stream_interval": 2},
        "model_overrides": {
            "max_num_seqs": 32, "enforce_eager": true, "enable-prefix-caching": false,
            "compilation_config": {"mode": 3}, "cudagraph_capture_sizes": [1, 2], "seed": 0,
        },
    });
    assert_eq!(
        words("0.32.0", &options),
        r#"--stream-interval 2 --compilation-config {"mode":3} --cudagraph-capture-sizes 1 2 --no-enable-prefix-caching --enforce-eager --max-num-seqs 32 --seed 0"#
    );
    for (overrides, part) in [
        (json!({"swap_space": 4}), "no longer has --swap-space"),
        (json!({"max_num_seqs": "many"}), "a whole number"),
        (json!({"max_num_seqs": true}), "not a switch"),
        (json!({"enforce_eager": "yes"}), "takes no value"),
        (json!({"no_enforce_eager": true}), "enforce_eager = false"),
        (json!({"dtype": "float7"}), "one of"),
        (json!({"dtype": null}), "leave it out"),
        (json!({"dtype": "--host"}), "read it as a flag"),
        (json!({"a b": 1}), "not an option's name"),
        (json!({"--host": 1}), "not an option's name"),
        (json!({"x\n": 1}), "not an option's name"),
    ] {
        let error = error("0.32.0", &json!({"model_overrides": overrides}));
        assert!(error.contains(part), "{overrides}: {error}");
    }
    // Off is what it is without the flag.
    assert_eq!(
        words(
            "0.7.2",
            &json!({"model_overrides": {"enforce_eager": false}})
        ),
        ""
    );
}
