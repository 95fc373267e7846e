//! `subject` in a permission: as whom requests act, mapped from what is proven of the caller.

use std::collections::HashMap;

use http::header::HeaderName;
use ipnet::IpNet;

use crate::invisible::Invisible;
use crate::policy::Subject;
use crate::policy::subject::{SubjectMapping, SubjectSource, Template, TrustedProxy, is_domain};

use super::Check;
use super::callers::is_free;
use super::field::{Field, Named};
use super::file;
use super::permissions::{Noted, Proofs};
use super::place::Place;

impl Check<'_> {
    pub(super) fn mapping(
        self,
        at: &Place<'_>,
        subject: file::Subject,
        proofs: Proofs,
    ) -> Option<SubjectMapping> {
        if let (Field::Missing, Field::Missing, Field::Missing) =
            (&subject.map, &subject.template, &subject.domains)
        {
            let finding = at.key_finding("found a mapping that lets everybody be anybody", BOUNDS);
            self.notes.add(finding.hint("an embed secret makes tokens for every user of the site"));
        }
        let source = self.source(at, subject.claim, subject.header, subject.from, proofs);
        let map_at = at.key("map");
        let map = match subject.map {
            Field::Missing => Ok(None),
            Field::Faulty => Err(Noted),
            Field::Given(map) => Ok(Some(self.map(&map_at, map))),
        };
        let template_at = at.key("template");
        let template = match subject.template {
            Field::Missing => Ok(None),
            Field::Faulty => Err(Noted),
            Field::Given(text) => Template::parse(&text).map(Some).ok_or_else(|| {
                self.notes.add(template_at.finding("found another form", TEMPLATE));
                Noted
            }),
        };
        let domains = self.texts(&at.key("domains"), subject.domains, DOMAIN, |domain| {
            is_domain(domain).then(|| domain.to_ascii_lowercase())
        });
        let never = self.texts(&at.key("never"), subject.never, ADDRESS, |address| {
            Subject::parse(address).map(|_| address.to_ascii_lowercase())
        });
        Some(SubjectMapping {
            source: source?,
            map: map.ok()?,
            template: template.ok()?,
            domains: domains?,
            never: never?,
        })
    }

    fn source(
        self,
        at: &Place<'_>,
        claim: Field<String>,
        header: Field<String>,
        from: Field<Vec<Field<file::Proxy>>>,
        proofs: Proofs,
    ) -> Option<SubjectSource> {
        let (claim_at, header_at, from_at) = (at.key("claim"), at.key("header"), at.key("from"));
        if let (Field::Given(_) | Field::Missing, Field::Given(_), Field::Missing) =
            (&claim, &from, &header)
        {
            let problem = "found proxies, and no header that they set";
            self.notes.add(from_at.key_finding(problem, "proxies with `header`"));
        }
        match (claim, header) {
            (Field::Missing, Field::Missing) => {
                self.notes.add(claim_at.missing("`claim` or `header`"));
                None
            }
            (Field::Given(claim), Field::Missing) => {
                self.needs_jwt(&claim_at, proofs);
                self.claim(&claim_at, claim).map(SubjectSource::Claim)
            }
            (Field::Missing, Field::Given(name)) => {
                let parsed = HeaderName::try_from(&name).ok().filter(is_free);
                if parsed.is_none() {
                    self.notes.add(header_at.wrong(
                        "the name of a header that has no other use, such as \
                         `X-Auth-Request-Email`",
                    ));
                }
                let from = match from {
                    Field::Missing => {
                        self.notes.add(from_at.missing(PROXIES));
                        None
                    }
                    from => self.proxies(&from_at, from, proofs),
                };
                Some(SubjectSource::Header { name: parsed?, from: from? })
            }
            (Field::Given(_), Field::Given(_)) => {
                let problem = "found a header beside `claim`";
                self.notes.add(header_at.key_finding(problem, "one of `claim` and `header`"));
                None
            }
            _ => None,
        }
    }

    fn proxies(
        self,
        at: &Place<'_>,
        proxies: Field<Vec<Field<file::Proxy>>>,
        proofs: Proofs,
    ) -> Option<Vec<TrustedProxy>> {
        let proxies = proxies.given()?;
        if proxies.is_empty() {
            self.notes.add(at.finding("found an empty list", PROXIES));
        }
        let parsed = proxies.into_iter().enumerate().map(|(index, proxy)| {
            let at = at.item(index);
            match proxy.given()? {
                file::Proxy::Address(text) => {
                    let network = network(&text);
                    if network.is_none() {
                        self.notes.add(at.finding("found another form", PROXIES));
                    }
                    network.map(TrustedProxy::Network)
                }
                file::Proxy::Certificate(certificate) => {
                    if !proofs.certificates {
                        let problem = "found a certificate, but no listener asks for any";
                        let accepted = "certificates where a listener has `tls.client_ca_file`";
                        self.notes.add(at.finding(problem, accepted));
                    }
                    self.certificate(&at, &certificate).map(TrustedProxy::Certificate)
                }
            }
        });
        // All of them are looked at, whatever comes of the first.
        parsed.collect::<Vec<_>>().into_iter().collect()
    }

    fn map(self, at: &Place<'_>, map: Named<String>) -> HashMap<String, Subject> {
        let mut known = HashMap::new();
        if map.0.is_empty() {
            self.notes.add(at.finding("found an empty mapping", "an address for each value"));
        }
        for (value, address) in map.0 {
            let at = at.key(&value);
            if let Some(found) = Invisible::find(&value) {
                let problem = format!("found a value that has {found}");
                self.notes.add(at.key_finding(problem, "the value as the claim or header has it"));
            }
            let Some(address) = address.given() else { continue };
            match Subject::parse(&address) {
                Some(subject) => {
                    known.insert(value, subject);
                }
                None => self.notes.add(at.finding("found what is no address", ADDRESS)),
            }
        }
        known
    }

    /// A list of texts, each as `parse` makes it; empty when the list is missing.
    fn texts<T>(
        self,
        at: &Place<'_>,
        texts: Field<Vec<Field<String>>>,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let texts = match texts {
            Field::Missing => return Some(Vec::new()),
            Field::Faulty => return None,
            Field::Given(texts) => texts,
        };
        if texts.is_empty() {
            self.notes.add(at.finding("found an empty list", accepted));
        }
        let parsed = texts.into_iter().enumerate().map(|(index, text)| {
            let parsed = parse(&text.given()?);
            if parsed.is_none() {
                self.notes.add(at.item(index).finding("found another form", accepted));
            }
            parsed
        });
        // All of them are looked at, whatever comes of the first.
        parsed.collect::<Vec<_>>().into_iter().collect()
    }
}

/// A network, or an address by itself. One whose bits behind the prefix are set is a slip.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network).filter(|n| n.addr() == n.network() && n.prefix_len() > 0),
        Err(_) => text.parse::<std::net::IpAddr>().ok().map(IpNet::from),
    }
}

const BOUNDS: &str = "at least one of `map`, `template` and `domains`";
const TEMPLATE: &str =
    "an address with `{value}` once, before the `@`, such as `{value}@acme.example`";
const DOMAIN: &str = "domains of addresses, such as `acme.example`";
const ADDRESS: &str = "plain e-mail addresses, such as `jane@acme.example`";
const PROXIES: &str = "addresses, networks or certificates of the proxies that set the header, such \
                       as `192.0.2.7`, `10.1.0.0/16` and `{ san_dns: proxy.acme.example }`";
