//! Paths that policy and server could read as different ones. The caller may use alpha only.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::two_callers::{
    ALPHA_KEY, BETA_KEY, GOOD, READER_KEY, SITES, Setup, assert_token_of, get,
};
use crate::support::upstream::Request;

/// PTH-01, PTH-02
#[tokio::test]
async fn dot_segments_are_refused_however_they_are_spelled() {
    let setup = Setup::new().await;
    for dots in [
        "..", ".", "%2e%2e", "%2E%2e", ".%2e", "%2E.", "%2e", "..;", "..;x=1", ".;", "%2e%2e;",
        "..%3b", "%2e.%3B",
    ] {
        for path in [
            format!("{SITES}/alpha/{dots}/beta/x"),
            format!("{SITES}/alpha/{dots}/{dots}/site/beta/v5.0/x"),
            format!("{SITES}/{dots}/site/alpha/x"),
            format!("/{dots}{SITES}/alpha/x"),
            format!("{SITES}/alpha/{dots}"),
            format!("{SITES}/alpha/{dots}/"),
            format!("{SITES}/beta/{dots}/alpha/v5.0/x"),
        ] {
            setup.assert_refused(get(&path), &[400]).await;
        }
    }
    setup.assert_serves().await;
}

/// PTH-03, PTH-05
#[tokio::test]
async fn slashes_that_are_hidden_are_refused_and_nothing_is_decoded_twice() {
    let setup = Setup::new().await;
    for path in [
        "/alpha%2f..%2fbeta/x",
        "/alpha%2F..%2Fbeta/x",
        "/alpha%5c..%5cbeta/x",
        "/alpha%5C..%5Cbeta/x",
        "/alpha\\..\\beta/x",
        "/alpha/x%2fy",
        "/alpha/x\\y",
        "%2falpha/x",
        "\\alpha\\x",
        "/alpha/%252e%252e/beta/x",
        "/alpha/%252e%252e%252fbeta/x",
        "/alpha/%25252e%25252e%25252fbeta/x",
        "/alpha%252f..%252fbeta/x",
        "/%2561lpha/x",
        "/alpha/x%255cy",
        "/alpha/%00",
        "/alpha%00/x",
        "/alpha/x%0d%0aHost:%20beta",
        "/alpha/%",
        "/alpha/%2",
        "/alpha/%zz",
        "/alpha/%u002e%u002e/beta/x",
        // Overlong and full-width forms of dots and slashes.
        "/alpha/%c0%ae%c0%ae/beta/x",
        "/alpha/%c0%af..%c0%afbeta/x",
    ] {
        setup.assert_refused(get(&format!("{SITES}{path}")), &[400]).await;
    }
    setup.assert_serves().await;
}

/// PTH-03: names of users and pinboards may have slashes. No server finds another route in them
/// than one that the caller may use.
#[tokio::test]
async fn an_encoded_slash_in_the_name_of_a_user_or_a_pinboard_is_forwarded_as_sent() {
    let setup = Setup::new().await;
    let alpha = format!("{SITES}/alpha");
    for (method, route) in [
        ("GET", "/v5.0/users/EXAMPLE%5Cjane"),
        ("GET", "/v5.0/users/EXAMPLE%5cjane"),
        ("DELETE", "/v4.0/users/a%2Fb"),
        ("PUT", "/v2.0/users/a%2fb%2Fc%5cd?x=%2F"),
        ("HEAD", "/v5.0/users/a%2Fb"),
        ("GET", "/pinboard/Sales%2FEMEA%202026"),
        ("GET", "/v5.0/pinboard/Sales%2F%C3%84rger"),
        ("DELETE", "/v5.0/pinboard/a%2Frename"),
        ("PUT", "/v5.0/pinboard/rename/a%2Fb"),
        ("GET", "/v5.0/users/a%2F..b"),
        ("GET", "/v5.0/users/a%2Fb;v=1"),
    ] {
        let target = format!("{alpha}{route}");
        let request = get(&target).edit(&format!("GET {target}"), &format!("{method} {target}"));
        let mut client = Client::connect(setup.address()).await;
        client.write(request.as_bytes()).await;
        let response = client.try_response(method == "HEAD").await.unwrap();
        assert_eq!(response.status, 200, "{method} {route}");
        let seen = setup.upstream.seen.take();
        assert_eq!(seen[0].path(), target);
        assert_token_of(&seen[0], "alpha");
    }
    // Controls: the same routes with a slash that is encoded twice, elsewhere or beside nothing,
    // other routes, other spellings of the route, and other methods.
    for (method, route) in [
        ("GET", "/v5.0/users/a%252Fb"),
        ("GET", "/v5.0/users/a%2Fb%252Fc"),
        ("GET", "/v5.0/users/a%25%32%46b"),
        ("GET", "/v5.0/users/a%%32%46b"),
        ("GET", "/v5.0/users/a%c0%afb"),
        ("GET", "/v5.0/users/a%2F..%2Fb"),
        ("GET", "/v5.0/users/..%2Fb"),
        ("GET", "/v5.0/users/a%5C.."),
        ("GET", "/v5.0/users/a%2F%2e%2E"),
        ("GET", "/v5.0/users/a%2F.%5Cb"),
        ("GET", "/v5.0/users/a%2F..;x%2Fb"),
        ("GET", "/v5.0/users/a%2F..%3Bx"),
        ("GET", "/v5.0/users/a%2F%20..%09%2Fb"),
        ("GET", "/v5.0/users/a%2F..%20%2Fb"),
        ("GET", "/v5.0/users/a%2F...%2Fb"),
        ("GET", "/v5.0/users/%2Fa"),
        ("GET", "/v5.0/users/a%2F"),
        ("GET", "/v5.0/users/a%2F%5Cb"),
        ("GET", "/v5.0/users/a%2F;x%2Fb"),
        ("GET", "/v5.0/users/a%2F%20%2Fb"),
        ("GET", "/v5.0/users/%5C"),
        ("GET", "/v5.0/users/a%2Fb%00"),
        ("GET", "/v5.0/users/a%2Fb%3Fc"),
        ("GET", "/v5.0/users/a%2Fb/"),
        ("GET", "/v5.0/users/a%2Fb/groups"),
        ("GET", "/v5.0/users%2Fa"),
        ("GET", "/v5.0%2Fusers/a"),
        ("GET", "/v5.0/Users/a%2Fb"),
        ("GET", "/v5.0/use%72s/a%2Fb"),
        ("GET", "/v5.0/users;x/a%2Fb"),
        ("GET", "/v5.0/x/users/a%2Fb"),
        ("GET", "/v5.0/groups/a%2Fb"),
        ("GET", "/v5.0/dashboards/a%2Fb"),
        ("GET", "/v5.0/pinboard/x/a%2Fb"),
        ("POST", "/v5.0/users/a%2Fb"),
        ("OPTIONS", "/v5.0/users/a%2Fb"),
        ("PATCH", "/v5.0/pinboard/a%2Fb"),
    ] {
        let target = format!("{alpha}{route}");
        let request = get(&target).edit(&format!("GET {target}"), &format!("{method} {target}"));
        setup.assert_refused(request, &[400]).await;
    }
    // The class is that of the more dangerous reading.
    for route in [
        "/v5.0/users/a%2Fapi-keys",
        "/v5.0/users/a%5Ctoken",
        "/v5.0/users/a%2FTo%6Ben",
        "/pinboard/a%2Fembed-secret%5Cb",
        "/pinboard/token%2Fb",
        "/v5.0/users/get-user-key%2Fx",
    ] {
        let refusal = setup.assert_refused(get(&format!("{alpha}{route}")), &[403]).await;
        assert_eq!(refusal.code(), "route_closed", "{route}");
    }
    let reader = |target: &str| get(&format!("{alpha}{target}")).edit(ALPHA_KEY, READER_KEY);
    let export = setup.assert_refused(reader("/pinboard/a%2Fexport"), &[403]).await;
    assert_eq!(export.code(), "route_closed");
    // Before a caller is known, a known tenant and an unknown one look the same.
    for site in ["alpha", "nobody"] {
        let target = format!("{SITES}/{site}/v5.0/users/a%2Fb");
        setup.assert_refused(get(&target).edit(ALPHA_KEY, "bgk_other"), &[401]).await;
        let target = format!("{SITES}/{site}/v5.0/groups/a%2Fb");
        setup.assert_refused(get(&target).edit(ALPHA_KEY, "bgk_other"), &[400]).await;
    }
    let beta = get(&format!("{SITES}/beta/v5.0/users/a%2F..b"));
    setup.assert_refused(beta, &[403]).await;
    setup.assert_serves().await;
}

/// PTH-04
#[tokio::test]
async fn empty_segments_are_refused() {
    let setup = Setup::new().await;
    for path in [
        "//bi/api/site/alpha/x",
        "///bi/api/site/alpha/x",
        "/bi//api/site/alpha/x",
        "/bi/api//site/beta/x",
        "/bi/api/site//beta/x",
        "/bi/api/site//alpha/x",
        "/bi/api/site/alpha//x",
        "/bi/api/site/alpha/x//",
        "//beta.example/bi/api/site/alpha/x",
    ] {
        setup.assert_refused(get(path), &[400]).await;
    }
    setup.assert_serves().await;
}

/// PTH-07: a site has one spelling; every other is no site, and never another tenant's.
#[tokio::test]
async fn a_site_is_found_in_its_exact_spelling_only() {
    let setup = Setup::new().await;
    for path in [
        "/BI/API/Site/Alpha/x",
        "/bi/api/site/ALPHA/x",
        "/bi/api/site/Beta/x",
        "/BI/API/SITE/ALPHA/x",
        "/b%49/api/site/alpha/x",
        "/bi/api/s%69te/alpha/x",
        "/bi/api/site/%61lpha/x",
        "/bi/api/site/bet%61/x",
        "/bi/api/site/alpha",
        "/bi/api/site/alpha;x=1/v5.0/x",
        "/bi/api/site/alpha%20/x",
        "/bi/api/site/alpha./x",
        "/bi/api/site/alphabeta/x",
        "/bi/api/site/alpha,beta/x",
        "/bi/api/site/",
        "/bi/api/site",
        "/bi/api/x",
        "/api/site/alpha/x",
        "/",
        "/x",
    ] {
        setup.assert_refused(get(path), &[404]).await;
    }
    for base in ["/bi/api/site", "/BI/API/SITE"] {
        setup.assert_refused(get(&format!("{base}/beta/v5.0/x")), &[403]).await;
        setup.assert_refused(get(&format!("{base}/beta/")), &[403]).await;
    }
    setup.assert_serves().await;
}

/// The vendor's ingress takes letters of any case in front of the site, so the gateway finds the
/// tenant as well. The path goes on as it was sent, and its class is the same.
#[tokio::test]
async fn a_path_in_upper_case_finds_its_tenant_and_is_forwarded_as_sent() {
    let setup = Setup::new().await;
    for path in ["/BI/API/SITE/alpha/v5.0/x", "/bi/API/site/alpha/v5.0/x", "/Bi/Api/Site/alpha/"] {
        assert_eq!(setup.gateway.send(get(path)).await.status, 200, "{path}");
        let sent = setup.upstream.seen.take();
        assert_eq!(sent.last().unwrap().path(), path);
        assert_token_of(sent.last().unwrap(), "alpha");
    }
}

/// PTH-07: a tenant that is found by its host and has no site in its path is no way to a site.
#[tokio::test]
async fn a_tenant_without_a_site_gives_no_access_to_the_path_of_a_site() {
    let setup = Setup::new().await;
    let to = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: gamma.example\r\nX-Api-Key: {BETA_KEY}\r\n\r\n")
    };
    for path in [
        "/bi/api/site/alpha/v5.0/x",
        "/bi/api/SITE/alpha/v5.0/x",
        "/bi/api/s%69te/alpha/v5.0/x",
        "/bi/api/%73%69%74%65/alpha/v5.0/x",
        "/bi/api/%53ITE/alpha/v5.0/x",
        "/bi/api/site;x=1/alpha/v5.0/x",
        "/bi/api/site%3Bx/alpha/v5.0/x",
        "/bi/api/site%20/alpha/v5.0/x",
        "/bi/api/site./alpha/v5.0/x",
        "/bi/api/%20site/alpha/v5.0/x",
        "/bi/api/%C5%BFite/alpha/v5.0/x",
        "/bi/api/site",
        "/bi/api/site/",
        "/BI/api/site/alpha/v5.0/x",
    ] {
        setup.assert_refused(to(path), &[404]).await;
    }
    for (path, status) in [("/bi/api/v5.0/x", 200), ("/bi/api/v5.0/sites/x", 200)] {
        assert_eq!(setup.gateway.send(to(path)).await.status, status);
    }
    for request in setup.upstream.seen.take() {
        assert_token_of(&request, "api");
    }
    setup.assert_serves().await;
}

/// PTH-09
#[tokio::test]
async fn the_absolute_form_names_the_same_host_or_is_refused() {
    let setup = Setup::new().await;
    for target in [
        "http://gw/bi/api/site/alpha/x",
        "http://localhost.evil/bi/api/site/alpha/x",
        "http://localhost@gw/bi/api/site/alpha/x",
        "http://u@localhost/bi/api/site/alpha/x",
        "http://u:p@localhost/bi/api/site/alpha/x",
        "http://localhost:80/bi/api/site/alpha/x",
        "https:/\\localhost/bi/api/site/alpha/x",
        "http:\\\\localhost/bi/api/site/alpha/x",
        "http:/localhost/bi/api/site/alpha/x",
        "http:///bi/api/site/alpha/x",
        "http://localhost",
        "http://localhost?/bi/api/site/alpha/x",
        "http://localhost#/bi/api/site/alpha/x",
        "http://localhost//bi/api/site/alpha/x",
        "http://localhost/bi/api/site/alpha/../beta/x",
        "ftp://localhost/bi/api/site/alpha/x",
        "localhost/bi/api/site/alpha/x",
        "bi/api/site/alpha/x",
        "localhost:80",
        "*",
        "?x",
    ] {
        setup.assert_refused(get(target), &[400]).await;
    }
    setup.assert_refused(get("http://localhost/bi/api/site/beta/x"), &[403]).await;
    for scheme in ["http", "HTTP", "https"] {
        let target = format!("{scheme}://localhost{GOOD}?a=b");
        assert_eq!(setup.gateway.send(get(&target)).await.status, 200, "{target}");
        let seen = setup.upstream.seen.take();
        assert_eq!(seen[0].line(), format!("GET {GOOD}?a=b HTTP/1.1"));
    }
    setup.assert_serves().await;
}

/// PTH-10, PTH-11: what policy saw is what goes on, and the query has no say.
#[tokio::test]
async fn fragments_are_refused_and_queries_decide_nothing() {
    let setup = Setup::new().await;
    for path in [
        "/alpha/x#/../../beta",
        "/alpha/x#",
        "/alpha#/beta/x",
        "/alpha/x?y#z",
        "#/bi/api/site/alpha/x",
    ] {
        setup.assert_refused(get(&format!("{SITES}{path}")), &[400]).await;
    }
    // For a server that decodes first, the route would end at this character.
    for mark in ["%3f", "%3F", "%23"] {
        for path in ["users%", "users%/x", "%users", "users;%", "us%ers", "users/%", "users/a%b/c"]
        {
            let path = format!("/alpha/v5.0/{}", path.replace('%', mark));
            setup.assert_refused(get(&format!("{SITES}{path}")), &[400]).await;
        }
    }
    for (mark, encoded) in [("\"", "%22"), ("<", "%3C"), (">", "%3E"), ("#", "%23")] {
        let target = format!("{SITES}/alpha/v5.0/x?a{mark}b");
        let refusal = setup.assert_refused(get(&target), &[400]).await;
        let text = refusal.text();
        assert!(text.contains(encoded), "the refusal names the character: {text}");
        let target = format!("{SITES}/alpha/v5.0/x?a{encoded}b");
        assert_eq!(setup.gateway.send(get(&target)).await.status, 200);
    }
    setup.upstream.seen.take();
    for (path, status) in [
        ("/beta/x?tenant=alpha&site=alpha", 403),
        ("/beta?/../alpha/x", 404),
        ("?/bi/api/site/alpha/x", 404),
        ("/alpha?/x", 404),
        ("/alpha/token?x=/v5.0/dashboards", 403),
    ] {
        setup.assert_refused(get(&format!("{SITES}{path}")), &[status]).await;
    }
    for path in [
        "/alpha/v5.0/x?/../beta",
        "/alpha/v5.0/x?tenant=beta&tenant=alpha",
        "/alpha/v5.0/x?a=%2f..%2fbeta",
        "/alpha/v5.0/x?",
        "/alpha/v5.0/x?a?b",
        // The SDK sends braces as they are.
        "/alpha/v5.0/x?{%22DashboardId%22:[1|2]}^`\\",
        "/alpha/v5.0/%C3%A9%20b;v=1/~a!$&'()*+,=:@",
    ] {
        let target = format!("{SITES}{path}");
        assert_eq!(setup.gateway.send(get(&target)).await.status, 200, "{path}");
        let seen: Vec<Request> = setup.upstream.seen.take();
        assert_eq!(seen[0].path(), target, "what policy saw goes on");
        assert_token_of(&seen[0], "alpha");
    }
    setup.assert_serves().await;
}

/// PTH-15
#[tokio::test]
async fn long_targets_are_refused_as_such_and_quickly() {
    let setup = Setup::new().await;
    let path = |length: usize| format!("{SITES}/alpha/{}", "a".repeat(length));
    for target in [
        path(8 * 1024),
        path(64 * 1024),
        path(256 * 1024),
        format!("{SITES}/alpha{}", "/a".repeat(10_000)),
        format!("{SITES}/alpha/{}", "../".repeat(10_000)),
        format!("{SITES}/alpha/{}", "%2e".repeat(10_000)),
        format!("{SITES}/alpha/x?{}", "a".repeat(17 * 1024)),
        format!("http://localhost{}", path(64 * 1024)),
    ] {
        let begun = Instant::now();
        let refusal = setup.assert_refused(get(&target), &[414]).await;
        assert_eq!(refusal.code(), "target_too_long");
        // On a machine of its own this takes 5 ms; here other tests are running.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    let longest = format!("{SITES}/alpha/v5.0/{}", "a".repeat(4096 - SITES.len() - 12));
    assert_eq!(setup.gateway.send(get(&longest)).await.status, 200);
    let client = &mut Client::connect(setup.address()).await;
    client.write(format!("GET {}", "/".repeat(2 * 1024 * 1024)).as_bytes()).await;
    assert_eq!(client.response().await.status, 414, "a target without an end");
    setup.upstream.seen.take();
    setup.assert_serves().await;
}

/// AUT-01 from the side of paths: a route of secrets is one in every spelling.
#[tokio::test]
async fn a_route_that_mints_tokens_is_closed_in_every_spelling() {
    let setup = Setup::new().await;
    for route in [
        "/token",
        "/TOKEN",
        "/Token/",
        "/t%6fken",
        "/%74%6F%6B%65%6E",
        "/token%20",
        "/token.",
        "/token;x=1",
        "/token%3bx",
        "/v5.0/token",
        "/v1.0/settings/embed-secret",
        "/v5.0/users/get-user-key",
    ] {
        for (method, sites) in [("GET", SITES), ("POST", SITES), ("GET", "/BI/API/SITE")] {
            let request = get(&format!("{sites}/alpha{route}")).edit("GET", method);
            let refusal = setup.assert_refused(request, &[403]).await;
            assert_eq!(refusal.code(), "route_closed", "{method} {sites} {route}");
        }
    }
    assert!(get(GOOD).contains(ALPHA_KEY));
    setup.assert_serves().await;
}
