//! Check that files go together: finds every clash between them.
//!
//! Pure: it is given parts and says which file stands in the way of which. The one that
//! gives way is chosen in [`super::catalog`].

mod names;
mod rules;
mod targets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

pub(super) use rules::{aliases, workspace};
use rules::{ambiguous, foreigners, mixed, model_claims, strangers};

use super::file::Parts;
use super::instance::{InstanceDraft, RouteChoice};
use super::problems::nearest;
use super::route::RouteDraft;
use crate::names::RouteName;

/// Something that a file takes for itself, or relies on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Claim {
    /// The name of a route.
    Route(String),
    /// The name of an instance.
    Instance(String),
    /// A path.
    Path(String),
    /// A host name.
    Host(String),
    /// A model name on `/v1`.
    Model(String),
    /// That this route leads to its instance, or has the model of its name.
    Leads(String),
}

/// One file's part in a clash.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Party {
    /// Its index among the files.
    pub(super) file: usize,
    pub(super) line: usize,
    pub(super) key: &'static str,
}

/// Files that do not go together.
#[derive(Clone, Debug)]
pub(super) struct Clash {
    /// Claim that it is about.
    pub(super) claim: Claim,
    /// Those of which one must give way, in the order of the files.
    pub(super) parties: Vec<Party>,
    /// The error. `{other}` in it stands for another party's place.
    pub(super) message: String,
}

/// A route with the instances that it leads to.
#[derive(Clone, Debug)]
pub(super) struct Linked<'a> {
    pub(super) name: RouteName,
    /// The file that it stands in.
    pub(super) file: usize,
    /// `None` for one made for its instance.
    pub(super) draft: Option<&'a RouteDraft>,
    /// Each with its file, in the order of the files.
    pub(super) instances: Vec<(usize, &'a InstanceDraft)>,
    /// Names with parameters of their own.
    pub(super) names: Vec<names::Named<'a>>,
}

/// All files together.
#[derive(Debug, Default)]
pub(super) struct Links<'a> {
    /// By name.
    pub(super) routes: BTreeMap<&'a str, Linked<'a>>,
    /// By name.
    pub(super) instances: BTreeMap<&'a str, (usize, &'a InstanceDraft)>,
    /// Clashes found; empty when all is well.
    pub(super) clashes: Vec<Clash>,
}

/// The name of the route that leads to the instance of these parts.
pub(super) fn route_name(parts: &Parts) -> Option<&str> {
    let instance = parts.instance.as_ref()?;
    Some(match &instance.route {
        RouteChoice::Named(name) => name.value.as_str(),
        RouteChoice::Own => parts.route.as_ref()?.name.value.as_str(),
        RouteChoice::Ephemeral => instance.name.value.as_str(),
    })
}

/// Everything that these parts claim, whatever the other files say.
pub(super) fn claims(parts: &Parts) -> BTreeSet<Claim> {
    let mut claims = BTreeSet::new();
    if let Some(route) = &parts.route {
        let name = route.name.value.to_string();
        claims.insert(Claim::Path(route.path.value.clone()));
        claims.extend(
            route
                .host
                .iter()
                .map(|host| Claim::Host(host.value.clone())),
        );
        match &route.models {
            Some(models) => {
                claims.extend(
                    models
                        .value
                        .iter()
                        .map(|model| Claim::Model(model.to_string())),
                );
            }
            None => {
                claims.insert(Claim::Model(name.clone()));
            }
        }
        claims.insert(Claim::Route(name));
    }
    if let (Some(instance), Some(route)) = (&parts.instance, route_name(parts)) {
        let name = instance.name.value.to_string();
        if instance.route == RouteChoice::Ephemeral {
            claims.insert(Claim::Path(name.clone()));
            claims.insert(Claim::Route(name.clone()));
        }
        claims.insert(Claim::Leads(route.to_owned()));
        claims.insert(Claim::Instance(name));
        let names = instance.deployments.iter();
        claims.extend(names.map(|d| Claim::Model(d.value.endpoint_name.to_string())));
        let adapters = instance.deployments.iter().flat_map(|d| d.value.adapters());
        claims.extend(adapters.map(|adapter| Claim::Model(adapter.to_string())));
    }
    let listed = parts
        .route
        .iter()
        .filter_map(|route| route.targets.as_ref());
    claims.extend(listed.flat_map(|draft| targets::claims(&draft.list)));
    for draft in &parts.names {
        claims.insert(Claim::Model(draft.name.value.to_string()));
        claims.insert(names::claim(draft));
    }
    claims
}

/// Puts the files together; `files` and `parts` go side by side.
pub(super) fn link<'a>(parts: &[Option<&'a Parts>]) -> Links<'a> {
    let mut links = Links::default();
    let mut taken = HashMap::new();
    for (file, parts) in parts.iter().enumerate() {
        if let Some(parts) = parts {
            links.add(file, parts, &mut taken);
        }
    }
    for (file, parts) in parts.iter().enumerate() {
        if let Some(parts) = parts {
            links.attach(file, parts);
        }
    }
    for (file, parts) in parts.iter().enumerate() {
        if let Some(parts) = parts {
            links.attach_names(file, parts);
        }
    }
    links.check_groups();
    links.check_targets();
    links.check_models();
    links.check_patterns();
    links
}

impl<'a> Links<'a> {
    fn add(&mut self, file: usize, parts: &'a Parts, taken: &mut HashMap<Claim, Party>) {
        if let Some(route) = &parts.route {
            let side = Party {
                file,
                line: route.name.line,
                key: "route.name",
            };
            self.add_route(&route.name.value, Some(route), side);
            let side = Party {
                file,
                line: route.path.line,
                key: "route.path",
            };
            self.take(Claim::Path(route.path.value.clone()), side, taken);
            if let Some(host) = &route.host {
                let side = Party {
                    file,
                    line: host.line,
                    key: "route.host",
                };
                self.take(Claim::Host(host.value.clone()), side, taken);
            }
        }
        let Some(instance) = &parts.instance else {
            return;
        };
        let name = instance.name.value.as_str();
        let line = instance.name.line;
        let side = Party {
            file,
            line,
            key: "instance.name",
        };
        if let Some((first, other)) = self.instances.get(name) {
            let first = Party {
                file: *first,
                line: other.name.line,
                key: "instance.name",
            };
            self.clashes.push(Clash {
                claim: Claim::Instance(name.to_owned()),
                parties: vec![first, side],
                message: format!(
                    "the instance {name:?} stands in {{other}} too: write another name"
                ),
            });
            return;
        }
        self.instances.insert(name, (file, instance));
        if instance.route == RouteChoice::Ephemeral
            && let Ok(route) = RouteName::new(name)
        {
            self.add_ephemeral(name, route, side, taken);
        }
    }

    fn add_ephemeral(
        &mut self,
        name: &'a str,
        route: RouteName,
        party: Party,
        taken: &mut HashMap<Claim, Party>,
    ) {
        let file = party.file;
        if let Some(other) = self.routes.get(name) {
            let first = place_of(other);
            self.clashes.push(Clash {
                claim: Claim::Route(name.to_owned()),
                parties: in_order(vec![first, party]),
                message: format!(
                    "the route {name:?} of {{other}} has the name of an instance that names no route: set route = {name:?} in the instance, or write another name"
                ),
            });
            return;
        }
        self.take(Claim::Path(name.to_owned()), party, taken);
        let linked = Linked {
            name: route,
            file,
            draft: None,
            instances: Vec::new(),
            names: Vec::new(),
        };
        self.routes.insert(name, linked);
    }

    fn add_route(&mut self, name: &'a RouteName, draft: Option<&'a RouteDraft>, party: Party) {
        let text = name.as_str();
        if let Some(other) = self.routes.get(text) {
            let first = place_of(other);
            self.clashes.push(Clash {
                claim: Claim::Route(text.to_owned()),
                parties: in_order(vec![first, party]),
                message: format!("the route {text:?} stands in {{other}} too: write another name"),
            });
            return;
        }
        let linked = Linked {
            name: name.clone(),
            file: party.file,
            draft,
            instances: Vec::new(),
            names: Vec::new(),
        };
        self.routes.insert(text, linked);
    }

    /// Takes a path or a host name, of which there is only one.
    fn take(&mut self, claim: Claim, party: Party, taken: &mut HashMap<Claim, Party>) {
        let what = match &claim {
            Claim::Host(host) => format!("host name {host:?}"),
            Claim::Path(path) => format!("path \"/{path}\""),
            other => format!("{other:?}"),
        };
        if let Some(first) = taken.get(&claim) {
            let twin = Clash {
                claim,
                parties: vec![first.clone(), party],
                message: format!("the {what} is taken by {{other}}: write another"),
            };
            // Where the names are the same too, that was said already.
            let said = self
                .clashes
                .iter()
                .any(|clash| clash.parties == twin.parties);
            if !said {
                self.clashes.push(twin);
            }
            return;
        }
        taken.insert(claim, party);
    }

    fn attach(&mut self, file: usize, parts: &'a Parts) {
        let (Some(instance), Some(name)) = (&parts.instance, route_name(parts)) else {
            return;
        };
        if let Some(linked) = self.routes.get_mut(name) {
            linked.instances.push((file, instance));
            return;
        }
        let near = nearest(name, self.routes.keys().copied());
        let hint = match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add it, or leave the key out for an endpoint of its own".to_owned(),
        };
        let line = match &instance.route {
            RouteChoice::Named(name) => name.line,
            RouteChoice::Own | RouteChoice::Ephemeral => instance.name.line,
        };
        self.clashes.push(Clash {
            claim: Claim::Leads(name.to_owned()),
            parties: vec![Party {
                file,
                line,
                key: "instance.route",
            }],
            message: format!("the route {name:?} does not exist: {hint}"),
        });
    }

    /// A route's own rules about the instances that it leads to.
    fn check_groups(&mut self) {
        let mut found = Vec::new();
        for linked in self.routes.values() {
            let Some(draft) = linked.draft else {
                continue;
            };
            let faults = [
                mixed(linked, draft),
                foreigners(linked),
                strangers(linked, draft),
                ambiguous(linked, draft),
            ];
            found.extend(faults.into_iter().flatten());
        }
        self.clashes.extend(found);
    }

    fn check_models(&mut self) {
        let mut taken: HashMap<String, (&str, Party, String)> = HashMap::new();
        let mut found = Vec::new();
        for (route, linked) in &self.routes {
            for (model, party, base) in model_claims(linked) {
                match taken.get(&model) {
                    Some((other, _, same)) if other == route && *same == base => {}
                    None => {
                        taken.insert(model, (route, party, base));
                    }
                    Some((_, first, _)) => found.push(Clash {
                        claim: Claim::Model(model.clone()),
                        parties: in_order(vec![first.clone(), party]),
                        message: format!(
                            "the model name {model:?} is taken by {{other}}: write another in models or endpoint_name"
                        ),
                    }),
                }
            }
        }
        self.clashes.extend(found);
    }
}

fn in_order(mut parties: Vec<Party>) -> Vec<Party> {
    parties.sort_by_key(|party| party.file);
    parties
}

fn place_of(linked: &Linked<'_>) -> Party {
    let (line, key) = match (linked.draft, linked.instances.first()) {
        (Some(draft), _) => (draft.name.line, "route.name"),
        (None, Some((_, instance))) => (instance.name.line, "instance.name"),
        (None, None) => (1, "instance.name"),
    };
    Party {
        file: linked.file,
        line,
        key,
    }
}

/// The place of a party, for a message to another.
pub(super) fn place(party: &Party, files: &[PathBuf]) -> String {
    let file = files
        .get(party.file)
        .map_or(Path::new(""), PathBuf::as_path);
    format!("{}:{}", file.display(), party.line)
}
