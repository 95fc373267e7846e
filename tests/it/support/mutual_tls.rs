//! A server that knows its clients by their certificates; and one that is reached through a proxy
//! alone, and wants a certificate and a header as well.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use boldgate::boldbi::stand_in::{Recorded, StandIn};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::client_certificates::{Ca, Identity, dns};
use super::connect_proxy::{Answer, ConnectProxy};
use super::files::write;
use super::tls::SelfSigned;

/// A server that wants a certificate of one of these CAs, in front of a plain one. It records the
/// certificate of each connection.
pub struct MutualTls {
    pub address: SocketAddr,
    shown: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    pub server: SelfSigned,
}

impl MutualTls {
    pub async fn start(
        cas: &[&Ca],
        version: &'static rustls::SupportedProtocolVersion,
        plain: SocketAddr,
    ) -> Self {
        let server = SelfSigned::new("localhost");
        let mut roots = RootCertStore::empty();
        for ca in cas {
            let listed = boldgate::trust::certificates(ca.pem.as_bytes(), &[]).unwrap();
            roots.add(listed[0].der().clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![server.der()], server.key_der())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&shown);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A gateway without a certificate gets no further.
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    let chain = tls.get_ref().1.peer_certificates().unwrap();
                    seen.lock().unwrap().push(chain[0].clone().into_owned());
                    let mut plain = TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        Self { address, shown, server }
    }

    /// The certificates that were shown since the last call.
    pub fn take(&self) -> Vec<CertificateDer<'static>> {
        std::mem::take(&mut *self.shown.lock().unwrap())
    }
}

/// The keys of a server with this certificate of the gateway.
pub fn keys(folder: &TempDir, identity: &Identity) -> String {
    let (certificate, key) = identity.pem();
    let certificate = write(folder, "client.crt", &certificate);
    let key = write(folder, "client.key", &key);
    format!(", client_certificate_file: {certificate:?}, client_key_file: {key:?}")
}

/// A stand-in behind a server with TLS that wants a certificate, behind a proxy that wants a login.
pub struct GuardedServer {
    tls: MutualTls,
    proxy: ConnectProxy,
    ours: Identity,
    folder: TempDir,
}

impl GuardedServer {
    pub async fn start(plain: SocketAddr) -> Self {
        let ca = Ca::new("ours");
        let tls = MutualTls::start(&[&ca], &rustls::version::TLS13, plain).await;
        let proxy = ConnectProxy::start(Answer::WithLogin(tls.address, LOGIN)).await;
        let ours = ca.identity(&[dns("gateway")]);
        Self { tls, proxy, ours, folder: tempfile::tempdir().unwrap() }
    }

    /// The keys of a server in the configuration, with its URL.
    pub fn keys(&self) -> String {
        let file = |name: &str, text: &str| write(&self.folder, name, text);
        format!(
            "url: \"https://{TARGET}/bi\", ca_file: {:?}{}, headers: {{ X-Waf-Key: {{ file: {:?} }} }}, \
             proxy: {{ url: \"http://{}\", username: canary-egress, password: {{ file: {:?} }} }}",
            file("ca.pem", &self.tls.server.pem()),
            keys(&self.folder, &self.ours),
            file("waf-key", WAF_KEY),
            self.proxy.address,
            file("proxy-password", "canary-proxy-password"),
        )
    }

    /// Everything that has reached the stand-in came through the proxy, on connections with the
    /// certificate, with the header. Returns the requests.
    pub fn assert_passed(&self, stand_in: &StandIn) -> Vec<Recorded> {
        let (heads, shown) = (self.proxy.heads(), self.tls.take());
        for head in &heads {
            assert!(head.starts_with(&format!("CONNECT {TARGET} HTTP/1.1\r\n")), "its target");
        }
        assert!(shown.iter().all(|one| *one == self.ours.chain[0]), "its certificate");
        let passed = (heads.len() as u64, shown.len() as u64);
        assert_eq!(
            passed,
            (stand_in.connections(), stand_in.connections()),
            "nothing goes directly"
        );
        let requests = stand_in.last_requests();
        for request in &requests {
            let values: Vec<_> = request.headers.get_all("x-waf-key").iter().collect();
            assert!(values == [WAF_KEY], "{}: the header, once", request.target);
        }
        requests
    }
}

/// The proxy looks the name up: nothing else has it.
const TARGET: &str = "localhost:7443";
const WAF_KEY: &str = "canary-waf-key";
/// `canary-egress:canary-proxy-password` in Base64.
const LOGIN: &str = "Basic Y2FuYXJ5LWVncmVzczpjYW5hcnktcHJveHktcGFzc3dvcmQ=";
