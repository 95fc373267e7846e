//! Networks of proxies, in `subject.from`, `trusted_proxies.from` and `proxy_protocol.from`. A
//! proxy in such a list names users or clients, so that the list must not hold the Internet.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::finding::Finding;
use super::place::Place;
use crate::forwarded::unmapped;

/// Why a text is no network of proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NetworkFault {
    Form,
    /// Bits behind the prefix are set, which is a slip.
    HostBits,
    /// No organisation has so many addresses.
    Wide,
    /// The same of IPv4, whose addresses a NAT64 has put into IPv6.
    WideTranslated,
}

/// The network, or the address by itself, that `text` at `at` names.
pub(super) fn network(at: &Place<'_>, text: &str, accepted: &str) -> Result<IpNet, Box<Finding>> {
    parse(text).map_err(|fault| {
        Box::new(match fault {
            NetworkFault::Form => at.wrong(accepted),
            NetworkFault::HostBits => {
                at.finding("found a network with bits set behind its prefix", accepted)
            }
            NetworkFault::Wide => at.finding(WIDE, accepted).hint(NARROWER),
            NetworkFault::WideTranslated => at.finding(WIDE_TRANSLATED, accepted).hint(NARROWER),
        })
    })
}

fn parse(text: &str) -> Result<IpNet, NetworkFault> {
    let network = match text.parse::<IpNet>() {
        Ok(network) if network.addr() != network.network() => return Err(NetworkFault::HostBits),
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| NetworkFault::Form)?),
    };
    let network = unmapped(network);
    match network {
        IpNet::V4(ipv4) if ipv4.prefix_len() < MIN_IPV4_PREFIX => Err(NetworkFault::Wide),
        IpNet::V6(ipv6) if is_wide(&ipv6) => Err(NetworkFault::Wide),
        IpNet::V6(ipv6) if is_wide_translated(&ipv6) => Err(NetworkFault::WideTranslated),
        _ => Ok(network),
    }
}

fn is_wide(network: &Ipv6Net) -> bool {
    let is_local = || LOCAL.iter().any(|local| parsed(local).contains(network));
    network.prefix_len() < MIN_IPV6_PREFIX && !is_local()
}

/// Whether it has more IPv4 addresses in it than an organisation has. Other than IPv4-mapped
/// addresses, which are only a form of a socket's, these are addresses of packets, so that they are
/// compared as they are.
fn is_wide_translated(network: &Ipv6Net) -> bool {
    let mut translated = TRANSLATED.iter().map(|prefix| parsed(prefix));
    let has_some = translated.any(|prefix| prefix.contains(network) || network.contains(&prefix));
    has_some && network.prefix_len() < 96 + MIN_IPV4_PREFIX
}

fn parsed(local: &str) -> Ipv6Net {
    local.parse().expect("a network written below")
}

/// `10.0.0.0/8` is the widest network that is anybody's own (RFC 1918).
const MIN_IPV4_PREFIX: u8 = 8;
/// A registry gives a provider a `/32`, and that an organisation a `/48`.
const MIN_IPV6_PREFIX: u8 = 32;
/// Addresses that no client in the Internet has: unique local ones (RFC 4193), and those of a link.
const LOCAL: [&str; 2] = ["fc00::/7", "fe80::/10"];
/// Prefixes of NAT64, with IPv4 addresses in their last bits (RFC 6052, RFC 8215).
const TRANSLATED: [&str; 2] = ["64:ff9b::/96", "64:ff9b:1::/48"];
const WIDE_TRANSLATED: &str = "found a network that is too wide: the list names proxies, and `64:ff9b::/96` and \
                               `64:ff9b:1::/48` of NAT64 hold all addresses of IPv4, so that a network of them \
                               wider than `/104` has clients in it";
const WIDE: &str = "found a network that is too wide: the list names proxies, and a network wider than `/8` (IPv6: \
                    `/32`, or `fc00::/7`) has clients in it";
const NARROWER: &str = "each client in the list may name any user or client address: list the addresses of your \
                        proxies alone";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_one_organisation_are_taken_and_wider_ones_are_not() {
        for good in [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.0.2.7",
            "::ffff:10.0.0.0/104",
            "2001:db8::/32",
            "2001:db8::7",
            "fc00::/7",
            "fd00::/8",
            "fe80::/10",
            "::1",
            "64:ff9b::10.0.0.0/104",
            "64:ff9b::192.0.2.7",
            "64:ff9b:1:2::192.0.2.0/120",
            "64:ff9c::/32",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for wide in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "8.0.0.0/7",
            "::ffff:0.0.0.0/96",
            "::ffff:8.0.0.0/103",
            "::/0",
            "::/1",
            "2000::/3",
            "2001::/31",
            "fc00::/6",
        ] {
            assert_eq!(parse(wide), Err(NetworkFault::Wide), "{wide}");
        }
        for wide in [
            "64:ff9b::/96",
            "64:ff9b::/103",
            "64:ff9b::/32",
            "64:ff9b:1::/48",
            "64:ff9b:1:2::/64",
            "64:ff9b:1::/96",
        ] {
            assert_eq!(parse(wide), Err(NetworkFault::WideTranslated), "{wide}");
        }
        assert_eq!(parse("10.0.0.1/8"), Err(NetworkFault::HostBits));
        for none in ["proxy.example", "10.0.0.0/33", "10.0.0", "::/129", "unix", "*", ""] {
            assert_eq!(parse(none), Err(NetworkFault::Form), "{none}");
        }
    }
}
