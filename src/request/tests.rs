use proptest::prelude::*;

use super::*;

fn parse(raw: &str) -> Result<(Target, BodyFraming, Option<String>), RequestError> {
    let raw = RawHead::read(raw.as_bytes())?;
    RequestHead::parse(&raw)
        .map(|head| (head.target.clone(), head.body, head.host.map(str::to_owned)))
}

fn get(target: &str) -> Result<Target, RequestError> {
    parse(&format!("GET {target} HTTP/1.1\r\nHost: gw\r\n\r\n")).map(|(target, ..)| target)
}

fn with_host(host: &str) -> Result<Option<String>, RequestError> {
    parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).map(|(_, _, host)| host)
}

fn framing(lines: &str) -> Result<BodyFraming, RequestError> {
    parse(&format!("POST /x HTTP/1.1\r\nHost: gw\r\n{lines}\r\n\r\n")).map(|(_, body, _)| body)
}

#[test]
fn ordinary_targets_go_on_as_they_came() {
    for target in [
        "/",
        "/bi/api/site/site1/v5.0/dashboards",
        "/bi/api/site/site1/v5.0/dashboards/",
        "/a/b.c/d..e/...f/x;v=1",
        "/a/%C3%A9%20b/100%25",
        "/a?x=/../y&z=%2f%2e%2e|{}",
        "/a:b@c/!$&'()*+,=~-_",
    ] {
        let parsed = get(target).unwrap();
        assert_eq!(parsed.path_and_query().as_str(), target);
    }
}

#[test]
fn an_encoded_slash_in_the_last_segment_is_reported_for_the_route_to_decide() {
    for target in ["/a%2fb", "/a%2Fb?c", "/x/a%5cb", "/x/a%5Cb%2fc;d", "/x/a%2F..b"] {
        assert!(get(target).unwrap().has_encoded_slash(), "{target}");
    }
    for target in ["/a/b", "/a%20b?c=%2F", "/a/"] {
        assert!(!get(target).unwrap().has_encoded_slash(), "{target}");
    }
}

#[test]
fn the_absolute_form_becomes_the_origin_form_when_it_names_the_same_host() {
    let same = get("http://gw/bi/x?y=1").unwrap();
    assert_eq!(same.path_and_query().as_str(), "/bi/x?y=1");
    assert_eq!(get("HTTP://GW/x").unwrap().path(), "/x");
    assert_eq!(get("http://gw./x").unwrap().path(), "/x");
    let by_address = "GET http://[0:0::1]:80/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n";
    assert_eq!(parse(by_address).unwrap().0.path(), "/x");
    assert!(parse(&by_address.replace("]:80/x", "]/x")).is_err(), "another port");
    for other in
        ["http://evil/x", "http://u@gw/x", "http://gw", "http://gw?x", "https:/gw/x", "ftp://gw/x"]
    {
        assert!(get(other).is_err(), "{other}");
    }
}

#[test]
fn a_path_that_two_servers_could_read_in_two_ways_is_refused() {
    for path in [
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/..;/b",
        "/a/..;x=1/b",
        "/.;/b",
        "/a/%2e%2e/b",
        "/a/.%2E/b",
        "/a/%2e/b",
        "/a/%2E%2e;x/b",
        "/a%2fb/c",
        "/a%2Fb/",
        "/a%5cb/c",
        "/a%2F..",
        "/a%5C..%2Fb",
        "/%2E%2fb",
        "/a%2F",
        "/%2Fa",
        "/a%2F%5Cb",
        "/a%2F;x%2Fb",
        "/a%2F..;x",
        "/a%2F%C2%A0..%2Fb",
        "/a%252fb",
        "/a%2Fb%252fc",
        "/a\\b",
        "//a",
        "/a//b",
        "/a/..%20/b",
        "/a/%20./b",
        "/a/%C2%A0..%3bx/b",
        "/a/%C0%AE%C0%AE/b",
        "/a/x%FF/b",
        "/a/%C2%85/b",
        "/a/%252e%252e/b",
        "/a/%25252fb",
        "/a/%00",
        "/a/%0d%0a",
        "/a/%7f",
        "/a/%",
        "/a/%2",
        "/a/%zz",
        "/a#/b",
        "/a?x#y",
        "/a<b",
        "/a\"b",
        "/a|b",
        "/a^b",
        "/a`b",
        "/a{b}",
        "*",
        "a/b",
        "",
        "/é",
    ] {
        assert!(get(path).is_err(), "{path}");
    }
}

#[test]
fn long_targets_are_told_apart_from_malformed_ones() {
    let long_path = format!("/{}", "a".repeat(MAX_PATH));
    assert_eq!(get(&long_path).unwrap_err(), RequestError::PathTooLong);
    assert!(get(&long_path[..MAX_PATH]).is_ok());
    let segments = "/a".repeat(10_000);
    assert_eq!(get(&segments).unwrap_err(), RequestError::TargetTooLong);
    let long_query = format!("/?{}", "a".repeat(MAX_TARGET));
    assert_eq!(get(&long_query).unwrap_err(), RequestError::TargetTooLong);
    assert!(get(&long_query[..MAX_TARGET]).is_ok());
}

#[test]
fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    assert_eq!(with_host("Gw.Example_1:8080").unwrap().as_deref(), Some("Gw.Example_1"));
    assert_eq!(with_host("[::1]:80").unwrap().as_deref(), Some("[::1]"));
    assert_eq!(with_host("[::1]").unwrap().as_deref(), Some("[::1]"));
    for host in [
        "", "a b", "a,b", "a#b", "a/../b", "u@h", "h:", "h:x", "h:99999", ":80", "[::1", "[x]",
        "h:1:2",
    ] {
        assert!(with_host(host).is_err(), "{host}");
    }
    assert!(parse("GET / HTTP/1.1\r\n\r\n").is_err(), "HTTP/1.1 needs a host");
    assert!(parse("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").is_err(), "one host");
    assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok(), "HTTP/1.0 does not");
}

#[test]
fn a_body_is_framed_in_exactly_one_way() {
    assert_eq!(framing("X-A: b").unwrap(), BodyFraming::Empty);
    assert_eq!(framing("Content-Length: 0").unwrap(), BodyFraming::Empty);
    assert_eq!(framing("Content-Length: 12").unwrap(), BodyFraming::Length(12));
    assert_eq!(framing("Transfer-Encoding: Chunked").unwrap(), BodyFraming::Chunked);
    for lines in [
        "Content-Length: +3",
        "Content-Length: ",
        "Content-Length: 0x3",
        "Content-Length: 3, 3",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 18446744073709551617",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "content-length: 3\r\nTransfer-Encoding: chunked",
    ] {
        assert!(framing(lines).is_err(), "{lines}");
    }
}

#[test]
fn only_known_methods_and_one_authorization_pass() {
    for method in ["TRACE", "CONNECT", "PROPFIND", "get", "PRI"] {
        let raw = format!("{method} / HTTP/1.1\r\nHost: gw\r\n\r\n");
        assert_eq!(parse(&raw).unwrap_err(), RequestError::Method, "{method}");
    }
    let two = "GET / HTTP/1.1\r\nHost: gw\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n";
    assert!(parse(two).is_err());
}

/// A path as the most lenient server reads it: decoded twice, slashes merged, parameters cut off,
/// dots resolved.
fn leniently(path: &str) -> Vec<String> {
    let decoded =
        (0..2).fold(path.as_bytes().to_vec(), |bytes, _| percent_decode(&bytes).collect());
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other.to_owned()),
        }
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// An accepted path below one site is below that site for the most lenient reader too.
    #[test]
    fn an_accepted_path_stays_below_its_site_however_it_is_read(
        tail in "(/|\\.|%2e|%2E|%2f|%5c|%25|%252e|;|\\\\|a|b|%00|%41|\\?|#){0,12}"
    ) {
        let path = format!("/bi/api/site/alpha/{tail}");
        if let Ok(target) = get(&path) {
            let seen = leniently(target.path());
            prop_assert_eq!(&seen[..4], ["bi", "api", "site", "alpha"], "{}", path);
        }
    }

    #[test]
    fn no_target_makes_the_parser_panic_and_accepted_ones_are_not_changed(target in "[ -~]{0,40}") {
        if !target.contains(' ')
            && let Ok(parsed) = get(&target)
        {
            prop_assert!(target.ends_with(parsed.path_and_query().as_str()));
        }
    }
}

#[test]
fn an_authority_is_forwarded_in_its_plain_spelling() {
    for (sent, plain) in [
        ("gw", "gw"),
        ("gw:8080", "gw:8080"),
        ("GW.Example.:8443", "GW.Example:8443"),
        ("gw.", "gw"),
        ("gw:0", "gw"),
        ("gw:00080", "gw:80"),
        ("[::1]", "[::1]"),
    ] {
        assert_eq!(plain_authority(sent), plain);
    }
}
