//! A gateway among faults: a network and clients that misbehave, and the check of each response.

#[expect(dead_code, reason = "only `benches/soak` sends several requests at once")]
pub mod client;
pub mod lane;
pub mod proxy;
pub mod question;
pub mod rabble;
