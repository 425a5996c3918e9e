//! Upstreams behind TLS: proven by their certificate, or not used.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate::auth::certs::ensure_server_pair;
use tidegate::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::bench::{Bench, Client, OK};

const CHAT: &str = r#"{"messages":"hi","model":"chat"}"#;

/// An https server for `localhost`, and the name that each client asked for.
async fn secure(
    dir: &Path,
) -> (
    SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<Option<String>>,
) {
    let (certificate, key) = (dir.join("up.pem"), dir.join("up.key"));
    ensure_server_pair(&certificate, &key).unwrap();
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, names) = tokio::sync::mpsc::unbounded_channel();
    // It ends with the runtime of its test.
    let tasks = Tasks::new();
    let connections = tasks.child();
    tasks.spawn_bare(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            connections.spawn_bare(async move {
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                drop(seen.send(name));
                let mut peer = Client(stream);
                while peer.request().await.is_some() {
                    peer.send(OK).await;
                }
            });
        }
    });
    (address, names)
}

#[tokio::test]
async fn an_https_upstream_is_used_when_it_proves_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (address, mut names) = secure(dir.path()).await;
    let ca = dir.path().join("ca.pem");
    let ca = ca.display();
    let route = |lines: &str| {
        format!(
            "[route]\nname = \"chat\"\npublic = true\n[[upstream]]\nurl = \"https://localhost:{}\"\n{lines}\n",
            address.port()
        )
    };
    let bench = Bench::new(&[address], "").await;
    let ask = async |lines: &str| {
        let routes = tempfile::tempdir().unwrap();
        std::fs::write(routes.path().join("chat.toml"), route(lines)).unwrap();
        bench.install(routes.path());
        bench.ask(bench.post(CHAT)).await
    };
    for _ in 0..2 {
        let answer = ask(&format!("ca = \"{ca}\"")).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "{\"hello\": \"world\"}")
        );
    }
    assert_eq!(names.recv().await.unwrap().as_deref(), Some("localhost"));
    assert!(
        names.try_recv().is_err(),
        "the second used the same connection"
    );
    // Another name than the certificate's; authorities that did not sign it; a file
    // that is not there: never in the clear instead.
    for lines in [
        format!("ca = \"{ca}\"\ntls_server_name = \"other.example\""),
        "ca = \"/nowhere/ca.pem\"".to_owned(),
    ] {
        let answer = ask(&lines).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "no_healthy_backend"),
            "{lines}"
        );
    }
}
