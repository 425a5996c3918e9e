//! Certificates that clients are shown, and those that they must show.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tidegate::config::edge::{ClientCerts, Need, Pair};
use tidegate::config::{Settings, Tls};
use tidegate::gateway::client::tls::{Certificates, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bench::{Bench, OK, answering};

/// An authority, and a directory for what it signs.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a pair for these names as `stem.pem` and `stem.key`.
    fn sign(&self, stem: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.file(&format!("{stem}.pem")),
            private_key: self.file(&format!("{stem}.key")),
        };
        fs::write(&pair.certificate, signed.pem()).unwrap();
        fs::write(&pair.private_key, key.serialize_pem()).unwrap();
        pair
    }
}

/// `[tls]` with this pair alone.
fn tls_of(first: &Pair) -> Tls {
    Tls {
        certificate: first.certificate.clone(),
        private_key: first.private_key.clone(),
        more: Vec::new(),
        clients: None,
    }
}

/// A client that trusts the authority in `ca` and shows `shown`.
fn client(
    ca: &Path,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_file(&pair.certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&pair.private_key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// Connects and asks for health; `None` when the gateway does not let it in.
async fn ask(
    bench: &Bench,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Option<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(bench.tls).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, socket).await.ok()?;
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = [0; 12];
    // In TLS 1.3 the refusal of a client's certificate comes only here.
    stream.read_exact(&mut answer).await.ok()?;
    assert_eq!(&answer, b"HTTP/1.1 200");
    Some(stream)
}

fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn on_disk(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&pair.certificate).unwrap()
}

async fn bench(certificates: &Arc<Certificates>) -> Bench {
    let config = certificates.server_config().unwrap();
    let servers = [answering(OK).await];
    Bench::with_tls(&servers, "", Settings::default(), Some(config)).await
}

#[tokio::test]
async fn each_name_is_shown_its_own_certificate() {
    let authority = Authority::new();
    let first = authority.sign("first", &["localhost"]);
    let a = authority.sign("a", &["a.example", "www.a.example"]);
    let wild = authority.sign("wild", &["*.b.example"]);
    let mut tls = tls_of(&first);
    tls.more = vec![a.clone(), wild.clone()];
    let bench = bench(&Certificates::load(tls.clone()).unwrap()).await;
    let config = client(&authority.file("ca.pem"), &TLS13, None);
    for (name, pair) in [
        ("localhost", &first),
        ("a.example", &a),
        ("www.a.example", &a),
        ("x.b.example", &wild),
    ] {
        let stream = ask(&bench, &config, name).await.unwrap();
        assert_eq!(leaf(&stream), on_disk(pair), "{name}");
    }
    // Names that no certificate is for are shown the first, and refuse it.
    for name in ["b.example", "x.y.b.example", "other.example"] {
        assert!(ask(&bench, &config, name).await.is_none(), "{name}");
    }
    // Two for one name, or one for none, are mistakes.
    tls.more.push(authority.sign("twin", &["a.example"]));
    let error = Certificates::load(tls.clone()).unwrap_err();
    assert!(
        matches!(error, TlsError::Twice { ref name, .. } if name == "a.example"),
        "{error}"
    );
    tls.more = vec![authority.sign("address", &["127.0.0.1"])];
    let error = Certificates::load(tls).unwrap_err();
    assert!(matches!(error, TlsError::NoName { .. }), "{error}");
}

#[tokio::test]
async fn a_new_pair_is_served_and_a_bad_one_changes_nothing() {
    let authority = Authority::new();
    let pair = authority.sign("server", &["localhost"]);
    let certificates = Certificates::load(tls_of(&pair)).unwrap();
    let bench = bench(&certificates).await;
    let config = client(&authority.file("ca.pem"), &TLS13, None);
    let before = on_disk(&pair);
    let mut open = ask(&bench, &config, "localhost").await.unwrap();
    assert_eq!(leaf(&open), before);

    // Only one half is there yet.
    let old_key = fs::read(&pair.private_key).unwrap();
    authority.sign("server", &["localhost"]);
    let new_key = fs::read(&pair.private_key).unwrap();
    fs::write(&pair.private_key, &old_key).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Pair { .. })));
    fs::write(&pair.private_key, "junk").unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Read { .. })));
    let fresh = client(&authority.file("ca.pem"), &TLS13, None);
    assert_eq!(
        leaf(&ask(&bench, &fresh, "localhost").await.unwrap()),
        before
    );

    fs::write(&pair.private_key, new_key).unwrap();
    certificates.reload().unwrap();
    let fresh = client(&authority.file("ca.pem"), &TLS13, None);
    let after = leaf(&ask(&bench, &fresh, "localhost").await.unwrap());
    assert!(after == on_disk(&pair) && after != before);
    // What was open stays open.
    open.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(open.read_u8().await.is_ok());
    assert!(certificates.valid_until()[0].1 > 0);
}

#[tokio::test]
async fn a_client_shows_a_certificate_where_one_is_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let pair = authority.sign("server", &["localhost"]);
    let own = authority.sign("client", &["client"]);
    let foreign = stranger.sign("client", &["client"]);
    let ca = authority.file("ca.pem");
    for need in [Need::Required, Need::Optional] {
        let mut tls = tls_of(&pair);
        tls.clients = Some(ClientCerts {
            ca: authority.file("clients.pem"),
            need,
        });
        fs::copy(&ca, authority.file("clients.pem")).unwrap();
        let certificates = Certificates::load(tls).unwrap();
        let bench = bench(&certificates).await;
        for version in [&TLS12, &TLS13] {
            let enters = async |shown: Option<&Pair>| {
                let config = client(&ca, version, shown);
                ask(&bench, &config, "localhost").await.is_some()
            };
            assert_eq!(enters(None).await, need == Need::Optional);
            assert!(enters(Some(&own)).await);
            assert!(!enters(Some(&foreign)).await);
        }
        // Another authority is trusted from now on, also against old tickets.
        let known = client(&ca, &TLS13, Some(&own));
        assert!(ask(&bench, &known, "localhost").await.is_some());
        fs::copy(stranger.file("ca.pem"), authority.file("clients.pem")).unwrap();
        certificates.reload().unwrap();
        assert!(ask(&bench, &known, "localhost").await.is_none());
        let now = client(&ca, &TLS13, Some(&foreign));
        assert!(ask(&bench, &now, "localhost").await.is_some());
    }
}

#[tokio::test]
async fn a_client_that_comes_again_resumes_also_after_a_new_certificate() {
    let authority = Authority::new();
    let pair = authority.sign("server", &["localhost"]);
    let certificates = Certificates::load(tls_of(&pair)).unwrap();
    let bench = bench(&certificates).await;
    for version in [&TLS12, &TLS13] {
        let config = client(&authority.file("ca.pem"), version, None);
        let kind = async || {
            let stream = ask(&bench, &config, "localhost").await.unwrap();
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind().await, HandshakeKind::Full);
        assert_eq!(kind().await, HandshakeKind::Resumed);
        certificates.reload().unwrap();
        assert_eq!(kind().await, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn the_cheaper_hash_is_chosen_also_where_the_client_names_the_other_first() {
    let authority = Authority::new();
    let pair = authority.sign("server", &["localhost"]);
    let bench = bench(&Certificates::load(tls_of(&pair)).unwrap()).await;
    for (version, chosen) in [
        (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        (&TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
    ] {
        let config = client(&authority.file("ca.pem"), version, None);
        let stream = ask(&bench, &config, "localhost").await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        assert_eq!(suite.suite(), chosen);
    }
}
