//! `tidegate client NAME`: the settings with which a client works with this gateway.
//!
//! Owns where address, authority, token and model are taken from, and how the settings
//! are shown. What they are for each client stands in [`kinds`]; how they come into a
//! file that is there already, in [`merge`]. No token is printed for people, but the
//! name of its file.

mod kinds;
mod merge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::Uri;
use serde::Serialize;

use super::common::{ConfigArg, Failure};
use super::out;
use crate::config::{Engine, Route, Settings, load_catalog};
use crate::names::ModelName;
use kinds::{ClientSettings, Facing, Kind, Value};

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// The client
    #[arg(value_enum, value_name = "NAME")]
    kind: Kind,
    /// Write them into the client's file, beside what stands there, and show what changed
    #[arg(long)]
    write: bool,
    /// Address of the gateway, as clients reach it [default: its first listener here]
    #[arg(long, value_name = "URL", value_parser = address)]
    url: Option<String>,
    /// The model to ask [default: the first of the route files]
    #[arg(long)]
    model: Option<ModelName>,
    /// The file that holds the token, alone [default: the demo token's]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authority of its certificate [default: the one that was made here]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON, with the token in it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// An address without a path: what stands behind it differs by client.
fn address(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "write the address alone, as https://gateway.example.org:8443; {text:?} is not, and each client gets the path that it needs"
        )
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().filter(|s| ["https", "http"].contains(s));
    let host = uri.authority().filter(|host| !host.as_str().contains('@'));
    match (scheme, host) {
        (Some(scheme), Some(host)) if matches!(uri.path(), "" | "/") && uri.query().is_none() => {
            Ok(format!("{scheme}://{host}"))
        }
        _ => Err(wrong()),
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    file: Option<ShownFile<'a>>,
    environment: BTreeMap<&'static str, String>,
    command: &'a [String],
    steps: &'a [String],
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct ShownFile<'a> {
    path: PathBuf,
    text: &'a str,
}

impl ClientArgs {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let facing = self.facing(&settings)?;
        let found = self.kind.settings(&facing);
        if self.write && found.file.is_none() {
            let text = "this client has no file of settings that can be written for you: leave out --write, and do what is printed";
            return Err(text.into());
        }
        if self.json {
            out::json(&shown(&found, &facing)?)?;
        }
        match &found.file {
            Some(file) if self.write => {
                let path = home()?.join(file.path);
                let change = merge::change(&path, file)?;
                if !self.json {
                    out::line(change.diff.trim_end())?;
                }
                change.write()?;
            }
            Some(file) if !self.json => {
                out::line(format_args!("# In ~/{}", file.path))?;
                out::line(file.text.trim_end())?;
            }
            _ => {}
        }
        if !self.json {
            rest(&found, &facing)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn facing(&self, settings: &Settings) -> Result<Facing, Failure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => own_address(settings)?,
        };
        let catalog = load_catalog(&settings.gateway.routes, &settings.queues, None);
        let routes = || catalog.routes.iter().filter(|route| route.enabled);
        let model = match &self.model {
            Some(model) => model.to_string(),
            None => routes().find_map(|route| first_model(route)).ok_or(
                "no model is served here yet: name the one that is to be asked with --model",
            )?,
        };
        let context = routes().find_map(|route| context_of(route, &model));
        let ca = match &self.ca {
            Some(ca) => Some(existing(ca, "--ca")?),
            None if url.starts_with("http:") => None,
            None => {
                let made = settings.tls.certificate.with_file_name("ca.pem");
                is_there(&made)?
                    .then(|| existing(&made, "the authority"))
                    .transpose()?
            }
        };
        let demo = settings.gateway.state.join("demo.token");
        let token_file = match &self.token_file {
            Some(file) => Some(existing(file, "--token-file")?.into()),
            None if is_there(&demo)? => Some(std::path::absolute(demo)?),
            None => None,
        };
        if token_file.is_none() {
            out::note(
                "there is no token yet: make one with `tidegate token create`, and name its file with --token-file",
            );
        }
        Ok(Facing {
            url,
            model,
            ca,
            token_file,
            context: context.unwrap_or(131_072),
        })
    }
}

/// True if something is there; an error if that can't be told.
fn is_there(path: &Path) -> Result<bool, Failure> {
    path.try_exists()
        .map_err(|error| format!("{} can't be looked for: {error}", path.display()).into())
}

/// The path of a file that is there, from the root.
fn existing(file: &Path, what: &str) -> Result<String, Failure> {
    if !file.is_file() {
        return Err(format!("{what}: there is no file {}", file.display()).into());
    }
    let path = std::path::absolute(file)?;
    let text = path
        .to_str()
        .ok_or("a path that is no UTF-8 can't stand in settings")?;
    Ok(text.to_owned())
}

/// The first listener, as this machine reaches it.
fn own_address(settings: &Settings) -> Result<String, Failure> {
    let gateway = &settings.gateway;
    let secure = gateway.listen.first().map(|address| ("https", address));
    let (scheme, address) = secure
        .or_else(|| {
            gateway
                .plain_listen
                .first()
                .map(|address| ("http", address))
        })
        .ok_or("gateway.listen names no address: give one with --url")?;
    let host = if address.ip().is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    };
    Ok(format!("{scheme}://{host}"))
}

/// The first name of a route that stands for one model.
fn first_model(route: &Route) -> Option<String> {
    let own = route
        .deployments
        .iter()
        .map(|own| own.endpoint_name.to_string());
    let named = route.models.iter().map(ToString::to_string);
    own.chain(named).find(|name| !name.contains('*'))
}

/// The longest prompt and answer of a model that a route runs, where it is written.
fn context_of(route: &Route, model: &str) -> Option<u64> {
    let own = route.deployments.iter();
    let found = own
        .filter(|own| own.endpoint_name.as_str() == model)
        .find_map(|own| match &own.engine {
            Engine::Sim(sim) => Some(i64::from(sim.max_model_len)),
            Engine::Vllm(vllm) => vllm.options.get_integer("max_model_len"),
        });
    found
        .and_then(|length| u64::try_from(length).ok())
        .filter(|length| *length > 0)
}

fn home() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(PathBuf::from)
        .ok_or_else(|| "HOME is not set, and the client's file stands below it".into())
}

/// The token itself.
fn token(facing: &Facing) -> Result<String, Failure> {
    let Some(file) = &facing.token_file else {
        return Ok("YOUR_TOKEN".to_owned());
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{} must hold the token alone, on one line", file.display()).into());
    }
    Ok(text.to_owned())
}

fn shown<'a>(found: &'a ClientSettings, facing: &Facing) -> Result<Shown<'a>, Failure> {
    let mut environment = BTreeMap::new();
    for (name, value) in &found.variables {
        let value = match value {
            Value::Token => token(facing)?,
            Value::Text(text) => text.clone(),
        };
        environment.insert(*name, value);
    }
    let file = match &found.file {
        Some(file) => Some(ShownFile {
            path: home()?.join(file.path),
            text: &file.text,
        }),
        None => None,
    };
    Ok(Shown {
        file,
        environment,
        command: &found.command,
        steps: &found.steps,
        code: found.code.as_deref(),
    })
}

/// All but the file, for a shell and for people.
fn rest(found: &ClientSettings, facing: &Facing) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for (name, value) in &found.variables {
        let value = match (value, &facing.token_file) {
            (Value::Text(text), _) => quoted(text),
            (Value::Token, None) => "YOUR_TOKEN".to_owned(),
            (Value::Token, Some(file)) => {
                format!("\"$(cat {})\"", quoted(&file.to_string_lossy()))
            }
        };
        lines.push(format!("export {name}={value}"));
    }
    if !found.command.is_empty() {
        let words: Vec<_> = found.command.iter().map(|word| quoted(word)).collect();
        lines.push(words.join(" "));
    }
    lines.extend(found.steps.iter().map(|step| format!("# {step}")));
    for line in lines {
        out::line(line)?;
    }
    if let Some(code) = &found.code {
        out::line(code.trim_end())?;
    }
    Ok(())
}

/// A word of a shell, whatever is in it; `$TIDEGATE_TOKEN` is looked up there.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else if text.ends_with("$TIDEGATE_TOKEN") {
        format!("\"{text}\"")
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_path_and_no_password() {
        for (text, good) in [
            ("https://a.example:8443", "https://a.example:8443"),
            ("https://a.example/", "https://a.example"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "https://a/v1",
            "https://u:p@a",
            "https://a/?x",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shell_reads_each_word_as_it_is() {
        assert_eq!(quoted("openai/a-b"), "openai/a-b");
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(quoted(""), "''");
        assert_eq!(
            quoted("Authorization: Bearer $TIDEGATE_TOKEN"),
            "\"Authorization: Bearer $TIDEGATE_TOKEN\""
        );
    }
}
