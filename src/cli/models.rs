//! `tidegate models`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::common::{ConfigArg, Failure};
use super::out;
use crate::config::{self, Catalog, Engine, Settings, load_catalog};
use crate::models::cache::{self, CachedModel, Wholeness};
use crate::models::directory;
use crate::models::lock::ModelLock;
use crate::models::record::FetchRecord;
use crate::models::source::ModelSource;
use crate::time::unix_seconds;
use crate::units::{Bytes, Span};

/// Characters of a commit that are shown to people.
const COMMIT_CHARS: usize = 12;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Models {
    #[command(subcommand)]
    what: Option<What>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Remove a model that tidegate fetched; what others fetched is left alone
    Remove(Remove),
    /// Remove models that tidegate fetched, no deployment names, and nobody used for long
    Prune(Prune),
}

#[derive(Debug, Args)]
struct Remove {
    /// Its name
    model: String,
    /// The branch, tag or commit to remove [default: all]
    #[arg(long, value_name = "R")]
    revision: Option<String>,
    /// Though a deployment names it
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Prune {
    /// How long nobody used it
    #[arg(long, value_name = "SPAN", default_value_t = Span(Duration::from_hours(30 * 24)))]
    older_than: Span,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// A model as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    model: String,
    revisions: Vec<String>,
    commit: Option<String>,
    bytes: u64,
    /// Seconds since 1970.
    last_used: Option<u64>,
    /// `whole`, `part`, `broken` or `absent`.
    state: &'static str,
    /// Bytes of all of it, where they are known.
    bytes_whole: Option<u64>,
    /// The fault that it has.
    why: Option<String>,
    /// True if `tidegate pull` brought it.
    fetched_by_tidegate: bool,
    deployments: Vec<String>,
    path: Option<PathBuf>,
}

/// Name of something that a deployment loads.
struct Named {
    model: String,
    /// `None`: whatever the hub's default is.
    revision: Option<String>,
    deployment: String,
}

impl Models {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let settings = self.config.load()?;
        let record = FetchRecord::at(&settings.gateway.state);
        let catalog = load_catalog(&settings.gateway.routes, &settings.queues, None);
        let named = named(&catalog);
        let models = scanned(&record)?;
        match self.what {
            None => show(&models, &named, self.json),
            Some(What::Remove(remove)) => remove.run(&models, &named, &record),
            Some(What::Prune(prune)) => prune.run(&models, &named, &record, &catalog, &settings),
        }
    }
}

fn scanned(record: &FetchRecord) -> Result<Vec<CachedModel>, Failure> {
    let place = cache::place(|name| std::env::var_os(name));
    let place = place.ok_or("no cache of the hub is known: set HOME or HF_HOME")?;
    Ok(cache::scan(&place, &record.read()?))
}

/// Names that the deployments load: models, tokenizers, drafts and adapters.
fn named(catalog: &Catalog) -> Vec<Named> {
    let specs = catalog.instances.iter().flat_map(|i| &i.deployments);
    specs.flat_map(|spec| named_by(spec)).collect()
}

fn named_by(spec: &config::Deployment) -> Vec<Named> {
    let Engine::Vllm(vllm) = &spec.engine else {
        return Vec::new();
    };
    let text = |name| vllm.options.get_text(name).map(str::to_owned);
    let named = |model: String, revision: Option<String>| Named {
        model,
        revision,
        deployment: spec.id.to_string(),
    };
    let mut all = vec![named(spec.model.clone(), text("revision"))];
    all.extend(text("tokenizer").map(|model| named(model, text("tokenizer_revision"))));
    all.extend(text("speculative_model").map(|model| named(model, None)));
    let adapters = vllm.options.adapters().into_iter();
    all.extend(adapters.map(|(_, model)| named(model, None)));
    all
}

/// True if this name stands for a commit that the cache has.
fn stands_for(named: &Named, model: &CachedModel) -> bool {
    let revision = named.revision.as_deref().unwrap_or("main");
    let kept = model.kept.as_ref().map(|kept| kept.revision.as_str());
    named.model == model.name
        && (revision == model.commit
            || kept == Some(revision)
            || model.revisions.iter().any(|known| known == revision))
}

fn users(model: &CachedModel, named: &[Named]) -> Vec<String> {
    let users = named.iter().filter(|named| stands_for(named, model));
    let mut users: Vec<String> = users.map(|named| named.deployment.clone()).collect();
    users.sort();
    users.dedup();
    users
}

fn show(models: &[CachedModel], named: &[Named], json: bool) -> Result<ExitCode, Failure> {
    let mut shown: Vec<Shown> = models.iter().map(|model| of_cache(model, named)).collect();
    for other in named {
        let known = models.iter().any(|model| stands_for(other, model));
        let mut same = shown.iter_mut().filter(|row| row.model == other.model);
        let same = same.find(|row| row.commit.is_none() && row.revisions == revision_of(other));
        match same {
            Some(row) if !row.deployments.contains(&other.deployment) => {
                row.deployments.push(other.deployment.clone());
            }
            Some(_) => {}
            None if known => {}
            None => shown.push(elsewhere(other)),
        }
    }
    if json {
        out::json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = [
        "MODEL",
        "REVISION",
        "SIZE",
        "LAST USED",
        "STATE",
        "FETCHED BY",
        "DEPLOYMENTS",
    ];
    let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
    out::table(&header, &rows)?;
    for model in &shown {
        if let Some(why) = &model.why {
            out::line(format_args!("\n{}: {why}", model.model))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of_cache(model: &CachedModel, named: &[Named]) -> Shown {
    let (state, bytes_whole, why) = match &model.wholeness {
        Wholeness::Whole => ("whole", Some(model.bytes), None),
        Wholeness::Part { total, .. } => ("part", *total, None),
        Wholeness::Broken(why) => ("broken", None, Some(why.clone())),
    };
    Shown {
        model: model.name.clone(),
        revisions: model.revisions.clone(),
        commit: Some(model.commit.clone()),
        bytes: model.bytes,
        last_used: (model.used > 0).then_some(model.used),
        state,
        bytes_whole,
        why,
        fetched_by_tidegate: model.kept.is_some(),
        deployments: users(model, named),
        path: Some(model.path.clone()),
    }
}

fn revision_of(named: &Named) -> Vec<String> {
    named.revision.clone().into_iter().collect()
}

/// A model that a deployment names and the cache does not have.
fn elsewhere(named: &Named) -> Shown {
    let mut shown = Shown {
        model: named.model.clone(),
        revisions: revision_of(named),
        commit: None,
        bytes: 0,
        last_used: None,
        state: "absent",
        bytes_whole: None,
        why: None,
        fetched_by_tidegate: false,
        deployments: vec![named.deployment.clone()],
        path: None,
    };
    match ModelSource::parse(&named.model) {
        Ok(ModelSource::Directory(path)) => {
            match directory::look(&path) {
                Ok(bytes) => (shown.state, shown.bytes) = ("whole", bytes),
                Err(why) => (shown.state, shown.why) = ("broken", Some(why)),
            }
            shown.bytes_whole = (shown.state == "whole").then_some(shown.bytes);
            shown.path = Some(path);
        }
        Ok(ModelSource::Hub(_)) => {}
        Err(error) => shown.why = Some(error.to_string()),
    }
    shown
}

fn row(shown: &Shown) -> Vec<String> {
    let dash = || "-".to_owned();
    let commit = shown.commit.as_deref().unwrap_or("-");
    let revision = if shown.revisions.is_empty() {
        commit.chars().take(COMMIT_CHARS).collect()
    } else {
        shown.revisions.join(", ")
    };
    let state = match (shown.state, shown.bytes_whole) {
        ("part", Some(whole)) => {
            let percent = shown.bytes.saturating_mul(100).checked_div(whole);
            format!("{}% of {}", percent.unwrap_or(100), Bytes(whole))
        }
        (state, _) => state.to_owned(),
    };
    let used = |used| format!("{} ago", out::ago(unix_seconds().saturating_sub(used)));
    vec![
        shown.model.clone(),
        revision,
        Bytes(shown.bytes).to_string(),
        shown.last_used.map_or_else(dash, used),
        state,
        match (shown.fetched_by_tidegate, &shown.commit) {
            (true, _) => "tidegate".to_owned(),
            (false, Some(_)) => "others".to_owned(),
            (false, None) => dash(),
        },
        if shown.deployments.is_empty() {
            dash()
        } else {
            shown.deployments.join(", ")
        },
    ]
}

/// Takes a model off the disk; returns whether it was.
fn take_off(model: &CachedModel, record: &FetchRecord) -> Result<bool, Failure> {
    let Some(kept) = &model.kept else {
        return Ok(false);
    };
    let said = format!("{} at {}", model.name, model.commit);
    let lock = ModelLock::take(&kept.folder);
    let lock = lock.map_err(|error| format!("the cache of {said} can't be written: {error}"))?;
    let Some(_lock) = lock else {
        out::note(&format!("{said}: a fetch of it is at work, so it stays"));
        return Ok(false);
    };
    let freed = cache::remove(kept, record);
    let freed = freed.map_err(|error| format!("{said} can't be removed: {error}"))?;
    out::line(format_args!("removed {said}: {}", Bytes(freed)))?;
    Ok(true)
}

impl Remove {
    fn run(
        self,
        models: &[CachedModel],
        named: &[Named],
        record: &FetchRecord,
    ) -> Result<ExitCode, Failure> {
        let name = &self.model;
        let fits = |model: &&CachedModel| {
            let kept = model.kept.as_ref().map(|kept| &kept.revision);
            let revision = self.revision.as_ref();
            model.name == *name
                && revision.is_none_or(|revision| {
                    model.commit == *revision
                        || kept == Some(revision)
                        || model.revisions.contains(revision)
                })
        };
        let found: Vec<&CachedModel> = models.iter().filter(fits).collect();
        let ours: Vec<_> = found.iter().filter(|model| model.kept.is_some()).collect();
        if let (true, Some(other)) = (ours.is_empty(), found.first()) {
            let path = other.path.display();
            return Err(format!("{name} was not fetched by tidegate, so it stays: remove it with what brought it, or {path} by hand").into());
        }
        if ours.is_empty() {
            return Err(
                format!("no such model was fetched: {name}; `tidegate models` lists all").into(),
            );
        }
        for model in &ours {
            let users = users(model, named);
            if !users.is_empty() && !self.force {
                let (users, verb) = (
                    users.join(", "),
                    if users.len() == 1 { "names" } else { "name" },
                );
                return Err(format!(
                    "{users} {verb} {name}: take it out of the route files first, or say --force"
                )
                .into());
            }
        }
        let mut all = true;
        for model in ours {
            all &= take_off(model, record)?;
        }
        Ok(if all {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

impl Prune {
    fn run(
        self,
        models: &[CachedModel],
        named: &[Named],
        record: &FetchRecord,
        catalog: &Catalog,
        settings: &Settings,
    ) -> Result<ExitCode, Failure> {
        if let Some(error) = catalog.errors.first() {
            // The models that it names are not known.
            let routes = settings.gateway.routes.display();
            return Err(format!("a file in {routes} can't be read, so it is not known which models are in use: {error}").into());
        }
        let now = unix_seconds();
        let age = self.older_than.0.as_secs();
        let (mut count, mut bytes) = (0_u32, 0);
        for model in models {
            let is_old = now.saturating_sub(model.used) >= age;
            if model.kept.is_none() || !is_old || !users(model, named).is_empty() {
                continue;
            }
            if self.dry_run {
                let (name, commit, size) = (&model.name, &model.commit, Bytes(model.bytes));
                let used = out::ago(now.saturating_sub(model.used));
                out::line(format_args!(
                    "would remove {name} at {commit}: {size}, last used {used} ago"
                ))?;
            } else if !take_off(model, record)? {
                continue;
            }
            count += 1;
            bytes += model.bytes;
        }
        let verb = if self.dry_run { "would be" } else { "were" };
        let models = crate::units::counted(count, "model");
        out::line(format_args!("{models}, {} {verb} removed", Bytes(bytes)))?;
        Ok(ExitCode::SUCCESS)
    }
}
