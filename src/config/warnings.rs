//! Warnings about settings that work and are most likely not meant: secrets that others on the
//! network or on this machine can read, and a URL without Bold BI's path.

use std::net::IpAddr;
use std::path::Path;

use http::Uri;

use crate::plain_file;
use crate::secret_file::JournalError;
use crate::tenant::HostPort;

use super::field::{Field, Named};
use super::file;
use super::listeners::ListenAddress;
use super::place::Place;
use super::server_url::ServerUrl;
use super::servers::URL;
use super::traces::is_tls;
use super::{Check, References, shown};

impl Check<'_> {
    /// Warnings about the URL of a server that is reached at `addresses`, or at the URL's host;
    /// `is_site` unless it is that of an installation.
    pub(super) fn warn_of_url(
        self,
        at: &Place<'_>,
        url: &ServerUrl,
        addresses: &[HostPort],
        is_site: bool,
    ) {
        let last = url.base_path.rsplit('/').next().unwrap_or_default();
        if is_site && !last.eq_ignore_ascii_case("bi") {
            let problem = "found a URL whose path does not end in `/bi`";
            self.notes.warn(at.finding(problem, URL).hint(NO_BI));
        }
        let own = addresses.is_empty().then_some(&url.host);
        let mut hosts = own.into_iter().chain(addresses.iter().map(|address| &address.host));
        if !url.tls
            && let Some(far) = hosts.find(|host| !is_near(host))
        {
            let problem = format!(
                "found `http://` to `{far}`: embed secrets, passwords and tokens cross the network \
                 in clear text"
            );
            self.notes.warn(at.finding(problem, NEAR).hint(CLEAR_TEXT));
        }
    }

    /// A warning about a password for `host`, which is spoken to without TLS.
    pub(super) fn warn_of_clear_password(self, at: &Place<'_>, of: &str, host: &str) {
        if !is_near(host) {
            let problem = format!(
                "found {of} at `{host}` without TLS: its password crosses the network in clear text"
            );
            self.notes.warn(at.finding(problem, NEAR_PASSWORD));
        }
    }

    /// A warning about a collector that is sent secrets.
    pub(super) fn warn_of_export_headers(self, at: &Place<'_>, endpoint: &Uri) {
        let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        if !is_tls(endpoint) && !is_near(host) {
            let problem = format!(
                "found `http://` to `{host}`: the secrets of `headers` cross the network in clear \
                 text"
            );
            self.notes.warn(at.finding(problem, NEAR));
        }
    }

    /// A warning about a listener that takes credentials in headers.
    pub(super) fn warn_of_listener(
        self,
        at: &Place<'_>,
        address: Option<&ListenAddress>,
        has_tls: bool,
        callers: &Field<Named<file::Caller>>,
    ) {
        let is_public = address.is_some_and(|address| !address.is_private());
        let callers = callers.as_ref().given().into_iter().flat_map(|callers| &callers.0);
        let mut callers = callers.filter_map(|(_, caller)| caller.as_ref().given());
        let by_header = |caller: &file::Caller| {
            let keys = [caller.api_key.is_missing(), caller.api_keys.is_missing()];
            keys.contains(&false) || !caller.jwt.is_missing()
        };
        if is_public && !has_tls && callers.any(by_header) {
            let problem = "found an address that others can reach, without `tls`: API keys and JWTs \
                           of callers cross the network in clear text";
            let accepted = "a listener with `tls`, a loopback address, a Unix socket";
            self.notes.warn(at.finding(problem, accepted).hint(NO_TLS));
        }
    }

    /// A warning about a secret whose rotation has begun and not ended: the file may hold a secret
    /// that Bold BI does not take any more.
    pub(super) fn warn_of_rotation(self, at: &Place<'_>, path: &Path) {
        if self.references != References::Read {
            return;
        }
        let (named, accepted) = (shown::file(path), "a secret that is not being rotated");
        match self.secrets.rotation_of(path) {
            None => {}
            Some(JournalError::Unfinished(_)) => {
                let problem = format!(
                    "found a file{named} {UNFINISHED}: whether Bold BI takes its secret is unknown"
                );
                self.notes.pass();
                self.notes
                    .warn(at.finding(problem, accepted).hint(self.resume_hint(at.path(), path)));
            }
            Some(other) => {
                let problem = format!("found a file{named} that cannot be rotated: {other}");
                self.notes.warn(at.finding(problem, accepted).hint(FOREIGN));
            }
        }
    }

    /// The hint about the unfinished rotation of the secret in the file at `secret`, whose place in
    /// the configuration is `key`.
    fn resume_hint(self, key: &str, secret: &Path) -> String {
        let named = key.strip_prefix("tenants.").and_then(|rest| rest.rsplit_once(".credential."));
        let (tenant, key) = named.unwrap_or(("TENANT", key));
        let number = usize::from(key.starts_with("embed_secrets[1]"));
        format!("`{}` {ENDS}", self.resume.text_by_journal(tenant, number, secret))
    }

    /// A warning about a file that holds a secret and could be read.
    pub(super) fn warn_of_secret_file(self, at: &Place<'_>, path: &Path) {
        if self.references == References::Read && plain_file::is_open_to_all(path) {
            let named = shown::file(path);
            let problem = format!("found a file{named} that every user of this machine can read");
            let accepted = "a file for the user that boldgate runs as alone";
            self.notes.warn(at.finding(problem, accepted).hint(OPEN_TO_ALL));
        }
    }
}

/// Whether a warning is about a rotation that has not ended. A running gateway follows these by
/// itself, and logs each once.
pub fn is_about_rotation(warning: &str) -> bool {
    warning.contains(UNFINISHED)
}

/// Whether the way to a host leads over no network that others listen on: this machine, or a name
/// that only a cluster or a container network knows. An address of a private network may be far.
fn is_near(host: &str) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    !host.contains('.')
        || [".localhost", ".svc", ".cluster.local"].iter().any(|end| host.ends_with(end))
}

const NO_BI: &str = "Bold BI is below `/bi` unless its path was changed: open the URL in a browser, and \
                     end it as Bold BI's own address ends before `/site`";
const NEAR_PASSWORD: &str = "TLS (`rediss://` of a store), this machine, a name of the cluster, or no \
                             password";
const NEAR: &str = "`https://`; `http://` to this machine, or to a name of the cluster such as `bi-web` \
                    or `bi-web.boldbi.svc`";
const CLEAR_TEXT: &str = "an embed secret lets its reader act as every user of the site: serve Bold BI by HTTPS \
                          (with a certificate of your own: `ca_file`)";
const NO_TLS: &str = "give the listener a certificate (`tls`); or let a proxy on this machine end TLS, and \
                      listen on a loopback address or a Unix socket";
const UNFINISHED: &str = "whose rotation has begun and not ended";
const ENDS: &str = "ends it: it tries the secret, and reads the new one back if Bold BI lets it";
const FOREIGN: &str = "find out why it is there, and remove it";
const OPEN_TO_ALL: &str = "`chmod 0400` and `chown` it to that user; in Kubernetes, set `defaultMode: 0440` and \
                           `fsGroup`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_names_of_a_cluster_are_near_and_other_hosts_are_not() {
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "localhost",
            "bi.localhost",
            "bold_bi",
            "bi-web",
            "bi-web.boldbi.svc",
            "bi-web.boldbi.svc.cluster.local",
            "bi-web.boldbi.svc.cluster.local.",
        ] {
            assert!(is_near(host), "{host}");
        }
        for host in [
            "10.0.0.1",
            "192.168.1.5",
            "fd00::1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "bi.example.com",
            "svc.example.com",
            "bi.svc.example.com",
            "bi.local",
            "127.0.0.1.example.com",
            "notlocalhost.example",
        ] {
            assert!(!is_near(host), "{host}");
        }
    }
}
