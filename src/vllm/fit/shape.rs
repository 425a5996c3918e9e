//! Form of a model as its `config.json` says it: layers, heads, what each layer keeps.
//!
//! Only what is known here is counted: a kind of layer or of cache that is not has no
//! estimate, rather than a wrong one.

use serde_json::{Map, Value};

use super::keeps::{self, Keeps};

/// Most layers, heads, experts and the like; more is a slip or a trick.
const COUNT_MAX: u64 = 1 << 20;
/// Most tokens of a context, and widest vectors.
const WIDTH_MAX: u64 = 1 << 32;
/// Tables in which the language part of a model stands that has others beside it.
const INNER: [&str; 4] = [
    "text_config",
    "language_config",
    "llm_config",
    "thinker_config",
];
/// vLLM 0.32 stretches no context by the factor of these.
const UNSTRETCHED: [&str; 5] = ["default", "llama3", "longrope", "su", "mrope"];
/// Caches that are kept in a form that is not known here.
const STRANGE: [&str; 3] = [
    "compress_ratios",
    "compress_ratio",
    "sliding_window_size_list",
];

/// The form of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Layers.
    pub layers: u64,
    /// Width of what goes from layer to layer.
    pub hidden: u64,
    /// Widest that a token becomes inside a layer.
    pub inner: u64,
    /// Tokens that it knows.
    pub vocabulary: u64,
    /// Longest context, in tokens.
    pub length: u64,
    /// Bytes of an element that is not quantized.
    pub element: u64,
    /// True where its head is its embedding.
    pub tied: bool,
    /// True where its weights are quantized.
    pub quantized: bool,
    /// Bytes of an element of its cache, where its config says.
    pub cache_element: Option<u64>,
    /// Heads that have keys and values, where it has such.
    pub key_heads: u64,
    /// Experts; none: 0.
    pub experts: u64,
    /// Kinds of what its layers keep, each with the number of layers that keep it.
    pub kept: Vec<(Keeps, u64)>,
}

/// A table of a config, read by the names that models use.
#[derive(Clone, Copy)]
pub(super) struct Table<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Table<'a> {
    /// The first of these that is there and is not null.
    pub(super) fn any(self, names: &[&str]) -> Option<&'a Value> {
        let found = names.iter().filter_map(|name| self.0.get(*name));
        let mut found = found.filter(|value| !value.is_null());
        found.next()
    }

    /// A whole number within `max`.
    fn whole(self, names: &[&str], max: u64) -> Result<Option<u64>, String> {
        let Some(value) = self.any(names) else {
            return Ok(None);
        };
        let number = value.as_u64().filter(|number| *number <= max);
        let name = names.first().unwrap_or(&"");
        number
            .map(Some)
            .ok_or_else(|| format!("its {name} is no number that a model can have"))
    }

    /// A count of something.
    pub(super) fn count(self, names: &[&str]) -> Result<Option<u64>, String> {
        self.whole(names, COUNT_MAX)
    }

    /// A count that must be there and more than none.
    pub(super) fn needs(self, names: &[&str]) -> Result<u64, String> {
        let missing = || format!("it names no {}", names.first().unwrap_or(&"size"));
        let count = self.count(names)?;
        count.filter(|count| *count > 0).ok_or_else(missing)
    }

    /// A text.
    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    /// A table within.
    pub(super) fn table(self, name: &str) -> Option<Self> {
        self.0.get(name)?.as_object().map(Table)
    }

    fn is_on(self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }
}

impl Shape {
    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// Fails with what of it has no estimate, in a sentence without its subject.
    pub fn read(config: &Value) -> Result<Self, String> {
        let outer = config.as_object().map(Table);
        let outer = outer.ok_or("its config.json is no table")?;
        let inner = inner(outer);
        if outer.is_on("is_encoder_decoder") == Some(true) {
            return Err("a model with an encoder of its own has no estimate".to_owned());
        }
        if let Some(name) = STRANGE.iter().find(|name| inner.any(&[**name]).is_some()) {
            return Err(format!("a cache with {name} has no estimate"));
        }
        let hidden = inner.needs(&["hidden_size", "n_embd", "d_model"])?;
        let heads = inner.needs(&["num_attention_heads", "n_head"]);
        let layers = inner.needs(&["num_hidden_layers", "n_layer", "num_layers"])?;
        let wide = ["intermediate_size", "n_inner", "ffn_hidden_size"];
        let wide = inner.count(&wide)?.unwrap_or(hidden * 4);
        let experts = [
            "num_local_experts",
            "num_experts",
            "n_routed_experts",
            "moe_num_experts",
        ];
        let experts = inner.count(&experts)?.unwrap_or(0);
        let quantization = quantization(outer, inner);
        let element = element(outer, inner)?;
        let of_layer = keeps::Of {
            table: inner,
            hidden,
            heads: heads.unwrap_or(0),
            element,
        };
        Ok(Self {
            layers,
            hidden,
            inner: if experts > 0 {
                active(inner, wide)?
            } else {
                wide
            },
            vocabulary: inner.needs(&["vocab_size", "padded_vocab_size"])?,
            length: length(inner)?,
            element,
            tied: tied(outer, inner),
            quantized: quantization.is_some(),
            cache_element: quantization.and_then(cache_element),
            key_heads: of_layer.key_heads()?,
            experts,
            kept: keeps::of(&of_layer, layers)?,
        })
    }
}

/// The table of the language part.
fn inner(outer: Table<'_>) -> Table<'_> {
    let mut table = outer;
    // One that thinks and speaks has it a table further down.
    for _ in 0..2 {
        let below = INNER.iter().find_map(|name| table.table(name));
        match below {
            Some(below) => table = below,
            None => break,
        }
    }
    table
}

/// Width of a token in the experts that it goes through, together.
fn active(inner: Table<'_>, wide: u64) -> Result<u64, String> {
    let each = inner.count(&["moe_intermediate_size", "expert_ffn_hidden_size"])?;
    let each = each.unwrap_or(wide);
    let taken = ["num_experts_per_tok", "num_experts_per_token", "moe_topk"];
    let taken = inner.count(&taken)?.unwrap_or(1).max(1);
    Ok(wide.max(each.saturating_mul(taken)))
}

fn tied(outer: Table<'_>, inner: Table<'_>) -> bool {
    let name = "tie_word_embeddings";
    let said = inner.is_on(name).or_else(|| outer.is_on(name));
    // Where it does not say, the checkpoint does: one that ties has no head.
    said == Some(true)
}

/// The table that says how the weights are quantized.
fn quantization<'a>(outer: Table<'a>, inner: Table<'a>) -> Option<Table<'a>> {
    let names = ["quantization_config", "compression_config"];
    let mut found = names
        .iter()
        .filter_map(|name| outer.table(name).or_else(|| inner.table(name)));
    found.next()
}

fn cache_element(quantization: Table<'_>) -> Option<u64> {
    let algorithm = quantization.text("kv_cache_quant_algo")?;
    algorithm.eq_ignore_ascii_case("fp8").then_some(1)
}

/// Bytes of an element: what is in 32 bits is served in 16.
fn element(outer: Table<'_>, inner: Table<'_>) -> Result<u64, String> {
    let of = |table: Table<'_>| -> Option<String> {
        let text = table.text("dtype").or_else(|| table.text("torch_dtype"));
        Some(text?.trim_start_matches("torch.").to_owned())
    };
    match of(inner).or_else(|| of(outer)).as_deref() {
        None | Some("bfloat16" | "float16" | "half" | "float32" | "float" | "auto") => Ok(2),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(format!("its dtype {other:?} is not known"))
        }
    }
}

/// The longest context, stretched as vLLM 0.32 does it.
fn length(inner: Table<'_>) -> Result<u64, String> {
    let names = [
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "model_max_length",
        "max_sequence_length",
    ];
    let length = inner.whole(&names, WIDTH_MAX)?;
    let length = length.filter(|length| *length > 0);
    let length = length.ok_or("it names no max_position_embeddings")?;
    let rope = inner.table("rope_scaling");
    let rope = rope.or_else(|| inner.table("rope_parameters"));
    let gemma = inner
        .text("model_type")
        .is_some_and(|t| t.contains("gemma3"));
    let Some(rope) = rope.filter(|_| !gemma) else {
        return Ok(length);
    };
    let kind = rope.text("rope_type").or_else(|| rope.text("type"));
    let factor = rope.0.get("factor").and_then(Value::as_f64).unwrap_or(1.0);
    let Some(kind) = kind.filter(|kind| !UNSTRETCHED.contains(kind)) else {
        return Ok(length);
    };
    let original = rope.whole(&["original_max_position_embeddings"], WIDTH_MAX)?;
    let from = original.filter(|_| kind.contains("yarn")).unwrap_or(length);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a length below 2^32, and a factor within bounds"
    )]
    let stretched = (from as f64 * factor.clamp(1.0, 1024.0)) as u64;
    Ok(stretched.min(WIDTH_MAX))
}
