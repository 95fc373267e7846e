//! A table of faults that people make in a set-up. The doctor names the cause of each in its first
//! step that is not OK. The messages are in a snapshot, to be read.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::TokenReply;
use http::StatusCode;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};

use super::certificates::in_the_certificate;
use super::plant::{FirstFault, Plant, USER, sound, sound_for, with_password};
use crate::support::stand_in::{EMBED_SECRET, PASSWORD};
use crate::support::tls::{SelfSigned, TlsServer};
use crate::support::upstream::{
    RawResponse, Request, Upstream, dead_address, free_address, status,
};

/// A fault, and what the doctor must say of it.
pub struct Row {
    fault: &'static str,
    plant: Plant,
    code: i32,
    /// The subject and the step that is the first with a fault.
    step: (&'static str, &'static str),
    /// Words of the message that name the cause.
    cause: Vec<&'static str>,
}

impl Row {
    /// The message that the doctor prints about the fault, or the way in which it is wrong.
    async fn diagnosed(&self) -> Result<String, String> {
        let ended = self.plant.diagnose(&["--json"]).await;
        let everything = format!("{}{}", ended.stdout, ended.stderr);
        let first = FirstFault::of(&ended.stdout)
            .ok_or_else(|| format!("nothing was found: {everything}"))?;
        let FirstFault { subject, step, found, to_do } = first;
        if (subject, step.as_str()) != self.step || ended.code != Some(self.code) {
            return Err(format!("{subject}, {step}, {:?}: {everything}", ended.code));
        }
        let message = format!("{found}\n{to_do}");
        if let Some(word) = self.cause.iter().find(|word| !message.contains(**word)) {
            return Err(format!("`{word}` is not in {message}"));
        }
        for secret in [EMBED_SECRET, PASSWORD, "canary", "eyJ"] {
            if everything.contains(secret) {
                return Err(format!("`{secret}` shows: {everything}"));
            }
        }
        let (fault, code) = (self.fault, self.code);
        let message =
            format!("{fault}\n  {subject}, {step}: {found}\n  to do: {to_do}\n  exit {code}\n\n");
        Ok(self.plant.steady(&message))
    }
}

pub fn row(
    fault: &'static str,
    plant: Plant,
    code: i32,
    step: (&'static str, &'static str),
    cause: &[&'static str],
) -> Row {
    Row { fault, plant, code, step, cause: cause.to_vec() }
}

const CONFIGURATION: (&str, &str) = ("machine", "configuration");
const DNS: (&str, &str) = ("server", "dns");
const TCP: (&str, &str) = ("server", "tcp");
pub const TLS: (&str, &str) = ("server", "tls");
const HTTP: (&str, &str) = ("server", "http");
const CLOCK: (&str, &str) = ("server", "clock");
const URL: (&str, &str) = ("server", "url");
const HEALTH: (&str, &str) = ("server", "health");
const EXCHANGE: (&str, &str) = ("tenant", "exchange");
const REQUEST: (&str, &str) = ("tenant", "request");

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn doctor_names_the_cause_of_each_planted_fault_in_its_first_broken_step() {
    let mut rows = in_the_configuration();
    rows.extend(on_this_machine().await);
    rows.extend(on_the_way().await);
    rows.extend(in_the_certificate().await);
    rows.extend(in_the_url().await);
    rows.extend(in_front_of_bold_bi().await);
    rows.extend(in_the_credential().await);
    rows.extend(in_bold_bi().await);
    rows.extend(in_its_api().await);
    assert!(rows.len() >= 30, "there are {} faults", rows.len());
    let (mut all, mut wrong) = (String::new(), Vec::new());
    for row in rows {
        match row.diagnosed().await {
            Ok(message) => all += &message,
            Err(error) => wrong.push(format!("{}: {error}", row.fault)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // Resolvers have words of their own for a name that does not exist.
    for said in ["Name or service not known", "Temporary failure in name resolution"] {
        all = crate::support::edit::Edit::edit_any(all.as_str(), said, "[the resolver's words]");
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("faults", all) });
}

fn in_the_configuration() -> Vec<Row> {
    let plant = || Plant::new("http://127.0.0.1:1/bi", "");
    let to = |url: &str| Plant::new(url, "");
    vec![
        row(
            "the configuration file is missing",
            plant().shell("rm \"${@:4:1}\"; exec \"$@\""),
            78,
            CONFIGURATION,
            &["cannot be read", "No such file", "`--config FILE`"],
        ),
        row(
            "a tab in the configuration",
            plant().edit("    server: main", "\tserver: main"),
            78,
            CONFIGURATION,
            &["gateway.yaml:9:2", "tab"],
        ),
        row(
            "a misspelt key",
            plant().edit("user_source", "user_sorce"),
            78,
            CONFIGURATION,
            &["user_sorce", "did you mean `user_source`?"],
        ),
        row(
            "the `url` goes on to /api",
            to("http://127.0.0.1:1/bi/api"),
            78,
            CONFIGURATION,
            &["`/api`", "end the URL before `/api`"],
        ),
        row(
            "the `url` has the site",
            to("http://127.0.0.1:1/bi/site/site1"),
            78,
            CONFIGURATION,
            &["`/site`", "key `site`"],
        ),
        row(
            "a password for a user of Azure AD",
            plant().password(PASSWORD).edit("source: local", "source: azure_ad"),
            78,
            CONFIGURATION,
            &["no password for users of this source", "replace `password` by `embed_secret`"],
        ),
        row(
            "the secret has a blank at its end",
            plant().secret(&format!("{EMBED_SECRET} \n")),
            78,
            CONFIGURATION,
            &["a blank (U+0020) at its end", "secret"],
        ),
        row(
            "the secret has an empty line behind it, with line ends of Windows",
            plant().secret(&format!("{EMBED_SECRET}\r\n\r\n")),
            78,
            CONFIGURATION,
            &["an empty line after the secret (Windows line ends, CR LF)", "remove the empty line"],
        ),
        row(
            "the secret begins with a byte order mark",
            plant().secret(&format!("\u{feff}{EMBED_SECRET}")),
            78,
            CONFIGURATION,
            &["byte order mark"],
        ),
        row(
            "the secret is empty",
            plant().secret("\n"),
            78,
            CONFIGURATION,
            &["it is empty", "Settings > Embed"],
        ),
        row(
            "the secret's file is missing",
            plant().shell("rm \"${4%/*}/secret\"; exec \"$@\""),
            78,
            CONFIGURATION,
            &["No such file", "create the file"],
        ),
        row(
            "the secret's file may not be read",
            plant().shell(
                "chmod 0 \"${4%/*}/secret\"; \
                 [ \"$(id -u)\" = 0 ] || exec \"$@\"; \
                 exec setpriv --bounding-set=-dac_override,-dac_read_search \"$@\"",
            ),
            78,
            CONFIGURATION,
            &["Permission denied", "let this user read the file"],
        ),
        row(
            "the secret's variable is not set",
            {
                let plant = plant();
                let file = format!("file: \"{}\"", plant.path("secret"));
                plant.edit(&file, "env: ACME_SECRET")
            },
            78,
            CONFIGURATION,
            &["it is not set"],
        ),
    ]
}

async fn on_this_machine() -> Vec<Row> {
    let (stand_in, plant) = sound().await;
    let few = plant
        .edit("max_connections: 100 ", "max_connections: 2000 ")
        .shell("ulimit -n 256; exec \"$@\"")
        .with(stand_in);
    let (stand_in, plant) = sound().await;
    let audit =
        plant.edit("tenants:", "audit: { to: /nonexistent/audit.log }\ntenants:").with(stand_in);
    vec![
        row(
            "the audit log has no folder",
            audit,
            1,
            ("machine", "files"),
            &["/nonexistent/audit.log", "make the folder"],
        ),
        row(
            "too few descriptors",
            few,
            0,
            ("machine", "descriptors"),
            &["256 files may be open", "LimitNOFILE"],
        ),
    ]
}

async fn on_the_way() -> Vec<Row> {
    let quick = ", timeouts: { connect: 500ms, token_exchange: 500ms }";
    let dead = dead_address();
    let (filtered, filtered_guard) = filtering().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap();
    let (closing, closing_task) = responding("").await;
    let (ssh, ssh_task) = responding("SSH-2.0-OpenSSH_9.2\r\n").await;
    let (stand_in, _) = sound().await;
    let url = |address: SocketAddr| format!("http://{address}/bi");
    let ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, free_address().port()));
    let (second, sound_plant) = sound().await;
    let one_of_two = format!(", addresses: [\"{}\", \"{dead}\"]", second.addr());
    let own = SelfSigned::new("localhost");
    let (secure, _) = sound().await;
    let tls = TlsServer::start(own.acceptor(), secure.addr()).await;
    let http_to_tls = Plant::new(&format!("http://{}/bi", tls.address), "");
    vec![
        row(
            "the host is unknown",
            // A resolver without a network may take ten seconds.
            Plant::new("http://bold-bi.invalid/bi", ", timeouts: { connect: 60s }"),
            1,
            DNS,
            &["`bold-bi.invalid`", "getent hosts"],
        ),
        row(
            "the wrong port, where nothing listens",
            Plant::new(&url(dead), "").shows(dead, "[server]"),
            1,
            TCP,
            &["Connection refused", "nothing listens at", "`ss -ltn`"],
        ),
        row(
            "a firewall drops the packets",
            Plant::new(&url(filtered), quick)
                .with(filtered_guard)
                .shows(filtered, "[server]")
                .shows(format!("{} {}", filtered.ip(), filtered.port()), "[server]"),
            1,
            TCP,
            &["`nc -vz -w 5 127.0.0.1 ", "have 127.0.0.1 -> 127.0.0.1:", "firewalls"],
        ),
        row(
            "only an IPv6 address, at which Bold BI does not listen",
            Plant::new("http://localhost/bi", &format!(", addresses: [\"{ipv6}\"]"))
                .shows(ipv6, "[server]"),
            1,
            TCP,
            &["all are IPv6 addresses", "IPv4 address in `addresses`", "IPv4 only"],
        ),
        row(
            "one of two addresses is dead",
            Plant::new("http://localhost/bi", &one_of_two)
                .with(second)
                .with(sound_plant)
                .shows(dead, "[server]"),
            0,
            TCP,
            &["Connection refused", "can be connected to, and used", "start Bold BI at 127.0.0.1:"],
        ),
        row(
            "`https` for a port of plain HTTP",
            Plant::new(&format!("https://localhost:{}/bi", stand_in.addr().port()), "")
                .shows(stand_in.addr(), "[server]")
                .with(stand_in),
            1,
            TLS,
            &["speaks plain HTTP", "`http://`"],
        ),
        row(
            "`http` for a port of TLS",
            http_to_tls.shows(tls.address, "[server]").with(tls).with(secure),
            1,
            HTTP,
            &["speaks TLS", "`https://`"],
        ),
        row(
            "the server accepts connections and is silent",
            Plant::new(&url(silent_address), quick).shows(silent_address, "[server]").with(silent),
            1,
            HTTP,
            &["no response within", "/bi/health-check` here", "raise `timeouts.token_exchange`"],
        ),
        row(
            "the server closes each connection",
            Plant::new(&url(closing), "").with(closing_task),
            1,
            HTTP,
            &["closed the connection without a response", "serves neither HTTP nor TLS"],
        ),
        row(
            "the port of another protocol",
            Plant::new(&url(ssh), "").with(ssh_task),
            1,
            HTTP,
            &["not in HTTP", "check the port"],
        ),
    ]
}

async fn in_the_url() -> Vec<Row> {
    let mut rows = Vec::new();
    for (fault, path) in [("the `url` lacks /bi", ""), ("the `url` has /bi twice", "/bi/bi")] {
        let (stand_in, _) = sound().await;
        let plant = Plant::new(&format!("http://{}{path}", stand_in.addr()), "")
            .shows(stand_in.addr(), "[server]")
            .with(stand_in);
        rows.push(row(fault, plant, 1, URL, &["but at /bi/api/site/site1/token", "/bi`"]));
    }
    rows.push(row(
        "the `url` lacks /bi, and the token endpoint hides from a GET",
        handled("", |request| match request.line() {
            "POST /bi/api/site/site1/token HTTP/1.1" => status(400, "Email address is empty"),
            _ => html("404 Not Found", "nginx"),
        })
        .await
        .edit("/bi\"", "\""),
        1,
        URL,
        &["but at /bi/api/site/site1/token"],
    ));
    rows
}

async fn in_front_of_bold_bi() -> Vec<Row> {
    let mut rows = Vec::new();
    let (stand_in, plant) = sound().await;
    let health = plant
        .edit("max_connections: 10 ", "max_connections: 10, health_check: { path: /healthz } ")
        .with(stand_in);
    rows.push(row(
        "the path of the health check is wrong",
        health,
        1,
        HEALTH,
        &["GET /healthz: status 404", "`health_check.path`"],
    ));
    for (fault, minutes, cause) in [
        ("the clock here is ten minutes slow", 10_i64, "the server's clock is 10 minutes ahead"),
        ("the clock here is ten minutes fast", -10, "the clock here is 10 minutes ahead"),
    ] {
        let upstream = Upstream::with_handler_for_all(move |_| {
            let now = OffsetDateTime::from(SystemTime::now());
            // Some seconds of the way, so that the whole minutes do not depend on the moment.
            let date = now + time::Duration::seconds(60 * minutes + 5 * minutes.signum());
            let date = date.format(&time::format_description::well_known::Rfc2822).unwrap();
            let body = r#"{"access_token":"canary-token","expires_in":3600}"#;
            let head = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {}", body.len());
            RawResponse { bytes: format!("{head}\r\n\r\n{body}").into_bytes(), keep: true }
        })
        .await;
        let plant = Plant::new(&format!("http://{}/bi", upstream.address), "").with(upstream);
        rows.push(row(fault, plant, 1, CLOCK, &[cause, "NTP"]));
    }
    rows.push(row(
        "the port redirects to https",
        handled("", |_| {
            "HTTP/1.1 301 Moved\r\nLocation: https://bi.example.com/bi?canary\r\nContent-Length: 0\r\n\r\n"
                .into()
        })
        .await,
        1,
        HTTP,
        &["redirected to `https://bi.example.com`", "set the server's `url` to `https://bi.example.com/bi`"],
    ));
    rows.push(row(
        "a token reply that breaks off",
        handled("", |request| {
            let whole = status(405, "POST alone");
            if request.line().starts_with("GET") {
                return whole;
            }
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec();
            RawResponse { bytes: half, keep: false }
        })
        .await
        .at_this_time(),
        1,
        EXCHANGE,
        &["in the middle of its response", "size limit"],
    ));
    rows.push(row(
        "the port of another web server",
        handled("", |_| html("404 Not Found", "nginx")).await,
        1,
        EXCHANGE,
        &["404, with a web page", "credential was not judged", "check the port", "in a browser"],
    ));
    rows.push(row(
        "the allow-list of Bold BI refuses this machine",
        handled("", |_| html("403 Forbidden", "Access Denied")).await,
        1,
        EXCHANGE,
        &["403", "blocked before", "POST from `127.0.0.1` to `/bi/api/site/site1/token`"],
    ));
    rows.push(row(
        "the proxy in front does not know the host",
        handled("", |_| status(421, "Misdirected Request")).await,
        1,
        EXCHANGE,
        &["421", "does not serve the host"],
    ));
    rows
}

async fn in_the_credential() -> Vec<Row> {
    let mut rows = Vec::new();
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "the wrong embed secret",
        plant.secret("canary-that-is-wrong").with(stand_in),
        1,
        EXCHANGE,
        &["the credential was refused", "embed secret is this site's"],
    ));
    rows.push(row(
        "the wrong password",
        with_password(UserSource::Local, "canary-that-is-wrong").await,
        1,
        EXCHANGE,
        &["the credential was refused", "the password is wrong"],
    ));
    rows.push(row(
        "a password for a user of single sign-on",
        with_password(UserSource::AzureAd, PASSWORD).await,
        1,
        EXCHANGE,
        &["(single sign-on): such a user needs the grant `embed_secret`"],
    ));
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "an unknown user",
        plant.edit(USER, "nobody@acme.example").with(stand_in),
        1,
        EXCHANGE,
        &["unknown user"],
    ));
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "the wrong site",
        plant.edit("site: site1", "site: Site1").with(stand_in),
        1,
        EXCHANGE,
        &["404, with a web page", "compare `site`", "upper and lower case"],
    ));
    let (stand_in, plant) = sound().await;
    let plant = plant.file("new", "canary-that-is-wrong");
    let new = plant.path("new");
    rows.push(row(
        "a new secret that is wrong",
        plant.arguments(&["acme", "--secret-file", &new]).with(stand_in),
        1,
        EXCHANGE,
        &["refuses the new secret from `/", "was not tried", "do not install this file"],
    ));
    let (stand_in, plant) = sound().await;
    rows.push(row(
        "a new secret whose file is missing",
        plant.arguments(&["acme", "--secret-file", "/nonexistent/new"]).with(stand_in),
        1,
        ("machine", "secret"),
        &["/nonexistent/new", "No such file"],
    ));
    rows
}

async fn in_bold_bi() -> Vec<Row> {
    let mut rows = Vec::new();
    for (fault, reply, step, cause) in [
        (
            "a sign-in page in place of the token endpoint",
            TokenReply::Html,
            EXCHANGE,
            &["it is a web page (HTML) in place of a token", "sign-in page"][..],
        ),
        (
            "a firewall in front of the token endpoint",
            raw(403, &[("Content-Type", "text/html")], "<html>Blocked</html>"),
            EXCHANGE,
            &["403", "firewall", "POST from `127.0.0.1`"],
        ),
        (
            "IIS asks for its own sign-in",
            raw(401, &[("WWW-Authenticate", "Negotiate")], ""),
            EXCHANGE,
            &["WWW-Authenticate", "requires its own sign-in"],
        ),
        (
            "a compressed token reply",
            raw(200, &[("Content-Encoding", "gzip")], "\u{1f}"),
            EXCHANGE,
            &["gzip", "switch off compression"],
        ),
        (
            "a token that lives for three thousand years",
            raw(200, &[], r#"{"access_token":"canary","expires_in":99999999999}"#),
            EXCHANGE,
            &["more than 100 years", "a proxy or a stub?"],
        ),
        (
            "a token whose life ended before it began",
            raw(200, &[], r#"{"access_token":"canary","expires_in":-60}"#),
            EXCHANGE,
            &["a lifetime below zero", "compare the clock here"],
        ),
    ] {
        let (stand_in, plant) = sound().await;
        stand_in.set_reply(reply);
        rows.push(row(fault, plant.with(stand_in), 1, step, cause));
    }
    rows.push(row(
        "the token endpoint redirects",
        handled("", |request| {
            if request.line().starts_with("POST") {
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: /login?canary\r\n\
                 Content-Length: 0\r\n\r\n"
                    .into()
            } else {
                status(405, "POST alone")
            }
        })
        .await,
        1,
        EXCHANGE,
        &["(307)", "it leads to `http://127.0.0.1:", "/login`", "exempt the token endpoint"],
    ));
    let of_joe = r#"{"access_token":"canary","expires_in":600,"email":"joe@acme.example"}"#;
    rows.push(row(
        "a token for another user",
        handled("", move |request| match request.line() {
            line if line.starts_with("POST") => status(200, of_joe),
            line if line.ends_with("/token HTTP/1.1") => status(405, "POST alone"),
            _ => status(200, "[]"),
        })
        .await,
        0,
        EXCHANGE,
        &["a token of `joe@acme.example`, another user than", "the gateway uses it"],
    ));
    let (stand_in, plant) = sound().await;
    stand_in.set_token_lifetime(Duration::from_secs(60));
    let short = plant.with(stand_in);
    rows.push(row(
        "a token that lives for a minute",
        short,
        0,
        EXCHANGE,
        &["lives for 60 seconds", "not urgent"],
    ));
    for (fault, status, cause) in [
        ("the token endpoint limits the rate", StatusCode::TOO_MANY_REQUESTS, "limits the rate"),
        ("the token endpoint cannot serve", StatusCode::SERVICE_UNAVAILABLE, "a proxy in front"),
    ] {
        let (stand_in, plant) = sound().await;
        // The first request is the one that looks for the token endpoint.
        stand_in.fail_next_token(status, 2);
        rows.push(row(fault, plant.with(stand_in), 1, EXCHANGE, &[cause]));
    }
    rows
}

async fn in_its_api() -> Vec<Row> {
    let mut rows = Vec::new();
    let claims = r#"{"aud":"https://bi.other.example/bi/site/site1","exp":4102444800}"#;
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims), encode("canary"));
    let body = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
    let (stand_in, plant) = sound().await;
    stand_in.set_reply(raw(200, &[], &body));
    rows.push(row(
        "the site has another URL, and its API accepts no token for this one",
        plant.with(stand_in),
        1,
        REQUEST,
        &["is for the site at `bi.other.example`, but", "*Site Domain*", "*Lock site URL*"],
    ));
    for (fault, status, cause) in [
        (
            "Bold BI does not accept its own token",
            StatusCode::UNAUTHORIZED,
            &["gave just now", "1. look for a proxy"][..],
        ),
        ("the user may not use the API", StatusCode::FORBIDDEN, &["may not use the API"]),
        (
            "the API is not published",
            StatusCode::NOT_FOUND,
            &["no such route", "publish all paths below `/bi/api/site/site1/`"],
        ),
        ("the API fails", StatusCode::BAD_GATEWAY, &["status 502", "health and logs"]),
    ] {
        let (stand_in, plant) = sound_for(UserSource::Local).await;
        stand_in.fail_next_api(status, 1);
        rows.push(row(fault, plant.with(stand_in), 1, REQUEST, cause));
    }
    rows
}

/// A server that responds to every request as `handler` says.
async fn handled(
    server: &str,
    handler: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
) -> Plant {
    let upstream = Upstream::with_handler_for_all(handler).await;
    Plant::new(&format!("http://{}/bi", upstream.address), server)
        .shows(upstream.address, "[server]")
        .with(upstream)
}

fn html(status: &str, text: &str) -> RawResponse {
    let body = format!("<html><body>{text}</body></html>");
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}");
    RawResponse { bytes: format!("{head}\r\n\r\n{body}").into_bytes(), keep: true }
}

fn raw(status: u16, headers: &[(&str, &str)], body: &str) -> TokenReply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let status = StatusCode::from_u16(status).unwrap();
    TokenReply::Raw { status, headers: headers.collect(), body: body.into() }
}

/// An address at which the kernel drops the packets of new connections: its queue is full.
async fn filtering() -> (SocketAddr, impl Sized + Send + 'static) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(listener.as_fd(), 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue is never full");
    }
    (address, (listener, queued))
}

/// A server that writes `text` to each connection, then closes it.
async fn responding(text: &'static str) -> (SocketAddr, impl Sized + Send + 'static) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                // Unread input would turn the end into a reset.
                let _ = stream.read(&mut [0; 4096]).await;
            });
        }
    });
    (address, task)
}
