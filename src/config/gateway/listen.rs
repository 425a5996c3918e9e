//! Addresses to listen on.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::config::Settings;
use crate::config::problems::cut;
use crate::config::reader::Reader;

/// An address that a listener is bound to.
struct Bind(SocketAddr);

impl FromStr for Bind {
    type Err = NotBind;

    fn from_str(text: &str) -> Result<Self, NotBind> {
        text.parse().map(Self).map_err(|_| NotBind(cut(text)))
    }
}

struct NotBind(String);

impl fmt::Display for NotBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an address to listen on: write one with its port, as \"127.0.0.1:8443\", \"0.0.0.0:8443\", \"[::]:8443\"",
            self.0
        )
    }
}

pub(super) fn addresses(table: &mut Reader<'_>, key: &'static str) -> Option<Vec<SocketAddr>> {
    let list = table.parsed_list::<Bind>(key)?.value;
    Some(list.into_iter().map(|bind| bind.0).collect())
}

/// `listen` of a listener that can be switched off with `"off"`.
pub(super) fn listener(table: &mut Reader<'_>, to: &mut Option<SocketAddr>) {
    let Some(text) = table.text("listen") else {
        return;
    };
    if text.value == "off" {
        *to = None;
        return;
    }
    match text.value.parse::<Bind>() {
        Ok(bind) => *to = Some(bind.0),
        Err(error) => table.wrong(text.line, "listen", format!("{error}, or \"off\"")),
    }
}

pub(super) fn listeners_differ(top: &mut Reader<'_>, settings: &Settings) {
    let gateway = &settings.gateway;
    if gateway.listen.is_empty() && gateway.plain_listen.is_empty() {
        let message = "no listener is left: write an address in listen or plain_listen";
        top.wrong(top.line_of("gateway"), "gateway.listen", message);
    }
    let mut seen = HashSet::new();
    let all = [
        ("gateway", "gateway.listen", gateway.listen.as_slice()),
        (
            "gateway",
            "gateway.plain_listen",
            gateway.plain_listen.as_slice(),
        ),
        ("admin", "admin.listen", settings.admin.listen.as_slice()),
        (
            "metrics",
            "metrics.listen",
            settings.metrics.listen.as_slice(),
        ),
    ];
    for (table, key, addresses) in all {
        for address in addresses {
            if address.port() != 0 && !seen.insert(*address) {
                let message = format!("{address} is listened on twice: change one of the two");
                top.wrong(top.line_of(table), key, message);
            }
        }
    }
}
