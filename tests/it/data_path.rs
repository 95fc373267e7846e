//! The data path between client and server over real connections: bytes, their order, framing and
//! limits.

mod addresses;
mod awaiting_keys;
mod connections;
mod forwarding;
mod replay;
mod shutdown;
mod streaming;
