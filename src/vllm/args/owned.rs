//! Arguments that are not the instance's to give.
//!
//! Owned ones are Tidegate's: they decide where the worker listens, who may call
//! it, how many GPUs it takes. Others name code or files, and stand only where the
//! admin allows them. The same rules hold wherever an argument comes from.

/// Owned arguments, and what to do instead. A name that ends with `-` stands for
/// all that begin with it.
const OWNED: &[(&str, &str)] = &[
    ("--allowed-media-domains", "write media in [route]"),
    ("--api-key", LISTENS),
    ("--config", "write its entries as options"),
    ("--data-parallel-", PLACES),
    ("--device-ids", PLACES),
    ("--dp-supervisor-", PLACES),
    (
        "--enable-sleep-mode",
        "set automatic_cpu_offloading or disk_swapping, or levels in [instance.idle]",
    ),
    ("--enable-ssl-refresh", LISTENS),
    ("--grpc", LISTENS),
    ("--grpc-port", LISTENS),
    ("--headless", PLACES),
    ("--help", "it makes vLLM print its help and end"),
    (
        "--hf-token",
        "write huggingface_token: a command line can be read by everyone on the machine",
    ),
    ("--host", LISTENS),
    ("--master-addr", PLACES),
    ("--master-port", PLACES),
    ("--middleware", LISTENS),
    ("--model", "write deployment.model"),
    ("--nnodes", PLACES),
    ("--node-rank", PLACES),
    ("--port", LISTENS),
    ("--prefill-context-parallel-size", PLACES),
    ("--root-path", LISTENS),
    ("--served-model-name", "write deployment.endpoint_name"),
    (
        "--shutdown-timeout",
        "Tidegate drains a worker before it stops it",
    ),
    ("--ssl-", LISTENS),
    (
        "--trust-request-chat-template",
        "write chat_template = true in [route]",
    ),
    ("--uds", LISTENS),
];

const LISTENS: &str = "Tidegate decides where a worker listens and who may call it";
const PLACES: &str = "Tidegate places workers by tensor_parallel_size and pipeline_parallel_size";

/// Reason why an argument is Tidegate's own, and what to do instead; `None` if it is not.
/// `flag` is the long name with its dashes.
pub(super) fn owner(flag: &str) -> Option<&'static str> {
    let matches = |name: &str| match name.strip_suffix('-') {
        Some(_) => flag.starts_with(name),
        None => flag == name,
    };
    OWNED
        .iter()
        .find(|(name, _)| matches(name))
        .map(|(_, instead)| *instead)
}

/// True if an owned argument begins with `prefix`: vLLM takes abbreviations.
pub(super) fn abbreviates_owned(prefix: &str) -> bool {
    OWNED.iter().any(|(name, _)| name.starts_with(prefix))
}

/// Thing that an argument's value leads vLLM to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// A hub name, or a directory.
    Model,
    /// A file or directory that is read, written or served.
    Path,
    /// A template: text, or a path.
    Template,
    /// A Python file that is run.
    Plugin,
    /// Python code by its name.
    Code,
    /// Code of the model.
    RemoteCode,
    /// Adapters with their paths.
    Adapters,
}

const LEADING: &[(&str, Leads)] = &[
    ("--allowed-local-media-path", Leads::Path),
    ("--chat-template", Leads::Template),
    ("--default-mm-loras", Leads::Code),
    ("--download-dir", Leads::Path),
    ("--generation-config", Leads::Model),
    ("--hf-config-path", Leads::Model),
    ("--io-processor-plugin", Leads::Code),
    ("--log-config-file", Leads::Code),
    ("--logging-config", Leads::Code),
    ("--logits-processors", Leads::Code),
    ("--lora-modules", Leads::Adapters),
    ("--mm-encoder-fp8-scale-path", Leads::Path),
    ("--mm-encoder-fp8-scale-save-path", Leads::Path),
    ("--model-class-overrides", Leads::Code),
    ("--profiler-config", Leads::Code),
    ("--prompt-adapters", Leads::Adapters),
    ("--qlora-adapter-name-or-path", Leads::Model),
    ("--reasoning-parser-plugin", Leads::Plugin),
    ("--scheduler-cls", Leads::Code),
    ("--spec-model", Leads::Model),
    ("--speculative-model", Leads::Model),
    ("--tokenizer", Leads::Model),
    ("--tool-parser-plugin", Leads::Plugin),
    ("--tool-server", Leads::Code),
    ("--trust-remote-code", Leads::RemoteCode),
    ("--worker-cls", Leads::Code),
    ("--worker-extension-cls", Leads::Code),
];

/// Thing that an argument leads to; `None` where its value is harmless.
pub(super) fn leads(flag: &str) -> Option<Leads> {
    LEADING
        .iter()
        .find(|(name, _)| *name == flag)
        .map(|(_, leads)| *leads)
}

/// Keys inside JSON arguments that name code to load.
pub(super) const CODE_KEYS: [&str; 13] = [
    "cache_policy_module_path",
    "ec_connector_module_path",
    "encoder_cache_manager_cls",
    "inductor_compile_config",
    "inductor_passes",
    "kv_connector_module_path",
    "logits_processors",
    "module_path",
    "post_grad_custom_post_pass",
    "reasoning_parser_plugin",
    "spec_module_path",
    "worker_cls",
    "worker_extension_cls",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vllm::versions::{Version, VersionArgs};

    #[test]
    fn tables_are_sorted_and_name_real_arguments() {
        assert!(OWNED.is_sorted_by_key(|(name, _)| *name));
        assert!(LEADING.is_sorted_by_key(|(name, _)| *name));
        let versions = [Version::new(0, 7, 2), Version::new(0, 32, 0)];
        let known = versions.map(VersionArgs::built_in);
        let real = |name: &str| {
            known.iter().any(|args| {
                args.iter().any(|arg| match name.strip_suffix('-') {
                    Some(_) => arg.flag().starts_with(name),
                    None => arg.flag() == name,
                })
            })
        };
        for name in OWNED.iter().map(|(name, _)| *name) {
            assert!(real(name), "{name}");
        }
        for name in LEADING.iter().map(|(name, _)| *name) {
            assert!(real(name), "{name}");
        }
    }

    #[test]
    fn owned_flags_are_known_whole_and_by_their_beginning() {
        for flag in [
            "--host",
            "--ssl-keyfile",
            "--ssl-ciphers",
            "--api-key",
            "--data-parallel-size",
        ] {
            assert!(owner(flag).is_some(), "{flag}");
        }
        assert!(owner("--dtype").is_none() && owner("--hf-overrides").is_none());
        assert!(abbreviates_owned("--ser") && abbreviates_owned("--hos"));
        assert!(!abbreviates_owned("--dtyp"));
    }
}
