//! The TLS pair of a first start.
//!
//! A certificate authority is made where neither certificate nor key exists; it
//! signs one server certificate and then forgets its own key: `ca.pem`, which
//! clients are told to trust, can vouch for this server and for nothing else.
//! Loading pairs into TLS, and replacing them while serving, is `gateway`'s.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use super::files::{PRIVATE, PUBLIC, Staged};
use crate::time::unix_seconds;

/// Life of the pair: 825 days is the most that Apple's clients accept.
const LIFE: Duration = Duration::from_hours(825 * 24);

/// Time by which the validity begins early, for clients whose clocks are behind.
const CLOCKS_BEHIND: Duration = Duration::from_hours(1);

/// Origin of a server pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made just now; clients trust it by this certificate authority.
    Created {
        /// The authority's certificate, beside the server's.
        ca: PathBuf,
    },
    /// Both files were there. They have not been read.
    Found,
}

/// Reason why there is no server pair.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// One half of the pair exists without the other.
    #[error(
        "{present} exists, but {missing} does not: put the missing half there, or remove \
         {present} and a new pair is made at the next start"
    )]
    Half {
        /// The half that exists.
        present: PathBuf,
        /// The half that does not.
        missing: PathBuf,
    },
    /// A file can't be written or looked for.
    #[error(
        "could not write {path} for a new TLS pair: make its directory writable for the user that \
         runs tidegate, or set tls.certificate and tls.private_key to an existing pair"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// The pair can't be made.
    #[error("the cryptographic library could not make a TLS pair")]
    Make(#[source] rcgen::Error),
}

/// Makes a server pair and its authority where both files are absent.
///
/// The server's names are `localhost`, `127.0.0.1`, `::1` and the host's name. An
/// existing `ca.pem` beside the certificate is kept as `ca.previous.pem`. Blocking.
///
/// # Errors
///
/// [`CertError`], a sentence that says what to do. Nothing was overwritten.
pub fn ensure_server_pair(certificate: &Path, key: &Path) -> Result<Made, CertError> {
    match (exists(certificate)?, exists(key)?) {
        (true, true) => return Ok(Made::Found),
        (true, false) => return Err(half(certificate, key)),
        (false, true) => return Err(half(key, certificate)),
        (false, false) => {}
    }
    let pem = make(host_name().as_deref()).map_err(CertError::Make)?;
    let ca = certificate.with_file_name("ca.pem");
    // All three are on disk before the first gets its name.
    let staged = [
        stage(key, &pem.key, PRIVATE)?,
        stage(&ca, &pem.ca, PUBLIC)?,
        stage(certificate, &pem.certificate, PUBLIC)?,
    ];
    if exists(&ca)? {
        let previous = certificate.with_file_name("ca.previous.pem");
        fs::rename(&ca, &previous).map_err(|source| write_error(&previous, source))?;
    }
    for (file, path) in staged.into_iter().zip([key, &ca, certificate]) {
        let placed = file.place().map_err(|source| write_error(path, source))?;
        if !placed {
            return Err(write_error(path, io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ok(Made::Created { ca })
}

struct Pem {
    ca: String,
    certificate: String,
    key: String,
}

fn make(host: Option<&str>) -> Result<Pem, rcgen::Error> {
    let now = Duration::from_secs(unix_seconds());
    let ca_key = KeyPair::generate()?;
    let mut params = valid_from(now);
    // A name of its own: clients may trust the authorities of several gateways.
    params.distinguished_name = named(&format!("Tidegate local CA {}", now.as_secs()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params, ca_key)?;

    let key = KeyPair::generate()?;
    let mut params = valid_from(now);
    params.distinguished_name = named("Tidegate server");
    params.subject_alt_names = names(host)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python 3.13 verifies strictly and wants to see which key signed.
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &ca)?;
    Ok(Pem {
        ca: ca.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn valid_from(now: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(CLOCKS_BEHIND);
    params.not_after = params.not_before + LIFE;
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn names(host: Option<&str>) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    if let Some(host) = host.filter(|host| *host != "localhost") {
        names.push(SanType::DnsName(host.try_into()?));
    }
    Ok(names)
}

/// The host's name, where it is one that a certificate may hold.
fn host_name() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_str()
        .ok()?
        .to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}

fn exists(path: &Path) -> Result<bool, CertError> {
    path.try_exists()
        .map_err(|source| write_error(path, source))
}

fn stage(path: &Path, text: &str, mode: u32) -> Result<Staged, CertError> {
    Staged::write(path, text.as_bytes(), mode).map_err(|source| write_error(path, source))
}

fn half(present: &Path, missing: &Path) -> CertError {
    CertError::Half {
        present: present.to_owned(),
        missing: missing.to_owned(),
    }
}

fn write_error(path: &Path, source: io::Error) -> CertError {
    CertError::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    /// Shakes hands in memory, as a client that trusts `ca` and calls for `name`.
    fn handshake(dir: &Path, ca: &Path, name: &str) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap())?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_file(dir.join("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn ensure(dir: &Path) -> Result<Made, CertError> {
        ensure_server_pair(&dir.join("server.pem"), &dir.join("server.key"))
    }

    #[test]
    fn a_client_that_trusts_the_authority_trusts_the_server_by_each_name() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let ca = dir.join("ca.pem");
        assert_eq!(ensure(&dir).unwrap(), Made::Created { ca: ca.clone() });
        for name in ["localhost", "127.0.0.1", "::1"] {
            handshake(&dir, &ca, name).unwrap();
        }
        if let Some(host) = host_name() {
            handshake(&dir, &ca, &host).unwrap();
        }
        handshake(&dir, &ca, "example.org").unwrap_err();
        let mode = |name| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("server.key"), 0o600);
        assert_eq!(mode("server.pem") & 0o600, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    }

    #[test]
    fn a_pair_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path()).unwrap();
        let read = || {
            ["server.pem", "server.key", "ca.pem"]
                .map(|name| fs::read(dir.path().join(name)).unwrap())
        };
        let before = read();
        assert_eq!(ensure(dir.path()).unwrap(), Made::Found);
        assert!(read() == before);
    }

    #[test]
    fn half_a_pair_is_an_error_and_nothing_is_written() {
        for name in ["server.pem", "server.key"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "mine").unwrap();
            let error = ensure(dir.path()).unwrap_err();
            assert!(matches!(error, CertError::Half { .. }), "{error:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_new_pair_keeps_the_authority_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), "mine").unwrap();
        ensure(dir.path()).unwrap();
        let kept = fs::read_to_string(dir.path().join("ca.previous.pem")).unwrap();
        assert_eq!(kept, "mine");
        handshake(dir.path(), &dir.path().join("ca.pem"), "localhost").unwrap();
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("certs");
        fs::write(&file, "").unwrap();
        match ensure(&file).unwrap_err() {
            CertError::Write { source, .. } => {
                assert_ne!(source.kind(), ErrorKind::NotFound, "{source}");
            }
            other => panic!("{other:?}"),
        }
    }
}
