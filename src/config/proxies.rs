//! The keys `trusted_proxies` and `proxy_protocol` of a listener: the proxies that tell for whom
//! they connect.

use std::sync::Arc;

use crate::forwarded::{ForwardingHeader, PeerSet, TrustedProxies};

use super::Check;
use super::field::{Field, some};
use super::file;
use super::finding::Noted;
use super::listeners::ListenAddress;
use super::network::network;
use super::place::Place;

impl Check<'_> {
    pub(super) fn trusted_proxies(
        self,
        at: &Place<'_>,
        proxies: Field<file::TrustedProxies>,
    ) -> Result<Option<Arc<TrustedProxies>>, Noted> {
        let Some(proxies) = proxies.optional()? else { return Ok(None) };
        let from = self.peers(&at.key("from"), proxies.from);
        let header = proxies.header.required(&at.key("header"), HEADERS, self.notes);
        let header = match header? {
            file::ForwardingHeader::XForwardedFor => ForwardingHeader::XForwardedFor,
            file::ForwardingHeader::Forwarded => ForwardingHeader::Forwarded,
        };
        Ok(Some(Arc::new(TrustedProxies::new(from?, header))))
    }

    /// The peers that must begin with a header of the PROXY protocol. `address` is that of the
    /// listener, if it is known.
    pub(super) fn proxy_protocol(
        self,
        at: &Place<'_>,
        proxies: Field<file::ProxyProtocol>,
        address: Option<&ListenAddress>,
    ) -> Result<Option<PeerSet>, Noted> {
        let Some(proxies) = proxies.optional()? else { return Ok(None) };
        let at = at.key("from");
        let from = self.peers(&at, proxies.from)?;
        let (problem, accepted) = match address {
            Some(ListenAddress::Unix(_)) if !from.has_unix() => {
                ("found no `unix`, and the listener is a Unix socket", "`unix`")
            }
            Some(ListenAddress::Tcp(_)) if !from.has_networks() => {
                ("found only `unix`, and the listener is no Unix socket", "addresses and networks")
            }
            _ => return Ok(Some(from)),
        };
        let finding = at.finding(problem, accepted);
        Err(self.notes.add(finding.hint("every connection would be closed")))
    }

    fn peers(self, at: &Place<'_>, from: Field<Vec<Field<String>>>) -> Result<PeerSet, Noted> {
        let from = from.required(at, PEERS, self.notes)?;
        let from = some(from, at, PEERS, self.notes, |at, text| match &*text {
            "unix" => Ok(None),
            text => network(at, text, PEERS).map(Some).map_err(|finding| self.notes.add(*finding)),
        })?;
        let unix = from.contains(&None);
        Ok(PeerSet::new(from.into_iter().flatten(), unix))
    }
}

const PEERS: &str = "addresses and networks of proxies, such as `192.0.2.7` and `10.1.0.0/16`, or \
                     `unix`";
const HEADERS: &str = "`x-forwarded-for`, `forwarded`";
