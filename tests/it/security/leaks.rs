//! Secrets must show nowhere: the real program at its most talkative, every class of failure, and
//! then all that it has written is searched for canaries.

use std::fmt::Write as _;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::CANARY_SECRET;
use crate::support::two_callers::{self, ALPHA_KEY, READER_KEY, hex};
use crate::support::upstream::{RawResponse, Request, Upstream, give_token, ok, status};

const PASSWORD: &str = "canary-password \u{e9}&%+";
/// Stands in every request that could show it.
const PLANTED: &str = "canary-planted";

/// With what every canary begins.
const MARK: &str = "canary-";

/// LEK-01: what of a canary shows in `text`, be it plain, in upper case, reversed, URL-encoded, in
/// hexadecimal or Base64.
fn canary_in(text: &str) -> Option<String> {
    let hex = hex(MARK.as_bytes());
    let mut forms = vec![
        MARK.to_owned(),
        MARK.chars().rev().collect(),
        MARK.replace('-', "%2d"),
        MARK.bytes().fold(String::new(), |all, b| all + &format!("%{b:02x}")),
        // As `{:?}` of bytes shows them.
        MARK.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(", "),
        hex,
    ];
    let lower = text.to_lowercase();
    forms.retain(|form| lower.contains(form));
    // Base64 has three forms of a text, by its offset in the bytes; only whole characters are
    // compared.
    for before in 0..3 {
        let encoded = STANDARD.encode(["x".repeat(before), MARK.to_owned()].concat());
        let whole = &encoded[(before * 8).div_ceil(6)..(before + MARK.len()) * 8 / 6];
        if text.contains(whole) {
            forms.push(whole.to_owned());
        }
    }
    forms.pop()
}

#[test]
fn the_search_for_canaries_finds_each_form() {
    let secret = CANARY_SECRET;
    let reversed: String = secret.chars().rev().collect();
    let hex = hex(secret.as_bytes());
    for text in [
        format!("x={secret}"),
        secret.to_uppercase(),
        reversed,
        secret.replace('-', "%2D"),
        hex.to_uppercase(),
        hex,
        format!("{:?}", secret.as_bytes()),
        STANDARD.encode(secret),
        STANDARD.encode(format!("x{secret}")),
        STANDARD.encode(format!("xy{secret}")),
    ] {
        assert!(canary_in(&text).is_some());
    }
    assert_eq!(canary_in("a canary that sings, ca-na-ry"), None);
}

/// The program, serving.
struct Program {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Program {
    fn serve(config: &std::path::Path, format: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_boldgate"))
            .args(["--log-level", "trace", "--log-format", format, "serve", "--config"])
            .arg(config)
            // Variables that make libraries log must not make them log here.
            .env("RUST_LOG", "trace")
            .env("SSLKEYLOGFILE", config.with_file_name("keys.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            copy(child.stdout.take().unwrap(), Arc::clone(&out)),
            copy(child.stderr.take().unwrap(), Arc::clone(&err)),
        ];
        Self { child, out, err, readers }
    }

    /// The addresses of the gateway and of the admin endpoints, once it says that it is ready.
    async fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let said = |field: &str| {
            let log = self.err.lock().unwrap().clone();
            // `"admin":"127.0.0.1:1"` in JSON, `admin=127.0.0.1:1` in text.
            let start = log.split(field).nth(1)?.trim_start_matches(['"', ':', '=']).to_owned();
            let end = start.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?;
            start[..end].parse().ok()
        };
        let both = async {
            loop {
                if let (Some(gateway), Some(admin)) = (said("address"), said("admin")) {
                    return (gateway, admin);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), both).await;
        found.unwrap_or_else(|_| panic!("it does not start: {}", self.err.lock().unwrap()))
    }

    /// Ends it in order. All that it has written: the access log, the log.
    fn stop(mut self) -> (String, String) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let text = |of: &Mutex<String>| of.lock().unwrap().clone();
        (text(&self.out), text(&self.err))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy(
    mut from: impl Read + Send + 'static,
    to: Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    })
}

/// Responds exchanges and requests as the name of the site says; nearly all of it repeats what it
/// was sent.
fn misbehave(request: &Request) -> RawResponse {
    let site = request.path().split('/').nth(4).unwrap_or_default().to_owned();
    let sent =
        format!("{} {}", request.head.escape_debug(), String::from_utf8_lossy(&request.body));
    let raw = |text: String| RawResponse { bytes: text.into_bytes(), keep: false };
    let reply = |kind: &str, body: &str| {
        let length = body.len();
        raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    if request.path().ends_with("/token") {
        return match site.as_str() {
            "refused" => status(400, &sent),
            "forbidden" => status(401, &format!(r#"{{"error":"{sent}"}}"#)),
            "html" => reply("text/html", &format!("<html>{sent}")),
            "fails" => status(500, &sent),
            "busy" => status(503, &sent),
            "json" => reply("application/json", &format!(r#"{{"error":"{PLANTED}","x":"{sent}""#)),
            "wordy" => reply("application/json", r#"{"access_token":"canary-token with\nlines"}"#),
            "expired" => reply(
                "application/json",
                r#"{"access_token":"canary-token-old","expires_in":"canary-time"}"#,
            ),
            "redirect" => raw(format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{PLANTED}.example/{PLANTED}\r\n\
                 Content-Length: 0\r\n\r\n"
            )),
            "garbled" => raw(format!("{sent}\r\n\r\n")),
            "header" => raw(format!("HTTP/1.1 200 OK\r\n{PLANTED} {sent}\r\n\r\n")),
            "closes" => raw(String::new()),
            _ => give_token(request, 0),
        };
    }
    let authorization = request.header("authorization").join(",");
    let path = request.path().split('?').next().unwrap_or_default();
    match path.rsplit('/').next().unwrap_or_default() {
        "garbled" => raw(format!("{authorization}\r\n\r\n")),
        "badline" => raw(format!("HTTP/1.1 {authorization}\r\n\r\n")),
        "badheader" => raw(format!("HTTP/1.1 200 OK\r\nX {authorization}\r\n\r\n")),
        "badlength" => raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {PLANTED}\r\n\r\n")),
        "badchunk" => {
            raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{authorization}\r\n"))
        }
        "short" => raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{authorization}")),
        "switches" => raw(format!("HTTP/1.1 101 {authorization}\r\n\r\n")),
        "closes" => raw(String::new()),
        "unauthorised" => status(401, &authorization),
        "error" => status(500, &authorization),
        "silent" => {
            std::thread::sleep(Duration::from_millis(700));
            raw(String::new())
        }
        _ => ok(&authorization),
    }
}

const SITES: [&str; 13] = [
    "good",
    "refused",
    "forbidden",
    "html",
    "fails",
    "busy",
    "json",
    "wordy",
    "expired",
    "redirect",
    "garbled",
    "header",
    "closes",
];
const ROUTES: [&str; 12] = [
    "x",
    "garbled",
    "badline",
    "badheader",
    "badlength",
    "badchunk",
    "short",
    "switches",
    "closes",
    "unauthorised",
    "error",
    "silent",
];

/// Every site with both grants, on a server that answers as above; one on a server that is not
/// there.
async fn config(upstream: SocketAddr, folder: &std::path::Path) -> String {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (secret, password) = (write("secret", CANARY_SECRET), write("password", PASSWORD));
    let mut text = two_callers::config(
        upstream,
        "",
        "limits: { request_head_timeout: 500ms, max_body: 1KiB }\n",
    );
    text = text.edit_all("SECRET_FILE", &format!("\"{secret}\""));
    let mut tenants = String::new();
    for (number, site) in SITES.into_iter().chain(["nowhere"]).enumerate() {
        let server = if site == "nowhere" { "away" } else { "main" };
        let grant = if number % 2 == 0 {
            format!(
                "grant: password\n      password: {{ file: \"{password}\" }}\n      user_source: local"
            )
        } else {
            format!(
                "grant: embed_secret\n      embed_secret: {{ file: \"{secret}\" }}\n      \
                 user_source: azure_ad"
            )
        };
        let form = if number % 3 == 0 { "\n      token_request: json" } else { "" };
        write!(
            tenants,
            "  {site}:\n    server: {server}\n    site: {site}\n    credential:\n      \
             username: reports@example.com\n      {grant}{form}\n"
        )
        .unwrap();
    }
    let away = format!("  away: {{ url: \"http://{closed}/bi\" }}\n");
    let main = format!("main: {{ url: \"http://{upstream}/bi\"");
    let slow = format!("{main}, timeouts: {{ read: 300ms, token_exchange: 5s }}");
    let text = text.edit(&main, &slow);
    let text = text.edit("tenants:\n", &format!("{away}tenants:\n{tenants}"));
    let may: Vec<_> = SITES
        .into_iter()
        .chain(["nowhere", "alpha"])
        .map(|site| format!("{{ tenant: {site}, routes: [read, write] }}"))
        .collect();
    text.edit("{ tenant: alpha, routes: [read] }", &may.join(", "))
}

/// Requests with canaries wherever something can be planted.
fn requests() -> Vec<String> {
    let planted = format!(
        "X-Planted: {PLANTED}\r\nCookie: {PLANTED}\r\nUser-Agent: {PLANTED}\r\nReferer: {PLANTED}\r\n\
         X-Request-Id: {PLANTED}\r\nX-Forwarded-For: {PLANTED}\r\n"
    );
    let with = |first: &str, key: &str, lines: &str, body: &str| {
        format!("{first}\r\nHost: localhost\r\n{planted}{key}{lines}\r\n{body}")
    };
    let key = format!("X-Api-Key: {READER_KEY}\r\n");
    let get = |site: &str, route: &str| {
        format!("GET /bi/api/site/{site}/v5.0/{route}?q={PLANTED} HTTP/1.1")
    };
    let mut all = Vec::new();
    for site in SITES.into_iter().chain(["nowhere", "unknown", "beta"]) {
        all.push(with(&get(site, "x"), &key, "", ""));
    }
    let own = format!("Authorization: Bearer {PLANTED}\r\n");
    for route in ROUTES {
        all.push(with(&get("good", route), &key, "", ""));
        all.push(with(&get("good", route), &key, &own, ""));
        let post = get("good", route).edit("GET", "POST");
        all.push(with(&post, &key, "Content-Length: 14\r\n", PLANTED));
    }
    let good = get("good", "x");
    all.push(with(&good, &format!("X-Api-Key: {PLANTED}\r\n"), "", ""));
    all.push(with(&good, "", "", ""));
    all.push(with(&good, &format!("{key}X-Api-Key: {PLANTED}\r\n"), "", ""));
    all.push(with(&good, &key, &format!("{own}{own}"), ""));
    all.push(with(&format!("GET /bi/api/site/good//x?q={PLANTED} HTTP/1.1"), &key, "", ""));
    all.push(with(&format!("GET /bi/api/site/good/x#{PLANTED} HTTP/1.1"), &key, "", ""));
    // The path of a refused request is logged, as every path is: up to the query.
    for query in ["?", "#", "%3F", "%253f"] {
        let target = format!("/bi/api/site/good/../x{query}{PLANTED}");
        all.push(with(&format!("GET {target} HTTP/1.1"), &key, "", ""));
    }
    all.push(with(&format!("GET http://{PLANTED}/x HTTP/1.1"), &key, "", ""));
    all.push(with(&format!("{PLANTED} /x HTTP/1.1"), &key, "", ""));
    all.push(with(&format!("GET /x HTTP/{PLANTED}"), &key, "", ""));
    all.push(with(&good, &key, &format!("{PLANTED} broken\r\n"), ""));
    all.push(with(&good, &key, &format!("X: {PLANTED}\0\r\n"), ""));
    all.push(with(&good, &key, &format!("X: {PLANTED}\n"), ""));
    all.push(with(&good, &key, &format!("Connection: \"{PLANTED}\"\r\n"), ""));
    all.push(with(&good, &key, &format!("Content-Length: {PLANTED}\r\n"), ""));
    all.push(with(&good, &key, &format!("Transfer-Encoding: {PLANTED}\r\n"), ""));
    all.push(with(&good, &key, &format!("Host: {PLANTED}\r\n"), ""));
    all.push(with(&good, &key, &format!("X: {}\r\n", PLANTED.repeat(6_000)), ""));
    all.push(with(&good, &key, &format!("X: {}\r\n", PLANTED.repeat(100_000)), ""));
    let post = good.edit("GET", "POST");
    all.push(with(&post, &key, "Content-Length: 9999\r\n", PLANTED));
    all.push(with(
        &post,
        &key,
        "Transfer-Encoding: chunked\r\n",
        &format!("{PLANTED}\r\n{PLANTED}"),
    ));
    all.push(with(&post, &key, "Transfer-Encoding: chunked\r\n", &format!("5\r\n{PLANTED}\r\n")));
    // A head without an end.
    all.push(format!("{good}\r\nX-Planted: {PLANTED}"));
    all
}

/// LEK-01, LEK-02, LEK-03
#[tokio::test]
async fn nothing_secret_shows_in_logs_metrics_or_refusals() {
    for format in ["json", "text"] {
        let upstream = Upstream::with_handler_for_all(misbehave).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        let audit_file = folder.path().join("audit.jsonl");
        let mut text = config(upstream.address, folder.path()).await;
        writeln!(text, "audit: {{ to: \"{}\" }}", audit_file.display()).unwrap();
        std::fs::write(&path, text).unwrap();
        let program = Program::serve(&path, format);
        let (gateway, admin) = program.addresses().await;

        let (mut served, mut refused) = (0, std::collections::BTreeSet::new());
        let requests = requests();
        for request in &requests {
            let mut client = Client::connect(gateway).await;
            client.write(request.as_bytes()).await;
            let Some(response) = client.try_response(false).await else { continue };
            let code = response.code();
            if code.is_empty() {
                // The server's own response may show anything to its client.
                served += 1;
                continue;
            }
            let all = format!("{}{}", response.head, response.text());
            assert_eq!(canary_in(&all), None, "the refusal of {}", request.escape_debug());
            assert_eq!(response.header("server"), [""; 0], "{all}");
            assert!(!all.to_lowercase().contains("pingora"), "{all}");
            refused.insert(code);
        }
        // The control: tokens were fetched and put on, and each kind of failure has happened.
        assert!(served > 8, "{served}");
        let kinds = [
            "request_refused",
            "caller_unauthenticated",
            "caller_forbidden",
            "tenant_unknown",
            "method_refused",
            "headers_too_large",
            "body_too_large",
            "request_timeout",
            "credential_refused",
            "token_reply_unusable",
            "token_endpoint_unavailable",
            "upstream_invalid",
            "upstream_timeout",
        ];
        for kind in kinds {
            assert!(refused.contains(kind), "no `{kind}` among {refused:?}");
        }

        let mut client = Client::connect(admin).await;
        client
            .write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        let metrics = client.response().await.text();
        assert!(metrics.contains(r#"tenant="refused""#) && canary_in(&metrics).is_none());
        drop(client);

        let keys = folder.path().join("keys.log");
        let (access, log) = program.stop();
        assert!(!keys.exists(), "LEK-09: no TLS secrets are written");
        assert!(access.lines().count() >= requests.len() - 3, "every request has its line");
        assert!(log.contains("credential_refused"), "the log tells of what failed");
        let audit = std::fs::read_to_string(&audit_file).unwrap();
        let lines: Vec<Value> =
            audit.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(lines.iter().any(|line| line["boldgate.outcome"] == "granted"), "{audit}");
        if format == "json" {
            let access = access.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let told: Vec<_> = lines.iter().filter(|line| line["event"] == "refusal").collect();
            let mut refusals = 0;
            for line in access.filter(|line| line.get("boldgate.refusal").is_some()) {
                refusals += 1;
                let same = told.iter().filter(|told| told["request.id"] == line["request.id"]);
                let same: Vec<_> = same.collect();
                assert_eq!(same.len(), 1, "{line}");
                assert_eq!(same[0]["boldgate.outcome"], line["boldgate.refusal"]);
                for name in ["boldgate.tenant", "boldgate.caller", "url.path", "client.address"] {
                    assert_eq!(same[0][name], line[name], "{name}");
                }
            }
            assert_eq!(told.len(), refusals, "refusals, and nothing else");
        }
        for (what, text) in [("access log", access), ("log", log), ("audit log", audit)] {
            for line in text.lines() {
                assert_eq!(canary_in(line), None, "in the {what}: {line}");
                assert!(!line.contains("?q="), "a query in the {what}");
            }
        }
        // Control: the canaries were there to be found.
        let seen = upstream.seen.requests();
        assert!(seen.iter().any(|r| String::from_utf8_lossy(&r.body).contains(CANARY_SECRET)));
        assert!(seen.iter().any(|r| r.head.contains("Bearer canary-token-good")));
        assert!(canary_in(ALPHA_KEY).is_some());
    }
}
