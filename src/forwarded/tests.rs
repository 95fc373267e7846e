use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn at(address: &str) -> Option<IpAddr> {
    Some(address.parse().unwrap())
}

fn proxies(header: ForwardingHeader) -> TrustedProxies {
    let networks = ["10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32"];
    let networks = networks.map(|network| network.parse().unwrap());
    TrustedProxies::new(PeerSet::new(networks, true), header)
}

fn map(lines: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value).unwrap();
        map.append(HeaderName::from_static(name), value);
    }
    map
}

fn by_x_forwarded_for(peer: Option<IpAddr>, lines: &[&str]) -> Option<IpAddr> {
    let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", line.as_bytes())).collect();
    let peer = Hop { address: peer, https: false };
    proxies(ForwardingHeader::XForwardedFor).client(peer, &map(&lines)).address
}

fn by_forwarded(lines: &[&str]) -> Option<IpAddr> {
    let lines: Vec<_> = lines.iter().map(|line| ("forwarded", line.as_bytes())).collect();
    let peer = Hop { address: at("10.0.0.1"), https: false };
    proxies(ForwardingHeader::Forwarded).client(peer, &map(&lines)).address
}

#[test]
fn the_client_is_the_rightmost_address_that_is_not_trusted() {
    for (peer, lines, client) in [
        // Direct: the header is anybody's.
        ("198.51.100.1", &["203.0.113.9"][..], "198.51.100.1"),
        ("198.51.100.1", &[], "198.51.100.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::1", &["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.77", &["203.0.113.9"], "203.0.113.9"),
        // Two proxies, and a spoofed address in front of the client's.
        ("10.0.0.1", &["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", &["6.6.6.6, 203.0.113.9,10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", &["6.6.6.6", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", &["10.0.0.9, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        // Forms of addresses.
        ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", &["2001:dead::9"], "2001:dead::9"),
        ("10.0.0.1", &["[2001:dead::9]"], "2001:dead::9"),
        ("10.0.0.1", &["[2001:dead::9]:4711"], "2001:dead::9"),
        ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", &["203.0.113.9, , 10.0.0.2 ,,"], "203.0.113.9"),
        // Garbage ends the chain at the last trusted proxy. Behind the client it does not matter.
        ("10.0.0.1", &["garbage, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["203.0.113.9, garbage"], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["203.0.113.9, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["\"203.0.113.9\""], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.09"], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9:"], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9:99999"], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9 203.0.113.8"], "10.0.0.1"),
        ("10.0.0.1", &["2001:dead::9]:1"], "10.0.0.1"),
        ("10.0.0.1", &["[2001:dead::9"], "10.0.0.1"),
        ("10.0.0.1", &["[203.0.113.9]"], "10.0.0.1"),
        ("10.0.0.1", &["fe80::1%eth0"], "10.0.0.1"),
    ] {
        assert_eq!(by_x_forwarded_for(at(peer), lines), at(client), "{peer} {lines:?}");
    }
    assert_eq!(by_x_forwarded_for(None, &["203.0.113.9"]), at("203.0.113.9"));
    assert_eq!(by_x_forwarded_for(None, &["garbage"]), None);
}

#[test]
fn elements_of_forwarded_are_read_as_rfc_7239_has_them() {
    for (lines, client) in [
        (&["for=203.0.113.9"][..], "203.0.113.9"),
        (&["For=\"203.0.113.9:4711\";Proto=https;by=10.0.0.1"], "203.0.113.9"),
        (&["for=\"[2001:dead::9]\""], "2001:dead::9"),
        (&["for=\"[2001:dead::9]:4711\""], "2001:dead::9"),
        (&["for=\"[2001:dead::9]:_port\""], "2001:dead::9"),
        (&["for=\"203.0.113.\\9\""], "203.0.113.9"),
        (&["for=6.6.6.6, for=203.0.113.9, for=10.0.0.2"], "203.0.113.9"),
        (&["for=6.6.6.6", "for=203.0.113.9;proto=http", "for=10.0.0.2"], "203.0.113.9"),
        (&["for=203.0.113.9;host=\"a, for=6.6.6.6\""], "203.0.113.9"),
        (&["for=203.0.113.9;host=\"a\\\", for=6.6.6.6;x=\\\"\""], "203.0.113.9"),
        (&["for=203.0.113.9 ; proto=https , ,"], "203.0.113.9"),
        // The client's own garbage hides nothing.
        (&["for=\"6.6.6.6, for=203.0.113.9"], "203.0.113.9"),
        (&["", "for", "for=203.0.113.9"], "203.0.113.9"),
        // Elements without an address end the chain.
        (&["for=203.0.113.9, for=unknown"], "10.0.0.1"),
        (&["for=203.0.113.9, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (&["for=203.0.113.9, proto=https"], "10.0.0.1"),
        (&["for=203.0.113.9, for=10.0.0.2;for=6.6.6.6"], "10.0.0.1"),
        (&["for=203.0.113.9:4711"], "10.0.0.1"),
        (&["for=[2001:dead::9]"], "10.0.0.1"),
        (&["for=\"2001:dead::9\""], "10.0.0.1"),
        (&["for=\"::ffff:203.0.113.9\""], "10.0.0.1"),
        (&["for =203.0.113.9"], "10.0.0.1"),
        (&["for= 203.0.113.9"], "10.0.0.1"),
        (&["for=203.0.113.9;"], "10.0.0.1"),
        (&["for=\"203.0.113.9"], "10.0.0.1"),
        (&["for=\"203.0.113.9\"x"], "10.0.0.1"),
        (&["203.0.113.9"], "10.0.0.1"),
        (&[""], "10.0.0.1"),
    ] {
        assert_eq!(by_forwarded(lines), at(client), "{lines:?}");
    }
}

#[test]
fn the_scheme_is_that_of_the_same_hop() {
    let https = |header, tls, lines: &[(&'static str, &'static str)]| {
        let lines: Vec<_> = lines.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        let peer = Hop { address: at("10.0.0.1"), https: tls };
        proxies(header).client(peer, &map(&lines)).https
    };
    let by_x = |addresses, schemes, tls| {
        let lines = [("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)];
        https(ForwardingHeader::XForwardedFor, tls, &lines)
    };
    assert!(by_x("203.0.113.9", "https", false));
    assert!(by_x("203.0.113.9", "HTTPS", false));
    assert!(!by_x("203.0.113.9", "http", true));
    assert!(by_x("203.0.113.9, 10.0.0.2", "https", false), "one scheme counts for the chain");
    assert!(by_x("203.0.113.9, 10.0.0.2", "https, http", false));
    assert!(!by_x("203.0.113.9, 10.0.0.2", "http, https", true));
    assert!(!by_x("203.0.113.9", "https, http", false), "the client sent the first");
    assert!(!by_x("203.0.113.9", "wss", false) && by_x("203.0.113.9", "wss", true));
    assert!(!by_x("garbage", "https", false), "no hop, no scheme");
    let by_forwarded = |text, tls| https(ForwardingHeader::Forwarded, tls, &[("forwarded", text)]);
    assert!(by_forwarded("for=203.0.113.9;proto=https, for=10.0.0.2;proto=http", false));
    assert!(!by_forwarded("for=203.0.113.9;proto=http, for=10.0.0.2;proto=https", true));
    assert!(!by_forwarded("for=203.0.113.9, for=10.0.0.2;proto=https", false));
    // The other header is nobody's.
    let other = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")];
    assert!(!https(ForwardingHeader::Forwarded, false, &other));
}

#[test]
fn of_an_untrusted_peer_no_element_is_read() {
    let chain = std::iter::from_fn(|| -> Option<Element> { panic!("an element was read") });
    let peer = Hop { address: at("203.0.113.9"), https: false };
    assert_eq!(proxies(ForwardingHeader::Forwarded).follow(peer, chain), peer);
}

#[test]
fn an_element_with_more_parameters_than_any_proxy_sends_is_malformed() {
    let element = |count: usize| {
        let first = String::from("for=192.0.2.1");
        let more = (1..count).map(|n| format!("p{n}=x"));
        let all: Vec<String> = std::iter::once(first).chain(more).collect();
        parse_element(all.join(";").as_bytes())
    };
    assert_eq!(element(16).unwrap().address, at("192.0.2.1"));
    assert_eq!(element(17), None);
}

proptest! {
    /// A client in front of a trusted proxy writes what it wants. The proxy adds the address that
    /// it sees, in a line of its own or behind a comma.
    #[test]
    fn nothing_that_a_client_writes_hides_its_address_or_gives_it_another(
        theirs in prop::collection::vec(
            prop_oneof![
                proptest::string::bytes_regex("[\\t\\x20-\\x7e\\x80-\\xff]{0,40}").unwrap(),
                proptest::string::bytes_regex(
                    "((for|proto|host)=(\"|)(10\\.0\\.0\\.2|unknown|\\\\\"|)(\"|)[,; ]{1,2}){0,4}"
                ).unwrap(),
            ],
            0..3,
        ),
        apart: bool,
        address: IpAddr,
        quoted: bool,
    ) {
        let client = Some(address.to_canonical());
        prop_assume!(!proxies(ForwardingHeader::Forwarded).contain(client));
        let plain = address.to_string().into_bytes();
        let element = match address {
            IpAddr::V4(_) if !quoted => format!("for={address};proto=https"),
            IpAddr::V4(_) => format!("proto=https;for=\"{address}:80\""),
            IpAddr::V6(_) => format!("host=\"a,b\";for=\"[{address}]:80\";proto=https"),
        };
        for (name, header, own) in [
            ("x-forwarded-for", ForwardingHeader::XForwardedFor, plain),
            ("forwarded", ForwardingHeader::Forwarded, element.into_bytes()),
        ] {
            let mut lines = theirs.clone();
            match lines.last_mut() {
                Some(last) if !apart => last.extend([&b", "[..], &own].concat()),
                _ => lines.push(own),
            }
            let lines: Vec<_> = lines.iter().map(|line| (name, &line[..])).collect();
            let peer = Hop { address: at("10.0.0.1"), https: false };
            let found = proxies(header).client(peer, &map(&lines));
            prop_assert_eq!(found.address, client, "{:?}", lines);
            prop_assert_eq!(found.https, header == ForwardingHeader::Forwarded);
        }
    }

    #[test]
    fn any_bytes_name_some_hop_in_bounded_time(
        line in proptest::string::bytes_regex("([,;=\" \\\\]|for|10\\.0\\.0\\.2|[!-~]){0,400}").unwrap(),
    ) {
        for header in [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded] {
            let peer = Hop { address: at("10.0.0.1"), https: false };
            let headers = map(&[("x-forwarded-for", &line), ("forwarded", &line)]);
            prop_assert!(proxies(header).client(peer, &headers).address.is_some());
        }
        prop_assert_eq!(Elements(Some(&vec![b','; 60_000])).next(), None);
    }
}
