//! The audit log of a running gateway: the requests that get a line, and its fields.

use std::path::{Path, PathBuf};
use std::time::Duration;

use boldgate::caller::ApiKey;
use serde_json::Value;

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway, anonymous};
use crate::support::process::{Process, boldgate};
use crate::support::upstream::{
    CANARY_TOKEN, RawResponse, Request, Upstream, give_token, ok, status,
};
use crate::support::waiting::until;

/// A gateway with an audit log in a file, before a server that misbehaves as the site's name says.
struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    /// Of the callers, in their order.
    keys: [ApiKey; 3],
    folder: tempfile::TempDir,
}

const CALLERS: [&str; 3] = ["portal", "guest", "hasty"];
const SITES: [&str; 9] =
    ["good", "strict", "refused", "garbled", "down", "late", "broken", "silent", "revoked"];

fn misbehave(request: &Request) -> RawResponse {
    let site = request.path().split('/').nth(4).unwrap_or_default();
    let nothing = RawResponse { bytes: Vec::new(), keep: true };
    match (site, request.path().ends_with("/token")) {
        ("refused", true) | ("revoked", false) => status(401, "no"),
        ("garbled", true) => status(200, "no token"),
        ("down", true) => status(503, "no"),
        ("late", true) | ("silent", false) => nothing,
        (_, true) => give_token(request, 0),
        ("broken", false) => RawResponse { bytes: b"what?\r\n\r\n".to_vec(), keep: false },
        _ => ok("served"),
    }
}

impl Setup {
    async fn new() -> Self {
        let upstream = Upstream::with_handler_for_all(misbehave).await;
        let keys = [(); 3].map(|()| ApiKey::generate().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let (mut servers, mut tenants, mut may) = (String::new(), String::new(), String::new());
        for site in SITES.into_iter().chain(["away"]) {
            // Nobody listens at port 1.
            let url = match site {
                "away" => "http://127.0.0.1:1/bi".to_owned(),
                _ => format!("http://{}/bi", upstream.address),
            };
            let timeouts = "{ first_byte: 300ms, token_exchange: 300ms }";
            servers.push_str(&format!("  {site}: {{ url: \"{url}\", timeouts: {timeouts} }}\n"));
            let existing = if site == "strict" { "refuse" } else { "pass_through" };
            tenants.push_str(&format!(
                "  {site}:\n    server: {site}\n    site: {site}\n    existing_authorization: \
                 {existing}\n    credential:\n      grant: embed_secret\n      username: \
                 own@{site}.example\n      embed_secret: {{ file: SECRET_FILE }}\n      \
                 user_source: azure_ad\n"
            ));
            may.push_str(&format!("      - {{ tenant: {site}, routes: [read, write] }}\n"));
        }
        let gateway = Gateway::start(&format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required, hosts: [gw] }}
admin: {{ address: \"127.0.0.1:0\" }}
limits: {{ max_body: 1MiB, request_head_timeout: 500ms, body_timeout: 500ms }}
servers:
{servers}tenants:
{tenants}callers:
  portal:
    api_key: {{ sha256: {} }}
    may:
{may}  guest:
    api_key: {{ sha256: {} }}
    may:
      - {{ tenant: strict, routes: [read] }}
      - {{ tenant: good, routes: [read], subject: {{ header: X-User, from: [127.0.0.0/8], domains: [acme.example] }} }}
    may_not: [ {{ tenant: strict, methods: [DELETE] }} ]
  hasty:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: good, routes: [read] }} ]
    limits: {{ requests_per_second: 1 }}
audit: {{ to: \"{}\" }}
",
            keys[0].hash(),
            keys[1].hash(),
            keys[2].hash(),
            folder.path().join("audit.jsonl").display(),
        ));
        Self { upstream, gateway, keys, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    /// Sends a request: its first line, then more lines, then perhaps an empty one and a body, all
    /// of them apart by ` | `. What is in capitals is made long.
    async fn ask(&self, caller: &str, request: &str) -> Response {
        let unknown = ApiKey::generate().unwrap();
        let known = CALLERS.iter().position(|name| *name == caller);
        let key = known.map_or(&unknown, |index| &self.keys[index]).expose();
        let host = if caller == "elsewhere" { "elsewhere" } else { "gw" };
        let (first, rest) = request.split_once(" | ").unwrap_or((request, ""));
        let rest = rest.edit_any(" | | ", "\r\n\r\n");
        let end = if rest.contains("\r\n\r\n") { "" } else { "\r\n\r\n" };
        let end = if rest.is_empty() { "\r\n" } else { end };
        let text = format!("{first} HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {key}\r\n{rest}{end}");
        let many = format!("X-Many: {}\r\n", "a".repeat(4000)).repeat(40);
        let text = text.edit_any("LONG", &"a".repeat(20_000)).edit_any("MANY", many.trim_end());
        self.gateway.send(text.edit_any("LARGE", &"a".repeat(70_000))).await
    }
}

/// The lines of an audit log, as soon as there are `count`; more are a fault.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until(|| read().lines().count() >= count).await;
    // Another line would come with the next flush.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let text = read();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all.len(), count, "{text}");
    all
}

/// Asserts that a line has these values, and nothing where it is an empty text.
fn assert_says(line: &Value, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(line[*name].as_str().unwrap_or_default(), *value, "{name} of {line}");
    }
}

fn id(response: &Response) -> &str {
    response.header("x-request-id")[0]
}

/// Whose request: its line and what follows, then status and code of the refusal; then caller,
/// tenant, route class, permission and user of the audit line, with `-` where nothing was known.
type Case = (&'static str, &'static str, u16, &'static str, &'static str);

/// Refused before anything was sent to anybody.
const DECIDED: [Case; 15] = [
    ("portal", "GET /bi/api/site/good//x", 400, "request_refused", "- - - - -"),
    ("nobody", "GET /bi/api/site/good/v5.0/x", 401, "caller_unauthenticated", "- - - - -"),
    ("portal", "GET /bi/api/site/nowhere/x", 404, "tenant_unknown", "portal - - - -"),
    ("guest", "GET /bi/api/site/down/v5.0/x", 403, "caller_forbidden", "guest down read - -"),
    ("guest", "POST /bi/api/site/strict/v5.0/x", 403, "route_closed", "guest strict write - -"),
    (
        "guest",
        "DELETE /bi/api/site/strict/v5.0/x",
        403,
        "route_closed",
        "guest strict write may_not[0] -",
    ),
    (
        "guest",
        "GET /bi/api/site/good/v5.0/x | X-User: jane@evil.example",
        403,
        "subject_refused",
        "guest good read may[1] -",
    ),
    (
        "guest",
        "GET /bi/api/site/good/v5.0/x | X-User: jane@acme.example\r\nOrigin: https://evil.example",
        403,
        "origin_refused",
        "- good read - -",
    ),
    (
        "guest",
        "GET /bi/api/site/strict/v5.0/x | Authorization: Bearer canary-own",
        403,
        "authorization_refused",
        "guest strict read may[0] own@strict.example",
    ),
    (
        "hasty",
        "GET /bi/api/site/good/v5.0/x",
        429,
        "rate_limited",
        "hasty good read may[0] own@good.example",
    ),
    ("portal", "TRACE /", 405, "method_refused", "- - - - -"),
    ("portal", "GET /bi/api/site/good/LONG", 414, "target_too_long", "- - - - -"),
    ("portal", "GET /bi/api/site/good/v5.0/x | MANY", 431, "headers_too_large", "- - - - -"),
    (
        "portal",
        "POST /bi/api/site/good/v5.0/x | Content-Length: 9999999",
        413,
        "body_too_large",
        "portal good write may[0] own@good.example",
    ),
    ("elsewhere", "GET /bi/api/site/good/v5.0/x", 421, "host_refused", "- - - - -"),
];

/// Refused for something behind the gateway.
const FAILED: [Case; 10] = [
    (
        "portal",
        "POST /bi/api/site/good/v5.0/x | Content-Length: 10 | | half",
        408,
        "request_timeout",
        "portal good write may[0] own@good.example",
    ),
    (
        "portal",
        "GET /bi/api/site/refused/v5.0/x",
        502,
        "credential_refused",
        "portal refused read may[2] own@refused.example",
    ),
    // The second refusal comes from the remembered failure.
    (
        "portal",
        "GET /bi/api/site/refused/v5.0/x",
        502,
        "credential_refused",
        "portal refused read may[2] own@refused.example",
    ),
    (
        "portal",
        "GET /bi/api/site/garbled/v5.0/x",
        502,
        "token_reply_unusable",
        "portal garbled read may[3] own@garbled.example",
    ),
    (
        "portal",
        "GET /bi/api/site/down/v5.0/x",
        503,
        "token_endpoint_unavailable",
        "portal down read may[4] own@down.example",
    ),
    (
        "portal",
        "GET /bi/api/site/late/v5.0/x",
        504,
        "token_endpoint_timeout",
        "portal late read may[5] own@late.example",
    ),
    (
        "portal",
        "GET /bi/api/site/broken/v5.0/x",
        502,
        "upstream_invalid",
        "portal broken read may[6] own@broken.example",
    ),
    (
        "portal",
        "GET /bi/api/site/silent/v5.0/x",
        504,
        "upstream_timeout",
        "portal silent read may[7] own@silent.example",
    ),
    (
        "portal",
        "POST /bi/api/site/revoked/v5.0/x | Content-Length: 70000 | | LARGE",
        502,
        "body_not_replayable",
        "portal revoked write may[8] own@revoked.example",
    ),
    // With a token of the client's own, the user is not known to the gateway.
    (
        "portal",
        "GET /bi/api/site/away/v5.0/x | Authorization: Bearer canary-own",
        502,
        "upstream_unreachable",
        "portal away read may[9] -",
    ),
];

/// The line of a refusal says what the case does.
fn assert_told(line: &Value, response: &Response, case: &Case) {
    let (_, request, status, code, known) = case;
    let known: Vec<_> = known.split(' ').map(|word| word.trim_matches('-')).collect();
    let [caller, tenant, class, permission, subject] = known[..] else { panic!("{known:?}") };
    let grant = if tenant.is_empty() { "" } else { "embed_secret" };
    let fields = [
        ("event", "refusal"),
        ("request.id", id(response)),
        ("boldgate.outcome", code),
        ("boldgate.caller", caller),
        ("boldgate.tenant", tenant),
        ("boldgate.route_class", class),
        ("boldgate.permission", permission),
        ("boldgate.subject", subject),
        ("boldgate.grant", grant),
        ("client.address", "127.0.0.1"),
    ];
    assert_says(line, &fields);
    assert_eq!(line["http.response.status_code"], *status);
    if !caller.is_empty() {
        let (method, path) = request.split(" | ").next().unwrap().split_once(' ').unwrap();
        assert_says(line, &[("http.request.method", method), ("url.path", path)]);
    }
}

#[tokio::test]
async fn each_refusal_has_one_line_with_all_known_facts_and_an_admitted_request_has_none() {
    let setup = Setup::new().await;
    // The control: the one line is that of the exchange, all other requests find its token.
    for caller in ["portal", "portal", "hasty"] {
        let response = setup.ask(caller, "GET /bi/api/site/good/v5.0/dashboards").await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(lines(&setup.path(), 1).await[0]["event"], "exchange");

    let cases: Vec<_> = DECIDED.into_iter().chain(FAILED).collect();
    let mut responses = Vec::new();
    for (caller, request, status, code, _) in &cases {
        let response = setup.ask(caller, request).await;
        assert_eq!((response.status, response.code().as_str()), (*status, *code), "{request}");
        responses.push(response);
    }
    // Of good, refused, garbled, down, late, broken, silent, revoked.
    let exchanges = 8;
    let mut all = lines(&setup.path(), exchanges + cases.len()).await;
    all.retain(|line| line["event"] != "exchange");
    assert_eq!(all.len(), cases.len());
    for ((line, response), case) in all.iter().zip(&responses).zip(&cases) {
        assert_told(line, response, case);
    }
    let text = std::fs::read_to_string(setup.path()).unwrap();
    for secret in ["canary", setup.keys[0].expose(), CANARY_SECRET, CANARY_TOKEN] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn the_line_of_an_exchange_names_the_request_that_began_it_and_its_user() {
    let setup = Setup::new().await;
    let jane = "GET /bi/api/site/good/v5.0/x | X-User: jane@acme.example";
    let first = setup.ask("guest", jane).await;
    assert_eq!((first.status, setup.ask("guest", jane).await.status), (200, 200));
    let joe = setup.ask("guest", &jane.edit("jane", "joe")).await;
    // Bold BI refuses this token and the next one, so there are two exchanges.
    let revoked = setup.ask("portal", "GET /bi/api/site/revoked/v5.0/x").await;
    assert_eq!((joe.status, revoked.status), (200, 401));

    let all = lines(&setup.path(), 4).await;
    for (line, (response, purpose, caller, by, tenant, user)) in all.iter().zip([
        (&first, "request", "guest", "may[1]", "good", "jane@acme.example"),
        (&joe, "request", "guest", "may[1]", "good", "joe@acme.example"),
        (&revoked, "request", "portal", "may[8]", "revoked", "own@revoked.example"),
        (&revoked, "replacement", "portal", "may[8]", "revoked", "own@revoked.example"),
    ]) {
        assert_says(
            line,
            &[
                ("event", "exchange"),
                ("request.id", id(response)),
                ("boldgate.purpose", purpose),
                ("boldgate.caller", caller),
                ("boldgate.permission", by),
                ("boldgate.tenant", tenant),
                ("boldgate.subject", user),
                ("boldgate.grant", "embed_secret"),
                ("boldgate.outcome", "granted"),
            ],
        );
        assert_eq!(line["boldgate.token_lifetime"], 3600);
        assert!(line["boldgate.exchange_duration"].as_f64().unwrap() > 0.0);
    }
    let tokens = setup.upstream.seen.requests().len();
    assert!(tokens > 4, "the exchanges and the requests were seen: {tokens}");
}

#[tokio::test]
async fn without_an_audit_section_there_is_no_audit_log_and_anonymous_lines_name_no_caller() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let config = anonymous(upstream.address);
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.get("/bi/api/site/site1/v5.0/items").await.status, 200);
    assert!(!path.exists());

    let gateway = Gateway::start(&format!("{config}audit: {{ to: \"{}\" }}\n", path.display()));
    assert_eq!(gateway.get("/bi/api/site/site1/v5.0/items").await.status, 200);
    let all = lines(&path, 1).await;
    assert_says(&all[0], &[("boldgate.caller", ""), ("boldgate.permission", "anonymous")]);
}

#[tokio::test]
async fn a_log_that_is_moved_away_goes_on_under_its_name_and_no_line_is_lost() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new().await;
    let (path, moved) = (setup.path(), setup.folder.path().join("audit.jsonl.1"));
    let mut client = Client::connect(setup.gateway.address()).await;
    let mut refused = async |count: usize| {
        for _ in 0..count {
            client.write(b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n").await;
            assert_eq!(client.response().await.status, 401);
        }
    };
    refused(100).await;
    lines(&path, 100).await;
    std::fs::rename(&path, &moved).unwrap();
    refused(50).await;
    assert_eq!(lines(&path, 50).await.len() + lines(&moved, 100).await.len(), 150);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(setup.gateway.telemetry.render().contains("boldgate_audit_log_lines_lost_total 0"));
}

#[tokio::test]
async fn an_audit_log_that_cannot_be_opened_keeps_the_gateway_from_starting() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/audit.jsonl");
    let config =
        format!("{}audit: {{ to: \"{}\" }}\n", anonymous(upstream.address), path.display());
    let Err(error) = Gateway::try_start(&config) else { panic!("it starts") };
    let expected = format!("cannot write the audit log to `{}` (`audit.to`): ", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    std::fs::create_dir(folder.path().join("no")).unwrap();
    Gateway::try_start(&config).unwrap_or_else(|error| panic!("{error}"));
}

/// Names of callers and users are text of other people, and paths come from clients.
#[tokio::test]
async fn no_name_and_no_path_makes_a_line_of_its_own() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let long = "u".repeat(10 * 1024);
    // Invisible characters are refused with the configuration.
    let quotes = "own\\\"},{\\\"event\\\":\\\"exchange\\\"}";
    for username in [quotes, "\\u00fc\\u0301{}\\\\", &long] {
        let config = anonymous(upstream.address)
            .edit("username: reports@acme.example", &format!("username: \"{username}\""));
        let config = format!("{config}audit: {{ to: \"{}\" }}\n", path.display());
        let gateway = Gateway::start(&config);
        assert_eq!(gateway.get("/bi/api/site/site1/v5.0/items").await.status, 200);
        let long = format!("/bi/api/site/none/{}", "%22%0a".repeat(500));
        assert!(gateway.get(&long).await.status >= 400);
        let all = lines(&path, 2).await;
        assert_says(&all[0], &[("event", "exchange"), ("boldgate.outcome", "granted")]);
        let subject = all[0]["boldgate.subject"].as_str().unwrap();
        assert!(subject.starts_with(['o', '\u{fc}', 'u']), "{subject}");
        assert_eq!(all[1]["event"], "refusal");
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            assert!(line.len() < 2 * 1024 && !line.contains(char::is_control), "{line}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_writes_every_audit_line_to_stdout_among_its_access_lines() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| crate::support::files::write(&folder, name, text);
    let secret = write("secret", CANARY_SECRET);
    let config = anonymous(upstream.address).edit("SECRET_FILE", &secret);
    let config = write("gateway.yaml", &format!("{config}audit: {{ to: stdout }}\n"));
    let process = Process::serve(&config);
    let ready = process.log().into_iter().find(|line| line["message"] == "boldgate is ready");
    assert_eq!(ready.unwrap()["audit"], "stdout");
    let mut client = Client::connect(process.address()).await;
    for (path, status) in [("/bi/api/site/site1/v5.0/items", 200), ("/bi/api/site/none", 404)] {
        client.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        assert_eq!(client.response().await.status, status);
    }
    process.signal(rustix::process::Signal::TERM);
    drop(client);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let all: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut events: Vec<_> = all.iter().map(|line| line["event"].as_str().unwrap()).collect();
    events.sort_unstable();
    assert_eq!(events, ["access", "access", "exchange", "refusal"]);

    // `check`, `explain` and `token` write no audit line, and make no file.
    let path = folder.path().join("audit.jsonl");
    let text = std::fs::read_to_string(&config).unwrap();
    let to = format!("to: \"{}\"", path.display());
    let config = write("file.yaml", &text.edit("to: stdout", &to));
    let url = "http://localhost/bi/api/site/none";
    for (arguments, code) in [
        (vec!["check", &config], 0),
        (vec!["explain", "GET", url, "--config", &config], 1),
        (vec!["token", "acme", "--config", &config], 0),
    ] {
        let ended = Process::start(boldgate(&arguments)).end();
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(!path.exists(), "{arguments:?}");
    }
    let process = Process::serve(&config);
    assert!(path.exists(), "it is there from the start");
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().code, Some(0));
}
