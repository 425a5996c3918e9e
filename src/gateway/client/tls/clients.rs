//! The certificates that clients show (mutual TLS).
//!
//! The trusted authorities can be replaced while serving. A certificate
//! opens the connection; the token still tells who asks.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::{TlsError, provider, read_certificates};
use crate::config::edge::{ClientCerts, Need};

/// Verifies clients with the authorities of the moment.
#[derive(Debug)]
pub(super) struct Clients {
    need: Need,
    trusted: ArcSwap<Trusted>,
}

#[derive(Debug)]
struct Trusted {
    authorities: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    pub(super) fn read(wanted: &ClientCerts) -> Result<Self, TlsError> {
        let authorities = read_certificates("file of the clients' authorities", &wanted.ca)?;
        let failed = |source| TlsError::Clients {
            path: wanted.ca.display().to_string(),
            source,
        };
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(authorities.iter().cloned());
        if ignored > 0 {
            tracing::warn!(
                "{ignored} certificates in {} can't be read as those of authorities, and are left out",
                wanted.ca.display()
            );
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
        Ok(Self {
            need: wanted.need,
            trusted: ArcSwap::from_pointee(Trusted {
                verifier: builder.build().map_err(failed)?,
                authorities,
            }),
        })
    }

    /// Takes what another has read. Returns whether that changes anything.
    pub(super) fn replace(&self, fresh: Self) -> bool {
        let fresh = fresh.trusted.into_inner();
        let changed = self.trusted.load().authorities != fresh.authorities;
        self.trusted.store(fresh);
        changed
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.need == Need::Required
    }

    /// None: they may change, and clients with one certificate need no hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trusted = self.trusted.load();
        trusted
            .verifier
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let trusted = self.trusted.load();
        trusted.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let trusted = self.trusted.load();
        trusted.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.load().verifier.supported_verify_schemes()
    }
}
