//! What lies between client and server: bytes, their order, their framing and their limits, over
//! real connections.

mod addresses;
mod awaiting_keys;
mod connections;
mod forwarding;
mod replay;
mod shutdown;
mod streaming;
