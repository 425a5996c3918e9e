//! Keys inside JSON arguments that an operator may write.
//!
//! A list of what is harmless, not of what is forbidden: the set of keys is vLLM's
//! and open. What makes a key harmless is its value: a number, a switch or one of
//! few words can't name a file, a server or code, whatever a later version makes
//! of the key. So the list holds for versions that are newer than it, too.

use serde_json::Value as Json;

use super::Allowed;
use crate::vllm::versions::Version;

/// Values that a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    /// A number.
    Number,
    /// On or off.
    Switch,
    /// Numbers in a list.
    Numbers,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A word without anything that makes a path, an address or a module of it.
    Plain,
    /// A model that the admin allows, or this word.
    Model(&'static str),
}

/// A key of a JSON argument.
struct Key {
    flag: &'static str,
    /// Its path in the argument; `*` stands for any one key.
    path: &'static str,
    takes: Takes,
    /// First version that has it so.
    since: Version,
    /// First version that does not.
    until: Version,
}

const fn key(flag: &'static str, path: &'static str, takes: Takes) -> Key {
    Key {
        flag,
        path,
        takes,
        since: Version::MIN,
        until: Version::MAX,
    }
}

const fn since(version: Version, mut key: Key) -> Key {
    key.since = version;
    key
}

const fn until(version: Version, mut key: Key) -> Key {
    key.until = version;
    key
}

const V0_11: Version = Version::new(0, 11, 0);
const V0_15: Version = Version::new(0, 15, 0);

const ROPE_WORDS: Takes = Takes::Word(&[
    "default", "linear", "dynamic", "yarn", "llama3", "longrope", "mrope", "su",
]);
const POOLING: Takes = Takes::Word(&[
    "ALL", "CLS", "LAST", "MEAN", "STEP", "all", "cls", "last", "mean", "step",
]);
const HF: &str = "--hf-overrides";
const POOLER: &str = "--pooler-config";
const POOLER_OLD: &str = "--override-pooler-config";
const LOADER: &str = "--model-loader-extra-config";
const DRAFT: &str = "--speculative-config";
const STRUCTURED: &str = "--structured-outputs-config";
const COMPILE: &str = "--compilation-config";

/// Keys of a table of `RoPE` parameters.
const ROPE: [(&str, Takes); 14] = [
    ("rope_type", ROPE_WORDS),
    ("type", ROPE_WORDS),
    ("rope_theta", Takes::Number),
    ("factor", Takes::Number),
    ("original_max_position_embeddings", Takes::Number),
    ("low_freq_factor", Takes::Number),
    ("high_freq_factor", Takes::Number),
    ("attention_factor", Takes::Number),
    ("beta_fast", Takes::Number),
    ("beta_slow", Takes::Number),
    ("mscale", Takes::Number),
    ("mscale_all_dim", Takes::Number),
    ("short_factor", Takes::Numbers),
    ("long_factor", Takes::Numbers),
];

/// Places of such a table: argument and path before its keys.
const ROPE_AT: [(&str, &str); 3] = [
    ("--rope-scaling", ""),
    (HF, "rope_scaling."),
    (HF, "rope_parameters."),
];

const KEYS: &[Key] = &[
    key("--limit-mm-per-prompt", "*", Takes::Number),
    key(HF, "max_position_embeddings", Takes::Number),
    key(HF, "model_max_length", Takes::Number),
    key(HF, "max_seq_len", Takes::Number),
    key(HF, "seq_length", Takes::Number),
    key(HF, "n_positions", Takes::Number),
    key(HF, "rope_theta", Takes::Number),
    key(HF, "sliding_window", Takes::Number),
    key(HF, "use_sliding_window", Takes::Switch),
    key(HF, "max_window_layers", Takes::Number),
    key(HF, "num_experts_per_tok", Takes::Number),
    key(HF, "num_labels", Takes::Number),
    key(HF, "tie_word_embeddings", Takes::Switch),
    key(HF, "is_matryoshka", Takes::Switch),
    key(HF, "matryoshka_dimensions", Takes::Numbers),
    key(HF, "text_config.max_position_embeddings", Takes::Number),
    until(V0_15, key(POOLER_OLD, "pooling_type", POOLING)),
    until(V0_15, key(POOLER_OLD, "normalize", Takes::Switch)),
    until(V0_15, key(POOLER_OLD, "softmax", Takes::Switch)),
    until(V0_15, key(POOLER_OLD, "step_tag_id", Takes::Number)),
    until(V0_15, key(POOLER_OLD, "returned_token_ids", Takes::Numbers)),
    since(V0_15, key(POOLER, "pooling_type", POOLING)),
    since(V0_15, key(POOLER, "seq_pooling_type", POOLING)),
    since(V0_15, key(POOLER, "tok_pooling_type", POOLING)),
    since(V0_15, key(POOLER, "use_activation", Takes::Switch)),
    since(V0_15, key(POOLER, "dimensions", Takes::Number)),
    since(
        V0_15,
        key(POOLER, "enable_chunked_processing", Takes::Switch),
    ),
    since(V0_15, key(POOLER, "max_embed_len", Takes::Number)),
    since(V0_15, key(POOLER, "logit_mean", Takes::Number)),
    since(V0_15, key(POOLER, "logit_sigma", Takes::Number)),
    since(V0_15, key(POOLER, "step_tag_id", Takes::Number)),
    since(V0_15, key(POOLER, "returned_token_ids", Takes::Numbers)),
    key(LOADER, "concurrency", Takes::Number),
    key(LOADER, "memory_limit", Takes::Number),
    key(LOADER, "num_threads", Takes::Number),
    key(LOADER, "enable_multithread_load", Takes::Switch),
    until(
        V0_11,
        key("--tokenizer-pool-extra-config", "num_cpus", Takes::Number),
    ),
    key(DRAFT, "model", Takes::Model("ngram")),
    key(
        DRAFT,
        "method",
        Takes::Word(&[
            "ngram",
            "ngram_gpu",
            "suffix",
            "eagle",
            "eagle3",
            "medusa",
            "mlp_speculator",
            "draft_model",
            "mtp",
        ]),
    ),
    key(DRAFT, "num_speculative_tokens", Takes::Number),
    key(DRAFT, "draft_tensor_parallel_size", Takes::Number),
    key(DRAFT, "max_model_len", Takes::Number),
    key(DRAFT, "quantization", Takes::Plain),
    key(DRAFT, "prompt_lookup_max", Takes::Number),
    key(DRAFT, "prompt_lookup_min", Takes::Number),
    key(DRAFT, "disable_by_batch_size", Takes::Number),
    key(DRAFT, "disable_padded_drafter_batch", Takes::Switch),
    key(DRAFT, "enforce_eager", Takes::Switch),
    key(
        STRUCTURED,
        "backend",
        Takes::Word(&[
            "auto",
            "xgrammar",
            "guidance",
            "outlines",
            "lm-format-enforcer",
        ]),
    ),
    key(STRUCTURED, "disable_any_whitespace", Takes::Switch),
    key(STRUCTURED, "disable_additional_properties", Takes::Switch),
    key(STRUCTURED, "enable_in_reasoning", Takes::Switch),
    key(COMPILE, "mode", Takes::Number),
    key(COMPILE, "level", Takes::Number),
    key(COMPILE, "cudagraph_capture_sizes", Takes::Numbers),
    key(COMPILE, "max_cudagraph_capture_size", Takes::Number),
    key(
        COMPILE,
        "cudagraph_mode",
        Takes::Word(&[
            "NONE",
            "PIECEWISE",
            "FULL",
            "FULL_DECODE_ONLY",
            "FULL_AND_PIECEWISE",
        ]),
    ),
    key("--mm-processor-kwargs", "min_pixels", Takes::Number),
    key("--mm-processor-kwargs", "max_pixels", Takes::Number),
    key("--mm-processor-kwargs", "num_crops", Takes::Number),
    key("--mm-processor-kwargs", "fps", Takes::Number),
    key("--override-generation-config", "temperature", Takes::Number),
    key("--override-generation-config", "top_p", Takes::Number),
    key("--override-generation-config", "top_k", Takes::Number),
    key("--override-generation-config", "min_p", Takes::Number),
    key(
        "--override-generation-config",
        "repetition_penalty",
        Takes::Number,
    ),
    key(
        "--override-generation-config",
        "max_new_tokens",
        Takes::Number,
    ),
    key(
        "--default-chat-template-kwargs",
        "enable_thinking",
        Takes::Switch,
    ),
    key("--default-chat-template-kwargs", "thinking", Takes::Switch),
];

/// Checks that every key of a JSON value that stands at `path` of an argument is
/// harmless in this version.
///
/// # Errors
///
/// Names the first key that is not, and what to do.
pub(in crate::vllm) fn check(
    allowed: &Allowed,
    version: Version,
    flag: &str,
    path: &str,
    value: &Json,
) -> Result<(), String> {
    let Json::Object(map) = value else {
        return leaf(allowed, version, flag, path, value);
    };
    map.iter().try_for_each(|(key, inner)| {
        // A key with a dot would stand for two.
        if key.contains(['.', '+']) || key.is_empty() {
            return Err(unlisted(flag, key));
        }
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        // The path only grows, and none of the list is deeper than this.
        if path.matches('.').count() > 2 {
            return Err(unlisted(flag, &path));
        }
        check(allowed, version, flag, &path, inner)
    })
}

fn leaf(
    allowed: &Allowed,
    version: Version,
    flag: &str,
    path: &str,
    value: &Json,
) -> Result<(), String> {
    let takes = takes(version, flag, path).ok_or_else(|| unlisted(flag, path))?;
    let word = value.as_str();
    let fits = match takes {
        _ if value.is_null() => true,
        Takes::Number => value.is_number(),
        Takes::Switch => value.is_boolean(),
        Takes::Numbers => value
            .as_array()
            .is_some_and(|list| list.iter().all(Json::is_number)),
        Takes::Word(words) => word.is_some_and(|word| words.contains(&word)),
        Takes::Plain => word.is_some_and(is_plain),
        Takes::Model(other) => {
            return match word {
                Some(word) if word == other => Ok(()),
                Some(word) => allowed.model(word),
                None => Err(format!("{path} of {flag} is the name of a model")),
            };
        }
    };
    if fits {
        return Ok(());
    }
    Err(match takes {
        Takes::Number => format!("{path} of {flag} takes a number from an operator"),
        Takes::Switch => format!("{path} of {flag} takes true or false from an operator"),
        Takes::Numbers => format!("{path} of {flag} takes numbers from an operator"),
        Takes::Word(words) => format!(
            "{path} of {flag} takes one of {} from an operator",
            words.join(", ")
        ),
        Takes::Plain | Takes::Model(_) => format!("{path} of {flag} takes one plain word"),
    })
}

/// True if a word is nothing but a word: no path, address or module.
pub(in crate::vllm) fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn takes(version: Version, flag: &str, path: &str) -> Option<Takes> {
    let rope = ROPE_AT.iter().filter(|(at, _)| *at == flag);
    let rope = rope.filter_map(|(_, before)| path.strip_prefix(before));
    for rest in rope {
        if let Some((_, takes)) = ROPE.iter().find(|(name, _)| *name == rest) {
            return Some(*takes);
        }
    }
    let holds = |key: &&Key| key.flag == flag && key.since <= version && version < key.until;
    let fits = |key: &&Key| key.path == path || key.path == "*" && !path.contains('.');
    let found = KEYS.iter().filter(holds).find(fits)?;
    (!path.is_empty()).then_some(found.takes)
}

fn unlisted(flag: &str, path: &str) -> String {
    let what = match path {
        "" => format!("this value of {flag}"),
        path => format!("{path} of {flag}"),
    };
    format!(
        "{what} is for admins: it is not among the keys that are known to lead to no code, file or server; leave it out, or ask an admin"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIRST: Version = Version::new(0, 18, 0);
    const NEWER: Version = Version::new(0, 99, 0);

    #[test]
    fn harmless_keys_pass_and_all_others_are_refused_in_every_version() {
        let allowed = Allowed::default();
        let tried = |flag: &str, value: &Json| {
            [FIRST, Version::new(0, 32, 0), NEWER]
                .map(|version| check(&allowed, version, flag, "", value).is_ok())
        };
        for (flag, value) in [
            (HF, json!({"max_position_embeddings": 8192})),
            (
                HF,
                json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}),
            ),
            (LOADER, json!({"concurrency": 4, "memory_limit": null})),
            (POOLER, json!({"pooling_type": "MEAN"})),
            ("--limit-mm-per-prompt", json!({"image": 4})),
        ] {
            assert_eq!(tried(flag, &value), [true; 3], "{flag} {value}");
        }
        for (flag, value) in [
            (HF, json!({"auto_map": {"AutoConfig": "x.Y"}})),
            (HF, json!({"max_position_embeddings": "/etc"})),
            (HF, json!({"max_position_embeddings": {"factor": 1}})),
            (HF, json!({"rope_parameters.factor": 1})),
            (HF, json!({"rope_parameters": {"rope_type": "x.Y"}})),
            (
                HF,
                json!({"rope_parameters": {"rope_parameters": {"factor": 1}}}),
            ),
            (LOADER, json!({"tensorizer_uri": "s3://x"})),
            (LOADER, json!({"concurrency": [{"module_path": "x"}]})),
            ("--limit-mm-per-prompt", json!({"image": "x"})),
            ("--limit-mm-per-prompt", json!({"": 1})),
            (
                COMPILE,
                json!({"inductor_compile_config": {"cpp.cxx": "/x"}}),
            ),
            (COMPILE, json!({"cache_dir": "/x"})),
            (STRUCTURED, json!({"reasoning_parser_plugin": "/x.py"})),
            (
                "--kv-transfer-config",
                json!({"kv_connector": "P2pNcclConnector"}),
            ),
            ("--no-such-flag", json!({"image": 4})),
            (HF, json!(["x"])),
            (HF, json!("x")),
        ] {
            assert_eq!(tried(flag, &value), [false; 3], "{flag} {value}");
        }
    }

    #[test]
    fn a_key_holds_only_for_the_versions_that_it_is_listed_for() {
        let allowed = Allowed::default();
        let softmax = json!({"softmax": true});
        let tried = |version| check(&allowed, version, POOLER_OLD, "", &softmax).is_ok();
        assert!(tried(Version::new(0, 11, 0)) && !tried(Version::new(0, 15, 0)));
    }

    #[test]
    fn a_deep_value_ends() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({"a": deep});
        }
        check(&Allowed::default(), NEWER, HF, "", &deep).unwrap_err();
    }
}
