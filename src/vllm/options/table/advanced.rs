//! "Advanced": scheduling, offloading, and what is rarely touched.

use super::since::{V0_7_2, V0_9_2, V0_11, V0_15};
use crate::vllm::options::row::{
    Form, Group, OptionRow, SetBy, Translation, ValueKind, before, ever, gone, gone_but, row, since,
};

const G: Group = Group::Advanced;

pub(super) const ROWS: &[OptionRow] = &[
    row(G, &[(80, "Skip Tokenizer Init")], "skip_tokenizer_init", ValueKind::Switch, "true",
        "Starts without tokenizer; requests then hold token numbers.")
        .spans(&[ever(Form::Switch("--skip-tokenizer-init"))]),
    row(G, &[(81, "Disable Custom All Reduce")], "disable_custom_all_reduce", ValueKind::Switch, "true",
        "Lets NCCL add up across GPUs instead of vLLM's own kernel.")
        .spans(&[ever(Form::Switch("--disable-custom-all-reduce"))]),
    row(G, &[(82, "Enable Chunk Prefill")], "enable_chunked_prefill", ValueKind::TriState, "false",
        "Splits long prompts, so that they do not hold up others. Unset: vLLM decides; it is on in engine V1.").label("Enable Chunked Prefill")
        .spans(&[before(V0_9_2, Form::BoolValue("--enable-chunked-prefill")), since(V0_9_2, Form::NoSwitch("--enable-chunked-prefill"))]),
    row(G, &[(83, "Disable Logprobs During Spec Decoding")], "disable_logprobs_during_spec_decoding", ValueKind::Switch, "true",
        "Returns no log probabilities while tokens are guessed ahead.")
        .spans(&[before(V0_9_2, Form::BoolValue("--disable-logprobs-during-spec-decoding")), gone(V0_7_2, V0_9_2, "")]),
    row(G, &[(84, "Enable Prompt Adapter")], "enable_prompt_adapter", ValueKind::Switch, "true",
        "Serves prompt adapters.")
        .spans(&[before(V0_11, Form::Switch("--enable-prompt-adapter")), gone(V0_9_2, V0_11, "use LoRA adapters instead")]),
    row(G, &[(85, "Enable Prompt Tokens Details")], "enable_prompt_tokens_details", ValueKind::Switch, "true",
        "Adds prompt_tokens_details to usage: how many of the prompt's tokens came from the cache.")
        .spans(&[ever(Form::Switch("--enable-prompt-tokens-details"))]),
    row(G, &[(86, "Ray Workers Use Nsight")], "ray_workers_use_nsight", ValueKind::Switch, "true",
        "Profiles Ray's workers with Nsight.")
        .spans(&[ever(Form::Switch("--ray-workers-use-nsight"))]),
    row(G, &[(87, "Enable Automatic CPU Offloading")], "automatic_cpu_offloading", ValueKind::Switch, "true",
        "Lets several models share GPUs: the weights of idle ones move to host memory (vLLM's sleep level 1), never elsewhere, and come back with the next request.").label("Enable Automatic CPU Offloading")
        .owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("the worker is put to sleep at level 1 while idle"))]),
    row(G, &[(88, "Enable Disk Swapping")], "disk_swapping", ValueKind::Switch, "true",
        "Lets several models share GPUs: the weights of idle ones are dropped (vLLM's sleep level 2) and read from disk again, never kept in host memory. Not together with automatic_cpu_offloading: levels = [\"cpu\", \"disk\"] of [instance.idle] permits both, and what takes less time is done.")
        .owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("the worker is put to sleep at level 2 while idle"))]),
    row(G, &[(89, "Model Loader Extra Config")], "model_loader_extra_config", ValueKind::Json, "{\"concurrency\":4}",
        "Further settings of the loader that load_format chose.")
        .spans(&[ever(Form::Json("--model-loader-extra-config"))]),
    row(G, &[(90, "Max Prompt Adapter Token")], "max_prompt_adapter_token", ValueKind::Integer { min: 0, max: 1_000_000 }, "16",
        "Most tokens of a prompt adapter.").unit("tokens").default("0")
        .spans(&[before(V0_11, Form::Value("--max-prompt-adapter-token")), gone_but(V0_9_2, V0_11, "use LoRA adapters instead", "0")]),
    row(G, &[(91, "HF Overrides")], "hf_overrides", ValueKind::Json, "{\"max_position_embeddings\":8192}",
        "Keys that replace those of the model's config.")
        .spans(&[ever(Form::Json("--hf-overrides"))]),
    row(G, &[(92, "Ignore Patterns")], "ignore_patterns", ValueKind::List, "[\"original/**/*\"]",
        "Files of the model that are not loaded.")
        .spans(&[before(V0_9_2, Form::Append("--ignore-patterns")), since(V0_9_2, Form::List("--ignore-patterns"))]),
    row(G, &[(94, "Ngram Prompt Lookup Max")], "ngram_prompt_lookup_max", ValueKind::Integer { min: 1, max: 1_000 }, "4",
        "Longest run of tokens that is looked up in the prompt; with speculative_model = \"[ngram]\".").unit("tokens")
        .spans(&[before(V0_9_2, Form::Value("--ngram-prompt-lookup-max")), since(V0_9_2, Form::Translated(Translation::Speculative("prompt_lookup_max")))]),
    row(G, &[(95, "Ngram Prompt Lookup Min")], "ngram_prompt_lookup_min", ValueKind::Integer { min: 1, max: 1_000 }, "2",
        "Shortest run of tokens that is looked up in the prompt; with speculative_model = \"[ngram]\".").unit("tokens")
        .spans(&[before(V0_9_2, Form::Value("--ngram-prompt-lookup-min")), since(V0_9_2, Form::Translated(Translation::Speculative("prompt_lookup_min")))]),
    row(G, &[(96, "Num GPU Blocks Override")], "num_gpu_blocks_override", ValueKind::Integer { min: 1, max: 1_000_000_000 }, "1024",
        "Blocks of the key-value cache, instead of as many as fit.")
        .spans(&[ever(Form::Value("--num-gpu-blocks-override"))]),
    row(G, &[(97, "Num Scheduler Steps")], "num_scheduler_steps", ValueKind::Integer { min: 1, max: 1_000 }, "1",
        "Steps of the model for each call of the scheduler.").default("1")
        .spans(&[before(V0_11, Form::Value("--num-scheduler-steps")),
            gone_but(V0_9_2, V0_11, "the nearest is async_scheduling, in model_overrides", "1")]),
    row(G, &[(98, "Override Pooler Config")], "override_pooler_config", ValueKind::Json, "{\"pooling_type\":\"MEAN\"}",
        "How embedding models pool.")
        .spans(&[before(V0_15, Form::Json("--override-pooler-config")), since(V0_15, Form::Json("--pooler-config"))]),
    row(G, &[(99, "Preemption Mode")], "preemption_mode", ValueKind::Choice(&["recompute", "swap"]), "\"recompute\"",
        "Whether a preempted sequence is computed again or swapped to host memory.")
        .spans(&[before(V0_11, Form::Value("--preemption-mode")), gone_but(V0_9_2, V0_11, "engine V1 always recomputes", "\"recompute\"")]),
    row(G, &[(100, "Return Tokens As Token IDs")], "return_tokens_as_token_ids", ValueKind::Switch, "true",
        "Writes tokens as token_id:N where log probabilities are returned.")
        .spans(&[ever(Form::Switch("--return-tokens-as-token-ids"))]),
    row(G, &[(101, "Scheduler Delay Factor")], "scheduler_delay_factor", ValueKind::Float { min: 0.0, max: 1_000.0 }, "0.0",
        "Waits this many times the latency of the last prompt before the next is scheduled.").default("0")
        .spans(&[before(V0_11, Form::Value("--scheduler-delay-factor")), gone_but(V0_9_2, V0_11, "", "0.0")]),
    row(G, &[(102, "Scheduling Policy")], "scheduling_policy", ValueKind::Choice(&["fcfs", "priority"]), "\"priority\"",
        "The order of requests: as they came, or by their `priority` first.").default("fcfs")
        .spans(&[ever(Form::Value("--scheduling-policy"))]),
    row(G, &[(103, "Task")], "task", ValueKind::Open(&["auto", "generate", "embedding", "embed", "classify", "score", "reward"]), "\"embedding\"",
        "What the model is used for, where it can do several things.").default("auto")
        .spans(&[before(V0_15, Form::Value("--task")), since(V0_15, Form::Translated(Translation::Runner))]),
    row(G, &[(104, "Tokenizer Pool Extra Config")], "tokenizer_pool_extra_config", ValueKind::Json, "{\"num_cpus\":1}",
        "Further settings of the tokenizer pool.")
        .spans(&[before(V0_11, Form::Json("--tokenizer-pool-extra-config")), gone(V0_9_2, V0_11, "")]),
    row(G, &[(105, "Tokenizer Pool Size")], "tokenizer_pool_size", ValueKind::Integer { min: 0, max: 1_000 }, "0",
        "Tokenizers that work beside the server; 0 for none.").default("0")
        .spans(&[before(V0_11, Form::Value("--tokenizer-pool-size")),
            gone_but(V0_9_2, V0_11, "the nearest is renderer_num_workers, in model_overrides", "0")]),
    row(G, &[(106, "Tokenizer Pool Type")], "tokenizer_pool_type", ValueKind::Open(&["ray"]), "\"ray\"",
        "What runs the tokenizer pool.").default("ray")
        .spans(&[before(V0_11, Form::Value("--tokenizer-pool-type")), gone(V0_9_2, V0_11, "")]),
    row(G, &[(107, "Typical Acceptance Sampler Posterior Threshold")], "typical_acceptance_sampler_posterior_threshold", ValueKind::Float { min: 0.0, max: 1.0 }, "0.09",
        "Probability below which typical acceptance refuses a guessed token.")
        .spans(&[before(V0_9_2, Form::Value("--typical-acceptance-sampler-posterior-threshold")), gone(V0_7_2, V0_9_2, "")]),
];
