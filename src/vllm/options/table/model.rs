//! "Model Configuration": how one model is run.

use super::since::{V0_9_2, V0_11, V0_15, V0_18};
use crate::vllm::options::row::{
    Form, Group, Home, OptionRow, OptionScope, SetBy, Translation, ValueKind, Versions, before,
    ever, gone, gone_but, row, since,
};

const G: Group = Group::Model;
/// A count that must be at least one; the upper bound only catches slips.
const COUNT: ValueKind = ValueKind::Integer {
    min: 1,
    max: 1_000_000,
};
const GATEWAY: &[Versions] = &[ever(Form::Tidegate("the gateway acts on it"))];
const ONE_DEPLOYMENT: Home = Home::Options(OptionScope::Deployment);
const ROPE: [Versions; 1] = [since(V0_15, Form::Translated(Translation::Rope))];

pub(super) const ROWS: &[OptionRow] = &[
    row(G, &[(6, "Trust Remote Code"), (66, "Trust Remote Code")], "trust_remote_code", ValueKind::Switch, "true",
        "Runs Python code that comes with the model. Only where the admin allows it.")
        .spans(&[ever(Form::Switch("--trust-remote-code"))]),
    row(G, &[(7, "CLI")], "cli", ValueKind::CommandLine, "\"--enforce-eager --max-model-len 4096\"",
        "Raw vLLM arguments. Where set, they and the model are all that vLLM gets: other options that would become arguments are left out. Arguments that are Tidegate's own, as --host, are refused.")
        .home(ONE_DEPLOYMENT).owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("it takes the place of the other options' arguments"))]),
    row(G, &[(8, "Enforce Eager")], "enforce_eager", ValueKind::Switch, "true",
        "Runs PyTorch eagerly, without CUDA graphs: starts faster, answers slower.")
        .spans(&[ever(Form::Switch("--enforce-eager"))]),
    row(G, &[(9, "Enable Automatic Prefix Caching")], "enable_prefix_caching", ValueKind::TriState, "false",
        "Keeps the key-value pairs of prompt prefixes, for requests that begin alike. Unset: on where the model supports it.")
        .spans(&[ever(Form::NoSwitch("--enable-prefix-caching"))]),
    row(G, &[(10, "Disable Sliding Window")], "disable_sliding_window", ValueKind::Switch, "true",
        "Gives up the model's sliding window and limits the context to the window's size.")
        .spans(&[ever(Form::Switch("--disable-sliding-window"))]),
    row(G, &[(11, "Enable Reasoning")], "enable_reasoning", ValueKind::Switch, "true",
        "Returns the model's reasoning apart from its answer. Needs reasoning_parser; later versions need only that.")
        .spans(&[before(V0_11, Form::Switch("--enable-reasoning")), since(V0_11, Form::Translated(Translation::Reasoning))]),
    row(G, &[(12, "Enable Auto Tool Choice")], "enable_auto_tool_choice", ValueKind::Switch, "true",
        "Lets the model choose tools by itself. Needs tool_call_parser.")
        .spans(&[ever(Form::Switch("--enable-auto-tool-choice"))]),
    row(G, &[(13, "Model")], "model", ValueKind::Text, "\"Qwen/Qwen3-8B\"",
        "The model: a name on the Hugging Face hub, or a directory that the admin allows.")
        .home(Home::Key("deployment.model"))
        .spans(&[ever(Form::Tidegate("it is vLLM's first argument"))]),
    row(G, &[(14, "Model Endpoint Name")], "endpoint_name", ValueKind::Text, "\"qwen3-8b\"",
        "The name that clients write in `model`. Unset: the model's name.")
        .home(Home::Key("deployment.endpoint_name")).owner(SetBy::Gateway)
        .spans(&[ever(Form::Tidegate("it becomes --served-model-name, and the gateway routes by it"))]),
    row(G, &[(15, "Multimedia Limit per Prompt")], "limit_mm_per_prompt", ValueKind::Counts, "\"image=16,video=2\"",
        "How many images, videos and so on one prompt may hold.")
        .default("1 of each up to 0.7.2, 999 of each in 0.32.0")
        .spans(&[before(V0_9_2, Form::Counts("--limit-mm-per-prompt")), since(V0_9_2, Form::Json("--limit-mm-per-prompt"))]),
    row(G, &[(16, "Max Context Length")], "max_model_len", ValueKind::Tokens, "4096",
        "Longest context: prompt and answer together. Unset: what the model's config says.").unit("tokens")
        .spans(&[ever(Form::Value("--max-model-len"))]),
    row(G, &[(17, "Max Number of Sequences per iteration")], "max_num_seqs", COUNT, "64",
        "Most sequences that are processed in one step.")
        .spans(&[ever(Form::Value("--max-num-seqs"))]),
    row(G, &[(18, "Speculative Draft Tensor Parallel Size")], "max_seq_len_to_capture", ValueKind::Integer { min: 1, max: 100_000_000 }, "8192",
        "Longest sequence that CUDA graphs cover; longer ones run eagerly.").label("Max Sequence Length to Capture")
        .unit("tokens").default("8192")
        .spans(&[before(V0_11, Form::Value("--max-seq-len-to-capture")),
            gone(V0_9_2, V0_11, "it captures by batch, not by sequence: see max_cudagraph_capture_size, in model_overrides")]),
    row(G, &[(19, "Tool Call Parser")], "tool_call_parser",
        ValueKind::Open(&["hermes", "mistral", "llama3_json", "llama4_pythonic", "pythonic", "granite", "internlm", "jamba", "deepseek_v3", "qwen3_coder", "kimi_k2", "openai"]), "\"hermes\"",
        "How the model's text becomes tool calls. Used with enable_auto_tool_choice.")
        .spans(&[ever(Form::Value("--tool-call-parser"))]),
    row(G, &[(20, "Tool Parser plugin")], "tool_parser_plugin", ValueKind::Text, "\"/srv/plugins/tools.py\"",
        "A Python file that registers further tool parsers. It runs inside the worker, so only files that the admin allows.").label("Tool Parser Plugin")
        .spans(&[ever(Form::Value("--tool-parser-plugin"))]),
    row(G, &[(21, "Max Num Batched Tokens")], "max_num_batched_tokens", ValueKind::Integer { min: 1, max: 100_000_000 }, "8192",
        "Most tokens that are processed in one step.").unit("tokens")
        .spans(&[ever(Form::Value("--max-num-batched-tokens"))]),
    row(G, &[(22, "Reasoning Parser")], "reasoning_parser",
        ValueKind::Open(&["deepseek_r1", "qwen3", "granite", "mistral", "glm45", "hunyuan_a13b", "openai_gptoss"]), "\"deepseek_r1\"",
        "How reasoning is told apart from the answer. Depends on the model.")
        .spans(&[ever(Form::Value("--reasoning-parser"))]),
    row(G, &[(23, "Model Implementation")], "model_impl", ValueKind::Open(&["auto", "vllm", "transformers"]), "\"vllm\"",
        "Which implementation of the model runs: vLLM's own, that of Transformers, or vLLM's where there is one.").default("auto")
        .spans(&[ever(Form::Value("--model-impl"))]),
    row(G, &[(24, "GPU Memory Utilization")], "gpu_memory_utilization", ValueKind::Float { min: 0.01, max: 1.0 }, "0.45",
        "Share of each GPU's memory that the worker takes, for weights and cache together.").default("0.9 in 0.7.2, 0.92 in 0.32.0")
        .spans(&[ever(Form::Value("--gpu-memory-utilization"))]),
    row(G, &[(25, "GPUs (Tensor Parallel Size)")], "tensor_parallel_size", ValueKind::Integer { min: 1, max: 1024 }, "2",
        "GPUs that each layer is split over. Together with pipeline_parallel_size it is the number of GPUs that the worker leases.").default("1")
        .spans(&[ever(Form::Value("--tensor-parallel-size"))]),
    row(G, &[(26, "Swap Space")], "swap_space", ValueKind::Gibibytes, "4",
        "Host memory per GPU for sequences that were preempted.").unit("GiB").default("4")
        .spans(&[before(V0_18, Form::Value("--swap-space")),
            gone_but(V0_15, V0_18, "the nearest is KV offloading: kv_offloading_size, in model_overrides", "0.0")]),
    row(G, &[(27, "CPU Offload GiB")], "cpu_offload_gb", ValueKind::Gibibytes, "10",
        "Part of the weights that stays in host memory, for each GPU: a larger GPU in effect, and a slower one.").unit("GiB").default("0")
        .spans(&[ever(Form::Value("--cpu-offload-gb"))]),
    row(G, &[(28, "Quantization")], "quantization",
        ValueKind::Open(&["awq", "awq_marlin", "bitsandbytes", "compressed-tensors", "fp8", "gguf", "gptq", "gptq_marlin", "modelopt"]), "\"fp8\"",
        "How the weights are quantized. Unset: what the model's config says, else not at all.")
        .spans(&[ever(Form::Value("--quantization"))]),
    row(G, &[(29, "Dtype")], "dtype", ValueKind::Choice(&["auto", "half", "float16", "bfloat16", "float", "float32"]), "\"bfloat16\"",
        "Data type of weights and activations.").default("auto")
        .spans(&[ever(Form::Value("--dtype"))]),
    row(G, &[(30, "KV Cache Dtype")], "kv_cache_dtype", ValueKind::Open(&["auto", "fp8", "fp8_e5m2", "fp8_e4m3"]), "\"fp8_e5m2\"",
        "Data type of the key-value cache.").default("auto").means(&[("ffp8_e5m2", "fp8_e5m2")])
        .spans(&[ever(Form::Value("--kv-cache-dtype"))]),
    row(G, &[(31, "Pipeline Parallel Size")], "pipeline_parallel_size", ValueKind::Integer { min: 1, max: 1024 }, "1",
        "Stages that the layers are spread over, each on GPUs of its own.").default("1")
        .spans(&[ever(Form::Value("--pipeline-parallel-size"))]),
    row(G, &[(32, "Token Block Size")], "block_size", ValueKind::Integer { min: 1, max: 65_536 }, "16",
        "Tokens in one block of the key-value cache.").unit("tokens")
        .spans(&[ever(Form::Value("--block-size"))]),
    row(G, &[(33, "Random Seed")], "seed", ValueKind::Integer { min: 0, max: 4_294_967_295 }, "7",
        "Seed of the random numbers.").default("0")
        .spans(&[ever(Form::Value("--seed"))]),
    row(G, &[(34, "Max Logprobs")], "max_logprobs", ValueKind::Integer { min: -1, max: 1_000_000 }, "20",
        "Most log probabilities that a request may ask for; -1 for no limit, in versions that know it.").default("20")
        .spans(&[ever(Form::Value("--max-logprobs"))]),
    row(G, &[(35, "Max Concurrent Requests")], "max_concurrent_requests", COUNT, "64",
        "Requests that this deployment serves at once. A further one is denied at once instead of being kept waiting.")
        .home(Home::Key("deployment.max_concurrent_requests")).owner(SetBy::Gateway).spans(GATEWAY),
    row(G, &[(36, "RoPE Theta")], "rope_theta", ValueKind::Float { min: 1.0, max: 1e15 }, "10000.0",
        "Base of the rotary position embedding. Used with rope_scaling.")
        .spans(&[before(V0_15, Form::Value("--rope-theta")), ROPE[0]]),
    row(G, &[(37, "RoPE Scaling")], "rope_scaling", ValueKind::Json, "{\"rope_type\":\"dynamic\",\"factor\":2.0}",
        "How the rotary position embedding is stretched. From 0.15.0 on it is given together with rope_theta.")
        .spans(&[before(V0_15, Form::Json("--rope-scaling")), ROPE[0]]),
    row(G, &[(38, "Revision")], "revision", ValueKind::Text, "\"refs/pr/2\"",
        "Branch, tag or commit of the model on the hub.").home(ONE_DEPLOYMENT)
        .spans(&[ever(Form::Value("--revision"))]),
    row(G, &[(39, "Code Revision")], "code_revision", ValueKind::Text, "\"main\"",
        "Branch, tag or commit of the model's code on the hub.").home(ONE_DEPLOYMENT)
        .spans(&[ever(Form::Value("--code-revision"))]),
    row(G, &[(40, "Tokenizer")], "tokenizer", ValueKind::Text, "\"Qwen/Qwen3-8B\"",
        "The tokenizer: a name on the hub, or a directory that the admin allows. Unset: the model's.").home(ONE_DEPLOYMENT)
        .spans(&[ever(Form::Value("--tokenizer"))]),
    row(G, &[(41, "Tokenizer Revision")], "tokenizer_revision", ValueKind::Text, "\"main\"",
        "Branch, tag or commit of the tokenizer on the hub.").home(ONE_DEPLOYMENT)
        .spans(&[ever(Form::Value("--tokenizer-revision"))]),
    row(G, &[(42, "Tokenizer Mode")], "tokenizer_mode", ValueKind::Open(&["auto", "slow", "mistral"]), "\"slow\"",
        "Whether the fast tokenizer may be used.").default("auto")
        .spans(&[ever(Form::Value("--tokenizer-mode"))]),
    row(G, &[(52, "Num Lookahead Slots")], "num_lookahead_slots", ValueKind::Integer { min: 0, max: 1_000_000 }, "4",
        "Slots kept free for speculative tokens.").default("0")
        .spans(&[before(V0_15, Form::Value("--num-lookahead-slots")),
            gone_but(V0_11, V0_15, "it follows from the speculative options", "0")]),
    row(G, &[(53, "Model Overrides")], "model_overrides", ValueKind::Json, "{\"max_parallel_loading_workers\":2}",
        "Any other vLLM option by its name, as `max_parallel_loading_workers = 2`; true sets a flag, false its --no- form. Wins over the options above.")
        .owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("each entry becomes an argument, checked against the version's own list"))]),
];
