//! Memory that a layer keeps of a request while it is served: keys and values, or a state.

use std::collections::BTreeSet;

use serde_json::Value;

use super::shape::Table;

/// Bytes that the indexer of a sparse attention keeps of a token beside: a vector in 8
/// bits and its scale.
const INDEX_SCALE_BYTES: u64 = 4;
/// vLLM 0.32's own form of a latent in 8 bits where attention is sparse, in bytes.
const SPARSE_LATENT_BYTES: u64 = 656;

/// Memory of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Keys and values of each token, or of the last ones of a window.
    Heads {
        /// Heads that have them.
        heads: u64,
        /// Elements of a key and its value together.
        width: u64,
        /// Tokens that are kept; `None`: all.
        window: Option<u64>,
    },
    /// One vector of each token for all heads together, which every GPU has whole.
    Latent {
        /// Elements of it.
        width: u64,
        /// Bytes beside it that do not depend on the cache's type.
        beside: u64,
    },
    /// A state of the request, however long that is.
    State {
        /// Its bytes, of all GPUs together.
        bytes: u64,
    },
}

impl Keeps {
    /// Bytes of a token on each of so many GPUs that share a layer; none for a state.
    pub fn per_token(self, tensor_parallel: u64, element: u64) -> u64 {
        match self {
            // With fewer heads than GPUs, several have the same one.
            Self::Heads { heads, width, .. } => heads.div_ceil(tensor_parallel) * width * element,
            Self::Latent { beside, .. } if element == 1 && beside > 0 => {
                SPARSE_LATENT_BYTES + beside
            }
            Self::Latent { width, beside } => width * element + beside,
            Self::State { .. } => 0,
        }
    }
}

/// Table of a config, and what it says of its layers.
pub(super) struct Of<'a> {
    pub(super) table: Table<'a>,
    pub(super) hidden: u64,
    pub(super) heads: u64,
    pub(super) element: u64,
}

/// Kinds of layers as configs call them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Windowed,
    Chunked,
    Linear,
    Mamba,
    /// It mixes nothing: a network alone.
    Nothing,
    /// Attention and a state beside each other.
    Both,
}

/// Memory of all layers, each kind once.
pub(super) fn of(of: &Of<'_>, layers: u64) -> Result<Vec<(Keeps, u64)>, String> {
    let mut kept: Vec<(Keeps, u64)> = Vec::new();
    let mut add = |keeps: Keeps| match kept.iter_mut().find(|(known, _)| *known == keeps) {
        Some((_, count)) => *count += 1,
        None => kept.push((keeps, 1)),
    };
    // The last ones of some read what others keep.
    let shared = of.table.count(&["num_kv_shared_layers"])?.unwrap_or(0);
    let own = layers.saturating_sub(shared);
    for kind in kinds(of, layers)?.into_iter().take(as_index(own)) {
        match kind {
            Kind::Nothing => {}
            Kind::Both => {
                add(of.attention(Kind::Full)?);
                add(of.state(Kind::Mamba)?);
            }
            Kind::Linear | Kind::Mamba => add(of.state(kind)?),
            Kind::Full | Kind::Windowed | Kind::Chunked => add(of.attention(kind)?),
        }
    }
    Ok(kept)
}

fn as_index(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The kind of each layer, in whichever way it is written down.
fn kinds(of: &Of<'_>, layers: u64) -> Result<Vec<Kind>, String> {
    let table = of.table;
    let count = as_index(layers);
    let lists = ["layer_types", "layers_block_type"];
    if let Some(list) = table.any(&lists).and_then(Value::as_array) {
        let named = list.iter().map(|name| named(name.as_str().unwrap_or("")));
        return each(named.collect::<Result<_, _>>()?, count);
    }
    if let Some(pattern) = table.text("hybrid_override_pattern") {
        let named = pattern.chars().map(lettered);
        return each(named.collect::<Result<_, _>>()?, count);
    }
    let every = |step: u64, at: u64, one: Kind, others: Kind| {
        let kind = |layer: u64| {
            if layer % step.max(1) == at {
                one
            } else {
                others
            }
        };
        Ok((0..layers).map(kind).collect())
    };
    if let Some(linear) = table.table("linear_attn_config") {
        let full = linear.any(&["full_attn_layers"]).and_then(Value::as_array);
        let full = full.ok_or("it does not say which of its layers see all")?;
        let full: BTreeSet<u64> = full.iter().filter_map(Value::as_u64).collect();
        // Counted from 1.
        let kind = |layer: u64| {
            if full.contains(&(layer + 1)) {
                Kind::Full
            } else {
                Kind::Linear
            }
        };
        return Ok((0..layers).map(kind).collect());
    }
    if let Some(step) = table.count(&["full_attention_interval"])? {
        return every(step, step.saturating_sub(1), Kind::Full, Kind::Linear);
    }
    if let Some(step) = table.count(&["attn_layer_period"])? {
        let at = table.count(&["attn_layer_offset"])?.unwrap_or(0);
        return every(step, at, Kind::Full, Kind::Mamba);
    }
    if table.any(&["attention_chunk_size"]).is_some() {
        let step = table.count(&["no_rope_layer_interval"])?.unwrap_or(4);
        return every(step, step.saturating_sub(1), Kind::Full, Kind::Chunked);
    }
    if table.any(&["sliding_window"]).is_none() || off(table, "use_sliding_window") {
        return Ok(vec![Kind::Full; count]);
    }
    if let Some(step) = table.count(&["sliding_window_pattern", "_sliding_window_pattern"])? {
        return every(step, step.saturating_sub(1), Kind::Full, Kind::Windowed);
    }
    match table.text("model_type") {
        Some("gemma2" | "cohere2") => every(2, 1, Kind::Full, Kind::Windowed),
        Some(kind) if kind.starts_with("gemma3") => every(6, 5, Kind::Full, Kind::Windowed),
        _ => Ok(vec![Kind::Windowed; count]),
    }
}

/// The kinds, where they are those of all layers.
fn each(named: Vec<Kind>, layers: usize) -> Result<Vec<Kind>, String> {
    if named.len() < layers {
        let said = named.len();
        return Err(format!(
            "it has {layers} layers and says of {said} what they are"
        ));
    }
    Ok(named)
}

fn off(table: Table<'_>, name: &str) -> bool {
    table.0.get(name).and_then(Value::as_bool) == Some(false)
}

fn named(name: &str) -> Result<Kind, String> {
    Ok(match name {
        "full_attention" | "attention" | "global_attention" => Kind::Full,
        "sliding_attention" | "local_attention" => Kind::Windowed,
        "chunked_attention" => Kind::Chunked,
        "linear_attention" => Kind::Linear,
        "mamba" | "mamba2" => Kind::Mamba,
        "hybrid" => Kind::Both,
        "mlp" | "moe" => Kind::Nothing,
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(format!(
                "what a layer of the kind {other:?} keeps is not known"
            ));
        }
    })
}

fn lettered(letter: char) -> Result<Kind, String> {
    Ok(match letter {
        'M' => Kind::Mamba,
        '*' => Kind::Full,
        '-' | 'E' => Kind::Nothing,
        other => return Err(format!("what a layer {other:?} keeps is not known")),
    })
}

impl Of<'_> {
    /// Heads that have keys and values; as many as there are where it does not say.
    pub(super) fn key_heads(&self) -> Result<u64, String> {
        let names = ["num_key_value_heads", "num_kv_heads", "n_head_kv"];
        if let Some(heads) = self.table.count(&names)? {
            return Ok(heads.max(1));
        }
        let single = self.table.0.get("multi_query").and_then(Value::as_bool);
        Ok(if single == Some(true) {
            1
        } else {
            self.heads.max(1)
        })
    }

    fn attention(&self, kind: Kind) -> Result<Keeps, String> {
        let table = self.table;
        if let Some(rank) = table.count(&["kv_lora_rank"])?.filter(|rank| *rank > 0) {
            let rope = table.count(&["qk_rope_head_dim"])?.unwrap_or(0);
            let sparse = table.any(&["index_topk"]).is_some();
            let index = table.count(&["index_head_dim"])?.unwrap_or(128);
            return Ok(Keeps::Latent {
                width: rank + rope,
                beside: if sparse { index + INDEX_SCALE_BYTES } else { 0 },
            });
        }
        if self.heads == 0 {
            return Err("it names no num_attention_heads".to_owned());
        }
        let plain = table.count(&["head_dim", "attention_head_dim", "kv_channels"])?;
        let mut size = plain.unwrap_or(self.hidden / self.heads);
        let mut heads = self.key_heads()?;
        // Gemma 4 sees all with other heads than a window.
        if kind == Kind::Full && table.any(&["sliding_window"]).is_some() {
            size = table.count(&["global_head_dim"])?.unwrap_or(size);
            heads = table
                .count(&["num_global_key_value_heads"])?
                .unwrap_or(heads);
        }
        let value = table.count(&["v_head_dim"])?.unwrap_or(size);
        let window = match kind {
            Kind::Windowed => Some(table.needs(&["sliding_window"])?),
            Kind::Chunked => Some(table.needs(&["attention_chunk_size"])?),
            _ => None,
        };
        Ok(Keeps::Heads {
            heads,
            width: size + value,
            window,
        })
    }

    /// The state of a layer that keeps nothing of single tokens: what its convolution
    /// looks back at, and what it sums up.
    fn state(&self, kind: Kind) -> Result<Keeps, String> {
        let (looks, sums) = match kind {
            Kind::Linear => self.linear()?,
            _ => self.mamba()?,
        };
        let precise = ["mamba_ssm_dtype", "mamba_ssm_cache_dtype"];
        let precise = precise.iter().find_map(|name| self.table.text(name));
        let summed = if precise == Some("float32") {
            4
        } else {
            self.element
        };
        Ok(Keeps::State {
            bytes: looks * self.element + sums * summed,
        })
    }

    /// Of Qwen's gated delta network, and of Kimi's.
    fn linear(&self) -> Result<(u64, u64), String> {
        if let Some(kimi) = self.table.table("linear_attn_config") {
            let (heads, size) = (kimi.needs(&["num_heads"])?, kimi.needs(&["head_dim"])?);
            let back = kimi.count(&["short_conv_kernel_size"])?.unwrap_or(4);
            let looks = 3 * heads * size * back.saturating_sub(1);
            return Ok((looks, heads * size * size));
        }
        let table = self.table;
        let keys = table.needs(&["linear_num_key_heads"])?;
        let key = table.needs(&["linear_key_head_dim"])?;
        let values = table.needs(&["linear_num_value_heads"])?;
        let value = table.needs(&["linear_value_head_dim"])?;
        let back = table.count(&["linear_conv_kernel_dim"])?.unwrap_or(4);
        let looks = (2 * keys * key + values * value) * back.saturating_sub(1);
        Ok((looks, values * key * value))
    }

    /// Of Mamba 2, and of its first form, which has no heads.
    fn mamba(&self) -> Result<(u64, u64), String> {
        let table = self.table;
        let state = table.needs(&["ssm_state_size", "mamba_d_state", "state_size"])?;
        let back = table.count(&["conv_kernel", "mamba_d_conv", "conv_kernel_size"])?;
        let back = back.unwrap_or(4).saturating_sub(1);
        let heads = table.count(&["mamba_num_heads", "mamba_n_heads"])?;
        let Some(heads) = heads.filter(|heads| *heads > 0) else {
            let wide = self.hidden * table.count(&["mamba_expand", "expand"])?.unwrap_or(2);
            return Ok((wide * back, wide * state));
        };
        let wide = heads * table.needs(&["mamba_head_dim", "mamba_d_head"])?;
        let groups = table.count(&["n_groups", "mamba_n_groups"])?.unwrap_or(1);
        Ok(((wide + 2 * groups * state) * back, wide * state))
    }
}
