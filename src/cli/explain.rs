//! `boldgate explain`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;

use super::first_certificate::first_certificate;
use super::{ConfigFile, Failure, print, runtime};
use crate::boldbi::{caller_url, designer_path};
use crate::caller::{Admits, ClientCertificate, PeerInfo, UnixPeer};
use crate::config::{
    ExplainedKey, ExplainedTenant, KeyOrigin, ListenAddress, ListenerSettings, Settings,
    TenantPlace,
};
use crate::embed::GrantedValue;
use crate::gateway::{Admission, Arrival, Gatekeeper, Passage, Preflight};
use crate::policy::{Forbidden, MaskedFault};
use crate::proxy::refusal_hint;
use crate::refusal::Refusal;
use crate::request::{RawHead, RequestHead};

/// Show whether a request would be admitted, and why; nothing is sent to Bold BI
#[derive(Debug, clap::Args)]
#[command(after_help = "The decision is made by the same code as in `serve`, which may fetch the \
keys of JWT issuers. It reads the files alone: a tenant that an operator has disabled at a running gateway \
is known to `boldgate status`, and not here.

Exit codes: 0 the request would be admitted; 1 it would be refused")]
pub(super) struct ExplainCommand {
    /// The method of the request, such as GET
    method: String,
    /// The URL as a client would send it to the gateway; a path is enough
    url: String,
    /// A header, such as `X-Api-Key: …`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener, by its address in the configuration; if not given, the only one with the
    /// port of the URL, or else the first
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// The IP address of the client, for permissions that trust a proxy by its address
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// PEM file of the client's certificate; its chain and dates are not checked
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// The user of the process at the other end of a Unix socket
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The group of that process
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// Show the settings of the tenant, too, each with the file and line that it comes from
    #[arg(long)]
    settings: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl ExplainCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| Failure::other(format!("`{}` is no method", self.method)))?;
        let (host, target) = host_and_target(&self.url);
        let headers = self.header_map(host)?;
        let file = self.config.path.clone();
        let mut settings = self.config.load_without_secrets()?;
        let (has_files, placed) = (settings.has_tenant_files, std::mem::take(&mut settings.placed));
        let listener = self.listener(&settings)?;
        let (terms, peer) = (Arc::clone(&listener.terms), self.peer(listener)?);
        print(&format!("file:      {}, not the state of a running gateway", file.display()))?;
        print_listener(terms.admits, &self.choice(&settings))?;
        let raw = raw_head(&method, target, &headers);
        let gatekeeper = Gatekeeper::new(
            settings.caller_auth,
            settings.tenants,
            settings.policy,
            settings.throttles,
        );
        let mut tenant = None;
        let decided: Result<_, Refusal> = runtime()?.block_on(async {
            let raw = RawHead::read(&raw)?;
            let head = RequestHead::parse(&raw)?;
            let arrived = match gatekeeper.arrive(&terms, &peer, &head)? {
                Arrival::Preflight(preflight) => {
                    return Ok(print_preflight(&preflight));
                }
                Arrival::Passage(passage) => return Ok(print_passage(&passage)),
                Arrival::Request(arrived) => arrived,
            };
            let page = arrived.page().cloned();
            let admission = gatekeeper.admit(&terms, &peer, &head, arrived).await?;
            tenant = Some(admission.tenant().name.to_string());
            Ok(print_admission(&admission, page.as_ref()))
        });
        let admitted = match decided {
            Ok(printed) => printed.map(|()| true),
            Err(refusal) => {
                tenant = refusal.tenant().map(ToString::to_string);
                print_refusal(&refusal).map(|()| false)
            }
        }?;
        if let Some(tenant) = tenant.filter(|_| self.settings || has_files) {
            self.print_place(&tenant, placed.get(&*tenant))?;
        }
        if admitted { Ok(()) } else { Err(Failure::Reported) }
    }

    /// Prints the place of a tenant of `tenant_files`, and if they are asked for, its keys, without
    /// secrets and users, each with its place.
    fn print_place(&self, tenant: &str, place: Option<&TenantPlace>) -> Result<(), Failure> {
        let main = self.config.path.display().to_string();
        let file = place.and_then(|place| place.file.as_deref());
        if let Some((file, place)) = file.zip(place) {
            print(&format!("from:      {file}:{}", place.position))?;
        }
        if !self.settings {
            return Ok(());
        }
        let Some(ExplainedTenant(keys)) = self.config.explained(tenant, file)? else {
            return Ok(());
        };
        print(&format!("settings of {tenant}:"))?;
        for ExplainedKey { key, value, origin } in keys {
            let origin = match origin {
                KeyOrigin::Tenant(file, at) => {
                    format!("the tenant, {}:{at}", file.as_deref().unwrap_or(&main))
                }
                KeyOrigin::Defaults(at) => format!("tenant_defaults, {main}:{at}"),
                KeyOrigin::BuiltIn => "built in".to_owned(),
            };
            print(&format!("  {key}: {value}\n    from {origin}"))?;
        }
        Ok(())
    }

    fn header_map(&self, host: Option<&str>) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for header in &self.headers {
            // The message does not show the header: it may be a key.
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

    fn listener<'s>(&self, settings: &'s Settings) -> Result<&'s ListenerSettings, Failure> {
        let mut listeners = settings.listeners.iter();
        let found = match &self.listener {
            None => self.at_port(settings).or_else(|| listeners.next()),
            Some(address) => listeners.find(|l| l.address.to_string() == *address),
        };
        found.ok_or_else(|| {
            let all: Vec<_> = settings.listeners.iter().map(|l| l.address.to_string()).collect();
            Failure::other(format!("no such listener; the configuration has: {}", all.join(", ")))
        })
    }

    /// The only listener at the port of the URL; `None` if there are others, or none.
    fn at_port<'s>(&self, settings: &'s Settings) -> Option<&'s ListenerSettings> {
        let port = host_and_target(&self.url).0?.parse::<Authority>().ok()?.port_u16()?;
        let is_there = |listener: &&ListenerSettings| matches!(listener.address, ListenAddress::Tcp(address) if address.port() == port);
        let mut found = settings.listeners.iter().filter(is_there);
        found.next().filter(|_| found.next().is_none())
    }

    /// The choice of the listener in words, where the command does not name it.
    fn choice(&self, settings: &Settings) -> String {
        let all = settings.listeners.len();
        if self.listener.is_some() || all == 1 {
            return String::new();
        }
        let chosen = match self.at_port(settings) {
            Some(listener) => format!("{}, by the port of the URL", listener.address),
            None => format!("the first of {all}"),
        };
        format!(", {chosen}; `--listener ADDRESS` chooses another")
    }

    /// The facts of a connection to `listener`.
    fn peer(&self, listener: &ListenerSettings) -> Result<PeerInfo, Failure> {
        let demands = listener.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let certificate = match (&self.client_cert, demands) {
            (None, false) => None,
            (Some(file), true) => {
                Some(Arc::new(ClientCertificate::from_der(&first_certificate(file)?)))
            }
            (None, true) => {
                return Err(Failure::other(
                    "this listener demands a client certificate: give `--client-cert`",
                ));
            }
            (Some(_), false) => {
                return Err(Failure::other("this listener does not ask for a client certificate"));
            }
        };
        let unix_peer = self.uid.zip(self.gid).map(|(user, group)| UnixPeer { user, group });
        if unix_peer.is_some() && !matches!(listener.address, ListenAddress::Unix(_)) {
            return Err(Failure::other("only clients of a Unix socket have a user and a group"));
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

/// Splits a URL as it is written: nothing is resolved or encoded.
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

fn print_admission(admission: &Admission, page: Option<&HeaderValue>) -> Result<(), Failure> {
    let tenant = admission.tenant();
    let caller = admission.caller.name().map_or("anonymous", |name| name.as_str());
    print_page(page)?;
    print(&format!("caller:    {caller}"))?;
    print(&format!("tenant:    {}", tenant.name))?;
    let server = if admission.masked {
        format!("{} (masked mode)", designer_path(&tenant.server, ""))
    } else {
        tenant.api_base.to_string()
    };
    print(&format!("server:    {}{server}", tenant.server.origin()))?;
    print(&format!("class:     {}", admission.class.as_str()))?;
    if let Some(grant) = &admission.embed {
        print(&format!("subject:   {}", admission.permit.subject()))?;
        print(&format!("by:        {}", admission.by))?;
        let names: Vec<_> = grant.values().map(GrantedValue::name).collect();
        if !names.is_empty() {
            print(&format!("values:    {}", names.join(", ")))?;
        }
        return print(
            "decision:  admitted; the gateway itself reads the body and asks Bold BI, and forwards \
             nothing",
        );
    }
    if admission.injects {
        print(&format!("subject:   {}", admission.permit.subject()))?;
        print(&format!("by:        {}", admission.by))?;
        // Secrets are not read here, so the end of a token is not known.
        print(if tenant.credential.grant.is_exchanged() {
            "decision:  admitted, with a token of the subject, if `boldgate check` can read the secret"
        } else {
            "decision:  admitted, with the tenant's personal access token until its end"
        })
    } else {
        print(&format!("by:        {}", admission.by))?;
        print("decision:  admitted, with the client's own Authorization header")
    }
}

fn print_preflight(preflight: &Preflight<'_>) -> Result<(), Failure> {
    print_page(Some(preflight.origin))?;
    print(&format!("tenant:    {}", preflight.tenant.name))?;
    print("decision:  preflight of a listed origin: the gateway itself responds with 204")
}

fn print_passage(passage: &Passage) -> Result<(), Failure> {
    let server = &passage.server;
    print(&format!("server:    {} ({}), by `ui: pass`", server.name, server.origin()))?;
    let Some(data) = &passage.data else {
        return print("decision:  passed on as a static file, without any credential or cookie");
    };
    print_page(data.page.as_ref())?;
    print(&format!("tenant:    {}", data.tenant.name))?;
    // The header of the client may have named the address of the gateway.
    print(&format!("Caller:    {}", caller_url(&data.tenant)))?;
    print(if data.authorization.is_some() {
        "decision:  passed on, with the client's own Authorization header"
    } else {
        "decision:  passed on, without any credential"
    })
}

fn print_page(page: Option<&HeaderValue>) -> Result<(), Failure> {
    let Some(origin) = page else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    print(&format!("origin:    {origin}, which may use the tenant"))
}

fn print_refusal(refusal: &Refusal) -> Result<(), Failure> {
    let response = refusal.response();
    // Such a route has no class that a permission could open.
    let is_no_route =
        matches!(refusal, Refusal::Forbidden { why: Forbidden::Masked(MaskedFault::Route), .. });
    match (refusal.caller(), refusal.facts()) {
        (Some(caller), _) => print(&format!("caller:    {caller}"))?,
        (None, Some(_)) => print("caller:    anonymous")?,
        (None, None) => {}
    }
    if let Some(tenant) = refusal.tenant() {
        print(&format!("tenant:    {tenant}"))?;
    }
    if let Some(known) = refusal.facts() {
        let class = if is_no_route { "none, closed to all callers" } else { known.class.as_str() };
        print(&format!("class:     {class}"))?;
        if let Some(subject) = &known.subject {
            print(&format!("subject:   {subject}"))?;
        }
        if let Some(permission) = known.permission {
            print(&format!("by:        {permission}"))?;
        }
    }
    print(&format!("decision:  refused, {} {}", response.status.as_u16(), response.code))?;
    print(&format!("because:   {refusal}"))?;
    refusal_hint(refusal).map_or(Ok(()), |hint| print(&format!("hint:      {hint}")))
}

fn print_listener(admits: Admits, choice: &str) -> Result<(), Failure> {
    let admits = match admits {
        Admits::Anonymous => "admits all clients (anonymous)",
        Admits::Known => "admits known callers",
    };
    print(&format!("listener:  {admits}{choice}"))
}
