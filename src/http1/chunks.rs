//! Reads a chunked body (RFC 9112, section 7.1) strictly. Bytes that only some readers take for the
//! end of a chunk are refused, because another message could hide behind them (CVE-2025-55315 and
//! its kin). A body that is forwarded is framed again.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

/// The next part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of its content; never empty.
    Piece(Bytes),
    /// Its end.
    End,
    /// More bytes must arrive first.
    Wait,
}

/// Reads a body from the bytes that have arrived, in pieces of any size.
#[derive(Debug, Default)]
pub struct ChunkReader {
    expected: Expected,
    /// Bytes of extensions and trailers so far, which are dropped.
    overhead: usize,
    from: Sender,
}

/// The sender. Of servers, harmless deviations are accepted: blanks behind a size, as old Apaches
/// pad it; an extension with every chunk; trailers that are not fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sender {
    #[default]
    Client,
    Server,
}

#[derive(Debug, Default)]
enum Expected {
    /// The line with the size of a chunk.
    #[default]
    Size,
    /// This number of bytes of a chunk.
    Data(u64),
    /// The CR LF behind a chunk.
    DataEnd,
    /// A trailer field, or the empty line that ends the body.
    Trailer,
    Nothing,
}

/// The bytes are no chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct NotChunked;

impl ChunkReader {
    /// Reads the body of a server's response.
    pub fn of_response() -> Self {
        Self { from: Sender::Server, ..Self::default() }
    }

    /// Takes the next part of the body off the front of `buffer`, and nothing that lies behind its
    /// end.
    ///
    /// # Errors
    /// When the bytes are no chunks.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Step, NotChunked> {
        loop {
            self.expected = match self.expected {
                Expected::Size => match line(buffer)? {
                    None => return Ok(Step::Wait),
                    Some(line) => {
                        let (size, extension) = size(&line, self.from)?;
                        if self.from == Sender::Client {
                            self.count(extension)?;
                        }
                        if size == 0 { Expected::Trailer } else { Expected::Data(size) }
                    }
                },
                Expected::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    if here == 0 {
                        return Ok(Step::Wait);
                    }
                    let left = left - here as u64;
                    self.expected =
                        if left == 0 { Expected::DataEnd } else { Expected::Data(left) };
                    return Ok(Step::Piece(buffer.split_to(here).freeze()));
                }
                Expected::DataEnd => match &buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        Expected::Size
                    }
                    [] | [b'\r'] => return Ok(Step::Wait),
                    _ => return Err(NotChunked),
                },
                Expected::Trailer => match line(buffer)? {
                    None => return Ok(Step::Wait),
                    Some(line) if line.is_empty() => Expected::Nothing,
                    Some(line) => {
                        self.count(line.len())?;
                        if self.from == Sender::Client {
                            field(&line)?;
                        }
                        Expected::Trailer
                    }
                },
                Expected::Nothing => return Ok(Step::End),
            };
        }
    }

    fn count(&mut self, overhead: usize) -> Result<(), NotChunked> {
        self.overhead += overhead;
        if self.overhead > MAX_OVERHEAD { Err(NotChunked) } else { Ok(()) }
    }
}

/// Takes a line that ends in CR LF off the front of `buffer`; `None` while its end has not arrived.
fn line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, NotChunked> {
    let looked_at = &buffer[..buffer.len().min(MAX_LINE)];
    match memchr::memchr2(b'\r', b'\n', looked_at) {
        None if looked_at.len() == MAX_LINE => Err(NotChunked),
        None => Ok(None),
        Some(end) => match &buffer[end..] {
            [b'\r', b'\n', ..] => {
                let line = buffer.split_to(end);
                buffer.advance(2);
                Ok(Some(line))
            }
            [b'\r'] => Ok(None),
            _ => Err(NotChunked),
        },
    }
}

/// The size of a chunk, in bytes, and how many bytes its extensions have.
fn size(line: &[u8], from: Sender) -> Result<(u64, usize), NotChunked> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let (extension, is_text): (_, fn(&u8) -> bool) = match from {
        Sender::Client => (extension, |byte| matches!(byte, b' '..=b'~')),
        Sender::Server => {
            let blanks = extension.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            (&extension[blanks..], |byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
        }
    };
    let well_formed = match extension {
        [] => true,
        [b';', text @ ..] => text.iter().all(is_text),
        _ => false,
    };
    let max_digits = if from == Sender::Client { MAX_SIZE_DIGITS } else { MAX_PADDED_DIGITS };
    if digits.is_empty() || digits.len() > max_digits || !well_formed {
        return Err(NotChunked);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| NotChunked)?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| NotChunked)?;
    Ok((size, extension.len()))
}

/// Checks a trailer field. It is dropped, but a malformed one hints at another reading of the body.
fn field(line: &[u8]) -> Result<(), NotChunked> {
    let colon = memchr::memchr(b':', line).ok_or(NotChunked)?;
    HeaderName::from_bytes(&line[..colon]).map_err(|_| NotChunked)?;
    HeaderValue::from_bytes(&line[colon + 1..]).map_err(|_| NotChunked)?;
    Ok(())
}

/// Most bytes of the line with the size of a chunk, or of a trailer field.
const MAX_LINE: usize = 4 * 1024;
/// Most bytes of extensions and trailer fields of one body.
const MAX_OVERHEAD: usize = 16 * 1024;
/// Most digits of a size from a client: more could overflow at a server.
const MAX_SIZE_DIGITS: usize = 15;
/// Most digits of a size from a server: more would overflow here.
const MAX_PADDED_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The content of a body, and what is left behind it.
    type Whole = (Vec<u8>, Vec<u8>);

    /// The content of the body that `bytes` begin with, arriving in pieces of `size`, and what is
    /// left behind it; `None` if it has no end.
    fn read(bytes: &[u8], size: usize) -> Result<Option<Whole>, NotChunked> {
        read_by(ChunkReader::default(), bytes, size)
    }

    fn read_by(
        mut reader: ChunkReader,
        bytes: &[u8],
        size: usize,
    ) -> Result<Option<Whole>, NotChunked> {
        let mut buffer = BytesMut::new();
        let (mut pieces, mut content) = (bytes.chunks(size), Vec::new());
        loop {
            match reader.next(&mut buffer)? {
                Step::Piece(piece) => {
                    assert!(!piece.is_empty());
                    content.extend_from_slice(&piece);
                }
                Step::End => {
                    let rest = buffer.iter().chain(pieces.flatten()).copied().collect();
                    return Ok(Some((content, rest)));
                }
                Step::Wait => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn chunks_are_read_to_their_end_and_no_further() {
        for bytes in [
            &b"3\r\nabc\r\n0\r\n\r\nrest"[..],
            b"003;a=\"b c\";d\r\nabc\r\n000;x\r\nX-Trailer: yes\r\nEmpty:\r\n\r\nrest",
            b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\nrest",
        ] {
            for size in 1..=bytes.len() {
                let (content, rest) = read(bytes, size).unwrap().expect("it has an end");
                assert_eq!((&content[..], &rest[..]), (&b"abc"[..], &b"rest"[..]));
            }
        }
        let upper = [b"A\r\n0123456789\r\n0A".as_slice(), b"\r\n0123456789\r\n0\r\n\r\n"].concat();
        assert_eq!(read(&upper, 7).unwrap().unwrap().0.len(), 20);
    }

    #[test]
    fn bytes_that_only_some_servers_read_as_a_chunk_are_refused() {
        for bytes in [
            &b"\r\n"[..],
            b";a\r\n",
            b" 3\r\n",
            b"3 \r\n",
            b"3\t;a\r\n",
            b"+3\r\n",
            b"-3\r\n",
            b"0x3\r\n",
            b"0_3\r\n",
            b"3,\r\n",
            b"g\r\n",
            b"3\n",
            b"3\rabc",
            b"3;a\nb\r\n",
            b"3;a\rb\r\n",
            b"3;\n",
            b"3;a\tb\r\n",
            b"3;a\0\r\n",
            b"3;a\x7f\r\n",
            b"3;\xe9\r\n",
            b"0000000000000003\r\n",
            b"fffffffffffffffff\r\n",
            b"3\r\nabcd",
            b"3\r\nabc\n",
            b"3\r\nabc0\r\n",
            b"3\r\nabc\rX",
            b"0\r\n\n",
            b"0\r\n:\r\n",
            b"0\r\nX\r\n",
            b"0\r\nX : y\r\n",
            b"0\r\n X: y\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX: a\0\r\n",
            b"0\r\nX: y\r\n folded\r\n\r\n",
        ] {
            for size in 1..=bytes.len() {
                let text = bytes.escape_ascii();
                assert_eq!(read(bytes, size), Err(NotChunked), "{text} in pieces of {size}");
            }
        }
    }

    #[test]
    fn harmless_deviations_of_servers_are_read_and_ambiguous_ones_refused() {
        let read = |bytes: &[u8], size| read_by(ChunkReader::of_response(), bytes, size);
        for bytes in [
            &b"3\r\nabc\r\n0\r\n\r\nrest"[..],
            b"3  \r\nabc\r\n0\t\r\n\r\nrest",
            b"3 ; a=\"\xe9\t\"\r\nabc\r\n0;\r\n\r\nrest",
            b"0000000000000003\r\nabc\r\n0000000000000000\r\n\r\nrest",
            b"3\r\nabc\r\n0\r\nno field\r\nX : y\r\n z\r\n\x01\r\n\r\nrest",
        ] {
            for size in 1..=bytes.len() {
                let (content, rest) = read(bytes, size).unwrap().expect("it has an end");
                assert_eq!((&content[..], &rest[..]), (&b"abc"[..], &b"rest"[..]));
            }
        }
        for bytes in [
            &b"\r\n"[..],
            b" 3\r\n",
            b";a\r\n",
            b"+3\r\n",
            b"0x3\r\n",
            b"3 a\r\n",
            b"3 3\r\n",
            b"3\n",
            b"3;a\nb\r\n",
            b"3;a\rb\r\n",
            b"3;a\0\r\n",
            b"00000000000000003\r\n",
            b"3\r\nabcd",
            b"3\r\nabc\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX: y\r\n\n",
        ] {
            for size in 1..=bytes.len() {
                assert_eq!(read(bytes, size), Err(NotChunked), "{}", bytes.escape_ascii());
            }
        }
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(MAX_OVERHEAD / 4 + 1));
        assert_eq!(read(trailers.as_bytes(), 999), Err(NotChunked));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = "x".repeat(4000);
        let body = |chunks| format!("1;{extension}\r\na\r\n").repeat(chunks) + "0\r\n\r\n";
        assert!(read(body(4).as_bytes(), 999).is_ok());
        assert_eq!(read(body(5).as_bytes(), 999), Err(NotChunked));
        let trailers = |lines| format!("0\r\n{}\r\n", format!("X: {extension}\r\n").repeat(lines));
        assert!(read(trailers(4).as_bytes(), 999).is_ok());
        assert_eq!(read(trailers(5).as_bytes(), 999), Err(NotChunked));
        assert_eq!(read(format!("1;{}", "x".repeat(MAX_LINE)).as_bytes(), 999), Err(NotChunked));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn pieces_of_any_size_are_judged_as_the_whole(
            bytes in "([0-3]{1,2}( {0,2}(;[a\t]{0,2})?)?[\r\n]{1,2}[ab]{0,3}[\r\n]{1,2}){0,3}0\r\n(X:y\r?\n)?\r\n.{0,3}",
            size in 1_usize..9,
        ) {
            for reader in [ChunkReader::default, ChunkReader::of_response] {
                let whole = read_by(reader(), bytes.as_bytes(), bytes.len().max(1));
                prop_assert_eq!(whole, read_by(reader(), bytes.as_bytes(), size));
            }
        }
    }
}
