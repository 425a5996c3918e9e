//! Abilities of a model, as its engine tells: the routes that it has, its list of models,
//! and the architecture that its log names.
//!
//! Abilities that only the options tell (tools, reasoning) are in [`Capability::by_options`].
//! Nothing here is asked of a client, and what is not known is not claimed.

use super::options::OptionSet;

/// One thing that a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Chats: chat completions, responses, messages.
    Chat,
    /// Goes on with a text.
    Completions,
    /// Turns texts into vectors.
    Embeddings,
    /// Sorts documents by a question.
    Rerank,
    /// Says how like two texts are.
    Score,
    /// Names the class of a text.
    Classify,
    /// Writes down what is said.
    Audio,
    /// Hears while it is spoken to, over a `WebSocket`.
    Realtime,
    /// Asks for calls of functions.
    Tools,
    /// Tells its thoughts apart from its answer.
    Reasoning,
    /// Looks at images.
    Vision,
}

impl Capability {
    /// Its word in lists of models.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Classify => "classify",
            Self::Audio => "audio",
            Self::Realtime => "realtime",
            Self::Tools => "tools",
            Self::Reasoning => "reasoning",
            Self::Vision => "vision",
        }
    }

    /// Those that the options of a deployment imply.
    pub fn by_options(options: &OptionSet) -> Vec<Self> {
        let tools = options.is_on("enable_auto_tool_choice");
        let reasons =
            options.is_on("enable_reasoning") || options.get_text("reasoning_parser").is_some();
        let mut all = match options.get_text("task") {
            Some("generate") => vec![Self::Chat, Self::Completions],
            Some("embed" | "embedding") => vec![Self::Embeddings],
            Some("classify") => vec![Self::Classify],
            Some("score") => vec![Self::Rerank, Self::Score],
            // Only models that chat have these.
            _ if tools || reasons => vec![Self::Chat, Self::Completions],
            _ => Vec::new(),
        };
        all.extend(tools.then_some(Self::Tools));
        all.extend(reasons.then_some(Self::Reasoning));
        all
    }
}

/// Routes that are there only where a model does this; each is asked by GET, which does
/// nothing: 405 where it is there, 404 where it is not.
pub(super) const ROUTES: [(&str, Capability); 7] = [
    ("/v1/chat/completions", Capability::Chat),
    ("/v1/completions", Capability::Completions),
    ("/v1/embeddings", Capability::Embeddings),
    ("/v1/rerank", Capability::Rerank),
    ("/v1/score", Capability::Score),
    ("/classify", Capability::Classify),
    ("/v1/audio/transcriptions", Capability::Audio),
];

/// Facts that an engine told of its model; empty where it told none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The longest prompt and answer together, in tokens.
    pub max_model_len: Option<u64>,
    /// Abilities by its routes.
    routes: Vec<Capability>,
    /// Abilities by its architecture, beside them.
    architecture: Vec<Capability>,
}

impl About {
    /// Takes what its routes are for. Older versions have all routes whatever the model
    /// does, and then they tell nothing.
    pub(super) fn of_routes(max_model_len: Option<u64>, routes: Vec<Capability>) -> Self {
        let all = [Capability::Chat, Capability::Embeddings];
        let tells = !all.iter().all(|one| routes.contains(one));
        Self {
            max_model_len: max_model_len.filter(|length| *length > 0),
            routes: if tells { routes } else { Vec::new() },
            architecture: Vec::new(),
        }
    }

    /// Takes what the name of an architecture tells.
    pub fn of_architecture(name: &str) -> Self {
        Self {
            architecture: of_architecture(name),
            ..Self::default()
        }
    }

    /// Takes over what another source tells.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.max_model_len = other.max_model_len.or(self.max_model_len);
        for (own, told) in [
            (&mut self.routes, &other.routes),
            (&mut self.architecture, &other.architecture),
        ] {
            if !told.is_empty() {
                own.clone_from(told);
            }
        }
        self
    }

    /// Abilities of the model, by this and by its options. Routes outweigh options: they
    /// are there.
    pub fn capabilities(&self, options: &[Capability]) -> Vec<Capability> {
        let by_options = options.iter().filter(|one| {
            self.routes.is_empty() || matches!(one, Capability::Tools | Capability::Reasoning)
        });
        let mut all: Vec<_> = by_options.copied().collect();
        all.extend(&self.routes);
        all.extend(&self.architecture);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Text before the name in a line of the log, in vLLM since 0.10.
const ARCHITECTURE: &str = "Resolved architecture: ";

/// The architecture that a line of the log names.
pub fn architecture_in(line: &str) -> Option<&str> {
    let (_, name) = line.split_once(ARCHITECTURE)?;
    let name = name.trim();
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .then_some(name)
}

/// Parts of names of architectures of vLLM 0.32 that look at images: their families
/// say so in each of their names.
const SEE: [&str; 25] = [
    "VL",
    "Vision",
    "Llava",
    "LlavaNext",
    "InternVL",
    "Gemma3For",
    "Gemma3n",
    "Gemma4For",
    "Mllama",
    "Llama4For",
    "Pixtral",
    "Mistral3For",
    "Phi3V",
    "Phi4MM",
    "MiniCPMV",
    "MiniCPMO",
    "Idefics3",
    "SmolVLM",
    "PaliGemma",
    "Molmo",
    "Ovis",
    "Aria",
    "Glm4v",
    "Qwen2_5Omni",
    "Qwen3Omni",
];

fn of_architecture(name: &str) -> Vec<Capability> {
    let mut all = Vec::new();
    // `Gemma3ForCausalLM` is the text of `Gemma3ForConditionalGeneration`.
    if SEE.iter().any(|part| name.contains(part)) && !name.ends_with("ForCausalLM")
        || SEE_AND_CAUSAL.contains(&name)
    {
        all.push(Capability::Vision);
    }
    if name.contains("Realtime") {
        all.push(Capability::Realtime);
    }
    all
}

/// Architectures that look at images although their names end as those of texts.
const SEE_AND_CAUSAL: [&str; 5] = [
    "Phi3VForCausalLM",
    "Phi4MMForCausalLM",
    "MolmoForCausalLM",
    "DeepseekVLV2ForCausalLM",
    "LlavaLlamaForCausalLM",
];

#[cfg(test)]
mod tests {
    use super::*;
    use Capability as C;

    #[test]
    fn routes_tell_what_a_model_does_unless_all_are_there() {
        let told = About::of_routes(Some(4_096), vec![C::Embeddings, C::Rerank]);
        assert_eq!(told.capabilities(&[]), [C::Embeddings, C::Rerank]);
        // They outweigh what the options imply, but for what only those tell.
        let options = [C::Chat, C::Completions, C::Tools];
        let told = About::of_routes(None, vec![C::Chat]);
        assert_eq!(told.capabilities(&options), [C::Chat, C::Tools]);
        let every = ROUTES.iter().map(|(_, one)| *one).collect();
        let told = About::of_routes(Some(0), every);
        assert_eq!(told, About::default());
        assert_eq!(told.capabilities(&options), options);
    }

    #[test]
    fn what_is_told_later_is_added_to_what_was_told() {
        let seen = About::of_architecture("Qwen2_5_VLForConditionalGeneration");
        let told = About::of_routes(Some(8_192), vec![C::Chat]);
        for both in [seen.clone().with(&told), told.with(&seen)] {
            assert_eq!(both.max_model_len, Some(8_192));
            assert_eq!(both.capabilities(&[]), [C::Chat, C::Vision]);
        }
    }

    #[test]
    fn an_architecture_tells_by_its_name_whether_it_sees_or_hears() {
        for (name, all) in [
            ("LlamaForCausalLM", &[][..]),
            ("Qwen3ForCausalLM", &[]),
            ("Gemma3ForCausalLM", &[]),
            ("BertModel", &[]),
            ("WhisperForConditionalGeneration", &[]),
            ("Gemma3ForConditionalGeneration", &[C::Vision]),
            ("Qwen3VLMoeForConditionalGeneration", &[C::Vision]),
            ("Qwen2_5_VLForConditionalGeneration", &[C::Vision]),
            ("LlavaNextForConditionalGeneration", &[C::Vision]),
            ("InternVLChatModel", &[C::Vision]),
            ("Phi3VForCausalLM", &[C::Vision]),
            ("VoxtralRealtimeGeneration", &[C::Realtime]),
        ] {
            assert_eq!(of_architecture(name), all, "{name}");
        }
    }

    #[test]
    fn only_the_line_of_the_log_names_an_architecture() {
        let line = "(APIServer pid=1) INFO [model.py:733] Resolved architecture: LlamaForCausalLM";
        assert_eq!(architecture_in(line), Some("LlamaForCausalLM"));
        for other in [
            "Starting to load model",
            "Resolved architecture: ",
            "Resolved architecture: a b",
        ] {
            assert_eq!(architecture_in(other), None, "{other}");
        }
    }
}
