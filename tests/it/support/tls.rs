//! TLS on both sides of a gateway: certificates that sign themselves, and servers behind TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::Client;
use super::gateway::config;
use crate::support::edit::Edit;

/// A certificate that has signed itself, and its key.
pub struct SelfSigned(rcgen::CertifiedKey<rcgen::KeyPair>);

impl SelfSigned {
    pub fn new(name: &str) -> Self {
        Self::for_names(&[name])
    }

    pub fn for_names(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Self(rcgen::generate_simple_self_signed(names).unwrap())
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }

    pub fn pem(&self) -> String {
        self.0.cert.pem()
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.signing_key.serialize_der()).into()
    }

    pub fn key_pem(&self) -> String {
        self.0.signing_key.serialize_pem()
    }

    /// Writes `tls.crt` and `tls.key` into a folder. Returns the keys of a listener's `tls` section
    /// that name them.
    pub fn listener_keys(&self, folder: &Path) -> String {
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&certificate, self.pem()).unwrap();
        std::fs::write(&key, self.key_pem()).unwrap();
        format!("certificate_file: {certificate:?}, key_file: {key:?}")
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], self.key_der())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Trusts this certificate and no other.
    pub fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// Connects to the server that has this certificate, under this name of it.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> Client<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Client::over(self.connector().connect(name, tcp).await.unwrap())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server with TLS in front of a plain one. It counts what arrives under TLS.
pub struct TlsServer {
    pub address: SocketAddr,
    pub handshakes: Arc<AtomicUsize>,
    pub bytes: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl TlsServer {
    pub async fn start(acceptor: TlsAcceptor, plain: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (handshakes, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (shaken, counted) = (Arc::clone(&handshakes), Arc::clone(&bytes));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, shaken) = (acceptor.clone(), Arc::clone(&shaken));
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    // A gateway that does not trust the certificate ends the handshake.
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    shaken.fetch_add(1, SeqCst);
                    let (mut from_gateway, mut to_gateway) = tokio::io::split(tls);
                    let (mut from_server, mut to_server) =
                        TcpStream::connect(plain).await.unwrap().into_split();
                    tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_server, &mut to_gateway).await;
                    });
                    let mut piece = vec![0; 16 * 1024];
                    while let Ok(read @ 1..) = from_gateway.read(&mut piece).await {
                        counted.fetch_add(read, SeqCst);
                        let _ = to_server.write_all(&piece[..read]).await;
                    }
                });
            }
        });
        Self { address, handshakes, bytes, task }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The configuration for a server with TLS at `host`, and the bundle that says whom to trust.
pub fn tls_config(host: &str, server: &TlsServer, bundle: &str, tenant: &str) -> String {
    let plain = config(([127, 0, 0, 1], server.port()).into(), tenant);
    let url = format!("https://{host}:{}/bi\", ca_file: \"{}\"", server.port(), bundle);
    plain.edit(&format!("http://127.0.0.1:{}/bi\"", server.port()), &url)
}
