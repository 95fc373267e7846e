//! The comparison of hosts: names without regard to case and to the dot of the DNS root at their
//! end, IPv6 addresses by value.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The canonical spelling of `host`, which has no port. Two hosts are the same if theirs is equal.
///
/// An IPv6 address is in brackets, as in `Host` (RFC 3986, section 3.2.2). Text that is no host is
/// not changed, so that it equals no host.
pub fn canonical(host: &str) -> Cow<'_, str> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Cow::Owned(format!("[{address}]")),
            Err(_) => Cow::Borrowed(host),
        };
    }
    let name = without_root(host);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// A name without the one dot at its end that stands for the root. An address has none.
pub fn without_root(host: &str) -> &str {
    let is_name =
        |name: &&str| !name.is_empty() && !name.ends_with('.') && name.parse::<Ipv4Addr>().is_err();
    host.strip_suffix('.').filter(is_name).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_host_are_the_same_and_other_hosts_are_others() {
        for (one, other) in [
            ("gw.example", "GW.Example"),
            ("gw.example", "gw.example."),
            ("localhost", "LocalHost."),
            ("[::1]", "[0:0:0:0:0:0:0:1]"),
            ("[::1]", "[::0001]"),
            ("[fd00::a]", "[FD00:0:0::A]"),
            ("[::ffff:192.0.2.1]", "[::FFFF:c000:201]"),
        ] {
            assert_eq!(canonical(one), canonical(other), "{one} {other}");
        }
        for (one, other) in [
            ("gw.example", "gw.example.."),
            ("gw.example", ".gw.example"),
            ("127.0.0.1", "127.0.0.1."),
            ("127.0.0.1", "127.0.0.01"),
            ("127.0.0.1", "[::ffff:127.0.0.1]"),
            ("::1", "[::1]"),
            ("[gw.example]", "gw.example"),
            ("", "."),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_of_a_canonical_host_is_itself(host in "[a-cA-C0-9.:\\[\\]-]{0,20}") {
            let once = canonical(&host).into_owned();
            prop_assert_eq!(&*canonical(&once), once.as_str());
        }

        #[test]
        fn an_ipv6_address_is_one_host_in_every_spelling(address: u128) {
            let address = Ipv6Addr::from(address);
            let long: Vec<_> = address.segments().iter().map(|part| format!("{part:04X}")).collect();
            let (long, short) = (format!("[{}]", long.join(":")), format!("[{address}]"));
            prop_assert_eq!(canonical(&long), canonical(&short));
        }
    }
}
