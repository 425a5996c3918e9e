//! "`LoRA` Configuration": adapters over the base model.

use super::since::{V0_9_2, V0_11, V0_15};
use crate::vllm::options::row::{
    Form, Group, OptionRow, ValueKind, before, ever, gone, gone_but, row,
};

const G: Group = Group::Lora;

pub(super) const ROWS: &[OptionRow] = &[
    row(G, &[(54, "Enable LoRA")], "enable_lora", ValueKind::Switch, "true",
        "Serves LoRA adapters beside the model.")
        .spans(&[ever(Form::Switch("--enable-lora"))]),
    row(G, &[(55, "LoRA Modules")], "lora_modules", ValueKind::Adapters, "[\"sql=/srv/adapters/sql\"]",
        "Adapters as `name=path`. Each name is one that clients may write in `model`. Paths are directories that the admin allows, or names on the hub.")
        .spans(&[ever(Form::List("--lora-modules"))]),
    row(G, &[(56, "Max LoRAs")], "max_loras", ValueKind::Integer { min: 1, max: 10_000 }, "2",
        "Most adapters in one batch.").default("1")
        .spans(&[ever(Form::Value("--max-loras"))]),
    row(G, &[(57, "Long LoRA Scaling Factors")], "long_lora_scaling_factors", ValueKind::Numbers, "[4.0]",
        "Scaling factors of adapters that were trained for longer contexts.")
        .spans(&[before(V0_11, Form::Commas("--long-lora-scaling-factors")), gone(V0_9_2, V0_11, "")]),
    row(G, &[(58, "Max LoRA Rank")], "max_lora_rank", ValueKind::Integer { min: 1, max: 512 }, "32",
        "Highest rank of an adapter.").default("16")
        .spans(&[ever(Form::Value("--max-lora-rank"))]),
    row(G, &[(59, "LoRA Extra Vocabulary Size")], "lora_extra_vocab_size", ValueKind::Integer { min: 0, max: 1_000_000 }, "256",
        "Most tokens that an adapter may add to the vocabulary.").unit("tokens").default("256")
        .spans(&[before(V0_15, Form::Value("--lora-extra-vocab-size")),
            gone_but(V0_11, V0_15, "adapters can't add tokens there", "0")]),
    row(G, &[(60, "LoRA Dtype")], "lora_dtype", ValueKind::Choice(&["auto", "float16", "bfloat16"]), "\"bfloat16\"",
        "Data type of adapters. Of the form's choices, float32 is one that no vLLM takes.").default("auto")
        .spans(&[ever(Form::Value("--lora-dtype"))]),
    row(G, &[(61, "Max CPU LoRAs")], "max_cpu_loras", ValueKind::Integer { min: 1, max: 100_000 }, "64",
        "Most adapters kept in host memory; at least max_num_seqs and max_loras.")
        .spans(&[ever(Form::Value("--max-cpu-loras"))]),
    row(G, &[(62, "Enable LoRA Bias")], "enable_lora_bias", ValueKind::Switch, "true",
        "Allows adapters with bias.")
        .spans(&[before(V0_15, Form::Switch("--enable-lora-bias")), gone(V0_11, V0_15, "")]),
    row(G, &[(63, "Fully Sharded LoRAs")], "fully_sharded_loras", ValueKind::Switch, "true",
        "Splits all of an adapter's work over the GPUs instead of half of it.")
        .spans(&[ever(Form::Switch("--fully-sharded-loras"))]),
];
