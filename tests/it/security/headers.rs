//! Headers that claim to be somebody else's.

use crate::support::edit::Edit;
use crate::support::gateway::Gateway;
use crate::support::two_callers::{
    ALPHA_KEY, BETA_KEY, GOOD, Setup, assert_token_of, config, get_with,
};
use crate::support::upstream::{Request, Upstream, ok};

/// All that the server gets of a request of ours, by name.
const OURS: [&str; 6] = [
    "host",
    "authorization",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
];

/// The one request that reached the server, after one that was sent with these lines and served.
async fn through(setup: &Setup, lines: &str) -> Request {
    let response = setup.gateway.send(get_with(GOOD, lines)).await;
    assert_eq!(response.status, 200, "{lines}\n{}", response.text());
    let mut seen = setup.upstream.seen.take();
    assert_eq!(seen.len(), 1, "{lines}");
    seen.remove(0)
}

/// The header lines of a request, read as the most lenient server would: names in lower case, `_`
/// and `.` as `-`.
fn leniently(request: &Request) -> Vec<(String, String)> {
    let lines = request.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| {
            let name = name.trim().to_ascii_lowercase().replace(['_', '.'], "-");
            (name, value.trim().to_owned())
        })
        .collect()
}

/// HDR-01, HDR-06, HDR-07: headers of the client about its identity, address or target are not
/// forwarded in any spelling. Ours are, once.
#[tokio::test]
async fn forwarding_headers_never_come_from_the_client() {
    let setup = Setup::new().await;
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Server",
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Forwarded-Client-Cert",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Original-Host",
        "X-Original-For",
        "X-Original-Proto",
        "X-Original-Prefix",
        "X-Rewrite-URL",
        "X-Replaced-Path",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Host",
        "X-ARR-ClientCert",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "Proxy-Authorization",
        "Proxy-Connection",
        "X-Request-Id",
    ];
    for name in names {
        let spellings = [
            name.to_owned(),
            name.to_ascii_lowercase(),
            name.to_ascii_uppercase(),
            name.replace('-', "_"),
            name.replacen('-', "_", 1),
            name.replace('-', "."),
        ];
        for name in spellings {
            // Our own key is not repeated here: that would be one key too many.
            let lines = format!("{name}: evil.example\r\n");
            let request = through(&setup, &lines).await;
            assert!(!request.head.contains("evil.example"), "{name}\n{}", request.head);
            let seen = leniently(&request);
            for ours in OURS {
                let count = seen.iter().filter(|(name, _)| name == ours).count();
                assert_eq!(count, 1, "{ours}, with {name} sent\n{}", request.head);
            }
            assert_eq!(request.header("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(request.header("x-forwarded-proto"), ["http"]);
            assert_eq!(request.path(), GOOD);
            assert_token_of(&request, "alpha");
        }
    }
    let request = through(&setup, "X-Custom: kept\r\n").await;
    assert_eq!(request.header("x-custom"), ["kept"]);
}

/// Headers in which proxies, gateways and web servers name the user to an application. We believe
/// none of them, but a proxy between us and Bold BI might.
#[tokio::test]
async fn identity_headers_of_the_client_are_forwarded_in_no_spelling() {
    let setup = Setup::new().await;
    let names = [
        // Certificates: nginx, HAProxy, Apache, IIS and Azure, RFC 9440, AWS, Traefik.
        "X-SSL-Client-Cert",
        "X-SSL-Client-S-DN",
        "X-SSL-Cert",
        "SSL-Client-Cert",
        "SSL-Client-Verify",
        "SSL-Client-Subject-DN",
        "X-Client-Cert",
        "X-Client-Cert-Chain",
        "X-Client-Certificate",
        "X-Client-DN",
        "X-Client-Verify",
        "X-Client-Subject-DN",
        "X-TLS-Client-Cert",
        "MS-ASPNETCORE-CLIENTCERT",
        "MS-ASPNETCORE-WINAUTHTOKEN",
        "MS-ASPNETCORE-TOKEN",
        "X-ARR-ClientCert",
        "X-ARR-SSL",
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Amzn-Mtls-Clientcert",
        "X-Amzn-Mtls-Clientcert-Leaf",
        "X-Amzn-Mtls-Clientcert-Subject",
        // Users: App Service, AWS, Google, Cloudflare, Tailscale, CGI, and proxies where people
        // sign in.
        "X-MS-Client-Principal",
        "X-MS-Client-Principal-Id",
        "X-MS-Client-Principal-Name",
        "X-MS-Token-AAD-Access-Token",
        "X-Amzn-Oidc-Identity",
        "X-Amzn-Oidc-Data",
        "X-Goog-IAP-JWT-Assertion",
        "X-Goog-Authenticated-User-Email",
        "Cf-Access-Jwt-Assertion",
        "Cf-Access-Authenticated-User-Email",
        "Tailscale-User-Login",
        "Remote-User",
        "Remote-Email",
        "Remote-Groups",
        "X-Remote-User",
        "X-Remote-Group",
        "X-Auth-Request-User",
        "X-Auth-Request-Email",
        "X-Authenticated-User",
        "X-Authenticated-Userid",
        "X-Authentik-Username",
        "X-Pomerium-Claim-Email",
        "X-Pomerium-Jwt-Assertion",
        "X-Vouch-User",
        "X-WebAuth-User",
        "X-Consumer-Username",
        "X-Credential-Identifier",
        "X-Endpoint-API-UserInfo",
        "OIDC-Claim-Email",
    ];
    for name in names {
        for name in [name.to_owned(), name.to_ascii_lowercase(), name.replace('-', "_")] {
            let request = through(&setup, &format!("{name}: evil.example\r\n")).await;
            assert!(!request.head.contains("evil.example"), "{name}\n{}", request.head);
            assert_token_of(&request, "alpha");
        }
    }
    // Headers that clients of Bold BI and of APIs send, and tracing.
    for name in [
        "X-Custom",
        "X-Requested-With",
        "X-Amzn-Trace-Id",
        "X-Correlation-Id",
        "ClientID",
        "Client-Type",
        "IsEmbed",
        "LocaleSettings",
        "Caller",
        "X-MS-Request-Id",
        "X-Tls",
        "Remote",
    ] {
        let request = through(&setup, &format!("{name}: kept\r\n")).await;
        assert_eq!(request.header(name), ["kept"], "{name}");
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = through(&setup, &format!("traceparent: {trace}\r\n")).await;
    assert_eq!(request.header("traceparent"), [trace]);
}

/// HDR-01: an alias of the header for keys is no key, and does not go on.
#[tokio::test]
async fn an_alias_of_the_key_header_is_neither_a_key_nor_forwarded() {
    let setup = Setup::new().await;
    for alias in ["X_Api_Key", "X-Api_Key", "X.Api.Key", "X-Api-Key-", "XApiKey"] {
        let lines = format!("Host: localhost\r\n{alias}: {ALPHA_KEY}\r\n");
        setup.assert_refused(format!("GET {GOOD} HTTP/1.1\r\n{lines}\r\n"), &[401]).await;
    }
    for alias in ["X_Api_Key", "X-Api_Key", "X.Api.Key"] {
        let request = through(&setup, &format!("{alias}: {BETA_KEY}\r\n")).await;
        assert!(!request.head.contains(BETA_KEY), "{alias}\n{}", request.head);
    }
    let request = through(&setup, "").await;
    assert!(!request.head.contains(ALPHA_KEY) && request.header("x-api-key").is_empty());
}

/// HDR-03: what `Connection` names is taken away before ours is put on, never after, and policy
/// has seen the request with it.
#[tokio::test]
async fn the_connection_header_removes_nothing_that_policy_or_the_gateway_has_set() {
    let setup = Setup::new().await;
    for connection in [
        "close, Authorization, X-Tenant",
        "authorization",
        "AUTHORIZATION, Host, X-Forwarded-For, X-Forwarded-Proto",
        "Content-Length, Transfer-Encoding, x-request-id",
        "X-Api-Key",
    ] {
        let lines = format!("Connection: {connection}\r\nX-Tenant: beta\r\n");
        let request = through(&setup, &lines).await;
        for ours in OURS {
            assert_eq!(request.header(ours).len(), 1, "{connection}\n{}", request.head);
        }
        assert_token_of(&request, "alpha");
        assert_eq!(request.header("connection"), [""; 0]);
    }
    let body = format!(
        "POST {GOOD} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {ALPHA_KEY}\r\n\
         Connection: content-length\r\nContent-Length: 3\r\n\r\nabc"
    );
    assert_eq!(setup.gateway.send(body).await.status, 200);
    assert_eq!(setup.upstream.seen.take()[0].body, b"abc", "its framing is not taken away");
    // A key that is repeated on the connection proves no less.
    let lines = format!("Host: localhost\r\nConnection: X-Api-Key\r\nX-Api-Key: {BETA_KEY}\r\n");
    setup.assert_refused(format!("GET {GOOD} HTTP/1.1\r\n{lines}\r\n"), &[403]).await;
    setup.assert_serves().await;
}

/// HDR-04
#[tokio::test]
async fn a_connection_header_that_names_no_headers_or_too_many_is_refused() {
    let setup = Setup::new().await;
    setup.assert_serves().await;
    for connection in [
        "\"X-Forwarded-For\"",
        ":authority",
        "a b",
        "a,b,c,d,e,f,g,h,i,j,k,l",
        "a,b,c,d,e,f\r\nConnection: g,h,i,j,k,l",
        "x\u{e9}",
    ] {
        setup
            .assert_refused(get_with(GOOD, &format!("Connection: {connection}\r\n")), &[400])
            .await;
    }
    setup.assert_serves().await;
}

/// HDR-05: with `replace`, the server gets ours whatever the client brings; by default it gets the
/// client's own; in both cases exactly one.
#[tokio::test]
async fn exactly_one_authorization_reaches_the_server() {
    for replace in [true, false] {
        let upstream = Upstream::echo().await;
        let tenant = if replace { "    existing_authorization: replace\n" } else { "" };
        let gateway = Gateway::start(&config(upstream.address, tenant, ""));
        let setup = Setup { upstream, gateway };
        for name in ["Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATION"] {
            for value in ["Bearer canary-stolen", "", "Basic Og=="] {
                let request = through(&setup, &format!("{name}: {value}\r\n")).await;
                // An empty header counts as absent.
                if replace || value.is_empty() {
                    assert_token_of(&request, "alpha");
                    assert!(!request.head.contains("canary-stolen"));
                } else {
                    assert_eq!(request.header("authorization"), [value]);
                    assert!(!request.head.contains(crate::support::upstream::CANARY_TOKEN));
                }
            }
        }
        for alias in ["Authorization_", "_Authorization", "Author_ization", "Authorization."] {
            let request = through(&setup, &format!("{alias}: Bearer canary-stolen\r\n")).await;
            assert!(!request.head.contains("canary-stolen"), "{alias}");
            assert_token_of(&request, "alpha");
        }
        let untouched = setup.reached();
        for two in [
            "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
            "Authorization: Bearer a\r\nauthorization: Bearer a\r\n",
            "Authorization:\r\nAuthorization: Bearer b\r\n",
        ] {
            setup.assert_refused(get_with(GOOD, two), &[400]).await;
        }
        assert_eq!(setup.reached(), untouched);
        setup.assert_serves().await;
    }
}

/// HDR-05 from the side of policy: a client's own `Authorization` opens nothing at the gateway.
#[tokio::test]
async fn an_authorization_for_bold_bi_is_no_credential_of_a_caller() {
    let setup = Setup::new().await;
    for authorization in ["Bearer canary-own", "Basic Og==", "canary-own", "Bearer"] {
        let lines = format!("Host: localhost\r\nAuthorization: {authorization}\r\n");
        setup.assert_refused(format!("GET {GOOD} HTTP/1.1\r\n{lines}\r\n"), &[401]).await;
    }
    for (target, status) in
        [("/bi/api/site/beta/v5.0/x", 403), ("/bi/api/site/alpha/token", 403), ("/x", 404)]
    {
        let lines = "Authorization: Bearer canary-own\r\n";
        setup.assert_refused(get_with(target, lines), &[status]).await;
    }
    setup.assert_serves().await;
}

/// HDR-08: no session of a browser mixes with the user of our token, in either direction.
#[tokio::test]
async fn cookies_pass_only_without_a_token_of_ours() {
    let upstream = Upstream::with_handler(|_| {
        let mut response = ok("served");
        let text = String::from_utf8(response.bytes).unwrap();
        let cookies = "Set-Cookie: a=b; HttpOnly\r\nset-cookie: c=d\r\nContent-Type";
        response.bytes = text.edit("Content-Type", cookies).into_bytes();
        response
    })
    .await;
    let gateway = Gateway::start(&config(upstream.address, "", ""));
    let setup = Setup { upstream, gateway };
    let cookies = "Cookie: .AspNetCore=x; access_token=y\r\ncookie: z=1\r\nCookie2: $Version=1\r\n";

    let injected = setup.gateway.send(get_with(GOOD, cookies)).await;
    assert_eq!((injected.status, injected.text().as_str()), (200, "served"));
    assert_eq!(injected.header("set-cookie"), [""; 0]);
    let seen = setup.upstream.seen.take();
    assert_eq!(seen[0].header("cookie"), [""; 0]);
    assert_eq!(seen[0].header("cookie2"), [""; 0]);

    let lines = format!("{cookies}Authorization: Bearer canary-own\r\n");
    let own = setup.gateway.send(get_with(GOOD, &lines)).await;
    assert_eq!(own.header("set-cookie"), ["a=b; HttpOnly", "c=d"]);
    let seen = setup.upstream.seen.take();
    assert_eq!(seen[0].header("cookie"), [".AspNetCore=x; access_token=y", "z=1"]);
    assert_eq!(seen[0].header("authorization"), ["Bearer canary-own"]);
}
