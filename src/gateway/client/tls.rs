//! The server's side of TLS: certificates by name, versions, ALPN, resumption,
//! certificates of clients.
//!
//! A [`ServerConfig`] lasts as long as its listeners; what it serves is behind a
//! pointer that [`Certificates::reload`] swaps, all of it or none. When to reload
//! is the caller's to know.

mod clients;
mod validity;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, VerifierBuilderError,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite, version};

use crate::config::Tls;
use crate::config::edge::Pair;
use crate::pem::{self, PemKind};
use crate::time::unix_time;
use clients::Clients;

/// Reason why TLS can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read as PEM.
    #[error(
        "the {what} {path} could not be read: it must be a PEM file that this user may read; to have a self-signed pair made, remove both files of [tls]"
    )]
    Read {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds something else than it should.
    #[error("the {what} {path} can't be used: {why}")]
    Wrong {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: String,
        /// Content that the file has instead, and a remedy.
        why: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that is not
    /// supported.
    #[error(
        "the certificate {certificate} and the key {key} can't be used together: check that they are a pair"
    )]
    Pair {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// A name is in two certificates.
    #[error(
        "the name {name} is in both {first} and {second}: take one of the two out of [[tls.certificates]]"
    )]
    Twice {
        /// The name.
        name: String,
        /// The certificate that has it.
        first: String,
        /// The one that has it too.
        second: String,
    },
    /// A further certificate is for no name.
    #[error(
        "the certificate {certificate} holds no DNS name, so no client can ask for it: put it into [tls] certificate, or take it out"
    )]
    NoName {
        /// The certificate's file.
        certificate: String,
    },
    /// The authorities of clients can't be used.
    #[error(
        "no client can be verified with {path}: it must hold the certificates of the authorities that sign those of the clients"
    )]
    Clients {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: VerifierBuilderError,
    },
}

/// Certificates that are served, and the files that they were read from.
#[derive(Debug)]
pub struct Certificates {
    sources: Tls,
    served: ArcSwap<Served>,
    tickets: Arc<Tickets>,
    clients: Option<Arc<Clients>>,
}

/// The certificates of one moment.
#[derive(Debug)]
struct Served {
    /// For clients that name no host, or one that no other is for.
    first: Arc<CertifiedKey>,
    /// By DNS name in lower case; wildcards as `*.example.org`.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// End of each file's validity, in seconds since 1970.
    until: Vec<(String, u64)>,
}

impl Certificates {
    /// Reads every file.
    ///
    /// # Errors
    ///
    /// [`TlsError`] with the file that is wrong.
    pub fn load(sources: Tls) -> Result<Arc<Self>, TlsError> {
        let served = Served::read(&sources)?;
        let clients = match &sources.clients {
            Some(wanted) => Some(Arc::new(Clients::read(wanted)?)),
            None => None,
        };
        Ok(Arc::new(Self {
            served: ArcSwap::from_pointee(served),
            tickets: Arc::new(Tickets::new().map_err(|source| pair_error(&sources, source))?),
            clients,
            sources,
        }))
    }

    /// Reads every file again. All of it takes effect, for handshakes from now
    /// on, or none of it. Blocking.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; what was served before still is.
    pub fn reload(&self) -> Result<(), TlsError> {
        let served = Served::read(&self.sources)?;
        if let (Some(clients), Some(wanted)) = (&self.clients, &self.sources.clients) {
            let fresh = Clients::read(wanted)?;
            if clients.replace(fresh) {
                // A ticket stands for a certificate that is perhaps no longer
                // trusted.
                self.tickets.forget();
            }
        }
        self.served.store(Arc::new(served));
        Ok(())
    }

    /// Every file that a reload reads.
    pub fn files(&self) -> Vec<&Path> {
        let Tls {
            certificate,
            private_key,
            more,
            clients,
        } = &self.sources;
        let mut files = vec![certificate.as_path(), private_key.as_path()];
        for Pair {
            certificate,
            private_key,
        } in more
        {
            files.extend([certificate.as_path(), private_key.as_path()]);
        }
        files.extend(clients.iter().map(|clients| clients.ca.as_path()));
        files
    }

    /// End of each certificate's validity, by its file, in seconds since 1970.
    pub fn valid_until(&self) -> Vec<(String, u64)> {
        self.served.load().until.clone()
    }

    /// The configuration of a listener for clients of the API.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the library refuses it.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        self.config(self.clients.as_ref())
    }

    /// The same without certificates of clients: for browsers of admins.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the library refuses it.
    pub fn admin_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        self.config(None)
    }

    fn config(
        self: &Arc<Self>,
        clients: Option<&Arc<Clients>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|source| pair_error(&self.sources, source))?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as _),
            None => builder.with_no_client_auth(),
        };
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ignore_client_order = true;
        // Only tickets, which a change of the clients' authorities voids. The
        // SDKs open a connection per stream: tickets spare them the full
        // handshake. One for each: it may be shown more than once.
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match clients {
            Some(_) => Arc::clone(&self.tickets) as _,
            None => Arc::new(Tickets::new().map_err(|source| pair_error(&self.sources, source))?),
        };
        Ok(Arc::new(config))
    }
}

fn pair_error(sources: &Tls, source: rustls::Error) -> TlsError {
    TlsError::Pair {
        certificate: sources.certificate.display().to_string(),
        key: sources.private_key.display().to_string(),
        source,
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.served.load();
        let key = match hello.server_name() {
            Some(name) => served.of(name),
            None => &served.first,
        };
        Some(Arc::clone(key))
    }
}

impl Served {
    fn read(sources: &Tls) -> Result<Self, TlsError> {
        let Tls {
            certificate,
            private_key,
            more,
            ..
        } = sources;
        let provider = provider();
        let mut until = Vec::new();
        let mut read = |certificate: &Path, key: &Path| {
            let certified = read_pair(certificate, key, &provider)?;
            let end = certified.cert.first().and_then(|leaf| validity::end(leaf));
            let file = certificate.display().to_string();
            if end.is_some_and(|end| end < unix_time().as_secs()) {
                tracing::warn!("the certificate {file} has expired: clients will refuse it");
            }
            until.extend(end.map(|end| (file, end)));
            Ok::<_, TlsError>(Arc::new(certified))
        };
        let first = read(certificate, private_key)?;
        let mut by_name: HashMap<String, Arc<CertifiedKey>> = HashMap::new();
        let mut files: HashMap<String, String> = HashMap::new();
        for pair in more {
            let certified = read(&pair.certificate, &pair.private_key)?;
            let file = pair.certificate.display().to_string();
            let names = names(&certified);
            if names.is_empty() {
                return Err(TlsError::NoName { certificate: file });
            }
            for name in names {
                if let Some(other) = files.insert(name.clone(), file.clone()) {
                    return Err(TlsError::Twice {
                        name,
                        first: other,
                        second: file,
                    });
                }
                by_name.insert(name, Arc::clone(&certified));
            }
        }
        Ok(Self {
            first,
            by_name,
            until,
        })
    }

    /// The certificate for a name: its own, then a wildcard's, then the first.
    fn of(&self, name: &str) -> &Arc<CertifiedKey> {
        let own = self.by_name.get(name);
        own.or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
        .unwrap_or(&self.first)
    }
}

/// The DNS names of a leaf, in lower case.
fn names(certified: &CertifiedKey) -> Vec<String> {
    let leaf = certified.cert.first();
    let Some(Ok(leaf)) = leaf.map(webpki::EndEntityCert::try_from) else {
        return Vec::new();
    };
    let mut names: Vec<String> = leaf
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The suites with SHA-256 first: of the handshake's own work that of SHA-384, for which
/// processors have no instruction, is a tenth, and AES with 128 bits is the faster one as
/// well. Most clients would name AES with 256 bits first, without a reason of theirs.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let uses_sha_384 = |suite: &SupportedCipherSuite| {
        suite
            .suite()
            .as_str()
            .is_some_and(|name| name.ends_with("SHA384"))
    };
    provider.cipher_suites.sort_by_key(uses_sha_384);
    provider
}

fn read_pair(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates("certificate", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| unread("private key", key, PemKind::PrivateKey, source))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|source| TlsError::Pair {
        certificate: certificate.display().to_string(),
        key: key.display().to_string(),
        source,
    })
}

/// Every certificate of a PEM file, of which there must be one.
fn read_certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = read.and_then(|chain| match chain.as_slice() {
        [] => Err(rustls::pki_types::pem::Error::NoItemsFound),
        _ => Ok(chain),
    });
    chain.map_err(|source| unread(what, path, PemKind::Certificate, source))
}

/// Error of a file that can't be used: it tells what the file holds instead, if that is known.
fn unread(
    what: &'static str,
    path: &Path,
    wanted: PemKind,
    source: rustls::pki_types::pem::Error,
) -> TlsError {
    let content = std::fs::read(path).unwrap_or_default();
    let path = path.display().to_string();
    match pem::fault(&content, wanted) {
        Some(why) => TlsError::Wrong { what, path, why },
        None => TlsError::Read { what, path, source },
    }
}

/// Makes and reads tickets, with keys that can be forgotten.
#[derive(Debug)]
struct Tickets(ArcSwap<Arc<dyn ProducesTickets>>);

impl Tickets {
    fn new() -> Result<Self, rustls::Error> {
        Ok(Self(ArcSwap::from_pointee(aws_lc_rs::Ticketer::new()?)))
    }

    /// A client with a ticket from before shakes hands in full.
    fn forget(&self) {
        match aws_lc_rs::Ticketer::new() {
            Ok(fresh) => self.0.store(Arc::new(fresh)),
            Err(error) => {
                tracing::error!(error = %error, "no new key for TLS tickets: none are taken any more");
                self.0.store(Arc::new(Arc::new(NoTickets)));
            }
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.load().lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.load().encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.load().decrypt(cipher)
    }
}

/// Gives out no tickets and takes none.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(Duration::from_hours(1).as_secs()).unwrap_or(0)
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Reads one pair and makes the configuration of a listener.
///
/// # Errors
///
/// [`TlsError`] with the file that is wrong.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let sources = Tls {
        certificate: certificate.to_owned(),
        private_key: key.to_owned(),
        more: Vec::new(),
        clients: None,
    };
    Certificates::load(sources)?.server_config()
}
