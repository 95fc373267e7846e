//! The rest of a body, by its framing (RFC 9112, section 6.3).

use bytes::BytesMut;

use super::chunks::{ChunkReader, NotChunked, Step};

/// See the module.
#[derive(Debug)]
pub enum Body {
    /// It ends after this number of bytes.
    Length(u64),
    /// It is in chunks.
    Chunked(ChunkReader),
    /// It ends with its connection.
    Close,
    /// Nothing is left.
    Done,
}

impl Body {
    /// Takes the next part of the body off the front of `buffer`, and nothing behind its end.
    ///
    /// # Errors
    /// When the body should be chunked and is not.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Step, NotChunked> {
        let (step, is_done) = match self {
            Self::Done | Self::Length(0) => (Step::End, true),
            Self::Length(_) | Self::Close if buffer.is_empty() => (Step::Wait, false),
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= here as u64;
                (Step::Piece(buffer.split_to(here).freeze()), *left == 0)
            }
            Self::Close => (Step::Piece(buffer.split().freeze()), false),
            Self::Chunked(chunks) => {
                let step = chunks.next(buffer)?;
                let is_done = step == Step::End;
                (step, is_done)
            }
        };
        if is_done {
            *self = Self::Done;
        }
        Ok(step)
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}
