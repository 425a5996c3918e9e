//! "General": logging, tokens, memory, and what holds for the whole instance.

use super::since::{V0_9_2, V0_11, V0_15, V0_32};
use crate::vllm::options::row::{
    Form, Group, Home, OptionRow, OptionScope, SetBy, Translation, ValueKind, before, ever, gone,
    gone_but, row, since,
};

const G: Group = Group::General;

pub(super) const ROWS: &[OptionRow] = &[
    row(G, &[(64, "Enable Debug Mode")], "debug", ValueKind::Switch, "true",
        "Logs at the level DEBUG, unless vllm_log_level says otherwise.")
        .owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("it sets VLLM_LOGGING_LEVEL=DEBUG"))]),
    row(G, &[(65, "Use V1 Engine")], "use_v1_engine", ValueKind::TriState, "true",
        "Chooses between vLLM's engines V0 and V1 where both exist.")
        .spans(&[before(V0_15, Form::Env("VLLM_USE_V1")), gone_but(V0_11, V0_15, "V1 is the only engine", "true")]),
    row(G, &[(67, "Disable log requests")], "disable_log_requests", ValueKind::TriState, "true",
        "Keeps requests out of the log. From 0.32.0 on they are logged only if this is set to false.").label("Disable Log Requests")
        .spans(&[before(V0_32, Form::Switch("--disable-log-requests")), since(V0_32, Form::Translated(Translation::LogRequests))]),
    row(G, &[(68, "Disable Async Output Processing")], "disable_async_output_proc", ValueKind::Switch, "true",
        "Handles output in step with the model, which is slower.")
        .spans(&[before(V0_11, Form::Switch("--disable-async-output-proc")),
            gone(V0_9_2, V0_11, "the nearest is async_scheduling = false, in model_overrides")]),
    row(G, &[(69, "HuggingFace Token")], "huggingface_token", ValueKind::Secret, "{\"env\":\"HF_TOKEN\"}",
        "Token for models that need a login: {env = \"NAME\"}, {file = \"PATH\"} or {secret = \"NAME\"}. It goes to the worker's environment, never to its command line or to an export.")
        .spans(&[ever(Form::Env("HF_TOKEN"))]),
    row(G, &[(70, "Max CUDA Memory (GiB)")], "max_cuda_memory", ValueKind::Gibibytes, "80",
        "GPU memory that the worker may count on. What exceeds the real GPU goes to host memory, as cpu_offload_gb does. Needs automatic_cpu_offloading, and amd64.").label("Max CUDA Memory").unit("GiB")
        .owner(SetBy::Lifecycle).home(Home::Options(OptionScope::Instance))
        .spans(&[ever(Form::Tidegate("its surplus over the real GPU becomes --cpu-offload-gb"))]),
    row(G, &[(71, "CUDA Memory Manager Minimum Threshold")], "cuda_memory_manager_min_threshold", ValueKind::Integer { min: -1, max: 1_000_000_000 }, "66000",
        "Largest allocation that stays on the GPU when weights are offloaded. Kept for exchange; it has no effect, as vLLM's sleep mode moves each pool whole.").unit("KB").default("-1 on one GPU, 66000 on several")
        .owner(SetBy::Lifecycle).home(Home::Options(OptionScope::Instance))
        .spans(&[ever(Form::Tidegate("it has no effect: vLLM's sleep mode moves each pool whole"))]),
    row(G, &[(72, "Max Log Length")], "max_log_len", ValueKind::Integer { min: 0, max: 1_000_000_000 }, "200",
        "Characters or token numbers of a prompt that are logged, where requests are logged at all.").default("no limit")
        .spans(&[ever(Form::Value("--max-log-len"))]),
    row(G, &[(73, "Device")], "device", ValueKind::Choice(&["auto", "cuda", "neuron", "cpu", "openvino", "tpu", "xpu", "hpu"]), "\"auto\"",
        "What vLLM runs on.").default("auto")
        .spans(&[before(V0_11, Form::Value("--device")),
            gone_but(V0_9_2, V0_11, "the installed vLLM is built for one device and finds it", "\"auto\"")]),
    row(G, &[(74, "Guided Decoding Backend"), (93, "Guided Decoding Backend")], "guided_decoding_backend",
        ValueKind::Open(&["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"]), "\"xgrammar\"",
        "What keeps answers inside a JSON schema, a regular expression or a grammar.")
        .spans(&[before(V0_15, Form::Value("--guided-decoding-backend")), since(V0_15, Form::Translated(Translation::StructuredOutputs))]),
    row(G, &[(75, "Distributed Executor Backend")], "distributed_executor_backend", ValueKind::Choice(&["mp", "ray", "uni", "external_launcher"]), "\"mp\"",
        "How a model's processes are started: on this machine, or by Ray.")
        .spans(&[ever(Form::Value("--distributed-executor-backend"))]),
    row(G, &[(76, "Config Overrides")], "config_overrides", ValueKind::Json, "{\"disable_log_stats\":true}",
        "As model_overrides, for all deployments of the instance; a deployment's model_overrides win.").label("Config Overrides (JSON)")
        .owner(SetBy::Lifecycle)
        .spans(&[ever(Form::Tidegate("each entry becomes an argument, checked against the version's own list"))]),
    row(G, &[(77, "Uvicorn Log Level")], "uvicorn_log_level", ValueKind::Choice(&["critical", "error", "warning", "info", "debug", "trace"]), "\"warning\"",
        "What vLLM's HTTP server logs.").default("info")
        .spans(&[ever(Form::Value("--uvicorn-log-level"))]),
    row(G, &[(78, "vLLM Log Level")], "vllm_log_level", ValueKind::Choice(&["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]), "\"INFO\"",
        "What vLLM writes to its log.").default("INFO")
        .means(&[("debug", "DEBUG"), ("info", "INFO"), ("warning", "WARNING"), ("error", "ERROR"), ("critical", "CRITICAL")])
        .spans(&[ever(Form::Env("VLLM_LOGGING_LEVEL"))]),
    row(G, &[(79, "Load Format")], "load_format", ValueKind::Open(&["auto", "pt", "safetensors", "npcache", "dummy"]), "\"safetensors\"",
        "Format of the weights; dummy makes random ones.").default("auto").means(&[("Dummy", "dummy")])
        .spans(&[ever(Form::Value("--load-format"))]),
];
