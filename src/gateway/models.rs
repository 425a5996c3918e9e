//! `GET /v1/models`: the models that a token may use, and how each stands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

use super::answer::body::Body;
use super::refusal::Refusal;
use super::request::entry::Entry;
use super::route::find::{may_use, named, unknown};
use super::route::table::{Backend, Destination, Table, Target};
use crate::auth::Principal;
use crate::config::Engine;
use crate::deployment::{Handle, Status};
use crate::openai::models::{Form, ModelEntry, Readiness, State, list_body};
use crate::vllm::about::{About, Capability};

/// The form that a client reads: Anthropic's, where it says which version of that it
/// knows.
fn form(headers: &HeaderMap, usual: Form) -> Form {
    if headers.contains_key("anthropic-version") {
        Form::Anthropic
    } else {
        usual
    }
}

/// Answer with all the models that the token may use, or with one.
///
/// # Errors
///
/// [`Refusal::UnknownModel`] for what is not there, or not for this token;
/// [`Refusal::UnknownPath`] where no models were asked for.
pub fn answer(
    table: &Table,
    entry: &Entry,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    match entry {
        Entry::Models { route, form: usual } => {
            let form = form(headers, *usual);
            Ok(list(table, route.as_deref(), principal, form))
        }
        Entry::Model { route, id } => {
            let form = form(headers, Form::OpenAi);
            one(table, route.as_deref(), id, principal, form)
        }
        _ => Err(Refusal::UnknownPath),
    }
}

/// Every model that the token may use, on `/v1` or on one route's path.
fn list(table: &Table, route: Option<&str>, principal: &Principal, form: Form) -> Response<Body> {
    let entries: Vec<_> = table
        .names(route)
        .into_iter()
        .filter(|destination| may_use(principal, destination))
        .map(|destination| entry(destination))
        .collect();
    json(list_body(&entries, form))
}

/// One model; vLLM itself does not serve this.
fn one(
    table: &Table,
    route: Option<&str>,
    id: &str,
    principal: &Principal,
    form: Form,
) -> Result<Response<Body>, Refusal> {
    let found = named(table, route, Some(id), principal);
    found
        .map(|destination| json(entry(&destination).body(form)))
        .ok_or_else(|| unknown(id))
}

/// One server or deployment, as far as it is told here.
struct Standing {
    status: Status,
    since: Option<u64>,
    ready_in: Option<Duration>,
}

impl Standing {
    fn of(target: &Target) -> Self {
        match &target.backend {
            Backend::External(_) => Self {
                status: Status::Active,
                since: None,
                ready_in: None,
            },
            Backend::Deployment { handle, .. } => {
                let snapshot = handle.snapshot();
                Self {
                    status: handle.status(),
                    since: Some(snapshot.since),
                    ready_in: snapshot.ready_in,
                }
            }
        }
    }

    /// The best of several stands first: a request goes to that one.
    fn rank(&self) -> u8 {
        match self.status {
            Status::Active => 0,
            Status::Idle => 1,
            Status::Loading => 2,
            Status::Offloaded => 3,
            Status::Stopping => 4,
            Status::Stopped => 5,
            Status::Failed => 6,
        }
    }

    fn state(&self) -> State {
        let value = match self.status {
            Status::Active | Status::Idle => Readiness::Loaded,
            Status::Loading => Readiness::Loading,
            Status::Offloaded => Readiness::Sleeping,
            Status::Stopping | Status::Stopped => Readiness::Unloaded,
            Status::Failed => Readiness::Failed,
        };
        let ready_in = self.ready_in.filter(|_| value == Readiness::Loading);
        State {
            value,
            ready_in_seconds: ready_in
                .map(|left| u64::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)),
        }
    }
}

/// Facts about a model, from how it is run and from what its workers told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    context: Option<u64>,
    capabilities: Vec<Capability>,
}

impl Known {
    /// Facts that hold wherever a request may go: none, where a server of someone else is
    /// among them.
    fn of(destination: &Destination) -> Self {
        let each = destination
            .targets
            .iter()
            .map(|target| match &target.backend {
                Backend::External(_) => Self::default(),
                Backend::Deployment { handle, .. } => {
                    Self::run_by(&handle.spec().engine, &told(handle))
                }
            });
        each.reduce(|all, one| all.both(&one)).unwrap_or_default()
    }

    fn both(mut self, other: &Self) -> Self {
        self.context = self
            .context
            .zip(other.context)
            .map(|(one, two)| one.min(two));
        self.capabilities
            .retain(|known| other.capabilities.contains(known));
        self
    }

    fn run_by(engine: &Engine, told: &About) -> Self {
        let by_options = match engine {
            Engine::Sim(_) => vec![Capability::Chat, Capability::Completions],
            Engine::Vllm(vllm) => Capability::by_options(&vllm.options),
        };
        Self {
            context: context_of(engine, told),
            capabilities: told.capabilities(&by_options),
        }
    }
}

/// Number of tokens that a model takes, as it told or its options say.
fn context_of(engine: &Engine, told: &About) -> Option<u64> {
    let by_options = match engine {
        Engine::Sim(sim) => Some(sim.max_model_len.into()),
        Engine::Vllm(vllm) => {
            let length = vllm.options.get_integer("max_model_len");
            // -1 lets vLLM choose.
            let length = length.and_then(|length| u64::try_from(length).ok());
            length.filter(|length| *length > 0)
        }
    };
    told.max_model_len.or(by_options)
}

/// Number of tokens that any of a destination's servers takes; `None` where one of them
/// is not known.
pub fn context_max(destination: &Destination) -> Option<u64> {
    let each = destination.targets.iter();
    let each = each.map(|target| match &target.backend {
        Backend::External(_) => None,
        Backend::Deployment { handle, .. } => context_of(&handle.spec().engine, &told(handle)),
    });
    each.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// Facts that any of its workers told; they run the same.
fn told(handle: &Handle) -> Arc<About> {
    let own = handle.about();
    if *own != About::default() {
        return own;
    }
    let replicas = handle.replicas();
    let mut others = replicas.iter().map(|replica| replica.about());
    others
        .find(|about| **about != About::default())
        .unwrap_or(own)
}

fn entry(destination: &Destination) -> ModelEntry<'_> {
    let all: Vec<_> = destination
        .targets
        .iter()
        .map(|target| Standing::of(target))
        .collect();
    let best = all.iter().min_by_key(|standing| standing.rank());
    let state = best.map_or(
        State {
            value: Readiness::Unloaded,
            ready_in_seconds: None,
        },
        Standing::state,
    );
    let Known {
        context,
        capabilities,
    } = Known::of(destination);
    ModelEntry {
        id: destination.name.as_str(),
        created: all
            .iter()
            .find_map(|standing| standing.since)
            .unwrap_or_default(),
        owned_by: "tidegate",
        parent: destination.stands_for.as_ref().map(|name| name.of.as_str()),
        description: destination.route.description.as_deref(),
        context_length: context,
        max_model_len: context,
        capabilities: capabilities.into_iter().map(Capability::as_str).collect(),
        loaded: state.value == Readiness::Loaded,
        status: best.map_or(Status::Stopped, |best| best.status).as_str(),
        state,
    }
}

/// An answer of ours, in JSON.
pub fn json(text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_targets_is_known_as_far_as_each_of_them_is() {
        use Capability::{Chat, Completions, Tools};
        let known = |context, capabilities: &[Capability]| Known {
            context,
            capabilities: capabilities.to_vec(),
        };
        let long = known(Some(131_072), &[Chat, Completions, Tools]);
        let short = known(Some(4_096), &[Chat, Completions]);
        assert_eq!(
            long.clone().both(&short),
            known(Some(4_096), &[Chat, Completions])
        );
        assert_eq!(long.both(&Known::default()), Known::default());
    }

    #[test]
    fn only_what_loads_says_when_it_is_ready() {
        let state = |status| {
            let since = None;
            let ready_in = Some(Duration::from_millis(11_001));
            Standing {
                status,
                since,
                ready_in,
            }
            .state()
        };
        assert_eq!(state(Status::Loading).ready_in_seconds, Some(12));
        for (status, value) in [
            (Status::Active, Readiness::Loaded),
            (Status::Idle, Readiness::Loaded),
            (Status::Offloaded, Readiness::Sleeping),
            (Status::Stopping, Readiness::Unloaded),
            (Status::Stopped, Readiness::Unloaded),
            (Status::Failed, Readiness::Failed),
        ] {
            let ready_in_seconds = None;
            assert_eq!(
                state(status),
                State {
                    value,
                    ready_in_seconds
                },
                "{status:?}"
            );
        }
    }
}
