//! Remedies for faults on the way to a server, with the values that this run knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::boldbi::{ProbeError, RedirectTarget};
use crate::outbound::PROXY_CONNECT;
use crate::tenant::Server;

/// An address that cannot be connected to, where no other can be.
pub(super) fn unconnected(
    at: SocketAddr,
    error: &ProbeError,
    only_ipv6: bool,
    is_proxy: bool,
) -> String {
    match error {
        ProbeError::Timeout(_) => dropped(at),
        ProbeError::Connection(fault) if is_proxy && fault.is_refused() => PROXY_CONNECT.to_owned(),
        ProbeError::Connection(fault) if fault.is_refused() && only_ipv6 => format!(
            "nothing listens at {at}, or a firewall refuses. Bold BI probably listens on IPv4 only: give \
             its IPv4 address in `addresses` of the server, or let it listen on IPv6"
        ),
        ProbeError::Connection(fault) if fault.is_refused() => format!(
            "nothing listens at {at}, or a firewall refuses: check the port in the server's `url` or \
             `addresses`; on Bold BI's machine, `ss -ltn` shows what listens"
        ),
        ProbeError::Connection(fault) | ProbeError::NotHttp(fault) => fault.hint().to_owned(),
    }
}

/// An address that cannot be connected to, where another can be.
pub(super) fn one_of_several(at: SocketAddr, error: &ProbeError) -> String {
    let instead = format!("or remove {at} from `addresses` of the server, or from DNS");
    match error {
        ProbeError::Timeout(_) => format!("{}; {instead}", dropped(at)),
        ProbeError::Connection(_) | ProbeError::NotHttp(_) => {
            format!("start Bold BI at {at}, {instead}")
        }
    }
}

/// Nothing responds to an attempt to connect.
fn dropped(at: SocketAddr) -> String {
    let from = own_address_to(at).map_or_else(|| "this machine".to_owned(), |own| own.to_string());
    format!(
        "run `nc -vz -w 5 {} {}` here and on Bold BI's machine. If only the latter works, have {from} -> \
         {at} opened in firewalls, security groups and network policies. If neither does, check the \
         address, and whether Bold BI's machine is up",
        at.ip(),
        at.port()
    )
}

/// The address of this machine on the way to `at`. A UDP socket is given a route and sends nothing.
fn own_address_to(at: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(at).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The server accepts connections and says nothing. `key` is the setting of the `limit`.
pub(super) fn silent(server: &Server, path: &str, limit: Duration, key: &str) -> String {
    format!(
        "run `curl -v -m 30 {}{path}` here. A response after more than {limit:?}: Bold BI is slow, raise \
         `timeouts.{key}` of the server. No response: check the port, restart Bold BI if it hangs, and \
         look at proxies in between",
        server.origin()
    )
}

/// The port of a server without TLS redirects to `target`, which has it.
pub(super) fn redirected(server: &Server, target: &RedirectTarget) -> String {
    format!(
        "set the server's `url` to `{}{}`; if only plain HTTP is wanted, switch off the redirect in Bold \
         BI or its proxy",
        target.origin(),
        server.base_path
    )
}
