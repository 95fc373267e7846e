//! HTTP/1.1: connections, bodies, and requests to servers. All responses of servers are read here,
//! so that data, tokens, keys and health checks get the same verdict on the same bytes.

mod body;
mod chunks;
mod client;
mod connection;
mod counted;
mod head;

pub use body::Body;
pub use chunks::{ChunkReader, NotChunked, Step};
pub use client::{ClientSession, ResponseError};
pub use connection::{Connection, FirstBytes, Transport, WriteState};
pub use counted::Counted;
pub use pingora::http::RequestHeader;
