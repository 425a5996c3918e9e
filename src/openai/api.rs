//! The APIs that are served: a closed allow-list of paths.
//!
//! Owns which paths exist and how the worker spells them. A path is compared as
//! it was sent: nothing is decoded or normalised, so `%2e`, `//`, `..`, `;` and
//! `\` are simply not in the list. Methods and hosts are the gateway's business.

/// One API: each sent by POST, but for [`Self::Realtime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI (legacy) text completions.
    Completions,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// Anthropic token counting.
    CountTokens,
    /// OpenAI embeddings.
    Embeddings,
    /// Cohere embeddings.
    Embed,
    /// Jina and Cohere reranking.
    Rerank,
    /// vLLM similarity scores.
    Score,
    /// vLLM pooling.
    Pooling,
    /// vLLM classification.
    Classify,
    /// vLLM tokenizer.
    Tokenize,
    /// vLLM tokenizer, backwards.
    Detokenize,
    /// OpenAI speech to text.
    Transcriptions,
    /// OpenAI speech to English text.
    Translations,
    /// OpenAI text to speech.
    Speech,
    /// OpenAI image generation.
    Images,
    /// OpenAI changes of an image.
    ImageEdits,
    /// Speech as it is spoken, over a WebSocket. Not sent by POST, so not in
    /// [`Self::ALL`].
    Realtime,
}

impl Api {
    /// Every API that is sent by POST, for tables and tests.
    pub const ALL: [Self; 18] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::CountTokens,
        Self::Embeddings,
        Self::Embed,
        Self::Rerank,
        Self::Score,
        Self::Pooling,
        Self::Classify,
        Self::Tokenize,
        Self::Detokenize,
        Self::Transcriptions,
        Self::Translations,
        Self::Speech,
        Self::Images,
        Self::ImageEdits,
    ];

    /// The API behind a path, or none. One trailing slash is tolerated, because
    /// a redirect would turn a POST into a GET in common clients.
    pub fn from_path(path: &str) -> Option<Self> {
        Some(match path.strip_suffix('/').unwrap_or(path) {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            "/v1/messages/count_tokens" => Self::CountTokens,
            "/v1/embeddings" => Self::Embeddings,
            "/v2/embed" => Self::Embed,
            "/rerank" | "/v1/rerank" | "/v2/rerank" => Self::Rerank,
            "/score" | "/v1/score" => Self::Score,
            "/pooling" | "/v1/pooling" => Self::Pooling,
            "/classify" | "/v1/classify" => Self::Classify,
            "/tokenize" | "/v1/tokenize" => Self::Tokenize,
            "/detokenize" | "/v1/detokenize" => Self::Detokenize,
            "/v1/audio/transcriptions" => Self::Transcriptions,
            "/v1/audio/translations" => Self::Translations,
            "/v1/audio/speech" => Self::Speech,
            "/v1/images/generations" => Self::Images,
            "/v1/images/edits" => Self::ImageEdits,
            _ => return None,
        })
    }

    /// The path as vLLM 0.32 serves it. `given` matters only where versions of
    /// one API differ in form: `/v2/rerank` stays `/v2/rerank`.
    pub fn upstream_path(self, given: &str) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Embeddings => "/v1/embeddings",
            Self::Embed => "/v2/embed",
            Self::Rerank if given.starts_with("/v2/") => "/v2/rerank",
            Self::Rerank => "/v1/rerank",
            Self::Score => "/v1/score",
            // These have no form under /v1 in vLLM 0.32.
            Self::Pooling => "/pooling",
            Self::Classify => "/classify",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
            // vLLM 0.32 has none of these three; other upstreams do.
            Self::Speech => "/v1/audio/speech",
            Self::Images => "/v1/images/generations",
            Self::ImageEdits => "/v1/images/edits",
            Self::Realtime => "/v1/realtime",
        }
    }

    /// The name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Embeddings => "embeddings",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Pooling => "pooling",
            Self::Classify => "classify",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
            Self::Transcriptions => "transcriptions",
            Self::Translations => "translations",
            Self::Speech => "speech",
            Self::Images => "images",
            Self::ImageEdits => "image_edits",
            Self::Realtime => "realtime",
        }
    }

    /// The API of this [`Self::label`].
    pub fn of_label(label: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter().chain([Self::Realtime]);
        all.find(|api| api.label() == label)
    }

    /// True if the body is `multipart/form-data` with `model` as a form field,
    /// so that the JSON scan does not apply.
    pub const fn is_multipart(self) -> bool {
        matches!(
            self,
            Self::Transcriptions | Self::Translations | Self::ImageEdits
        )
    }

    /// True if a response may be a stream of server-sent events.
    pub const fn streams(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Completions
                | Self::Responses
                | Self::Messages
                | Self::Transcriptions
                | Self::Translations
                | Self::Speech
                | Self::Images
                | Self::ImageEdits
        )
    }

    /// True if a stream carries usage only where the request asks for it: by
    /// `stream_options.include_usage`, or by vLLM's form field
    /// `stream_include_usage`.
    pub const fn usage_in_stream_needs_asking(self) -> bool {
        matches!(
            self,
            Self::Chat | Self::Completions | Self::Transcriptions | Self::Translations
        )
    }

    /// True if the events of its streams have `choices`, each with a `finish_reason` at
    /// its end. vLLM writes those of audio like chat's.
    pub const fn has_choices(self) -> bool {
        matches!(
            self,
            Self::Chat | Self::Completions | Self::Transcriptions | Self::Translations
        )
    }

    /// True if clients of this API expect errors in Anthropic's form.
    pub const fn is_anthropic(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
    }
}

/// Some of the APIs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiSet(u32);

impl ApiSet {
    /// Every one.
    pub const ALL: Self = Self(u32::MAX);

    /// Adds one.
    pub fn insert(&mut self, api: Api) {
        self.0 |= Self::bit(api);
    }

    /// True if `api` is among them.
    pub const fn has(self, api: Api) -> bool {
        self.0 & Self::bit(api) != 0
    }

    /// Their bits, one for each API.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// APIs of such bits.
    pub const fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bit of an API.
    pub const fn bit(api: Api) -> u32 {
        1 << (api as u32)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Api> {
        let all = Api::ALL.into_iter().chain([Api::Realtime]);
        all.filter(move |api| self.has(*api))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths_are_served_and_reach_the_workers_spelling() {
        for (given, api, upstream) in [
            ("/v1/chat/completions", Api::Chat, "/v1/chat/completions"),
            ("/v1/chat/completions/", Api::Chat, "/v1/chat/completions"),
            ("/v1/tokenize", Api::Tokenize, "/tokenize"),
            ("/detokenize", Api::Detokenize, "/detokenize"),
            ("/v1/pooling", Api::Pooling, "/pooling"),
            ("/v1/classify/", Api::Classify, "/classify"),
            ("/rerank", Api::Rerank, "/v1/rerank"),
            ("/v2/rerank", Api::Rerank, "/v2/rerank"),
            ("/v2/embed", Api::Embed, "/v2/embed"),
            ("/score", Api::Score, "/v1/score"),
            (
                "/v1/messages/count_tokens",
                Api::CountTokens,
                "/v1/messages/count_tokens",
            ),
        ] {
            assert_eq!(Api::from_path(given), Some(api), "{given}");
            assert_eq!(api.upstream_path(given), upstream, "{given}");
        }
    }

    #[test]
    fn every_upstream_path_is_itself_in_the_list() {
        for api in Api::ALL {
            assert_eq!(Api::from_path(api.upstream_path("")), Some(api));
        }
    }

    #[test]
    fn a_set_has_what_was_put_in_and_every_api_has_a_label_of_its_own() {
        let mut set = ApiSet::default();
        for api in Api::ALL.into_iter().chain([Api::Realtime]) {
            assert!(!set.has(api), "{api:?}");
            set.insert(api);
            assert!(set.has(api), "{api:?}");
            assert_eq!(Api::of_label(api.label()), Some(api));
        }
        assert_eq!(set.iter().count(), 19);
        assert_eq!(ApiSet::of_bits(set.bits()), set);
        assert_eq!(Api::of_label("chats"), None);
    }

    #[test]
    fn nothing_else_is_served() {
        for path in [
            "",
            "/",
            "//",
            "/v1",
            "/v1/",
            "/v1/chat/completions//",
            "//v1/chat/completions",
            "/v1//chat/completions",
            "/v1/chat/../chat/completions",
            "/v1/chat%2Fcompletions",
            "/v1/chat/completion%73",
            "/v1/chat/completions;x",
            "/v1/chat/completions?x",
            "/v1\\chat\\completions",
            "/V1/chat/completions",
            "v1/chat/completions",
            "/v1/chat/completions/batch",
            "/v1/realtime",
            "/embed",
            "/v1/chat/completions/render",
            "/invocations",
            "/generative_scoring",
            "/v1/systemone",
            "/sleep",
            "/wake_up",
            "/collective_rpc",
            "/v1/load_lora_adapter",
            "/metrics",
            "/abort_requests",
        ] {
            assert_eq!(Api::from_path(path), None, "{path}");
        }
    }
}
