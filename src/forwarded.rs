//! The client in front of trusted proxies, by `X-Forwarded-For` or `Forwarded` (RFC 7239). It is
//! for logs and for Bold BI. No decision on a request depends on it. Pure.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::{IpNet, Ipv4Net};

mod node;

use node::{Element, is_https, parse_element, parse_node};

/// A set of peers, by their addresses. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSet {
    networks: Vec<IpNet>,
    unix: bool,
}

/// The proxies that a listener trusts to name their clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    from: PeerSet,
    header: ForwardingHeader,
}

/// The header in which trusted proxies name their clients. The other one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with the scheme in `X-Forwarded-Proto`.
    XForwardedFor,
    /// `Forwarded` of RFC 7239, with the scheme in `proto`.
    Forwarded,
}

/// One end of a chain of proxies: the peer of a connection, or the client that a proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it connected with TLS.
    pub https: bool,
}

impl PeerSet {
    /// The peers with an address in `networks`, and with `unix` those of Unix sockets.
    pub fn new(networks: impl IntoIterator<Item = IpNet>, unix: bool) -> Self {
        Self { networks: networks.into_iter().map(unmapped).collect(), unix }
    }

    /// Whether it has the peer with this address; `None` is a peer at a Unix socket.
    pub fn contains(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address else { return self.unix };
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether it has peers with an address.
    pub fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Whether it has the peers of Unix sockets.
    pub fn has_unix(&self) -> bool {
        self.unix
    }
}

/// A network of IPv4-mapped addresses (`::ffff:0:0/96`) as the IPv4 network that it stands for.
pub fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(96);
    let ipv4 = mapped.addr().to_ipv4_mapped().zip(prefix);
    let ipv4 = ipv4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    ipv4.map_or(network, IpNet::V4)
}

impl TrustedProxies {
    /// Trusts the proxies `from` these addresses to set `header`.
    pub fn new(from: PeerSet, header: ForwardingHeader) -> Self {
        Self { from, header }
    }

    /// Whether the peer with this address is one of them.
    pub fn contain(&self, address: Option<IpAddr>) -> bool {
        self.from.contains(address)
    }

    /// The client of a request with `headers` that came from `peer`: the rightmost hop that is not
    /// trusted. The chain ends at the last trusted proxy if that names no address.
    pub fn client(&self, peer: Hop, headers: &HeaderMap) -> Hop {
        match self.header {
            ForwardingHeader::XForwardedFor => self.by_x_forwarded_for(peer, headers),
            ForwardingHeader::Forwarded => self.by_forwarded(peer, headers),
        }
    }

    fn by_x_forwarded_for(&self, peer: Hop, headers: &HeaderMap) -> Hop {
        if !self.contain(peer.address) {
            return peer;
        }
        let protos: Vec<_> = from_the_right(headers, &X_FORWARDED_PROTO).take(MAX_HOPS).collect();
        let addresses = from_the_right(headers, &X_FORWARDED_FOR).enumerate();
        self.follow(
            peer,
            addresses.map(|(index, text)| {
                // Most proxies set one scheme, that of the client, instead of adding to a list.
                let proto = if protos.len() == 1 { protos.first() } else { protos.get(index) };
                let address = std::str::from_utf8(text).ok().and_then(parse_node);
                Element { address, https: proto.and_then(|proto| is_https(proto)) }
            }),
        )
    }

    fn by_forwarded(&self, peer: Hop, headers: &HeaderMap) -> Hop {
        let lines = headers.get_all(FORWARDED).iter().rev();
        self.follow(peer, lines.flat_map(|line| Elements(Some(line.as_bytes()))))
    }

    /// Follows the chain of proxies from `peer` on.
    fn follow(&self, peer: Hop, chain: impl Iterator<Item = Element>) -> Hop {
        let (mut client, mut chain) = (peer, chain.take(MAX_HOPS));
        // Of a client that is not trusted nothing is read: its headers cost the gateway no time.
        while self.contain(client.address)
            && let Some(Element { address: Some(address), https }) = chain.next()
        {
            // Without a scheme from the proxy, the one of the connection counts.
            client = Hop { address: Some(address), https: https.unwrap_or(peer.https) };
        }
        client
    }
}

/// The elements of a list header (RFC 9110, section 5.6.1), the last one first. Empty ones do not
/// count.
fn from_the_right<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let lines = headers.get_all(name).iter().rev();
    let elements = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The elements of a line of `Forwarded`, the last one first. They are read from the right, so that
/// nothing that a client wrote changes the meaning of the elements that proxies added behind it.
struct Elements<'h>(Option<&'h [u8]>);

impl Iterator for Elements<'_> {
    type Item = Element;

    fn next(&mut self) -> Option<Element> {
        loop {
            let line = self.0?;
            // A comma may stand within a quoted value, so the shortest well-formed end of the line
            // is its last element.
            let commas = line.iter().enumerate().rev().filter(|&(_, &byte)| byte == b',');
            let mut starts = commas.map(|(at, _)| at + 1).take(MAX_COMMAS).chain([0]);
            let last = starts.find_map(|start| {
                let text = line[start..].trim_ascii();
                let element = if text.is_empty() { None } else { Some(parse_element(text)?) };
                Some((start, element))
            });
            let Some((start, element)) = last else {
                self.0 = None;
                return Some(Element::default());
            };
            self.0 = (start > 0).then(|| &line[..start - 1]);
            // An empty element does not count.
            if element.is_some() {
                return element;
            }
        }
    }
}

/// Most hops that are followed.
const MAX_HOPS: usize = 32;
/// Most commas within the quoted values of one element of `Forwarded`.
const MAX_COMMAS: usize = 16;
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests;
