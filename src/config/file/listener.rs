//! The keys of a listener: its address, its certificate and the proxies before it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::field::Field;

/// An address that clients connect to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// IP address and port (`127.0.0.1:8080`, `[::1]:8080`), or `unix:` and the path of a socket.
    #[schemars(example = "127.0.0.1:8080", example = "unix:/run/boldgate/gateway.sock")]
    pub address: Field<String>,
    /// Of a Unix socket: the mode of its file. `0660` lets its owner and its group connect, `0600`
    /// the owner alone, `0666` every user of the machine. If it is not given, it is `0660`.
    #[serde(default)]
    #[schemars(example = &"0660", extend("pattern" = "^0?[67][067][067]$"))]
    pub mode: Field<String>,
    /// Of a Unix socket: the group of its file, by name or by number. The user that boldgate runs
    /// as must be a member. If it is not given, the group is that of boldgate.
    #[serde(default)]
    #[schemars(example = &"boldgate-clients")]
    pub group: Field<String>,
    /// The callers that it admits.
    pub callers: Field<Callers>,
    /// The only hosts that requests may ask for, in `Host`, without ports; beside the `hosts` of
    /// tenants and, on loopback addresses and Unix sockets, `localhost` and loopback addresses. If
    /// not given, any host will do, but not on a loopback address with `callers: anonymous`, where
    /// web pages could otherwise make browsers send requests.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub hosts: Field<Vec<Field<String>>>,
    /// Serve HTTPS instead of HTTP.
    #[serde(default)]
    pub tls: Field<Tls>,
    /// The proxies in front of it whose word counts for the address and scheme of a client and for
    /// `X-Request-Id`. Logs and Bold BI are told that address. Nobody is identified by it.
    #[serde(default)]
    pub trusted_proxies: Field<TrustedProxies>,
    /// Every connection begins with a header of the PROXY protocol, version 1 or 2, that tells the
    /// client's address for logs and for Bold BI. A connection without it is closed.
    #[serde(default)]
    pub proxy_protocol: Field<ProxyProtocol>,
    /// The servers with `ui: pass` whose static files and data service it passes on. Of several,
    /// the `hosts` of their tenants tell which one a request means.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub ui: Field<Vec<Field<String>>>,
}

/// The proxies that may name their clients in a header. The client is the rightmost address in it
/// that is not one of these proxies. All other forwarding headers are ignored.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustedProxies {
    /// Addresses and networks of the proxies; `unix` for those that connect to a Unix socket.
    #[schemars(length(min = 1), example = ["10.1.0.0/16", "2001:db8::7", "unix"])]
    pub from: Field<Vec<Field<String>>>,
    /// The header that the proxies set, and in which each of them adds its client.
    pub header: Field<ForwardingHeader>,
}

/// A header in which proxies name their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForwardingHeader {
    /// `X-Forwarded-For`; the scheme is in `X-Forwarded-Proto`.
    XForwardedFor,
    /// `Forwarded` of RFC 7239; the scheme is in its `proto`.
    Forwarded,
}

/// The proxies that begin their connections with a header of the PROXY protocol.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyProtocol {
    /// Addresses and networks of the proxies; `unix` for those that connect to a Unix socket. A
    /// connection from elsewhere is closed.
    #[schemars(length(min = 1), example = ["10.1.0.0/16", "2001:db8::7", "unix"])]
    pub from: Field<Vec<Field<String>>>,
}

/// The callers that a listener admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Callers {
    /// Every client that can connect; only on loopback addresses and Unix sockets.
    Anonymous,
    /// Callers with a valid credential.
    Required,
}

/// Certificate and key of a listener, in PEM form.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of keys say that they are files")]
pub(crate) struct Tls {
    /// Path of the certificate, followed by its chain.
    pub certificate_file: Field<String>,
    /// Path of the private key.
    pub key_file: Field<String>,
    /// PEM bundle of the CAs whose certificates clients must have. Without such a certificate there
    /// is no connection, and callers are known by theirs (`certificates`).
    #[serde(default)]
    pub client_ca_file: Field<String>,
    /// PEM file of the lists of client certificates that these CAs have revoked.
    #[serde(default)]
    pub client_crl_file: Field<String>,
}
