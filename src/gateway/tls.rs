//! The server's side of TLS: certificate, versions, ALPN, resumption.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerSessionMemoryCache;
use rustls::{ServerConfig, version};

/// TLS 1.2 sessions that can be resumed; TLS 1.3 uses tickets.
const SESSIONS_MAX: usize = 4_096;

/// Why TLS can't be offered.
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
}

/// Reads the pair and makes the configuration of every TLS listener.
///
/// # Errors
///
/// [`TlsError`] with the file that is wrong.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |what: &'static str, path: &Path, source| TlsError::Read {
        what,
        path: path.display().to_string(),
        source,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| {
            if chain.is_empty() {
                Err(rustls::pki_types::pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(|source| read("certificate", certificate, source))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|source| read("private key", key, source))?;
    let pair = |source| TlsError::Pair {
        certificate: certificate.display().to_string(),
        key: key.display().to_string(),
        source,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    // The SDKs open a connection per stream: tickets spare them the full handshake.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(pair)?;
    Ok(Arc::new(config))
}
