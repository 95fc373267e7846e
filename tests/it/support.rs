//! What the tests share: servers, gateways and clients to test with, and ways to make and to change
//! what they need.

pub mod client;
pub mod client_certificates;
pub mod files;
pub mod gateway;
pub mod http1;
pub mod identity_provider;
pub mod process;
pub mod server_certificates;
pub mod stand_in;
pub mod tenants;
pub mod upstream;
pub mod waiting;
