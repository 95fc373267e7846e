//! The section `token_store`: where the store is, and the keys that seal its values.

use std::path::Path;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::field::{Field, some};
use super::finding::Noted;
use super::pem::NotBuilt;
use super::place::Place;
use super::quantity::Period;
use super::server_url::{endpoint, is_request_host};
use super::{Check, References, file};
use crate::plain_file::limit::{MAX_CERTIFICATES, MAX_PRIVATE_KEY};
use crate::secret::Secret;
use crate::store::{SealingKey, StoreLogin, StoreNode, StoreSettings, StoreTarget, StoreTls};

impl Check<'_> {
    /// The settings of the token store; `None` if there is none.
    pub(super) fn token_store(
        self,
        at: &Place<'_>,
        store: Field<file::TokenStore>,
    ) -> Result<Option<StoreSettings>, Noted> {
        let Some(store) = store.optional()? else { return Ok(None) };
        let keys = self.sealing_keys(&at.key("sealing_keys"), store.sealing_keys);
        let timeout = self.within(&at.key("timeout"), store.timeout, MIN_TIMEOUT, MAX_TIMEOUT);
        let prefix = self.store_prefix(&at.key("prefix"), store.prefix);
        let redis_at = at.key("redis");
        let redis = store.redis.required(&redis_at, REDIS, self.notes)?;
        let login = self.store_login(&redis_at, redis.username, redis.password);
        let target = self.target(&redis_at, redis.url, redis.nodes, redis.sentinel);
        if let (Ok((target, false)), Ok(login)) = (&target, &login) {
            let of_sentinels =
                matches!(target, StoreTarget::Sentinel { login, .. } if login.password.is_some());
            let far = target.nodes().iter().map(|node| node.host.as_str());
            if login.password.is_some() || of_sentinels {
                far.for_each(|host| self.warn_of_clear_password(&redis_at, "a store", host));
            }
        }
        let tls = target.as_ref().ok().map(|(_, tls)| *tls);
        let tls = self.store_tls(
            &redis_at,
            [&redis.ca_file, &redis.client_certificate_file, &redis.client_key_file],
            tls,
        );
        Ok(Some(StoreSettings {
            target: target?.0,
            login: login?,
            tls: tls?,
            sealing_keys: keys?,
            timeout: timeout?.0,
            prefix: prefix?,
        }))
    }

    /// The user and the password beside these keys.
    fn store_login(
        self,
        at: &Place<'_>,
        username: Field<String>,
        password: Field<file::SecretSource>,
    ) -> Result<StoreLogin, Noted> {
        let password = match password {
            Field::Missing => Ok(None),
            given => self.stored_secret(&at.key("password"), given).map(Some),
        };
        let (username, password) = (username.optional()?, password?);
        if username.is_some() && password.is_none() {
            return Err(self.notes.missing(at.key("password").missing(PASSWORD)));
        }
        Ok(StoreLogin { username, password })
    }

    fn sealing_keys(
        self,
        at: &Place<'_>,
        sources: Field<Vec<Field<file::SecretSource>>>,
    ) -> Result<Vec<SealingKey>, Noted> {
        let sources = sources.required(at, SEALING_KEYS, self.notes)?;
        if sources.len() > MAX_SEALING_KEYS {
            let problem = format!("found a list of {}", sources.len());
            return Err(self.notes.add(at.finding(problem, SEALING_KEYS)));
        }
        let mut keys: Vec<SealingKey> = Vec::new();
        some(sources, at, SEALING_KEYS, self.notes, |at, source| {
            let secret = self.stored_secret(at, Field::Given(source))?;
            let secret = match self.references {
                References::Read => secret,
                References::Ignore => Secret::new("0".repeat(64)),
            };
            let key = SealingKey::parse(&secret).map_err(|error| {
                let problem = format!("found a sealing key that cannot be used: {error}");
                self.notes.add(at.finding(problem, SEALING_KEY).hint(MAKE_KEY))
            })?;
            if self.references == References::Read && keys.contains(&key) {
                let problem = "found the same key a second time";
                return Err(self.notes.add(at.finding(problem, "another key")));
            }
            keys.push(key.clone());
            Ok(key)
        })
    }

    fn store_prefix(self, at: &Place<'_>, prefix: Field<String>) -> Result<String, Noted> {
        let prefix = prefix.required(at, PREFIX, self.notes)?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_plain) {
            return Err(self.notes.add(at.wrong(PREFIX)));
        }
        Ok(prefix)
    }

    /// Where the store is, and whether it is spoken to with TLS.
    fn target(
        self,
        at: &Place<'_>,
        url: Field<String>,
        nodes: Field<Vec<Field<String>>>,
        sentinel: Field<file::Sentinel>,
    ) -> Result<(StoreTarget, bool), Noted> {
        let given = [
            ("url", !url.is_missing()),
            ("nodes", !nodes.is_missing()),
            ("sentinel", !sentinel.is_missing()),
        ];
        let mut given = given.into_iter().filter(|(_, given)| *given);
        let Some((first, _)) = given.next() else {
            return Err(self.notes.missing(at.missing(REDIS)));
        };
        if let Some((second, _)) = given.next() {
            let problem = format!("found `{second}` beside `{first}`");
            return Err(self.notes.add(at.key(second).key_finding(problem, REDIS)));
        }
        if let Some(url) = url.optional()? {
            let (node, tls) = self.store_url(&at.key("url"), &url)?;
            return Ok((StoreTarget::Single(node), tls));
        }
        if let Some(nodes) = nodes.optional()? {
            let (nodes, tls) = self.store_nodes(&at.key("nodes"), Field::Given(nodes))?;
            return Ok((StoreTarget::Cluster(nodes), tls));
        }
        let at = at.key("sentinel");
        let sentinel = sentinel.required(&at, REDIS, self.notes)?;
        let nodes = self.store_nodes(&at.key("nodes"), sentinel.nodes);
        let login = self.store_login(&at, sentinel.username, sentinel.password);
        let master_at = at.key("master");
        let master = sentinel.master.required(&master_at, MASTER, self.notes)?;
        if master.is_empty() || !master.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.notes.add(master_at.wrong(MASTER)));
        }
        let (nodes, tls) = nodes?;
        Ok((StoreTarget::Sentinel { master, nodes, login: login? }, tls))
    }

    fn store_nodes(
        self,
        at: &Place<'_>,
        nodes: Field<Vec<Field<String>>>,
    ) -> Result<(Vec<StoreNode>, bool), Noted> {
        let nodes = nodes.required(at, NODES, self.notes)?;
        if nodes.len() > MAX_NODES {
            let problem = format!("found a list of {}", nodes.len());
            return Err(self.notes.add(at.finding(problem, NODES)));
        }
        let nodes = some(nodes, at, NODES, self.notes, |at, url| self.store_url(at, &url))?;
        let tls = nodes.first().is_some_and(|(_, tls)| *tls);
        if nodes.iter().any(|(_, other)| *other != tls) {
            let problem = "found URLs with TLS beside others without";
            return Err(self.notes.add(at.finding(problem, "one scheme for all")));
        }
        Ok((nodes.into_iter().map(|(node, _)| node).collect(), tls))
    }

    fn store_url(self, at: &Place<'_>, text: &str) -> Result<(StoreNode, bool), Noted> {
        url_of_store(text).map_err(|problem| {
            // Without the URL, because it may hold a password.
            self.notes.add(at.finding(format!("found a URL {problem}"), URL))
        })
    }

    fn store_tls(
        self,
        at: &Place<'_>,
        [ca_file, certificate, key]: [&Field<String>; 3],
        tls: Option<bool>,
    ) -> Result<Option<StoreTls>, Noted> {
        let (ca_at, certificate_at, key_at) =
            (at.key("ca_file"), at.key("client_certificate_file"), at.key("client_key_file"));
        for (at, field) in [(&ca_at, ca_file), (&certificate_at, certificate), (&key_at, key)] {
            if !field.is_missing() && tls == Some(false) {
                let problem = "found a file of TLS for a store that is spoken to without it";
                self.notes.add(at.key_finding(problem, "`rediss://`, or no such key"));
            }
        }
        let trust = self.ca_trust(&ca_at, ca_file);
        let client = match (certificate.as_ref().optional()?, key.as_ref().optional()?) {
            (None, None) => None,
            (Some(_), None) => return Err(self.notes.missing(key_at.missing(KEY_FILE))),
            (None, Some(_)) => {
                return Err(self.notes.missing(certificate_at.missing(CERTIFICATE_FILE)));
            }
            (Some(certificate), Some(key)) => {
                self.certificate_for_store((&certificate_at, certificate), (&key_at, key))?
            }
        };
        let trust = trust?;
        if tls != Some(true) {
            return Ok(None);
        }
        if self.references == References::Read
            && let Err(error) = trust.check()
        {
            return Err(self.notes.add(at.finding(format!("found that {error}"), CA_FILE)));
        }
        let ca_pem = match ca_file.as_ref().optional()? {
            Some(file) if self.references == References::Read => {
                let content = self.content(file.as_ref(), MAX_CERTIFICATES);
                Some(content.map(|mut bytes| std::mem::take(&mut *bytes)).unwrap_or_default())
            }
            _ => None,
        };
        Ok(Some(StoreTls { trust, ca_pem, client_pem: client }))
    }

    /// The PEM of a client's certificate and of its key, once it is sure that they fit.
    fn certificate_for_store(
        self,
        (certificate_at, certificate): (&Place<'_>, &str),
        (key_at, key_file): (&Place<'_>, &str),
    ) -> Result<Option<(Vec<u8>, Secret)>, Noted> {
        let chain = match self.certificates(certificate_at, certificate, &[]) {
            Ok(chain) => chain,
            Err(NotBuilt::NotRead) => return Ok(None),
            Err(NotBuilt::Noted(noted)) => return Err(noted),
        };
        let unusable = |problem: String| {
            self.notes.add(key_at.finding(problem, "a PEM file with the key to that certificate"))
        };
        let key = self
            .content(key_file.as_ref(), MAX_PRIVATE_KEY)
            .map_err(|error| unusable(format!("found a file that cannot be read: {error}")))?;
        self.warn_of_secret_file(key_at, Path::new(key_file));
        let text = std::str::from_utf8(&key).map(|text| Secret::new(text.to_owned()));
        let text = text.map_err(|_| unusable("found a file that is no PEM".to_owned()))?;
        let parsed = PrivateKeyDer::from_pem_slice(&key)
            .ok()
            .and_then(|key| default_provider().key_provider.load_private_key(key).ok())
            .ok_or_else(|| unusable("found no private key that can be used".to_owned()))?;
        let chain: Vec<_> = chain.iter().map(|one| one.der().clone()).collect();
        CertifiedKey::new(chain, parsed).keys_match().map_err(|error| {
            unusable(format!("found a key that cannot be used with this certificate: {error}"))
        })?;
        let certificate = self.content(certificate.as_ref(), MAX_CERTIFICATES);
        let certificate = certificate.map(|mut bytes| std::mem::take(&mut *bytes));
        Ok(Some((certificate.unwrap_or_default(), text)))
    }
}

/// The server of a URL, and whether it is with TLS; or the problem, without any part of the URL.
fn url_of_store(text: &str) -> Result<(StoreNode, bool), &'static str> {
    let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("that does not begin with `redis://` or `rediss://`"),
    };
    if rest.contains('@') {
        return Err("with user info, which belongs into `username` and `password`");
    }
    if rest.contains(['?', '#']) {
        return Err("with a query or a fragment");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('/') {
        return Err("with a path; `prefix` keeps the values of several fleets apart");
    }
    let (host, port) = endpoint(authority)
        .filter(|(host, _)| !tls || is_request_host(host) || host.contains(':'))
        .ok_or("whose host is neither a DNS name nor an IP address, or whose port is none")?;
    Ok((StoreNode { host, port: port.unwrap_or(6379) }, tls))
}

const REDIS: &str = "one of `url`, `nodes` (of a Cluster) and `sentinel`";
const URL: &str = "a URL such as `rediss://redis.example.com:6379`";
const NODES: &str = "a list of 1 to 32 URLs such as `redis://redis-1.example.com:6379`";
const MASTER: &str = "the name that the sentinels know the master by, such as `mymaster`";
const PASSWORD: &str = "the password of `username`, as `{ file: /path }` or `{ env: NAME }`";
const SEALING_KEYS: &str = "a list of 1 to 8 sources, each `{ file: /path }` or `{ env: NAME }`";
const SEALING_KEY: &str = "64 hexadecimal digits, or Base64 of 32 bytes";
const MAKE_KEY: &str = "`boldgate key --sealing` makes one";
const PREFIX: &str = "1 to 64 letters, digits, `.`, `_`, `:` and `-`";
const KEY_FILE: &str = "the PEM file of the key to `client_certificate_file`";
const CERTIFICATE_FILE: &str = "the PEM file of the certificate of `client_key_file`";
const CA_FILE: &str = "a store with a `ca_file`, or CA certificates of the system";
const MAX_PREFIX: usize = 64;
const MAX_NODES: usize = 32;
const MAX_SEALING_KEYS: usize = 8;
const MIN_TIMEOUT: Period = Period(Duration::from_millis(1));
const MAX_TIMEOUT: Period = Period::seconds(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_a_store_has_a_host_and_nothing_that_may_be_a_password() {
        let node = |host: &str, port| StoreNode { host: host.into(), port };
        for (text, expected) in [
            ("redis://redis", (node("redis", 6379), false)),
            ("redis://127.0.0.1:7000/", (node("127.0.0.1", 7000), false)),
            ("rediss://redis.example.com:6380", (node("redis.example.com", 6380), true)),
            ("rediss://[2001:db8::1]:6380", (node("2001:db8::1", 6380), true)),
        ] {
            assert_eq!(url_of_store(text), Ok(expected), "{text}");
        }
        for (text, says) in [
            ("redis.example.com:6379", "begin"),
            ("http://redis:6379", "begin"),
            ("redis://:canary@redis:6379", "user info"),
            ("redis://redis:6379/0", "path"),
            ("redis://redis:6379?password=canary", "query"),
            ("redis://redis:0", "port"),
            ("rediss://my_redis", "host"),
            ("redis://", "host"),
        ] {
            let problem = url_of_store(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
            assert!(!problem.contains("canary"));
        }
    }
}
