//! The header of the PROXY protocol, version 1 and 2 (HAProxy's `proxy-protocol.txt`), with which
//! a proxy begins a connection. It is read strictly, and no byte behind it is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads the header and gives the client's address. `None` if the proxy itself is the client, or
/// names none.
///
/// # Errors
/// When there is no well-formed header.
pub(super) async fn read_source(
    proxy: &mut (impl AsyncRead + Unpin),
) -> Result<Option<IpAddr>, HeaderError> {
    // No header of either version is shorter than this.
    let mut start = [0; SIGNATURE.len()];
    let first = match proxy.read(&mut start).await {
        Ok(0) | Err(_) => return Err(HeaderError::Unused),
        Ok(length) => length,
    };
    proxy.read_exact(&mut start[first..]).await?;
    if start == SIGNATURE {
        let mut fixed = [0; 4];
        proxy.read_exact(&mut fixed).await?;
        let [version, family, high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_V2 {
            return Err(HeaderError::Malformed("it is longer than 4 KiB"));
        }
        let mut block = vec![0; length];
        proxy.read_exact(&mut block).await?;
        return parse_v2(version, family, &block);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(HeaderError::Absent);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        if line.len() == MAX_V1 {
            return Err(HeaderError::Malformed("its line is longer than 107 bytes"));
        }
        // One at a time: the bytes behind the line are not ours to read.
        line.push(proxy.read_u8().await?);
    }
    parse_v1(&line)
}

/// Why a connection has no client's address.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// The connection ended without a byte, as those of health checks over TCP do.
    #[error("the connection ended before its first byte")]
    Unused,
    /// The connection begins with other bytes.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Absent,
    /// The header is not one of version 1 or 2.
    #[error("the header of the PROXY protocol is malformed: {0}")]
    Malformed(&'static str),
    /// The connection ended before the header did.
    #[error("the connection ended before its header of the PROXY protocol did")]
    Read(#[from] io::Error),
}

/// Parses the line of version 1, with its end.
fn parse_v1(line: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    const BAD: HeaderError = HeaderError::Malformed("its line has another form");
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let fields = line.and_then(|line| line.strip_prefix("PROXY ")).ok_or(BAD)?;
    // The specification ignores the rest of the line.
    if fields == "UNKNOWN" || fields.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let fields: Vec<_> = fields.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else {
        return Err(BAD);
    };
    let parse = |address: &str| match family {
        "TCP4" => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let ports = is_port(source_port) && is_port(destination_port);
    let source = parse(source).filter(|_| ports && parse(destination).is_some()).ok_or(BAD)?;
    Ok(Some(source.to_canonical()))
}

/// Whether it is a port in decimal, without leading zeros.
fn is_port(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

/// Parses the fields of version 2 behind the signature. `block` has the addresses and, behind them,
/// extensions (TLVs), which are ignored.
fn parse_v2(version: u8, family: u8, block: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    match version {
        LOCAL => return Ok(None),
        PROXY => {}
        _ if version >> 4 == 2 => return Err(HeaderError::Malformed("its command is unknown")),
        _ => return Err(HeaderError::Malformed("its version is unknown")),
    }
    let (source, length): (Option<IpAddr>, usize) = match family {
        UNSPECIFIED => (None, 0),
        TCP_IPV4 => (block.first_chunk::<4>().map(|bytes| (*bytes).into()), 12),
        TCP_IPV6 => (block.first_chunk::<16>().map(|bytes| (*bytes).into()), 36),
        UNIX_STREAM => (None, 216),
        _ => return Err(HeaderError::Malformed("its address is of no kind that connects here")),
    };
    if block.len() < length {
        return Err(HeaderError::Malformed("its addresses are cut off"));
    }
    Ok(source.map(|source| source.to_canonical()))
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Most bytes of a line of version 1, with its end.
const MAX_V1: usize = 107;
/// Most bytes of addresses and extensions. Those that load balancers send take some hundred; a
/// client's certificate, the largest, fits.
const MAX_V2: usize = 4096;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    /// Reads a header from `bytes`. Gives the number of the bytes behind it, too.
    fn read(mut bytes: &[u8]) -> (Result<Option<IpAddr>, HeaderError>, usize) {
        let source = read_source(&mut bytes).now_or_never().unwrap();
        (source, bytes.len())
    }

    fn v2(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, block].concat()
    }

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn headers_of_both_versions_tell_the_clients_address() {
        let ipv4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let with_extensions = [&ipv4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 9]);
        let client = Some(at("203.0.113.9"));
        for (bytes, source) in [
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n".to_vec(), client),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 0 65535\r\n".to_vec(), client),
            (b"PROXY TCP6 2001:db8:: ::1 4711 80\r\n".to_vec(), Some(at("2001:db8::"))),
            (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 80\r\n".to_vec(), client),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN anything at all\r\n".to_vec(), None),
            (v2(PROXY, TCP_IPV4, &ipv4), client),
            (v2(PROXY, TCP_IPV4, &with_extensions), client),
            (v2(PROXY, TCP_IPV6, &ipv6), Some(at("2001:db8::"))),
            (v2(PROXY, TCP_IPV6, &mapped), client),
            (v2(PROXY, UNIX_STREAM, &[1; 216]), None),
            (v2(PROXY, UNSPECIFIED, &[]), None),
            (v2(PROXY, UNSPECIFIED, &[1; MAX_V2]), None),
            (v2(LOCAL, TCP_IPV4, &ipv4), None),
            (v2(LOCAL, UNSPECIFIED, &[]), None),
        ] {
            let behind = [&bytes[..], b"\r\nGET / HTTP/1.1\r\n"].concat();
            let (read_source, left) = read(&behind);
            assert_eq!(read_source.unwrap(), source, "{}", bytes.escape_ascii());
            assert_eq!(left, 18, "no byte behind it is read: {}", bytes.escape_ascii());
            for end in 0..bytes.len() {
                assert!(read(&bytes[..end]).0.is_err(), "{end} of {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn a_connection_without_a_byte_is_not_taken_for_one_with_half_a_header() {
        assert!(matches!(read(b"").0, Err(HeaderError::Unused)));
        assert!(matches!(read(b"P").0, Err(HeaderError::Read(_))));
    }

    #[test]
    fn anything_but_a_strict_header_is_an_error() {
        let mut bad = vec![v2(PROXY, UNSPECIFIED, &[0; MAX_V2 + 1])];
        for (version, family, length) in [
            (0x22, TCP_IPV4, 12),
            (0x11, TCP_IPV4, 12),
            (0x31, TCP_IPV4, 12),
            (PROXY, TCP_IPV4, 11),
            (PROXY, TCP_IPV6, 35),
            (PROXY, UNIX_STREAM, 215),
            // Datagrams, and families and transports that do not exist.
            (PROXY, 0x12, 12),
            (PROXY, 0x22, 36),
            (PROXY, 0x10, 12),
            (PROXY, 0x01, 12),
            (PROXY, 0x41, 216),
        ] {
            bad.push(v2(version, family, &vec![0; length]));
        }
        for line in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "proxy TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 80 \r\n",
            "PROXY TCP4  203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY\tTCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.09 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0 4711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 04711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +4711 80\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 65536\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 4711 \r\n",
            "PROXY TCP4 ::1 ::1 4711 80\r\n",
            "PROXY TCP6 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY TCP6 [::1] ::1 4711 80\r\n",
            "PROXY UDP4 203.0.113.9 10.0.0.1 4711 80\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\n",
            "PROXY \r\n       ",
            "PROXY TCP4 203.0.113.9\r\nPROXY",
        ] {
            bad.push(line.into());
        }
        bad.push(format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1)).into());
        for bytes in bad {
            assert!(read(&bytes).0.is_err(), "{}", bytes.escape_ascii());
        }
        // Control: the longest line of version 1.
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
        assert_eq!(longest.len(), MAX_V1);
        assert_eq!(read(longest.as_bytes()).0.unwrap(), None);
    }

    proptest! {
        #[test]
        fn an_address_is_read_back_in_both_versions(source: IpAddr, port: u16, rest: Vec<u8>) {
            let (v1, family, block) = match source {
                IpAddr::V4(ip) => ("TCP4", TCP_IPV4, [&ip.octets()[..], &[0; 8]].concat()),
                IpAddr::V6(ip) => ("TCP6", TCP_IPV6, [&ip.octets()[..], &[0; 20]].concat()),
            };
            let line = format!("PROXY {v1} {source} {source} {port} {port}\r\n").into_bytes();
            for header in [line, v2(PROXY, family, &block)] {
                let (read, left) = read(&[&header[..], &rest].concat());
                prop_assert_eq!(read.unwrap(), Some(source.to_canonical()));
                prop_assert_eq!(left, rest.len());
            }
        }

        #[test]
        fn any_bytes_are_read_to_an_end_within_the_bounds(
            bytes in prop_oneof![
                any::<Vec<u8>>(),
                proptest::string::bytes_regex("PROXY (TCP[46]|UNKNOWN)[ 0-9a-f:.\r]{0,110}\n?").unwrap(),
                (any::<[u8; 4]>(), any::<Vec<u8>>())
                    .prop_map(|(fixed, rest)| [&SIGNATURE[..], &fixed, &rest].concat()),
            ],
        ) {
            let (_, left) = read(&bytes);
            prop_assert!(bytes.len() - left <= SIGNATURE.len() + 4 + MAX_V2);
        }
    }
}
