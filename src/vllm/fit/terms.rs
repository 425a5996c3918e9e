//! Demands of a command line on memory: how the model is split, stored and bounded.

use crate::units::of_gibibytes;
use crate::vllm::args::flags;
use crate::vllm::options::scaled;
use crate::vllm::versions::Version;

/// Packing of weights while they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoad {
    /// Into 8 bits.
    Byte,
    /// Into 4 bits.
    Nibble,
}

/// The longest context that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// As the model's config says.
    #[default]
    Config,
    /// As much as fits.
    Fitting,
    /// So many tokens.
    Tokens(u64),
}

/// Terms that are asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitTerms {
    /// GPUs that share each layer.
    pub tensor_parallel: u64,
    /// Stages that the layers are spread over.
    pub pipeline_parallel: u64,
    /// Bytes of an element; `None`: the model's own.
    pub element: Option<u64>,
    /// Packing of weights that are not packed.
    pub on_load: Option<OnLoad>,
    /// Bytes of an element of the cache; `None`: as the model's.
    pub cache_element: Option<u64>,
    /// Share of each GPU's memory.
    pub utilization: f64,
    /// The longest context.
    pub length: Length,
    /// Most requests in one step.
    pub requests: Option<u64>,
    /// Most tokens in one step.
    pub tokens: Option<u64>,
    /// Bytes of weights that stay in host memory, for each GPU.
    pub cpu_offload: u64,
    /// True without graphs.
    pub eager: bool,
    /// True where windows are given up.
    pub no_window: bool,
}

/// Flags with which memory is taken in ways that have no estimate here.
const BEYOND: [&str; 11] = [
    "--data-parallel-size",
    "--decode-context-parallel-size",
    "--prefill-context-parallel-size",
    "--enable-lora",
    "--hf-overrides",
    "--kv-cache-memory-bytes",
    "--load-format",
    "--num-gpu-blocks-override",
    "--speculative-config",
    "--speculative-model",
    "--config",
];

impl FitTerms {
    /// Reads the words after the program's name, as that version understands them.
    ///
    /// # Errors
    ///
    /// Fails with what has no estimate, in a sentence without its subject.
    pub fn read(argv: &[String], version: Version) -> Result<Self, String> {
        let mut terms = Self {
            tensor_parallel: 1,
            pipeline_parallel: 1,
            utilization: version.memory_share(),
            ..Self::default()
        };
        let is_set = |flag: &str| flag.starts_with('-') && !flag.starts_with("--no-");
        for (flag, value) in flags(argv).filter(|(flag, _)| is_set(flag)) {
            // Its letters as vLLM writes them.
            terms.take(&flag.replace('_', "-"), value.unwrap_or_default())?;
        }
        Ok(terms)
    }

    fn take(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let whole = || value.parse::<u64>().map_err(|_| unknown(flag, value));
        let count = || whole().map(|count| count.clamp(1, 1 << 32));
        match flag {
            "--tensor-parallel-size" | "-tp" => self.tensor_parallel = count()?,
            "--pipeline-parallel-size" | "-pp" => self.pipeline_parallel = count()?,
            "--gpu-memory-utilization" => {
                let share = value.parse::<f64>().ok();
                let share = share.filter(|share| (0.0..=1.0).contains(share));
                self.utilization = share.ok_or_else(|| unknown(flag, value))?;
            }
            "--max-model-len" => self.length = length(value)?,
            "--max-num-seqs" => self.requests = Some(count()?),
            "--max-num-batched-tokens" => {
                let tokens = scaled(value).and_then(|tokens| u64::try_from(tokens).ok());
                self.tokens = Some(tokens.ok_or_else(|| unknown(flag, value))?);
            }
            "--dtype" => {
                self.element = match value {
                    "auto" => None,
                    "float" | "float32" => Some(4),
                    "half" | "float16" | "bfloat16" => Some(2),
                    _ => return Err(unknown(flag, value)),
                }
            }
            "--kv-cache-dtype" => {
                self.cache_element = match value {
                    "auto" => None,
                    "bfloat16" | "float16" => Some(2),
                    fp8 if fp8.starts_with("fp8") => Some(1),
                    _ => return Err(unknown(flag, value)),
                }
            }
            "--quantization" | "-q" => {
                self.on_load = match value {
                    "fp8" | "fbgemm_fp8" | "experts_int8" => Some(OnLoad::Byte),
                    "bitsandbytes" => Some(OnLoad::Nibble),
                    // The others tell how a checkpoint is packed already.
                    _ => None,
                }
            }
            "--cpu-offload-gb" => {
                let gib = value.parse::<f64>().map_err(|_| unknown(flag, value))?;
                self.cpu_offload = of_gibibytes(gib);
            }
            "--enforce-eager" => self.eager = true,
            "--disable-sliding-window" => self.no_window = true,
            "--load-format" if matches!(value, "auto" | "safetensors") => {}
            _ if BEYOND.contains(&flag) => return Err(format!("with {flag} there is no estimate")),
            _ => {}
        }
        Ok(())
    }
}

fn unknown(flag: &str, value: &str) -> String {
    let value: String = value.chars().take(40).collect();
    format!("with {flag} {value} there is no estimate")
}

fn length(value: &str) -> Result<Length, String> {
    if matches!(value, "auto" | "-1") {
        return Ok(Length::Fitting);
    }
    let tokens = scaled(value).and_then(|tokens| u64::try_from(tokens).ok());
    let unknown = || unknown("--max-model-len", value);
    tokens.map(Length::Tokens).ok_or_else(unknown)
}
