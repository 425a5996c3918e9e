//! Models by their published configs, and what is published of them.
//!
//! Their tensors are made from the configs, with the names of their families, so that the
//! sums are held against the published ones too.

use serde_json::Value;

use crate::vllm::fit::{Shape, Weights};

/// Make of the layers of a family.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Family {
    /// Llama, Mistral, Qwen: `bias` with biases of q, k, v; `norms` with norms of q and k.
    Dense { bias: bool, norms: bool },
    /// Experts of three matrices each, beside attention as above.
    Experts { norms: bool },
    /// `DeepSeek`: a latent, and a shared expert beside the others, in 8 bits.
    Latent,
    /// Gemma 3, with a tower of images of so many parameters.
    Gemma { tower: u64 },
    /// gpt-oss: experts in 4 bits.
    Packed,
    /// Nothing is made: only what it keeps is looked at, and this many bytes.
    Given,
}

pub(super) struct Known {
    pub(super) name: &'static str,
    config: &'static str,
    family: Family,
    /// Bytes of its weights, as served.
    pub(super) bytes: u64,
    /// Bytes of the cache for each token of a short request.
    pub(super) per_token: u64,
    /// Its longest context.
    pub(super) length: u64,
}

/// Bytes are `metadata.total_size` of each model's `model.safetensors.index.json` on the hub;
/// of DeepSeek-V3 those of its 671 thousand million parameters, without the layer that guesses
/// ahead, and of Qwen3.6 a round number, which only its cache is looked at for. The cache of
/// DeepSeek-V3, Llama 405B and Qwen2.5 72B is that of table 1 of arXiv:2505.09343.
pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "meta-llama/Llama-3.1-8B",
        config: r#"{"hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"intermediate_size":14336,"vocab_size":128256,"max_position_embeddings":131072,"rope_scaling":{"rope_type":"llama3","factor":8.0,"original_max_position_embeddings":8192},"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: false,
            norms: false,
        },
        bytes: 16_060_522_496,
        per_token: 131_072,
        length: 131_072,
    },
    Known {
        name: "meta-llama/Llama-3.1-70B",
        config: r#"{"hidden_size":8192,"num_hidden_layers":80,"num_attention_heads":64,"num_key_value_heads":8,"intermediate_size":28672,"vocab_size":128256,"max_position_embeddings":131072,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: false,
            norms: false,
        },
        bytes: 141_107_412_992,
        per_token: 327_680,
        length: 131_072,
    },
    Known {
        name: "meta-llama/Llama-3.1-405B",
        config: r#"{"hidden_size":16384,"num_hidden_layers":126,"num_attention_heads":128,"num_key_value_heads":8,"intermediate_size":53248,"vocab_size":128256,"max_position_embeddings":131072,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: false,
            norms: false,
        },
        bytes: 811_706_777_600,
        per_token: 516_096,
        length: 131_072,
    },
    Known {
        name: "Qwen/Qwen3-8B",
        config: r#"{"hidden_size":4096,"num_hidden_layers":36,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":128,"intermediate_size":12288,"vocab_size":151936,"max_position_embeddings":40960,"rope_scaling":null,"sliding_window":null,"use_sliding_window":false,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: false,
            norms: true,
        },
        bytes: 16_381_470_720,
        per_token: 147_456,
        length: 40_960,
    },
    Known {
        name: "Qwen/Qwen2.5-72B",
        config: r#"{"hidden_size":8192,"num_hidden_layers":80,"num_attention_heads":64,"num_key_value_heads":8,"intermediate_size":29568,"vocab_size":152064,"max_position_embeddings":131072,"sliding_window":131072,"use_sliding_window":false,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: true,
            norms: false,
        },
        bytes: 145_412_407_296,
        per_token: 327_680,
        length: 131_072,
    },
    Known {
        name: "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
        config: r#"{"hidden_size":5120,"num_hidden_layers":48,"num_attention_heads":40,"num_key_value_heads":8,"intermediate_size":13824,"vocab_size":152064,"max_position_embeddings":131072,"sliding_window":131072,"use_sliding_window":false,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: true,
            norms: false,
        },
        bytes: 29_540_067_328,
        per_token: 196_608,
        length: 131_072,
    },
    Known {
        name: "mistralai/Mistral-7B-v0.1",
        config: r#"{"hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"intermediate_size":14336,"vocab_size":32000,"max_position_embeddings":32768,"sliding_window":4096,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Dense {
            bias: false,
            norms: false,
        },
        bytes: 14_483_464_192,
        per_token: 131_072,
        length: 32_768,
    },
    Known {
        name: "mistralai/Mixtral-8x7B-v0.1",
        config: r#"{"hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"intermediate_size":14336,"vocab_size":32000,"max_position_embeddings":32768,"num_local_experts":8,"num_experts_per_tok":2,"sliding_window":null,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Experts { norms: false },
        bytes: 93_405_585_408,
        per_token: 131_072,
        length: 32_768,
    },
    Known {
        name: "Qwen/Qwen3-30B-A3B",
        config: r#"{"hidden_size":2048,"num_hidden_layers":48,"num_attention_heads":32,"num_key_value_heads":4,"head_dim":128,"intermediate_size":6144,"moe_intermediate_size":768,"num_experts":128,"num_experts_per_tok":8,"vocab_size":151936,"max_position_embeddings":40960,"sliding_window":null,"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Experts { norms: true },
        bytes: 61_064_245_248,
        per_token: 98_304,
        length: 40_960,
    },
    Known {
        name: "google/gemma-3-27b-it",
        config: r#"{"model_type":"gemma3","torch_dtype":"bfloat16","text_config":{"model_type":"gemma3_text","hidden_size":5376,"num_hidden_layers":62,"num_attention_heads":32,"num_key_value_heads":16,"head_dim":128,"intermediate_size":21504,"vocab_size":262208,"max_position_embeddings":131072,"rope_scaling":{"rope_type":"linear","factor":8.0},"sliding_window":1024,"sliding_window_pattern":6}}"#,
        family: Family::Gemma { tower: 423_060_336 },
        bytes: 54_864_813_280,
        per_token: 507_904,
        length: 131_072,
    },
    Known {
        name: "deepseek-ai/DeepSeek-V3",
        config: r#"{"hidden_size":7168,"num_hidden_layers":61,"num_attention_heads":128,"num_key_value_heads":128,"kv_lora_rank":512,"q_lora_rank":1536,"qk_rope_head_dim":64,"qk_nope_head_dim":128,"v_head_dim":128,"intermediate_size":18432,"moe_intermediate_size":2048,"n_routed_experts":256,"num_experts_per_tok":8,"vocab_size":129280,"max_position_embeddings":163840,"rope_scaling":{"type":"yarn","factor":40,"original_max_position_embeddings":4096},"quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[128,128]},"torch_dtype":"bfloat16","tie_word_embeddings":false}"#,
        family: Family::Latent,
        bytes: 671_026_419_200,
        per_token: 70_272,
        length: 163_840,
    },
    Known {
        name: "openai/gpt-oss-20b",
        config: r#"{"hidden_size":2880,"num_hidden_layers":24,"num_attention_heads":64,"num_key_value_heads":8,"head_dim":64,"intermediate_size":2880,"num_local_experts":32,"num_experts_per_tok":4,"vocab_size":201088,"max_position_embeddings":131072,"rope_scaling":{"rope_type":"yarn","factor":32.0,"original_max_position_embeddings":4096},"sliding_window":128,"layer_types":["sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention","sliding_attention","full_attention"],"quantization_config":{"quant_method":"mxfp4"},"tie_word_embeddings":false}"#,
        family: Family::Packed,
        bytes: 13_761_264_768,
        per_token: 49_152,
        length: 131_072,
    },
    Known {
        name: "Qwen/Qwen3.6-35B-A3B",
        config: r#"{"text_config":{"hidden_size":2048,"num_hidden_layers":40,"full_attention_interval":4,"num_attention_heads":16,"num_key_value_heads":2,"head_dim":256,"linear_num_key_heads":16,"linear_num_value_heads":32,"linear_key_head_dim":128,"linear_value_head_dim":128,"linear_conv_kernel_dim":4,"mamba_ssm_dtype":"float32","moe_intermediate_size":512,"num_experts":256,"num_experts_per_tok":8,"vocab_size":248320,"max_position_embeddings":262144,"dtype":"bfloat16"}}"#,
        family: Family::Given,
        bytes: 70 << 30,
        per_token: 20_480,
        length: 262_144,
    },
];

/// The tensors of a model in the making.
struct Made<'a> {
    config: &'a Value,
    shape: &'a Shape,
    weights: Weights,
}

impl Known {
    pub(super) fn config(&self) -> Value {
        serde_json::from_str(self.config).unwrap()
    }

    /// Its form and its weights.
    pub(super) fn read(&self) -> (Shape, Weights) {
        let config = self.config();
        let shape = Shape::read(&config).unwrap();
        let config = config.get("text_config").unwrap_or(&config);
        let mut made = Made {
            config,
            shape: &shape,
            weights: Weights::default(),
        };
        made.make(self);
        let weights = made.weights;
        (shape, weights)
    }
}

impl Made<'_> {
    fn number(&self, name: &str) -> u64 {
        self.config.get(name).and_then(Value::as_u64).unwrap()
    }

    /// Adds a tensor: 16 bits, or 8 where its type says so.
    fn add(&mut self, name: &str, dtype: &str, sizes: &[u64]) {
        let element = if dtype == "BF16" { 2 } else { 1 };
        let bytes = sizes.iter().product::<u64>() * element;
        self.weights.add(self.shape, name, dtype, sizes, bytes);
    }

    fn make(&mut self, known: &Known) {
        let (hidden, vocabulary) = (self.shape.hidden, self.shape.vocabulary);
        if known.family == Family::Given {
            let name = "model.layers.0.mlp.experts.weight";
            return self.add(name, "U8", &[known.bytes, 1]);
        }
        self.add("model.embed_tokens.weight", "BF16", &[vocabulary, hidden]);
        self.add("model.norm.weight", "BF16", &[hidden]);
        if let Family::Gemma { tower } = known.family {
            self.add("vision_tower.encoder.weight", "BF16", &[tower, 1]);
        } else {
            self.add("lm_head.weight", "BF16", &[vocabulary, hidden]);
        }
        for layer in 0..self.shape.layers {
            let at = format!("model.layers.{layer}");
            self.add(&format!("{at}.input_layernorm.weight"), "BF16", &[hidden]);
            self.add(
                &format!("{at}.post_attention_layernorm.weight"),
                "BF16",
                &[hidden],
            );
            match known.family {
                Family::Dense { bias, norms } => {
                    self.attention(&at, bias, norms);
                    self.network(&format!("{at}.mlp"), "BF16", self.shape.inner, 1);
                }
                Family::Experts { norms } => {
                    self.attention(&at, false, norms);
                    self.add(
                        &format!("{at}.mlp.gate.weight"),
                        "BF16",
                        &[self.shape.experts, hidden],
                    );
                    let each = self
                        .config
                        .get("moe_intermediate_size")
                        .and_then(Value::as_u64);
                    let each = each.unwrap_or_else(|| self.number("intermediate_size"));
                    self.network(
                        &format!("{at}.mlp.experts"),
                        "BF16",
                        each,
                        self.shape.experts,
                    );
                }
                Family::Gemma { .. } => {
                    self.attention(&at, false, true);
                    self.network(&format!("{at}.mlp"), "BF16", self.shape.inner, 1);
                    self.add(&format!("{at}.pre_norm.weight"), "BF16", &[2 * hidden]);
                }
                Family::Latent => self.latent(&at, layer),
                Family::Packed => self.packed(&at),
                Family::Given => {}
            }
        }
        if known.family == Family::Latent {
            // What guesses ahead is in the files, and not loaded.
            let after = format!("model.layers.{}", self.shape.layers);
            self.latent(&after, self.shape.layers);
            assert!(self.weights.left_out > 11_000_000_000);
        }
    }

    fn attention(&mut self, at: &str, bias: bool, norms: bool) {
        let (hidden, heads) = (self.shape.hidden, self.number("num_attention_heads"));
        let size = self.config.get("head_dim").and_then(Value::as_u64);
        let size = size.unwrap_or(hidden / heads);
        let keys = self.shape.key_heads;
        for (name, out) in [("q", heads), ("k", keys), ("v", keys)] {
            let name = format!("{at}.self_attn.{name}_proj");
            self.add(&format!("{name}.weight"), "BF16", &[out * size, hidden]);
            if bias {
                self.add(&format!("{name}.bias"), "BF16", &[out * size]);
            }
        }
        self.add(
            &format!("{at}.self_attn.o_proj.weight"),
            "BF16",
            &[hidden, heads * size],
        );
        if norms {
            self.add(&format!("{at}.self_attn.q_norm.weight"), "BF16", &[size]);
            self.add(&format!("{at}.self_attn.k_norm.weight"), "BF16", &[size]);
        }
    }

    /// Three matrices, so many times.
    fn network(&mut self, at: &str, dtype: &str, inner: u64, times: u64) {
        for name in ["gate_proj", "up_proj", "down_proj"] {
            let sizes = [times, inner, self.shape.hidden];
            self.add(&format!("{at}.{name}.weight"), dtype, &sizes);
        }
    }

    fn latent(&mut self, at: &str, layer: u64) {
        let (hidden, heads) = (self.shape.hidden, self.number("num_attention_heads"));
        let (rank, rope) = (self.number("kv_lora_rank"), self.number("qk_rope_head_dim"));
        let (plain, value) = (self.number("qk_nope_head_dim"), self.number("v_head_dim"));
        let queries = self.number("q_lora_rank");
        for (name, out, from) in [
            ("q_a_proj", queries, hidden),
            ("q_b_proj", heads * (plain + rope), queries),
            ("kv_a_proj_with_mqa", rank + rope, hidden),
            ("kv_b_proj", heads * (plain + value), rank),
            ("o_proj", hidden, heads * value),
        ] {
            self.add(
                &format!("{at}.self_attn.{name}.weight"),
                "F8_E4M3",
                &[out, from],
            );
        }
        if layer < 3 {
            let inner = self.number("intermediate_size");
            return self.network(&format!("{at}.mlp"), "F8_E4M3", inner, 1);
        }
        let each = self.number("moe_intermediate_size");
        self.add(
            &format!("{at}.mlp.gate.weight"),
            "BF16",
            &[self.shape.experts, hidden],
        );
        self.network(
            &format!("{at}.mlp.experts"),
            "F8_E4M3",
            each,
            self.shape.experts,
        );
        self.network(&format!("{at}.mlp.shared_experts"), "F8_E4M3", each, 1);
    }

    fn packed(&mut self, at: &str) {
        let (hidden, experts) = (self.shape.hidden, self.shape.experts);
        self.attention(at, true, false);
        self.add(&format!("{at}.self_attn.o_proj.bias"), "BF16", &[hidden]);
        self.add(&format!("{at}.self_attn.sinks"), "BF16", &[64]);
        self.add(
            &format!("{at}.mlp.router.weight"),
            "BF16",
            &[experts, hidden],
        );
        self.add(&format!("{at}.mlp.router.bias"), "BF16", &[experts]);
        for (name, rows) in [("gate_up_proj", 2 * hidden), ("down_proj", hidden)] {
            let name = format!("{at}.mlp.experts.{name}");
            self.add(&format!("{name}_bias"), "BF16", &[experts, rows]);
            self.add(
                &format!("{name}_blocks"),
                "U8",
                &[experts, rows, hidden / 32, 16],
            );
            self.add(
                &format!("{name}_scales"),
                "U8",
                &[experts, rows, hidden / 32],
            );
        }
    }
}
