//! The path of a request that the strict parse refused, as far as it can be logged. Pure.

use std::fmt::Write as _;

/// The path of a raw target for the logs: without scheme, authority and query, cut at the first
/// `?` or `#`, also an encoded one, and at [`MAX_REFUSED_PATH`] bytes. Bytes that are not visible
/// ASCII are escaped as `\xNN`. `None` if the target has no path.
pub fn refused_path(target: &[u8]) -> Option<Box<str>> {
    let end = (0..target.len()).find(|&at| begins_query(&target[at..]));
    let target = &target[..end.unwrap_or(target.len())];
    let mut path = String::new();
    for &byte in without_authority(target)? {
        let before = path.len();
        if byte.is_ascii_graphic() {
            path.push(byte.into());
        } else {
            let _ = write!(path, "\\x{byte:02x}");
        }
        if path.len() > MAX_REFUSED_PATH {
            path.truncate(before);
            break;
        }
    }
    Some(path.into())
}

/// Whether the text begins with `?` or `#`, plain or encoded, once or several times: some reader
/// would begin the query there.
fn begins_query(text: &[u8]) -> bool {
    let mut text = match text {
        [b'?' | b'#', ..] => return true,
        [b'%', encoded @ ..] => encoded,
        _ => return false,
    };
    while let [b'2', b'5', rest @ ..] = text {
        text = rest;
    }
    matches!(text, [b'3', b'f' | b'F', ..] | [b'2', b'3', ..])
}

/// A target in absolute form may have a password in its authority.
fn without_authority(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") {
        return Some(target);
    }
    let scheme = memchr::memmem::find(target, b"://")? + 3;
    let path = memchr::memchr(b'/', &target[scheme..])?;
    Some(&target[scheme + path..])
}

/// Most bytes of the path of a refused request in a log.
const MAX_REFUSED_PATH: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_path_ends_where_some_reader_begins_the_query() {
        for (target, path) in [
            ("/a//b", Some("/a//b")),
            ("/a/../b?secret", Some("/a/../b")),
            ("/a#secret?secret", Some("/a")),
            ("/a%3fsecret", Some("/a")),
            ("/a%3Fsecret", Some("/a")),
            ("/a%23secret", Some("/a")),
            ("/a%253fsecret", Some("/a")),
            ("/a%25252523secret", Some("/a")),
            ("/a%25b%2fc%", Some("/a%25b%2fc%")),
            ("http://user:secret@host/a//b?secret", Some("/a//b")),
            ("http://host?secret/secret", None),
            ("http://host%3fsecret/secret", None),
            ("user:secret@host:443", None),
            ("*", None),
            ("?secret", None),
            ("", None),
        ] {
            assert_eq!(refused_path(target.as_bytes()).as_deref(), path, "{target}");
        }
    }

    #[test]
    fn bytes_that_are_not_visible_are_escaped_and_the_path_is_cut() {
        let path = |target: &[u8]| refused_path(target).unwrap();
        assert_eq!(&*path(b"/a b\t\x80\r\n\"\\"), "/a\\x20b\\x09\\x80\\x0d\\x0a\"\\");
        assert_eq!(path(&[b'/'; 512]).len(), 512);
        assert_eq!(path(&[b'/'; 513]).len(), 512);
        let long = [&b"/"[..], &[0x80; 300]].concat();
        assert_eq!(path(&long).len(), 1 + 127 * 4, "an escape is never cut");
    }

    proptest! {
        #[test]
        fn no_target_gives_more_than_one_short_visible_line_or_a_query(
            target in prop::collection::vec(any::<u8>(), 0..1024),
            query in "[?#]secret",
        ) {
            let target = [&b"/"[..], &target, query.as_bytes()].concat();
            let path = refused_path(&target).unwrap();
            prop_assert!(path.len() <= MAX_REFUSED_PATH);
            prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#'));
        }
    }
}
