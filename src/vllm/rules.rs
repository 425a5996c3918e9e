//! Rules across options, and what the admin and the machine allow.
//!
//! Pure functions over an [`OptionSet`]: nothing here looks at a disk, a GPU or
//! the network. Paths are judged by their text, so the admin's directories should
//! be ones that only the admin writes to.

mod allowed;
mod harmless;
mod slept;

pub use allowed::{Allowed, FLOOR, FLOOR_REASON, Named, Operator, is_path};
pub(super) use harmless::{check as harmless, is_plain};
pub use slept::{Sleeper, warnings};

use crate::vllm::options::{OptionError, OptionSet};

/// Facts about the worker's machine that options depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// GPUs of the queue; `None` where it has none or they are not known yet.
    pub gpus: Option<u32>,
    /// Memory of its smallest GPU, in bytes.
    pub gpu_memory: Option<u64>,
    /// True if its processors are amd64.
    pub amd64: bool,
}

impl Hardware {
    /// Memory of the smallest GPU, in GiB.
    pub(super) fn gpu_gib(self) -> Option<f64> {
        let bytes = self.gpu_memory.filter(|bytes| *bytes > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
        let bytes = bytes as f64;
        Some(bytes / 1_073_741_824.0)
    }

    /// Checks that so many GPUs fit the queue.
    ///
    /// # Errors
    ///
    /// Names both sizes.
    pub fn fits(self, wanted: u64) -> Result<(), OptionError> {
        match self.gpus {
            Some(gpus) if wanted > u64::from(gpus) => Err(OptionError::new(
                "tensor_parallel_size",
                format!(
                    "tensor_parallel_size times pipeline_parallel_size is {wanted}, and the queue has {gpus} GPUs"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Errors of options that the platform refuses.
    pub fn platform(self, options: &OptionSet) -> Vec<OptionError> {
        if options.contains("max_cuda_memory") && !self.amd64 {
            return vec![OptionError::new(
                "max_cuda_memory",
                "max_cuda_memory works only on amd64; leave it out on this machine",
            )];
        }
        Vec::new()
    }
}

/// An option that needs another to be set.
struct Needs {
    option: &'static str,
    other: &'static str,
    why: &'static str,
}

const fn needs(option: &'static str, other: &'static str, why: &'static str) -> Needs {
    Needs { option, other, why }
}

const LORA: &str = "adapters are not served without it";
const DRAFT: &str = "nothing is guessed without a draft model";

/// Options that have no meaning without another. A switch counts when it is on.
const NEEDS: &[Needs] = &[
    needs(
        "enable_auto_tool_choice",
        "tool_call_parser",
        "vLLM refuses to start without a parser",
    ),
    needs(
        "tool_parser_plugin",
        "tool_call_parser",
        "the plugin's parser is chosen there",
    ),
    needs(
        "enable_reasoning",
        "reasoning_parser",
        "vLLM refuses to start without a parser",
    ),
    needs("lora_modules", "enable_lora", LORA),
    needs("max_loras", "enable_lora", LORA),
    needs("long_lora_scaling_factors", "enable_lora", LORA),
    needs("max_lora_rank", "enable_lora", LORA),
    needs("lora_extra_vocab_size", "enable_lora", LORA),
    needs("lora_dtype", "enable_lora", LORA),
    needs("max_cpu_loras", "enable_lora", LORA),
    needs("enable_lora_bias", "enable_lora", LORA),
    needs("fully_sharded_loras", "enable_lora", LORA),
    needs(
        "max_cuda_memory",
        "automatic_cpu_offloading",
        "what exceeds the GPU is offloaded to host memory",
    ),
    needs(
        "cuda_memory_manager_min_threshold",
        "automatic_cpu_offloading",
        "it says what is offloaded",
    ),
    needs(
        "max_prompt_adapter_token",
        "enable_prompt_adapter",
        "prompt adapters are not served without it",
    ),
    needs("speculative_decoding", "speculative_model", DRAFT),
    needs("speculative_disable_mqa_scorer", "speculative_model", DRAFT),
    needs(
        "spec_decoding_acceptance_method",
        "speculative_model",
        DRAFT,
    ),
    needs("num_speculative_tokens", "speculative_model", DRAFT),
    needs(
        "speculative_disable_by_batch_size",
        "speculative_model",
        DRAFT,
    ),
    needs(
        "speculative_draft_tensor_parallel_size",
        "speculative_model",
        DRAFT,
    ),
    needs("speculative_max_model_len", "speculative_model", DRAFT),
    needs("speculative_model_quantization", "speculative_model", DRAFT),
    needs("ngram_prompt_lookup_max", "speculative_model", DRAFT),
    needs("ngram_prompt_lookup_min", "speculative_model", DRAFT),
    needs(
        "tokenizer_revision",
        "tokenizer",
        "without a tokenizer of its own, revision holds for both",
    ),
];

/// The option that another has no meaning without.
pub fn needed_by(option: &str) -> Option<&'static str> {
    NEEDS
        .iter()
        .find(|rule| rule.option == option)
        .map(|rule| rule.other)
}

/// Checks options against each other. With `cli` set, only those that still count.
pub fn across(options: &OptionSet) -> Vec<OptionError> {
    let mut errors = Vec::new();
    if options.is_on("automatic_cpu_offloading") && options.is_on("disk_swapping") {
        errors.push(OptionError::new(
            "disk_swapping",
            "disk_swapping and automatic_cpu_offloading permit one level each: turn one off, or turn both off and set levels = [\"cpu\", \"disk\"] in [instance.idle]",
        ));
    }
    let raw = options.contains("cli");
    let speculative_off = options.get_bool("speculative_decoding") == Some(false);
    for rule in NEEDS {
        let lifecycle = rule.other == "automatic_cpu_offloading";
        let off = rule.other == "speculative_model" && speculative_off;
        if is_set(options, rule.option)
            && !is_set(options, rule.other)
            && !off
            && (!raw || lifecycle)
        {
            errors.push(OptionError::new(
                rule.option,
                format!("{} needs {}: {}", rule.option, rule.other, rule.why),
            ));
        }
    }
    if !raw {
        ordered(options, &mut errors);
    }
    errors
}

/// True if an option is set, and on if it is a switch.
fn is_set(options: &OptionSet, name: &str) -> bool {
    options.contains(name) && options.get_bool(name) != Some(false)
}

/// Rules that compare two numbers, or name two ways to say one thing.
fn ordered(options: &OptionSet, errors: &mut Vec<OptionError>) {
    let number = |name| options.get_integer(name);
    let mut at_least = |larger: &'static str, smaller: &'static str| {
        if let (Some(a), Some(b)) = (number(larger), number(smaller))
            && a < b
        {
            let message = format!("{larger} is {a}, and must be at least {smaller}, which is {b}");
            errors.push(OptionError::new(larger, message));
        }
    };
    at_least("max_cpu_loras", "max_num_seqs");
    at_least("max_cpu_loras", "max_loras");
    at_least("ngram_prompt_lookup_max", "ngram_prompt_lookup_min");
    if options.contains("max_cuda_memory")
        && options
            .get_float("cpu_offload_gb")
            .is_some_and(|gib| gib > 0.0)
    {
        errors.push(OptionError::new(
            "cpu_offload_gb",
            "cpu_offload_gb and max_cuda_memory say the same in two ways: keep one",
        ));
    }
    let ngram = options.get_text("speculative_model") == Some("[ngram]");
    for name in ["ngram_prompt_lookup_max", "ngram_prompt_lookup_min"] {
        if options.contains(name) && options.contains("speculative_model") && !ngram {
            let message = format!(
                "{name} needs speculative_model = \"[ngram]\": a draft model looks nothing up"
            );
            errors.push(OptionError::new(name, message));
        }
    }
}

#[cfg(test)]
mod tests;
