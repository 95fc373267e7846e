//! A gateway among faults: a network and clients that misbehave, and the check of each response.

pub mod checked_request;
#[expect(dead_code, reason = "only `benches/soak` sends several requests at once")]
pub mod client;
pub mod faulty_server;
pub mod misbehaving_clients;
pub mod proxy;
