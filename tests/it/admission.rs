//! The decision on a request as a whole, without a network: whatever a client spells, policy
//! decides on tenant and user.

use boldgate::caller::{Admits, ApiKey, ListenerTerms, PeerInfo};
use boldgate::config::Settings;
use boldgate::gateway::{Arrival, Gatekeeper};
use boldgate::request::{RawHead, RequestHead};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use crate::support::edit::Edit;

/// Three tenants by path, one by host; a caller who may use alpha alone, a proxy that names the
/// user.
fn gatekeeper(key: &ApiKey, proxy: &ApiKey) -> Gatekeeper {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "canary-secret").unwrap();
    let credential = format!(
        "credential: {{ grant: embed_secret, username: own@NAME.example, embed_secret: {{ file: {} }}, \
         user_source: azure_ad }}",
        secret.path().display()
    );
    let tenant = |name: &str, place: &str| {
        let credential = credential.edit("NAME", name);
        format!("  {name}: {{ server: main, {place}, {credential} }}\n")
    };
    let text = format!(
        "listeners: [ {{ address: \"127.0.0.1:0\", callers: required }} ]
servers: {{ main: {{ url: \"http://localhost/bi\" }} }}
tenants:
{}{}{}callers:
  portal:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: alpha, routes: [read, export, write, admin] }} ]
  proxy:
    api_key: {{ sha256: {} }}
    may:
      - tenant: alpha
        routes: [read]
        subject: {{ header: X-User, from: [192.0.2.1], domains: [acme.example], never: [admin@acme.example] }}
",
        tenant("alpha", "site: alpha"),
        tenant("beta", "site: beta"),
        tenant("gamma", "hosts: [gamma.example]"),
        key.hash(),
        proxy.hash(),
    );
    let settings = Settings::parse(&text, "test.yaml").unwrap_or_else(|why| panic!("{why}"));
    Gatekeeper::new(settings.caller_auth, settings.tenants, settings.policy, settings.throttles)
}

/// The caller and user that it is admitted for, if it is.
fn decide(
    gatekeeper: &Gatekeeper,
    method: &Method,
    target: &str,
    headers: &[(&str, String)],
) -> Option<(String, String, bool)> {
    let mut raw = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        raw.extend(format!("{name}: {value}\r\n").bytes());
    }
    raw.extend(b"\r\n");
    let raw = RawHead::read(&raw).ok()?;
    let head = RequestHead::parse(&raw).ok()?;
    let terms =
        ListenerTerms { admits: Admits::Known, hosts: None, trusted_proxies: None, ui: None };
    let peer = PeerInfo { address: Some([192, 0, 2, 1].into()), ..PeerInfo::default() };
    let Ok(Arrival::Request(arrived)) = gatekeeper.arrive(&terms, &peer, &head) else {
        return None;
    };
    let admitted = gatekeeper.admit(&terms, &peer, &head, arrived);
    let admitted = admitted.now_or_never().expect("it waits for nobody");
    let admission = admitted.ok()?;
    let (tenant, subject) = (admission.tenant().name.to_string(), admission.permit.subject());
    Some((tenant, subject.to_string(), admission.injects))
}

fn spelled(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(words).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

const PATHS: &[&str] = &[
    "/bi",
    "/api",
    "/site",
    "/alpha",
    "/beta",
    "/gamma",
    "/v5.0/dashboards",
    "/",
    "..",
    "%2e%2e",
    "%2f",
    "%5c",
    "\\",
    ";",
    "?",
    "#",
    "//",
    "/bi/api/site/alpha/v5.0/items",
    "/bi/api/site/beta/x",
    "/BI/API",
    "/Site",
    "/BETA",
    "%00",
    "http://gamma.example",
    "@",
    ":80",
];
const HOSTS: &[&str] = &[
    "localhost",
    "gamma.example",
    "GAMMA.example",
    ".",
    ":80",
    ",",
    "@",
    " ",
    "alpha",
    "beta",
    "[::1]",
    "%",
];
const USERS: &[&str] = &[
    "jane",
    "own",
    "admin",
    "@",
    "acme.example",
    "beta.example",
    ",",
    " ",
    ";",
    "\t",
    "\"",
    "ADMIN",
    ".",
    "%40",
];
/// Headers by which somebody, somewhere, tells another tenant or user.
const NAMES: &[&str] = &[
    "x-user",
    "X-User",
    "x_user",
    "x-user ",
    "x-forwarded-host",
    "x-forwarded-user",
    "x-original-url",
    "x-rewrite-url",
    "x-tenant",
    "x-site",
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "connection",
    "cookie",
    "authorization",
    "x-api-key",
    "x-auth-request-email",
    "host",
    "x-http-method-override",
    "origin",
    "via",
];

/// The objects that are read, changed and minted in turn.
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS];

type Case = (Method, String, String, Vec<(&'static str, String)>);

fn case() -> impl Strategy<Value = Case> {
    let plain = |text: &'static str| Just(text.to_owned());
    let target = prop_oneof![plain("/bi/api/site/alpha/v5.0/dashboards"), spelled(PATHS)];
    let host = prop_oneof![2 => plain("localhost"), 1 => spelled(HOSTS)];
    let value = prop_oneof![spelled(USERS), spelled(HOSTS), spelled(PATHS)];
    let header = (prop::sample::select(NAMES), value);
    let method = prop::sample::select(&METHODS[..]);
    (method, target, host, prop::collection::vec(header, 0..5))
}

/// 100,000 spellings of path, host and headers, to each of the two callers.
#[test]
fn no_spelling_reaches_another_tenant_or_user_than_policy_decided() {
    let (key, proxy) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let gatekeeper = gatekeeper(&key, &proxy);
    let mut admitted = 0;
    let config = ProptestConfig::with_cases(100_000);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counted = std::cell::RefCell::new(&mut admitted);
    runner
        .run(&case(), |(method, target, host, mut headers)| {
            headers.insert(0, ("host", host));
            // The strict parse refuses an invalid header before this step. Such a one names nobody.
            headers.retain(|(name, value)| {
                HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && HeaderValue::from_str(value).is_ok()
            });
            headers.push(("x-api-key", key.expose().to_owned()));
            if let Some((tenant, user, _)) = decide(&gatekeeper, &method, &target, &headers) {
                **counted.borrow_mut() += 1;
                prop_assert_eq!((tenant.as_str(), user.as_str()), ("alpha", "own@alpha.example"));
            }
            headers.pop();
            headers.push(("x-api-key", proxy.expose().to_owned()));
            if let Some((tenant, user, injects)) = decide(&gatekeeper, &method, &target, &headers) {
                let named: Vec<_> = headers
                    .iter()
                    .filter(|(name, _)| name.eq_ignore_ascii_case("x-user"))
                    .map(|(_, value)| value.trim())
                    .collect();
                prop_assert_eq!(&tenant, "alpha");
                prop_assert_eq!(named, [user.as_str()]);
                prop_assert!(user.to_lowercase().ends_with("@acme.example"));
                prop_assert_ne!(user.to_lowercase(), "admin@acme.example");
                prop_assert!(injects);
            }
            Ok(())
        })
        .unwrap();
    assert!(admitted > 5000, "the control: {admitted} were admitted");
}
