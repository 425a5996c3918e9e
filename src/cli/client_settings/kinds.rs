//! The clients, and what each of them reads.
//!
//! Those that `.ci/clients` starts are started with exactly these settings.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

/// A client that has settings here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    ClaudeCode,
    Codex,
    #[value(name = "opencode")]
    OpenCode,
    Aider,
    OpenWebui,
    Continue,
    Cline,
    Zed,
    Cursor,
    Llm,
    OpenaiPython,
    OpenaiNode,
    Curl,
}

/// Settings for a client.
#[derive(Debug, Default)]
pub(super) struct ClientSettings {
    pub(super) file: Option<File>,
    /// Variables of its environment.
    pub(super) variables: Vec<(&'static str, Value)>,
    /// Command that starts it, or asks something; empty where that needs no arguments.
    pub(super) command: Vec<String>,
    /// Steps for a person, where nothing else can.
    pub(super) steps: Vec<String>,
    /// A program.
    pub(super) code: Option<String>,
}

/// The value of a variable.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Token,
}

/// A file of settings.
#[derive(Debug)]
pub(super) struct File {
    /// Path from the home directory.
    pub(super) path: &'static str,
    pub(super) form: Form,
    pub(super) text: String,
}

/// Form of a file, and so the way in which something comes into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Toml,
    /// Written only where there is none yet.
    Yaml,
}

/// The variable that has the token where a client lets us choose.
const TOKEN: &str = "TIDEGATE_TOKEN";

impl Kind {
    pub(super) fn settings(self, at: &Facing) -> ClientSettings {
        match self {
            Self::ClaudeCode => claude_code(at),
            Self::Codex => codex(at),
            Self::OpenCode => opencode(at),
            Self::Aider => aider(at),
            Self::OpenWebui => open_webui(at),
            Self::Continue => r#continue(at),
            Self::Cline => cline(at),
            Self::Zed => zed(at),
            Self::Cursor => cursor(at),
            Self::Llm => llm(at),
            Self::OpenaiPython => openai_python(at),
            Self::OpenaiNode => openai_node(at),
            Self::Curl => curl(at),
        }
    }
}

/// Facts of the gateway for a client.
#[derive(Debug)]
pub(super) struct Facing {
    /// URL without a path.
    pub(super) url: String,
    pub(super) model: String,
    /// `None` where the system trusts whoever signed its certificate.
    pub(super) ca: Option<String>,
    /// `None` where there is no token yet.
    pub(super) token_file: Option<PathBuf>,
    /// The longest prompt and answer together, in tokens.
    pub(super) context: u64,
}

impl Facing {
    fn v1(&self) -> String {
        format!("{}/v1", self.url)
    }

    /// The variable by which a client learns of the authority; none where it needs not.
    fn authority(&self, name: &'static str) -> Option<(&'static str, Value)> {
        self.ca.clone().map(|ca| (name, Value::Text(ca)))
    }

    /// Most tokens of the context that an answer may take.
    fn output(&self) -> u64 {
        (self.context / 4).clamp(1, 8_192)
    }
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// A text in quotes, for JSON, YAML, Python and JavaScript alike.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn claude_code(at: &Facing) -> ClientSettings {
    let mut variables = vec![
        ("ANTHROPIC_BASE_URL", text(&at.url)),
        ("ANTHROPIC_AUTH_TOKEN", Value::Token),
        ("ANTHROPIC_MODEL", text(&at.model)),
        // Else its background calls ask for a model that is not here.
        ("ANTHROPIC_SMALL_FAST_MODEL", text(&at.model)),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", text("1")),
        (
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
            text(at.output().to_string()),
        ),
    ];
    variables.extend(at.authority("NODE_EXTRA_CA_CERTS"));
    ClientSettings {
        variables,
        command: words(["claude"]),
        ..ClientSettings::default()
    }
}

fn codex(at: &Facing) -> ClientSettings {
    let string = |text: String| toml::Value::String(text).to_string();
    let mut variables = vec![(TOKEN, Value::Token)];
    variables.extend(at.authority("CODEX_CA_CERTIFICATE"));
    ClientSettings {
        file: Some(File {
            path: ".codex/config.toml",
            form: Form::Toml,
            text: format!(
                "model_provider = \"tidegate\"\nmodel = {}\n\n[model_providers.tidegate]\nname = \"Tidegate\"\n\
                 base_url = {}\nenv_key = \"{TOKEN}\"\nwire_api = \"responses\"\n\
                 # Half a minute, also where a limit is reached, and before it tells of a wrong token.\n\
                 stream_max_retries = 7\n",
                string(at.model.clone()),
                string(at.v1()),
            ),
        }),
        variables,
        command: words(["codex"]),
        ..ClientSettings::default()
    }
}

fn opencode(at: &Facing) -> ClientSettings {
    let model = format!("tidegate/{}", at.model);
    let mut models = serde_json::Map::new();
    let limit = json!({ "limit": { "context": at.context, "output": at.output() } });
    models.insert(at.model.clone(), limit);
    let settings = json!({
        "model": model,
        "small_model": model,
        "provider": { "tidegate": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Tidegate",
            "options": { "baseURL": at.v1(), "apiKey": format!("{{env:{TOKEN}}}") },
            "models": models,
        }},
    });
    let mut variables = vec![(TOKEN, Value::Token)];
    variables.extend(at.authority("NODE_EXTRA_CA_CERTS"));
    ClientSettings {
        file: Some(File {
            path: ".config/opencode/opencode.json",
            form: Form::Json,
            text: format!("{settings:#}\n"),
        }),
        variables,
        command: words(["opencode"]),
        ..ClientSettings::default()
    }
}

fn aider(at: &Facing) -> ClientSettings {
    let mut variables = vec![("OPENAI_API_KEY", Value::Token)];
    variables.extend(at.authority("SSL_CERT_FILE"));
    ClientSettings {
        file: Some(File {
            path: ".aider.conf.yml",
            form: Form::Yaml,
            text: format!(
                "model: {}\nopenai-api-base: {}\nshow-model-warnings: false\n",
                quoted(&format!("openai/{}", at.model)),
                quoted(&at.v1()),
            ),
        }),
        variables,
        command: words(["aider"]),
        ..ClientSettings::default()
    }
}

fn open_webui(at: &Facing) -> ClientSettings {
    let mut variables = vec![
        ("OPENAI_API_BASE_URL", text(at.v1())),
        ("OPENAI_API_KEY", Value::Token),
        ("ENABLE_OLLAMA_API", text("False")),
    ];
    variables.extend(at.authority("SSL_CERT_FILE"));
    ClientSettings {
        variables,
        command: words(["open-webui", "serve"]),
        ..ClientSettings::default()
    }
}

fn r#continue(at: &Facing) -> ClientSettings {
    let mut variables = vec![(TOKEN, Value::Token)];
    variables.extend(at.authority("NODE_EXTRA_CA_CERTS"));
    ClientSettings {
        file: Some(File {
            path: ".continue/config.yaml",
            form: Form::Yaml,
            text: format!(
                "name: Tidegate\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: {model}\n    provider: openai\n    \
                 model: {model}\n    apiBase: {base}\n    apiKey: ${{{{ secrets.{TOKEN} }}}}\n    \
                 roles: [chat, edit, apply]\n    capabilities: [tool_use]\n",
                model = quoted(&at.model),
                base = quoted(&at.v1()),
            ),
        }),
        variables,
        steps: vec![format!(
            "Editors do not pass on what a shell exports: there, {TOKEN}=… goes into ~/.continue/.env"
        )],
        ..ClientSettings::default()
    }
}

fn cline(at: &Facing) -> ClientSettings {
    ClientSettings {
        variables: at.authority("NODE_EXTRA_CA_CERTS").into_iter().collect(),
        steps: vec![
            "In Cline's settings: API Provider: OpenAI Compatible".to_owned(),
            format!("Base URL: {}", at.v1()),
            format!("Model ID: {}", at.model),
            format!("Model Configuration: Context Window Size {}", at.context),
            api_key(at, "OpenAI Compatible API Key"),
            "Start the editor from a shell with the variable above, where there is one".to_owned(),
        ],
        ..ClientSettings::default()
    }
}

fn zed(at: &Facing) -> ClientSettings {
    let settings = json!({ "language_models": { "openai_compatible": { "Tidegate": {
        "api_url": at.v1(),
        "available_models": [{
            "name": at.model,
            "display_name": at.model,
            "max_tokens": at.context,
            "max_output_tokens": at.output(),
        }],
    }}}});
    ClientSettings {
        file: Some(File {
            path: ".config/zed/settings.json",
            form: Form::Json,
            text: format!("{settings:#}\n"),
        }),
        variables: vec![("TIDEGATE_API_KEY", Value::Token)],
        steps: at
            .ca
            .iter()
            .map(|ca| format!("Zed trusts what the system trusts: add {ca} there"))
            .collect(),
        ..ClientSettings::default()
    }
}

fn cursor(at: &Facing) -> ClientSettings {
    ClientSettings {
        steps: vec![
            "In Cursor's settings, under Models: Override OpenAI Base URL".to_owned(),
            format!("Base URL: {}", at.v1()),
            format!("Add a model: {}", at.model),
            api_key(at, "OpenAI API Key"),
            "Its requests come from Cursor's own servers: the address must be reached from the internet, by a name with a certificate that everyone trusts".to_owned(),
        ],
        ..ClientSettings::default()
    }
}

fn api_key(at: &Facing, name: &str) -> String {
    match &at.token_file {
        Some(file) => format!("{name}: what stands in {}", file.display()),
        None => format!("{name}: YOUR_TOKEN"),
    }
}

fn llm(at: &Facing) -> ClientSettings {
    let mut variables = vec![("OPENAI_API_KEY", Value::Token)];
    variables.extend(at.authority("SSL_CERT_FILE"));
    ClientSettings {
        file: Some(File {
            path: ".config/io.datasette.llm/extra-openai-models.yaml",
            form: Form::Yaml,
            text: format!(
                "- model_id: tidegate\n  model_name: {}\n  api_base: {}\n  api_key_name: tidegate\n",
                quoted(&at.model),
                quoted(&at.v1()),
            ),
        }),
        variables,
        command: words(["llm", "-m", "tidegate", "Hello!"]),
        ..ClientSettings::default()
    }
}

fn openai_python(at: &Facing) -> ClientSettings {
    let mut variables = sdk(at);
    variables.extend(at.authority("SSL_CERT_FILE"));
    ClientSettings {
        variables,
        code: Some(format!(
            "import openai\nanswer = openai.OpenAI().chat.completions.create(\n    model={},\n    \
             messages=[{{\"role\": \"user\", \"content\": \"Hello!\"}}],\n)\nprint(answer.choices[0].message.content)\n",
            quoted(&at.model),
        )),
        ..ClientSettings::default()
    }
}

fn openai_node(at: &Facing) -> ClientSettings {
    let mut variables = sdk(at);
    variables.extend(at.authority("NODE_EXTRA_CA_CERTS"));
    ClientSettings {
        variables,
        code: Some(format!(
            "import OpenAI from \"openai\";\nconst answer = await new OpenAI().chat.completions.create({{\n  model: {},\n  \
             messages: [{{ role: \"user\", content: \"Hello!\" }}],\n}});\nconsole.log(answer.choices[0].message.content);\n",
            quoted(&at.model),
        )),
        ..ClientSettings::default()
    }
}

fn sdk(at: &Facing) -> Vec<(&'static str, Value)> {
    vec![
        ("OPENAI_BASE_URL", text(at.v1())),
        ("OPENAI_API_KEY", Value::Token),
    ]
}

fn curl(at: &Facing) -> ClientSettings {
    let body = json!({
        "model": at.model,
        "messages": [{ "role": "user", "content": "Hello!" }],
    });
    let mut command = words(["curl"]);
    if let Some(ca) = &at.ca {
        command.extend(["--cacert".to_owned(), ca.clone()]);
    }
    command.extend([
        format!("{}/chat/completions", at.v1()),
        "-H".to_owned(),
        format!("Authorization: Bearer ${TOKEN}"),
        "-H".to_owned(),
        "Content-Type: application/json".to_owned(),
        "-d".to_owned(),
        body.to_string(),
    ]);
    ClientSettings {
        variables: vec![(TOKEN, Value::Token)],
        command,
        ..ClientSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facing(model: &str) -> Facing {
        Facing {
            url: "https://gateway.example:8443".to_owned(),
            model: model.to_owned(),
            ca: Some("/etc/tidegate/ca.pem".to_owned()),
            token_file: Some("/home/ana/my token".into()),
            context: 16_384,
        }
    }

    #[test]
    fn each_file_has_its_form_whatever_the_model_is_called() {
        for model in ["qwen3-8b", "Qwen/Qwen3-8B", "a'b:#{c}", "-x,y]"] {
            let at = facing(model);
            for kind in Kind::value_variants() {
                let settings = kind.settings(&at);
                let Some(file) = settings.file else { continue };
                assert!(file.text.ends_with('\n') && !file.path.starts_with('/'));
                match file.form {
                    Form::Json => {
                        let read: serde_json::Value = serde_json::from_str(&file.text).unwrap();
                        assert!(read.is_object(), "{kind:?}");
                    }
                    Form::Toml => {
                        let read: toml::Table = file.text.parse().unwrap();
                        assert_eq!(read["model"].as_str(), Some(model));
                    }
                    // A text of JSON is one of YAML, and nothing else of ours is quoted.
                    Form::Yaml => {
                        assert!(!file.text.contains('\t'), "{kind:?}");
                        for line in file.text.lines() {
                            let (_, value) = line.split_once(": ").unwrap_or((line, ""));
                            if value.starts_with('"') {
                                serde_json::from_str::<String>(value).unwrap();
                            }
                        }
                        let named = quoted(model);
                        let named = named.trim_matches('"');
                        assert!(file.text.contains(named), "{kind:?}: {}", file.text);
                    }
                }
            }
        }
    }

    #[test]
    fn every_client_is_told_the_address_and_where_its_token_comes_from() {
        let at = facing("qwen3-8b");
        for kind in Kind::value_variants() {
            let settings = kind.settings(&at);
            let all = format!("{settings:?}");
            assert!(all.contains("https://gateway.example:8443"), "{kind:?}");
            // Open WebUI lists what there is.
            assert!(
                all.contains("qwen3-8b") || *kind == Kind::OpenWebui,
                "{kind:?}"
            );
            let told = all.contains("Token") || all.contains("my token");
            assert!(told, "{kind:?}");
            // Cursor can use none: its requests come from elsewhere.
            assert!(all.contains("ca.pem") || *kind == Kind::Cursor, "{kind:?}");
        }
    }

    #[test]
    fn without_an_authority_of_its_own_no_client_is_told_of_one() {
        let at = Facing {
            ca: None,
            ..facing("qwen3-8b")
        };
        for kind in Kind::value_variants() {
            let all = format!("{:?}", kind.settings(&at));
            assert!(!all.contains("CERT") && !all.contains("cacert"), "{all}");
        }
    }
}
