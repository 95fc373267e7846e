//! The key `subject` of a permission: the Bold BI user that requests act as, mapped from a proof of
//! the caller.

use std::collections::HashMap;

use http::header::HeaderName;

use crate::invisible::Invisible;
use crate::policy::Subject;
use crate::policy::subject::{SubjectMapping, SubjectSource, Template, TrustedProxy, is_domain};

use super::Check;
use super::callers::is_free;
use super::field::{Field, Named, some};
use super::file;
use super::finding::Noted;
use super::network::network;
use super::permissions::Proofs;
use super::place::Place;

impl Check<'_> {
    pub(super) fn mapping(
        self,
        at: &Place<'_>,
        subject: file::Subject,
        proofs: Proofs,
    ) -> Result<SubjectMapping, Noted> {
        if let (Field::Missing, Field::Missing, Field::Missing) =
            (&subject.map, &subject.template, &subject.domains)
        {
            let finding = at.key_finding("found a mapping that lets everybody be anybody", BOUNDS);
            self.notes.add(finding.hint("an embed secret makes tokens for every user of the site"));
        }
        let source = self.source(at, subject.claim, subject.header, subject.from, proofs);
        let map = subject
            .map
            .optional()
            .and_then(|map| map.map(|map| self.map(&at.key("map"), map)).transpose());
        let template_at = at.key("template");
        let template = subject.template.optional().and_then(|text| {
            let Some(text) = text else { return Ok(None) };
            let refuse = || self.notes.add(template_at.finding("found another form", TEMPLATE));
            Template::parse(&text).map(Some).ok_or_else(refuse)
        });
        let domains = self.texts(&at.key("domains"), subject.domains, DOMAIN, |domain| {
            is_domain(domain).then(|| domain.to_ascii_lowercase())
        });
        let never = self.texts(&at.key("never"), subject.never, ADDRESS, |address| {
            Subject::parse(address).map(|_| address.to_ascii_lowercase())
        });
        Ok(SubjectMapping {
            source: source?,
            map: map?,
            template: template?,
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
    ) -> Result<SubjectSource, Noted> {
        let (claim_at, header_at, from_at) = (at.key("claim"), at.key("header"), at.key("from"));
        if let (Field::Given(_) | Field::Missing, Field::Given(_), Field::Missing) =
            (&claim, &from, &header)
        {
            let problem = "found proxies, and no header that they set";
            self.notes.add(from_at.key_finding(problem, "proxies with `header`"));
        }
        match (claim.optional()?, header.optional()?) {
            (None, None) => Err(self.notes.add(claim_at.missing("`claim` or `header`"))),
            (Some(claim), None) => {
                self.needs_jwt(&claim_at, proofs);
                self.claim(&claim_at, claim).map(SubjectSource::Claim)
            }
            (None, Some(name)) => {
                let name = HeaderName::try_from(&name).ok().filter(is_free);
                let name = name.ok_or_else(|| self.notes.add(header_at.wrong(HEADER)));
                let from = from.required(&from_at, PROXIES, self.notes);
                let from = from.and_then(|from| self.proxies(&from_at, from, proofs));
                Ok(SubjectSource::Header { name: name?, from: from? })
            }
            (Some(_), Some(_)) => {
                let problem = "found a header beside `claim`";
                let finding = header_at.key_finding(problem, "one of `claim` and `header`");
                Err(self.notes.add(finding))
            }
        }
    }

    fn proxies(
        self,
        at: &Place<'_>,
        proxies: Vec<Field<file::Proxy>>,
        proofs: Proofs,
    ) -> Result<Vec<TrustedProxy>, Noted> {
        some(proxies, at, PROXIES, self.notes, |at, proxy| match proxy {
            file::Proxy::Address(text) => {
                let network = network(at, &text, PROXIES);
                let network = network.map_err(|finding| self.notes.add(*finding))?;
                Ok(TrustedProxy::Network(network))
            }
            file::Proxy::Certificate(certificate) => {
                if !proofs.certificates {
                    let problem = "found a certificate, but no listener asks for any";
                    let accepted = "certificates where a listener has `tls.client_ca_file`";
                    self.notes.add(at.finding(problem, accepted));
                }
                self.certificate(at, certificate).map(TrustedProxy::Certificate)
            }
        })
    }

    fn map(self, at: &Place<'_>, map: Named<String>) -> Result<HashMap<String, Subject>, Noted> {
        if map.0.is_empty() {
            let finding = at.finding("found an empty mapping", "an address for each value");
            return Err(self.notes.add(finding));
        }
        let entry = |(value, address): (String, Field<String>)| {
            let at = at.key(&value);
            if let Some(found) = Invisible::find(&value) {
                let problem = format!("found a value that has {found}");
                self.notes.add(at.key_finding(problem, "the value as the claim or header has it"));
            }
            let address = address.required(&at, ADDRESS, self.notes)?;
            let refuse = || self.notes.add(at.finding("found what is no address", ADDRESS));
            Ok((value, Subject::parse(&address).ok_or_else(refuse)?))
        };
        // Each entry is read before the first fault counts.
        map.0.into_iter().map(entry).collect::<Vec<_>>().into_iter().collect()
    }

    /// A list of texts, each as `parse` makes it; empty when the list is missing.
    fn texts<T>(
        self,
        at: &Place<'_>,
        texts: Field<Vec<Field<String>>>,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Noted> {
        let Some(texts) = texts.optional()? else { return Ok(Vec::new()) };
        some(texts, at, accepted, self.notes, |at, text| {
            let refuse = || self.notes.add(at.finding("found another form", accepted));
            parse(&text).ok_or_else(refuse)
        })
    }
}

const HEADER: &str = "the name of a header that has no other use, such as `X-Auth-Request-Email`";
const BOUNDS: &str = "at least one of `map`, `template` and `domains`";
const TEMPLATE: &str =
    "an address with `{value}` once, before the `@`, such as `{value}@acme.example`";
const DOMAIN: &str = "domains of addresses, such as `acme.example`";
const ADDRESS: &str = "plain e-mail addresses, such as `jane@acme.example`";
const PROXIES: &str = "addresses, networks or certificates of the proxies that set the header, such \
                       as `192.0.2.7`, `10.1.0.0/16` and `{ san_dns: proxy.acme.example }`";
