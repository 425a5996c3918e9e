//! Paths of the APIs of a server.

/// Texts before the paths of a server, and in place of their `/v1`.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    base: String,
    /// `None` for `/v1` itself.
    prefix: Option<String>,
}

impl Paths {
    /// Of a server at `base`; `prefix` stands in place of `/v1`.
    pub fn new(base: &str, prefix: Option<&str>) -> Self {
        Self {
            base: base.to_owned(),
            prefix: prefix.map(str::to_owned),
        }
    }

    /// True if every path is the engine's own.
    pub fn are_usual(&self) -> bool {
        self.base.is_empty() && self.prefix.is_none()
    }

    /// The path of a server, of the path as the engine knows it.
    pub fn of(&self, path: &str) -> String {
        let base = &self.base;
        match (&self.prefix, path.strip_prefix("/v1/")) {
            (Some(prefix), Some(rest)) => format!("{base}{prefix}/{rest}"),
            _ => format!("{base}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_in_place_of_v1_and_of_nothing_else() {
        const CHAT: &str = "/v1/chat/completions";
        for (base, prefix, path, whole) in [
            ("", None, CHAT, CHAT),
            ("/llm", None, CHAT, "/llm/v1/chat/completions"),
            (
                "",
                Some("/v1beta/openai"),
                CHAT,
                "/v1beta/openai/chat/completions",
            ),
            ("/llm", Some("/v4"), CHAT, "/llm/v4/chat/completions"),
            ("/llm", Some(""), CHAT, "/llm/chat/completions"),
            ("/llm", Some("/v4"), "/v2/rerank", "/llm/v2/rerank"),
            ("", Some("/v4"), "/pooling", "/pooling"),
        ] {
            let paths = Paths::new(base, prefix);
            assert_eq!(paths.of(path), whole);
            let is_usual = base.is_empty() && prefix.is_none();
            assert_eq!(paths.are_usual(), is_usual, "{whole}");
        }
    }
}
