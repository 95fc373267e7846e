//! The meaning of an `Authorization`: nothing, a key of ours, or the client's own credential for
//! Bold BI.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::support::gateway::{Gateway, config};
use crate::support::two_callers::{
    ALPHA_KEY, BETA_KEY, GOOD, Setup, assert_token_of, get_with, hex,
};
use crate::support::upstream::Upstream;

/// Values without any credential.
const EMPTY: [&str; 18] = [
    "",
    " ",
    "Bearer",
    "bearer",
    "BEARER ",
    "Bearer   ",
    "Bearer \t ",
    "Basic",
    "basic ",
    "Digest",
    "Negotiate",
    "NTLM",
    "ApiKey",
    "Token",
    "OAuth",
    "DPoP",
    "HOBA",
    "SCRAM-SHA-256",
];

#[tokio::test]
async fn an_empty_authorization_counts_as_none() {
    for (tenant, own) in [("", 200), ("    existing_authorization: refuse\n", 403)] {
        let upstream = Upstream::echo().await;
        let gateway = Gateway::start(&config(upstream.address, tenant));
        for value in EMPTY {
            let response = gateway.send(anonymous(value)).await;
            assert_eq!(response.status, 200, "{value:?}: {}", response.text());
            assert_token_of(&upstream.seen.take()[0], "site1");
        }
        // Bold BI's own keys come bare, and a scheme that is not known may be such a key.
        for value in
            ["dGhpcyBpcyBhIGtleQ==", "a-key-of-bold-bi", "Basics", "Basic eDp5", "Bearer x"]
        {
            let response = gateway.send(anonymous(value)).await;
            assert_eq!(response.status, own, "{value}: {}", response.text());
            for seen in upstream.seen.take() {
                assert_eq!(seen.header("authorization"), [value]);
            }
        }
    }
}

fn anonymous(authorization: &str) -> String {
    format!(
        "GET /bi/api/site/site1/v5.0/dashboards HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: {authorization}\r\n\r\n"
    )
}

fn with(authorization: &str) -> String {
    format!("GET {GOOD} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n")
}

/// Every place of a header value in which a client may put a key of ours.
fn positions(key: &str) -> [String; 14] {
    [
        key.to_owned(),
        format!("Bearer {key}"),
        format!("bearer   {key}"),
        format!("ApiKey {key}"),
        format!("Basic {key}"),
        format!("Unheard-Of {key}"),
        format!("Bearer\t{key}"),
        format!("ApiKey key={key}"),
        format!("ApiKey key=\"{key}\", realm=x"),
        format!("Token token='{key}'"),
        format!("Bearer x, Bearer {key}"),
        format!("user:{key}"),
        // As `curl --user` sends it.
        format!("Basic {}", STANDARD.encode(format!("user:{key}"))),
        format!("basic  {}", STANDARD.encode(format!("{key}:"))),
    ]
}

#[tokio::test]
async fn a_value_of_the_form_of_our_api_keys_is_never_forwarded() {
    let expired = "bgk_canary-key-of-the-past";
    let setup = Setup::with(&format!(
        "  gone:\n    api_key: {{ sha256: \"{}\", expires: \"2020-01-01T00:00:00Z\" }}\n    \
         may: [ {{ tenant: alpha, routes: [read] }} ]\n",
        hex(digest(&SHA256, expired.as_bytes()).as_ref())
    ))
    .await;
    for key in ["bgk_canary-unknown", "bgk_", expired, &ALPHA_KEY[..ALPHA_KEY.len() - 1]] {
        for value in positions(key) {
            let code = setup.assert_refused(with(&value), &[401]).await.code();
            assert_eq!(code, "caller_unauthenticated", "{value}");
            // Beside another credential it is refused as well, and not forwarded as the client's
            // own.
            let lines = format!("Authorization: {value}\r\n");
            setup.assert_refused(get_with(GOOD, &lines), &[401]).await;
        }
    }
    setup.assert_serves().await;
    let lines = setup.gateway.access_lines(4 * 28 + 1).await;
    let of = |reason| lines.iter().filter(|line| line["boldgate.reason"] == reason).count();
    // Where it can only be a key, it is compared with the keys, and found expired.
    assert_eq!((of("key_expired"), of("key_unknown")), (14, 98));
}

#[tokio::test]
async fn our_api_key_is_accepted_in_authorization_and_not_forwarded() {
    let setup = Setup::new().await;
    for value in [
        ALPHA_KEY.to_owned(),
        format!("Bearer {ALPHA_KEY}"),
        format!("bearer  {ALPHA_KEY} "),
        format!("ApiKey {ALPHA_KEY}"),
    ] {
        let response = setup.gateway.send(with(&value)).await;
        assert_eq!(response.status, 200, "{value}: {}", response.text());
        let seen = &setup.upstream.seen.take()[0];
        assert_token_of(seen, "alpha");
        assert!(!seen.head.contains("bgk_"), "{}", seen.head);
    }
    // It must belong to the same caller as any other credential; otherwise the request has no
    // caller.
    let lines = |key| format!("Authorization: Bearer {key}\r\n");
    assert_eq!(setup.gateway.send(get_with(GOOD, &lines(ALPHA_KEY))).await.status, 200);
    setup.assert_refused(get_with(GOOD, &lines(BETA_KEY)), &[401]).await;
}

/// Where everybody is let in no key is needed, but one that is sent is ours all the same.
#[tokio::test]
async fn an_anonymous_listener_does_not_forward_our_api_key_either() {
    let upstream = Upstream::echo().await;
    let key = "bgk_canary-key-of-somebody";
    let callers = format!(
        "callers:\n  somebody:\n    api_key: {{ sha256: \"{}\" }}\n    \
         may: [ {{ tenant: acme, routes: [read] }} ]\n  anonymous:\n    \
         may: [ {{ tenant: acme, routes: [read] }} ]\n",
        hex(digest(&SHA256, key.as_bytes()).as_ref())
    );
    let gateway = Gateway::start(&(config(upstream.address, "") + &callers));
    for value in positions("bgk_canary-unknown") {
        let response = gateway.send(anonymous(&value)).await;
        assert_eq!(
            (response.status, &*response.code()),
            (401, "caller_unauthenticated"),
            "{value}"
        );
    }
    upstream.seen.assert_untouched("keys that are not known");
    let response = gateway.send(anonymous(&format!("Bearer {key}"))).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = &upstream.seen.take()[0];
    assert_token_of(seen, "site1");
    assert!(!seen.head.contains("bgk_"), "{}", seen.head);
    assert!(gateway.access_lines(15).await[14].get("boldgate.caller").is_none());
}

/// Clients of Bold BI's own keys and of MCP send the key as a name or a password, too.
#[tokio::test]
async fn a_key_in_basic_counts_for_callers_that_say_so_and_for_no_others() {
    let agent = "bgk_canary-key-of-an-agent";
    let setup = Setup::with(&format!(
        "  agent:\n    api_key: {{ sha256: \"{}\" }}\n    api_key_in_authorization: true\n    \
         may: [ {{ tenant: alpha, routes: [read] }} ]\n",
        hex(digest(&SHA256, agent.as_bytes()).as_ref())
    ))
    .await;
    let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
    for value in [
        agent.to_owned(),
        format!("Bearer {agent}"),
        format!("Basic {agent}"),
        basic(format!("user:{agent}")),
        basic(format!(":{agent}")),
        basic(format!("{agent}:")),
        format!("BASIC {}", STANDARD.encode(format!("user:{agent}"))),
    ] {
        let response = setup.gateway.send(with(&value)).await;
        assert_eq!(response.status, 200, "{value}: {}", response.text());
        let seen = &setup.upstream.seen.take()[0];
        assert_token_of(seen, "alpha");
        assert_eq!(seen.header("authorization").len(), 1);
        assert!(!seen.head.contains("bgk_") && !seen.head.contains("Basic"), "{}", seen.head);
    }
    let unpadded = basic(format!("user:{agent}")).trim_end_matches('=').to_owned();
    for value in [
        // Of another caller.
        basic(format!("user:{ALPHA_KEY}")),
        basic(format!("{ALPHA_KEY}:")),
        // Two readers could read these in two ways, or they are no key.
        basic(format!("{agent}:{agent}")),
        basic(format!("{agent}:{ALPHA_KEY}")),
        basic(format!("{agent}:x")),
        basic(format!("user:x{agent}")),
        basic(format!("user:{agent}x")),
        basic(format!("user:{agent} ")),
        basic(format!("user:{agent}:")),
        format!("Basic  {}", STANDARD.encode(format!("user:{agent}"))),
        format!("{}, Basic eDp5", basic(format!("user:{agent}"))),
    ]
    .into_iter()
    .chain((unpadded.len() % 4 != 0).then_some(unpadded))
    {
        setup.assert_refused(with(&value), &[401]).await;
    }
    setup.assert_serves().await;
}
