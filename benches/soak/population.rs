//! Tenants, their users, and all ways in which a request can act as a user; for the stand-in and
//! for the configuration.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandInSite, StandInUser};

use crate::Failure;
use crate::checked_request::{Identity, api_key, key_hash};
use crate::issuer::{ISSUER, Issuer};

pub(crate) struct Population {
    /// Each user of each tenant, once for each way to be that user.
    pub(crate) identities: Vec<Identity>,
    pub(crate) tenants: usize,
    subjects: usize,
    issuer: Issuer,
}

impl Population {
    /// The first of the `subjects` of a tenant is its own user, as whom its own caller acts by an
    /// API key. Each can be named by a claim of a JWT, and by a header of the one proxy.
    pub(crate) fn new(tenants: usize, subjects: usize) -> Result<Self, Failure> {
        let issuer = Issuer::new()?;
        let mut identities = Vec::new();
        for tenant in 0..tenants {
            let mut add = |subject, proof| {
                identities.push(Identity {
                    site: site(tenant),
                    user: user(tenant, subject),
                    proof,
                });
            };
            add(0, api_key(&key(tenant)));
            for subject in 0..subjects {
                let name = user(tenant, subject);
                add(subject, format!("Authorization: Bearer {}\r\n", issuer.token(&name)));
                add(subject, format!("{}{HEADER}: {name}\r\n", api_key(PROXY_KEY)));
            }
        }
        Ok(Self { identities, tenants, subjects, issuer })
    }

    /// All users, each once.
    pub(crate) fn users(&self) -> Vec<String> {
        let of_one = |tenant| (0..self.subjects).map(move |subject| user(tenant, subject));
        (0..self.tenants).flat_map(of_one).collect()
    }

    pub(crate) fn sites(&self) -> Vec<StandInSite> {
        let known = |email| StandInUser { email, password: None, source: UserSource::AzureAd };
        let site = |tenant| StandInSite {
            id: Some(site(tenant)),
            embed_secret: secret(tenant, 0),
            users: (0..self.subjects).map(|subject| known(user(tenant, subject))).collect(),
        };
        (0..self.tenants).map(site).collect()
    }

    /// The names and contents of the files that the configuration names.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let secret = |tenant| (secret_file(tenant), secret(tenant, 0));
        let mut files: Vec<_> = (0..self.tenants).map(secret).collect();
        files.push((KEYS.into(), self.issuer.key_set()));
        files
    }

    /// The gateway's configuration, whose files are in `folder`. The deadlines are short, so that a
    /// stall is soon over. `change` affects no request: it changes the order of the tenants, and a
    /// timeout, with which the pool of the server changes.
    pub(crate) fn configuration(&self, server: SocketAddr, folder: &Path, change: u64) -> String {
        let folder = folder.display();
        let (turn, read) =
            (usize::try_from(change).unwrap_or(0) % self.tenants, 2_000 + change % 2);
        let tenants: Vec<usize> = (turn..self.tenants).chain(0..turn).collect();
        let mut text = format!(
            "listeners: [ {{ address: 127.0.0.1:0, callers: required }} ]\n\
             admin: {{ address: \"unix:{folder}/{ADMIN}\" }}\n\
             servers:\n  main:\n    url: http://{server}/bi\n    \
             timeouts: {{ connect: 2s, read: {read}ms, write: 2s, token_exchange: 2s }}\n\
             tenants:\n"
        );
        for &tenant in &tenants {
            let (site, user, file) = (site(tenant), user(tenant, 0), secret_file(tenant));
            let _ = writeln!(
                text,
                "  {site}: {{ server: main, site: {site}, credential: {{ grant: embed_secret, \
                 username: {user}, user_source: azure_ad, embed_secret: {{ file: {folder}/{file} }} }} }}",
            );
        }
        let _ = writeln!(
            text,
            "callers:\n  portal:\n    jwt: {{ issuer: \"{ISSUER}\", audience: boldgate, algorithms: \
             [EdDSA], jwks_file: {folder}/{KEYS} }}\n    may:",
        );
        mapped(&mut text, &tenants, "claim: email");
        let hash = key_hash(PROXY_KEY);
        let _ = writeln!(text, "  proxy:\n    api_key: {{ sha256: {hash} }}\n    may:");
        mapped(&mut text, &tenants, &format!("header: {HEADER}, from: [127.0.0.0/8]"));
        for &tenant in &tenants {
            let (site, hash) = (site(tenant), key_hash(&key(tenant)));
            let _ = writeln!(
                text,
                "  own-{site}: {{ api_key: {{ sha256: {hash} }}, may: [ {{ tenant: {site}, routes: \
                 [read, write] }} ] }}",
            );
        }
        text
    }
}

/// A permission for each tenant, as the user whom `source` names.
fn mapped(text: &mut String, tenants: &[usize], source: &str) {
    for &tenant in tenants {
        let _ = writeln!(
            text,
            "      - {{ tenant: {}, routes: [read, write], subject: {{ {source}, domains: [{}] }} }}",
            site(tenant),
            domain(tenant)
        );
    }
}

pub(crate) fn site(tenant: usize) -> String {
    format!("t{tenant}")
}

/// The embed secret of a tenant after so many changes.
pub(crate) fn secret(tenant: usize, changes: u64) -> String {
    format!("soak-embed-secret-of-t{tenant}-{changes}")
}

pub(crate) fn secret_file(tenant: usize) -> String {
    format!("secret-of-t{tenant}")
}

fn domain(tenant: usize) -> String {
    format!("t{tenant}.example")
}

fn user(tenant: usize, subject: usize) -> String {
    format!("user{subject}@{}", domain(tenant))
}

fn key(tenant: usize) -> String {
    format!("soak-key-of-t{tenant}-0123456789")
}

const PROXY_KEY: &str = "soak-key-of-the-proxy-0123456789";
const HEADER: &str = "X-Soak-User";
/// The socket of the admin listener.
pub(crate) const ADMIN: &str = "admin.sock";
const KEYS: &str = "keys.json";
