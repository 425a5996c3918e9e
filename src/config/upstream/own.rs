//! Upstreams that are this gateway itself: their requests would go round until something
//! gives way.
//!
//! Found here are those whose address says it. A name of which only DNS knows that it
//! leads here is found by the first request, which carries a mark of ours: see
//! `gateway::head::hops`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::{Address, Upstream};
use crate::config::{Catalog, FileError, Settings};
use crate::outbound::dial::public;

/// The upstreams of a catalog that are this gateway, each with its place.
pub fn errors(catalog: &Catalog, settings: &Settings) -> Vec<FileError> {
    let mut errors = Vec::new();
    for route in &catalog.routes {
        for upstream in &route.upstreams {
            let Some(why) = own(upstream, catalog, settings) else {
                continue;
            };
            errors.push(FileError {
                file: route.file.clone(),
                line: Some(upstream.line.0),
                key: "upstream.url".to_owned(),
                message: format!(
                    "{why}, so requests would come back: write the address of another server; if it is meant, set any_address = true"
                ),
            });
        }
    }
    errors
}

/// A catalog without them, and with their errors among its own.
#[must_use]
pub fn without(mut catalog: Catalog, settings: &Settings) -> Catalog {
    let errors = errors(&catalog, settings);
    if errors.is_empty() {
        return catalog;
    }
    let routes = catalog.routes.iter().map(|route| {
        let is_own = |upstream: &Arc<Upstream>| own(upstream, &catalog, settings).is_some();
        if !route.upstreams.iter().any(is_own) {
            return Arc::clone(route);
        }
        let mut route = (**route).clone();
        route.upstreams.retain(|upstream| !is_own(upstream));
        Arc::new(route)
    });
    catalog.routes = routes.collect();
    catalog.errors.extend(errors);
    catalog
}

/// Reason why an upstream is this gateway; `None` where nothing says so, or it is meant.
fn own(upstream: &Upstream, catalog: &Catalog, settings: &Settings) -> Option<String> {
    if upstream.any_address {
        return None;
    }
    match &upstream.address {
        Address::Unix(path) => {
            let is_ours =
                within(path, &settings.gateway.state) || within(path, &settings.admin.socket);
            is_ours.then(|| "this socket is this gateway's, or one of its workers'".to_owned())
        }
        Address::Tcp { host, port } => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            let mut hosts = catalog.routes.iter();
            if let Some(route) = hosts.find(|route| route.host.as_deref() == Some(name.as_str())) {
                return Some(format!("this is the host of the route {:?}", route.name));
            }
            let found = listeners(settings).find(|listener| {
                listener.port() == *port && *port != 0 && leads_to(&name, listener.ip())
            })?;
            Some(format!("this gateway itself listens on {found}"))
        }
    }
}

fn listeners(settings: &Settings) -> impl Iterator<Item = SocketAddr> {
    let gateway = &settings.gateway;
    let of_clients = gateway.listen.iter().chain(&gateway.plain_listen);
    let others = [settings.admin.listen, settings.metrics.listen];
    of_clients.copied().chain(others.into_iter().flatten())
}

/// Names of the loopback, as systems have them in /etc/hosts.
const LOOPBACK: [&str; 6] = [
    "ip6-localhost",
    "ip6-loopback",
    "localhost",
    "localhost.localdomain",
    "localhost6",
    "localhost6.localdomain6",
];

/// True if a host, in lower case, leads to what listens at `listener`.
fn leads_to(host: &str, listener: IpAddr) -> bool {
    let listener = listener.to_canonical();
    let loopbacks = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let at = |address: IpAddr| {
        let address = address.to_canonical();
        if listener.is_unspecified() {
            // A listener of IPv6 takes IPv4 as well.
            (listener.is_ipv6() || address.is_ipv4()) && public::is_own(address)
        } else if address.is_unspecified() {
            // The system connects to the loopback.
            listener.is_loopback()
        } else {
            address == listener
        }
    };
    if let Ok(address) = host.parse() {
        return at(address);
    }
    if LOOPBACK.contains(&host) || host.ends_with(".localhost") {
        return loopbacks.into_iter().any(at);
    }
    let uname = rustix::system::uname();
    let machine = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let label = machine.split('.').next().unwrap_or_default();
    // Whichever of its addresses that is.
    !host.is_empty() && (host == machine || host == label) && public::is_own(listener)
}

/// True if a path, with links followed, is this one or lies in it.
fn within(path: &Path, place: &Path) -> bool {
    let whole = |path: &Path| {
        let of_parent = || {
            let parent = fs::canonicalize(path.parent()?).ok()?;
            Some(parent.join(path.file_name()?))
        };
        let found = fs::canonicalize(path).ok().or_else(of_parent);
        found.unwrap_or_else(|| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    };
    whole(path).starts_with(whole(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_catalog;

    /// The errors of a route file with these upstreams, one each.
    fn told(upstreams: &[String], tune: impl FnOnce(&mut Settings)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut text = "[route]\nname = \"r\"\nhost = \"chat.example.org\"\n".to_owned();
        for upstream in upstreams {
            text.extend(["[[upstream]]\n", upstream.as_str(), "\n"]);
        }
        fs::write(dir.path().join("r.toml"), text).unwrap();
        let mut settings = Settings::default();
        settings.gateway.state = dir.path().join("state");
        tune(&mut settings);
        let catalog = load_catalog(dir.path(), &settings.queues, None);
        assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
        let cleaned = without(catalog, &settings);
        let left: usize = cleaned.routes.iter().map(|r| r.upstreams.len()).sum();
        assert_eq!(left + cleaned.errors.len(), upstreams.len());
        cleaned.errors.iter().map(ToString::to_string).collect()
    }

    fn url(url: &str) -> String {
        format!("url = \"{url}\"")
    }

    #[test]
    fn an_upstream_that_is_this_gateway_is_told_with_its_place() {
        let machine = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let cases = [
            ("127.0.0.1:8443", "http://127.0.0.1:8443", true),
            ("127.0.0.1:8443", "https://localhost:8443/x", true),
            ("127.0.0.1:8443", "https://LOCALHOST.:8443", true),
            ("127.0.0.1:8443", "https://a.localhost:8443", true),
            ("127.0.0.1:8443", "http://[::ffff:127.0.0.1]:8443", true),
            ("127.0.0.1:8443", "http://127.0.0.1:8444", false),
            ("127.0.0.1:8443", "http://127.0.0.2:8443", false),
            ("127.0.0.1:8443", "http://192.0.2.7:8443", false),
            ("0.0.0.0:8443", "http://127.0.0.9:8443", true),
            ("0.0.0.0:8443", "http://localhost:8443", true),
            ("0.0.0.0:8443", "http://[::1]:8443", false),
            ("[::]:8443", "http://[::1]:8443", true),
            ("[::]:8443", "http://127.0.0.1:8443", true),
            ("[::]:8443", "http://192.0.2.7:8443", false),
            ("0.0.0.0:8443", &format!("http://{machine}:8443"), true),
            ("0.0.0.0:443", "https://localhost", true),
            ("0.0.0.0:80", "http://localhost", true),
            ("127.0.0.1:1", "https://chat.example.org", true),
            ("127.0.0.1:1", "https://other.example.org", false),
        ];
        for (listen, upstream, is_own) in cases {
            let told = told(&[url(upstream)], |settings| {
                settings.gateway.listen = vec![listen.parse().unwrap()];
            });
            assert_eq!(
                told.len(),
                usize::from(is_own),
                "{listen} {upstream}: {told:?}"
            );
            for told in told {
                assert!(told.contains("r.toml:5: upstream.url: this"), "{told}");
            }
        }
    }

    #[test]
    fn listeners_of_every_kind_count_and_who_means_it_says_so() {
        let all = ["8081", "8082", "8083", "8084"];
        let upstreams = all.map(|port| url(&format!("http://127.0.0.1:{port}")));
        let tune = |settings: &mut Settings| {
            let at = |port: &str| format!("127.0.0.1:{port}").parse().unwrap();
            settings.gateway.listen = vec![at("8081")];
            settings.gateway.plain_listen = vec![at("8082")];
            settings.admin.listen = Some(at("8083"));
            settings.metrics.listen = Some(at("8084"));
        };
        assert_eq!(told(&upstreams, tune).len(), 4);
        let meant = upstreams.map(|url| format!("{url}\nany_address = true"));
        assert_eq!(told(&meant, tune), [""; 0]);
    }

    #[test]
    fn our_sockets_count_by_whatever_path() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::symlink(&state, dir.path().join("link")).unwrap();
        let socket = |path: &str| url(&format!("unix:{}/{path}", dir.path().display()));
        let tune = |settings: &mut Settings| {
            settings.gateway.state.clone_from(&state);
            settings.admin.socket = dir.path().join("admin.sock");
        };
        for ours in [
            "state/a.sock",
            "state/../state/a.sock",
            "link/a.sock",
            "admin.sock",
        ] {
            assert_eq!(told(&[socket(ours)], tune).len(), 1, "{ours}");
        }
        for others in ["other.sock", "state.sock"] {
            assert_eq!(told(&[socket(others)], tune), [""; 0], "{others}");
        }
    }
}
