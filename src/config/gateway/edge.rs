//! The keys for what stands before us: proxies, certificates, browsers; and for
//! traces.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderName;

use super::listen::addresses;
use super::set;
use crate::auth::keeper::SecretSource;
use crate::config::edge::{
    ClientCerts, Collector, Cors, Gateway, Heads, Need, Origin, Origins, Pair, Proxies, Telemetry,
    Tls,
};
use crate::config::network::Network;
use crate::config::problems::cut;
use crate::config::reader::Reader;

/// Most trusted ranges, origins and certificates.
const ITEMS_MAX: usize = 256;

pub(super) fn proxies(table: &mut Reader<'_>, to: &mut Proxies) {
    let trusted = table.parsed_list::<Network>("trusted_proxies");
    set(&mut to.trusted, trusted.map(|list| list.value));
    bounded(table, "trusted_proxies", to.trusted.len());
    set(&mut to.protocol, addresses(table, "proxy_protocol"));
}

/// Checks that need the listeners to be known.
pub(super) fn proxies_fit(table: &Reader<'_>, gateway: &Gateway) {
    let Proxies { trusted, protocol } = &gateway.proxies;
    let known: HashSet<&SocketAddr> = gateway.listen.iter().chain(&gateway.plain_listen).collect();
    let line = table.line_of("proxy_protocol");
    for address in protocol.iter().filter(|address| !known.contains(address)) {
        let message =
            format!("{address} is not listened on: write it as in listen or plain_listen");
        table.wrong(line, "proxy_protocol", message);
    }
    if !protocol.is_empty() && trusted.is_empty() {
        let message = "no peer may send a PROXY header yet: write the addresses of the balancer in trusted_proxies";
        table.wrong(line, "proxy_protocol", message);
    }
}

pub(super) fn heads(table: &mut Reader<'_>, to: &mut Heads) {
    let Heads {
        headers_max,
        bytes_max,
        target_bytes_max,
        streams_max,
    } = to;
    set(headers_max, table.whole("headers_max"));
    let mut size = |key| table.size(key).and_then(|bytes| bytes.try_into().ok());
    set(bytes_max, size("head_bytes_max"));
    set(target_bytes_max, size("target_bytes_max"));
    set(streams_max, table.whole("streams_max"));
}

pub(super) fn forward_headers(table: &mut Reader<'_>, to: &mut Option<Arc<[HeaderName]>>) {
    if let Some(list) = table.parsed_list::<HeaderName>("forward_headers") {
        bounded(table, "forward_headers", list.value.len());
        *to = (!list.value.is_empty()).then(|| list.value.into());
    }
}

fn bounded(table: &Reader<'_>, key: &str, count: usize) {
    if count > ITEMS_MAX {
        table.wrong(
            table.line_of(key),
            key,
            format!("write at most {ITEMS_MAX}"),
        );
    }
}

pub(super) fn tls(table: &mut Reader<'_>, to: &mut Tls) {
    let Tls {
        certificate,
        private_key,
        more,
        clients,
    } = to;
    set(certificate, table.path("certificate"));
    set(private_key, table.path("private_key"));
    for mut pair in table.tables("certificates") {
        let (certificate, private_key) = (pair.path("certificate"), pair.path("private_key"));
        pair.missing_unless(certificate.is_some(), "certificate", "a PEM file");
        pair.missing_unless(private_key.is_some(), "private_key", "a PEM file");
        pair.finish();
        if let (Some(certificate), Some(private_key)) = (certificate, private_key) {
            more.push(Pair {
                certificate,
                private_key,
            });
        }
    }
    bounded(table, "certificates", more.len());
    let ca = table.path("client_ca");
    let words = [("required", Need::Required), ("optional", Need::Optional)];
    let need = table.choice("client_auth", &words);
    *clients = match (ca, need) {
        (Some(ca), need) => Some(ClientCerts {
            ca,
            need: need.map_or(Need::Required, |need| need.value),
        }),
        (None, None) => None,
        (None, Some(need)) => {
            let message = "this has an effect only with client_ca: write the PEM file of the authority that signs the clients' certificates";
            table.wrong(need.line, "client_auth", message);
            None
        }
    };
}

pub(super) fn cors(table: &mut Reader<'_>, to: &mut Cors) {
    let origins = table.parsed_list::<Origin>("origins");
    let count = origins.as_ref().map_or(0, |list| list.value.len());
    bounded(table, "origins", count);
    if let Some(list) = origins {
        let any = list.value.iter().any(|origin| origin.0 == "*");
        to.origins = match (list.value.is_empty(), any) {
            (true, _) => Origins::None,
            (false, true) if count > 1 => {
                let message = "\"*\" is every origin: take the others out, or it";
                table.wrong(list.line, "origins", message);
                Origins::None
            }
            (false, true) => Origins::Any,
            (false, false) => Origins::These(list.value),
        };
    }
    if let Some(list) = table.parsed_list::<HeaderName>("headers") {
        to.headers = list.value.iter().map(ToString::to_string).collect();
        bounded(table, "headers", to.headers.len());
    }
    let credentials = table.flag("credentials");
    if let Some(flag) = &credentials
        && flag.value
        && to.origins == Origins::Any
    {
        let message = "browsers refuse credentials with any origin: name the origins";
        table.wrong(flag.line, "credentials", message);
    }
    set(&mut to.credentials, credentials.map(|flag| flag.value));
    set(&mut to.max_age, table.span("max_age"));
}

pub(super) fn telemetry(table: &mut Reader<'_>, to: &mut Telemetry) {
    to.otlp = table
        .parsed::<Collector>("otlp_endpoint")
        .map(|found| found.value);
    to.ca = table.path("otlp_ca");
    if let Some(name) = table.words("otlp_headers_env") {
        if std::env::var_os(&name.value).is_none() {
            let message = format!(
                "the environment variable {:?} is not set: set it to \"key=value,key=value\", or leave this key out",
                cut(&name.value)
            );
            table.wrong(name.line, "otlp_headers_env", message);
        }
        to.headers = Some(SecretSource::Env(name.value));
    }
    if let Some(file) = table.path("otlp_headers_file") {
        if to.headers.is_some() {
            let message = "write otlp_headers_env or otlp_headers_file, not both";
            let line = table.line_of("otlp_headers_file");
            table.wrong(line, "otlp_headers_file", message);
        }
        to.headers = Some(SecretSource::File(file));
    }
    set(
        &mut to.service_name,
        table.words("service_name").map(|name| name.value),
    );
    set(&mut to.sample, table.number("sample"));
    let alone = ["otlp_ca", "otlp_headers_env", "otlp_headers_file", "sample"];
    for key in alone {
        if to.otlp.is_none() && table.has(key) {
            let message = "this has an effect only with otlp_endpoint";
            table.wrong(table.line_of(key), key, message);
        }
    }
}
