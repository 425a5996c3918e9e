//! "Speculative decoding": a draft model guesses, the model checks.
//!
//! From 0.9.2 on these are keys of one JSON argument.

use super::since::{V0_7_2, V0_9_2};
use crate::vllm::options::row::{
    Form, Group, OptionRow, SetBy, Translation, ValueKind, Versions, before, ever, gone, gone_but,
    row, since,
};

const G: Group = Group::Speculative;

const fn key(name: &'static str) -> Versions {
    since(V0_9_2, Form::Translated(Translation::Speculative(name)))
}

pub(super) const ROWS: &[OptionRow] = &[
    row(G, &[(43, "Speculative decoding")], "speculative_decoding", ValueKind::TriState, "true",
        "Turns the options of this group on or off together. Unset: on as soon as one of them is set.").label("Speculative Decoding")
        .owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("off keeps the group's options from vLLM"))]),
    row(G, &[(44, "Speculative model")], "speculative_model", ValueKind::Text, "\"Qwen/Qwen3-0.6B\"",
        "The draft model: a name on the hub, a directory that the admin allows, or [ngram] to guess from the prompt.").label("Speculative Model")
        .spans(&[before(V0_9_2, Form::Value("--speculative-model")), key("model")]),
    row(G, &[(45, "Speculative Disable MQA Scorer")], "speculative_disable_mqa_scorer", ValueKind::Switch, "true",
        "Scores guesses without the multi-query kernel.")
        .spans(&[before(V0_9_2, Form::Switch("--speculative-disable-mqa-scorer")), gone(V0_7_2, V0_9_2, "")]),
    row(G, &[(46, "Speculative Decoding Acceptance Method")], "spec_decoding_acceptance_method",
        ValueKind::Choice(&["rejection_sampler", "typical_acceptance_sampler"]), "\"rejection_sampler\"",
        "How guesses are accepted: exactly, or more often at some cost in quality.").default("rejection_sampler")
        .means(&[("RejectionSampler", "rejection_sampler"), ("TypicalAcceptanceSampler", "typical_acceptance_sampler")])
        .spans(&[before(V0_9_2, Form::Value("--spec-decoding-acceptance-method")),
            gone_but(V0_7_2, V0_9_2, "guesses are accepted by rejection sampling", "\"rejection_sampler\"")]),
    row(G, &[(47, "Num Speculative Tokens")], "num_speculative_tokens", ValueKind::Integer { min: 1, max: 1_000 }, "5",
        "Tokens that are guessed ahead.").unit("tokens")
        .spans(&[before(V0_9_2, Form::Value("--num-speculative-tokens")), key("num_speculative_tokens")]),
    row(G, &[(48, "Speculative Disable By Batch Size")], "speculative_disable_by_batch_size", ValueKind::Integer { min: 2, max: 1_000_000 }, "32",
        "Requests in the queue from which on new ones are served without guessing.")
        .spans(&[before(V0_9_2, Form::Value("--speculative-disable-by-batch-size")),
            gone(V0_7_2, V0_9_2, "the nearest in 0.32.0 is num_speculative_tokens_per_batch_size in speculative_config, in model_overrides")]),
    row(G, &[(49, "Speculative Draft Tensor Parallel Size")], "speculative_draft_tensor_parallel_size", ValueKind::Integer { min: 1, max: 1024 }, "1",
        "GPUs that the draft model is split over.")
        .spans(&[before(V0_9_2, Form::Value("--speculative-draft-tensor-parallel-size")), key("draft_tensor_parallel_size")]),
    row(G, &[(50, "Speculative Max Model Len")], "speculative_max_model_len", ValueKind::Integer { min: 1, max: 100_000_000 }, "2048",
        "Longest sequence that the draft model guesses for.").unit("tokens")
        .spans(&[before(V0_9_2, Form::Value("--speculative-max-model-len")), key("max_model_len")]),
    row(G, &[(51, "Speculative Model Quantization")], "speculative_model_quantization",
        ValueKind::Open(&["awq", "bitsandbytes", "compressed-tensors", "fp8", "gguf", "gptq"]), "\"fp8\"",
        "How the draft model's weights are quantized. Unset: what its config says.")
        .spans(&[before(V0_9_2, Form::Value("--speculative-model-quantization")), key("quantization")]),
];
