//! The servers: installations of Bold BI.

use std::time::Duration;

use http::HeaderMap;

use crate::outbound::OutboundProxy;
use crate::trust::Trust;

/// An installation of Bold BI. Equal servers can use the same connections: everything that decides
/// which server a connection reaches, and how it is used, is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name in the configuration.
    pub name: String,
    /// Whether connections to it use TLS.
    pub tls: bool,
    /// DNS name or IP address, without brackets. Its certificate must be valid for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The addresses to connect to; `host` and `port` if empty. `host` remains its name.
    pub addresses: Vec<HostPort>,
    /// The proxy through which it is reached, in place of `addresses`; `None` without one.
    pub proxy: Option<OutboundProxy>,
    /// Path of all its URLs, with a slash in front and none behind, such as `/bi`; may be empty.
    pub base_path: String,
    /// The CAs and pins that authenticate it. With others it is another server.
    pub trust: Trust,
    /// Headers of every request to it, in place of those that a client sends. Their values may be
    /// secrets, and are marked as sensitive.
    pub headers: HeaderMap,
    /// The health check of its addresses; `None` without one.
    pub health_check: Option<HealthCheck>,
    /// Deadlines of the data path.
    pub timeouts: Timeouts,
    /// Most connections to it at the same time.
    pub max_connections: usize,
    /// Most token exchanges with it at the same time.
    pub max_exchanges: usize,
}

impl Server {
    /// The addresses to connect to: those of the proxy, if there is one.
    pub fn endpoints(&self) -> Vec<HostPort> {
        if let Some(proxy) = &self.proxy {
            return vec![HostPort { host: proxy.host().to_owned(), port: proxy.port() }];
        }
        if self.addresses.is_empty() {
            return vec![HostPort { host: self.host.clone(), port: self.port }];
        }
        self.addresses.clone()
    }

    /// `host` or `host:port`, the value of a `Host` header (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    /// Scheme and authority, such as `https://bi.example.com`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// A DNS name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The health check of a server's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path that is requested, without a token.
    pub path: String,
    /// Time from one check to the next.
    pub interval: Duration,
    /// Deadline of one check.
    pub timeout: Duration,
    /// An ejected address is restored after this many successful checks in a row.
    pub healthy_after: u32,
    /// An address is ejected after this many failed checks in a row.
    pub unhealthy_after: u32,
}

/// Deadlines towards one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS handshake together, at all addresses that are tried. It also bounds
    /// the wait for a free connection.
    pub connect: Duration,
    /// Longest wait for the first byte of a response.
    pub first_byte: Duration,
    /// Longest pause of the server within a response.
    pub read: Duration,
    /// Longest time in which the server accepts no byte.
    pub write: Duration,
    /// One whole request, from its head to the last byte of the response.
    pub total: Duration,
    /// One whole token exchange.
    pub exchange: Duration,
}

impl Timeouts {
    /// The same limit for all.
    pub const fn all(limit: Duration) -> Self {
        Self {
            connect: limit,
            first_byte: limit,
            read: limit,
            write: limit,
            total: limit,
            exchange: limit,
        }
    }
}
