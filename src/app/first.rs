//! The first minute: what is read at the start, and what a person is told.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::demo::Demo;
use crate::auth::certs::Made;
use crate::auth::{Principal, Verifier};
use crate::config::{Access, Catalog, Route, Settings};
use crate::gateway::listener::Listener;
use crate::telemetry::metrics;
use crate::units::counted;

/// Reads routes and instances for the first time. Files with errors are told of
/// and left out; the others serve.
pub(super) fn catalog(settings: &Settings) -> Catalog {
    let catalog = super::reload(settings, None);
    for error in &catalog.errors {
        tracing::error!("{error}");
    }
    metrics::config_errors(catalog.errors.len());
    if catalog.routes.is_empty() && catalog.errors.is_empty() {
        let dir = settings.gateway.routes.display();
        tracing::warn!("{dir} has no route files: nothing is served until one is there");
    }
    catalog
}

/// The authority of our own pair, made now or by an earlier start.
pub(super) fn ca(made: Made, certificate: &Path) -> Option<PathBuf> {
    if let Made::Created { ca } = made {
        return Some(ca);
    }
    let ca = certificate.with_file_name("ca.pem");
    ca.is_file().then_some(ca)
}

/// Text for a person at a terminal once the gateway serves.
#[derive(Debug)]
pub struct Welcome {
    addresses: Vec<String>,
    metrics: Option<String>,
    dashboard: Option<String>,
    login: Option<String>,
    curl: Option<String>,
    serving: (usize, usize),
    errors: usize,
}

impl Welcome {
    pub(super) fn new(
        settings: &Settings,
        listeners: &[Listener],
        catalog: &Catalog,
        ca: Option<&Path>,
        demo: &Demo,
        verifier: &Verifier,
    ) -> Self {
        let secure = settings.gateway.listen.len();
        let addresses: Vec<String> = listeners
            .iter()
            .enumerate()
            .filter_map(|(n, listener)| {
                let scheme = if n < secure { "https" } else { "http" };
                listener
                    .address()
                    .ok()
                    .map(|address| format!("{scheme}://{address}"))
            })
            .collect();
        let deployments = catalog
            .routes
            .iter()
            .map(|route| route.deployments.len())
            .sum();
        let model = demo_model(catalog, demo, verifier);
        let curl = model
            .zip(addresses.first())
            .map(|(model, address)| curl_line(address, ca, &demo.path, &model));
        Self {
            metrics: settings
                .metrics
                .listen
                .map(|address| format!("http://{address}/metrics")),
            serving: (catalog.routes.len(), deployments),
            errors: catalog.errors.len(),
            dashboard: None,
            login: None,
            addresses,
            curl,
        }
    }

    /// Notes the URL of the dashboard, and the link that logs in for the first time.
    pub(super) fn dashboard(&mut self, url: Option<&str>, login: Option<String>) {
        self.dashboard = url.map(str::to_owned);
        self.login = login;
    }
}

/// The first model that the demo token may use.
fn demo_model(catalog: &Catalog, demo: &Demo, verifier: &Verifier) -> Option<String> {
    let token = fs::read_to_string(&demo.path).ok()?;
    let principal = verifier.verify(token.trim(), verifier.now()).ok()?;
    let enters = |principal: &Principal, route: &Route| {
        let workspace = route.workspace.as_ref();
        match &route.access {
            Access::Public => principal.is_of(workspace),
            Access::Project(project) => principal.reads(workspace, project),
            Access::Admins => principal.rules(workspace),
        }
    };
    let open = catalog
        .routes
        .iter()
        .filter(|route| route.enabled && enters(&principal, route));
    open.filter_map(|route| {
        let own = route
            .deployments
            .first()
            .map(|deployment| &deployment.endpoint_name);
        own.or_else(|| route.models.first())
    })
    .map(ToString::to_string)
    .next()
}

fn curl_line(address: &str, ca: Option<&Path>, token: &Path, model: &str) -> String {
    let ca = match ca {
        Some(ca) if address.starts_with("https") => format!(" --cacert {}", ca.display()),
        _ => String::new(),
    };
    format!(
        "curl{ca} {address}/v1/chat/completions \\\n  \
         -H \"Authorization: Bearer $(cat {})\" \\\n  \
         -H 'Content-Type: application/json' \\\n  \
         -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'",
        token.display()
    )
}

impl fmt::Display for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        let (routes, deployments) = self.serving;
        writeln!(
            f,
            "tidegate {version} serves {} with {}",
            counted(routes, "route"),
            counted(deployments, "deployment")
        )?;
        for address in &self.addresses {
            writeln!(f, "  API      {address}/v1")?;
        }
        match (&self.login, &self.dashboard) {
            (Some(login), _) => writeln!(
                f,
                "  Dashboard, with a link that logs in once, within half an hour:\n           {login}"
            )?,
            (None, Some(url)) => {
                writeln!(f, "  Dashboard  {url}  (`tidegate login` makes a link)")?;
            }
            (None, None) => {}
        }
        if let Some(metrics) = &self.metrics {
            writeln!(f, "  Metrics  {metrics}")?;
        }
        if self.errors > 0 {
            writeln!(
                f,
                "  {} errors in route files, see above; `tidegate check` shows them again",
                self.errors
            )?;
        }
        match &self.curl {
            Some(curl) => writeln!(
                f,
                "\nTry it, from another terminal in this directory:\n\n{curl}\n"
            ),
            None => writeln!(
                f,
                "\nMake a token with `tidegate token create --workspace NAME`.\n"
            ),
        }
    }
}
