//! What lies between client and server: bytes, their order, their framing and their limits, over
//! real connections.

mod addresses;
mod connections;
mod forwarding;
mod replay;
mod shutdown;
mod streaming;
