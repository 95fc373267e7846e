//! The proxy between the gateway and a server, asked by CONNECT (RFC 9110, section 9.3.6). It looks
//! the server's name up. No proxy is ever taken from the environment.

use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A proxy. Two are equal if they are at the same place and are given the same login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundProxy {
    host: String,
    port: u16,
    /// Marked as sensitive.
    login: Option<HeaderValue>,
}

/// Why a proxy has made no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum TunnelFault {
    /// It wants a user name and a password, or others (407).
    #[error("the proxy {proxy} wants a valid user name and password for {target} (407)")]
    Login {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        target: String,
    },
    /// It has answered with another status than 200.
    #[error("the proxy {proxy} refuses, or fails, to connect to {target}")]
    Refused {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        target: String,
    },
    /// It has not answered CONNECT.
    #[error("the proxy {proxy} breaks off instead of connecting to {target}")]
    Broken {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        target: String,
        /// The cause.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl OutboundProxy {
    /// A proxy at this host, without brackets, with the user name and the password that it wants.
    pub fn new(host: String, port: u16, login: Option<(&str, &Secret)>) -> Self {
        let login = login.and_then(|(username, password)| {
            let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
            let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            let mut value = HeaderValue::from_str(&basic).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { host, port, login }
    }

    /// Its host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Has the proxy connect to a server, over a new connection to the proxy.
    ///
    /// # Errors
    /// When it does not.
    pub async fn tunnel(
        &self,
        tcp: TcpStream,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, TunnelFault> {
        let (proxy, target) = (self.authority(), authority(host, port));
        let url = format!("http://{target}").parse::<Uri>();
        let url = match url {
            Ok(url) => url,
            Err(cause) => return Err(TunnelFault::Broken { proxy, target, cause: cause.into() }),
        };
        let mut tunnel = Tunnel::new(Uri::from_static("http://proxy"), Connected(Some(tcp)));
        if let Some(login) = &self.login {
            tunnel = tunnel.with_auth(login.clone());
        }
        match tunnel.call(url).await {
            Ok(made) => Ok(made.into_inner()),
            // hyper-util's type for this is private.
            Err(error) => Err(match error.to_string().as_str() {
                "tunnel error: proxy authorization required" => {
                    TunnelFault::Login { proxy, target }
                }
                "tunnel error: unsuccessful" => TunnelFault::Refused { proxy, target },
                _ => TunnelFault::Broken { proxy, target, cause: error.into() },
            }),
        }
    }
}

impl TunnelFault {
    /// The remedy, in one sentence for operators.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Login { .. } => PROXY_LOGIN,
            Self::Refused { .. } => PROXY_REFUSED,
            Self::Broken { .. } => PROXY_CONNECT,
        }
    }
}

/// The connection to the proxy. It is made before, so that its faults are those of every other.
struct Connected(Option<TcpStream>);

impl Service<Uri> for Connected {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let tcp = self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into());
        ready(tcp.map(TokioIo::new))
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Advice on a proxy that cannot be used at all.
pub const PROXY_CONNECT: &str = "check the host and the port in `proxy.url` of the server, and that an HTTP proxy which takes CONNECT \
     runs there";
/// Advice on a proxy that does not know the gateway.
pub const PROXY_LOGIN: &str = "correct `proxy.username` and `proxy.password` of the server, or have the proxy let the gateway in by its \
     address";
/// Advice on a proxy that does not connect.
pub const PROXY_REFUSED: &str = "add the host and the port of Bold BI to the access rules of the proxy; its own log says whether it \
     refuses or cannot reach Bold BI";
