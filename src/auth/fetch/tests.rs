//! Good and bad servers of key sets, over real connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::certs::ensure_server_pair;
use crate::time::timeout;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A server on loopback that sends the same bytes to every client.
pub(in crate::auth) struct Server(TcpListener);

impl Server {
    pub(in crate::auth) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(in crate::auth) fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.0.local_addr().unwrap())
    }

    /// Answers until told to end, and counts the requests.
    pub(in crate::auth) async fn serve(&self, response: Vec<u8>, ending: CancellationToken) -> u32 {
        let mut exchanges = 0;
        loop {
            let accepted = tokio::select! {
                () = ending.cancelled() => return exchanges,
                accepted = self.0.accept() => accepted.unwrap().0,
            };
            exchanges += 1;
            answer(accepted, &response).await;
        }
    }

    async fn once(&self, response: &[u8]) -> String {
        let (stream, _) = self.0.accept().await.unwrap();
        answer(stream, response).await
    }
}

/// Reads a head, sends the response, and returns the head.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, response: &[u8]) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    // A client that has seen enough may hang up within the response.
    if stream.write_all(response).await.is_ok() {
        drop(stream.shutdown().await);
    }
    String::from_utf8(head).unwrap()
}

async fn fetched(response: Vec<u8>) -> (Result<Bytes, FetchError>, String) {
    let server = Server::bind().await;
    let fetcher = Fetcher::new(server.url("http", "/a/jwks?v=1").parse().unwrap(), None).unwrap();
    let both = async { tokio::join!(fetcher.fetch(), server.once(&response)) };
    timeout(Duration::from_secs(20), both).await.unwrap()
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_document_is_fetched_whole_in_each_framing() {
    let closed = b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec();
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec();
    for response in [ok(b"{}"), closed, chunked] {
        let (body, head) = fetched(response).await;
        assert_eq!(&body.unwrap()[..], b"{}");
        assert!(head.starts_with("GET /a/jwks?v=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: 127.0.0.1:"), "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
    let (most, _) = fetched(ok(&vec![b' '; JWKS_BYTES_MAX])).await;
    assert_eq!(most.unwrap().len(), JWKS_BYTES_MAX);
}

#[tokio::test]
async fn an_answer_that_is_no_bounded_document_is_refused() {
    let endless = [
        b"HTTP/1.1 200 OK\r\n\r\n".as_slice(),
        &vec![b' '; 4 * JWKS_BYTES_MAX],
    ]
    .concat();
    let lying = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}".to_vec();
    let headers = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n";
    for (response, expected) in [
        (ok(&vec![b' '; JWKS_BYTES_MAX + 1]), "larger than"),
        (endless, "larger than"),
        (lying, "broke off"),
        (headers.into_bytes(), "broke off"),
        (moved.into(), "302"),
        (
            b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "500",
        ),
        (b"nonsense\r\n\r\n".to_vec(), "broke off"),
        (Vec::new(), "broke off"),
    ] {
        let (result, _) = fetched(response).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_name_only() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("server.pem"), dir.path().join("server.key"));
    ensure_server_pair(&certificate, &key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&certificate).unwrap()],
            rustls::pki_types::PrivateKeyDer::from_pem_file(&key).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let other = tempfile::tempdir().unwrap();
    let other_key = other.path().join("server.key");
    ensure_server_pair(&other.path().join("server.pem"), &other_key).unwrap();
    let (ca, other_ca) = (dir.path().join("ca.pem"), other.path().join("ca.pem"));
    for (host, ca, good) in [
        ("127.0.0.1", &ca, true),
        ("localhost", &ca, true),
        ("127.0.0.2", &ca, false),
        ("127.0.0.1", &other_ca, false),
    ] {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("https://{host}:{port}/jwks").parse().unwrap();
        let fetcher = Fetcher::new(url, Some(ca)).unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, &ok(b"{}")).await;
            }
        };
        let both = async { tokio::join!(fetcher.fetch(), server).0 };
        let result = timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!(result.is_ok(), good, "{host} {ca:?}");
        assert!(
            good || matches!(result, Err(FetchError::Tls(_))),
            "{result:?}"
        );
    }
}

#[test]
fn authorities_that_can_not_be_used_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let new = |ca: &Path| {
        let url = "https://idp.example.org/".parse().unwrap();
        Fetcher::new(url, Some(ca)).unwrap_err().to_string()
    };
    assert!(new(&empty).contains("no usable certificate"));
    assert!(new(&dir.path().join("absent.pem")).contains("could not read"));
}

#[test]
fn an_address_is_https_or_leads_to_this_machine() {
    for good in [
        "https://idp.example.org/.well-known/jwks.json",
        "https://idp.example.org:8443/a?b=c",
        "https://[2001:db8::1]/",
        "http://localhost:8080/jwks",
        "http://127.0.0.1/jwks",
        "http://[::1]:80/jwks",
    ] {
        let url: JwksUrl = good.parse().unwrap();
        assert_eq!(url.to_string(), good);
    }
    for bad in [
        "",
        "idp.json",
        "https://",
        "https:///jwks",
        "http://idp.example.org/",
        "http://127.0.0.1.evil.example/",
        "http://10.0.0.1/",
        "https://user:password@idp.example.org/",
        "http://127.0.0.1@evil.example/",
        "https://idp.example.org/#fragment",
        "https://idp.example.org:99999/",
        "ftp://127.0.0.1/",
        "https://-/",
    ] {
        assert!(bad.parse::<JwksUrl>().is_err(), "{bad}");
    }
}
