//! Helpers of the tests: servers, gateways and clients to test with, and ways to make and to change
//! what they need.

pub mod admin;
pub mod audit;
pub mod client;
pub mod client_certificates;
pub mod collector;
pub mod connect_proxy;
pub mod cutter;
pub mod edit;
pub mod embedding;
pub mod faults;
pub mod files;
pub mod fleet;
pub mod gateway;
pub mod http1;
pub mod identity_provider;
pub mod load;
pub mod measured_process;
pub mod mutual_tls;
pub mod process;
pub mod redis;
pub mod reloads;
pub mod scripted;
pub mod sentinel;
pub mod server_certificates;
pub mod stand_in;
pub mod steady_flow;
pub mod tenants;
pub mod tls;
pub mod two_callers;
pub mod upstream;
pub mod waiting;
