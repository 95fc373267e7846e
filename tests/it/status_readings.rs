//! The readings of the status API: each state is provoked, and shown in words. None of them shows a
//! secret.

use std::sync::Arc;
use std::time::Duration;

use boldgate::boldbi::{BoldBi, UserSource};
use boldgate::caller::ApiKey;
use boldgate::config::Settings;
use boldgate::run::Running;
use boldgate::status::SAMPLE_PERIOD;
use boldgate::telemetry::LogLevel;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::admin::{ask, problems, read_json};
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous, get};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::process::Process;
use crate::support::reloads::{ACME, two_sites};
use crate::support::stand_in::{site, stand_in};
use crate::support::upstream::{Upstream, dead_address, ok, status};
use crate::support::waiting::becomes;

const OFF: &str = "admin: { address: \"127.0.0.1:0\" }";
const ON: &str = "admin: { address: \"127.0.0.1:0\", status: true }";
const PATIENCE: Duration = Duration::from_secs(10);

async fn read(gateway: &Gateway, path: &str) -> Value {
    read_json(gateway.running.admin_address(), path).await
}

async fn problems_of(running: &Running) -> Vec<String> {
    problems(running.admin_address()).await
}

#[tokio::test]
async fn a_gateway_without_faults_has_no_problems() {
    let mut acme = site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let stand_in = stand_in(vec![acme]).await;
    let gateway = Gateway::start(&anonymous(stand_in.addr()).edit(OFF, ON));
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_eq!(problems_of(&gateway.running).await, [""; 0]);
    let overview = read(&gateway, "/api/v1/status").await;
    assert_eq!(overview["version"], boldgate::telemetry::VERSION);
    assert_eq!(overview["log_level"], "info");
    for path in ["certificates", "issuers", "reloads"] {
        let empty = read(&gateway, &format!("/api/v1/{path}")).await;
        assert_eq!(empty[path].as_array().unwrap().len(), 0, "{path}");
    }
}

#[tokio::test]
async fn requests_are_sampled_for_the_gateway_its_servers_and_its_tenants() {
    let upstream = Upstream::with_handler(|request| {
        if request.path().ends_with("/fails") { status(500, "no") } else { ok("yes") }
    })
    .await;
    let config = anonymous(upstream.address);
    let idle = "  idle:\n    server: main\n    site: site2\n    credential:\n      grant: embed_secret\n      \
                username: a@b.example\n      embed_secret: { file: SECRET_FILE }\n      user_source: csv\n";
    let gateway = Gateway::start(&format!("{}{idle}", config.edit(OFF, ON)));
    let before = read(&gateway, "/api/v1/tenants").await;
    assert!(before["tenants"][0]["samples"].is_null());
    for path in [PATH, PATH, "/bi/api/site/site1/v5.0/fails"] {
        gateway.get(path).await;
    }
    tokio::time::pause();
    tokio::time::advance(SAMPLE_PERIOD).await;
    tokio::time::resume();
    let sampled = async || read(&gateway, "/api/v1/status").await["samples"].clone();
    becomes(PATIENCE, "a sample is taken", async || sampled().await["requests"][0] == 3).await;
    let tenants = read(&gateway, "/api/v1/tenants").await;
    let acme = &tenants["tenants"][0]["samples"];
    assert_eq!((&acme["requests"], &acme["failed"]), (&[3].into(), &[1].into()));
    assert_eq!(acme["period_seconds"], 10);
    assert!(tenants["tenants"][1]["samples"].is_null(), "without traffic");
    let server = read(&gateway, "/api/v1/servers").await["servers"][0]["samples"].clone();
    assert_eq!((&server["requests"], &server["failed"]), (&[3].into(), &[1].into()));
    assert!(server["p95_ms"][0].as_f64().unwrap() > 0.0, "{server}");
    assert!(server["mean_ms"][0].as_f64().unwrap() > 0.0, "{server}");
}

#[tokio::test]
async fn a_tenant_has_the_source_of_its_user_and_the_reason_why_it_is_disabled() {
    let gateway = Gateway::start(&anonymous(dead_address()).edit(OFF, ON));
    let tenant = async || read(&gateway, "/api/v1/tenants").await["tenants"][0].clone();
    let shown = tenant().await;
    assert_eq!(
        (&shown["user_source"], &shown["grant"]),
        (&"azure_ad".into(), &"embed_secret".into())
    );
    assert!(shown["disabled_by"].is_null());
    gateway.running.gateway().set_enabled("acme", false).unwrap();
    let shown = tenant().await;
    assert_eq!((&shown["state"], &shown["disabled_by"]), (&"disabled".into(), &"operator".into()));
    let expected =
        "warning tenants: 1 of 1 tenants (acme): disabled by an operator until a restart";
    assert_eq!(problems_of(&gateway.running).await, [expected]);
    let found = read(&gateway, "/api/v1/tenants?state=disabled").await;
    assert_eq!(found["found"], 1);
    assert_eq!(read(&gateway, "/api/v1/tenants?state=ok").await["found"], 0);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_problem_with_its_addresses_and_its_breaker() {
    let mut text = anonymous(dead_address()).edit(OFF, ON);
    for index in 0..5 {
        text += &format!(
            "  t{index}:\n    server: main\n    site: s{index}\n    credential:\n      grant: embed_secret\n      \
             username: u@x.example\n      embed_secret: {{ file: SECRET_FILE }}\n      user_source: local\n"
        );
    }
    let gateway = Gateway::start(&text);
    for index in 0..5 {
        gateway.get(&format!("/bi/api/site/s{index}/v5.0/items")).await;
    }
    let found = problems_of(&gateway.running).await;
    let tenants = "failing tenants: 3 of 6 tenants (t0, t1, t2): the last exchange failed";
    let breaker = "failing servers: server main: the breaker of its token endpoint is open";
    assert!(found.contains(&tenants.to_owned()), "{found:?}");
    assert!(found.contains(&breaker.to_owned()), "{found:?}");
    let own = format!("GET {PATH} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer own\r\n\r\n");
    gateway.send(own).await;
    let found = problems_of(&gateway.running).await;
    let ejected = "failing servers: server main: all addresses are ejected";
    assert!(found.contains(&ejected.to_owned()), "{found:?}");
    let server = read(&gateway, "/api/v1/servers").await["servers"][0].clone();
    assert_eq!((&server["breaker_open"], &server["requests_waiting"]), (&true.into(), &0.into()));
}

#[tokio::test]
async fn the_log_level_is_a_problem_while_an_operator_has_changed_it() {
    let gateway = Gateway::start(&anonymous(dead_address()).edit(OFF, ON));
    gateway.telemetry.log_level.set(LogLevel::Debug, "a test");
    let found = problems_of(&gateway.running).await;
    assert_eq!(
        found,
        ["warning overview: the log level is debug until a restart; configured: info"]
    );
}

/// A configuration with a caller whose JWTs are verified with these keys.
fn with_issuer(upstream: &Upstream, keys: &str) -> String {
    let callers = format!(
        "callers:\n  portal:\n    jwt: {{ issuer: https://login.example.com/, audience: boldgate, \
         algorithms: [EdDSA], {keys} }}\n    may: [ {{ tenant: acme, routes: [read] }} ]\n"
    );
    let text = anonymous(upstream.address).edit(OFF, ON);
    format!("{}{callers}", text.edit("callers: anonymous", "callers: required"))
}

#[tokio::test]
async fn an_issuer_is_shown_with_its_keys_and_the_error_of_the_last_fetch() {
    let (upstream, provider) = (Upstream::echo().await, Provider::new());
    let file = format!("jwks_file: {}", provider.jwks.path().display());
    let away = format!("jwks_url: \"http://{}/keys\"", dead_address());
    let keys = provider.jwks();
    let served = Upstream::with_handler_for_all(move |_| ok(&keys)).await;
    let there = format!("jwks_url: \"http://{}/keys\"", served.address);
    let away_with_file = format!("{away}, {file}");
    for (keys, before, after, count, problem) in [
        (&file, "fixed", "fixed", 1, None),
        (&there, "never_fetched", "fetched", 1, None),
        (&away, "never_fetched", "no_keys", 0, Some("failing issuers: caller portal: no key of")),
        (
            &away_with_file,
            "fallback",
            "fallback",
            1,
            Some("warning issuers: caller portal: keys of"),
        ),
    ] {
        let gateway = Gateway::start(&with_issuer(&upstream, keys));
        let issuer = async || read(&gateway, "/api/v1/issuers").await["issuers"][0].clone();
        assert_eq!(issuer().await["state"], before, "{keys}");
        get(&gateway, &bearer(&provider.token(|_| ()))).await;
        let failed = |of: &Value| of["fetches"]["failed"].as_u64() > Some(0);
        let is_away = problem.is_some();
        becomes(PATIENCE, "it was fetched", async || failed(&issuer().await) == is_away).await;
        let shown = issuer().await;
        assert_eq!((&shown["state"], &shown["keys"]), (&after.into(), &count.into()), "{keys}");
        assert_eq!(
            (&shown["caller"], &shown["issuer"]),
            (&"portal".into(), &"https://login.example.com/".into())
        );
        assert_eq!(shown["fetched_at"].is_string(), after == "fetched", "{shown}");
        let cause = shown["last_failure"]["cause"].as_str().unwrap_or_default();
        assert_eq!(cause.contains("refused"), is_away, "{shown}");
        let found = problems_of(&gateway.running).await;
        match problem {
            Some(problem) => assert!(found[0].starts_with(problem), "{found:?}"),
            None => assert_eq!(found, [""; 0]),
        }
    }
}

/// A certificate for `gw.example` and its key, valid until so many days from now; below it in the
/// same file one that is valid for a day more.
fn certificate(files: &Files, days: i64) {
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = |name: &str, days| {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(90);
        params.not_after = now + time::Duration::days(days) + time::Duration::hours(1);
        params.self_signed(&key).unwrap().pem()
    };
    files.write("tls.crt", &format!("{}{}", pem("gw.example", days), pem("ca.example", days + 1)));
    files.write("tls.key", &key.serialize_pem());
}

#[tokio::test]
async fn certificates_and_api_keys_are_shown_with_the_time_that_they_have_left() {
    let upstream = Upstream::echo().await;
    let hash = ApiKey::generate().unwrap().hash().to_string();
    for (days, state, left, problem) in [
        (90, "ok", 90, None),
        (
            3,
            "expiring",
            3,
            Some(
                "warning certificates: a certificate of listeners[0].tls.certificate_file expires in 3 days",
            ),
        ),
        (
            -2,
            "expired",
            -2,
            Some(
                "failing certificates: a certificate of listeners[0].tls.certificate_file has expired",
            ),
        ),
    ] {
        let files = Files::new();
        certificate(&files, days);
        let folder = files.0.path().display();
        let tls = format!(
            "callers: required, tls: {{ certificate_file: {folder}/tls.crt, key_file: {folder}/tls.key }}"
        );
        let text = anonymous(upstream.address).edit(OFF, ON).edit("callers: anonymous", &tls);
        let caller = format!(
            "callers:\n  batch:\n    api_key: {{ sha256: {hash}, expires: \"2099-01-31T00:00:00Z\" }}\n    \
             may: [ {{ tenant: acme, routes: [read] }} ]\n"
        );
        let gateway = Gateway::start(&format!("{text}{caller}"));
        let list = read(&gateway, "/api/v1/certificates").await;
        let shown = &list["certificates"][0];
        assert_eq!((&shown["subject"], &shown["number"]), (&"gw.example".into(), &1.into()));
        assert_eq!(shown["validity"]["state"], state, "{shown}");
        assert_eq!(shown["validity"]["days_left"], left, "{shown}");
        assert_eq!(list["certificates"][1]["number"], 2);
        let key = &list["api_keys"][0];
        assert_eq!((&key["caller"], &key["validity"]["state"]), (&"batch".into(), &"ok".into()));
        let all = list.to_string();
        assert!(!all.contains(&hash) && !all.contains(&hash[..8]), "{all}");
        assert_eq!(problems_of(&gateway.running).await, Vec::from_iter(problem));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_are_shown_with_their_trigger_their_outcome_and_their_findings() {
    let (upstream, files) = (two_sites().await, Files::new());
    let good = files.config(&upstream, &["acme"], "").edit(OFF, ON);
    files.write("boldgate.yaml", &good);
    let gateway = files.serve();
    let admin = gateway.ready().1;
    let last = async || read_json(admin, "/api/v1/reloads").await["reloads"][0].clone();
    let ended = async |outcome: &str| {
        becomes(PATIENCE, outcome, async || last().await["outcome"] == outcome).await;
        last().await
    };
    assert!(last().await.is_null());
    gateway.signal(Signal::HUP);
    let unchanged = ended("unchanged").await;
    assert_eq!((&unchanged["trigger"], &unchanged["generation"]), (&"signal".into(), &Value::Null));

    files.swap_in("boldgate.yaml", &good.edit("user_source: local", "user_source: nowhere"));
    let refused = ended("refused").await;
    let finding = refused["findings"][0].as_str().unwrap();
    assert!(finding.contains("tenants.acme.credential.user_source"), "{finding}");
    assert_eq!(refused["trigger"], "files");
    let expected = "warning reloads: the changed configuration is refused; the former one stays, and a restart would fail";
    assert_eq!(problems(admin).await, [expected]);

    let added = files.config(&upstream, &["acme", "bolt"], "limits: { max_connections: 100 }\n");
    files.swap_in("boldgate.yaml", &added.edit(OFF, ON));
    let applied = ended("applied").await;
    assert_eq!(applied["generation"], 2);
    assert_eq!(applied["findings"], serde_json::json!(["limits.max_connections: needs a restart"]));
    let expected =
        "warning reloads: new values of these keys need a restart: limits.max_connections";
    assert_eq!(problems(admin).await, [expected]);
    let all = read_json(admin, "/api/v1/reloads").await;
    assert_eq!(all["reloads"].as_array().unwrap().len(), 3, "{all}");
    let config = read_json(admin, "/api/v1/config?tenant=bolt").await;
    assert_eq!((&config["generation"], &config["config"]["site"]), (&2.into(), &"site2".into()));

    std::fs::remove_file(files.path("boldgate.yaml")).unwrap();
    std::fs::create_dir(files.path("boldgate.yaml")).unwrap();
    becomes(PATIENCE, "it is noticed", async || {
        problems(admin).await[0].starts_with("warning reloads")
    })
    .await;
    drop(gateway);
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_with_defaults_and_tenants_one_by_one() {
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::start(&anonymous(upstream.address).edit(OFF, ON));
    let config = read(&gateway, "/api/v1/config").await;
    assert_eq!(config["config"]["servers"]["main"]["timeouts"]["connect"], "10s");
    assert!(config["config"].get("tenants").is_none());
    let tenant = read(&gateway, "/api/v1/config?tenant=acme").await;
    assert_eq!((&tenant["tenant"], &tenant["config"]["site"]), (&"acme".into(), &"site1".into()));
    assert_eq!(tenant["config"]["credential"]["username"], "***");
    assert!(tenant["config"]["credential"]["embed_secret"]["file"].is_string());
    let admin = gateway.running.admin_address();
    let unknown = ask(admin, "GET", "/api/v1/config?tenant=canary-tenant").await;
    assert_eq!(unknown.status, 404);
    assert!(!unknown.text().contains("canary"), "{}", unknown.text());
    assert_eq!(ask(admin, "GET", "/api/v1/config?file=/etc/passwd").await.status, 400);

    // A reload replaces it.
    let next = anonymous(upstream.address).edit(OFF, ON).edit("site: site1", "site: other");
    let next = next.edit("{ file: SECRET_FILE }", "{ file: tests/config/secret }");
    let settings = Settings::parse(&next, "test.yaml").unwrap();
    let exchange = Arc::new(BoldBi::new(settings.servers.iter()).unwrap());
    gateway.running.reload(settings, exchange).unwrap();
    let tenant = read(&gateway, "/api/v1/config?tenant=acme").await;
    assert_eq!((&tenant["generation"], &tenant["config"]["site"]), (&2.into(), &"other".into()));
}

/// Everything that a GET can ask the admin listener for.
const PATHS: [&str; 15] = [
    "/",
    "/page.css",
    "/page.js",
    "/livez",
    "/readyz",
    "/metrics",
    "/api/v1/status",
    "/api/v1/tenants",
    "/api/v1/tenants?search=canary&state=failing",
    "/api/v1/servers",
    "/api/v1/certificates",
    "/api/v1/issuers",
    "/api/v1/reloads",
    "/api/v1/config",
    "/api/v1/config?tenant=acme",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_user_of_the_configuration_is_shown_by_any_path() {
    let files = Files::new();
    let upstream = Upstream::with_handler_for_all(|_| status(400, "canary-reply")).await;
    for name in ["canary-embed", "jwt"] {
        files.write(name, "canary-secret-of-at-least-thirty-two-bytes");
    }
    let key = ApiKey::generate().unwrap();
    let hash = ApiKey::generate().unwrap().hash().to_string();
    let (key, own) = (key.expose().to_owned(), key.hash().to_string());
    files.write("key", &key);
    let folder = files.0.path().display().to_string();
    let text = SECRETS.edit_all("DIR", &folder).edit("HASH", &hash);
    files.write("boldgate.yaml", &text.edit("UPSTREAM", &upstream.address.to_string()));
    let gateway = Process::serve(files.path("boldgate.yaml").to_str().unwrap());
    let (addresses, admin) = gateway.ready();
    let address = addresses[0].parse().unwrap();
    let mut client = crate::support::client::Client::connect(address).await;
    let request = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n");
    client.write(request.as_bytes()).await;
    assert_eq!(client.response().await.status, 502, "the exchange fails, and is recorded");
    // The former file, and a refused one with a secret in a wrong place.
    let wrong =
        text.edit("UPSTREAM", "canary-host").edit("env: CANARY", "canary-key: canary-value");
    files.swap_in("boldgate.yaml", &wrong);
    let refused =
        async || read_json(admin, "/api/v1/reloads").await["reloads"][0]["outcome"] == "refused";
    becomes(PATIENCE, "the change is refused", refused).await;
    let digests = [hash.as_str(), &hash[..16], &own[..16], &key];
    for path in PATHS {
        let response = ask(admin, "GET", path).await;
        assert_eq!(response.status, 200, "{path}");
        // A file's name may be shown, but no secret.
        let shown = response.text().edit_any(&folder, "");
        for secret in
            digests.iter().chain(&["canary-secret", "canary-user", "canary-reply", "canary-value"])
        {
            assert!(!shown.contains(secret), "{path} shows {secret}: {shown}");
        }
    }
}

const SECRETS: &str = "
listeners: [ { address: \"127.0.0.1:0\", callers: required } ]
admin: { address: \"127.0.0.1:0\", status: true }
servers: { main: { url: \"http://UPSTREAM/bi\" } }
tenants:
  acme:
    server: main
    site: site1
    credential:
      grant: embed_secret
      username: canary-user@acme.example
      embed_secret: { file: DIR/canary-embed }
      user_source: local
  globex:
    server: main
    site: site2
    credential:
      grant: password
      username: canary-user@globex.example
      password: { env: CANARY }
      user_source: local
callers:
  batch:
    api_keys: [ { key: { file: DIR/key } }, { sha256: HASH, expires: \"2099-01-31T00:00:00Z\" } ]
    may: [ { tenant: acme, routes: [read] } ]
  portal:
    jwt: { issuer: i, audience: a, algorithms: [HS256], secret: { file: DIR/jwt } }
    may:
      - tenant: acme
        routes: [read]
        subject: { claim: email, map: { canary-user: canary-user@acme.example }, never: [canary-user@b.example] }
";
