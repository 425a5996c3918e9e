//! TLS of both ends: the certificate of a run, the floor's server, the load's client.
//!
//! Owns rustls' settings: aws-lc-rs, TLS 1.2 and 1.3, ALPN, no resumption on the client
//! so that a new connection is a full handshake. All contestants get the same P-256
//! certificate, of the kind that Tidegate makes on its first start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::error::{BenchError, During};

/// The files of a run's certificate.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// Certificate of the CA, which clients trust.
    pub(crate) ca: PathBuf,
    /// The server's certificate.
    pub(crate) server: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// File of both, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

impl Certificate {
    /// Makes a CA and a certificate for localhost in `dir`.
    pub(crate) fn make(dir: &Path) -> Result<Self, BenchError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names)?.signed_by(&key, &ca)?;
        let made = Self {
            ca: dir.join("ca.pem"),
            server: dir.join("server.pem"),
            key: dir.join("server.key"),
            both: dir.join("server.both.pem"),
        };
        let both = format!("{}{}", server.pem(), key.serialize_pem());
        for (path, text) in [
            (&made.ca, ca.pem()),
            (&made.server, server.pem()),
            (&made.key, key.serialize_pem()),
            (&made.both, both),
        ] {
            std::fs::write(path, text).during(|| format!("write {}", path.display()))?;
        }
        Ok(made)
    }
}

/// Certificates that the load generator trusts.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Certificates of this CA file.
    Ca(PathBuf),
    /// Anyone. Signatures of the handshake are still checked, so the cost is the same.
    Anyone,
}

/// The client's side: `h2` or `http/1.1` and nothing else, so no contestant can choose.
pub(crate) fn client(trust: &Trust, alpn: &[u8]) -> Result<Arc<ClientConfig>, BenchError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Ca(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| {
                    BenchError::said(format!("{} holds no usable CA: {error}", path.display()))
                })?;
            builder.with_webpki_verifier(verifier).with_no_client_auth()
        }
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoName(provider)))
            .with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

/// The floor's side.
pub(crate) fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, BenchError> {
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| BenchError::said(format!("{}: {error}", key.display())))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BenchError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().map_err(|error| BenchError::said(format!("{}: {error}", path.display())))
}

/// Believes any certificate, and checks that the server holds its key.
#[derive(Debug)]
struct NoName(Arc<CryptoProvider>);

impl ServerCertVerifier for NoName {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
