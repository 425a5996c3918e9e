//! Authorities that we trust when we are the client: those of a file, or of the system.
//!
//! For key sets of other issuers, and for upstreams behind TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::pem::{self, PemKind};

/// Files in which distributions keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reason why there are no authorities to verify a server with.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file can't be read.
    #[error(
        "could not read the certificate authorities in {path}: make the file readable, or set \
         ca to another one"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Error met in reading it.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than certificates.
    #[error("the certificate authorities in {path} can't be used: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Content that the file has instead, and a remedy.
        why: &'static str,
    },
    /// The file has no usable certificate.
    #[error("{path} holds no usable certificate in PEM form: set ca to one that does")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// This system keeps no list of authorities in a usual place.
    #[error(
        "this system has no list of certificate authorities in a usual place: set ca to \
         a PEM file with the authority of the server"
    )]
    Missing,
}

/// A client that verifies servers with the authorities in `ca`, or with those that
/// the system trusts. Blocks on the disk.
///
/// # Errors
///
/// [`RootsError`] when there is none.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let path = match ca {
        Some(path) => path.to_owned(),
        None => system_roots().ok_or(RootsError::Missing)?,
    };
    let text = std::fs::read(&path).map_err(|source| RootsError::Read {
        path: path.clone(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    // A system's list may hold some that rustls does not take; the rest are good.
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    let (usable, _) = roots.add_parsable_certificates(certificates);
    let empty = || RootsError::Empty { path: path.clone() };
    if usable == 0 {
        return Err(match pem::fault(&text, PemKind::Certificate) {
            Some(why) => RootsError::Wrong { path, why },
            None => empty(),
        });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| empty())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn system_roots() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named
        .into_iter()
        .chain(SYSTEM_ROOTS.map(PathBuf::from))
        .find(|path| path.is_file())
}
