//! Hides a secret in a streamed body.

use bytes::Bytes;

/// Overwrites a secret in the beginning of a body, also across the borders of pieces.
#[derive(Debug)]
pub(super) struct Redactor {
    secret: Bytes,
    /// The last bytes of the body so far, if they could be the beginning of the secret.
    held: Vec<u8>,
    /// How many more bytes are searched.
    left: usize,
}

impl Redactor {
    /// Hides `secret`, which is not empty.
    pub(super) fn new(secret: Bytes) -> Self {
        Self { secret, held: Vec::new(), left: MAX_SEARCHED }
    }

    /// The bytes of the body that may be written after `piece` has come.
    pub(super) fn pass(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        // A secret that has begun is searched for to its end.
        let begun = !bytes.is_empty();
        bytes.extend_from_slice(piece);
        if self.left == 0 && !begun {
            return bytes;
        }
        self.left = self.left.saturating_sub(piece.len());
        hide(&self.secret, &mut bytes);
        let safe = bytes.len() - beginning_at_end(&self.secret, &bytes);
        self.held = bytes.split_off(safe);
        bytes
    }

    /// The rest, at the end of the body.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Overwrites each `secret` in `bytes`; returns whether there was one.
pub(in super::super) fn hide(secret: &[u8], bytes: &mut [u8]) -> bool {
    let found: Vec<_> = memchr::memmem::find_iter(bytes, secret).collect();
    for &at in &found {
        bytes[at..at + secret.len()].fill(b'*');
    }
    !found.is_empty()
}

/// How many bytes at the end of `bytes` could be the beginning of `secret`.
fn beginning_at_end(secret: &[u8], bytes: &[u8]) -> usize {
    let longest = bytes.len().min(secret.len() - 1);
    (1..=longest).rev().find(|&length| bytes.ends_with(&secret[..length])).unwrap_or(0)
}

/// Longer than an error page that shows a request.
const MAX_SEARCHED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(secret: &'static str, body: &[u8], size: usize) -> Vec<u8> {
        let mut redactor = Redactor::new(Bytes::from_static(secret.as_bytes()));
        let mut all = Vec::new();
        for piece in body.chunks(size) {
            all.extend(redactor.pass(piece));
        }
        all.extend(redactor.finish());
        all
    }

    #[test]
    fn a_secret_is_hidden_across_pieces_and_its_beginnings_are_kept() {
        let body = b"see aab: aaab, aab aa";
        for size in 1..=body.len() {
            let expected = "see ***: a***, *** aa";
            assert_eq!(String::from_utf8(redacted("aab", body, size)).unwrap(), expected);
        }
    }

    #[test]
    fn only_the_beginning_of_a_body_is_searched() {
        let far = [vec![b'x'; MAX_SEARCHED + 1000], b"secret".to_vec()].concat();
        assert!(redacted("secret", &far, 1000) == far);
        let near = [vec![b'x'; MAX_SEARCHED - 6], b"secret".to_vec()].concat();
        assert!(redacted("secret", &near, 1000).ends_with(b"xx******"));
        let across = [vec![b'x'; MAX_SEARCHED - 3], b"secret and more".to_vec()].concat();
        let hidden = redacted("secret", &across, MAX_SEARCHED);
        assert!(hidden.ends_with(b"xx****** and more"), "one that begins there is hidden whole");
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_redacted_as_the_whole(body in "[ab]{0,40}", size in 1_usize..9) {
            let whole = body.replace("abab", "****");
            prop_assert_eq!(redacted("abab", body.as_bytes(), size), whole.as_bytes());
        }
    }
}
