//! The variables of vLLM's environment that we set or pass on, by their names.

use std::ffi::OsString;

/// Seconds that its listener keeps an idle connection.
pub const KEEP_ALIVE: &str = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE";
/// vLLM 0.32 serves `/sleep` and `/wake_up` only where this is 1.
pub const DEV_MODE: &str = "VLLM_SERVER_DEV_MODE";
/// Has it fetch models from `ModelScope` instead of the hub.
pub const MODELSCOPE: &str = "VLLM_USE_MODELSCOPE";
/// The key that requests must show.
pub const API_KEY: &str = "VLLM_API_KEY";
/// The directory of the sockets between its processes.
pub const RPC_BASE_PATH: &str = "VLLM_RPC_BASE_PATH";
/// Variables for the directories where it keeps what it made.
pub const CACHES: [&str; 4] = [
    "VLLM_ASSETS_CACHE",
    "VLLM_CACHE_ROOT",
    "VLLM_CONFIG_ROOT",
    "VLLM_XLA_CACHE_PATH",
];
/// All that vLLM reads, as a pattern.
pub const ALL: &str = "VLLM_*";

/// True if an environment has it fetch models from `ModelScope`.
pub fn is_modelscope(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable(MODELSCOPE).is_some_and(|value| value != "0" && value != "False")
}
