//! The steps about one server: from its name to the path of its API.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::quantity::span;
use super::remedy;
use super::report::{Status, Steps};
use super::ui;
use crate::boldbi::{Probe, ProbeError, ProbeResponse, RedirectTarget, api_base};
use crate::fetch::{TcpConnection, TlsPeer};
use crate::tenant::{HostPort, Server, Tenant};
use crate::trust::CertificateInfo;

/// Examines `server`. A step that fails ends it, except the last ones, without which exchanges can
/// work. `sample` is a tenant of the server, whose token endpoint is looked for. `is_passed` tells
/// whether a listener passes the server on. Besides the steps, it returns the address of this
/// machine in connections with the server, if there was one.
pub(super) async fn examine(
    probe: &Probe,
    server: &Server,
    sample: Option<&Tenant>,
    is_passed: bool,
) -> (Steps, Option<IpAddr>) {
    let mut steps = Steps::default();
    let mut exam = Exam { probe, server, is_passed, own_address: None };
    if exam.run(&mut steps, sample).await.is_none() {
        let because = match steps.failure() {
            Some(step) => format!("`{step}` failed"),
            None => "not needed".to_owned(),
        };
        steps.skip_rest(&all_steps(is_passed), &because);
    }
    (steps, exam.own_address)
}

/// Whether requests to the server can be expected to work after these steps.
pub(super) fn is_usable(steps: &Steps) -> bool {
    steps.failure().is_none_or(|step| NOT_FATAL.contains(&step))
}

/// The signs of a token endpoint at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Endpoint,
    Nothing,
    Unclear,
}

struct Exam<'e> {
    probe: &'e Probe,
    server: &'e Server,
    is_passed: bool,
    /// The address of this machine in connections with the server.
    own_address: Option<IpAddr>,
}

impl Exam<'_> {
    /// `None` if a step failed that the next ones need.
    async fn run(&mut self, steps: &mut Steps, sample: Option<&Tenant>) -> Option<()> {
        let addresses = self.dns(steps).await?;
        let connected = self.tcp(steps, &addresses).await?;
        let first = connected.first().map(|(at, _)| *at);
        self.own_address = connected.first().and_then(|(_, tcp)| tcp.local_ip());
        self.tls(steps, connected).await?;
        let response = self.http(steps, first).await?;
        clock(steps, &response);
        self.url(steps, sample).await?;
        self.health(steps, &response);
        if self.is_passed {
            ui::examine(steps, self.probe, self.server, sample).await;
        }
        Some(())
    }

    async fn dns(&self, steps: &mut Steps) -> Option<Vec<SocketAddr>> {
        let endpoints = self.server.endpoints();
        let (mut found, mut said, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for HostPort { host, port } in &endpoints {
            if let Ok(ip) = host.parse::<IpAddr>() {
                found.push(SocketAddr::new(ip, *port));
                continue;
            }
            let limit = self.server.timeouts.connect;
            let asked = timeout(limit, lookup_host((host.as_str(), *port))).await;
            match asked.map(|asked| asked.map(|all| all.take(MAX_ADDRESSES).collect::<Vec<_>>())) {
                Ok(Ok(all)) if !all.is_empty() => {
                    let ips: Vec<_> = all.iter().map(|at| at.ip().to_string()).collect();
                    said.push(format!("`{host}` is {}", ips.join(", ")));
                    found.extend(all);
                }
                Ok(Ok(_)) => faults.push(format!("the name `{host}` has no address")),
                Ok(Err(error)) => faults.push(format!("the name `{host}` has no address: {error}")),
                Err(_) => faults.push(format!("no response about `{host}` within {limit:?}")),
            }
        }
        let faults = faults.join("; ");
        match (found.is_empty(), faults.is_empty()) {
            (true, _) => {
                steps.failed("dns", faults, NAME_TO_DO);
                return None;
            }
            (false, false) => steps.warning("dns", faults, NAME_TO_DO),
            (false, true) if said.is_empty() => steps.ok("dns", "there is no name to look up"),
            (false, true) => steps.ok("dns", said.join("; ")),
        }
        Some(found)
    }

    async fn tcp(
        &self,
        steps: &mut Steps,
        addresses: &[SocketAddr],
    ) -> Option<Vec<(SocketAddr, TcpConnection)>> {
        let connecting = addresses.iter().map(|&at| async move { (at, self.probe.tcp(at).await) });
        let (mut connected, mut faults) = (Vec::new(), Vec::new());
        for (at, result) in join_all(connecting).await {
            match result {
                Ok(tcp) => connected.push((at, tcp)),
                Err(error) => faults.push((at, error)),
            }
        }
        let Some((at, first)) = faults.first() else {
            let all: Vec<_> = connected.iter().map(|(at, _)| at.to_string()).collect();
            // The address that an allow-list has to have, unless something in between changes it.
            let own = connected.first().and_then(|(_, tcp)| tcp.local_ip());
            let from = own.map_or_else(String::new, |own| format!(" from {own}"));
            let through = self.server.proxy.as_ref().map_or_else(String::new, |_| {
                format!(
                    "; the proxy there has connected to {}:{}",
                    self.server.host, self.server.port
                )
            });
            steps.ok("tcp", format!("connected to {}{from}{through}", all.join(", ")));
            return Some(connected);
        };
        let more = match faults.len() - 1 {
            0 => String::new(),
            more => format!(", and to {more} more addresses"),
        };
        let found = format!("no connection to {at}{more}: {first}");
        if connected.is_empty() {
            let is_proxy = self.server.proxy.is_some();
            let only_ipv6 = addresses.iter().all(SocketAddr::is_ipv6);
            let found = if only_ipv6 { format!("{found}; all are IPv6 addresses") } else { found };
            steps.failed("tcp", found, remedy::unconnected(*at, first, only_ipv6, is_proxy));
            return None;
        }
        let (of, all) = (connected.len(), addresses.len());
        steps.warning(
            "tcp",
            format!("{of} of {all} addresses can be connected to, and used; {found}"),
            remedy::one_of_several(*at, first),
        );
        Some(connected)
    }

    async fn tls(
        &self,
        steps: &mut Steps,
        connected: Vec<(SocketAddr, TcpConnection)>,
    ) -> Option<()> {
        if !self.server.tls {
            steps.skipped("tls", "the server's `url` begins with `http://`");
            return Some(());
        }
        let handshakes =
            connected.into_iter().map(|(at, tcp)| async move { (at, self.probe.tls(tcp).await) });
        let (mut peers, mut faults) = (Vec::new(), Vec::new());
        for (at, result) in join_all(handshakes).await {
            match result {
                Ok(peer) => peers.extend(peer.map(|peer| (at, peer))),
                Err(error) => faults.push((at, error)),
            }
        }
        if let Some((at, error)) = faults.first() {
            let (found, to_do) = self.tls_fault(*at, error).await;
            if peers.is_empty() {
                steps.failed("tls", found, to_do);
                return None;
            }
            steps.warning("tls", found, to_do);
        }
        let ends = |(_, peer): &&(SocketAddr, TlsPeer)| seconds_left(peer).unwrap_or(i64::MAX);
        if let Some((at, peer)) = peers.iter().min_by_key(ends) {
            certificate(steps, *at, peer);
        }
        Some(())
    }

    async fn tls_fault(&self, at: SocketAddr, error: &ProbeError) -> (String, String) {
        let found = format!("the handshake with {at} failed: {error}");
        match error {
            ProbeError::Connection(fault) if fault.is_without_tls() => {
                if self.probe.speaks_plain_http().await {
                    let found =
                        format!("{at} speaks plain HTTP, and the server's `url` is `https://`");
                    (found, PLAIN_TO_DO.into())
                } else {
                    (format!("{at} speaks neither TLS nor HTTP"), PORT_TO_DO.into())
                }
            }
            ProbeError::Connection(fault) | ProbeError::NotHttp(fault) => {
                (found, fault.hint_for(&self.server.host))
            }
            ProbeError::Timeout(limit) => (found, self.silent(*limit, "connect")),
        }
    }

    /// One request without a token, to the path of the health check.
    async fn http(&self, steps: &mut Steps, at: Option<SocketAddr>) -> Option<ProbeResponse> {
        let path = self.health_path();
        let response = self.probe.get(&path, None).await;
        let is_suspect = match &response {
            Ok(response) => response.status.as_u16() == 400 || secure_target(response).is_some(),
            Err(error) => !matches!(error, ProbeError::Timeout(_)),
        };
        let tls_at = at.filter(|_| is_suspect && !self.server.tls);
        if let Some(at) = tls_at
            && self.probe.speaks_tls(at).await
        {
            steps.failed(
                "http",
                format!("{at} speaks TLS, and the server's `url` is `http://`"),
                TLS_TO_DO,
            );
            return None;
        }
        let said = format!("GET {path}");
        let (found, to_do) = match response {
            Ok(response) => {
                if let Some(target) = secure_target(&response).filter(|_| !self.server.tls) {
                    let found = format!("{said}: redirected to `{}`", target.origin());
                    steps.failed("http", found, remedy::redirected(self.server, target));
                    return None;
                }
                let (status, took) = (response.status.as_u16(), response.took.as_millis());
                steps.ok("http", format!("{said}: HTTP, status {status} in {took} ms"));
                return Some(response);
            }
            Err(error) => {
                let to_do = match &error {
                    ProbeError::Connection(fault) if fault.is_about_client_certificate() => {
                        fault.hint().to_owned()
                    }
                    ProbeError::Connection(_) => CLOSED_TO_DO.to_owned(),
                    ProbeError::NotHttp(_) => PORT_TO_DO.to_owned(),
                    ProbeError::Timeout(limit) => self.silent(*limit, "token_exchange"),
                };
                (format!("{said}: {error}"), to_do)
            }
        };
        steps.failed("http", found, to_do);
        None
    }

    /// Looks for the token endpoint under the path of the `url`, and under the path with or without
    /// `/bi`. `None` if it is only under the other.
    async fn url(&self, steps: &mut Steps, sample: Option<&Tenant>) -> Option<()> {
        let Some(tenant) = sample else {
            steps.skipped("url", "no tenant uses the server");
            return Some(());
        };
        let base = &self.server.base_path;
        let other = base.strip_suffix(BI).map_or_else(|| format!("{base}{BI}"), str::to_owned);
        let endpoint = |base: &str| {
            let moved = Server { base_path: base.to_owned(), ..self.server.clone() };
            format!("{}/token", api_base(&moved, tenant.site()))
        };
        let (own, there) = (endpoint(base), endpoint(&other));
        let at_own = self.look_for_endpoint(&own).await;
        if at_own == Shown::Endpoint {
            steps.ok("url", format!("the token endpoint is at {own}"));
            return Some(());
        }
        if at_own == Shown::Nothing && self.look_for_endpoint(&there).await == Shown::Endpoint {
            let url = format!("{}{other}", self.server.origin());
            steps.failed(
                "url",
                format!("the token endpoint is not at {own}, but at {there}"),
                format!("set the server's `url` to `{url}`"),
            );
            return None;
        }
        let found =
            format!("it cannot be seen without a login whether {own} is the token endpoint");
        steps.unclear("url", format!("{found}: the exchange decides"));
        Some(())
    }

    /// Looks for a token endpoint at `path`. It takes POST alone, and refuses one without a user.
    /// (Bold BI: REST API v1.0 to v6.0, 405 and 400.)
    async fn look_for_endpoint(&self, path: &str) -> Shown {
        match self.probe.get(path, None).await.map(|response| response.status.as_u16()) {
            Ok(405) => return Shown::Endpoint,
            Ok(200..=404 | 501) => {}
            _ => return Shown::Unclear,
        }
        match self.probe.post_nothing(path).await {
            Ok(response) if response.is_html => Shown::Nothing,
            Ok(response) => match response.status.as_u16() {
                200 if response.is_json => Shown::Endpoint,
                400 => Shown::Endpoint,
                200..=399 | 404 | 405 | 501 => Shown::Nothing,
                _ => Shown::Unclear,
            },
            Err(_) => Shown::Unclear,
        }
    }

    fn health(&self, steps: &mut Steps, response: &ProbeResponse) {
        let (path, status) = (self.health_path(), response.status.as_u16());
        let found = format!("GET {path}: status {status}");
        match (&self.server.health_check, status) {
            (_, 200..=299) => steps.ok("health", found),
            (None, _) => {
                let found = format!("{found}; no health check is configured");
                steps.push("health", Status::Unclear, found, None);
            }
            (Some(_), 401 | 403 | 404 | 300..=399) => {
                steps.failed("health", found, HEALTH_PATH_TO_DO);
            }
            (Some(_), _) => steps.failed("health", found, HEALTH_TO_DO),
        }
    }

    fn silent(&self, limit: Duration, key: &str) -> String {
        remedy::silent(self.server, &self.health_path(), limit, key)
    }

    fn health_path(&self) -> String {
        match &self.server.health_check {
            Some(check) => check.path.clone(),
            None => format!("{}/health-check", self.server.base_path),
        }
    }
}

/// The target of a redirect to a URL that begins with `https://`.
fn secure_target(response: &ProbeResponse) -> Option<&RedirectTarget> {
    response.redirect.as_ref().filter(|target| target.is_https())
}

/// The facts of a certificate that is accepted.
fn certificate(steps: &mut Steps, at: SocketAddr, peer: &TlsPeer) {
    let version = peer.version.unwrap_or("TLS");
    let Some(info) = peer.certificates.first().and_then(|der| CertificateInfo::of(der)) else {
        return steps.ok("tls", format!("{version} with {at}"));
    };
    let left = seconds_left(peer).unwrap_or_default();
    let issuer = info.issuer_name().map_or_else(String::new, |name| format!(" from `{name}`"));
    let found = format!(
        "{version} with {at}; the certificate{issuer} is accepted and ends in {} ({} sent)",
        span(left.unsigned_abs()),
        peer.certificates.len()
    );
    if left < MIN_CERTIFICATE_LEFT {
        steps.warning("tls", found, "renew the server's certificate");
    } else {
        steps.ok("tls", found);
    }
}

/// Seconds to the end of the server's certificate; negative after it.
fn seconds_left(peer: &TlsPeer) -> Option<i64> {
    let (_, end) = CertificateInfo::of(peer.certificates.first()?)?.validity();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(i64::try_from(end).ok()? - i64::try_from(now).ok()?)
}

fn clock(steps: &mut Steps, response: &ProbeResponse) {
    let Some(ahead) = response.clock_ahead else {
        return steps.skipped("clock", "the server tells no time (`Date`)");
    };
    let apart = ahead.unsigned_abs();
    let span = span(apart);
    let found = match ahead {
        _ if apart <= MAX_CLOCK_NOISE => {
            return steps.ok("clock", "equal to the server's `Date`, within 2 s");
        }
        1.. => format!("the server's clock is {span} ahead of the clock here"),
        _ => format!("the clock here is {span} ahead of the server's"),
    };
    if apart <= MAX_CLOCK_DIFFERENCE {
        steps.ok("clock", found);
    } else if apart <= MAX_CLOCK_WARNING {
        steps.warning("clock", found, CLOCK_TO_DO);
    } else {
        steps.failed("clock", found, CLOCK_TO_DO);
    }
}

/// All steps of a server, in their order.
pub(super) fn all_steps(is_passed: bool) -> Vec<&'static str> {
    let of_ui: &[_] = if is_passed { &ui::STEPS } else { &[] };
    [&STEPS[..], of_ui].concat()
}

const STEPS: [&str; 7] = ["dns", "tcp", "tls", "http", "clock", "url", "health"];
/// Steps whose failure does not keep exchanges from working.
const NOT_FATAL: [&str; 4] = ["clock", "health", "static_file", "data_service"];
/// The path of a usual `url`.
const BI: &str = "/bi";
/// Addresses of one name.
const MAX_ADDRESSES: usize = 64;
/// Seconds between two clocks that agree: `Date` has whole seconds.
const MAX_CLOCK_NOISE: u64 = 2;
/// Seconds that JWTs of callers are given by default.
const MAX_CLOCK_DIFFERENCE: u64 = 30;
/// Seconds beyond which lifetimes in token replies are in doubt.
const MAX_CLOCK_WARNING: u64 = 5 * 60;
/// Seconds in which a certificate is renewed at the latest.
const MIN_CERTIFICATE_LEFT: i64 = 14 * 24 * 60 * 60;
const NAME_TO_DO: &str = "check the host in the server's `url` or `addresses`, and ask this machine's \
                          DNS for it with `getent hosts NAME`; a container may have another DNS than \
                          its host";
const PLAIN_TO_DO: &str =
    "let the server's `url` begin with `http://`, or give it the port at which Bold BI has TLS";
const TLS_TO_DO: &str =
    "let the server's `url` begin with `https://`, or give it the port without TLS";
const PORT_TO_DO: &str =
    "check the port in the server's `url`: the service there is not Bold BI's, nor a web server's";
const CLOSED_TO_DO: &str = "look into the log of the service at that port, and check the port in the \
                            server's `url`: it accepts connections, and serves neither HTTP nor TLS \
                            as Bold BI's web server does";
const CLOCK_TO_DO: &str = "find out which is wrong (`date -u` on both machines), and have both set by NTP: \
                           JWTs of callers, certificates and the life of tokens depend on it";
const HEALTH_PATH_TO_DO: &str = "set `health_check.path` of the server to a path that Bold BI serves \
                                 without a sign-in, or remove `health_check`: otherwise its addresses \
                                 are ejected";
const HEALTH_TO_DO: &str = "look into Bold BI's health and logs: addresses with a failing health check \
                            are ejected";
