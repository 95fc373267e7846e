use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn origin(text: &str) -> WebOrigin {
    WebOrigin::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

#[test]
fn an_origin_is_written_in_one_way_however_it_came() {
    for (text, written) in [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:80", "https://app.example:80"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[0:0:0:0:0:0:0:1]", "https://[::1]"),
        ("https://my_app-1.example", "https://my_app-1.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ] {
        assert_eq!(origin(text).to_string(), written);
        assert_eq!(origin(text), origin(written));
    }
    assert_ne!(origin("http://app.example"), origin("https://app.example"));
    assert_ne!(origin("https://app.example"), origin("https://app.example:8443"));
}

#[test]
fn a_text_that_is_not_exactly_an_origin_is_refused() {
    let without_scheme = |text| OriginFault::Scheme(Some(origin(text)));
    let without_path = |text| OriginFault::Path(Some(origin(text)));
    for (text, fault) in [
        ("", OriginFault::Scheme(None)),
        ("*", OriginFault::Wildcard),
        ("https://*", OriginFault::Wildcard),
        ("https://*.example.com", OriginFault::Wildcard),
        ("null", OriginFault::Null),
        ("app.example", without_scheme("https://app.example")),
        ("app.example:443", without_scheme("https://app.example")),
        ("//app.example", OriginFault::Scheme(None)),
        ("ftp://app.example", without_scheme("https://app.example")),
        ("file://", OriginFault::Scheme(None)),
        ("://app.example", without_scheme("https://app.example")),
        (" https://app.example", without_scheme("https://app.example")),
        ("https://app.example/", without_path("https://app.example")),
        ("https://App.example:443/x?y#z", without_path("https://app.example")),
        ("https://app.example?x", without_path("https://app.example")),
        ("https:///", OriginFault::Path(None)),
        ("https://u:p@app.example", OriginFault::UserInfo),
        ("https://", OriginFault::Host),
        ("https://app.example.", OriginFault::Host),
        ("https://.example", OriginFault::Host),
        ("https://a..b", OriginFault::Host),
        ("https://app.example:", OriginFault::Host),
        ("https://app.example:0", OriginFault::Host),
        ("https://app.example:65536", OriginFault::Host),
        ("https://app.example:+1", OriginFault::Host),
        ("https://app.example:1:2", OriginFault::Host),
        ("https://b\u{fc}cher.example", OriginFault::Host),
        ("https://a b", OriginFault::Host),
        ("https://a,https", OriginFault::Host),
        ("https://127.1", OriginFault::Host),
        ("https://1.2.3.256", OriginFault::Host),
        ("https://0x7f.0.0.0x1", OriginFault::Host),
        ("https://[::1", OriginFault::Host),
        ("https://::1", OriginFault::Host),
        ("https://[1.2.3.4]", OriginFault::Host),
        ("https://[fe80::1%25eth0]", OriginFault::Host),
    ] {
        assert_eq!(WebOrigin::parse(text), Err(fault), "{text}");
    }
    assert!(WebOrigin::parse(&format!("https://{}", "a.".repeat(127) + "a")).is_err());
}

#[test]
fn a_page_is_judged_by_its_origin_or_else_by_sec_fetch_site() {
    let listed = |o: &WebOrigin| *o == origin("https://app.example");
    for (lines, expected) in [
        (&[][..], "None"),
        (&[("sec-fetch-site", "same-origin")], "None"),
        (&[("sec-fetch-site", "NONE")], "None"),
        (&[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], "Listed"),
        (&[("origin", "https://app.example:443"), ("sec-fetch-site", "?")], "Listed"),
        (&[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], "Origin"),
        (&[("origin", "null"), ("sec-fetch-site", "none")], "Opaque"),
        (&[("origin", "")], "Opaque"),
        (&[("origin", "chrome-extension://abc")], "Opaque"),
        (&[("origin", "https://app.example,https://app.example")], "Opaque"),
        (&[("origin", "https://app.example"), ("origin", "https://app.example")], "Several"),
        (&[("sec-fetch-site", "same-site")], "CrossSite"),
        (&[("sec-fetch-site", "")], "CrossSite"),
        (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")], "CrossSite"),
    ] {
        let headers = map(lines);
        let page = match Page::of(&headers, listed) {
            Page::Unlisted(page) => format!("{page:?}"),
            page => format!("{page:?}"),
        };
        assert!(page.starts_with(expected), "{lines:?}: {page}");
    }
}

#[test]
fn only_names_of_headers_are_repeated_to_a_preflight() {
    let asked = |value: &str| {
        let headers = map(&[("access-control-request-headers", value)]);
        headers_asked_for(&headers, ", ").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(asked("Authorization,content-type").as_deref(), Some("authorization, content-type"));
    assert_eq!(asked(", a ,,\tb").as_deref(), Some("a, b"));
    for none in ["", ",", "a b", "a;b", "a, b:", "\"a\"", "a=1", "(a)"] {
        assert_eq!(asked(none), None, "{none}");
    }
    assert!(asked(&vec!["a"; MAX_HEADERS_ASKED_FOR].join(",")).is_some());
    assert!(asked(&vec!["a"; MAX_HEADERS_ASKED_FOR + 1].join(",")).is_none());
    assert!(asked(&"a".repeat(MAX_HEADER_NAME + 1)).is_none());
    assert_eq!(headers_asked_for(&HeaderMap::new(), ","), None);
}

#[test]
fn the_origin_of_a_request_is_its_scheme_and_host() {
    let is_own = |origin_text: &str, secure: bool, host: &str| {
        let raw = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let raw = crate::request::RawHead::read(raw.as_bytes()).unwrap();
        let head = RequestHead::parse(&raw);
        is_of_request(&origin(origin_text), secure, &head.unwrap())
    };
    for (text, secure, host) in [
        ("http://h", false, "h"),
        ("http://h", false, "H:80"),
        ("https://h:443", true, "h"),
        ("https://h:8443", true, "h:8443"),
        ("http://[::1]:1", false, "[0::1]:1"),
    ] {
        assert!(is_own(text, secure, host), "{text} {host}");
    }
    for (text, secure, host) in [
        ("http://h", true, "h"),
        ("https://h", false, "h"),
        ("http://h", false, "h:8080"),
        ("http://h:8080", false, "h"),
        ("http://h", false, "h.evil"),
        ("http://127.0.0.1", false, "localhost"),
    ] {
        assert!(!is_own(text, secure, host), "{text} {host}");
    }
}

proptest! {
    /// An origin is written as browsers write it, and read again as the same.
    #[test]
    fn an_origin_that_is_written_and_read_again_is_the_same(
        text in "(HTTP|http|https)://[a-zA-Z0-9.:_\\[\\]*@/-]{0,12}(:[0-9]{0,6})?"
    ) {
        if let Ok(parsed) = WebOrigin::parse(&text) {
            let written = parsed.to_string();
            prop_assert_eq!(&written, &written.to_ascii_lowercase());
            prop_assert!(!written.contains(['*', '@', ' ', ',']), "{}", written);
            prop_assert_eq!(written.matches('/').count(), 2);
            prop_assert_eq!(WebOrigin::parse(&written), Ok(parsed));
        }
    }

    /// No text makes it panic, and nothing but an equal origin is listed.
    #[test]
    fn only_spellings_of_a_listed_origin_are_listed(text in "\\PC{0,40}") {
        let headers = match HeaderValue::from_str(&text) {
            Ok(value) => HeaderMap::from_iter([(ORIGIN, value)]),
            Err(_) => return Ok(()),
        };
        let page = Page::of(&headers, |o| o.to_string() == "https://app.example");
        if matches!(page, Page::Listed(_)) {
            let plain = text.to_ascii_lowercase();
            prop_assert_eq!(plain.trim_end_matches(":443"), "https://app.example");
        }
    }
}
