//! Reading HTTP/1.1 byte by byte, from either side.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads the body that `head` announces, chunked or by length; without either, none.
pub async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    head: &str,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header_values(head, "transfer-encoding").iter().any(|v| v.contains("chunked")) {
        loop {
            let line = read_until(stream, buffer, b"\r\n")
                .await?
                .ok_or(std::io::ErrorKind::UnexpectedEof)?;
            let size = String::from_utf8_lossy(&buffer[..line - 2]).into_owned();
            buffer.drain(..line);
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            fill(stream, buffer, size + 2).await?;
            body.extend(buffer.drain(..size));
            buffer.drain(..2);
            if size == 0 {
                return Ok(body);
            }
        }
    }
    if let Some(length) = header_values(head, "content-length").first() {
        let length: usize = length.parse().map_err(std::io::Error::other)?;
        fill(stream, buffer, length).await?;
        body.extend(buffer.drain(..length));
    }
    Ok(body)
}

pub async fn read_until<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Ok(Some(at + end.len()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

pub async fn fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    length: usize,
) -> std::io::Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

pub fn header_values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
}
