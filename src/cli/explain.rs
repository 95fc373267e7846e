//! `boldgate explain`.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::pem::SectionKind;

use super::{ConfigFile, Failure, runtime, say};
use crate::caller::{Admits, ClientCertificate, PeerInfo, UnixPeer};
use crate::config::{ListenAddress, Listener, Settings};
use crate::gateway::{Admission, Arrival, Gatekeeper, Preflight};
use crate::plain_file;
use crate::plain_file::limit::MAX_CERTIFICATES;
use crate::refusal::Refusal;
use crate::request::{RawHead, RequestHead};
use crate::trust::certificates;

/// Say what would become of a request, and why, without sending anything to Bold BI
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 if the request would be admitted and with 1 if not. The decision is \
made by the same code as in `serve`; keys of JWT issuers are fetched as there."
)]
pub(super) struct Explain {
    /// The method of the request, such as GET
    method: String,
    /// Its URL, as a client would send it to the gateway; a path alone will do
    url: String,
    /// A header of it, such as `X-Api-Key: …`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener it comes to, by its address in the configuration; the first if not given
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// The IP address that the client has, for permissions that believe a proxy by its address
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// PEM file of the certificate that the client has; its chain and times are taken to be good
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// The user of the process at the other end of a Unix socket
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The group of that process
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    #[command(flatten)]
    config: ConfigFile,
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| Failure::other(format!("`{}` is no method", self.method)))?;
        let (host, target) = host_and_target(&self.url);
        let headers = self.header_map(host)?;
        let settings = self.config.load()?;
        let listener = self.listener(&settings)?;
        let (terms, peer) = (Arc::clone(&listener.terms), self.peer(listener)?);
        let admits = terms.admits;
        let raw = raw_head(&method, target, &headers);
        let gatekeeper = Gatekeeper::new(
            settings.caller_auth,
            settings.tenants,
            settings.policy,
            settings.throttles,
        );
        let decided = runtime()?.block_on(async {
            let raw = RawHead::read(&raw)?;
            let head = RequestHead::parse(&raw)?;
            let arrived = match gatekeeper.arrive(&terms, &peer, &head)? {
                Arrival::Preflight(preflight) => {
                    return Ok(tell_preflight(admits, &preflight));
                }
                Arrival::Request(arrived) => arrived,
            };
            let page = arrived.page().cloned();
            let admission = gatekeeper.admit(&terms, &peer, &head, arrived).await?;
            Ok(tell(admits, &admission, page.as_ref()))
        });
        match decided {
            Ok(told) => told,
            Err(refusal) => {
                tell_refusal(admits, &refusal)?;
                Err(Failure::Said)
            }
        }
    }

    fn header_map(&self, host: Option<&str>) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for header in &self.headers {
            // Neither the text nor its value is shown: it may be a key.
            let malformed = || Failure::other("a header must look like `Name: value`");
            let (name, value) = header.split_once(':').ok_or_else(malformed)?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| malformed())?;
            headers.append(name, value);
        }
        if !headers.contains_key(HOST) {
            let host = HeaderValue::from_str(host.unwrap_or("localhost"))
                .map_err(|_| Failure::other("the URL has no usable host"))?;
            headers.insert(HOST, host);
        }
        Ok(headers)
    }

    fn listener<'s>(&self, settings: &'s Settings) -> Result<&'s Listener, Failure> {
        let mut listeners = settings.listeners.iter();
        let found = match &self.listener {
            None => listeners.next(),
            Some(address) => listeners.find(|l| l.address.to_string() == *address),
        };
        found.ok_or_else(|| {
            let all: Vec<_> = settings.listeners.iter().map(|l| l.address.to_string()).collect();
            Failure::other(format!("there is no such listener; there are: {}", all.join(", ")))
        })
    }

    /// The facts of the connection that `listener` would know.
    fn peer(&self, listener: &Listener) -> Result<PeerInfo, Failure> {
        let demands = listener.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let certificate = match (&self.client_cert, demands) {
            (None, false) => None,
            (Some(file), true) => Some(Arc::new(client_certificate(file)?)),
            (None, true) => {
                return Err(Failure::other(
                    "without a certificate this listener ends the connection: give `--client-cert`",
                ));
            }
            (Some(_), false) => {
                return Err(Failure::other("this listener asks for no client certificate"));
            }
        };
        let unix_peer = self.uid.zip(self.gid).map(|(user, group)| UnixPeer { user, group });
        if unix_peer.is_some() && !matches!(listener.address, ListenAddress::Unix(_)) {
            return Err(Failure::other("this listener is no Unix socket: it knows no processes"));
        }
        if self.from.is_some() && matches!(listener.address, ListenAddress::Unix(_)) {
            return Err(Failure::other(
                "this listener is a Unix socket: its clients have no address",
            ));
        }
        let (address, tls) = (self.from, listener.tls.is_some());
        Ok(PeerInfo { address, tls, certificate, unix_peer })
    }
}

/// The first certificate of a file, in which its chain and its key may be as well.
fn client_certificate(file: &Path) -> Result<ClientCertificate, Failure> {
    let failed = |cause: &dyn Display| {
        let file = file.display();
        Failure::other(format!("no certificate can be read from `{file}`: {cause}"))
    };
    let path = file.to_owned();
    let content = super::read_files(move || plain_file::read(&path, MAX_CERTIFICATES))?;
    let content = content.map_err(|error| failed(&error))?;
    let keys = [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey];
    match certificates(&content, &keys) {
        Ok(all) => match all.first() {
            Some(own) => Ok(ClientCertificate::from_der(own.der())),
            None => Err(failed(&"there is none in it")),
        },
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Err(failed(&faults.join("; ")))
        }
    }
}

/// Takes a URL apart as it is written: nothing of it is resolved or encoded on the way.
fn host_and_target(url: &str) -> (Option<&str>, &str) {
    match url.split_once("://") {
        Some((_, rest)) => {
            let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Some(host), if target.is_empty() { "/" } else { target })
        }
        None => (None, url),
    }
}

fn raw_head(method: &Method, target: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut raw = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        raw.extend_from_slice(name.as_str().as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(b"\r\n");
    raw
}

fn tell(admits: Admits, admission: &Admission, page: Option<&HeaderValue>) -> Result<(), Failure> {
    let tenant = admission.tenant();
    let caller = admission.caller.name().map_or("anonymous", |name| name.as_str());
    tell_listener(admits)?;
    tell_page(page)?;
    say(&format!("caller:    {caller}"))?;
    say(&format!("tenant:    {}", tenant.name))?;
    say(&format!("server:    {}{}", tenant.server.origin(), tenant.api_base))?;
    say(&format!("class:     {}", admission.class.as_str()))?;
    if admission.injects {
        say(&format!("subject:   {}", admission.permit.subject()))?;
        say(&format!("by:        {}", admission.by))?;
        say("decision:  admitted, with a token of the subject put on")
    } else {
        say(&format!("by:        {}", admission.by))?;
        say("decision:  admitted, with the Authorization that it brings")
    }
}

fn tell_preflight(admits: Admits, preflight: &Preflight<'_>) -> Result<(), Failure> {
    tell_listener(admits)?;
    tell_page(Some(preflight.origin))?;
    say(&format!("tenant:    {}", preflight.tenant.name))?;
    say("decision:  answered with 204 by the gateway itself: a preflight of a listed origin")
}

fn tell_page(page: Option<&HeaderValue>) -> Result<(), Failure> {
    let Some(origin) = page else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    say(&format!("origin:    {origin}, which may use the tenant"))
}

fn tell_refusal(admits: Admits, refusal: &Refusal) -> Result<(), Failure> {
    let response = refusal.response();
    tell_listener(admits)?;
    if let Some(caller) = refusal.caller() {
        say(&format!("caller:    {caller}"))?;
    }
    if let Some(tenant) = refusal.tenant() {
        say(&format!("tenant:    {tenant}"))?;
    }
    if let Some(facts) = refusal.facts() {
        say(&format!("class:     {}", facts.class.as_str()))?;
        if let Some(subject) = &facts.subject {
            say(&format!("subject:   {subject}"))?;
        }
        if let Some(permission) = facts.permission {
            say(&format!("by:        {permission}"))?;
        }
    }
    say(&format!("decision:  refused, {} {}", response.status.as_u16(), response.code))?;
    say(&format!("because:   {refusal}"))
}

fn tell_listener(admits: Admits) -> Result<(), Failure> {
    say(match admits {
        Admits::Anonymous => "listener:  admits everybody",
        Admits::Known => "listener:  admits known callers",
    })
}
