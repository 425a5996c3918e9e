//! The peer at the other end of a connection, and the client behind it.
//!
//! The socket tells. What headers say of another client holds only when the peer
//! is one of the trusted proxies: then the client is the last address in
//! `X-Forwarded-For` (or `Forwarded`, where that is absent) that is not itself a
//! trusted proxy's. The first address of a list is never believed: anyone can
//! write it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{FORWARDED, HOST, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use super::places::Activity;
use super::proxied;
use crate::config::network::Network;
use crate::gateway::head::onward::Onward;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Longest chain of proxies that is followed or passed on, in bytes.
const CHAIN_BYTES_MAX: usize = 1024;

/// The other end of one connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address: the socket's, or what the PROXY header of a trusted peer says.
    pub address: IpAddr,
    /// The same, as it is passed on.
    value: HeaderValue,
    /// True if the peer is a trusted proxy.
    trusted: bool,
    /// True if the connection is over TLS.
    pub secure: bool,
    /// The name that it asked TLS for, in lower case.
    pub tls_name: Option<Box<str>>,
    /// Cancelled when what is still open must end.
    pub cut: CancellationToken,
    /// Requests at work on the connection, and since when there are none.
    pub activity: Arc<Activity>,
    /// True if the last request was refused before its end was read.
    pub unread: Arc<AtomicBool>,
}

/// Origin of one request, as it is logged and passed on.
#[derive(Clone, Debug)]
pub struct ClientOrigin {
    /// The client.
    pub client: IpAddr,
    chain: HeaderValue,
    proto: HeaderValue,
    host: Option<HeaderValue>,
}

impl Peer {
    /// A peer at `address`.
    pub fn new(address: IpAddr, trusted: &[Network], cut: CancellationToken) -> Self {
        let address = address.to_canonical();
        let value = HeaderValue::from_str(&address.to_string());
        Self {
            address,
            value: value.unwrap_or(HeaderValue::from_static("unknown")),
            trusted: trusted.iter().any(|network| network.contains(address)),
            secure: false,
            tls_name: None,
            cut,
            activity: Arc::default(),
            unread: Arc::default(),
        }
    }

    /// The client that its connection is counted for; none where that is of many.
    pub fn client(&self) -> Option<IpAddr> {
        (!self.trusted).then_some(self.address)
    }

    /// True if the peer is a trusted proxy, which brings many clients.
    pub fn is_proxy(&self) -> bool {
        self.trusted
    }

    /// The peer that the PROXY header of this one tells of.
    ///
    /// # Errors
    ///
    /// Fails if this peer is not trusted, or sends something else.
    pub async fn proxied(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        trusted: &[Network],
    ) -> io::Result<Self> {
        if !self.trusted {
            let message = "its address is not in gateway.trusted_proxies";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let source = proxied::read(stream).await?.unwrap_or(self.address);
        Ok(Self::new(source, trusted, self.cut.clone()))
    }

    /// Origin of a request with these headers.
    pub fn origin(&self, headers: &HeaderMap, trusted: &[Network]) -> ClientOrigin {
        let proto = if self.secure { "https" } else { "http" };
        let proto = HeaderValue::from_static(proto);
        let host = headers.get(HOST);
        if !self.trusted {
            return ClientOrigin {
                client: self.address,
                chain: self.value.clone(),
                proto,
                host: host.cloned(),
            };
        }
        let said = headers.get(FORWARDED_HOST);
        let is_host = |value: &&HeaderValue| Authority::try_from(value.as_bytes()).is_ok();
        let chain = chain(headers);
        ClientOrigin {
            client: client(&chain, trusted).unwrap_or(self.address),
            chain: self.joined(&chain),
            proto: match headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) {
                Some(b"https") => HeaderValue::from_static("https"),
                Some(b"http") => HeaderValue::from_static("http"),
                _ => proto,
            },
            host: said.filter(is_host).or(host).cloned(),
        }
    }

    /// The chain that came, and this peer behind it.
    fn joined(&self, chain: &[String]) -> HeaderValue {
        let mut text = chain.join(", ");
        if text.is_empty() || text.len() > CHAIN_BYTES_MAX {
            return self.value.clone();
        }
        text.push_str(", ");
        text.push_str(self.value.to_str().unwrap_or_default());
        HeaderValue::from_str(&text).unwrap_or_else(|_| self.value.clone())
    }
}

impl ClientOrigin {
    /// Tells the server where the request came from, once: the host, a piece of the
    /// request's head, is not kept with the whole of it for as long as the answer lasts.
    pub fn put(&mut self, onward: &mut Onward) {
        onward.say(FORWARDED_FOR, self.chain.clone());
        onward.say(FORWARDED_PROTO, self.proto.clone());
        if let Some(host) = self.host.take() {
            onward.say(FORWARDED_HOST, host);
        }
    }
}

/// Addresses that the forwarding headers list, the farthest first.
fn chain(headers: &HeaderMap) -> Vec<String> {
    let texts = |name: HeaderName| {
        let values = headers.get_all(name).into_iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(','))
    };
    let mut hops: Vec<String> = texts(FORWARDED_FOR)
        .map(|hop| hop.trim().to_owned())
        .collect();
    if hops.is_empty() {
        hops = texts(FORWARDED).filter_map(forwarded_for).collect();
    }
    hops
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<String> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| value.to_owned())
    })
}

/// The last address that is not a trusted proxy's; the farthest where all are.
/// What is no address ends the chain: what stands before it can't be known.
fn client(chain: &[String], trusted: &[Network]) -> Option<IpAddr> {
    let mut farthest = None;
    for hop in chain.iter().rev() {
        let Some(address) = address(hop) else { break };
        farthest = Some(address);
        if !trusted.iter().any(|network| network.contains(address)) {
            break;
        }
    }
    farthest
}

/// An address, with or without a port.
fn address(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let socket = hop.parse::<std::net::SocketAddr>();
    if let Ok(socket) = socket {
        return Some(socket.ip().to_canonical());
    }
    let inner = hop.strip_prefix('[')?.strip_suffix(']')?;
    inner
        .parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, pairs: &[(&'static str, &'static str)]) -> ClientOrigin {
        let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8"]
            .map(|n| n.parse().unwrap())
            .into();
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Peer::new(peer.parse().unwrap(), &trusted, CancellationToken::new())
            .origin(&headers, &trusted)
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        for (peer, headers, client) in [
            ("1.1.1.1", &[("x-forwarded-for", "6.6.6.6")][..], "1.1.1.1"),
            ("1.1.1.1", &[("forwarded", "for=6.6.6.6")], "1.1.1.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            (
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", "2.2.2.2")],
                "2.2.2.2",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6, 2.2.2.2")],
                "2.2.2.2",
            ),
            (
                "10.0.0.1",
                &[
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "2.2.2.2, 10.0.0.2"),
                ],
                "2.2.2.2",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6, junk")],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6, junk, 10.0.0.2")],
                "10.0.0.2",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "2.2.2.2:4711")],
                "2.2.2.2",
            ),
            (
                "10.0.0.1",
                &[(
                    "forwarded",
                    "for=6.6.6.6, for=\"[2001:db8::1]:4711\";proto=https",
                )],
                "2001:db8::1",
            ),
            ("10.0.0.1", &[("forwarded", "For=unknown")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "2.2.2.2")],
                "2.2.2.2",
            ),
        ] {
            assert_eq!(
                origin(peer, headers).client.to_string(),
                client,
                "{peer} {headers:?}"
            );
        }
    }

    #[test]
    fn the_server_is_told_the_whole_chain_or_the_peer_alone() {
        let told = |peer, pairs| {
            let mut onward = Onward::new(HeaderMap::new());
            origin(peer, pairs).put(&mut onward);
            let headers = onward.into_map();
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(|name| {
                headers
                    .get(name)
                    .map_or("-".to_owned(), |v| v.to_str().unwrap().to_owned())
            })
        };
        let given = &[
            ("host", "a"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b"),
        ];
        assert_eq!(told("1.1.1.1", given), ["1.1.1.1", "http", "a"]);
        assert_eq!(told("10.0.0.1", given), ["2.2.2.2, 10.0.0.1", "https", "b"]);
        let odd = &[
            ("host", "a"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "a b"),
        ];
        assert_eq!(told("10.0.0.1", odd), ["10.0.0.1", "http", "a"]);
    }
}
