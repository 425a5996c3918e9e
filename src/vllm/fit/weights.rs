//! The weights of a checkpoint, summed up by what becomes of them on several GPUs.

use std::collections::BTreeMap;

use super::shape::Shape;
use super::terms::{FitTerms, OnLoad};

/// Part of the model that a tensor is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Split over the GPUs, and outside of the layers: towers of images and sounds.
    Outside,
    /// The table that tokens are looked up in.
    Embedding,
    /// The matrix that makes tokens again.
    Head,
    /// In a layer, split by heads that have keys: no further than there are such.
    Keys,
    /// In a layer, split over the GPUs.
    Layer,
    /// In a layer, and whole on each GPU.
    Whole,
}

/// Form in which the elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// As numbers that are served in the dtype of the model.
    Plain,
    /// Packed, or in 8 bits: they are served as they are.
    Packed,
}

/// Elements and bytes of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    elements: u64,
    bytes: u64,
}

/// All weights that are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    sums: BTreeMap<(Part, Form), Sum>,
    /// Bytes that stand in the files and are not loaded.
    pub left_out: u64,
}

/// Names of what is whole on each GPU: routers, and what goes down to a latent.
const WHOLE: [&str; 8] = [
    ".gate.weight",
    ".router.",
    "kv_a_proj",
    "q_a_proj",
    "indexer.",
    "shared_expert_gate",
    "e_score_correction",
    "norm",
];

impl Weights {
    /// Adds a tensor of the checkpoint of a model: its name, its type as safetensors
    /// writes it, its sizes and its bytes.
    pub fn add(&mut self, shape: &Shape, name: &str, dtype: &str, sizes: &[u64], bytes: u64) {
        let Some(part) = part(shape, name) else {
            self.left_out = self.left_out.saturating_add(bytes);
            return;
        };
        // A vector is not worth splitting, and is not, but for some that are tiny.
        let is_layers = matches!(part, Part::Keys | Part::Layer);
        let part = if is_layers && sizes.len() < 2 {
            Part::Whole
        } else {
            part
        };
        let form = match dtype {
            "F64" | "F32" | "F16" | "BF16" => Form::Plain,
            _ => Form::Packed,
        };
        let elements = sizes
            .iter()
            .fold(1_u64, |all, size| all.saturating_mul(*size));
        let sum = self.sums.entry((part, form)).or_default();
        sum.elements = sum.elements.saturating_add(elements);
        sum.bytes = sum.bytes.saturating_add(bytes);
    }

    /// True where there is nothing to load.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// True where some are not plain numbers.
    pub fn are_packed(&self) -> bool {
        self.sums.keys().any(|(_, form)| *form == Form::Packed)
    }

    /// Bytes on the GPU that has most of them.
    pub fn on_each(&self, shape: &Shape, terms: &FitTerms) -> u64 {
        let tensor_parallel = terms.tensor_parallel.max(1);
        let stages = terms.pipeline_parallel.clamp(1, shape.layers.max(1));
        let of_stage = |bytes: u64| {
            let layers = shape.layers.div_ceil(stages);
            scaled(bytes, layers, shape.layers)
        };
        let split = |bytes: u64| bytes.div_ceil(tensor_parallel);
        // Where there is no head of its own, the embedding is it.
        let tied = !self.sums.keys().any(|(part, _)| *part == Part::Head);
        let (mut layers, mut first, mut last) = (0_u64, 0_u64, 0_u64);
        for ((part, form), sum) in &self.sums {
            let bytes = served(shape, terms, *part, *form, *sum);
            let bytes = match part {
                Part::Outside => {
                    first = first.saturating_add(split(bytes));
                    continue;
                }
                Part::Embedding => {
                    first = first.saturating_add(split(bytes));
                    // The last stage has it again.
                    last = last.saturating_add(if tied { split(bytes) } else { 0 });
                    continue;
                }
                Part::Head => {
                    last = last.saturating_add(split(bytes));
                    continue;
                }
                Part::Keys => bytes.div_ceil(tensor_parallel.min(shape.key_heads.max(1))),
                Part::Layer => split(bytes),
                Part::Whole => bytes,
            };
            layers = layers.saturating_add(of_stage(bytes));
        }
        let ends = match (stages, tied) {
            (1, true) => first,
            (1, false) => first.saturating_add(last),
            _ => first.max(last),
        };
        let all = layers.saturating_add(ends);
        all.saturating_sub(terms.cpu_offload.min(all))
    }
}

/// Part that a tensor is, by its name; `None`: it is not loaded.
fn part(shape: &Shape, name: &str) -> Option<Part> {
    // What guesses tokens ahead is loaded only where that is asked for.
    if name.starts_with("mtp.") || name.contains(".mtp.") {
        return None;
    }
    let is_tower = [
        "visual",
        "vision",
        "audio",
        "image",
        "multi_modal",
        "mm_projector",
    ]
    .iter()
    .any(|part| name.contains(part));
    if is_tower {
        return Some(Part::Outside);
    }
    match layer(name) {
        // Layers after the last guess ahead too.
        Some(at) if at >= shape.layers => None,
        Some(_) if WHOLE.iter().any(|part| name.contains(part)) => Some(Part::Whole),
        Some(_)
            if [".k_proj", ".v_proj"]
                .iter()
                .any(|part| name.contains(part)) =>
        {
            Some(Part::Keys)
        }
        Some(_) => Some(Part::Layer),
        None if name.contains("lm_head") || name.ends_with("output.weight") => {
            (!shape.tied).then_some(Part::Head)
        }
        None if name.contains("embed") || name.contains("wte") => Some(Part::Embedding),
        None => Some(Part::Outside),
    }
}

/// The number of the layer that a tensor is in.
fn layer(name: &str) -> Option<u64> {
    let parts = name.split('.');
    let after = parts.clone().skip(1);
    let numbered = parts.zip(after);
    let mut layers = numbered.filter(|(list, _)| matches!(*list, "layers" | "h" | "blocks"));
    layers.find_map(|(_, number)| number.parse().ok())
}

/// Bytes of a part as it is served.
fn served(shape: &Shape, terms: &FitTerms, part: Part, form: Form, sum: Sum) -> u64 {
    if form == Form::Packed {
        return sum.bytes;
    }
    let in_layers = matches!(part, Part::Keys | Part::Layer);
    let element = terms.element.unwrap_or(shape.element);
    match terms.on_load.filter(|_| in_layers && !shape.quantized) {
        Some(OnLoad::Byte) => sum.elements,
        // Four bits, and a scale of 32 bits for each 64 elements.
        Some(OnLoad::Nibble) => scaled(sum.elements, 9, 16),
        None => sum.elements.saturating_mul(element),
    }
}

/// So many of so many parts, rounded up.
fn scaled(bytes: u64, parts: u64, of: u64) -> u64 {
    let scaled = (u128::from(bytes) * u128::from(parts)).div_ceil(u128::from(of.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
