//! The model of a spec, brought into the hub's cache before its worker starts.
//!
//! By the library in the engine's own Python and with the environment that the worker
//! will have: so it lies where the engine looks, by the login that the spec may use. And
//! within the walls of that worker, as it writes where workers do. What can't be fetched that way
//! is left to the engine, as if this were not.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use tokio::sync::watch;

use super::walls::{WALLS_VARIABLE, Walls};
use super::{Inner, environment, exec};
use crate::config;
use crate::deployment::Handle;
use crate::lifecycle::act::command::{Engine, WorkerCommand, WorkerPlace};
use crate::lifecycle::act::launcher::FetchFailure;
use crate::models::cache::{self, Presence};
use crate::models::hub::{Before, HubModel};
use crate::models::pace::FetchProgress;
use crate::models::refusal::Unfetchable;
use crate::models::source::{ModelSource, check_revision};
use crate::vllm;
use crate::vllm::args::flags;

/// Arguments after which the engine reads the model from elsewhere, or in parts that are
/// not known here.
const ELSEWHERE: [&str; 5] = [
    "--download-dir",
    "--load-format",
    "--model-loader-extra-config",
    "--code-revision",
    "--config",
];

/// True where a spec names a model of the hub.
pub(super) fn names_hub(spec: &config::Deployment) -> bool {
    let is_hub = matches!(ModelSource::parse(&spec.model), Ok(ModelSource::Hub(_)));
    matches!(spec.engine, config::Engine::Vllm(_)) && is_hub
}

impl Inner {
    /// Brings the model of a spec here, if that is to be done and can be.
    pub(super) async fn fetch(
        &self,
        spec: &config::Deployment,
        handle: &Handle,
        progress: &watch::Sender<Option<FetchProgress>>,
    ) -> Result<(), FetchFailure> {
        let Some(fetches) = &self.options.fetches else {
            return Ok(());
        };
        let tell = |line: &str| handle.console.push(&format!("tidegate: {line}"));
        // Most are here, which their engine need not be asked about.
        if self.presence(spec, named(spec), &self.kept(spec)).await == Some(Presence::Whole) {
            return Ok(());
        }
        // What is wrong with the engine or the options is told by the start.
        let Ok(engine) = self.engine(spec, handle).await else {
            return Ok(());
        };
        let Some((model, presence)) = self.missing(spec, &engine).await else {
            return Ok(());
        };
        let hears = |now| {
            progress.send_replace(Some(now));
        };
        let Err(error) = fetches.fetch(&model, hears).await else {
            return Ok(());
        };
        let why = super::chain(error.as_ref());
        match error.verdict() {
            Unfetchable::ByUs => {}
            // Without the network an engine may do with what is there.
            Unfetchable::Now | Unfetchable::Offline if presence == Presence::Part => {}
            Unfetchable::Never | Unfetchable::Offline => return Err(FetchFailure::Never(why)),
            Unfetchable::Now => return Err(FetchFailure::Now(why)),
        }
        tell(&format!("{why}; so its engine is to fetch it"));
        Ok(())
    }

    /// Model to be fetched for a spec, and what of it is here; `None` where it is whole
    /// or its engine's to bring.
    async fn missing(
        &self,
        spec: &config::Deployment,
        engine: &Engine,
    ) -> Option<(HubModel, Presence)> {
        let Engine::Vllm(installation) = engine else {
            return None;
        };
        let engines = &self.options.engines;
        let line = engines.command_line(spec, engine, WorkerPlace::shown());
        let line = line.ok()?;
        let kept = self.kept(spec);
        let walls = self.walls(&line, &kept, (None, &spec.id));
        let mut environment = with(kept, &line);
        let revision = revision(&line.args).ok()?;
        let presence = self.presence(spec, revision.clone(), &environment).await?;
        if presence == Presence::Whole {
            return None;
        }
        // The library reads none of the engine's own variables; so specs that differ in these alone
        // share a fetch.
        let of_engine = vllm::environment::ALL.trim_end_matches('*');
        environment.retain(|(name, _)| !name.to_string_lossy().starts_with(of_engine));
        let python = engines.vllm.python_of(installation).await.ok()?;
        let model = HubModel {
            python,
            name: spec.model.clone(),
            revision,
            environment: Some(environment),
            before: Some(self.before(walls)?),
        };
        Some((model, presence))
    }

    /// Program that keeps a fetch within walls. The fetch runs as a session of its own, with
    /// less weight than this process.
    fn before(&self, walls: Option<Walls>) -> Option<Before> {
        let mut environment = Vec::new();
        if let Some(walls) = walls {
            let walls = serde_json::to_string(&walls).ok()?;
            environment.push((WALLS_VARIABLE.into(), walls.into()));
        }
        Some(Before {
            program: self.options.own.clone(),
            arguments: vec![exec::SUBCOMMAND.into()],
            environment,
        })
    }

    /// Part of a model that its engine would find, with this environment; `None` where it
    /// looks elsewhere than in the hub's cache.
    async fn presence(
        &self,
        spec: &config::Deployment,
        revision: Option<String>,
        environment: &[(OsString, OsString)],
    ) -> Option<Presence> {
        let of = |name: &str| {
            let known = environment.iter().find(|(known, _)| known == name);
            known.map(|(_, value)| value.clone())
        };
        let (cache, name) = (cache::place(of)?, spec.model.clone());
        // It becomes part of a path.
        if revision
            .as_deref()
            .is_some_and(|name| check_revision(name).is_err())
        {
            return None;
        }
        if vllm::environment::is_modelscope(of) || Path::new(&name).exists() {
            return None;
        }
        let record = self.options.fetches.as_ref()?.puller().record.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let record = record.read().unwrap_or_default();
            cache::presence(&cache, &name, revision.as_deref(), &record)
        });
        looked.await.ok()
    }

    /// Variables of our environment that a worker of this spec gets.
    fn kept(&self, spec: &config::Deployment) -> Vec<(OsString, OsString)> {
        let more = &self.options.bounds.sandbox.environment;
        environment::kept(std::env::vars_os(), more, &spec.author)
    }
}

/// The revision that the options of a spec name.
fn named(spec: &config::Deployment) -> Option<String> {
    let config::Engine::Vllm(vllm) = &spec.engine else {
        return None;
    };
    vllm.options.get_text("revision").map(str::to_owned)
}

/// The environment of a worker: what it gets of ours, then what its command adds.
fn with(kept: Vec<(OsString, OsString)>, line: &WorkerCommand) -> Vec<(OsString, OsString)> {
    let own = line.env.iter();
    let own = own.map(|(name, value)| (name.into(), value.into()));
    let is_own = |name: &OsStr| line.env.iter().any(|(own, _)| name == OsStr::new(own));
    let others = kept.into_iter().filter(|(name, _)| !is_own(name));
    let others: Vec<_> = others.collect();
    others.into_iter().chain(own).collect()
}

/// The revision that arguments name.
///
/// # Errors
///
/// They have the engine read the model from elsewhere.
fn revision(args: &[String]) -> Result<Option<String>, ()> {
    let mut found = None;
    for (flag, value) in flags(args) {
        let elsewhere = ELSEWHERE.iter().find(|elsewhere| **elsewhere == flag);
        let is_plain = flag == "--load-format" && matches!(value, Some("auto" | "safetensors"));
        if elsewhere.is_some() && !is_plain {
            return Err(());
        }
        if flag == "--revision" {
            let value = value.unwrap_or_default();
            check_revision(value).map_err(drop)?;
            found = Some(value.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_that_of_the_arguments_and_other_places_are_left_alone() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let found = |text: &str| revision(&args(text));
        assert_eq!(found("serve a/b --port 1"), Ok(None));
        assert_eq!(found("serve a/b --revision v1"), Ok(Some("v1".to_owned())));
        assert_eq!(found("serve a/b --revision=v1"), Ok(Some("v1".to_owned())));
        assert_eq!(found("serve a/b --load-format auto"), Ok(None));
        for elsewhere in [
            "serve a/b --download-dir /x",
            "serve a/b --load-format=dummy",
            "serve a/b --load-format runai_streamer",
            "serve a/b --config x.yaml",
            "serve a/b --revision ../x",
            "serve a/b --revision",
        ] {
            assert_eq!(found(elsewhere), Err(()), "{elsewhere}");
        }
    }

    #[test]
    fn what_the_command_sets_wins_over_what_is_kept() {
        let line = WorkerCommand {
            program: "vllm".into(),
            args: Vec::new(),
            env: vec![("HF_TOKEN".to_owned(), "its own".to_owned())],
            notes: Vec::new(),
            writes: Vec::new(),
        };
        let kept = [("HF_TOKEN", "ours"), ("HF_HOME", "/hf")];
        let kept = kept.map(|(name, value)| (name.into(), value.into()));
        let found = with(kept.to_vec(), &line);
        let expected = [("HF_HOME", "/hf"), ("HF_TOKEN", "its own")];
        let expected = expected.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(found, expected.to_vec());
    }
}
